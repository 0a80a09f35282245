//! The way of an event from a session to its run, the journal and back, with the real actors: what is slow delays only
//! itself. The tests play the agents and hold a run or the disk still while they wait for the progress of the others.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::actor::{Dispatch, Greet, Session, Shared, ToSession, WAITING};
use super::core::Settings;
use super::gate::SharedGate;
use super::heard::Heard;
use super::holders::Holders;
use super::logs::store::LogStore;
use crate::clock::SystemClock;
use crate::journal::{Past, RunHead, RunRow, Store, StoreError, Submission, Write};
use crate::run::actor::{Hang, LookAtCell};
use crate::sim::plan::{Made, make};
use crate::submission::{Jobs, Planned, Planner};
use crate::supervisor::{self, Launch};
use async_trait::async_trait;
use kameo::actor::{ActorRef, Spawn};
use phalanx_proto::convert::Refusal;
use phalanx_proto::link::{FromAgent, Held, Hello, ToAgent};
use phalanx_proto::v1;
use phalanx_shared::event::{AttemptRef, Event, EventKind, Recorded};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::namespace::Namespace;
use phalanx_shared::plan::{CellJob, Plan, Resources};
use phalanx_shared::run_state::CellStatus;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tonic::Status;

/// Guards against hanging.
const BOUND: Duration = Duration::from_secs(240);

/// A journal in memory whose commits can be held up.
struct Memory {
    events: Mutex<BTreeMap<RunId, Vec<Recorded>>>,
    works: watch::Receiver<bool>,
}

#[async_trait]
impl Store for Memory {
    async fn begin_term(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(1)
    }
    async fn newest_epoch(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
    async fn raise_epoch(&self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
    async fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let _ = self.works.clone().wait_for(|works| *works).await;
        let mut events = self.events.lock().unwrap();
        for write in writes {
            if let Write::Event(recorded) = write {
                let run = events.entry(recorded.event.run.clone()).or_default();
                assert_eq!(recorded.position, run.len() as u64 + 1);
                run.push(recorded.clone());
            }
        }
        Ok(())
    }
    async fn run(&self, _: &RunId) -> Result<Option<RunRow>, StoreError> {
        Ok(None)
    }
    async fn runs(
        &self,
        _: u32,
        _: bool,
        _: Option<&Namespace>,
    ) -> Result<Vec<RunHead>, StoreError> {
        Ok(Vec::new())
    }
    async fn beginning_with(
        &self,
        _: &str,
        _: u32,
        _: Option<&Namespace>,
    ) -> Result<Vec<RunId>, StoreError> {
        Ok(Vec::new())
    }
    async fn has_workspace(&self, _: &str, _: &Namespace) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn workspaces(&self) -> Result<HashSet<String>, StoreError> {
        Ok(HashSet::new())
    }
    async fn settled_before(&self, _: Timestamp) -> Result<Vec<RunId>, StoreError> {
        Ok(Vec::new())
    }
    async fn events(&self, run: &RunId, from: u64, _: u32) -> Result<Vec<Recorded>, StoreError> {
        let events = self.events.lock().unwrap();
        let of_run = events.get(run).into_iter().flatten();
        Ok(of_run.filter(|r| r.position >= from).cloned().collect())
    }
    async fn history(&self, _: &str) -> Result<Vec<Past>, StoreError> {
        Ok(Vec::new())
    }
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
    async fn close(&self) {}
}

struct Planning;

impl Planner for Planning {
    fn plan(&self, _: &Submission) -> Result<Planned, Refusal> {
        unreachable!("the tests plan")
    }
    fn jobs(&self, _: &Submission, _: &Plan) -> Result<Arc<dyn Jobs>, Refusal> {
        unreachable!("nothing is recovered")
    }
}

struct Ready(Made);

#[async_trait]
impl Jobs for Ready {
    async fn job(&self, cell: &CellId) -> Result<Arc<CellJob>, String> {
        Ok(self.0.jobs[cell].clone())
    }
    fn images(&self, _: &CellId, _: &RunId) -> Vec<phalanx_shared::plan::WantedImage> {
        Vec::new()
    }

