//! Decides the life of an attempt: when opening its stacks is given up, what its sequence is told, and how it ends: its
//! verdict, whether its stack is kept, and how long clean-up may take.
//!
//! It is pure: no runtime, no clock. [`Cell::handle`] takes one [`Input`] and returns the [`Effect`]s to perform in order.
//! The verdict is the last decision, made whatever died before it.

use crate::context::services::Down;
use crate::duration::duration_text;
use crate::sequence::effect::{self as sequence, Judgement};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Keep;
use std::time::Duration;

/// Time for services to stop, unless a cancel order gives less.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Additional time for the engine to remove all objects.
const REMOVAL: Duration = Duration::from_secs(60);
/// Time for keeping artifacts at the end.
const COLLECT: Duration = Duration::from_secs(60);
/// Time for keeping artifacts after a cancel order, unless the order gives less.
const COLLECT_CANCELLED: Duration = Duration::from_secs(10);
/// Maximum time that stacks which are being opened get after a cancel order.
const OPEN_GRACE: Duration = Duration::from_secs(10);

/// One attempt at a cell.
#[derive(Debug)]
pub struct Cell {
    keep: Keep,
    /// The cell's timeout.
    limit: Duration,
    stage: Stage,
    /// The newest cancel order.
    order: Option<CancelOrder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its directories and stacks are being prepared.
    Opening,
    /// Its actors run.
    Running,
    /// It has its verdict.
    Over,
}

/// Inputs of an attempt.
#[derive(Debug)]
pub enum Input {
    /// It was assigned; the stacks are being opened.
    Assigned,
    /// The stacks are open and the actors run.
    Begun,
    /// An armed timer fired.
    Fired(Timer),
    /// A cancel order arrived.
    Cancelled(CancelOrder),
    /// A service exited unexpectedly or can't become ready.
    Down(Box<Down>),
    /// It is over: it could not start, its sequence has a verdict, or an actor died.
    Ended(Ending),
}

/// Effects that an attempt wants performed, in order.
#[derive(Debug)]
pub enum Effect {
    /// Arm a timer; answered by [`Input::Fired`].
    Arm { timer: Timer, after: Duration },
    /// Tell the sequence.
    Tell(sequence::Input),
    /// Last effect: emit the verdict and clean up.
    End(Verdict),
}

/// The purposes of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The cell's timeout, until its sequence runs and keeps it.
    Limit,
    /// Grace for opening the stacks after a cancel order. An engine may hang.
    OpenGrace,
}

/// Ways in which an attempt ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The sequence reached a verdict.
    Judged(sequence::Judgement),
    /// The attempt could not start, for this reason.
    NotBegun(String),
    /// The cell's timeout was over before the attempt could start.
    TimedOut(String),
    /// One of its actors died, with this message.
    Died(String),
}

/// The outcome of an attempt and the limits of its clean-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The attempt's outcome and its reason.
    pub judgement: Judgement,
    /// Time for services to stop.
    pub grace: Duration,
    /// Time limit for keeping artifacts, before the clean-up begins.
    pub collect: Duration,
    /// Time limit for the whole clean-up.
    pub deadline: Duration,
    /// How long the stack is kept, or `None` to tear it down.
    pub keep: Option<Duration>,
}

impl Cell {
    /// Creates an attempt with its cell's timeout.
    pub fn new(keep: Keep, limit: Duration) -> Self {
        Cell {
            keep,
            limit,
            stage: Stage::Opening,
            order: None,
        }
    }

