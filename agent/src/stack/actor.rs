//! Starts a stack's services when their dependencies allow it. Each service has its own actor.

use super::board::{Board, Stage};
use super::core::{Effect, Input, Starter};
use super::expected::Expected;
use super::service;
use super::service::actor::{Define, Fact, Renew, ServiceActor, ServiceArgs, of_send};
use super::service::core::Role;
use super::services::StackServices;
use super::snapshots::{self, Snapshots};
use super::{definition, replicas};
use crate::context::CellContext;
use crate::context::services::Down;
use crate::runtime::contract::{RuntimeError, Stack};
use crate::sink::EventSink;
use crate::snapshot::Store;
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The runtimes' stacks in which an attempt's services run, or the reason why one is unavailable.
#[derive(Clone)]
pub struct Stacks {
    /// The stack for host processes.
    pub processes: Result<Arc<dyn Stack>, String>,
    /// The stack for containers.
    pub containers: Result<Arc<dyn Stack>, String>,
}

/// Arguments of a stack's actor.
pub struct StackArgs {
    /// The context of the attempt.
    pub context: Arc<CellContext>,
    /// The services, whose actors this actor registers.
    pub services: Arc<StackServices>,
    /// The stacks in which the services run.
    pub stacks: Stacks,
    /// Receives events.
    pub events: EventSink,
    /// Receives unexpected exits of services.
    pub downs: mpsc::Sender<Down>,
    /// Where the agent keeps snapshots, if it does.
    pub store: Option<Store>,
}

/// The actor that owns the services' actors.
pub struct StackActor {
    board: Board,
    /// The services' actors: one for each replica of a service that has several.
    services: BTreeMap<String, ActorRef<ServiceActor>>,
    /// Those that no step has to start, in the order of the spec.
    automatic: Vec<String>,
    core: Starter,
    snapshots: Option<Arc<Snapshots>>,
    watcher: JoinSet<()>,
}

impl Actor for StackActor {
    type Args = StackArgs;
    type Error = Infallible;

    async fn on_start(args: StackArgs, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let context = args.context;
        let expected = Expected::of(&context.spec, &context.cache);
        let snapshots = Snapshots::of(snapshots::Of {
            store: args.store,
            context: &context,
            board: &args.services.board,
            stack: args.stacks.containers.clone(),
            events: &args.events,
        });
        let mut services = BTreeMap::new();
        let mut automatic = Vec::new();
        let board = &args.services.board;
        for service in &context.spec.services {
            let name = &service.name.text;
            let count = definition::replicas(&context, service);
            let names = replicas::names(name, count);
            if service.manual || count == 0 {
                board.update(name, |status| status.manual = true);
            } else {
                automatic.extend(names.iter().cloned());
            }
            if names.len() > 1 {
                board.replicate(name, &names);
            }
            let stack = match service.process {
                true => &args.stacks.processes,
                false => &args.stacks.containers,
            };
            for own in names {
                let actor = ServiceActor::spawn(ServiceArgs {
                    service: service.clone(),
                    name: own.clone(),
                    replicas: count.max(1),
                    context: Arc::clone(&context),
                    board: board.clone(),
                    logs: args.services.logs.clone(),
                    stack: stack.clone(),
                    events: args.events.clone(),
                    downs: args.downs.clone(),
                    role: Role {
                        job: expected.is_job(name) || expected.is_job(&own),
                        needed: expected.is_needed(name) || expected.is_needed(&own),
                        predicate: service.ready.is_some(),
                    },
                    restored: snapshots.as_ref().map(|snapshots| snapshots.restored()),
                });
                // A panic of a service's actor ends the attempt.
                me.link(&actor).await;
                services.insert(own, actor);
            }
        }
        args.services
            .introduce(services.clone(), snapshots.as_ref());
        Ok(StackActor {
            board: args.services.board.clone(),
            services,
            automatic,
            core: Starter::default(),
            snapshots,
            watcher: JoinSet::new(),
        })
    }

    async fn on_stop(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorStopReason,
    ) -> Result<(), Infallible> {
        self.watcher.abort_all();
        for actor in self.services.values() {
            actor.kill();
        }
        Ok(())
    }
}

/// Starts the services that aren't `start: manual`.
pub struct Begin;

