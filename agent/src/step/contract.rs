//! The contract between the sequence and a step: the items of a spec, the evaluated surroundings of an action, and the
//! end of one try.

use crate::context::frame::{Handed, Value};
use phalanx_shared::event::{Captured, CheckResult, Culprit, Failure, Output, StepResult};
use phalanx_shared::language::model::{DefineBody, Phase, Spec, Step};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::wait::{Wait, WaitCause};
use std::sync::Arc;
use std::time::Duration;

/// A phase or a step of the spec.
#[derive(Clone, Debug)]
pub enum Item {
    /// A phase.
    Phase(Arc<Phase>),
    /// A step.
    Step(Arc<Step>),
}

impl Item {
    /// Returns whether the item runs after a failure, a timeout or a cancel order.
    pub fn always(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.always,
            Item::Step(step) => step.always,
        }
    }

    /// Returns whether the items after it run if it fails.
    pub fn continue_on_failure(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.continue_on_failure,
            Item::Step(step) => step.continue_on_failure,
        }
    }

    /// Returns whether it has a `when`.
    pub fn has_when(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.when.is_some(),
            Item::Step(step) => step.when.is_some(),
        }
    }
}

/// The result of evaluating `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The item runs.
    Run,
    /// The item doesn't run, for this reason.
    Not { reason: String },
}

/// The values of a `foreach`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    /// The values, in order.
    pub values: Vec<Value>,
    /// Whether they are secrets or made of one.
    pub secret: bool,
}

/// Reasons why an item could not be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It reads a capture of a step that has none because it was skipped or failed: `needs ID, skipped: …`.
    Needs(Needed),
    /// Its evaluation failed.
    Invalid {
        /// The item's name, evaluated as far as possible.
        name: String,
        /// `failed`, or `errored` if a service that it names is unavailable.
        outcome: Outcome,
        message: String,
        failure: Option<Box<Failure>>,
        /// What it follows from, if not from the item itself.
        culprit: Option<Culprit>,
    },
}

/// A step that another one needs, and that has no captures.
#[derive(Clone, Debug, PartialEq)]
pub struct Needed {
    /// Reason in one line: `needs ID, skipped: …`.
    pub reason: String,
    /// The step; if that one needed another one, the first.
    pub culprit: Culprit,
}

/// The evaluated surroundings of an action.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opening {
    /// Name in reports, without the `foreach` key.
    pub name: String,
    /// Rows of the coverage table that the item names itself.
    pub rows: Vec<String>,
    /// Timeout of a phase or group. The action of a leaf applies its timeout itself.
    pub timeout: Option<Duration>,
    /// Maximum number of further tries after the first.
    pub retries: u32,
    /// Delay between two tries.
    pub delay: Duration,
    /// The arguments of a `use`.
    pub params: Handed,
}

/// What the tries of a step waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// For services to become ready, before the action.
    pub readiness: Duration,
    /// In the last pause of the poll.
    pub poll: Duration,
    /// Between the tries.
    pub retry: Duration,
}

impl Waits {
    /// Shorter waits are not reported.
    const SHORTEST: Duration = Duration::from_millis(1);

    /// Adds the waits of another try.
    pub fn add(&mut self, other: Waits) {
        self.readiness += other.readiness;
        self.poll += other.poll;
        self.retry += other.retry;
    }

    /// Returns the waits by cause.
    pub fn by_cause(self) -> Vec<Wait> {
        let waits = [
            (WaitCause::Readiness, self.readiness),
            (WaitCause::PollInterval, self.poll),
            (WaitCause::RetryPause, self.retry),
        ];
        let long = waits
            .into_iter()
            .filter(|(_, time)| *time >= Self::SHORTEST);
        long.map(|(cause, time)| Wait {
            cause,
            us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        })
        .collect()
    }
}

/// The end of one try of an action, or of the conclusion of a group.
#[derive(Clone, Debug)]
pub struct End {
    /// Passed, skipped, failed, errored or cancelled.
    pub outcome: Outcome,
    /// Reason in one line, as shown in reports.
    pub reason: Option<String>,
    /// Whether a time limit ended it.
    pub timed_out: bool,
    /// What it follows from, if not from the step itself.
    pub culprit: Option<Culprit>,
    /// Whether the step's `skip` applied, so that the group around it is skipped too.
    pub skips_group: bool,
    /// The result of each check.
    pub checks: Vec<CheckResult>,
    /// The output of its command.
    pub output: Option<Output>,
    /// Evidence that helps to find the cause.
    pub failure: Option<Failure>,
    /// Number of repetitions of the action.
    pub polls: u32,
    /// What the try waited for: services that weren't ready, and the last pause of its poll.
    pub waits: Waits,
    /// Values that later steps can read; empty unless the try passed.
    pub handed: Arc<Handed>,
    /// The same values as events show them.
    pub captured: Vec<Captured>,
    /// Test cases that its command ran; a path holds only the part below the step.
    pub cases: Vec<StepResult>,
}

impl End {
    /// Creates an end without checks and captures.
    pub fn bare(outcome: Outcome, reason: Option<String>) -> Self {
        End {
            outcome,
            reason,
            timed_out: false,
            culprit: None,
            skips_group: false,
            checks: Vec::new(),
            output: None,
            failure: None,
            polls: 0,
            waits: Waits::default(),
            handed: Arc::default(),
            captured: Vec::new(),
            cases: Vec::new(),
        }
    }

    /// Creates the end of a step that a time limit ended.
    pub fn timed_out(outcome: Outcome, reason: String) -> Self {
        End {
            timed_out: true,
            ..End::bare(outcome, Some(reason))
        }
    }
}

/// Returns the body of a define.
pub fn body<'a>(spec: &'a Spec, define: &str) -> Option<&'a DefineBody> {
    spec.define
        .iter()
        .find(|known| known.name.text == define)
        .map(|known| &known.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_all_tries_are_summed_and_short_ones_are_left_out() {
        let ms = Duration::from_millis;
        let mut waits = Waits::default();
        for _ in 0..2 {
            waits.add(Waits {
                readiness: Duration::from_micros(400),
                poll: ms(300),
                retry: ms(0),
            });
        }
        waits.retry += ms(2_000);
        let expected = [
            (WaitCause::PollInterval, 600_000),
            (WaitCause::RetryPause, 2_000_000),
        ];
        let expected = expected.map(|(cause, us)| Wait { cause, us });
        assert_eq!(waits.by_cause(), expected);
    }
}
