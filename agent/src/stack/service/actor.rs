//! Performs the effects of a service's core: evaluates its definition, runs it, watches it, and emits events.
//!
//! It is an actor, so that all actions on one service happen in order. It reports results as events and on the
//! [`Board`], and unexpected exits to the sequence.

use super::core::{Change, Effect, End, Input, NotReady, Order, Role, Service as Core, Unmet};
use super::probe;
use crate::context::CellContext;
use crate::context::services::{Down, NotDone};
use crate::duration::duration_text;
use crate::runtime::contract::{Addresses, Exit, Fault, Member, Prepared, RuntimeError, Stack};
use crate::runtime::env_file;
use crate::sink::EventSink;
use crate::stack::board::{Board, Stage, Status};
use crate::stack::dependencies::{Dependencies, GivenUp, Verdict, may_start};
use crate::stack::logs::Logs;
use crate::stack::restored::Restored;
use crate::stack::{allowed, definition, evidence, secrets};
use kameo::Actor;
use kameo::actor::{ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible, SendError};
use kameo::message::{Context, Message};
use phalanx_shared::event::{EventKind, ServiceState};
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::{ContainerVerb, Service};
use phalanx_shared::language::service::ServiceConfig;
use phalanx_shared::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A pull or build that takes longer than this is reported as progress.
const SLOW: Duration = Duration::from_secs(1);
/// Maximum characters shown of it.
const LONGEST_PROGRESS: usize = 120;
/// Maximum time between two reports of its progress. Each is an event in the journal.
const SLOWEST: Duration = Duration::from_secs(30);
/// Maximum wait for the exit and the last output after a step asked for the end.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// Arguments of a service's actor.
pub struct ServiceArgs {
    /// The service in the spec.
    pub service: Service,
    /// Its name, or that of the replica that this actor owns.
    pub name: String,
    /// The number of containers that the service has.
    pub replicas: u32,
    /// The context of the attempt.
    pub context: Arc<CellContext>,
    /// The state of all services; this actor writes its own.
    pub board: Board,
    /// The output of the services.
    pub logs: Logs,
    /// The stack in which it runs, or the reason why there is none.
    pub stack: Result<Arc<dyn Stack>, String>,
    /// Receives events.
    pub events: EventSink,
    /// Receives unexpected exits.
    pub downs: mpsc::Sender<Down>,
    /// What the spec says about the service besides its definition.
    pub role: Role,
    /// Whether it runs with restored files, if the cell uses a snapshot.
    pub restored: Option<Arc<Restored>>,
}

/// The actor that owns one service.
pub struct ServiceActor {
    args: ServiceArgs,
    name: String,
    core: Core,
    config: Option<Arc<ServiceConfig>>,
    member: Option<Arc<dyn Member>>,
    /// What the watchers of the current start begin with.
    launched: Option<Launched>,
    /// Until when it must be ready.
    patience: Option<Patience>,
    /// The time that the engine was busy with other requests, as far as events carry it.
    queued: Duration,
    /// The image that was pulled, until the event that tells it.
    pulled: Option<String>,
    /// Whether its image is there.
    prepared: bool,
    /// Tasks that watch the current start for its exit, its readiness and its health.
    watchers: JoinSet<()>,
}

/// What was set up before a start, so that nothing that follows it is missed.
struct Launched {
    exits: watch::Receiver<Option<Exit>>,
    /// Number of the runtime's last start that had ended by then.
    before: u32,
    probe: Result<probe::Prepared, NotReady>,
}

/// The time limit of a service's readiness. It spans restarts.
#[derive(Clone)]
struct Patience {
    limit: Result<Duration, NotReady>,
    /// When it began, by the monotonic clock.
    since: Duration,
}

impl Patience {
    /// Returns the limit and what is left of it.
    fn left(&self, now: Duration) -> Result<(Duration, Duration), NotReady> {
        let limit = self.limit.clone()?;
        let spent = now.saturating_sub(self.since);
        Ok((limit, limit.saturating_sub(spent)))
    }
}

impl Actor for ServiceActor {
    type Args = ServiceArgs;
    type Error = Infallible;

