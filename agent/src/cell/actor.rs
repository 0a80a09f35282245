//! Holds the stack and the sequence of one attempt together: the death of either is the death of the other.
//!
//! Orders (cancel) and bad news (a service went down) come in here and go to the sequence. Teardown isn't here but in
//! [`super::attend`], which this can't take along when it dies.

use super::context::CellContext;
use crate::cell_contract::CancelOrder;
use crate::sequence::actor::{Fact, SequenceActor, SequenceArgs};
use crate::sequence::effect::{Down, Input, Limits};
use crate::sink::EventSink;
use crate::stack::actor::{Begin, StackActor, StackArgs, Stacks};
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use phalanx_shared::outcome::Outcome;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What a cell's actor is made of.
pub struct CellArgs {
    /// The attempt.
    pub context: Arc<CellContext>,
    /// Where its services live.
    pub stacks: Stacks,
    /// Where facts go.
    pub events: EventSink,
    /// Where unasked ends of services go: to this actor, by way of whoever reads the other end.
    pub downs: mpsc::Sender<Down>,
    /// The limits of the cell.
    pub limits: Limits,
    /// Where the sequence's verdict goes.
    pub verdict: oneshot::Sender<(Outcome, Option<String>)>,
}

/// One attempt.
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
        // The first step may start a service: by then the stack must have introduced them. On a busy machine it had not.
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
        // The sequence stops when it has come to its verdict; any other end of either is the end of the attempt.
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
        let _ = self.sequence.tell(Fact(order.into())).await;
    }
}

impl Message<Down> for CellActor {
    type Reply = ();

    async fn handle(&mut self, down: Down, _: &mut Context<Self, Self::Reply>) {
        let down = Input::ServiceDown(Box::new(down));
        let _ = self.sequence.tell(Fact(down)).await;
    }
}
