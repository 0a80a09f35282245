//! Implements `strategy.queue-timeout`: cells that no agent has started by then end as `errored`, with what they waited
//! for.

use super::actor::{LookAtWaiting, Run, Tell};
use super::core::Input;
use crate::schedule::actor::{Scheduling, WhyAll};
use kameo::actor::{ActorRef, WeakActorRef};
use phalanx_shared::id::{CellId, RunId};
use std::collections::HashMap;
use std::time::Duration;

/// Interval between checks once the time is over, since an offer may still fail after it.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a run's cells may wait for their first start.
pub struct Patience {
    /// Id of the run.
    pub run: RunId,
    /// The limit from the spec.
    pub limit: Duration,
    /// Time that had already passed when the actor started.
    pub waited: Duration,
}

impl Patience {
    /// Waits, then ends the cells that never started. Returns when every cell has started or the run is gone.
    pub async fn last(self, run: WeakActorRef<Run>, scheduling: ActorRef<Scheduling>) {
        tokio::time::sleep(self.limit.saturating_sub(self.waited)).await;
        loop {
            let Some(actor) = run.upgrade() else { return };
            let Ok(held_back) = actor.ask(LookAtWaiting).await else {
                return;
            };
            if !held_back.some_never_started {
                return;
            }
            let asked = WhyAll {
                run: self.run.clone(),
            };
            let groups = scheduling.ask(asked).await.unwrap_or_default();
            let mut why: HashMap<CellId, String> = HashMap::new();
            for (constraints, _, cells) in groups {
                let reasons: Vec<String> = constraints.iter().map(ToString::to_string).collect();
                let reasons = reasons.join("; ");
                why.extend(cells.into_iter().map(|cell| (cell, reasons.clone())));
            }
            let own = held_back.reasons.join("; ");
            let cells: Vec<(CellId, String)> = held_back
                .never_started
                .into_iter()
                .map(|cell| {
                    let known = why.remove(&cell).filter(|why| !why.is_empty());
                    let why = known.unwrap_or_else(|| own.clone());
                    (cell, why)
                })
                .collect();
            if !cells.is_empty() {
                let limit = self.limit;
                if actor
                    .tell(Tell(Input::NeverStarted { cells, limit }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            drop(actor);
            tokio::time::sleep(AGAIN).await;
        }
    }
}