    /// Handles one input and returns the effects to perform.
    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        match (self.stage, input) {
            (Stage::Over, _) => Vec::new(),
            (Stage::Opening, Input::Assigned) => {
                let (timer, after) = (Timer::Limit, self.limit);
                vec![Effect::Arm { timer, after }]
            }
            (Stage::Opening, Input::Begun) => {
                self.stage = Stage::Running;
                let order = self.order.clone().map(sequence::Input::Cancelled);
                let all = [sequence::Input::Start].into_iter().chain(order);
                all.map(Effect::Tell).collect()
            }
            (Stage::Opening, Input::Fired(timer)) => self.given_up(timer),
            (Stage::Opening, Input::Cancelled(mut order)) => {
                let (timer, after) = (Timer::OpenGrace, order.grace.min(OPEN_GRACE));
                let arm = match &self.order {
                    None => vec![Effect::Arm { timer, after }],
                    Some(first) => {
                        order.reason.clone_from(&first.reason);
                        Vec::new()
                    }
                };
                self.order = Some(order);
                arm
            }
            (Stage::Running, Input::Cancelled(order)) => {
                self.order = Some(order.clone());
                vec![Effect::Tell(sequence::Input::Cancelled(order))]
            }
            (Stage::Running, Input::Down(down)) => {
                vec![Effect::Tell(sequence::Input::ServiceDown(down))]
            }
            (_, Input::Ended(ending)) => {
                self.stage = Stage::Over;
                vec![Effect::End(judge(ending, self.keep, self.order.as_ref()))]
            }
            // Once the sequence runs, it keeps the cell's timeout.
            (Stage::Running, Input::Fired(_) | Input::Assigned | Input::Begun)
            | (Stage::Opening, Input::Down(_)) => Vec::new(),
        }
    }

    /// Gives up an attempt whose stacks are still being opened.
    fn given_up(&mut self, timer: Timer) -> Vec<Effect> {
        let ending = match (timer, &self.order) {
            (Timer::OpenGrace, Some(order)) => {
                let reason = format!("cancelled: {}", order.reason);
                Ending::Judged(Judgement::bare(Outcome::Cancelled, Some(reason)))
            }
            _ => Ending::TimedOut(format!(
                "the cell timed out after {}, before its stack was open",
                duration_text(self.limit)
            )),
        };
        self.handle(Input::Ended(ending))
    }
}

/// Decides the verdict for an ending.
pub fn judge(ending: Ending, keep: Keep, cancel: Option<&CancelOrder>) -> Verdict {
    let errored = |reason| Judgement::bare(Outcome::Errored, Some(reason));
    let judgement = match ending {
        Ending::Judged(judgement) => judgement,
        Ending::NotBegun(reason) => errored(reason),
        Ending::TimedOut(reason) => Judgement {
            timed_out: true,
            ..errored(reason)
        },
        Ending::Died(panic) => errored(format!("a bug of phalanx: {panic}")),
    };
    let (grace, collect) = times(cancel);
    Verdict {
        grace,
        collect,
        deadline: grace + REMOVAL,
        keep: kept(keep, judgement.outcome),
        judgement,
    }
}

/// Returns the time for services to stop, and the time for keeping artifacts.
fn times(cancel: Option<&CancelOrder>) -> (Duration, Duration) {
    match cancel {
        Some(order) if order.force => (Duration::ZERO, Duration::ZERO),
        Some(order) => (
            order.grace.min(STOP_GRACE),
            order.grace.min(COLLECT_CANCELLED),
        ),
        None => (STOP_GRACE, COLLECT),
    }
}

impl Verdict {
    /// Handles a cancel order that came after the verdict: what is left to do is done in less time.
    pub fn hurry(&mut self, order: &CancelOrder) {
        let (grace, collect) = times(Some(order));
        self.grace = self.grace.min(grace);
        self.collect = self.collect.min(collect);
        self.deadline = self.grace + REMOVAL;
    }

