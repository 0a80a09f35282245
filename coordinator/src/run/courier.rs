//! Carries out a run's effects, in order, each decision's once its events are durable.
//!
//! The run itself doesn't wait for the disk: it decides on while the courier waits, so that many decisions share a commit. Nobody
//! outside sees a decision before it is on disk: not agents, not the scheduler, not watchers.

use super::core::CancelOrder;
use crate::dispatch::contract::{GoesOn, ToAgents};
use crate::journal::Durable;
use crate::schedule::actor::Scheduling;
use crate::schedule::core::{CellRequest, Input as ScheduleInput};
use kameo::actor::ActorRef;
use phalanx_shared::id::{RunId, Token};
use phalanx_shared::outcome::Outcome;
use tokio::sync::{mpsc, oneshot, watch};

/// How far a run's journal is durable, for watchers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The newest durable position.
    pub position: u64,
    /// The run's outcome.
    pub outcome: Option<Outcome>,
    /// Nothing more will come.
    pub settled: bool,
}

/// What is carried.
pub(super) enum Parcel {
    Queue(Vec<CellRequest>),
    Schedule(ScheduleInput),
    ToAgent(ToAgents),
    /// An agent's answer: the attempts that go on.
    Resume(oneshot::Sender<Resumed>, Resumed),
    /// An agent's events are on disk.
    Durable(oneshot::Sender<()>),
    Finished(Outcome),
    Settled,
}

/// The attempts of one run with which a connecting agent goes on.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// Which.
    pub attempts: Vec<GoesOn>,
    /// What each reserves.
    pub requests: Vec<CellRequest>,
}

/// One decision's load.
pub(super) struct Load {
    pub durable: Option<Durable>,
    pub position: u64,
    pub parcels: Vec<Parcel>,
}

/// Where things are carried to.
pub(super) struct Courier {
    pub run: RunId,
    pub scheduling: ActorRef<Scheduling>,
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    pub tail: watch::Sender<Tail>,
}

impl Courier {
    /// Carries until the run is over. Returns whether it settled; otherwise the journal refused, and the run must not go on.
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

    /// Delivers one parcel; `true` after the last one. A receiver that is gone is going away with the coordinator.
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
            Parcel::Durable(done) => {
                let _ = done.send(());
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

/// The command that ends an attempt.
pub(super) fn cancel(token: Token, order: CancelOrder) -> ToAgents {
    let CancelOrder {
        reason,
        grace_ms,
        force,
    } = order;
    ToAgents::Cancel {
        token,
        grace_ms,
        reason,
        force,
    }
}
