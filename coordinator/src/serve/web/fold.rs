//! A run as its pages see it: the state, how far it is, and which cells had news. Pure.

use phalanx_shared::event::{Event, EventKind, Recorded};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;

/// A run after some of its events.
pub struct Folded {
    /// The run.
    pub state: RunState,
    /// Position of the newest event; 0 before the first one.
    pub seq: u64,
    /// Time of the newest event.
    pub at: Timestamp,
    /// The newest event of each cell that had one.
    pub touched: HashMap<CellId, u64>,
    /// The newest event with a result, or of another kind that findings and counts depend on.
    pub judged: u64,
}

impl Folded {
    /// Creates the fold of a run before its first event.
    pub fn new(run: RunId) -> Folded {
        Folded {
            state: RunState::new(run),
            seq: 0,
            at: Timestamp(0),
            touched: HashMap::new(),
            judged: 0,
        }
    }

    /// Folds the next event.
    pub fn apply(&mut self, recorded: &Recorded) {
        let Recorded { position, event } = recorded;
        self.state.apply(event);
        self.seq = *position;
        self.at = self.at.max(event.at);
        if let Some(cell) = cell_of(event) {
            self.touched.insert(cell.clone(), *position);
        }
        if is_judgement(&event.kind) {
            self.judged = *position;
        }
    }
}

fn cell_of(event: &Event) -> Option<&CellId> {
    match (&event.attempt, &event.kind) {
        (Some(attempt), _) => Some(&attempt.cell),
        (
            None,
            EventKind::CellOffered { token, .. }
            | EventKind::CellAccepted { token }
            | EventKind::CellReturned { token, .. }
            | EventKind::AttemptLost { token, .. },
        ) => Some(&token.cell),
        (None, EventKind::CellFinished { cell, .. }) => Some(cell),
        (None, _) => None,
    }
}

fn is_judgement(kind: &EventKind) -> bool {
    !matches!(
        kind,
        EventKind::CellOffered { .. }
            | EventKind::CellAccepted { .. }
            | EventKind::ServiceChanged { .. }
            | EventKind::ServiceProgress { .. }
            | EventKind::ServiceRestarted { .. }
            | EventKind::SnapshotChanged { .. }
            | EventKind::PhaseStarted { .. }
            | EventKind::StepStarted { .. }
            | EventKind::LogGap { .. }
            | EventKind::ArtifactCollected(_)
            | EventKind::ArtifactLost { .. }
            | EventKind::Note { .. }
    )
}