    async fn on_start(args: ServiceArgs, _: ActorRef<Self>) -> Result<Self, Infallible> {
        let name = args.name.clone();
        Ok(ServiceActor {
            core: Core::new(name.clone(), args.role),
            name,
            args,
            config: None,
            member: None,
            launched: None,
            patience: None,
            queued: Duration::ZERO,
            pulled: None,
            prepared: false,
            watchers: JoinSet::new(),
        })
    }

    async fn on_stop(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorStopReason,
    ) -> Result<(), Infallible> {
        self.watchers.abort_all();
        Ok(())
    }
}

/// Evaluates the definition and returns it with its dependencies. Sent before the first start of a service that isn't
/// `start: manual`.
pub struct Define;

impl Message<Define> for ServiceActor {
    type Reply = Result<Arc<ServiceConfig>, RuntimeError>;

    async fn handle(&mut self, _: Define, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        self.define(None).await
    }
}

/// Evaluates the definition and pulls or builds the image, before the service is started.
pub struct Prepare;

impl Message<Prepare> for ServiceActor {
    type Reply = Result<Arc<ServiceConfig>, RuntimeError>;

    async fn handle(&mut self, _: Prepare, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let (stack, config) = (self.stack()?, self.define(None).await?);
        self.prepare(&*stack, &config).await?;
        Ok(config)
    }
}

/// Forgets the container, so that the next start creates another one. The runtime removes it.
pub struct Renew;

impl Message<Renew> for ServiceActor {
    type Reply = ();

    async fn handle(&mut self, _: Renew, _: &mut Context<Self, Self::Reply>) {
        self.watchers.abort_all();
        self.core = Core::new(self.name.clone(), self.args.role);
        self.member = None;
        self.launched = None;
        self.patience = None;
        self.queued = Duration::ZERO;
        self.update(|status| {
            status.stage = Stage::Idle;
            status.starts = 0;
            status.addresses = None;
            status.member = None;
            status.exit = None;
            status.down = None;
        });
    }
}

/// One input for the core.
pub struct Fact(pub Input);

impl Message<Fact> for ServiceActor {
    type Reply = ();

    async fn handle(&mut self, Fact(input): Fact, ctx: &mut Context<Self, Self::Reply>) {
        let me = ctx.actor_ref().clone();
        self.handle_input(input, None, &me).await;
    }
}

/// Applies a step's action to the service. The reply is sent when the action is done; the step waits for readiness on
/// the board.
pub struct Do {
    /// The action.
    pub verb: ContainerVerb,
    /// The names that the step sees, for a definition that is evaluated now.
    pub scope: Scope,
}

impl Message<Do> for ServiceActor {
    type Reply = Result<(), NotDone>;

    async fn handle(&mut self, what: Do, ctx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let me = ctx.actor_ref().clone();
        let act = Input::Act(what.verb);
        let reply = self.handle_input(act, Some(&what.scope), &me).await;
        reply.unwrap_or(Ok(()))
    }
}

/// Converts the error of an `ask`: returns the handler's own error, or one that says that the actor is gone.
pub fn of_send<M, E: Into<NotDone>>(error: SendError<M, E>) -> NotDone {
    match error {
        SendError::HandlerError(error) => error.into(),
        _ => NotDone::gone(),
    }
}