    /// Handles a missing file that had to be there: it changes a good outcome, and so whether the stack is kept.
    pub fn lacks(&mut self, problem: String, keep: Keep) {
        if self.judgement.outcome.is_ok() {
            self.judgement.outcome = Outcome::Errored;
            self.judgement.reason = Some(problem);
            self.keep = kept(keep, Outcome::Errored);
        }
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

    fn order(reason: &str, grace: u64) -> CancelOrder {
        CancelOrder {
            grace: Duration::from_secs(grace),
            reason: reason.to_owned(),
            force: false,
        }
    }

    fn ends(effects: &[Effect]) -> Option<(Outcome, Option<&str>)> {
        match effects {
            [Effect::End(Verdict { judgement, .. })] => {
                Some((judgement.outcome, judgement.reason.as_deref()))
            }
            _ => None,
        }
    }

    fn opening() -> Cell {
        let limit = Duration::from_secs(90);
        let mut cell = Cell::new(Keep::Never, limit);
        let effects = cell.handle(Input::Assigned);
        assert!(
            matches!(effects.as_slice(), [Effect::Arm { timer: Timer::Limit, after }] if *after == limit)
        );
        cell
    }

    #[test]
    fn stacks_that_are_being_opened_are_given_up_at_the_timeout_or_after_the_grace_of_a_cancel() {
        let effects = opening().handle(Input::Fired(Timer::Limit));
        let reason = "the cell timed out after 1m30s, before its stack was open";
        assert_eq!(ends(&effects), Some((Outcome::Errored, Some(reason))));

        let mut cell = opening();
        let effects = cell.handle(Input::Cancelled(order("by hand", 60)));
        assert!(
            matches!(effects.as_slice(), [Effect::Arm { timer: Timer::OpenGrace, after }] if *after == OPEN_GRACE)
        );
        assert!(cell.handle(Input::Cancelled(order("again", 0))).is_empty());
        let effects = cell.handle(Input::Fired(Timer::OpenGrace));
        let reason = "cancelled: by hand";
        assert_eq!(ends(&effects), Some((Outcome::Cancelled, Some(reason))));
        assert!(cell.handle(Input::Fired(Timer::Limit)).is_empty());
    }

    #[test]
    fn the_sequence_is_told_of_an_order_that_came_before_it_began() {
        let mut cell = opening();
        cell.handle(Input::Cancelled(order("early", 5)));
        let effects = cell.handle(Input::Begun);
        assert!(matches!(
            effects.as_slice(),
            [
                Effect::Tell(sequence::Input::Start),
                Effect::Tell(sequence::Input::Cancelled(_))
            ]
        ));
        assert!(cell.handle(Input::Fired(Timer::OpenGrace)).is_empty());
        let effects = cell.handle(Input::Cancelled(order("late", 5)));
        assert!(matches!(effects.as_slice(), [Effect::Tell(_)]));
        let judged = Ending::Judged(Judgement::bare(Outcome::Cancelled, None));
        let effects = cell.handle(Input::Ended(judged));
        assert_eq!(ends(&effects), Some((Outcome::Cancelled, None)));
    }

    #[test]
    fn a_dead_actor_makes_the_attempt_errored_with_the_panic_text() {
        let verdict = judge(
            Ending::Died("index out of bounds".to_owned()),
            Keep::Never,
            None,
        );
        assert_eq!(verdict.judgement.outcome, Outcome::Errored);
        assert!(
            verdict
                .judgement
                .reason
                .is_some_and(|reason| reason.contains("index out of bounds"))
        );
    }

    #[test]
    fn a_stack_is_kept_on_failure_only_if_it_failed() {
        let keep = Keep::OnFailure { ttl_s: 60 };
        let of = |outcome| judge(Ending::Judged(Judgement::bare(outcome, None)), keep, None).keep;
        assert_eq!(of(Outcome::Failed), Some(Duration::from_secs(60)));
        assert_eq!(of(Outcome::Errored), Some(Duration::from_secs(60)));
        assert_eq!(of(Outcome::Passed), None);
        assert_eq!(of(Outcome::Cancelled), None);
    }

    #[test]
    fn an_order_that_comes_after_the_verdict_leaves_less_time_and_never_more() {
        let passed = || Ending::Judged(Judgement::bare(Outcome::Passed, None));
        let mut verdict = judge(passed(), Keep::Never, None);
        verdict.hurry(&order("late", 4));
        let (grace, collect) = (verdict.grace, verdict.collect);
        assert_eq!(
            (grace, collect),
            (Duration::from_secs(4), Duration::from_secs(4))
        );
        assert_eq!(verdict.deadline, Duration::from_secs(4) + REMOVAL);
        verdict.hurry(&order("later", 9));
        assert_eq!(verdict.grace, Duration::from_secs(4));
        let force = true;
        verdict.hurry(&CancelOrder {
            force,
            ..order("at once", 9)
        });
        assert_eq!(
            (verdict.grace, verdict.collect),
            (Duration::ZERO, Duration::ZERO)
        );
        assert_eq!(verdict.judgement.outcome, Outcome::Passed);
    }

    #[test]
    fn a_stack_whose_file_is_missing_is_kept_on_failure() {
        let keep = Keep::OnFailure { ttl_s: 60 };
        let of = |outcome| {
            let judged = Ending::Judged(Judgement::bare(outcome, None));
            let mut verdict = judge(judged, keep, None);
            verdict.lacks("no file".to_owned(), keep);
            (verdict.judgement.outcome, verdict.keep)
        };
        let kept = Some(Duration::from_secs(60));
        assert_eq!(of(Outcome::Passed), (Outcome::Errored, kept));
        assert_eq!(of(Outcome::Failed), (Outcome::Failed, kept));
        assert_eq!(of(Outcome::Cancelled), (Outcome::Cancelled, None));
    }

    #[test]
    fn a_forced_cancel_leaves_services_no_grace() {
        let order = CancelOrder {
            grace: Duration::from_secs(30),
            reason: "twice".to_owned(),
            force: true,
        };
        let ending = Ending::Judged(Judgement::bare(Outcome::Cancelled, None));
        assert_eq!(
            judge(ending, Keep::Never, Some(&order)).grace,
            Duration::ZERO
        );
    }
}
