//! The task that owns the log spool: takes bytes from cells, keeps a log stream to the coordinator, and tells the link
//! when an attempt's logs are over.
//!
//! It is one loop with synchronous handlers. Bytes come through bounded channels; a full channel makes the service
//! wait.

use super::spool::{LogSpool, Over};
use crate::clock::runtime_now;
use crate::duration::duration_text;
use crate::link::backoff;
use crate::link::connect::{Coordinator, Unreachable};
use crate::link::overflow::Overflow;
use crate::sink::{ArtifactPart, ArtifactPiece};
use phalanx_proto::log::{LogDown, LogUp, Source};
use phalanx_proto::v1;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Capacity of the input channels.
const WAITING: usize = 256;
/// Capacity of the queue into the transport, in records.
const UNDER_WAY: usize = 32;
/// The logs of an ended attempt are declared lost if they make no progress for this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// The artifacts of an ended attempt are declared lost after this long, even if they make progress: the verdict waits for
/// them, and the coordinator takes an attempt back that is overdue.
const ARTIFACTS_WITHIN: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_secs(1);

/// Takes logs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    bytes: mpsc::Sender<Input>,
    /// Unbounded, so that the agent's actor never waits for the log task, which may be waiting for the actor. There are
    /// few orders per attempt.
    orders: mpsc::UnboundedSender<Order>,
}

impl Logs {
    /// Sends an input; waits while the spool is behind.
    pub async fn tell(&self, input: Input) {
        // A closed channel means that the agent is shutting down.
        let _ = self.bytes.send(input).await;
    }

    /// Sends an order, which is handled before inputs that are sent later.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// Orders of the agent's actor about an attempt's logs.
#[derive(Debug)]
pub enum Order {
    /// The attempt starts.
    Open(Token),
    /// Drop the logs, because they are no longer wanted.
    Drop { token: Token, reason: String },
    /// Send no more artifacts.
    NoArtifacts { token: Token, reason: String },
}

/// Inputs from cells.
#[derive(Debug)]
pub enum Input {
    /// Bytes of a service.
    Write {
        token: Token,
        source: Source,
        at: Timestamp,
        bytes: Vec<u8>,
    },
    /// Bytes of an artifact, or its end.
    Artifact(ArtifactPiece),
    /// The end of an attempt's logs and artifacts.
    End(Token),
}

/// Events of the log stream.
enum Wire {
    Up(mpsc::Sender<v1::LogUp>),
    Said(LogDown),
    Down,
}

/// Starts the task. It ends when all [`Logs`] are dropped. `over` receives each attempt once.
pub fn start<O: Overflow + 'static>(
    agent: AgentId,
    coordinator: Coordinator,
    spool: LogSpool<O>,
    over: mpsc::Sender<Over>,
) -> Logs {
    let (bytes, inputs) = mpsc::channel(WAITING);
    let (orders, ordered) = mpsc::unbounded_channel();
    let (wire_sender, wire) = mpsc::channel(WAITING);
    tokio::spawn(keep_connected(agent, coordinator, wire_sender));
    let uploader = Uploader {
        spool,
        stream: None,
        blocked: false,
        ended: BTreeMap::new(),
    };
    tokio::spawn(uploader.run(inputs, ordered, wire, over));
    Logs { bytes, orders }
}

struct Uploader<O> {
    spool: LogSpool<O>,
    stream: Option<mpsc::Sender<v1::LogUp>>,
    /// The stream's queue was full; wait until it is writable.
    blocked: bool,
    ended: BTreeMap<Token, Ended>,
}

/// An attempt whose logs and artifacts are all here.
struct Ended {
    at: Instant,
    /// Time of the last progress.
    progress: Instant,
}

