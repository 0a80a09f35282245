//! The closed set of outcomes with which steps and cells end.

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr, VariantArray};

/// The outcome of a step, a group, a phase or a cell.
///
/// Variants are ordered by severity, best first: the worst of several outcomes is their maximum (see
/// [`Outcome::worst`]).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Every check held at the first try.
    Passed,
    /// A check failed in an earlier try and a later one passed.
    Flaky,
    /// Not run, always with a reason.
    Skipped,
    /// Stopped by a cancellation.
    Cancelled,
    /// The system under test is wrong.
    Failed,
    /// The system under test could not be judged: pull, build, daemon, lost agent, disk, a bug in Phalanx.
    Errored,
}

impl Outcome {
    /// Returns the most severe of the outcomes, or `None` if there are none.
    pub fn worst(outcomes: impl IntoIterator<Item = Outcome>) -> Option<Outcome> {
        outcomes.into_iter().max()
    }

    /// Returns whether the outcome is passed, flaky or skipped.
    pub fn is_ok(self) -> bool {
        matches!(self, Outcome::Passed | Outcome::Flaky | Outcome::Skipped)
    }

    /// Returns the outcome's name in lower case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;
    use strum::VariantArray;

    #[test]
    fn an_outcome_has_one_name_everywhere() {
        for outcome in Outcome::VARIANTS {
            assert_eq!(serde_json::json!(outcome), outcome.as_str());
            assert_eq!(
                format!("{outcome:>10}"),
                format!("{:>10}", outcome.as_str())
            );
        }
    }
}
