//! Serves one log stream of an agent: records arrive, pass the gate, are stored and acknowledged, in batches of what
//! has arrived.
//!
//! The stream starts once the agent's Hello was answered over the session stream: only then is it known which tokens
//! the gate lets in.

use super::store::{LogStore, Stored};
use crate::dispatch::gate::SharedGate;
use crate::identity::core::same_agent;
use futures::{Stream, StreamExt};
use phalanx_proto::convert::InvalidLogUp;
use phalanx_proto::limit::LOG_WINDOW_BYTES;
use phalanx_proto::log::{LogDown, LogUp, Record};
use phalanx_proto::v1;
use phalanx_shared::id::{AgentId, Token};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// Maximum number of records in one batch.
const AT_ONCE: usize = 64;

/// How long a log stream waits for its agent's Hello. An agent opens both streams at once and reopens this one when it
/// ends.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// Sender of the answers.
pub type Wire = mpsc::Sender<Result<v1::LogDown, Status>>;

/// Serves a log stream until it ends. The first message names the agent, which must be the authenticated one, if there are
/// identities.
pub async fn serve(
    gate: SharedGate,
    store: LogStore,
    peer: Option<AgentId>,
    mut incoming: impl Stream<Item = Result<v1::LogUp, Status>> + Send + Unpin,
    wire: Wire,
) {
    let ended = receive(gate, store, peer, &mut incoming, &wire).await;
    if let Err(status) = ended {
        tracing::info!(
            reason = phalanx_proto::broken(&status),
            "a log stream ended"
        );
        let _ = wire.send(Err(status)).await;
    }
}

async fn receive(
    gate: SharedGate,
    store: LogStore,
    peer: Option<AgentId>,
    incoming: &mut (impl Stream<Item = Result<v1::LogUp, Status>> + Send + Unpin),
    wire: &Wire,
) -> Result<(), Status> {
    let agent = match incoming.next().await {
        None => return Ok(()),
        Some(first) => match LogUp::try_from(first?) {
            Ok(LogUp::Hello { agent }) => agent,
            Ok(_) => {
                return Err(Status::invalid_argument(
                    "the first message isn't a LogHello",
                ));
            }
            Err(error) => return Err(Status::invalid_argument(error.to_string())),
        },
    };
    if let Some(peer) = &peer {
        same_agent(peer, &agent)?;
    }
    tokio::select! {
        () = gate.until_welcome(&agent) => {}
        () = wire.closed() => return Ok(()),
        () = tokio::time::sleep(WELCOME_WITHIN) => {
            return Err(Status::unavailable(format!("no agent {agent} has come")));
        }
    }
    let welcome = LogDown::Welcome {
        window_bytes: LOG_WINDOW_BYTES,
    };
    answer(wire, welcome).await?;
    let mut batches = incoming.ready_chunks(AT_ONCE);
    while let Some(batch) = batches.next().await {
        let mut records: BTreeMap<Token, Vec<Record>> = BTreeMap::new();
        let mut broken = None;
        for message in batch {
            match message.map(LogUp::try_from) {
                Ok(Ok(LogUp::Record { token, record })) => {
                    records.entry(token).or_default().push(record);
                }
                // From a later version, or a second Hello: ignored.
                Ok(Ok(LogUp::Hello { .. }) | Err(InvalidLogUp::Unknown)) => {}
                Ok(Err(error)) => broken = Some(Status::invalid_argument(error.to_string())),
                Err(status) => broken = Some(status),
            }
        }
        // Concurrently: a disk that is asked to sync many files at the same moment does it in one go.
        let keeping = records
            .into_iter()
            .map(|(token, records)| keep(&gate, &store, &agent, token, records));
        for kept in futures::future::join_all(keeping).await {
            for said in kept? {
                answer(wire, said).await?;
            }
        }
        if let Some(status) = broken {
            return Err(status);
        }
    }
    Ok(())
}

/// Stores records of one attempt if its token passes the gate.
async fn keep(
    gate: &SharedGate,
    store: &LogStore,
    agent: &AgentId,
    token: Token,
    records: Vec<Record>,
) -> Result<Vec<LogDown>, Status> {
    let verdict = gate.lock().check(agent, &token);
    if let Err(stale) = verdict {
        let reason = stale.to_string();
        return Ok(vec![LogDown::Refused { token, reason }]);
    }
    let number = records.last().map_or(0, |record| record.number);
    let (to, of) = (store.clone(), token.clone());
    let stored = tokio::task::spawn_blocking(move || to.append(&of, records)).await;
    match stored {
        Ok(Ok(Stored::Kept)) => {
            // Before the acknowledgement, after which the agent says that everything is stored.
            let refused = store.artifacts().take_refusals(&token).into_iter();
            let refused = refused.map(|(id, reason)| LogDown::ArtifactRefused {
                token: token.clone(),
                id,
                reason,
            });
            let mut said: Vec<LogDown> = refused.collect();
            said.push(LogDown::Ack { token, number });
            Ok(said)
        }
        Ok(Ok(Stored::Over)) => Ok(vec![LogDown::Refused {
            token,
            reason: "the attempt is over for the coordinator".to_owned(),
        }]),
        Ok(Ok(Stored::Refused(reason))) => Ok(vec![LogDown::Refused { token, reason }]),
        // The agent keeps unacknowledged records and reconnects.
        Ok(Err(error)) => Err(Status::resource_exhausted(format!("storing logs: {error}"))),
        Err(error) => Err(Status::internal(format!("storing logs: {error}"))),
    }
}

async fn answer(wire: &Wire, message: LogDown) -> Result<(), Status> {
    wire.send(Ok(message.into()))
        .await
        .map_err(|_| Status::cancelled("the agent doesn't listen any more"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_proto::log::{Body, Source};
    use phalanx_shared::event::LogStream;
    use phalanx_shared::time::Timestamp;

    /// After a restart of the coordinator, the agent's log stream may be back before its session.
    #[tokio::test]
    async fn logs_that_come_before_their_agent_is_known_wait_and_are_kept() {
        let (agent, token) = (
            AgentId::from("a"),
            Token {
                run: "run".into(),
                cell: "cell".into(),
                attempt: 1,
                epoch: 1,
            },
        );
        let record = Record {
            number: 1,
            body: Body::Chunk {
                source: Source {
                    service: "db".to_owned(),
                    stream: LogStream::Stdout,
                },
                offset: 0,
                at: Timestamp(1),
                bytes: b"up".to_vec(),
            },
        };
        let hello = LogUp::Hello {
            agent: agent.clone(),
        };
        let said = LogUp::Record {
            token: token.clone(),
            record,
        };
        let incoming = futures::stream::iter([Ok(hello.into()), Ok(said.into())]);
        let incoming = incoming.chain(futures::stream::pending());
        let place = tempfile::tempdir().unwrap();
        let (gate, store) = (SharedGate::default(), LogStore::new(place.path()));
        let (wire, mut answers) = mpsc::channel(4);
        tokio::spawn(serve(
            gate.clone(),
            store.clone(),
            None,
            Box::pin(incoming),
            wire,
        ));
        // Let the server run until it waits.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(answers.try_recv().is_err(), "nothing is said yet");
        gate.lock().open(token.clone(), agent.clone());
        store.open(&token, &agent);
        gate.welcome(&agent);
        let mut next = async || LogDown::try_from(answers.recv().await.unwrap().unwrap()).unwrap();
        assert!(matches!(next().await, LogDown::Welcome { .. }));
        assert_eq!(next().await, LogDown::Ack { token, number: 1 });
    }
}