impl<O: Overflow> Uploader<O> {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut wire: mpsc::Receiver<Wire>,
        over: mpsc::Sender<Over>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            let waited_for = self.stream.clone().filter(|_| self.blocked);
            let gone = tokio::select! {
                // Orders come before the bytes that they concern. Acknowledgements come before more bytes, because they
                // give credit and free memory.
                biased;
                Some(order) = orders.recv() => self.on_order(order),
                Some(news) = wire.recv() => self.on_wire(news),
                () = writable(waited_for) => None,
                _ = tick.tick() => {
                    self.give_up_slow_artifacts();
                    for lost in self.out_of_patience() {
                        let gone = self.spool.give_up(&lost, "the coordinator didn't take it in time");
                        if let Some(gone) = gone && over.send(gone).await.is_err() {
                            return;
                        }
                    }
                    None
                }
                input = inputs.recv() => match input {
                    Some(input) => self.on_input(input),
                    None => return,
                },
            };
            if let Some(gone) = gone {
                self.ended.remove(&gone.token);
                if over.send(gone).await.is_err() {
                    return;
                }
            }
            self.send();
        }
    }

    fn on_order(&mut self, order: Order) -> Option<Over> {
        match order {
            Order::Open(token) => {
                self.spool.open(token);
                None
            }
            Order::Drop { token, reason } => self.spool.give_up(&token, &reason),
            Order::NoArtifacts { token, reason } => {
                self.spool.give_up_artifacts(&token, &reason);
                None
            }
        }
    }

    fn on_input(&mut self, input: Input) -> Option<Over> {
        match input {
            Input::Write {
                token,
                source,
                at,
                bytes,
            } => {
                self.spool.write(&token, source, at, &bytes);
                None
            }
            Input::Artifact(ArtifactPiece { token, id, part }) => {
                match part {
                    ArtifactPart::Bytes(bytes) => self.spool.artifact(&token, id, &bytes),
                    ArtifactPart::End { digest, size } => {
                        self.spool.artifact_end(&token, id, digest, size);
                    }
                }
                None
            }
            Input::End(token) => {
                let over = self.spool.end(&token);
                if over.is_none() {
                    let at = runtime_now();
                    self.ended.insert(token, Ended { at, progress: at });
                }
                over
            }
        }
    }

    fn on_wire(&mut self, news: Wire) -> Option<Over> {
        match news {
            Wire::Up(stream) => self.stream = Some(stream),
            Wire::Down => {
                self.stream = None;
                self.spool.disconnected();
            }
            Wire::Said(LogDown::Welcome { window_bytes }) => self.spool.connected(window_bytes),
            Wire::Said(LogDown::Ack { token, number }) => {
                if let Some(ended) = self.ended.get_mut(&token) {
                    ended.progress = runtime_now();
                }
                return self.spool.acknowledge(&token, number);
            }
            Wire::Said(LogDown::Refused { token, reason }) => {
                return self.spool.refuse(&token, &reason);
            }
            Wire::Said(LogDown::ArtifactRefused { token, id, reason }) => {
                self.spool.refuse_artifact(&token, id, &reason);
            }
        }
        None
    }

    fn give_up_slow_artifacts(&mut self) {
        for (token, ended) in &self.ended {
            if ended.at.elapsed() >= ARTIFACTS_WITHIN {
                let within = duration_text(ARTIFACTS_WITHIN);
                let reason = format!("it didn't arrive within {within} after the end");
                self.spool.give_up_artifacts(token, &reason);
            }
        }
    }

    fn out_of_patience(&mut self) -> Vec<Token> {
        let stuck = |(_, ended): &(&Token, &Ended)| ended.progress.elapsed() >= PATIENCE;
        let tokens = self.ended.iter().filter(stuck);
        let tokens: Vec<Token> = tokens.map(|(token, _)| token.clone()).collect();
        tokens.iter().for_each(|token| {
            self.ended.remove(token);
        });
        tokens
    }

    /// Sends records while there is credit and the stream's queue has room.
    fn send(&mut self) {
        self.blocked = false;
        let Some(stream) = self.stream.clone() else {
            return;
        };
        loop {
            match stream.try_reserve() {
                Ok(permit) => match self.spool.next_record() {
                    Some((token, record)) => permit.send(LogUp::Record { token, record }.into()),
                    None => return,
                },
                Err(mpsc::error::TrySendError::Full(())) => {
                    self.blocked = true;
                    return;
                }
                // `keep_connected` will report it soon.
                Err(mpsc::error::TrySendError::Closed(())) => {
                    self.stream = None;
                    return;
                }
            }
        }
    }
}

/// Returns when a stream has room or is gone; without a stream it never returns.
async fn writable(stream: Option<mpsc::Sender<v1::LogUp>>) {
    match stream {
        Some(stream) => drop(stream.reserve().await),
        None => std::future::pending().await,
    }
}

/// Keeps a log stream to the coordinator while the spool's task lives.
async fn keep_connected(agent: AgentId, coordinator: Coordinator, wire: mpsc::Sender<Wire>) {
    let mut failed = 0;
    while !wire.is_closed() {
        match stream(&agent, &coordinator, &wire).await {
            Ok(()) => failed = 0,
            Err(reason) => {
                tracing::debug!(%reason, "no log stream");
                failed += 1;
            }
        }
        if wire.send(Wire::Down).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff::pause(failed, backoff::chance())).await;
    }
}

/// Why no log stream could be opened.
#[derive(Debug, thiserror::Error)]
enum NoStream {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("{}", .0.message())]
    Refused(#[from] Status),
}

/// Runs one stream until it ends. Returns an error if it could not be opened.
async fn stream(
    agent: &AgentId,
    coordinator: &Coordinator,
    wire: &mpsc::Sender<Wire>,
) -> Result<(), NoStream> {
    let mut client = coordinator.bytes().await?;
    let (sender, outgoing) = mpsc::channel(UNDER_WAY);
    let hello = LogUp::Hello {
        agent: agent.clone(),
    };
    // The receiver is at hand, so this can't fail.
    let _ = sender.send(hello.into()).await;
    let answer = client.logs(ReceiverStream::new(outgoing)).await;
    let mut incoming = answer?.into_inner();
    if wire.send(Wire::Up(sender)).await.is_err() {
        return Ok(());
    }
    loop {
        let said = tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => message,
                _ => return Ok(()),
            },
            () = wire.closed() => return Ok(()),
        };
        // Ignore messages of a later version.
        if let Ok(said) = LogDown::try_from(said)
            && wire.send(Wire::Said(said)).await.is_err()
        {
            return Ok(());
        }
    }
}
