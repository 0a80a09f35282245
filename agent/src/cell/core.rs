//! What the end of an attempt means: its verdict, whether its stack is kept, how long clean-up may take.
//!
//! Pure: the one decision that is made after everything else, whatever died before it.

use super::super::cell_contract::CancelOrder;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Keep;
use std::any::Any;
use std::time::Duration;

/// For services that are asked to stop, unless a cancel says otherwise.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Beyond that grace, for the engine to remove everything.
const REMOVAL: Duration = Duration::from_secs(60);

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its sequence came to a verdict.
    Judged(Outcome, Option<String>),
    /// It could not begin.
    NotBegun(String),
    /// An actor of it died.
    Died(String),
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The attempt's outcome.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// For services that are asked to stop.
    pub grace: Duration,
    /// How long all of the clean-up may take.
    pub deadline: Duration,
    /// How long the stack is kept instead of being torn down.
    pub keep: Option<Duration>,
}

/// Decides what an end means.
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

/// A cancelled attempt isn't kept for its failure: nobody waits for it.
fn kept(keep: Keep, outcome: Outcome) -> Option<Duration> {
    match keep {
        Keep::Always { ttl_s } => Some(Duration::from_secs(ttl_s)),
        Keep::OnFailure { ttl_s } if matches!(outcome, Outcome::Failed | Outcome::Errored) => {
            Some(Duration::from_secs(ttl_s))
        }
        Keep::OnFailure { .. } | Keep::Never => None,
    }
}

/// The text of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
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
