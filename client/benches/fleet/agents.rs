//! Simulated agents. Each has two connections of its own, as a real agent does, and its cells only send the events of a
//! cell.

use phalanx_proto::limit::LOG_CHUNK_BYTES;
use phalanx_proto::v1;
use phalanx_proto::v1::agent_link_client::AgentLinkClient;
use phalanx_shared::event::{AttemptRef, Event, EventKind, StepResult};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use v1::from_agent::Message as Up;
use v1::to_agent::Message as Down;

/// Maximum number of unacknowledged batches of one attempt, as in a real agent.
const UNDER_WAY: u64 = 4;

/// Maximum number of agents that connect at once.
const AT_ONCE: usize = 100;

/// What the cells of an agent do.
#[derive(Clone, Copy)]
pub enum Work {
    /// Run one step, with a duration between these two values in milliseconds.
    Step(u64, u64),
    /// Send events as fast as they are acknowledged, with this many in a message.
    Talk(u64),
    /// Send log bytes as fast as they are acknowledged.
    Print,
}

/// Behaviour of the agents.
#[derive(Clone)]
pub struct Manner {
    pub slots: u32,
    pub labels: Vec<String>,
    pub work: Work,
}

/// A group of agents; dropping it ends them.
pub struct Crew {
    _tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Manner,
    url: String,
    welcomed: AtomicU64,
    /// Limits how many connect at once.
    door: Semaphore,
    /// Becomes true when cells that send events or logs should end.
    enough: watch::Sender<bool>,
}

