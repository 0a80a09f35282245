//! Combines the outcomes of several steps into the outcome of the node that contains them.

use phalanx_shared::event::Culprit;
use phalanx_shared::outcome::Outcome;

/// Counts the ends of the steps of a group, phase, loop or cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    total: usize,
    skipped: usize,
    flaky: bool,
    worst: Option<Outcome>,
    blame: Option<Blame>,
    skip_reason: Option<String>,
    same_skip_reason: bool,
}

/// The step that caused a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    /// Name of the step.
    pub step: String,
    /// Reason of its failure.
    pub reason: Option<String>,
    /// Outcome of the step.
    pub outcome: Outcome,
    /// What it follows from, if not from the step itself.
    pub culprit: Option<Culprit>,
}

impl Tally {
    /// Counts one end.
    pub(super) fn add(&mut self, outcome: Outcome, reason: Option<&str>, blame: Option<&Blame>) {
        self.total += 1;
        match outcome {
            Outcome::Passed => {}
            Outcome::Flaky => self.flaky = true,
            Outcome::Skipped => {
                self.skipped += 1;
                if self.skipped == 1 {
                    self.skip_reason = reason.map(str::to_owned);
                    self.same_skip_reason = true;
                } else if self.skip_reason.as_deref() != reason {
                    self.same_skip_reason = false;
                }
            }
            Outcome::Cancelled | Outcome::Failed | Outcome::Errored => {
                self.worst = self.worst.max(Some(outcome));
                if let Some(blame) = blame
                    && self
                        .blame
                        .as_ref()
                        .is_none_or(|known| known.outcome < blame.outcome)
                {
                    self.blame = Some(blame.clone());
                }
            }
        }
    }

    /// Adds a verdict from outside: a timeout or a cancel order.
    pub(super) fn charge(&mut self, blame: Blame) {
        self.worst = self.worst.max(Some(blame.outcome));
        if self
            .blame
            .as_ref()
            .is_none_or(|known| known.outcome <= blame.outcome)
        {
            self.blame = Some(blame);
        }
    }

    /// Returns the worst step's name and reason.
    pub(super) fn blame(&self) -> Option<&Blame> {
        self.blame.as_ref()
    }

    /// Returns whether a step passed only after it had failed.
    pub(super) fn is_flaky(&self) -> bool {
        self.flaky
    }

    /// Returns the combined outcome: that of the worst step if one failed, else skipped if the node or all of its steps
    /// were skipped, else flaky or passed.
    pub(super) fn outcome(&self, skipped: Option<&str>) -> (Outcome, Option<String>) {
        if let Some(worst) = self.worst {
            return (worst, self.blame.as_ref().map(Blame::line));
        }
        if let Some(reason) = skipped {
            return (Outcome::Skipped, Some(reason.to_owned()));
        }
        if self.total > 0 && self.skipped == self.total {
            let reason = self.skip_reason.clone().filter(|_| self.same_skip_reason);
            return (
                Outcome::Skipped,
                reason.or_else(|| Some("everything in it was skipped".to_owned())),
            );
        }
        let outcome = if self.flaky {
            Outcome::Flaky
        } else {
            Outcome::Passed
        };
        (outcome, None)
    }
}

impl Blame {
    /// Formats the blame as `step: reason`.
    pub(super) fn line(&self) -> String {
        match &self.reason {
            Some(reason) if self.step.is_empty() => reason.clone(),
            Some(reason) => format!("{}: {reason}", self.step),
            None => self.step.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(outcomes: &[Outcome]) -> Outcome {
        let mut tally = Tally::default();
        for outcome in outcomes {
            tally.add(*outcome, None, None);
        }
        tally.outcome(None).0
    }

    #[test]
    fn a_group_is_failed_before_it_is_skipped_before_it_is_passed() {
        use Outcome::{Errored, Failed, Flaky, Passed, Skipped};
        assert_eq!(of(&[Passed, Failed, Skipped]), Failed);
        assert_eq!(of(&[Failed, Errored]), Errored);
        assert_eq!(of(&[Passed, Skipped]), Passed);
        assert_eq!(of(&[Skipped, Skipped]), Skipped);
        assert_eq!(of(&[Passed, Flaky]), Flaky);
        assert_eq!(of(&[]), Passed);
    }

    #[test]
    fn the_reason_of_a_wholly_skipped_group_is_the_common_one() {
        let mut tally = Tally::default();
        tally.add(Outcome::Skipped, Some("no such route"), None);
        tally.add(Outcome::Skipped, Some("no such route"), None);
        assert_eq!(
            tally.outcome(None),
            (Outcome::Skipped, Some("no such route".to_owned()))
        );
        tally.add(Outcome::Skipped, Some("another"), None);
        assert_eq!(
            tally.outcome(None).1.as_deref(),
            Some("everything in it was skipped")
        );
    }
}
