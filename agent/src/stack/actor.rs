//! Starts a stack's services when their dependencies allow it. Each service has its own actor.

use super::board::{Board, Stage};
use super::container::{Define, GiveUp, ServiceActor, ServiceArgs, Start, of_send};
use super::core::{Decision, Wanted, decide};
use super::expected::Expected;
use super::services::StackServices;
use crate::context::CellContext;
use crate::context::services::Down;
use crate::runtime::contract::{RuntimeError, Stack};
use crate::sink::EventSink;
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use phalanx_shared::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};
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
    wanted: Wanted,
    /// Services that have been started or given up.
    decided: BTreeSet<String>,
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
                job: expected.is_job(&service.name.text),
                needed: expected.is_needed(&service.name.text),
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
            wanted: Wanted::new(),
            decided: BTreeSet::new(),
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
        self.decide().await;
    }
}

/// The state of a service has changed.
struct Changed;

impl Message<Changed> for StackActor {
    type Reply = ();

    async fn handle(&mut self, _: Changed, _: &mut Context<Self, Self::Reply>) {
        self.decide().await;
    }
}

impl StackActor {
    /// Evaluates all definitions, which is necessary to know the dependencies. A service with an invalid definition is
    /// down at once.
    async fn define_all(&mut self) {
        let automatic = self
            .context
            .spec
            .services
            .iter()
            .filter(|service| !service.manual);
        for service in automatic {
            let name = &service.name.text;
            let Some(actor) = self.services.get(name) else {
                continue;
            };
            match actor
                .ask(Define)
                .await
                .map_err(of_send)
                .map_err(RuntimeError::from)
            {
                Ok(config) => {
                    let required = config.depends_on.iter().filter(|(_, on)| on.required);
                    let needs: Vec<String> = required.map(|(name, _)| name.clone()).collect();
                    self.board.update(name, |status| status.needs = needs);
                    let on = config.depends_on.into_iter().collect();
                    self.wanted.insert(name.clone(), on);
                }
                Err(error) => {
                    let (outcome, reason) = match error {
                        RuntimeError::Failed(reason) => (Outcome::Failed, reason),
                        RuntimeError::Errored(reason) => (Outcome::Errored, reason),
                    };
                    let cause = None;
                    let _ = actor
                        .tell(GiveUp {
                            outcome,
                            reason,
                            cause,
                        })
                        .await;
                }
            }
        }
    }

    async fn decide(&mut self) {
        let board = self.board.all();
        for decision in decide(&self.wanted, &board) {
            let (Decision::Start(name) | Decision::GiveUp { service: name, .. }) = &decision;
            let fresh = self.decided.insert(name.clone());
            let Some(actor) = self.services.get(name).filter(|_| fresh) else {
                continue;
            };
            match decision {
                Decision::Start(name) => {
                    // Set the stage at once, so that waiting steps see that the service is starting.
                    self.board
                        .update(&name, |status| status.stage = Stage::Starting);
                    let _ = actor.tell(Start).await;
                }
                Decision::GiveUp {
                    outcome,
                    reason,
                    cause,
                    ..
                } => {
                    let cause = Some(cause);
                    let _ = actor
                        .tell(GiveUp {
                            outcome,
                            reason,
                            cause,
                        })
                        .await;
                }
            }
        }
    }
}
