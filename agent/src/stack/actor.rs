//! Starts a stack's services when their dependencies allow it. Each service has its own actor.

use super::board::{Board, Stage};
use super::core::{Effect, Input, Starter};
use super::expected::Expected;
use super::service;
use super::service::actor::{Define, Fact, ServiceActor, ServiceArgs, of_send};
use super::service::core::Role;
use super::services::StackServices;
use crate::context::CellContext;
use crate::context::services::Down;
use crate::runtime::contract::{RuntimeError, Stack};
use crate::sink::EventSink;
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
}

/// The actor that owns the services' actors.
pub struct StackActor {
    context: Arc<CellContext>,
    board: Board,
    services: BTreeMap<String, ActorRef<ServiceActor>>,
    core: Starter,
    watcher: JoinSet<()>,
}

impl Actor for StackActor {
    type Args = StackArgs;
    type Error = Infallible;

    async fn on_start(args: StackArgs, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let context = args.context;
        let expected = Expected::of(&context.spec, &context.cache);
        let mut services = BTreeMap::new();
        for service in &context.spec.services {
            let stack = match service.process {
                true => &args.stacks.processes,
                false => &args.stacks.containers,
            };
            let actor = ServiceActor::spawn(ServiceArgs {
                service: service.clone(),
                context: Arc::clone(&context),
                board: args.services.board.clone(),
                logs: args.services.logs.clone(),
                stack: stack.clone(),
                events: args.events.clone(),
                downs: args.downs.clone(),
                role: Role {
                    job: expected.is_job(&service.name.text),
                    needed: expected.is_needed(&service.name.text),
                    predicate: service.ready.is_some(),
                },
            });
            // A panic of a service's actor ends the attempt.
            me.link(&actor).await;
            services.insert(service.name.text.clone(), actor);
        }
        args.services.introduce(services.clone());
        Ok(StackActor {
            context,
            board: args.services.board.clone(),
            services,
            core: Starter::default(),
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

impl StackActor {
    /// Evaluates all definitions, which is necessary to know the dependencies.
    async fn define_all(&mut self) {
        let context = Arc::clone(&self.context);
        let automatic = context.spec.services.iter();
        for service in automatic.filter(|service| !service.manual) {
            let service = service.name.text.clone();
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