impl Message<Begin> for StackActor {
    type Reply = ();

    async fn handle(&mut self, _: Begin, ctx: &mut Context<Self, Self::Reply>) {
        self.define_all().await;
        let me = ctx.actor_ref().clone();
        self.decide_snapshot(&me).await;
        let mut changes = self.board.subscribe();
        self.watcher.spawn(async move {
            while changes.changed().await.is_ok() {
                changes.borrow_and_update();
                if me.tell(Changed).await.is_err() {
                    break;
                }
            }
        });
        self.handle_input(Input::Board(self.board.all())).await;
    }
}

/// The state of a service has changed.
struct Changed;

impl Message<Changed> for StackActor {
    type Reply = ();

    async fn handle(&mut self, _: Changed, _: &mut Context<Self, Self::Reply>) {
        self.handle_input(Input::Board(self.board.all())).await;
    }
}

/// It is decided whether the services of the snapshot start with saved files.
struct Decided;

impl Message<Decided> for StackActor {
    type Reply = ();

    async fn handle(&mut self, _: Decided, _: &mut Context<Self, Self::Reply>) {
        self.handle_input(Input::Release).await;
        self.handle_input(Input::Board(self.board.all())).await;
    }
}

/// A service can't run with the files that were restored.
struct Broken(String);

impl Message<Broken> for StackActor {
    type Reply = ();

    async fn handle(&mut self, Broken(why): Broken, _: &mut Context<Self, Self::Reply>) {
        let Some(snapshots) = self.snapshots.clone() else {
            return;
        };
        // Another service of it may have told the same before.
        if !snapshots.fail(&why).await {
            return;
        }
        let named = snapshots.named().to_vec();
        self.handle_input(Input::Hold(named.iter().cloned().collect()))
            .await;
        for service in &named {
            if let Some(actor) = self.services.get(service) {
                let _ = actor.ask(Renew).await;
            }
        }
        snapshots.go_on_without().await;
        self.handle_input(Input::Release).await;
        self.handle_input(Input::Renew(named)).await;
        self.handle_input(Input::Board(self.board.all())).await;
    }
}

impl StackActor {
    /// Holds the services of the snapshot until it is decided whether they start with saved files.
    async fn decide_snapshot(&mut self, me: &ActorRef<Self>) {
        let Some(snapshots) = self.snapshots.clone() else {
            return;
        };
        let held = snapshots.named().iter().cloned().collect();
        self.handle_input(Input::Hold(held)).await;
        if let Some(mut broken) = snapshots.broken() {
            let me = me.clone();
            self.watcher.spawn(async move {
                while let Some(why) = broken.recv().await {
                    if me.tell(Broken(why)).await.is_err() {
                        break;
                    }
                }
            });
        }
        let (me, services) = (me.clone(), self.services.clone());
        self.watcher.spawn(async move {
            snapshots.decide(&services).await;
            let _ = me.tell(Decided).await;
        });
    }

    /// Evaluates all definitions, which is necessary to know the dependencies.
    async fn define_all(&mut self) {
        for service in self.automatic.clone() {
            let Some(actor) = self.services.get(&service) else {
                continue;
            };
            let config = actor.ask(Define).await.map_err(of_send);
            let result = config
                .map(|config| config.depends_on.clone().into_iter().collect())
                .map_err(RuntimeError::from);
            self.handle_input(Input::Defined { service, result }).await;
        }
    }

    async fn handle_input(&mut self, input: Input) {
        for effect in self.core.handle(input) {
            match effect {
                Effect::ShowNeeds { service, needs } => {
                    self.board.update(&service, |status| status.needs = needs);
                }
                Effect::Start(service) => {
                    // Set the stage at once, so that waiting steps see that the service is starting.
                    self.board
                        .update(&service, |status| status.stage = Stage::Starting);
                    self.tell(&service, service::core::Input::Start).await;
                }
                Effect::GiveUp { service, why } => {
                    self.tell(&service, service::core::Input::GiveUp(why)).await;
                }
            }
        }
    }

    async fn tell(&self, service: &str, input: service::core::Input) {
        if let Some(actor) = self.services.get(service) {
            let _ = actor.tell(Fact(input)).await;
        }
    }
}
