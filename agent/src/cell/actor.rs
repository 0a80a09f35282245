//! Holds the stack and the sequence of one attempt together: if one of them dies, the other ends too.
//!
//! The actor forwards cancel orders and unexpected service exits to the sequence. Teardown is in [`super::attend`], so
//! that it survives this actor's death.

use crate::context::CellContext;
use crate::context::services::Down;
use crate::sequence::actor::{Fact, SequenceActor, SequenceArgs};
use crate::sequence::effect::{Input, Limits};
use crate::sink::EventSink;
use crate::stack::actor::{Begin, StackActor, StackArgs, Stacks};
use crate::stack::services::StackServices;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::outcome::Outcome;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Arguments of a cell's actor.
pub struct CellArgs {
    /// The context of the attempt.
    pub context: Arc<CellContext>,
    /// The services of the stack.
    pub services: Arc<StackServices>,
    /// The runtimes' stacks, in which the services run.
    pub stacks: Stacks,
    /// Receives events.
    pub events: EventSink,
    /// Receives unexpected exits of services; [`super::attend`] forwards them to this actor.
    pub downs: mpsc::Sender<Down>,
    /// The limits of the cell.
    pub limits: Limits,
    /// Receives the sequence's verdict.
    pub verdict: oneshot::Sender<(Outcome, Option<String>)>,
}

/// The actor of one attempt.
pub struct CellActor {
    stack: ActorRef<StackActor>,
    sequence: ActorRef<SequenceActor>,
}

impl Actor for CellActor {
    type Args = CellArgs;
    type Error = Infallible;

    async fn on_start(args: CellArgs, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let stack = StackActor::spawn(StackArgs {
            context: Arc::clone(&args.context),
            services: args.services,
            stacks: args.stacks,
            events: args.events.clone(),
            downs: args.downs,
        });
        let sequence = SequenceActor::spawn(SequenceArgs {
            context: args.context,
            events: args.events,
            limits: args.limits,
            verdict: args.verdict,
        });
        me.link(&stack).await;
        me.link(&sequence).await;
        // The first step may start a service, so the stack must have registered all services by then. On a busy machine
        // it had not.
        stack.wait_for_startup().await;
        let _ = stack.tell(Begin).await;
        let _ = sequence.tell(Fact(Input::Start)).await;
        Ok(CellActor { stack, sequence })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        // The sequence stops normally once it has its verdict; any other end of either actor ends the attempt.
        Ok(ControlFlow::Break(match reason {
            ActorStopReason::Normal if id == self.sequence.id() => ActorStopReason::Normal,
            reason => ActorStopReason::LinkDied {
                id,
                reason: Box::new(reason),
            },
        }))
    }

    async fn on_stop(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorStopReason,
    ) -> Result<(), Infallible> {
        self.sequence.kill();
        self.stack.kill();
        Ok(())
    }
}

impl Message<CancelOrder> for CellActor {
    type Reply = ();

    async fn handle(&mut self, order: CancelOrder, _: &mut Context<Self, Self::Reply>) {
        let _ = self.sequence.tell(Fact(Input::Cancelled(order))).await;
    }
}

impl Message<Down> for CellActor {
    type Reply = ();

    async fn handle(&mut self, down: Down, _: &mut Context<Self, Self::Reply>) {
        let down = Input::ServiceDown(Box::new(down));
        let _ = self.sequence.tell(Fact(down)).await;
    }
}
