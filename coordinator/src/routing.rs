//! Routes facts about agents from the sessions to scheduling and to the affected runs.

use crate::clock::Clock;
use crate::dispatch::contract::{AgentInfo, FromAgents, GoesOn, InventoryItem, ToAgents};
use crate::registry::Registry;
use crate::run::actor::{AgentEvents, Connected, Tell};
use crate::run::core::Input;
use crate::schedule::actor::Scheduling;
use crate::schedule::core::Input as ScheduleInput;
use kameo::actor::ActorRef;
use phalanx_shared::id::{AgentId, RunId, Token};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The receivers of the facts.
#[derive(Clone)]
pub struct Routing {
    /// The open runs.
    pub registry: Registry,
    /// The scheduling actor.
    pub scheduling: ActorRef<Scheduling>,
    /// Clock for the times at which agents come and go.
    pub clock: Arc<dyn Clock>,
    /// Commands to the sessions, to retire tokens of runs that don't exist any more.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
}

impl Routing {
    /// Routes facts until the sessions end.
    pub async fn run(self, mut from_agents: mpsc::Receiver<FromAgents>) {
        while let Some(fact) = from_agents.recv().await {
            self.route(fact).await;
        }
    }

    async fn route(&self, fact: FromAgents) {
        match fact {
            FromAgents::Connected {
                agent,
                inventory,
                answer,
            } => self.connected(agent, inventory, answer).await,
            FromAgents::Disconnected { agent, reason } => {
                tracing::info!(%agent, reason, "agent disconnected");
                self.registry
                    .agent_away(&agent, reason, false, self.clock.wall());
                self.schedule(ScheduleInput::AgentDown { agent }).await;
            }
            FromAgents::Lost { agent, reason } => self.lost(agent, reason).await,
            FromAgents::Draining { agent } => {
                self.schedule(ScheduleInput::AgentDraining { agent }).await;
            }
            FromAgents::Accepted { token } => {
                let run = token.run.clone();
                self.tell(&run, Input::Accepted { token }).await;
            }
            FromAgents::Declined { token, reason } => {
                let run = token.run.clone();
                self.tell(&run, Input::Declined { token, reason }).await;
            }
            FromAgents::Revoked { token, reason } => {
                let run = token.run.clone();
                self.tell(&run, Input::Revoked { token, reason }).await;
            }
            FromAgents::Events {
                token,
                events,
                durable,
            } => {
                let run = self.registry.get(&token.run);
                let message = AgentEvents {
                    token: token.clone(),
                    events,
                    durable,
                };
                let told = match run {
                    Some(run) => run.actor.tell(message).await.is_ok(),
                    None => false,
                };
                if !told {
                    self.retire(token);
                }
            }
        }
    }

    /// Asks every open run which attempts the agent continues. Only then may the scheduler give it more.
    async fn connected(
        &self,
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
        answer: oneshot::Sender<Vec<GoesOn>>,
    ) {
        tracing::info!(agent = %agent.name, id = %agent.id, held = inventory.len(), "agent connected");
        self.registry.agent_came(agent.clone(), self.clock.wall());
        let mut asked = Vec::new();
        for (run, handle) in self.registry.all() {
            let of_run = inventory.iter().filter(|item| item.token.run == run);
            let (sender, receiver) = oneshot::channel();
            let message = Connected {
                agent: agent.id.clone(),
                inventory: of_run.cloned().collect(),
                answer: sender,
            };
            if handle.actor.tell(message).await.is_ok() {
                asked.push(receiver);
            }
        }
        let (mut resumed, mut holding) = (Vec::new(), Vec::new());
        for receiver in asked {
            // A run that ends in the meantime continues no attempts.
            if let Ok(answer) = receiver.await {
                resumed.extend(answer.attempts);
                holding.extend(answer.requests);
            }
        }
        self.schedule(ScheduleInput::AgentUp { agent, holding })
            .await;
        let _ = answer.send(resumed);
    }

    /// Handles an agent that is gone for good.
    pub async fn lost(&self, agent: AgentId, reason: String) {
        tracing::warn!(%agent, reason, "agent lost");
        self.registry
            .agent_away(&agent, reason.clone(), true, self.clock.wall());
        let schedule = ScheduleInput::AgentLost {
            agent: agent.clone(),
        };
        self.schedule(schedule).await;
        for (run, _) in self.registry.all() {
            let (agent, reason) = (agent.clone(), reason.clone());
            self.tell(&run, Input::AgentLost { agent, reason }).await;
        }
    }

    async fn tell(&self, run: &RunId, input: Input) {
        if let Some(run) = self.registry.get(run) {
            // A run that just ended needs no input.
            let _ = run.actor.tell(Tell(input)).await;
        }
    }

    async fn schedule(&self, input: ScheduleInput) {
        // Scheduling ends only with the coordinator.
        let _ = self.scheduling.tell(input).await;
    }

    fn retire(&self, token: Token) {
        let _ = self.to_agents.send(ToAgents::Retire { token });
    }
}