impl Crew {
    /// Connects the agents. Returns when all of them were accepted.
    pub async fn connect(url: &str, count: u32, manner: Manner) -> Crew {
        let shared = Arc::new(Shared {
            manner,
            url: url.to_owned(),
            welcomed: AtomicU64::new(0),
            door: Semaphore::new(AT_ONCE),
            enough: watch::Sender::new(false),
        });
        let mut tasks = JoinSet::new();
        for number in 0..count {
            tasks.spawn(Agent::live(format!("agent-{number:04}"), shared.clone()));
        }
        while shared.welcomed.load(Ordering::Relaxed) < u64::from(count) {
            assert!(
                tasks.try_join_next().is_none(),
                "an agent gave up, see above"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Crew {
            _tasks: tasks,
            shared,
        }
    }

    /// Makes cells that send events or logs end.
    pub fn enough(&self) {
        self.shared.enough.send_replace(true);
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_micros()).unwrap())
}

async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    loop {
        // A thousand connections at once may exceed the listener's backlog.
        match endpoint.clone().tcp_nodelay(true).connect().await {
            Ok(channel) => return channel,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Opens a connection for logs. Retries, because a coordinator may drop a silent connection when a crowd connects at
/// once.
async fn logs(url: &str, name: &str) -> (mpsc::Sender<v1::LogUp>, Streaming<v1::LogDown>) {
    loop {
        let (logs, outgoing) = mpsc::channel(64);
        let agent_id = name.to_owned();
        let hello = log(v1::log_up::Message::Hello(v1::LogHello { agent_id }));
        logs.send(hello).await.unwrap();
        let mut bytes = AgentLinkClient::new(channel(url).await);
        if let Ok(stored) = bytes.logs(ReceiverStream::new(outgoing)).await {
            return (logs, stored.into_inner());
        }
    }
}

fn up(message: Up) -> v1::FromAgent {
    v1::FromAgent {
        message: Some(message),
    }
}

struct Agent {
    shared: Arc<Shared>,
    up: mpsc::Sender<v1::FromAgent>,
    logs: mpsc::Sender<v1::LogUp>,
    /// The acknowledged sequence of each cell that waits for it.
    acks: HashMap<String, watch::Sender<u64>>,
}

impl Agent {
    async fn live(name: String, shared: Arc<Shared>) {
        let (up, outgoing) = mpsc::channel(1_024);
        let of_door = shared.clone();
        let turn = of_door.door.acquire().await.unwrap();
        let mut control = AgentLinkClient::new(channel(&shared.url).await);
        let (logs, mut stored) = logs(&shared.url, &name).await;
        let mut agent = Agent {
            up,
            logs,
            acks: HashMap::new(),
            shared,
        };
        agent.say(agent.hello(name)).await;
        let down = control.session(ReceiverStream::new(outgoing)).await;
        let mut down = down.unwrap().into_inner();
        drop(turn);
        let mut beats = tokio::time::interval(Duration::from_secs(2));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        loop {
            tokio::select! {
                message = down.message() => match message {
                    Ok(Some(message)) => agent.heard(message.message.unwrap()).await,
                    other => panic!("a session ended: {other:?}"),
                },
                message = stored.message() => match message {
                    Ok(Some(message)) => agent.stored(message),
                    other => panic!("a log stream ended: {other:?}"),
                },
                _ = beats.tick(), if !agent.is_new() => {
                    number += 1;
                    agent.say(Up::Heartbeat(v1::Heartbeat { number })).await;
                }
            }
        }
    }

    fn hello(&self, name: String) -> Up {
        let Manner { slots, labels, .. } = &self.shared.manner;
        Up::Hello(v1::Hello {
            agent_id: name.clone(),
            name,
            version: "simulated".to_owned(),
            min_protocol: 1,
            max_protocol: *phalanx_proto::PROTOCOLS.end(),
            labels: labels.clone(),
            slots: *slots,
            resources: Some(v1::Resources {
                millicpus: 1_000_000,
                memory_bytes: 1 << 40,
                subnets: 10_000,
            }),
            ..v1::Hello::default()
        })
    }

    /// Whether the agent wasn't accepted yet; it may send nothing before that.
    fn is_new(&self) -> bool {
        !self.acks.contains_key("")
    }

    async fn say(&self, message: Up) {
        self.up.send(up(message)).await.unwrap();
    }

    async fn heard(&mut self, message: Down) {
        match message {
            Down::Welcome(_) => {
                // Marks that the agent was accepted; no cell has this id.
                self.acks.insert(String::new(), watch::Sender::new(0));
                self.shared.welcomed.fetch_add(1, Ordering::Relaxed);
            }
            Down::Offer(v1::Offer { token, .. }) => {
                let token = token.unwrap();
                self.say(Up::Accept(v1::Accept {
                    token: Some(token.clone()),
                }))
                .await;
                let acked = watch::Sender::new(0);
                let cell = Cell {
                    up: self.up.clone(),
                    logs: self.logs.clone(),
                    acked: acked.subscribe(),
                    enough: self.shared.enough.subscribe(),
                    seq: 0,
                    token,
                };
                let work = self.shared.manner.work;
                if !matches!(work, Work::Step(..)) {
                    self.acks.insert(cell.token.cell.clone(), acked);
                }
                tokio::spawn(cell.run(work));
            }
            Down::Ack(v1::Ack { token, seq })
                if !matches!(self.shared.manner.work, Work::Print) =>
            {
                self.acknowledged(token, seq);
            }
            _ => {}
        }
    }

    fn stored(&mut self, message: v1::LogDown) {
        if let Some(v1::log_down::Message::Ack(v1::LogAck { token, number })) = message.message {
            self.acknowledged(token, number);
        }
    }

    fn acknowledged(&mut self, token: Option<v1::Token>, number: u64) {
        if let Some(acked) = self.acks.get(&token.unwrap().cell) {
            acked.send_replace(number);
        }
    }
}

fn log(message: v1::log_up::Message) -> v1::LogUp {
    v1::LogUp {
        message: Some(message),
    }
}

struct Cell {
    token: v1::Token,
    up: mpsc::Sender<v1::FromAgent>,
    logs: mpsc::Sender<v1::LogUp>,
    acked: watch::Receiver<u64>,
    enough: watch::Receiver<bool>,
    seq: u64,
}

impl Cell {
    async fn run(mut self, work: Work) {
        let agent = "simulated".into();
        let name = "work".to_owned();
        let (path, step) = (name.clone(), "work/0".to_owned());
        let began = now();
        self.tell(vec![
            EventKind::AttemptStarted { agent },
            EventKind::PhaseStarted {
                path: path.clone(),
                name: name.clone(),
            },
            EventKind::StepStarted {
                path: step.clone(),
                name: step.clone(),
                action: "wait".to_owned(),
            },
        ])
        .await;
        match work {
            Work::Step(least, most) => {
                let hash = self.token.cell.bytes().fold(7, |hash: u64, byte| {
                    hash.wrapping_mul(31).wrapping_add(u64::from(byte))
                });
                let took = Duration::from_millis(least + hash % (most - least + 1));
                tokio::time::sleep(took).await;
            }
            Work::Talk(batch) => self.talk(batch).await,
            Work::Print => self.print().await,
        }
        let outcome = Outcome::Passed;
        self.tell(vec![
            EventKind::StepFinished(Box::new(passed(step, began))),
            EventKind::PhaseFinished {
                path,
                name,
                outcome,
                reason: None,
                began,
                timed_out: false,
            },
            EventKind::AttemptFinished {
                outcome,
                reason: None,
                timed_out: false,
                culprit: None,
            },
            EventKind::TornDown {
                removed: 0,
                left: vec![],
                kept: vec![],
                began: now(),
            },
        ])
        .await;
    }

    /// Sends these events as one message.
    async fn tell(&mut self, kinds: Vec<EventKind>) {
        let first_seq = self.seq + 1;
        let at = now();
        let events = kinds.into_iter().map(|kind| {
            self.seq += 1;
            let event = Event {
                run: self.token.run.as_str().into(),
                attempt: Some(AttemptRef {
                    cell: self.token.cell.as_str().into(),
                    attempt: self.token.attempt,
                }),
                seq: self.seq,
                at,
                mono_us: self.seq,
                kind,
            };
            v1::Event::from(event)
        });
        let events = events.collect();
        let message = Up::Events(v1::Events {
            token: Some(self.token.clone()),
            first_seq,
            events,
        });
        // An agent whose connection is gone sends nothing.
        let _ = self.up.send(up(message)).await;
    }

    /// Waits until this much is acknowledged. Returns false if that can no longer happen.
    async fn acknowledged(&mut self, least: u64) -> bool {
        self.acked.wait_for(|acked| *acked >= least).await.is_ok()
    }

    async fn talk(&mut self, batch: u64) {
        while !*self.enough.borrow() {
            let least = self.seq.saturating_sub(batch * (UNDER_WAY - 1));
            if !self.acknowledged(least).await {
                return;
            }
            let notes = (0..batch).map(|n| EventKind::Note {
                message: format!("note {n} says something of the length that such a note has"),
            });
            self.tell(notes.collect()).await;
        }
    }

    async fn print(&mut self) {
        let line: String = "a line of a hundred bytes "
            .chars()
            .cycle()
            .take(99)
            .collect();
        let mut data = Vec::with_capacity(LOG_CHUNK_BYTES);
        while data.len() + 100 <= LOG_CHUNK_BYTES {
            data.extend_from_slice(line.as_bytes());
            data.push(b'\n');
        }
        let (mut number, mut offset) = (0, 0);
        let window = phalanx_proto::limit::LOG_WINDOW_BYTES / LOG_CHUNK_BYTES as u64;
        while !*self.enough.borrow() {
            let least = (number + 1_u64).saturating_sub(window);
            if !self.acknowledged(least).await {
                return;
            }
            number += 1;
            let chunk = v1::LogChunk {
                token: Some(self.token.clone()),
                number,
                service: "printer".to_owned(),
                stream: v1::LogStream::Stdout.into(),
                offset,
                at_us: now().0,
                data: data.clone(),
            };
            offset += data.len() as u64;
            let chunk = log(v1::log_up::Message::Chunk(chunk));
            if self.logs.send(chunk).await.is_err() {
                return;
            }
        }
        number += 1;
        let token = Some(self.token.clone());
        let end = v1::LogEnd { token, number };
        let _ = self.logs.send(log(v1::log_up::Message::End(end))).await;
        // A real agent doesn't send the end before its logs are stored.
        self.acknowledged(number).await;
    }
}

fn passed(path: String, began: Timestamp) -> StepResult {
    StepResult {
        name: path.clone(),
        path,
        id: None,
        action: "wait".to_owned(),
        outcome: Outcome::Passed,
        reason: None,
        unreached: false,
        timed_out: false,
        culprit: None,
        tries: 1,
        polls: 1,
        began,
        elapsed_us: 1_000,
        waits: vec![],
        verifies: vec![],
        checks: vec![],
        output: None,
        captured: Vec::new(),
        failure: None,
        restored: None,
    }
}
