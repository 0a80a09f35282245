//! A run's state from its journal: the same fold for recovery and for requests about runs that are over.

use crate::journal::{Store, StoreError};
use phalanx_shared::id::RunId;
use phalanx_shared::run_state::RunState;

/// Events read at once.
const REPLAY: u32 = 5_000;

/// Folds a run's whole journal. Returns the state and the position of the newest event.
pub async fn replay(store: &dyn Store, run: &RunId) -> Result<(RunState, u64), StoreError> {
    let mut state = RunState::new(run.clone());
    let mut position = 0;
    loop {
        let events = store.events(run, position + 1, REPLAY).await?;
        let Some(last) = events.last() else {
            if state.plan.is_none() {
                let why = format!("run {run} doesn't begin with its plan");
                return Err(StoreError::Read(why));
            }
            return Ok((state, position));
        };
        position = last.position;
        for recorded in &events {
            state.apply_without_output(&recorded.event);
        }
    }
}
