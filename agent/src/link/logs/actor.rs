//! The task that owns the log spool: takes bytes from cells, keeps a log stream to the coordinator, and tells the link when an attempt's logs are over.
//!
//! One loop, one input, one synchronous handler. Bytes go over plain channels; a full one makes the service wait.

use super::spool::{LogSpool, Over};
use crate::clock::runtime_now;
use crate::link::backoff;
use crate::link::connect::Coordinator;
use crate::link::overflow::Overflow;
use phalanx_proto::log::{LogDown, LogUp, Source};
use phalanx_proto::v1;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// Inputs that may wait.
const WAITING: usize = 256;
/// Records on their way into the transport.
const UNDER_WAY: usize = 32;
/// An ended attempt whose logs make no progress for so long has lost them.
const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_secs(1);

/// Takes logs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    bytes: mpsc::Sender<Input>,
    /// Not bounded, so that the agent's actor never waits for the logs, which may be waiting for it: two per attempt.
    orders: mpsc::UnboundedSender<Order>,
}

impl Logs {
    /// Hands over; waits while the spool is behind.
    pub async fn tell(&self, input: Input) {
        // A closed channel means that the agent is going away.
        let _ = self.bytes.send(input).await;
    }

    /// Begins or ends an attempt; heard before what is handed over later.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// What the agent's actor says of an attempt's logs.
#[derive(Debug)]
pub enum Order {
    /// An attempt begins.
    Open(Token),
    /// Nobody wants them.
    Drop { token: Token, reason: String },
}

/// What cells say.
#[derive(Debug)]
pub enum Input {
    /// Bytes of a service.
    Write {
        token: Token,
        source: Source,
        at: Timestamp,
        bytes: Vec<u8>,
    },
    /// Nothing follows from an attempt.
    End(Token),
}

/// What happens to the stream.
enum Wire {
    Up(mpsc::Sender<v1::LogUp>),
    Said(LogDown),
    Down,
}

/// Starts the task. It ends when nobody holds [`Logs`] any more; `over` hears of each attempt once.
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
    /// The stream took no more; it is waited for.
    blocked: bool,
    /// Ended attempts, and when they made progress last.
    ended: BTreeMap<Token, Instant>,
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
                // Orders before the bytes that they are about; acknowledgements before more bytes: they give credit and free memory.
                biased;
                Some(order) = orders.recv() => self.on_order(order),
                Some(news) = wire.recv() => self.on_wire(news),
                () = writable(waited_for) => None,
                _ = tick.tick() => {
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
            Input::End(token) => {
                let over = self.spool.end(&token);
                if over.is_none() {
                    self.ended.insert(token, runtime_now());
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
                if let Some(progress) = self.ended.get_mut(&token) {
                    *progress = runtime_now();
                }
                return self.spool.acknowledge(&token, number);
            }
            Wire::Said(LogDown::Refused { token, reason }) => {
                return self.spool.refuse(&token, &reason);
            }
        }
        None
    }

    fn out_of_patience(&mut self) -> Vec<Token> {
        let stuck = |(_, progress): &(&Token, &mut Instant)| progress.elapsed() >= PATIENCE;
        let tokens: Vec<Token> = self
            .ended
            .iter_mut()
            .filter(stuck)
            .map(|(token, _)| token.clone())
            .collect();
        tokens.iter().for_each(|token| {
            self.ended.remove(token);
        });
        tokens
    }

    /// Sends while there is credit and the stream takes more.
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
                // `keep_connected` says so in a moment.
                Err(mpsc::error::TrySendError::Closed(())) => {
                    self.stream = None;
                    return;
                }
            }
        }
    }
}

/// Returns when a stream takes more or is gone; never without one.
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
                tracing::debug!(reason, "no log stream");
                failed += 1;
            }
        }
        if wire.send(Wire::Down).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff::pause(failed, backoff::chance())).await;
    }
}

/// One stream until it ends; an error if none came about.
async fn stream(
    agent: &AgentId,
    coordinator: &Coordinator,
    wire: &mpsc::Sender<Wire>,
) -> Result<(), String> {
    let mut client = coordinator.bytes().await?;
    let (sender, outgoing) = mpsc::channel(UNDER_WAY);
    let hello = LogUp::Hello {
        agent: agent.clone(),
    };
    sender.send(hello.into()).await.map_err(|e| e.to_string())?;
    let answer = client.logs(ReceiverStream::new(outgoing)).await;
    let mut incoming = answer.map_err(|s| s.message().to_owned())?.into_inner();
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
        // What a later version says beyond this is no news.
        if let Ok(said) = LogDown::try_from(said)
            && wire.send(Wire::Said(said)).await.is_err()
        {
            return Ok(());
        }
    }
}
