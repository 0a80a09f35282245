//! The root actor: launches runs, and recovers a run from the journal when its actor crashed.
//!
//! stage: a run: `RunSubmitted` is journaled before the run's actor starts

use super::replay::replay;
use super::{Begin, OwnSecrets, Settings};
use crate::clock::Clock;
use crate::dispatch::contract::ToAgents;
use crate::dispatch::reason::AgentGone;
use crate::journal::{Journal, NewRun, RunRow, StoreError, Submission, Write};
use crate::registry::{Registry, RunHandle};
use crate::run::actor::{self as run_actor, Look, Run, RunTail, Secrets, Start, Tell};
use crate::run::core::{Input, RunCore};
use crate::run::patience::Patience;
use crate::schedule::actor::{AddRun, Scheduling};
use crate::schedule::core::RunLimits;
use crate::schedule::expected::History;
use crate::submission::{Jobs, NoJobs, Planned, Planner};
use crate::trace;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::mailbox;
use kameo::message::{Context, Message};
use phalanx_report::view::TRACE;
use phalanx_shared::event::{Event, EventKind, Recorded};
use phalanx_shared::id::RunId;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::trace::spans::{MOST, RERUN_OF, RERUN_TRACE, SPLIT};
use phalanx_shared::trace::{RunTrace, TraceContext};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often a run whose actor crashed is recovered before it is parked until the next start.
const REVIVALS: u32 = 3;

/// The root actor.
pub struct Coordinator {
    pub(super) journal: Journal,
    pub(super) scheduling: ActorRef<Scheduling>,
    pub(super) registry: Registry,
    pub(super) planner: Arc<dyn Planner>,
    pub(super) own_secrets: OwnSecrets,
    pub(super) to_agents: mpsc::UnboundedSender<ToAgents>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
    pub(super) begin: Begin,
    /// Secrets of the open runs, so that a run whose actor crashed can continue.
    pub(super) secrets: HashMap<RunId, Secrets>,
    pub(super) revivals: HashMap<RunId, u32>,
}

impl Actor for Coordinator {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(args: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(args)
    }