impl ServiceActor {
    /// Lets the core handle an input and everything that follows from it at once. Returns its reply to the step whose
    /// action this was. `within` holds the names that the step sees.
    async fn handle_input(
        &mut self,
        input: Input,
        within: Option<&Scope>,
        me: &ActorRef<Self>,
    ) -> Option<Result<(), NotDone>> {
        let mut reply = None;
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.args.context.clock.wall();
            for effect in self.core.handle(input, now) {
                match effect {
                    Effect::Reply(result) => reply = Some(result),
                    Effect::Refuse(why) => {
                        reply = Some(Err(NotDone::Down(self.show_down(why).await)));
                    }
                    effect => inputs.extend(self.perform(effect, within, me).await),
                }
            }
        }
        reply
    }

    async fn perform(
        &mut self,
        effect: Effect,
        within: Option<&Scope>,
        me: &ActorRef<Self>,
    ) -> Option<Input> {
        match effect {
            Effect::Define => return Some(Input::Defined(self.define(within).await)),
            Effect::AwaitDependencies => return Some(Input::Met(self.dependencies().await)),
            Effect::Create => return Some(Input::Created(self.create().await)),
            Effect::Launch { hooks } => return Some(Input::Launched(self.launch(hooks).await)),
            Effect::Apply(order) => return Some(Input::Applied(self.apply(order).await)),
            Effect::AwaitExit => return Some(Input::Ended(self.exit().await)),
            Effect::Watch { start, again } => self.watch(start, again, me),
            Effect::Pause {
                start,
                pause,
                again,
            } => self.pause(start, pause, again, me),
            Effect::EmitRestart { exit, pause } => self.emit_restart(exit, pause).await,
            Effect::WatchHealth { start } => self.watch_health(start, me),
            Effect::Unwatch => self.watchers.abort_all(),
            Effect::Show(change) => self.show(change),
            Effect::Emit {
                state,
                began,
                detail,
            } => self.emit(state, began, detail).await,
            Effect::Down(why) if self.is_restored() => {
                if let Some(restored) = &self.args.restored {
                    restored.tell_broken(&why.reason);
                }
            }
            Effect::Down(why) => {
                let down = self.show_down(why).await;
                let _ = self.args.downs.send(Down::clone(&down)).await;
            }
            // They belong to the message in progress; see `handle_input`.
            Effect::Refuse(_) | Effect::Reply(_) => {}
        }
        None
    }

    async fn define(&mut self, within: Option<&Scope>) -> Result<Arc<ServiceConfig>, RuntimeError> {
        if let Some(config) = &self.config {
            return Ok(Arc::clone(config));
        }
        let (context, service) = (&self.args.context, &self.args.service);
        allowed::in_advance(context, service)?;
        let stack = self.stack()?;
        let mut config = definition::config(context, service, &*stack, within).await?;
        allowed::evaluated(context, service, &config)?;
        self.take_part(&mut config)?;
        let ports = config.ports.clone();
        let with = config.depends_on.iter().filter(|(_, on)| on.restart);
        let with = with.map(|(name, _)| name.clone()).collect();
        self.update(|status| {
            status.ports = ports;
            status.restarts_with = with;
        });
        let config = Arc::new(config);
        self.config = Some(Arc::clone(&config));
        Ok(config)
    }

    /// Makes the configuration that of the replica, if the service has several.
    fn take_part(&self, config: &mut ServiceConfig) -> Result<(), RuntimeError> {
        let count = self.args.replicas;
        if config.replicas.unwrap_or(1).max(1) != count {
            let why = "`scale` and `deploy.replicas` can't depend on steps: how many containers there are is known when the cell starts";
            return Err(RuntimeError::of(&self.name, Fault::Definition, why));
        }
        if count > 1 {
            config.replica_of = Some(std::mem::replace(&mut config.name, self.name.clone()));
        }
        Ok(())
    }

    fn stack(&self) -> Result<Arc<dyn Stack>, RuntimeError> {
        self.args.stack.clone().map_err(|why| {
            let reason = format!("service {} can't start: {why}", self.name);
            RuntimeError::new(Fault::Definition, reason).naming(&self.name)
        })
    }

    /// When a step starts a service, starts its manual dependencies too and waits for all dependencies.
    async fn dependencies(&self) -> Result<(), Unmet> {
        let (context, board) = (&self.args.context, &self.args.board);
        let config = self.config.iter();
        let on: Dependencies = config
            .flat_map(|config| &config.depends_on)
            .map(|(name, on)| (name.clone(), *on))
            .collect();
        for (name, _) in &on {
            let idle = board
                .get(name)
                .is_some_and(|s| s.stage == Stage::Idle && s.manual);
            if idle {
                let (scope, verb) = (context.definition_scope(None), ContainerVerb::Start);
                let started = context.services.act(name, verb, &scope).await;
                started.map_err(|error| Unmet::NotStarted(error.into()))?;
            }
        }
        let mut changes = board.subscribe();
        loop {
            let verdict = may_start(&self.name, &on, &changes.borrow_and_update());
            match verdict {
                Verdict::Yes => return Ok(()),
                Verdict::Never(why) => return Err(Unmet::Never(why)),
                Verdict::NotYet => {
                    let blocked = on.iter().find_map(|(name, _)| board.blocked(name));
                    if let Some(why) = blocked {
                        let reason = format!("service {} can't start: {why}", self.name);
                        let error = RuntimeError::new(Fault::Dependency, reason);
                        return Err(Unmet::NotStarted(error.naming(&self.name)));
                    }
                    if changes.changed().await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Pulls or builds the image and creates the member. Returns whether the engine runs a health check for it.
    async fn create(&mut self) -> Result<bool, RuntimeError> {
        let (stack, clock) = (self.stack()?, Arc::clone(&self.args.context.clock));
        let config = self.define(None).await?;
        self.prepare(&*stack, &config).await?;
        let context = &self.args.context;
        let (workspace, policy) = (context.workspace.as_deref(), context.guard.policy());
        let mut notes = env_file::notes(&config, workspace, policy).await;
        notes.extend(stack.notes(&config));
        for message in notes {
            self.args.events.emit(EventKind::Note { message }).await;
        }
        let began = clock.wall();
        let logs = self.args.logs.sink(&self.name);
        let member = stack.create(&config, logs).await?;
        self.member = Some(Arc::clone(&member));
        // A new member counts from 0.
        self.queued = Duration::ZERO;
        let healthcheck = member.has_healthcheck();
        self.update(|status| status.member = Some(member));
        self.emit(ServiceState::Created, began, config.image.clone())
            .await;
        Ok(healthcheck)
    }

    /// Returns whether it starts with restored files.
    fn is_restored(&self) -> bool {
        let restored = self.args.restored.as_ref();
        restored.is_some_and(|restored| restored.is_on(&self.name))
    }

    /// Pulls or builds the image, once.
    async fn prepare(
        &mut self,
        stack: &dyn Stack,
        config: &Arc<ServiceConfig>,
    ) -> Result<(), RuntimeError> {
        if self.prepared {
            return Ok(());
        }
        let began = self.args.context.clock.wall();
        for message in secrets::mask(&self.args.context, config).await {
            self.args.events.emit(EventKind::Note { message }).await;
        }
        let preparing = stack.prepare(config);
        match self.told_if_slow(config, stack, preparing).await? {
            Some(Prepared::Pulled { image, detail }) => {
                self.pulled = Some(image);
                self.emit(ServiceState::Pulled, began, Some(detail)).await;
            }
            Some(Prepared::Built(what)) => self.emit(ServiceState::Built, began, Some(what)).await,
            None => {}
        }
        self.prepared = true;
        Ok(())
    }

    /// Waits for a pull or build. If it takes long, reports its progress, at growing intervals.
    async fn told_if_slow<T>(
        &self,
        config: &ServiceConfig,
        stack: &dyn Stack,
        work: impl Future<Output = T>,
    ) -> T {
        let image = config.image.as_deref().unwrap_or_default();
        let what = match config.build {
            Some(_) => "building its image".to_owned(),
            None => format!("pulling {image}"),
        };
        let mut work = std::pin::pin!(work);
        let (mut pause, mut told) = (SLOW, None);
        loop {
            if let Ok(done) = tokio::time::timeout(pause, &mut work).await {
                return done;
            }
            let doing = match stack.preparing(&self.name) {
                // Masked before it is shortened: a part of a secret wouldn't be found.
                Some(progress) => {
                    let shown = self.args.context.masks.mask(&progress);
                    let shown: String = shown.chars().take(LONGEST_PROGRESS).collect();
                    format!("{what}: {shown}")
                }
                None => what.clone(),
            };
            if told.as_ref() != Some(&doing) {
                let service = self.name.clone();
                told = Some(doing.clone());
                let news = EventKind::ServiceProgress { service, doing };
                self.args.events.emit(news).await;
            }
            pause = (pause * 2).min(SLOWEST);
        }
    }

    async fn launch(&mut self, hooks: bool) -> Result<Addresses, RuntimeError> {
        let member = self.member()?;
        let exits = member.exits();
        let before = exits.borrow().as_ref().map_or(0, |exit| exit.start);
        // Prepare the predicate before the start, so that it sees the first log line.
        let (args, of) = (&self.args, self.probed());
        let probe = probe::prepare(&args.context, &args.logs, of);
        let addresses = member.start().await?;
        if hooks {
            self.post_start(&*member).await?;
        }
        self.launched = Some(Launched {
            exits,
            before,
            probe,
        });
        Ok(addresses)
    }

    /// Runs the hooks that belong to a start, within the time limit of the service's readiness. Without them, it counts
    /// as not started, so it doesn't stay.
    async fn post_start(&self, member: &dyn Member) -> Result<(), RuntimeError> {
        let limit = probe::limit(&self.args.context, self.probed(), member);
        let limit = limit.map_err(|NotReady { reason, .. }| {
            RuntimeError::of(&self.name, Fault::Definition, reason)
        })?;
        let done = tokio::time::timeout(limit, member.post_start()).await;
        let done = done.unwrap_or_else(|_| {
            let limit = duration_text(limit);
            let why = format!("its post_start hooks weren't done within {limit}");
            Err(RuntimeError::of(&self.name, Fault::State, why))
        });
        if done.is_err() {
            let _ = member.kill("SIGKILL".to_owned()).await;
        }
        done
    }

    async fn apply(&self, order: Order) -> Result<Option<Addresses>, RuntimeError> {
        let member = self.member()?;
        match order {
            Order::Stop => member.stop(None).await?,
            Order::Kill => member.kill("SIGKILL".to_owned()).await?,
            Order::Pause => member.pause().await?,
            Order::Unpause => member.unpause().await?,
            Order::Disconnect => member.disconnect().await?,
            Order::Connect => {
                member.connect().await?;
                return member.addresses().await.map(Some);
            }
        }
        Ok(None)
    }

    /// Waits for the exit that a step asked for, so that the step sees the result.
    async fn exit(&self) -> Option<End> {
        let member = self.member.as_deref()?;
        let mut exits = member.exits();
        let exit = tokio::time::timeout(LAST_OUTPUT, exits.wait_for(Option::is_some)).await;
        let exit = exit.ok()?.ok()?.clone()?;
        Some(end(member, exit))
    }

    fn member(&self) -> Result<Arc<dyn Member>, RuntimeError> {
        self.member.clone().ok_or_else(|| {
            let reason = format!("service {} has not been created", self.name);
            RuntimeError::new(Fault::Misuse, reason).naming(&self.name)
        })
    }

    /// Starts it again after a pause, unless the time limit of its readiness ends before.
    fn pause(&mut self, start: u32, pause: Duration, again: bool, me: &ActorRef<Self>) {
        let now = self.args.context.clock.monotonic();
        let patience = self.patience.as_ref().filter(|_| again);
        let left = patience.and_then(|patience| patience.left(now).ok());
        let began = self.args.context.clock.wall();
        let me = me.clone();
        self.watchers.spawn(async move {
            let input = match left {
                Some((limit, left)) if left < pause => {
                    tokio::time::sleep(left).await;
                    let result = Err(NotReady::too_late(limit, ""));
                    Input::Probed {
                        start,
                        began,
                        result,
                    }
                }
                _ => {
                    tokio::time::sleep(pause).await;
                    Input::Again { start }
                }
            };
            let _ = me.tell(Fact(input)).await;
        });
    }

    async fn emit_restart(&self, exit: Exit, pause: Duration) {
        let restarted = EventKind::ServiceRestarted {
            service: self.name.clone(),
            code: exit.code,
            oom: exit.oom,
            pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        };
        self.args.events.emit(restarted).await;
    }

    /// Starts to watch a start for its exit and its readiness. If it is `again`, the time limit of its readiness goes
    /// on.
    fn watch(&mut self, start: u32, again: bool, me: &ActorRef<Self>) {
        let (Some(member), Some(launched)) = (self.member.clone(), self.launched.take()) else {
            return;
        };
        let now = self.args.context.clock.monotonic();
        let patience = self.patience.take().filter(|_| again);
        let patience = patience.unwrap_or_else(|| Patience {
            limit: probe::limit(&self.args.context, self.probed(), &*member),
            since: now,
        });
        let left = patience.left(now);
        self.patience = Some(patience);
        let Launched {
            mut exits,
            before,
            probe,
        } = launched;
        let (to, ended) = (me.clone(), Arc::clone(&member));
        self.watchers.spawn(async move {
            let newer = |exit: &Option<Exit>| exit.as_ref().is_some_and(|exit| exit.start > before);
            let exit = match exits.wait_for(newer).await {
                Ok(exit) => exit.clone(),
                Err(_) => None,
            };
            if let Some(exit) = exit {
                let end = end(&*ended, exit);
                let _ = to.tell(Fact(Input::Exited { start, end })).await;
            }
        });
        let to = me.clone();
        let (context, board) = (Arc::clone(&self.args.context), self.args.board.clone());
        let (service, name) = (self.args.service.clone(), self.name.clone());
        let events = self.args.events.clone();
        self.watchers.spawn(async move {
            let of = probe::Probed {
                service: &service,
                name: &name,
                board: &board,
            };
            let began = context.clock.wall();
            let result = match probe.and_then(|probe| Ok((probe, left?))) {
                Ok((probe, left)) => {
                    let tell = probe::Teller {
                        service: &name,
                        events: &events,
                    };
                    let this = (member, start);
                    probe::ready(&context, of, this, probe, left, tell).await
                }
                Err(not_ready) => Err(not_ready),
            };
            let probed = Input::Probed {
                start,
                began,
                result,
            };
            let _ = to.tell(Fact(probed)).await;
        });
    }

    fn probed(&self) -> probe::Probed<'_> {
        probe::Probed {
            service: &self.args.service,
            name: &self.name,
            board: &self.args.board,
        }
    }

    /// Starts to watch for the time when the engine reports the service unhealthy.
    fn watch_health(&mut self, start: u32, me: &ActorRef<Self>) {
        let Some(member) = self.member.clone() else {
            return;
        };
        let (me, context) = (me.clone(), Arc::clone(&self.args.context));
        let mut health = member.health();
        self.watchers.spawn(async move {
            let unhealthy = |health: &Option<bool>| *health == Some(false);
            let turned = health.wait_for(unhealthy).await.is_ok();
            if turned {
                let probe = probe::last_probe(&context, &*member).await;
                let _ = me.tell(Fact(Input::Unhealthy { start, probe })).await;
            }
        });
    }

    fn show(&self, change: Change) {
        self.update(|status| match change {
            Change::Stage(stage) => status.stage = stage,
            Change::Started { start, addresses } => {
                status.stage = Stage::Started;
                status.starts = start;
                status.addresses = Some(addresses);
                status.exit = None;
                status.down = None;
            }
            Change::Addresses(addresses) => status.addresses = Some(addresses),
            Change::Exited { exit, stage } => {
                status.exit = Some(exit);
                status.stage = stage.unwrap_or(status.stage);
            }
        });
    }

    /// Shows the service as down, with the evidence of the service that is the root cause.
    async fn show_down(&self, why: GivenUp) -> Arc<Down> {
        let GivenUp {
            outcome,
            reason,
            cause,
        } = why;
        let (context, board) = (&self.args.context, &self.args.board);
        let root = cause.as_ref().and_then(|cause| {
            let down = board.get(cause)?.down;
            Some(down.map_or_else(|| cause.clone(), |down| down.root.clone()))
        });
        let failure = match cause {
            Some(cause) => evidence::of_cause(context, board, &cause).await,
            None => evidence::of_service(context, &self.name, self.member.as_deref()).await,
        };
        let down = Arc::new(Down {
            service: self.name.clone(),
            root: root.unwrap_or_else(|| self.name.clone()),
            outcome,
            reason,
            failure,
        });
        let known = Arc::clone(&down);
        self.update(|status| {
            status.stage = Stage::Down;
            status.down = Some(known);
        });
        down
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.args.board.update(&self.name, change);
    }

    async fn emit(&mut self, state: ServiceState, began: Timestamp, detail: Option<String>) {
        let queued = self.member.as_ref().map(|member| member.queued());
        let queued = queued.unwrap_or_default().max(self.queued);
        let since = queued - std::mem::replace(&mut self.queued, queued);
        let member = self.member.as_ref();
        let image = member.filter(|_| state == ServiceState::Created);
        let changed = EventKind::ServiceChanged {
            service: self.name.clone(),
            state,
            began,
            detail,
            image: image.and_then(|member| member.image()),
            queued_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            reference: self.pulled.take(),
        };
        self.args.events.emit(changed).await;
    }
}

fn end(member: &dyn Member, exit: Exit) -> End {
    let machinery = member.ended_by_machinery();
    End { exit, machinery }
}
