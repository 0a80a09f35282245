//! Conversions between wire and domain, in both directions: one file per type, with its `Invalid*` error. Every value
//! is destructured, so that a new field breaks the build here instead of being forgotten. The bounds of
//! [`crate::limit`] are checked on incoming messages.

mod diagnostic;
mod event;
mod from_agent;
mod identity;
mod keep;
mod log;
mod outcome;
mod policy;
mod resources;
mod snapshots;
pub(crate) mod to_agent;
mod token;
mod workspace;

pub use diagnostic::{InvalidDiagnostic, Refusal};
pub use event::{InvalidEvent, InvalidRecorded};
pub use from_agent::InvalidFromAgent;
pub use identity::InvalidId;
pub use keep::InvalidKeep;
pub use log::{InvalidLogDown, InvalidLogUp, UnknownLogStream, stream_from_wire, stream_to_wire};
pub use outcome::{UnknownOutcome, outcome_from_wire, outcome_to_wire};
pub use resources::MissingResources;
pub use to_agent::InvalidToAgent;
pub use token::InvalidToken;
pub use workspace::{InvalidPart, workspace_digest};

/// Returns a duration in milliseconds, saturating.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
