//! Tells scheduling and the affected runs when agents come and go.
//!
//! The loop never waits. When an agent connects, a task of its own gathers the answers of the runs that may hold
//! attempts with it, which may take as long as the disk does. Meanwhile the loop serves all other agents.

use crate::clock::Clock;
use crate::dispatch::contract::{AgentInfo, Answer, FromAgents, InventoryItem, Resumed};
use crate::dispatch::reason::AgentGone;
use crate::registry::Registry;
use crate::run::actor::{Connected, Tell};
use crate::run::core::Input;
use crate::schedule::actor::Scheduling;
use crate::schedule::core::{CellRequest, Input as ScheduleInput};
use kameo::actor::ActorRef;
use phalanx_shared::id::{AgentId, RunId};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

/// The receivers of changes.
#[derive(Clone)]
pub(super) struct Agents {
    pub registry: Registry,
    pub scheduling: ActorRef<Scheduling>,
    pub clock: Arc<dyn Clock>,
}

/// The answer to a Hello, from all runs that may hold attempts with the agent.
struct Gathered {
    agent: AgentInfo,
    answer: Answer,
    resumed: Vec<Resumed>,
    holding: Vec<CellRequest>,
}

/// The answers being gathered, at most one per agent.
#[derive(Default)]
struct Gathers {
    tasks: JoinSet<Gathered>,
    of: HashMap<AgentId, AbortHandle>,
}

impl Gathers {
    /// Ends the gathering for an agent that has said Hello again, or has gone. Its answer is no longer wanted, and the
    /// scheduler must not hear of it after what follows.
    fn end(&mut self, agent: &AgentId) {
        if let Some(task) = self.of.remove(agent) {
            task.abort();
        }
    }

    /// Returns the next answer that is still wanted. Never resolves while none is being gathered.
    async fn next(&mut self) -> Gathered {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(Ok((id, gathered))) => {
                    let id_of = &gathered.agent.id;
                    // A newer Hello may have begun another one just when this one ended.
                    if self.of.get(id_of).is_some_and(|task| task.id() == id) {
                        self.of.remove(id_of);
                        return gathered;
                    }
                }
                // It was ended.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl Agents {
    /// Handles changes until the sessions end.
    pub async fn run(self, mut changes: mpsc::UnboundedReceiver<FromAgents>) {
        let mut gathers = Gathers::default();
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.changed(change, &mut gathers).await,
                    None => return,
                },
                Gathered { agent, answer, resumed, holding } = gathers.next() => {
                    // Only now may the scheduler give the agent more.
                    self.schedule(ScheduleInput::AgentUp { agent, holding }).await;
                    answer(resumed);
                }
            }
        }
    }

    async fn changed(&self, change: FromAgents, gathers: &mut Gathers) {
        match change {
            FromAgents::Connected {
                agent,
                inventory,
                answer,
            } => {
                tracing::info!(agent = %agent.name, id = %agent.id, held = inventory.len(), "agent connected");
                gathers.end(&agent.id);
                self.registry.agent_came(agent.clone(), self.clock.wall());
                let id = agent.id.clone();
                let asked = self.ask_runs(&id, inventory).await;
                let task = gathers.tasks.spawn(gather(agent, answer, asked));
                gathers.of.insert(id, task);
            }
            FromAgents::Disconnected { agent, reason } => {
                tracing::info!(%agent, reason, "agent disconnected");
                gathers.end(&agent);
                self.registry
                    .agent_away(&agent, reason, false, self.clock.wall());
                self.schedule(ScheduleInput::AgentDown { agent }).await;
            }
            FromAgents::Lost { agent, gone } => {
                gathers.end(&agent);
                self.lost(agent, gone).await;
            }
            FromAgents::Ahead { agent, images } => {
                self.schedule(ScheduleInput::Ahead { agent, images }).await;
            }
            FromAgents::Snapshots { agent, snapshots } => {
                self.registry.agent_keeps(&agent, Arc::clone(&snapshots));
                self.schedule(ScheduleInput::Snapshots { agent, snapshots })
                    .await;
            }
            FromAgents::Draining { agent } => {
                self.schedule(ScheduleInput::AgentDraining { agent }).await;
            }
        }
    }

    /// Asks the runs that may hold attempts with an agent, or that it names, which ones it continues.
    async fn ask_runs(
        &self,
        agent: &AgentId,
        inventory: Vec<InventoryItem>,
    ) -> Vec<oneshot::Receiver<crate::run::actor::Resumed>> {
        let mut runs: BTreeSet<RunId> = self.registry.index().of(agent);
        runs.extend(inventory.iter().map(|item| item.token.run.clone()));
        let mut asked = Vec::new();
        for run in runs {
            let Some(handle) = self.registry.get(&run) else {
                continue;
            };
            let of_run = inventory.iter().filter(|item| item.token.run == run);
            let (answer, receiver) = oneshot::channel();
            let message = Connected {
                agent: agent.clone(),
                inventory: of_run.cloned().collect(),
                answer,
            };
            // Mailboxes of runs are unbounded. A run that just ended continues nothing.
            if handle.actor.tell(message).await.is_ok() {
                asked.push(receiver);
            }
        }
        asked
    }

    /// Handles an agent that is gone for good.
    pub async fn lost(&self, agent: AgentId, gone: AgentGone) {
        tracing::warn!(%agent, reason = %gone, "agent lost");
        let now = self.clock.wall();
        self.registry
            .agent_away(&agent, gone.to_string(), true, now);
        let schedule = ScheduleInput::AgentLost {
            agent: agent.clone(),
        };
        self.schedule(schedule).await;
        for run in self.registry.index().of(&agent) {
            if let Some(run) = self.registry.get(&run) {
                let (agent, gone) = (agent.clone(), gone.clone());
                // A run that just ended needs no input.
                let _ = run.actor.tell(Tell(Input::AgentLost { agent, gone })).await;
            }
        }
    }

    async fn schedule(&self, input: ScheduleInput) {
        // Scheduling ends only with the coordinator.
        let _ = self.scheduling.tell(input).await;
    }
}

async fn gather(
    agent: AgentInfo,
    answer: Answer,
    asked: Vec<oneshot::Receiver<crate::run::actor::Resumed>>,
) -> Gathered {
    let (mut resumed, mut holding) = (Vec::new(), Vec::new());
    for receiver in asked {
        // A run that ends in the meantime continues no attempts.
        if let Ok(of_run) = receiver.await {
            resumed.extend(of_run.attempts);
            holding.extend(of_run.requests);
        }
    }
    Gathered {
        agent,
        answer,
        resumed,
        holding,
    }
}
