//! The scheduling actor: one mailbox around the pure scheduler, its timer, and the pace at which runs learn about
//! placements.
//!
//! Its mailbox is unbounded: runs and scheduling send each other messages, and two bounded actors that do so can
//! deadlock. The number of messages in it is bounded by the cells of open runs and the agents' attempts.

use super::ahead::Preparing;
use super::core::{Effect, Input, RunLimits, Scheduler};
use super::demand::Wanted;
use super::fleet::AgentView;
use super::pace::Pace;
use super::why::{Constraint, Waiting};
use crate::clock::Clock;
use crate::dispatch::contract::ToAgents;
use kameo::Actor;
use kameo::actor::{ActorRef, Recipient};
use kameo::error::Infallible;
use kameo::message::{Context, Message};
use phalanx_shared::event::Placement;
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Arguments of the scheduling actor.
pub struct Args {
    /// Clock for all deadlines.
    pub clock: Arc<dyn Clock>,
    /// Commands to agents.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    /// Maximum number of cells with a label that run concurrently, by label.
    pub label_limits: BTreeMap<String, u32>,
}

/// The scheduling actor.
pub struct Scheduling {
    core: Scheduler,
    args: Args,
    runs: HashMap<RunId, Recipient<Assignment>>,
    pace: Pace,
    /// When the timer fires next.
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

/// Adds a run. Its actor receives the assignments.
pub struct AddRun {
    /// Id of the run.
    pub run: RunId,
    /// Limits of the run as a whole.
    pub limits: RunLimits,
    /// Receives the run's assignments.
    pub assignments: Recipient<Assignment>,
}

/// Gives a waiting cell an agent.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Token of the attempt.
    pub token: Token,
    /// Id of the agent.
    pub agent: AgentId,
    /// Display name of the agent.
    pub agent_name: String,
    /// What the cell waited for, and what the agent has.
    pub placement: Placement,
}

impl Message<AddRun> for Scheduling {
    type Reply = ();

    async fn handle(&mut self, add: AddRun, ctx: &mut Context<Self, ()>) {
        let AddRun {
            run,
            limits,
            assignments,
        } = add;
        self.runs.insert(run.clone(), assignments);
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

/// Asks why a cell waits.
pub struct Why {
    /// Run of the cell.
    pub run: RunId,
    /// The cell to explain.
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

/// Asks what agents do ahead for a waiting cell.
pub struct Prepares {
    /// Run of the cell.
    pub run: RunId,
    /// The cell.
    pub cell: CellId,
}

impl Message<Prepares> for Scheduling {
    type Reply = Result<Vec<Preparing>, Infallible>;

    async fn handle(
        &mut self,
        Prepares { run, cell }: Prepares,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        Ok(self.core.prepares(&run, &cell))
    }
}

/// Asks why the cells of a run wait. Answered with groups of cells that wait for the same constraints, and what is done
/// ahead for them.
pub struct WhyAll {
    /// Id of the run.
    pub run: RunId,
}

impl Message<WhyAll> for Scheduling {
    type Reply = Result<Vec<(Vec<Constraint>, Vec<Preparing>, Vec<CellId>)>, Infallible>;

    async fn handle(
        &mut self,
        WhyAll { run }: WhyAll,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let now = self.args.clock.monotonic();
        Ok(self.core.why_all(&run, now))
    }
}

/// Asks for all known agents.
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

/// Asks what the cells of all runs want of agents.
pub struct Demand;

impl Message<Demand> for Scheduling {
    type Reply = Result<Vec<Wanted>, Infallible>;

    async fn handle(&mut self, _: Demand, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Ok(self.core.demand())
    }
}

impl Scheduling {
    async fn decide(&mut self, input: Input, me: &ActorRef<Self>) {
        let now = self.args.clock.monotonic();
        for effect in self.core.handle(input, now) {
            match effect {
                Effect::Assign { token, agent } => self.pace.decided(token, agent),
                Effect::Prefetch { agent, images } => {
                    // A closed channel means that the coordinator is shutting down.
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
        let placement = self.core.placement(&token);
        let assignment = Assignment {
            token,
            agent,
            agent_name,
            placement,
        };
        // If the run is gone, its supervisor removes it from the scheduler, with its reservations.
        let _ = run.tell(assignment).await;
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
