//! Decides the end of an attempt: its verdict, whether its stack is kept, and how long clean-up may take.
//!
//! The decision is pure. It is the last one, made whatever died before it.

use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Keep;
use std::time::Duration;

/// Time for services to stop, unless a cancel order gives less.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Additional time for the engine to remove all objects.
const REMOVAL: Duration = Duration::from_secs(60);

/// Ways in which an attempt ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The sequence reached a verdict.
    Judged(Outcome, Option<String>),
    /// The attempt could not start, for this reason.
    NotBegun(String),
    /// One of its actors died, with this message.
    Died(String),
}

/// The outcome of an attempt and the limits of its clean-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The attempt's outcome.
    pub outcome: Outcome,
    /// Reason, as shown in reports.
    pub reason: Option<String>,
    /// Time for services to stop.
    pub grace: Duration,
    /// Time limit for the whole clean-up.
    pub deadline: Duration,
    /// How long the stack is kept, or `None` to tear it down.
    pub keep: Option<Duration>,
}

/// Decides the verdict for an ending.
pub fn judge(ending: Ending, keep: Keep, cancel: Option<&CancelOrder>) -> Verdict {
    let (outcome, reason) = match ending {
        Ending::Judged(outcome, reason) => (outcome, reason),
        Ending::NotBegun(reason) => (Outcome::Errored, Some(reason)),
        Ending::Died(panic) => (Outcome::Errored, Some(format!("a bug of phalanx: {panic}"))),
    };
    let grace = match cancel {
        Some(order) if order.force => Duration::ZERO,
        Some(order) => order.grace.min(STOP_GRACE),
        None => STOP_GRACE,
    };
    Verdict {
        outcome,
        reason,
        grace,
        deadline: grace + REMOVAL,
        keep: kept(keep, outcome),
    }
}

/// A cancelled attempt isn't kept as a failure, because nobody waits to inspect it.
fn kept(keep: Keep, outcome: Outcome) -> Option<Duration> {
    match keep {
        Keep::Always { ttl_s } => Some(Duration::from_secs(ttl_s)),
        Keep::OnFailure { ttl_s } if matches!(outcome, Outcome::Failed | Outcome::Errored) => {
            Some(Duration::from_secs(ttl_s))
        }
        Keep::OnFailure { .. } | Keep::Never => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_actor_makes_the_attempt_errored_with_the_panic_text() {
        let verdict = judge(
            Ending::Died("index out of bounds".to_owned()),
            Keep::Never,
            None,
        );
        assert_eq!(verdict.outcome, Outcome::Errored);
        assert!(
            verdict
                .reason
                .is_some_and(|reason| reason.contains("index out of bounds"))
        );
    }

    #[test]
    fn a_stack_is_kept_on_failure_only_if_it_failed() {
        let keep = Keep::OnFailure { ttl_s: 60 };
        let of = |outcome| judge(Ending::Judged(outcome, None), keep, None).keep;
        assert_eq!(of(Outcome::Failed), Some(Duration::from_secs(60)));
        assert_eq!(of(Outcome::Errored), Some(Duration::from_secs(60)));
        assert_eq!(of(Outcome::Passed), None);
        assert_eq!(of(Outcome::Cancelled), None);
    }

    #[test]
    fn a_forced_cancel_leaves_services_no_grace() {
        let order = CancelOrder {
            grace: Duration::from_secs(30),
            reason: "twice".to_owned(),
            force: true,
        };
        let ending = Ending::Judged(Outcome::Cancelled, None);
        assert_eq!(
            judge(ending, Keep::Never, Some(&order)).grace,
            Duration::ZERO
        );
    }
}
