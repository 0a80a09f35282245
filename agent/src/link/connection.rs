//! Keeps a control stream to the coordinator: connects, forwards messages to the agent's actor, and reconnects with
//! back-off.

use super::backoff;
use super::connect::Coordinator;
use super::input::{Input, Wire};
use kameo::actor::WeakRecipient;
use phalanx_proto::broken;
use phalanx_proto::convert::InvalidToAgent;
use phalanx_proto::link::FromAgent;
use phalanx_proto::specs::SpecsHeld;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Capacity of the queue into the transport; more than all attempts together may have in flight.
const UNDER_WAY: usize = 4096;
/// Pause after the coordinator refused the agent for a reason that a quick retry doesn't change.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Time limit for sending the Goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connects repeatedly until the actor is gone or `leave` is cancelled.
pub(super) async fn keep(
    coordinator: Coordinator,
    agent: WeakRecipient<Input>,
    leave: CancellationToken,
) {
    let (mut failed, mut generation) = (0, 0);
    while !leave.is_cancelled() {
        generation += 1;
        let ended = session(&coordinator, &agent, generation, &leave).await;
        let refused = matches!(ended, Ended::Refused(_));
        let pause = match &ended {
            Ended::Gone => return,
            Ended::Broken(_) => {
                failed = 0;
                backoff::pause(0, backoff::chance())
            }
            Ended::Unreachable(_) => {
                failed += 1;
                backoff::pause(failed, backoff::chance())
            }
            Ended::Refused(_) => REFUSED_PAUSE,
        };
        if let Ended::Broken(reason) | Ended::Unreachable(reason) | Ended::Refused(reason) = ended {
            if matches!(failed, 0 | 1) || refused {
                tracing::warn!(reason, "no connection to the coordinator; trying again");
            }
            let Some(agent) = agent.upgrade() else { return };
            if agent.tell(Input::Broken { generation }).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = leave.cancelled() => {}
        }
    }
}

enum Ended {
    /// The actor is gone, or the agent has left.
    Gone,
    /// The session was established and then lost.
    Broken(String),
    /// No session was established.
    Unreachable(String),
    /// The coordinator refused this agent.
    Refused(String),
}

async fn session(
    coordinator: &Coordinator,
    agent: &WeakRecipient<Input>,
    generation: u64,
    leave: &CancellationToken,
) -> Ended {
    let mut client = match coordinator.control().await {
        Ok(client) => client,
        Err(error) => return Ended::Unreachable(error.to_string()),
    };
    let (sender, outgoing) = mpsc::channel(UNDER_WAY);
    let cut = CancellationToken::new();
    let wire = Wire {
        sender,
        cut: cut.clone(),
    };
    let Some(told) = agent.upgrade() else {
        return Ended::Gone;
    };
    // The Hello must be in the stream before the call is answered.
    if told
        .tell(Input::Connected { generation, wire })
        .await
        .is_err()
    {
        return Ended::Gone;
    }
    drop(told);
    let call = client.session(ReceiverStream::new(outgoing));
    let mut incoming = tokio::select! {
        answer = call => match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) => return unanswered(&status),
        },
        () = cut.cancelled() => return Ended::Broken("the link gave it up".to_owned()),
    };
    let mut answered = false;
    let mut specs = SpecsHeld::default();
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = cut.cancelled() => return Ended::Broken("the link gave it up".to_owned()),
            () = farewell(leave) => return Ended::Gone,
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) if !answered => {
                return Ended::Unreachable("it closed the connection without an answer".to_owned());
            }
            Ok(None) => return Ended::Broken("the coordinator closed the connection".to_owned()),
            Err(status) if !answered => return unanswered(&status),
            Err(status) => return Ended::Broken(broken(&status)),
        };
        answered = true;
        let Some(told) = agent.upgrade() else {
            return Ended::Gone;
        };
        let input = match specs.domain(message) {
            Ok(Some(message)) => Input::Received {
                generation,
                message: Box::new(message),
            },
            Ok(None) => continue,
            // An offer that can't be decoded can still be declined.
            Err(InvalidToAgent::Job { token, error }) => Input::Say {
                generation,
                message: FromAgent::Decline {
                    token,
                    reason: format!("this agent can't read the job: {error}; upgrade the agent"),
                },
            },
            // Ignore messages of a later version.
            Err(InvalidToAgent::Unknown) => continue,
            Err(InvalidToAgent::Token(error)) => {
                return Ended::Broken(format!("the coordinator sent nonsense: {error}"));
            }
        };
        if told.tell(input).await.is_err() {
            return Ended::Gone;
        }
    }
}

/// Waits until the agent leaves, and then until the Goodbye has been sent.
async fn farewell(leave: &CancellationToken) {
    leave.cancelled().await;
    tokio::time::sleep(FAREWELL).await;
}

/// Handles a peer that accepted the connection but sent no Welcome.
fn unanswered(status: &Status) -> Ended {
    let not_one = || {
        format!(
            "no answer from a coordinator, is it one? {}",
            broken(status)
        )
    };
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => {
            Ended::Unreachable(broken(status))
        }
        // The peer speaks HTTP but doesn't know the service.
        Code::Unimplemented => Ended::Refused(not_one()),
        code if refused(code) => Ended::Refused(status.message().to_owned()),
        _ => Ended::Unreachable(not_one()),
    }
}

fn refused(code: Code) -> bool {
    matches!(
        code,
        Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
    )
}
