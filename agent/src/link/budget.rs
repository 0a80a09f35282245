//! What one attempt may say: a cell that reports without end would fill the coordinator's disk and every restart's memory.
//!
//! Whoever exceeds it is ended as `errored` with the reason; its verdict and clean-up are told in any case. The coordinator has somewhat
//! higher limits of its own, for agents that don't keep to these.

use phalanx_proto::limit::{ATTEMPT_EVENT_BYTES, ATTEMPT_EVENTS, EVENT_MADE_BYTES};
use phalanx_shared::event::{EventKind, StepResult};

/// Characters that are kept of a text that is too long.
const TEXT: usize = 1_000;
/// Entries that are kept of a list.
const ENTRIES: usize = 100;

/// What an attempt has said so far.
#[derive(Debug, Default)]
pub struct Budget {
    events: u64,
    bytes: u64,
    over: Option<String>,
}

impl Budget {
    /// Counts an event. The reason, the first time that it is too much.
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

    /// Why the attempt ends, if it said too much.
    pub fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }
}

/// An event that is too large, with what matters of it.
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
            failure: None,
            ..*result
        })),
        EventKind::AttemptFinished { outcome, reason } => EventKind::AttemptFinished {
            outcome,
            reason: reason.as_deref().map(cut),
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
        });
        assert_eq!(finished.name(), "attempt_finished");
        assert!(serde_json::to_vec(&finished).unwrap().len() < 2_000);
        let note = slim(EventKind::Note {
            message: "x".repeat(9_000_000),
        });
        assert!(matches!(note, EventKind::Note { message } if message.contains("left out")));
    }
}
