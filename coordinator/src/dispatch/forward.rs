//! Forwards a session's facts to the rest of the coordinator, in order, and returns the answers. These tasks do the
//! waiting, so that the session itself never waits: heartbeats are answered however slow the journal is.

use super::actor::{Input, Session};
use super::contract::{FromAgents, GoesOn};
use super::core::Fact;
use kameo::actor::WeakActorRef;
use phalanx_shared::id::{AgentId, Token};
use tokio::sync::{mpsc, oneshot};

/// Facts of one session that may wait.
const WAITING: usize = 1024;

/// A fact to forward.
pub(super) struct Outward(pub Fact);

/// An answer that the session waits for.
enum Awaited {
    Resumed(oneshot::Receiver<Vec<GoesOn>>),
    Durable {
        token: Token,
        seq: u64,
        done: oneshot::Receiver<()>,
    },
}

/// Starts the session's two tasks, which end with it. Returns the sender for its facts.
pub(super) fn start(
    agent: AgentId,
    facts: mpsc::Sender<FromAgents>,
    session: WeakActorRef<Session>,
) -> mpsc::Sender<Outward> {
    let (outward, outgoing) = mpsc::channel(WAITING);
    let (awaited, answers) = mpsc::channel(WAITING);
    tokio::spawn(take_out(agent, outgoing, facts, awaited));
    tokio::spawn(bring_back(answers, session));
    outward
}

async fn take_out(
    agent: AgentId,
    mut outgoing: mpsc::Receiver<Outward>,
    facts: mpsc::Sender<FromAgents>,
    awaited: mpsc::Sender<Awaited>,
) {
    while let Some(Outward(fact)) = outgoing.recv().await {
        let (message, wait) = dress(&agent, fact);
        if facts.send(message).await.is_err() {
            return;
        }
        if let Some(wait) = wait
            && awaited.send(wait).await.is_err()
        {
            return;
        }
    }
}

fn dress(agent: &AgentId, fact: Fact) -> (FromAgents, Option<Awaited>) {
    let message = match fact {
        Fact::Connected { agent, inventory } => {
            let (answer, receiver) = oneshot::channel();
            let message = FromAgents::Connected {
                agent,
                inventory,
                answer,
            };
            return (message, Some(Awaited::Resumed(receiver)));
        }
        Fact::Events { token, events } => {
            let (durable, done) = oneshot::channel();
            let seq = events.last().map_or(0, |event| event.seq);
            let wait = Awaited::Durable {
                token: token.clone(),
                seq,
                done,
            };
            let message = FromAgents::Events {
                token,
                events,
                durable,
            };
            return (message, Some(wait));
        }
        Fact::Disconnected { reason } => FromAgents::Disconnected {
            agent: agent.clone(),
            reason,
        },
        Fact::Lost { reason } => FromAgents::Lost {
            agent: agent.clone(),
            reason,
        },
        Fact::Draining => FromAgents::Draining {
            agent: agent.clone(),
        },
        Fact::Accepted { token } => FromAgents::Accepted { token },
        Fact::Declined { token, reason } => FromAgents::Declined { token, reason },
        Fact::Revoked { token, reason } => FromAgents::Revoked { token, reason },
    };
    (message, None)
}

async fn bring_back(mut answers: mpsc::Receiver<Awaited>, session: WeakActorRef<Session>) {
    while let Some(awaited) = answers.recv().await {
        let input = match awaited {
            // Without an answer for the inventory, none of its attempts continue.
            Awaited::Resumed(answer) => Input::Resumed(answer.await.unwrap_or_default()),
            Awaited::Durable { token, seq, done } => match done.await {
                Ok(()) => Input::Durable { token, seq },
                Err(_) => Input::NotDurable { token },
            },
        };
        let Some(session) = session.upgrade() else {
            return;
        };
        if session.tell(input).await.is_err() {
            return;
        }
    }
}
