//! `strategy.queue-timeout`: cells that no agent has begun by then end `errored`, with what they waited for.

use super::actor::{LookAtWaiting, Run, Tell};
use super::core::Input;
use crate::schedule::actor::{Scheduling, WhyAll};
use kameo::actor::{ActorRef, WeakActorRef};
use phalanx_shared::id::{CellId, RunId};
use std::collections::HashMap;
use std::time::Duration;

/// Between two looks once the time is over: an offer may come to nothing after it.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a run's cells may wait for their first start.
pub(super) struct Patience {
    pub run: RunId,
    /// The limit as the spec says it.
    pub limit: Duration,
    /// How much of it was over when the actor began.
    pub waited: Duration,
}

impl Patience {
    /// Waits, then ends what has never begun; until every cell has begun or the run is gone.
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
            for (constraints, cells) in groups {
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
