//! The contract between the sequence and a step: the items of a spec, the evaluated surroundings of an action, and the
//! end of one try.

use phalanx_shared::event::{CheckResult, Failure, Output};
use phalanx_shared::language::model::{DefineBody, Phase, Spec, Step};
use phalanx_shared::outcome::Outcome;
use serde_json::Value;
use std::collections::BTreeMap;
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

/// Reasons why an item could not be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It reads a capture of a step that has none because it was skipped or failed: `needs ID, skipped: …`.
    Needs { reason: String },
    /// Its evaluation failed.
    Invalid {
        /// The item's name, evaluated as far as possible.
        name: String,
        /// `failed`, or `errored` if a service that it names is unavailable.
        outcome: Outcome,
        message: String,
        failure: Option<Box<Failure>>,
    },
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
    pub params: BTreeMap<String, Value>,
}

/// The end of one try of an action, or of the conclusion of a group.
#[derive(Clone, Debug)]
pub struct End {
    /// Passed, skipped, failed, errored or cancelled.
    pub outcome: Outcome,
    /// Reason in one line, as shown in reports.
    pub reason: Option<String>,
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
    /// Values that later steps can read; empty unless the try passed.
    pub captures: Arc<BTreeMap<String, Value>>,
}

impl End {
    /// Creates an end without checks and captures.
    pub fn bare(outcome: Outcome, reason: Option<String>) -> Self {
        End {
            outcome,
            reason,
            skips_group: false,
            checks: Vec::new(),
            output: None,
            failure: None,
            polls: 0,
            captures: Arc::default(),
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