    fn needs(&self, _: &CellId) -> Vec<phalanx_shared::policy::Need> {
        Vec::new()
    }
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The coordinator without its servers.
struct Place {
    handle: supervisor::Handle,
    dispatch: ActorRef<Dispatch>,
    disk: watch::Sender<bool>,
    connections: AtomicU64,
    _logs: tempfile::TempDir,
}

impl Place {
    async fn new() -> Place {
        let (disk, works) = watch::channel(true);
        let store = Memory {
            events: Mutex::default(),
            works,
        };
        let (agents, from_agents) = mpsc::unbounded_channel();
        let (to_agents, mut commands) = mpsc::unbounded_channel();
        let clock = Arc::new(SystemClock::default());
        let (handle, _writer) = supervisor::start(supervisor::Args {
            store: Arc::new(store),
            planner: Arc::new(Planning),
            own_secrets: Arc::new(|_, _| None),
            from_agents,
            to_agents,
            clock: clock.clone(),
            settings: Default::default(),
            begin: Default::default(),
        })
        .await
        .unwrap();
        let logs = tempfile::tempdir().unwrap();
        let dispatch = Dispatch::spawn(Shared {
            // Nothing happens because time passes, however slow the machine is.
            settings: Settings {
                lease: BOUND * 2,
                accept_within: BOUND * 2,
                reset_grace: BOUND * 2,
                ..Settings::default()
            },
            clock,
            gate: SharedGate::default(),
            logs: LogStore::new(logs.path().to_owned()),
            agents,
            heard: Heard::default(),
            holders: Holders::default(),
        });
        let commanded = dispatch.clone();
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                commanded.tell(command).await.unwrap();
            }
        });
        Place {
            handle,
            dispatch,
            disk,
            connections: AtomicU64::new(0),
            _logs: logs,
        }
    }

    /// Starts a run of one cell.
    async fn run(&self, made: &Made) -> RunId {
        let launch = Launch {
            planned: Planned {
                plan: made.plan.clone(),
                jobs: Arc::new(Ready(made.clone())),
                warnings: Vec::new(),
                spans: 0,
            },
            submission: Submission::default(),
            secrets: BTreeMap::new(),
            namespace: Namespace::default(),
            owner: String::new(),
        };
        self.handle.coordinator.ask(launch).await.unwrap()
    }

    /// Lets a run handle nothing until the returned value is dropped.
    async fn hang(&self, run: &RunId) -> oneshot::Sender<()> {
        let (over, until) = oneshot::channel();
        let run = self.handle.registry.get(run).unwrap();
        run.actor.tell(Hang(until)).await.unwrap();
        over
    }

    async fn connect(&self, id: &str, slots: u32, held: Vec<(Token, u64)>) -> Agent {
        let (wire, messages) = mpsc::channel(4_096);
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let hello = Hello {
            agent: id.into(),
            name: id.to_owned(),
            version: "test".to_owned(),
            protocols: (1, 1),
            labels: Vec::new(),
            slots,
            resources: Resources {
                millicpus: 64_000,
                memory_bytes: 1 << 40,
                subnets: 64,
            },
            images: Vec::new(),
            inventory: held
                .into_iter()
                .map(|(token, last_seq)| Held {
                    token,
                    last_seq,
                    finished: false,
                })
                .collect(),
            instance: id.to_owned(),
            number: 0,
            policy: None,
            ahead: Some(2),
            snapshots: None,
        };
        let greet = Greet {
            connection,
            wire,
            protocol: 1,
            hello,
        };
        let session = self.dispatch.ask(greet).await.unwrap();
        Agent {
            id: id.into(),
            connection,
            session,
            messages,
            room: Arc::new(Semaphore::new(WAITING)),
        }
    }
}

/// An agent's end of one connection.
struct Agent {
    id: AgentId,
    connection: u64,
    session: ActorRef<Session>,
    messages: mpsc::Receiver<Result<v1::ToAgent, Status>>,
    room: Arc<Semaphore>,
}

