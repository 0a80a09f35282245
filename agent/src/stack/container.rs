//! One service of an attempt: pull or build ▸ create ▸ start ▸ ready ▸ exit, and the steps' actions on it in between.
//!
//! It is an actor, so that all actions on one service happen in order. It reports results as events and on the
//! [`Board`](super::board::Board), and unexpected exits to the sequence.

use super::board::{Board, Stage};
use super::logs::Logs;
use super::probe;
use crate::context::CellContext;
use crate::context::services::{Down, NotDone};
use crate::runtime::contract::{Exit, Member, RuntimeError, Stack};
use crate::sink::EventSink;
use kameo::Actor;
use kameo::actor::{ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use phalanx_shared::event::{EventKind, ServiceState};
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::{ContainerVerb, Service};
use phalanx_shared::language::service::ServiceConfig;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Arguments of a service's actor.
pub struct ServiceArgs {
    /// The service in the spec.
    pub service: Service,
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
    /// Whether it is expected to exit: it is a job that another service or a step waits for.
    pub job: bool,
    /// Whether a step or another service needs it.
    pub needed: bool,
}

/// The actor that owns one service.
pub struct ServiceActor {
    pub(super) args: ServiceArgs,
    pub(super) name: String,
    pub(super) config: Option<ServiceConfig>,
    pub(super) member: Option<Arc<dyn Member>>,
    /// Number of the current or last start.
    pub(super) start: u32,
    /// Whether a step asked for the current start to end.
    pub(super) asked: bool,
    /// Whether a step paused it or disconnected it: its health check is ignored meanwhile.
    pub(super) held: bool,
    /// Tasks that watch the current start for its exit and its readiness.
    pub(super) watchers: JoinSet<()>,
}

impl Actor for ServiceActor {
    type Args = ServiceArgs;
    type Error = Infallible;

    async fn on_start(args: ServiceArgs, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(ServiceActor {
            name: args.service.name.text.clone(),
            args,
            config: None,
            member: None,
            start: 0,
            asked: false,
            held: false,
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
    type Reply = Result<ServiceConfig, RuntimeError>;

    async fn handle(&mut self, _: Define, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        self.define(None).await
    }
}

/// Starts the service, whose dependencies are met. Errors are reported to the sequence.
pub struct Start;

impl Message<Start> for ServiceActor {
    type Reply = ();

    async fn handle(&mut self, _: Start, ctx: &mut Context<Self, Self::Reply>) {
        let me = ctx.actor_ref().clone();
        if let Err(error) = self.start(None, &me).await {
            self.gone_down(error).await;
        }
    }
}

/// Marks a service as down because it can never start.
pub struct GiveUp {
    /// Outcome to report: failed or errored.
    pub outcome: Outcome,
    /// Reason, as shown in reports.
    pub reason: String,
    /// The dependency that can't be met, if that is the reason.
    pub cause: Option<String>,
}

impl Message<GiveUp> for ServiceActor {
    type Reply = ();

    async fn handle(&mut self, why: GiveUp, _: &mut Context<Self, Self::Reply>) {
        let known = self.down_for(why.outcome, why.reason, why.cause).await;
        let _ = self.args.downs.send(known).await;
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
        match what.verb {
            ContainerVerb::Start | ContainerVerb::Run => {
                let result = self.start(Some(&what.scope), &me).await;
                if result.is_err() {
                    // The step gets the error; on the board the service must not stay in the stage of starting.
                    self.set_stage(Stage::Stopped);
                }
                result
            }
            ContainerVerb::Restart => {
                self.stop().await?;
                self.start(Some(&what.scope), &me).await
            }
            ContainerVerb::Stop => Ok(self.stop().await?),
            ContainerVerb::Kill => {
                let member = self.running("kill")?;
                self.asked = true;
                member.kill("SIGKILL".to_owned()).await?;
                self.ended().await;
                Ok(())
            }
            ContainerVerb::Pause => {
                self.held = true;
                Ok(self.running("pause")?.pause().await?)
            }
            ContainerVerb::Unpause => {
                self.held = false;
                Ok(self.running("unpause")?.unpause().await?)
            }
            ContainerVerb::Disconnect => {
                self.held = true;
                Ok(self.running("disconnect")?.disconnect().await?)
            }
            ContainerVerb::Connect => {
                self.held = false;
                let member = self.running("connect")?;
                member.connect().await?;
                let addresses = member.addresses().await?;
                let board = &self.args.board;
                board.update(&self.name, |status| status.addresses = Some(addresses));
                Ok(())
            }
        }
    }
}

/// A start of the service has ended.
pub(super) struct Exited {
    pub start: u32,
    pub exit: Exit,
}

impl Message<Exited> for ServiceActor {
    type Reply = ();

    async fn handle(&mut self, ended: Exited, _: &mut Context<Self, Self::Reply>) {
        // The exit of an earlier start has been handled already by the action that ended it.
        if ended.start == self.start {
            self.exited(ended.exit).await;
        }
    }
}

/// The result of probing a start for readiness.
pub(super) struct Probed {
    pub start: u32,
    pub began: Timestamp,
    pub result: Result<(), probe::NotReady>,
}

impl Message<Probed> for ServiceActor {
    type Reply = ();

    async fn handle(&mut self, probed: Probed, ctx: &mut Context<Self, Self::Reply>) {
        let running = matches!(self.stage(), Some(Stage::Started));
        if probed.start != self.start || !running {
            return;
        }
        match probed.result {
            Ok(()) => {
                self.set_stage(Stage::Ready);
                self.tell(ServiceState::Ready, probed.began, None).await;
                self.watch_health(ctx.actor_ref());
            }
            Err(probe::NotReady { outcome, reason }) => {
                let reason = format!("service {} isn't ready: {reason}", self.name);
                self.down(outcome, reason).await;
            }
        }
    }
}

/// The engine reports a start unhealthy that was healthy before.
pub(super) struct Unhealthy {
    pub start: u32,
}

impl Message<Unhealthy> for ServiceActor {
    type Reply = ();

    async fn handle(&mut self, of: Unhealthy, _: &mut Context<Self, Self::Reply>) {
        let ready = matches!(self.stage(), Some(Stage::Ready));
        if of.start == self.start && ready && !self.held {
            let probe = match &self.member {
                Some(member) => probe::last_probe(&self.args.context, &**member).await,
                None => String::new(),
            };
            let reason = format!("service {} turned unhealthy{probe}", self.name);
            self.down(Outcome::Failed, reason).await;
        }
    }
}

impl ServiceActor {
    pub(super) fn running(&self, verb: &str) -> Result<Arc<dyn Member>, RuntimeError> {
        let running = matches!(self.stage(), Some(Stage::Started | Stage::Ready));
        match &self.member {
            Some(member) if running => Ok(Arc::clone(member)),
            _ => Err(not_running(&self.name, verb)),
        }
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        let status = self.args.board.get(&self.name);
        status.map(|status| status.stage)
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        let board = &self.args.board;
        board.update(&self.name, |status| status.stage = stage);
    }

    pub(super) async fn tell(&self, state: ServiceState, began: Timestamp, detail: Option<String>) {
        let changed = EventKind::ServiceChanged {
            service: self.name.clone(),
            state,
            began,
            detail,
        };
        self.args.events.emit(changed).await;
    }
}

/// Converts the error of an `ask`: returns the handler's own error, or one that says that the actor is gone.
pub fn of_send<M, E: Into<NotDone>>(error: kameo::error::SendError<M, E>) -> NotDone {
    match error {
        kameo::error::SendError::HandlerError(error) => error.into(),
        _ => NotDone::gone(),
    }
}

/// Formats an exit, for example `with code 137, out of memory`.
pub fn exit_text(exit: &Exit) -> String {
    let oom = if exit.oom { ", out of memory" } else { "" };
    format!("with code {}{oom}", exit.code)
}

pub(super) fn not_running(name: &str, verb: &str) -> RuntimeError {
    RuntimeError::Failed(format!("can't {verb} service {name}: it isn't running"))
}
