//! Performs a run's effects in order, those of each decision once its events are durable.
//!
//! The run itself doesn't wait for the disk. It makes further decisions while the courier waits, so that many decisions
//! share a commit. No agent, scheduler or watcher sees a decision before it is on disk.

use crate::dispatch::contract::{self, ToAgents};
use crate::journal::Durable;
use crate::schedule::actor::Scheduling;
use crate::schedule::core::{CellRequest, Input as ScheduleInput};
use kameo::actor::ActorRef;
use phalanx_shared::id::RunId;
use phalanx_shared::outcome::Outcome;
use tokio::sync::{mpsc, oneshot, watch};

/// How much of a run is durable, for watchers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Newest durable position.
    pub position: u64,
    /// Outcome of the run, once it has one.
    pub outcome: Option<Outcome>,
    /// Whether nothing more will come.
    pub settled: bool,
}

/// One effect to deliver.
pub(super) enum Parcel {
    Queue(Vec<CellRequest>),
    Schedule(ScheduleInput),
    ToAgent(ToAgents),
    /// Answer to a connecting agent: the attempts that continue.
    Resume(oneshot::Sender<Resumed>, Resumed),
    Finished(Outcome),
    Settled,
}

/// The attempts of one run that a connecting agent continues.
pub struct Resumed {
    /// The attempts, with their durable sequence numbers and the ways to this run.
    pub attempts: Vec<contract::Resumed>,
    /// The scheduling request of each attempt, for its reservation.
    pub requests: Vec<CellRequest>,
}

/// The effects of one decision, and the write that they wait for.
pub(super) struct Load {
    pub durable: Option<Durable>,
    pub position: u64,
    pub parcels: Vec<Parcel>,
}

/// The receivers of the effects.
pub(super) struct Courier {
    pub run: RunId,
    pub scheduling: ActorRef<Scheduling>,
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    pub tail: watch::Sender<Tail>,
}

impl Courier {
    /// Delivers effects until the run is over. Returns whether it settled. Otherwise the journal refused a write, and
    /// the run must not continue.
    pub async fn carry(self, mut loads: mpsc::UnboundedReceiver<Load>) -> bool {
        while let Some(load) = loads.recv().await {
            if let Some(durable) = load.durable
                && let Err(error) = durable.await
            {
                tracing::error!(run = %self.run, %error, "the run can't be journaled and stops here");
                return false;
            }
            self.tail
                .send_modify(|tail| tail.position = tail.position.max(load.position));
            for parcel in load.parcels {
                if self.deliver(parcel).await {
                    return true;
                }
            }
        }
        false
    }

    /// Delivers one parcel. Returns `true` after the last one. A receiver that is gone shuts down with the coordinator.
    async fn deliver(&self, parcel: Parcel) -> bool {
        match parcel {
            Parcel::Queue(cells) => {
                let run = self.run.clone();
                self.schedule(ScheduleInput::Queued { run, cells }).await;
            }
            Parcel::Schedule(input) => self.schedule(input).await,
            Parcel::ToAgent(command) => {
                let _ = self.to_agents.send(command);
            }
            Parcel::Resume(answer, resumed) => {
                let _ = answer.send(resumed);
            }
            Parcel::Finished(outcome) => {
                self.tail.send_modify(|tail| tail.outcome = Some(outcome));
            }
            Parcel::Settled => {
                let run = self.run.clone();
                self.schedule(ScheduleInput::RunRemoved { run }).await;
                self.tail.send_modify(|tail| tail.settled = true);
                return true;
            }
        }
        false
    }

    async fn schedule(&self, input: ScheduleInput) {
        let _ = self.scheduling.tell(input).await;
    }
}