    /// Handles the end of a run's actor. If it crashed (a bug in the coordinator), recovers the run from the journal,
    /// the same way as after a restart.
    async fn on_link_died(
        &mut self,
        me: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        let Some(run) = self.registry.remove_actor(id) else {
            return Ok(ControlFlow::Continue(()));
        };
        if matches!(reason, ActorStopReason::Normal) {
            self.secrets.remove(&run);
            self.revivals.remove(&run);
            return Ok(ControlFlow::Continue(()));
        }
        let revivals = self.revivals.entry(run.clone()).or_default();
        *revivals += 1;
        tracing::error!(%run, ?reason, revivals, "a run's actor died");
        let gone = crate::schedule::core::Input::RunRemoved { run: run.clone() };
        let _ = self.scheduling.tell(gone).await;
        if *revivals > REVIVALS {
            let reason =
                format!("its actor died {revivals} times, the next start tries again: {reason:?}");
            self.registry.park(run, reason);
            return Ok(ControlFlow::Continue(()));
        }
        let Some(me) = me.upgrade() else {
            return Ok(ControlFlow::Continue(()));
        };
        let back = match self.journal.store().run(&run).await {
            Ok(Some(row)) => self.bring(row, &me).await,
            Ok(None) => return Ok(ControlFlow::Continue(())),
            Err(error) => Err(error),
        };
        match back {
            Ok(()) => {
                if let Some(handle) = self.registry.get(&run) {
                    let (registry, to_agents) = (self.registry.clone(), self.to_agents.clone());
                    tokio::spawn(agree_with_agents(handle.actor, registry, to_agents));
                }
            }
            Err(error) => self.registry.park(run, error.to_string()),
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Starts a run of a plan.
pub struct Launch {
    /// The plan and the jobs of its cells.
    pub planned: Planned,
    /// The submission that the plan was made from.
    pub submission: Submission,
    /// Secret values that came with the submission.
    pub secrets: BTreeMap<String, String>,
    /// The namespace that the run will belong to.
    pub namespace: Namespace,
    /// Whose run it will be; empty without access control.
    pub owner: String,
}

impl Message<Launch> for Coordinator {
    type Reply = Result<RunId, StoreError>;

    async fn handle(
        &mut self,
        launch: Launch,
        ctx: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let Launch {
            planned,
            submission,
            secrets,
            namespace,
            owner,
        } = launch;
        let new_id = || RunId(uuid::Uuid::now_v7().to_string());
        let run = self.begin.first_run.take().unwrap_or_else(new_id);
        let now = self.clock.wall();
        let mut submission = submission;
        // The submission of a rerun names the old run's trace; the new run gets its own, or none.
        let original = submission.origin.remove(TRACE);
        submission.origin.remove(RERUN_TRACE);
        submission.origin.remove(SPLIT);
        if self.settings.tracer.is_some() {
            let trace = TraceContext::of_run(&run, within(&submission)).trace;
            let origin = &mut submission.origin;
            origin.insert(TRACE.to_owned(), trace.to_string().into());
            // The rerun's spans link to the original's.
            if let Some(original) = original.filter(|_| origin.contains_key(RERUN_OF)) {
                origin.insert(RERUN_TRACE.to_owned(), original);
            }
            if planned.spans > MOST {
                origin.insert(SPLIT.to_owned(), true.into());
            }
        }
        let new = NewRun {
            run: run.clone(),
            submitted: now,
            spec: planned.plan.spec.clone(),
            digest: planned.plan.digest.clone(),
            cells: u32::try_from(planned.plan.cells.len()).unwrap_or(u32::MAX),
            submission: submission.clone(),
            namespace: namespace.clone(),
            owner,
        };
        let mut state = RunState::new(run.clone());
        let submitted = Event {
            run: run.clone(),
            attempt: None,
            seq: 0,
            at: now,
            mono_us: 0,
            kind: EventKind::RunSubmitted {
                plan: planned.plan,
                origin: submission.origin.clone(),
            },
        };
        state.apply(&submitted);
        let first = Write::Event(Recorded {
            position: 1,
            event: submitted,
        });
        let writes = vec![Write::Run(Box::new(new)), first];
        self.journal.append(writes).await.await?;
        self.secrets.insert(run.clone(), Arc::new(secrets));
        self.spawn_run(
            state,
            1,
            planned.jobs,
            &submission,
            namespace,
            ctx.actor_ref(),
        )
        .await?;
        Ok(run)
    }
}

/// Recovers an open run from its journal.
pub(super) struct Bring(pub(super) Box<RunRow>);

impl Message<Bring> for Coordinator {
    type Reply = Result<(), StoreError>;

    async fn handle(
        &mut self,
        Bring(row): Bring,
        ctx: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let me = ctx.actor_ref().clone();
        self.bring(*row, &me).await
    }
}

impl Coordinator {
    async fn bring(&mut self, row: RunRow, me: &ActorRef<Self>) -> Result<(), StoreError> {
        let (state, position) = replay(&**self.journal.store(), &row.new.run).await?;
        let (submission, namespace) = (row.new.submission, row.new.namespace);
        let jobs = self.jobs_again(&submission, &state).await;
        let given = || Arc::new(self.begin.secrets.clone());
        self.secrets.entry(row.new.run).or_insert_with(given);
        self.spawn_run(state, position, jobs, &submission, namespace, me)
            .await
    }

    /// Returns the jobs of a recovered run. If they can't be built any more, returns a stand-in that says why.
    async fn jobs_again(&self, submission: &Submission, state: &RunState) -> Arc<dyn Jobs> {
        let Some(plan) = state.plan.clone() else {
            return no_jobs("the run's journal holds no plan");
        };
        let (planner, submission) = (self.planner.clone(), submission.clone());
        let jobs = tokio::task::spawn_blocking(move || planner.jobs(&submission, &plan)).await;
        match jobs {
            Ok(Ok(jobs)) => jobs,
            Ok(Err(refusal)) => {
                let first = refusal.diagnostics.first().map(|d| d.message.clone());
                let why = first.unwrap_or_default();
                no_jobs(&format!("this version can't read the spec any more: {why}"))
            }
            Err(error) => no_jobs(&format!("reading the spec again failed: {error}")),
        }
    }

    async fn spawn_run(
        &mut self,
        state: RunState,
        position: u64,
        jobs: Arc<dyn Jobs>,
        submission: &Submission,
        namespace: Namespace,
        me: &ActorRef<Self>,
    ) -> Result<(), StoreError> {
        let run = state.run.clone();
        let secrets = self.with_own_secrets(&run, &namespace, &*jobs);
        let spec = state.plan.as_ref().map_or("", |plan| plan.spec.as_str());
        let past = self.journal.store().history(spec).await?;
        let limits = RunLimits {
            priority: submission.priority,
            max_parallel: state.plan.as_ref().and_then(|plan| plan.max_parallel),
        };
        let patience = patience_of(&state, self.clock.wall());
        let (tail, watched) = watch::channel(RunTail {
            position,
            outcome: state.outcome,
            settled: false,
        });
        let grace = self.settings.cancel_grace;
        let args = run_actor::Args {
            core: RunCore::recovered(state, position, self.journal.epoch(), grace),
            jobs,
            secrets,
            avoids: self.settings.foreign_pools(&namespace),
            history: History::learn(past),
            journal: self.journal.clone(),
            scheduling: self.scheduling.clone(),
            to_agents: self.to_agents.clone(),
            index: self.registry.index().clone(),
            tail,
            clock: self.clock.clone(),
            trace: self.settings.tracer.as_ref().map(|_| RunTrace {
                context: TraceContext::of_run(&run, within(submission)),
                split: submission
                    .origin
                    .get(SPLIT)
                    .is_some_and(|split| *split == true),
            }),
        };
        let actor = Run::spawn_link_with_mailbox(me, args, mailbox::unbounded()).await;
        let handle = RunHandle {
            actor: actor.clone(),
            tail: watched,
            namespace,
        };
        self.registry.insert(run.clone(), handle.clone());
        if let Some(tracer) = &self.settings.tracer {
            let store = self.journal.store().clone();
            let registry = self.registry.clone();
            trace::follow(tracer, &run, within(submission), store, registry, &handle);
        }
        let add = AddRun {
            run,
            limits,
            assignments: actor.clone().recipient(),
        };
        if let Some(patience) = patience {
            tokio::spawn(patience.last(actor.downgrade(), self.scheduling.clone()));
        }
        // Both live as long as this actor does.
        let _ = self.scheduling.tell(add).await;
        let _ = actor.tell(Start).await;
        Ok(())
    }

    /// Returns the secrets of a run. Values from the submission take precedence over the coordinator's own.
    fn with_own_secrets(&mut self, run: &RunId, namespace: &Namespace, jobs: &dyn Jobs) -> Secrets {
        let given = self.secrets.get(run).cloned().unwrap_or_default();
        let mut secrets = (*given).clone();
        let named = jobs.secrets();
        // No other secret is kept or sent to an agent.
        secrets.retain(|name, _| named.contains(name));
        for name in named {
            if !secrets.contains_key(&name)
                && let Some(value) = (self.own_secrets)(namespace, &name)
            {
                secrets.insert(name, value);
            }
        }
        let secrets = Arc::new(secrets);
        self.secrets.insert(run.clone(), secrets.clone());
        secrets
    }
}

/// Lets the agents of a run whose actor crashed say again which attempts they hold. What they and the run told each other
/// meanwhile is lost.
async fn agree_with_agents(
    run: ActorRef<Run>,
    registry: Registry,
    to_agents: mpsc::UnboundedSender<ToAgents>,
) {
    let Ok(glance) = run.ask(Look).await else {
        return;
    };
    for agent in glance.agents {
        if registry.is_lost(&agent) {
            let gone = AgentGone::NotBack;
            let _ = run.tell(Tell(Input::AgentLost { agent, gone })).await;
        } else {
            // An agent without a connection will say Hello by itself, or be given up.
            let _ = to_agents.send(ToAgents::Reconnect { agent });
        }
    }
}

/// Returns how long the cells of a run may still wait for their first start, if the spec limits that.
fn patience_of(state: &RunState, now: Timestamp) -> Option<Patience> {
    let limit = state.plan.as_ref()?.queue_timeout_ms?;
    if state.is_finished() {
        return None;
    }
    let waited = state.submitted.map(|since| now.since(since));
    Some(Patience {
        run: state.run.clone(),
        limit: Duration::from_millis(limit),
        waited: waited.unwrap_or_default(),
    })
}

/// Returns the trace context in which a run was submitted. An invalid one is ignored, as the standard demands.
fn within(submission: &Submission) -> Option<TraceContext> {
    let parent = submission.traceparent.as_deref();
    parent.and_then(TraceContext::parse)
}

fn no_jobs(reason: &str) -> Arc<dyn Jobs> {
    Arc::new(NoJobs(reason.to_owned()))
}