impl Agent {
    async fn say(&self, message: FromAgent) {
        let received = ToSession::Received {
            connection: self.connection,
            message,
            _room: self.room.clone().acquire_owned().await.unwrap(),
        };
        self.session.tell(received).await.unwrap();
    }

    async fn event(&self, token: &Token, seq: u64, kind: EventKind) {
        let event = Event {
            run: token.run.clone(),
            attempt: Some(AttemptRef {
                cell: token.cell.clone(),
                attempt: token.attempt,
            }),
            seq,
            at: Timestamp(1),
            mono_us: seq,
            kind,
        };
        let (token, events) = (token.clone(), vec![event]);
        self.say(FromAgent::Events { token, events }).await;
    }

    async fn note(&self, token: &Token, seq: u64) {
        let message = format!("note {seq}");
        self.event(token, seq, EventKind::Note { message }).await;
    }

    /// Waits for a message.
    async fn hear<T>(&mut self, wanted: impl Fn(v1::to_agent::Message) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let message = self.messages.recv().await.unwrap().unwrap();
                if let Some(found) = message.message.and_then(&wanted) {
                    return found;
                }
            }
        };
        tokio::time::timeout(BOUND, waiting).await.unwrap()
    }

    async fn welcome(&mut self) -> v1::Welcome {
        self.hear(|message| match message {
            v1::to_agent::Message::Welcome(welcome) => Some(welcome),
            _ => None,
        })
        .await
    }

    /// Takes the next offer and begins the attempt. Returns after that is acknowledged.
    async fn begin(&mut self) -> Token {
        let token = self
            .hear(|message| match message {
                v1::to_agent::Message::Offer(offer) => offer.token,
                _ => None,
            })
            .await;
        let token = Token::try_from(token).unwrap();
        self.say(FromAgent::Accept {
            token: token.clone(),
        })
        .await;
        let agent = self.id.clone();
        self.event(&token, 1, EventKind::AttemptStarted { agent })
            .await;
        self.acknowledged(&token, 1).await;
        token
    }

    async fn acknowledged(&mut self, token: &Token, seq: u64) {
        let ack = ToAgent::Ack {
            token: token.clone(),
            seq,
        };
        let ack = v1::ToAgent::from(ack).message.unwrap();
        self.hear(|message| (message == ack).then_some(())).await;
    }

    /// Returns whether any acknowledgement has arrived.
    fn anything_acknowledged(&mut self) -> bool {
        let messages = std::iter::from_fn(|| self.messages.try_recv().ok());
        let acks = messages.filter(|message| {
            let message = message.as_ref().unwrap().message.as_ref();
            matches!(message, Some(v1::to_agent::Message::Ack(_)))
        });
        acks.count() > 0
    }
}

fn one_cell() -> Made {
    let text =
        "name: one\ncell: { name: one }\nphases:\n  only:\n    - { name: step, run: 'true' }\n";
    make(text).unwrap()
}

#[tokio::test]
async fn a_run_that_takes_nothing_delays_no_other_run_and_no_agent() {
    let (place, made) = (Place::new().await, one_cell());
    let mut agent = place.connect("a", 2, Vec::new()).await;
    agent.welcome().await;
    let stuck = place.run(&made).await;
    let stuck_token = agent.begin().await;
    assert_eq!(stuck_token.run, stuck);
    place.run(&made).await;
    let free = agent.begin().await;
    let over = place.hang(&stuck).await;
    // As much as an attempt may have under way.
    for seq in 2..=65 {
        agent.note(&stuck_token, seq).await;
    }
    agent.note(&free, 2).await;
    agent.acknowledged(&free, 2).await;
    // Another agent connects, and a new run gets it.
    let mut other = place.connect("b", 1, Vec::new()).await;
    other.welcome().await;
    place.run(&made).await;
    other.begin().await;
    drop(over);
    agent.acknowledged(&stuck_token, 65).await;
}

