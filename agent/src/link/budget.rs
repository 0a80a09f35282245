//! Limits the events of one attempt: a cell that emits events without end would fill the coordinator's disk, and its
//! memory on every restart.
//!
//! An attempt that exceeds the limits is ended as `errored` with the reason; its verdict and clean-up are reported in
//! any case. The coordinator has somewhat higher limits of its own, for agents that don't enforce these.

use phalanx_proto::limit::{ATTEMPT_EVENT_BYTES, ATTEMPT_EVENTS, EVENT_MADE_BYTES};
use phalanx_shared::event::{EventKind, StepResult};

/// Number of characters kept of a text that is too long.
const TEXT: usize = 1_000;
/// Number of entries kept of a list that is too long.
const ENTRIES: usize = 100;

/// The events that an attempt has emitted so far, counted.
#[derive(Debug, Default)]
pub struct Budget {
    events: u64,
    bytes: u64,
    over: Option<String>,
}

impl Budget {
    /// Counts an event of this size. Returns the reason the first time that a limit is exceeded.
    pub fn spend(&mut self, bytes: usize) -> Option<String> {
        self.events += 1;
        self.bytes += bytes as u64;
        if self.over.is_some() {
            return None;
        }
        let mib = |bytes: u64| bytes >> 20;
        let over = if bytes > EVENT_MADE_BYTES {
            format!(
                "one event of {bytes} bytes, the limit is {EVENT_MADE_BYTES}: let the step that was in progress check or print less"
            )
        } else if self.events > ATTEMPT_EVENTS {
            format!(
                "the cell made more than {ATTEMPT_EVENTS} events: it has too many steps or repetitions, split it"
            )
        } else if self.bytes > ATTEMPT_EVENT_BYTES {
            format!(
                "the cell made more than {} MiB of events: let its steps check or print less, or split it",
                mib(ATTEMPT_EVENT_BYTES)
            )
        } else {
            return None;
        };
        self.over = Some(over.clone());
        Some(over)
    }

    /// Returns why the attempt is ended, if it exceeded a limit.
    pub fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }
}

/// Reduces an event that is too large to its essential parts.
pub fn slim(kind: EventKind) -> EventKind {
    let long = "left out: the event was too large";
    match kind {
        EventKind::StepFinished(result) => EventKind::StepFinished(Box::new(StepResult {
            path: cut(&result.path),
            name: cut(&result.name),
            id: result.id.as_deref().map(cut),
            action: cut(&result.action),
            reason: result.reason.as_deref().map(cut).or(Some(long.to_owned())),
            verifies: result
                .verifies
                .iter()
                .take(ENTRIES)
                .map(|v| cut(v))
                .collect(),
            checks: Vec::new(),
            output: None,
            captured: Vec::new(),
            failure: None,
            ..*result
        })),
        EventKind::AttemptFinished {
            outcome, reason, ..
        } => EventKind::AttemptFinished {
            outcome,
            reason: reason.as_deref().map(cut),
            timed_out: false,
            culprit: None,
        },
        EventKind::TornDown {
            removed,
            left,
            began,
            ..
        } => EventKind::TornDown {
            removed,
            left: left.iter().take(ENTRIES).map(|l| cut(l)).collect(),
            kept: Vec::new(),
            began,
        },
        other => EventKind::Note {
            message: format!("{} {long}", other.name()),
        },
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn too_many_events_too_many_bytes_and_one_too_large_are_told_once_each() {
        let mut many = Budget::default();
        for _ in 0..ATTEMPT_EVENTS {
            assert_eq!(many.spend(1), None);
        }
        assert!(many.spend(1).unwrap().contains("events"));
        assert_eq!(many.spend(1), None);
        let mut large = Budget::default();
        let mut told = (0..).find_map(|_| large.spend(EVENT_MADE_BYTES));
        assert!(told.take().unwrap().contains("MiB of events"));
        let mut one = Budget::default();
        assert!(
            one.spend(EVENT_MADE_BYTES + 1)
                .unwrap()
                .contains("one event")
        );
        assert!(one.over().is_some());
    }

    #[test]
    fn a_large_event_keeps_its_kind_and_loses_its_size() {
        let finished = slim(EventKind::AttemptFinished {
            outcome: phalanx_shared::outcome::Outcome::Failed,
            reason: Some("x".repeat(9_000_000)),
            timed_out: false,
            culprit: None,
        });
        assert_eq!(finished.name(), "attempt_finished");
        assert!(serde_json::to_vec(&finished).unwrap().len() < 2_000);
        let note = slim(EventKind::Note {
            message: "x".repeat(9_000_000),
        });
        assert!(matches!(note, EventKind::Note { message } if message.contains("left out")));
    }
}
