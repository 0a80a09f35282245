//! A coordinator's start after an earlier one's end: open runs come back, agents that don't are given up, old runs are
//! forgotten. Recovery is the normal path: the same fold over the same journal.

use super::coordinator::Bring;
use super::{Handle, Settings};
use crate::clock::Clock;
use crate::journal::{Journal, Store, StoreError, Write};
use crate::routing::Routing;
use crate::run::actor as run_actor;
use kameo::error::SendError;
use phalanx_shared::id::RunId;
use phalanx_shared::run_state::RunState;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Events read at once when a run is brought back.
const REPLAY: u32 = 5_000;
/// Open runs that are brought back; there is no use for more at once.
const OPEN_RUNS: u32 = 100_000;

/// Starts of the coordinator that may have ended while the same run was brought back.
const DEATHS: u32 = 3;

/// Brings back the runs that weren't over; whether there are any. One that can't be brought back is parked, the others go on.
pub(super) async fn bring_open(handle: &Handle) -> Result<bool, StoreError> {
    let mut open = handle.journal.store().runs(OPEN_RUNS, true).await?;
    open.reverse();
    let any = !open.is_empty();
    for head in open {
        let run = head.run;
        // One after the other: what they were made from is long.
        let row = match handle.journal.store().run(&run).await {
            Ok(Some(row)) => row,
            Ok(None) => continue,
            Err(error) => {
                handle.registry.park(run, error.to_string());
                continue;
            }
        };
        if let Some(problem) = &row.problem {
            handle.registry.park(run, problem.clone());
            continue;
        }
        let trial = handle
            .settings
            .trials
            .as_deref()
            .map(|at| Trial::begin(at, &run));
        if let Some(Err(reason)) = trial {
            handle.registry.park(run, reason);
            continue;
        }
        if let Err(error) = handle.coordinator.ask(Bring(Box::new(row))).await {
            let reason = match error {
                SendError::HandlerError(StoreError::Read(why)) => why,
                other => other.to_string(),
            };
            handle.registry.park(run, reason);
        }
    }
    Ok(any)
}

/// A run that is being brought back. Its note outlives this process if the run is the end of it: one that ended it time and again isn't tried once more.
struct Trial {
    note: PathBuf,
}

impl Trial {
    fn begin(directory: &Path, run: &RunId) -> Result<Trial, String> {
        let note = directory.join(run.as_str());
        let before = std::fs::read_to_string(&note).ok();
        let deaths = before.and_then(|text| text.trim().parse::<u32>().ok());
        let deaths = deaths.unwrap_or(0);
        if deaths >= DEATHS {
            return Err(format!(
                "the coordinator ended {deaths} times while it brought this run back; to try again remove {} and restart it",
                note.display()
            ));
        }
        // Failing to note it costs the protection, not the run.
        let _ = crate::private::directory(directory);
        let _ = std::fs::write(&note, (deaths + 1).to_string());
        Ok(Trial { note })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.note);
    }
}

/// Gives up on agents that held attempts before the restart and didn't come back.
pub(super) async fn expire(routing: Routing, within: Duration) {
    tokio::time::sleep(within).await;
    let mut away = Vec::new();
    for (_, run) in routing.registry.all() {
        if let Ok(glance) = run.actor.ask(run_actor::Look).await {
            away.extend(glance.agents);
        }
    }
    away.sort();
    away.dedup();
    away.retain(|agent| !routing.registry.is_present(agent));
    for agent in away {
        let reason = "its agent didn't come back after the coordinator's restart";
        routing.lost(agent, reason.to_owned()).await;
    }
}

/// Bounds what is kept of old runs.
pub(super) async fn forget_old(
    journal: &Journal,
    settings: &Settings,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let Some(keep) = settings.keep_runs_for else {
        return Ok(());
    };
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let mut before = clock.wall();
    before.0 = before.0.saturating_sub(keep);
    let old = journal.store().settled_before(before).await?;
    let writes: Vec<Write> = old.into_iter().map(|run| Write::Forget { run }).collect();
    if !writes.is_empty() {
        tracing::info!(runs = writes.len(), "forgetting old runs");
        journal.append(writes).await.await?;
    }
    Ok(())
}

/// Folds a run's whole journal.
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
