//! Converts outcomes. Unspecified means "no outcome yet".

use crate::v1;
use phalanx_shared::outcome::Outcome;

/// The outcome's number is unknown to this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outcome {0} is not known to this version")]
pub struct UnknownOutcome(pub i32);

/// Converts a wire number to an outcome; unspecified becomes `None`.
pub fn outcome_from_wire(number: i32) -> Result<Option<Outcome>, UnknownOutcome> {
    let wire = v1::Outcome::try_from(number).map_err(|_| UnknownOutcome(number))?;
    Ok(match wire {
        v1::Outcome::Unspecified => None,
        v1::Outcome::Passed => Some(Outcome::Passed),
        v1::Outcome::Flaky => Some(Outcome::Flaky),
        v1::Outcome::Skipped => Some(Outcome::Skipped),
        v1::Outcome::Cancelled => Some(Outcome::Cancelled),
        v1::Outcome::Failed => Some(Outcome::Failed),
        v1::Outcome::Errored => Some(Outcome::Errored),
    })
}

/// Converts an outcome to its wire value; `None` becomes unspecified.
pub fn outcome_to_wire(outcome: Option<Outcome>) -> v1::Outcome {
    match outcome {
        None => v1::Outcome::Unspecified,
        Some(Outcome::Passed) => v1::Outcome::Passed,
        Some(Outcome::Flaky) => v1::Outcome::Flaky,
        Some(Outcome::Skipped) => v1::Outcome::Skipped,
        Some(Outcome::Cancelled) => v1::Outcome::Cancelled,
        Some(Outcome::Failed) => v1::Outcome::Failed,
        Some(Outcome::Errored) => v1::Outcome::Errored,
    }
}
