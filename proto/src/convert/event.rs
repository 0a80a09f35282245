//! Events: a typed envelope around the kind's own JSON.

use super::identity::{InvalidId, id};
use super::token::InvalidToken;
use crate::limit::EVENT_BYTES;
use crate::v1;
use phalanx_shared::event::{AttemptRef, Event, EventKind, Recorded};
use phalanx_shared::id::RunId;
use phalanx_shared::time::Timestamp;

/// Why a wire event is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    /// The run's id is invalid.
    #[error(transparent)]
    Run(#[from] InvalidId),
    /// The attempt is invalid.
    #[error("the event's attempt: {0}")]
    Attempt(#[from] InvalidToken),
    /// The payload is larger than any event that this program makes.
    #[error("event {kind:?} has {length} bytes, the limit is {EVENT_BYTES}")]
    TooLarge { kind: String, length: usize },
    /// The payload doesn't match the kind.
    #[error("the payload of event {kind:?}: {error}")]
    Payload {
        kind: String,
        error: serde_json::Error,
    },
}

impl TryFrom<v1::Event> for Event {
    type Error = InvalidEvent;

    /// The payload's size isn't checked here, because a coordinator's first event contains a whole plan. See
    /// [`from_agent`].
    fn try_from(wire: v1::Event) -> Result<Self, InvalidEvent> {
        let v1::Event {
            run,
            attempt,
            seq,
            at_us,
            mono_us,
            kind,
            payload_json,
        } = wire;
        let payload: EventKind = serde_json::from_slice(&payload_json)
            .map_err(|error| InvalidEvent::Payload { kind, error })?;
        Ok(Event {
            run: RunId(id("the run id", run)?),
            attempt: attempt.map(AttemptRef::try_from).transpose()?,
            seq,
            at: Timestamp(at_us),
            mono_us,
            kind: payload,
        })
    }
}

/// Converts an event from an agent; its size is limited.
pub(crate) fn from_agent(wire: v1::Event) -> Result<Event, InvalidEvent> {
    if wire.payload_json.len() > EVENT_BYTES {
        return Err(InvalidEvent::TooLarge {
            length: wire.payload_json.len(),
            kind: wire.kind,
        });
    }
    Event::try_from(wire)
}

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        let Event {
            run,
            attempt,
            seq,
            at: Timestamp(at_us),
            mono_us,
            kind,
        } = event;
        // Serializing to memory fails only for maps with keys that aren't text, and no kind has any.
        let payload_json = serde_json::to_vec(&kind).unwrap_or_default();
        let kind = kind.name().to_owned();
        v1::Event {
            run: run.0,
            attempt: attempt.map(Into::into),
            seq,
            at_us,
            mono_us,
            kind,
            payload_json,
        }
    }
}

/// Why a wire journal entry is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRecorded {
    /// The position is 0; positions count from 1.
    #[error("position 0: positions count from 1")]
    ZeroPosition,
    /// The entry has no event.
    #[error("the entry has no event")]
    Missing,
    /// The event is invalid.
    #[error(transparent)]
    Event(#[from] InvalidEvent),
}

impl TryFrom<v1::Recorded> for Recorded {
    type Error = InvalidRecorded;

    fn try_from(wire: v1::Recorded) -> Result<Self, InvalidRecorded> {
        let v1::Recorded { position, event } = wire;
        if position == 0 {
            return Err(InvalidRecorded::ZeroPosition);
        }
        Ok(Recorded {
            position,
            event: event.ok_or(InvalidRecorded::Missing)?.try_into()?,
        })
    }
}

impl From<Recorded> for v1::Recorded {
    fn from(recorded: Recorded) -> Self {
        let Recorded { position, event } = recorded;
        v1::Recorded {
            position,
            event: Some(event.into()),
        }
    }
}
