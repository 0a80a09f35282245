//! One actor per run: it journals the core's decisions and hands the effects to the courier.
//!
//! Its mailbox is unbounded, so that no session, agent or scheduler ever waits for a run, however slow its journal is.
//! What may be in it is bounded: the events of its attempts that aren't durable (the session of each ends the connection
//! of an agent that sends more), a few answers per offer, one assignment per queued cell, one question per connecting
//! agent, and the requests of clients, which wait for their answers.

use super::core::{Effect, Input, RunCore};
use super::courier::{Courier, Load, Parcel, Tail};
use super::index::AgentsOfRuns;
use crate::clock::Clock;
use crate::dispatch::contract::{self, InventoryItem, Report, ToAgents, ToRun};
use crate::journal::{Journal, Line, Past, Receipt, RunEnd, Write};
use crate::metrics::METRICS;
use crate::schedule::Wish;
use crate::schedule::actor::{Assignment, Scheduling};
use crate::schedule::core::{CellRequest, Input as ScheduleInput};
use crate::schedule::expected::{History, snapshot_of};
use crate::submission::Jobs;
use kameo::Actor;
use kameo::actor::{ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use phalanx_shared::event::{Event, EventKind, Speaker};
use phalanx_shared::id::{AgentId, CellId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::CellJob;
use phalanx_shared::run_state::{CellStatus, Counts};
use phalanx_shared::trace::{AttemptTrace, RunTrace};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::Instrument;

pub use super::courier::{Resumed, Tail as RunTail};

/// Maximum number of jobs of one run that are built concurrently.
const MAKERS: usize = 2;

/// Secret values by name, kept in memory only (I4).
pub type Secrets = Arc<BTreeMap<String, String>>;

/// Arguments of a run's actor.
pub struct Args {
    /// The run's state so far.
    pub core: RunCore,
    /// Builds the jobs of cells.
    pub jobs: Arc<dyn Jobs>,
    /// Values of the secrets. Secrets without a value hold the cells back.
    pub secrets: Secrets,
    /// Labels of the agents' pools that belong to other namespaces.
    pub avoids: Vec<String>,
    /// Durations of the spec's cells in earlier runs.
    pub history: History,
    /// Journal for the run's events.
    pub journal: Journal,
    /// Scheduler that queues the cells.
    pub scheduling: ActorRef<Scheduling>,
    /// Commands to agents.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    /// Learns which agents hold attempts of the run.
    pub index: AgentsOfRuns,
    /// Publishes to watchers how much of the run is durable.
    pub tail: watch::Sender<Tail>,
    /// Clock for deadlines and timestamps.
    pub clock: Arc<dyn Clock>,
    /// Traces of the run, if runs are traced.
    pub trace: Option<RunTrace>,
}

/// The actor of one run.
pub struct Run {
    core: RunCore,
    jobs: Arc<dyn Jobs>,
    secrets: Secrets,
    avoids: Vec<String>,
    history: History,
    journal: Journal,
    /// The run's own appends, which build on each other.
    line: Line,
    index: AgentsOfRuns,
    me: WeakActorRef<Self>,
    clock: Arc<dyn Clock>,
    trace: Option<RunTrace>,
    loads: mpsc::UnboundedSender<Load>,
    /// Since when each cell has waited for an agent.
    waiting: HashMap<CellId, Duration>,
    /// Limits how many jobs are built concurrently.
    making: Arc<Semaphore>,
}

impl Actor for Run {
    type Args = Args;
    type Error = Infallible;

    async fn on_start(args: Args, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let (loads, queue) = mpsc::unbounded_channel();
        let courier = Courier {
            run: args.core.run().clone(),
            scheduling: args.scheduling,
            to_agents: args.to_agents,
            tail: args.tail,
        };
        let weak = me.downgrade();
        for agent in args.core.agents() {
            args.index.holds(&agent, args.core.run());
        }
        tokio::spawn(async move {
            let settled = courier.carry(queue).await;
            if let Some(me) = weak.upgrade() {
                if settled {
                    let _ = me.stop_gracefully().await;
                } else {
                    me.kill();
                }
            }
        });
        Ok(Run {
            core: args.core,
            jobs: args.jobs,
            avoids: args.avoids,
            secrets: args.secrets,
            history: args.history,
            journal: args.journal,
            line: Line::default(),
            index: args.index,
            me: me.downgrade(),
            clock: args.clock,
            trace: args.trace,
            loads,
            waiting: HashMap::new(),
            making: Arc::new(Semaphore::new(MAKERS)),
        })
    }

    async fn on_stop(
        &mut self,
        _: WeakActorRef<Self>,
        reason: ActorStopReason,
    ) -> Result<(), Infallible> {
        tracing::debug!(run = %self.core.run(), ?reason, "run actor stopped");
        Ok(())
    }
}

/// What comes with an input and belongs to one of its effects.
#[derive(Default)]
struct Attached {
    /// Receipt for the events that are journaled.
    receipt: Option<Receipt>,
    /// Receives the attempts that a connecting agent continues.
    answer: Option<oneshot::Sender<Resumed>>,
    /// Job of the cell that is offered.
    job: Option<Arc<CellJob>>,
}

/// Passes an input to the core.
pub struct Tell(pub Input);

impl Message<Tell> for Run {
    type Reply = ();

    async fn handle(&mut self, Tell(input): Tell, _: &mut Context<Self, ()>) {
        self.decide(input, Attached::default()).await;
    }
}

/// Begins the run, or goes on with it after a restart.
pub struct Start;

impl Message<Start> for Run {
    type Reply = ();

    async fn handle(&mut self, _: Start, _: &mut Context<Self, ()>) {
        let missing = self.missing_secrets();
        self.decide(Input::Secrets { missing }, Attached::default())
            .await;
    }
}

impl Message<Assignment> for Run {
    type Reply = ();

    async fn handle(&mut self, assignment: Assignment, ctx: &mut Context<Self, ()>) {
        self.make(assignment, ctx.actor_ref().downgrade());
    }
}

/// The result of building a cell's job, with the agent that was found before.
struct Made {
    assignment: Assignment,
    job: Result<Arc<CellJob>, String>,
}

impl Message<Made> for Run {
    type Reply = ();

    async fn handle(&mut self, made: Made, _: &mut Context<Self, ()>) {
        self.made(made).await;
    }
}

/// A report of an attempt's session.
struct FromAttempt {
    token: Token,
    report: Report,
}

impl Message<FromAttempt> for Run {
    type Reply = ();

    async fn handle(&mut self, message: FromAttempt, _: &mut Context<Self, ()>) {
        let FromAttempt { token, report } = message;
        let mut receipt = None;
        let input = match report {
            Report::Accepted => Input::Accepted { token },
            Report::Declined(reason) => Input::Declined { token, reason },
            Report::Revoked(cause) => Input::Revoked { token, cause },
            Report::Events {
                events,
                receipt: of,
            } => {
                receipt = Some(of);
                Input::Events { token, events }
            }
        };
        let attached = Attached {
            receipt,
            ..Attached::default()
        };
        self.decide(input, attached).await;
    }
}

/// The way from an attempt's session to this run. The mailbox is unbounded, so it never waits.
struct AttemptOf {
    run: WeakActorRef<Run>,
    token: Token,
}

impl ToRun for AttemptOf {
    fn report(&self, report: Report) {
        if let Some(run) = self.run.upgrade() {
            let token = self.token.clone();
            let _ = run.tell(FromAttempt { token, report }).try_send();
        }
    }
}

/// An agent connected and holds these attempts of the run.
pub struct Connected {
    /// Id of the agent.
    pub agent: AgentId,
    /// The attempts of this run that it holds.
    pub inventory: Vec<InventoryItem>,
    /// Receives the attempts that it continues.
    pub answer: oneshot::Sender<Resumed>,
}

impl Message<Connected> for Run {
    type Reply = ();

    async fn handle(&mut self, message: Connected, _: &mut Context<Self, ()>) {
        let Connected {
            agent,
            inventory,
            answer,
        } = message;
        let attached = Attached {
            answer: Some(answer),
            ..Attached::default()
        };
        self.decide(Input::Connected { agent, inventory }, attached)
            .await;
    }
}

/// Adds secret values. Cells that waited for them start.
pub struct GiveSecrets(pub BTreeMap<String, String>);

impl Message<GiveSecrets> for Run {
    type Reply = ();

    async fn handle(&mut self, GiveSecrets(more): GiveSecrets, _: &mut Context<Self, ()>) {
        let mut secrets = (*self.secrets).clone();
        secrets.extend(more);
        self.secrets = Arc::new(secrets);
        let missing = self.missing_secrets();
        self.decide(Input::Secrets { missing }, Attached::default())
            .await;
    }
}

/// Summary of a run's state.
#[derive(Clone, Debug)]
pub struct Glance {
    /// Number of cells by status.
    pub counts: Counts,
    /// Reason why the run was cancelled, if it was.
    pub cancel: Option<String>,
    /// Whether the run has its outcome.
    pub finished: bool,
    /// Agents that hold attempts of the run.
    pub agents: Vec<AgentId>,
}

/// Asks for a [`Glance`].
pub struct Look;

impl Message<Look> for Run {
    type Reply = Result<Glance, Infallible>;

    async fn handle(
        &mut self,
        _: Look,
        _: &mut Context<Self, Self::Reply>,
    ) -> Result<Glance, Infallible> {
        let state = self.core.state();
        Ok(Glance {
            counts: state.counts(),
            cancel: state.cancel.clone(),
            finished: state.is_finished(),
            agents: self.core.agents(),
        })
    }
}

/// Asks for a cell's status and why the run itself holds it back, if it does.
pub struct LookAtCell(pub CellId);

impl Message<LookAtCell> for Run {
    type Reply = Result<Option<(CellStatus, Vec<String>)>, Infallible>;

    async fn handle(
        &mut self,
        LookAtCell(cell): LookAtCell,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let Some(seen) = self.core.state().cells.get(&cell) else {
            return Ok(None);
        };
        let mut reasons = Vec::new();
        if matches!(seen.status, CellStatus::Queued | CellStatus::Ended) {
            let missing = self.core.missing_secrets().iter();
            reasons.extend(missing.map(|name| format!("secret {name} missing")));
            if seen.status == CellStatus::Ended && seen.holds_agent() {
                reasons.push("its last try is still being cleaned up".to_owned());
            }
        }
        Ok(Some((seen.status, reasons)))
    }
}

/// Cells that no agent holds, and why the run itself holds them back.
#[derive(Clone, Debug, Default)]
pub struct HeldBack {
    /// Reasons; empty if the cells wait for an agent.
    pub reasons: Vec<String>,
    /// The queued cells.
    pub cells: Vec<CellId>,
    /// The cells among them that no agent has started yet.
    pub never_started: Vec<CellId>,
    /// Whether some cell of the run has neither started nor ended.
    pub some_never_started: bool,
}

/// Asks for [`HeldBack`].
pub struct LookAtWaiting;

impl Message<LookAtWaiting> for Run {
    type Reply = Result<HeldBack, Infallible>;

    async fn handle(
        &mut self,
        _: LookAtWaiting,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let missing = self.core.missing_secrets().iter();
        let mut held_back = HeldBack {
            reasons: missing
                .map(|name| format!("secret {name} missing"))
                .collect(),
            ..HeldBack::default()
        };
        for (id, cell) in &self.core.state().cells {
            if cell.outcome.is_some() {
                continue;
            }
            let never_started = cell
                .attempts
                .iter()
                .all(|attempt| attempt.started.is_none());
            held_back.some_never_started |= never_started;
            if cell.status == CellStatus::Queued {
                held_back.cells.push(id.clone());
                if never_started {
                    held_back.never_started.push(id.clone());
                }
            }
        }
        Ok(held_back)
    }
}

impl Run {
    async fn decide(&mut self, input: Input, attached: Attached) {
        let effects = self.core.handle(input, self.clock.wall());
        self.perform(effects, attached).await;
    }

    /// Builds a cell's job outside the actor, so that events of other cells don't wait for it.
    fn make(&mut self, assignment: Assignment, me: WeakActorRef<Self>) {
        let token = assignment.token.clone();
        let agent_name = &assignment.agent_name;
        if let Some(since) = self.waiting.remove(&token.cell) {
            let now = self.clock.monotonic();
            METRICS.queue_wait.observe(now.saturating_sub(since));
        }
        let (jobs, making) = (Arc::clone(&self.jobs), Arc::clone(&self.making));
        let submitted = self.core.state().submitted;
        let span = tracing::info_span!("offer a cell", run = %token.run, cell = %token.cell, attempt = token.attempt, agent = %agent_name);
        let make = async move {
            // Kept until the job is handed over, so that agents' events never queue behind many jobs.
            let Ok(_turn) = making.acquire().await else {
                return;
            };
            let job = jobs.job(&token.cell).await.map(|mut job| {
                // Dates in the spec are judged by the time of submission, which no restart moves.
                Arc::make_mut(&mut job).submitted = submitted;
                job
            });
            let made = Made { assignment, job };
            if let Some(me) = me.upgrade() {
                // A run that is over needs no job.
                let _ = me.tell(made).await;
            }
        };
        tokio::spawn(make.instrument(span));
    }

    async fn made(&mut self, made: Made) {
        let Made { assignment, job } = made;
        let Assignment {
            token,
            agent,
            agent_name,
            placement,
        } = assignment;
        self.index.holds(&agent, self.core.run());
        let (input, job) = match job {
            Ok(job) => {
                let input = Input::Runnable {
                    token,
                    agent,
                    agent_name,
                    placement,
                };
                (input, Some(job))
            }
            Err(reason) => (Input::Unrunnable { token, reason }, None),
        };
        let attached = Attached {
            job,
            ..Attached::default()
        };
        self.decide(input, attached).await;
    }

    fn offer(&self, token: Token, agent: AgentId, job: Arc<CellJob>) -> ToAgents {
        let secrets = self.secrets.clone();
        let traceparent = self.trace.map(|trace| {
            let trace = AttemptTrace::new(trace.of_cell(&token.run, &token.cell), &token);
            trace.parent(trace.attempt())
        });
        ToAgents::Offer {
            agent,
            job,
            secrets,
            traceparent,
            run: self.way_of(&token),
            token,
        }
    }

    /// Returns the way from an attempt's session to this run.
    fn way_of(&self, token: &Token) -> Arc<dyn ToRun> {
        Arc::new(AttemptOf {
            run: self.me.clone(),
            token: token.clone(),
        })
    }

    /// Journals a decision and passes its other effects to the courier.
    async fn perform(&mut self, effects: Vec<Effect>, mut attached: Attached) {
        let receipt = attached.receipt.take();
        let mut writes: Vec<Write> = Vec::with_capacity(effects.len());
        let mut parcels = Vec::new();
        for effect in effects {
            match effect {
                Effect::Journal(recorded) => {
                    let event = &recorded.event;
                    METRICS
                        .measures
                        .measure(event, self.core.state(), self.trace);
                    let more = self.also_written(event);
                    writes.push(Write::Event(recorded));
                    writes.extend(more);
                }
                Effect::Settled => {
                    let run = self.core.run().clone();
                    writes.push(Write::Settled { run });
                    parcels.push(Parcel::Settled);
                }
                effect => parcels.extend(self.parcel(effect, &mut attached)),
            }
        }
        let durable = if writes.is_empty() && receipt.is_none() {
            None
        } else {
            let append = self.journal.append_to(&self.line, writes, receipt);
            Some(append.await)
        };
        let load = Load {
            durable,
            position: self.core.position(),
            parcels,
        };
        // The courier is gone only when the run is over.
        let _ = self.loads.send(load);
    }

    /// Returns further rows that repeat an event in another form.
    fn also_written(&self, event: &Event) -> Vec<Write> {
        if event.kind.speaker() != Speaker::Coordinator || event.attempt.is_some() {
            return Vec::new();
        }
        let state = self.core.state();
        match &event.kind {
            EventKind::RunFinished { outcome } => {
                METRICS.runs_finished.count(*outcome);
            }
            EventKind::CellFinished { outcome, .. } => {
                METRICS.cells_finished.count(*outcome);
            }
            _ => {}
        }
        match &event.kind {
            EventKind::RunFinished { outcome } => vec![Write::Finished {
                run: state.run.clone(),
                end: RunEnd {
                    finished: event.at,
                    outcome: *outcome,
                    counts: state.counts(),
                    cancel: state.cancel.clone(),
                },
            }],
            EventKind::CellFinished {
                cell,
                outcome: Outcome::Passed | Outcome::Flaky,
                ..
            } => self.duration(cell, event).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn duration(&self, cell: &CellId, event: &Event) -> Option<Write> {
        let state = self.core.state();
        let (planned, plan) = (state.planned(cell)?, state.plan.as_ref()?);
        let newest = state.cells.get(cell)?.newest()?;
        let elapsed = newest.finished?.since(newest.started?);
        let snapshot = snapshot_of(newest).ok()?;
        let matrix = planned.matrix.iter();
        Some(Write::Duration {
            spec: plan.spec.clone(),
            past: Past {
                cell: cell.clone(),
                matrix: matrix.map(|(k, v)| (k.clone(), v.clone())).collect(),
                elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                snapshot,
            },
            at: event.at,
        })
    }

    fn parcel(&mut self, effect: Effect, attached: &mut Attached) -> Option<Parcel> {
        let run = self.core.run().clone();
        Some(match effect {
            // Both are handled by the caller.
            Effect::Journal(_) | Effect::Settled => return None,
            Effect::Queue(tokens) => {
                let now = self.clock.monotonic();
                let cells = tokens.iter().map(|token| (token.cell.clone(), now));
                self.waiting.extend(cells);
                Parcel::Queue(tokens.into_iter().filter_map(|t| self.request(t)).collect())
            }
            Effect::Withdraw(tokens) => {
                for token in &tokens {
                    self.waiting.remove(&token.cell);
                }
                Parcel::Schedule(ScheduleInput::Withdrawn { run, tokens })
            }
            Effect::Offer { token, agent } => {
                Parcel::ToAgent(self.offer(token, agent, attached.job.take()?))
            }
            Effect::Accepted(token) => Parcel::Schedule(ScheduleInput::Accepted { token }),
            Effect::Declined { token, reason } => {
                Parcel::Schedule(ScheduleInput::Declined { token, reason })
            }
            Effect::Release(token) => Parcel::Schedule(ScheduleInput::Released { token }),
            Effect::Cancel { token, order } => Parcel::ToAgent(ToAgents::Cancel { token, order }),
            Effect::Retire(token) => Parcel::ToAgent(ToAgents::Retire { token }),
            Effect::Resume { attempts, .. } => {
                let tokens = attempts.iter().map(|goes_on| goes_on.token.clone());
                let requests = tokens.filter_map(|token| self.request(token)).collect();
                let attempts = attempts.into_iter().map(|goes_on| contract::Resumed {
                    run: self.way_of(&goes_on.token),
                    goes_on,
                });
                let attempts = attempts.collect();
                Parcel::Resume(attached.answer.take()?, Resumed { attempts, requests })
            }
            Effect::Finished(outcome) => Parcel::Finished(outcome),
        })
    }

    fn request(&self, token: Token) -> Option<CellRequest> {
        let planned = self.core.state().planned(&token.cell)?;
        let family = self.jobs.snapshot_family(&token.cell);
        Some(CellRequest {
            labels: planned.runs_on.clone(),
            avoids: self.avoids.clone(),
            resources: planned.resources,
            needs: self.jobs.needs(&token.cell),
            images: self.jobs.images(&token.cell, &token.run),
            expected_ms: self.history.expected_ms(planned),
            wish: family.map(|family| Wish {
                family,
                restored_ms: self.history.restored_ms(planned),
                making_ms: self.history.making_ms(planned),
            }),
            token,
        })
    }

    fn missing_secrets(&self) -> Vec<String> {
        let wanted = self.jobs.secrets().into_iter();
        wanted
            .filter(|name| !self.secrets.contains_key(name))
            .collect()
    }
}

/// Lets the actor handle nothing until the sender is dropped, for tests.
#[cfg(test)]
pub(crate) struct Hang(pub oneshot::Receiver<()>);

#[cfg(test)]
impl Message<Hang> for Run {
    type Reply = ();

    async fn handle(&mut self, Hang(over): Hang, _: &mut Context<Self, ()>) {
        let _ = over.await;
    }
}
