//! Scheduling: one mailbox around the pure scheduler, the timer that it asks for, and the pace at which runs hear of what it placed.
//!
//! Its mailbox is unbounded: runs and scheduling tell each other, and two bounded actors that do can deadlock. What is in it is bounded
//! by the cells of open runs and the agents' attempts.

use super::core::{Effect, Input, RunLimits, Scheduler};
use super::fleet::AgentView;
use super::pace::Pace;
use super::why::{Constraint, Waiting};
use crate::clock::Clock;
use crate::dispatch::contract::ToAgents;
use crate::run::actor::{Run, Tell};
use crate::run::core::Input as RunInput;
use kameo::Actor;
use kameo::actor::ActorRef;
use kameo::error::Infallible;
use kameo::message::{Context, Message};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What scheduling is started with.
pub struct Args {
    /// The coordinator's clock.
    pub clock: Arc<dyn Clock>,
    /// Commands to agents.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    /// At most so many cells at once that ask for a label.
    pub label_limits: BTreeMap<String, u32>,
}

/// The actor.
pub struct Scheduling {
    core: Scheduler,
    args: Args,
    runs: HashMap<RunId, ActorRef<Run>>,
    pace: Pace,
    /// When the timer rings next.
    wake: Option<Duration>,
}

impl Actor for Scheduling {
    type Args = Args;
    type Error = Infallible;

    async fn on_start(args: Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Scheduling {
            core: Scheduler::new(args.label_limits.clone()),
            args,
            runs: HashMap::new(),
            pace: Pace::default(),
            wake: None,
        })
    }
}

/// A run begins; assignments go to its actor.
pub struct AddRun {
    /// The run.
    pub run: RunId,
    /// What holds for it as a whole.
    pub limits: RunLimits,
    /// Who is told.
    pub actor: ActorRef<Run>,
}

impl Message<AddRun> for Scheduling {
    type Reply = ();

    async fn handle(&mut self, add: AddRun, ctx: &mut Context<Self, ()>) {
        let AddRun { run, limits, actor } = add;
        self.runs.insert(run.clone(), actor);
        self.decide(Input::RunAdded { run, limits }, ctx.actor_ref())
            .await;
    }
}

impl Message<Input> for Scheduling {
    type Reply = ();

    async fn handle(&mut self, input: Input, ctx: &mut Context<Self, ()>) {
        if let Input::RunRemoved { run } = &input {
            self.runs.remove(run);
        }
        match &input {
            Input::Tick => {
                self.wake = None;
                self.pace.ticked();
            }
            Input::Accepted { token }
            | Input::Declined { token, .. }
            | Input::Released { token } => self.pace.answered(token),
            _ => {}
        }
        self.decide(input, ctx.actor_ref()).await;
    }
}

/// Why does a cell wait?
pub struct Why {
    /// Its run.
    pub run: RunId,
    /// The cell.
    pub cell: CellId,
}

impl Message<Why> for Scheduling {
    type Reply = Result<Waiting, Infallible>;

    async fn handle(
        &mut self,
        why: Why,
        _: &mut Context<Self, Self::Reply>,
    ) -> Result<Waiting, Infallible> {
        let now = self.args.clock.monotonic();
        Ok(self.core.why(&why.run, &why.cell, now))
    }
}

/// Why do the cells of a run wait?
pub struct WhyAll {
    /// The run.
    pub run: RunId,
}

impl Message<WhyAll> for Scheduling {
    type Reply = Result<Vec<(Vec<Constraint>, Vec<CellId>)>, Infallible>;

    async fn handle(
        &mut self,
        WhyAll { run }: WhyAll,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let now = self.args.clock.monotonic();
        Ok(self.core.why_all(&run, now))
    }
}

/// Which agents are there?
pub struct Agents;

impl Message<Agents> for Scheduling {
    type Reply = Result<Vec<AgentView>, Infallible>;

    async fn handle(
        &mut self,
        _: Agents,
        _: &mut Context<Self, Self::Reply>,
    ) -> Result<Vec<AgentView>, Infallible> {
        Ok(self.core.agents())
    }
}

impl Scheduling {
    async fn decide(&mut self, input: Input, me: &ActorRef<Self>) {
        let now = self.args.clock.monotonic();
        for effect in self.core.handle(input, now) {
            match effect {
                Effect::Assign { token, agent } => self.pace.decided(token, agent),
                Effect::Prefetch { agent, images } => {
                    // A closed channel means that the coordinator is going away.
                    let _ = self
                        .args
                        .to_agents
                        .send(ToAgents::Prefetch { agent, images });
                }
                Effect::WakeAt(at) => self.wake_at(at, now, me),
            }
        }
        while let Some((token, agent)) = self.pace.next(now) {
            self.assign(token, agent).await;
        }
        if let Some(at) = self.pace.wake() {
            self.wake_at(at, now, me);
        }
    }

    async fn assign(&mut self, token: Token, agent: AgentId) {
        let Some(run) = self.runs.get(&token.run) else {
            return self.pace.answered(&token);
        };
        let agent_name = self.core.agent_name(&agent);
        let assigned = RunInput::Assigned {
            token,
            agent,
            agent_name,
        };
        // A run that is gone is removed by its supervisor, reservations included.
        let _ = run.tell(Tell(assigned)).await;
    }

    fn wake_at(&mut self, at: Duration, now: Duration, me: &ActorRef<Self>) {
        if self.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        self.wake = Some(at);
        let me = me.downgrade();
        tokio::spawn(async move {
            tokio::time::sleep(at.saturating_sub(now)).await;
            if let Some(me) = me.upgrade() {
                let _ = me.tell(Input::Tick).await;
            }
        });
    }
}