#[tokio::test]
async fn a_run_takes_no_more_of_an_attempt_than_its_bound() {
    let (place, made) = (Place::new().await, one_cell());
    let mut agent = place.connect("a", 1, Vec::new()).await;
    agent.welcome().await;
    let stuck = place.run(&made).await;
    let token = agent.begin().await;
    let over = place.hang(&stuck).await;
    for seq in 2..=66 {
        agent.note(&token, seq).await;
    }
    let ended = async { while agent.messages.recv().await.is_some_and(|m| m.is_ok()) {} };
    tokio::time::timeout(BOUND, ended).await.unwrap();
    // It comes back, and goes on where the journal ends.
    let mut agent = place.connect("a", 1, vec![(token.clone(), 66)]).await;
    drop(over);
    let resume = agent.welcome().await.resume;
    assert_eq!(resume[0].durable_seq, 65);
    agent.note(&token, 66).await;
    agent.acknowledged(&token, 66).await;
}

#[tokio::test]
async fn while_a_commit_hangs_every_run_takes_events_and_none_is_acknowledged() {
    let (place, made) = (Place::new().await, one_cell());
    let mut agent = place.connect("a", 2, Vec::new()).await;
    agent.welcome().await;
    place.run(&made).await;
    let first = agent.begin().await;
    place.run(&made).await;
    let second = agent.begin().await;
    place.disk.send_replace(false);
    for token in [&first, &second] {
        let verdict = EventKind::AttemptFinished {
            outcome: phalanx_shared::outcome::Outcome::Passed,
            reason: None,
            timed_out: false,
            culprit: None,
        };
        agent.event(token, 2, verdict).await;
    }
    for token in [&first, &second] {
        let run = place.handle.registry.get(&token.run).unwrap();
        let look = async {
            loop {
                let asked = run.actor.ask(LookAtCell(token.cell.clone())).await;
                let (status, _) = asked.unwrap().unwrap();
                if status == CellStatus::Finished {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, look).await.unwrap();
    }
    // A session that waited for the disk would not answer.
    agent.say(FromAgent::Heartbeat { number: 7 }).await;
    let beat = |message| match message {
        v1::to_agent::Message::Heartbeat(beat) => Some(beat.number),
        v1::to_agent::Message::Ack(ack) => panic!("acknowledged before it is on disk: {ack:?}"),
        _ => None,
    };
    assert_eq!(agent.hear(beat).await, 7);
    assert!(!agent.anything_acknowledged());
    place.disk.send_replace(true);
    agent.acknowledged(&first, 2).await;
    agent.acknowledged(&second, 2).await;
}

#[tokio::test]
async fn the_return_of_a_thousand_agents_to_a_thousand_runs_delays_no_events() {
    const MANY: usize = 1_000;
    let (place, made) = (Place::new().await, one_cell());
    let (mut agents, mut tokens) = (Vec::new(), Vec::new());
    for n in 0..MANY {
        let mut agent = place.connect(&format!("a{n}"), 1, Vec::new()).await;
        agent.welcome().await;
        place.run(&made).await;
        tokens.push(agent.begin().await);
        agents.push(agent);
    }
    let mut stays = agents.remove(0);
    // One of the runs can't say whether its agent's attempt continues.
    let over = place.hang(&tokens[1].run).await;
    let mut back = Vec::new();
    for (agent, token) in agents.into_iter().zip(&tokens[1..]) {
        let held = vec![(token.clone(), 1)];
        back.push(place.connect(agent.id.as_str(), 1, held).await);
    }
    stays.note(&tokens[0], 2).await;
    stays.acknowledged(&tokens[0], 2).await;
    let mut waiting = back.remove(0);
    for (mut agent, token) in back.into_iter().zip(&tokens[2..]) {
        assert_eq!(agent.welcome().await.resume.len(), 1);
        agent.note(token, 2).await;
        agent.acknowledged(token, 2).await;
    }
    assert!(waiting.messages.try_recv().is_err(), "its run can't answer");
    drop(over);
    assert_eq!(waiting.welcome().await.resume[0].durable_seq, 1);
}
