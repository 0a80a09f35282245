//! The actors of one attempt: its stack and its sequence. If one of them dies, the attempt is over.

use super::core::Ending;
use crate::sequence::actor::{Fact, SequenceActor, SequenceArgs};
use crate::sequence::effect::{Input, Judgement};
use crate::stack::actor::{Begin, StackActor, StackArgs};
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn};
use kameo::error::{ActorStopReason, Infallible};
use tokio::sync::oneshot;

/// The running actors of an attempt. They are killed when it is dropped.
pub struct Actors {
    stack: ActorRef<StackActor>,
    sequence: ActorRef<SequenceActor>,
    verdict: oneshot::Receiver<Judgement>,
}

impl Actors {
    /// Spawns the actors. The stack begins at once, and the sequence with [`Input::Start`].
    pub async fn spawn(
        stack: StackArgs,
        sequence: SequenceArgs,
        verdict: oneshot::Receiver<Judgement>,
    ) -> Self {
        let actors = Actors {
            stack: StackActor::spawn(stack),
            sequence: SequenceActor::spawn(sequence),
            verdict,
        };
        // The first step may start a service, so the stack must have registered all services by then. On a busy machine
        // it had not.
        actors.stack.wait_for_startup().await;
        let _ = actors.stack.tell(Begin).await;
        actors
    }

    /// Hands an input to the sequence. It is dropped if the sequence has ended.
    pub async fn tell(&self, input: Input) {
        let _ = self.sequence.tell(Fact(input)).await;
    }

    /// Waits until the sequence has its verdict or an actor has died.
    pub async fn ended(&mut self) -> Ending {
        let died = tokio::select! {
            biased;
            died = death_of(&self.sequence) => died,
            died = death_of(&self.stack) => {
                Some(died.unwrap_or_else(|| "an actor of the cell stopped early".to_owned()))
            }
        };
        match (self.verdict.try_recv(), died) {
            (_, Some(death)) => Ending::Died(death),
            (Ok(judgement), None) => Ending::Judged(judgement),
            (Err(_), None) => Ending::Died("the sequence ended without a verdict".to_owned()),
        }
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        self.sequence.kill();
        self.stack.kill();
    }
}

/// Waits until an actor has stopped. Returns the text of the panic that stopped it, or `None` if it stopped normally.
async fn death_of<A: Actor<Error = Infallible>>(actor: &ActorRef<A>) -> Option<String> {
    actor
        .wait_for_shutdown_with_result(|result| match result {
            Ok(reason) => death(reason),
            Err(error) => Some(error.to_string()),
        })
        .await
}

fn death(reason: &ActorStopReason) -> Option<String> {
    match reason {
        ActorStopReason::Normal => None,
        ActorStopReason::Panicked(error) => Some(
            error
                .with_str(str::to_owned)
                .unwrap_or_else(|| error.to_string()),
        ),
        ActorStopReason::LinkDied { reason, .. } => {
            death(reason).or_else(|| Some("an actor of the cell stopped early".to_owned()))
        }
        other => Some(other.to_string()),
    }
}
