//! Recovery when a coordinator starts: open runs continue, agents that don't reconnect are given up, and old runs are
//! forgotten. Recovery is the normal path: the same fold over the same journal.

use super::agents::Agents;
use super::coordinator::Bring;
use super::{Handle, Settings};
use crate::clock::Clock;
use crate::dispatch::reason::AgentGone;
use crate::journal::{Journal, StoreError, Write};
use crate::run::actor as run_actor;
use kameo::error::SendError;
use phalanx_shared::id::RunId;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum number of open runs to recover.
const OPEN_RUNS: u32 = 100_000;

/// A run is parked if this many starts of the coordinator ended while it was being recovered.
const DEATHS: u32 = 3;

/// Recovers the unfinished runs and returns whether there are any. A run that can't be recovered is parked; the others
/// continue.
pub(super) async fn bring_open(handle: &Handle) -> Result<bool, StoreError> {
    let mut open = handle.journal.store().runs(OPEN_RUNS, true, None).await?;
    open.reverse();
    let any = !open.is_empty();
    for head in open {
        let run = head.run;
        // One after the other, because submissions are large.
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

/// A run that is being recovered. A note about it on disk outlives the process if the recovery ends it, so that a run
/// that did so repeatedly isn't tried again.
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
        // If the note can't be written, only this protection is lost.
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

/// Gives up agents that held attempts before the restart and didn't reconnect.
pub(super) async fn expire(agents: Agents, within: Duration) {
    tokio::time::sleep(within).await;
    let mut away = Vec::new();
    for (_, run) in agents.registry.all() {
        if let Ok(glance) = run.actor.ask(run_actor::Look).await {
            away.extend(glance.agents);
        }
    }
    away.sort();
    away.dedup();
    away.retain(|agent| !agents.registry.is_present(agent));
    for agent in away {
        agents.lost(agent, AgentGone::NotBackAfterRestart).await;
    }
}

/// Removes the runs that finished longer ago than the settings allow.
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
