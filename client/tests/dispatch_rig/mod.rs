//! A coordinator that consists only of dispatch, an agent whose cells follow a script, and a proxy between them that
//! can be cut.

mod proxy;
mod script;

pub use script::Script;

use phalanx_agent::link::core::About;
use phalanx_agent::link::{Coordinator, actor};
use phalanx_client::workspace;
use phalanx_coordinator::clock::SystemClock;
use phalanx_coordinator::dispatch::contract::{
    FromAgents, GoesOn, Report, Resumed, ToAgents, ToRun,
};
use phalanx_coordinator::dispatch::core::Settings;
use phalanx_coordinator::dispatch::logs::read::{Piece, Query, read};
use phalanx_coordinator::dispatch::logs::store::LogStore;
use phalanx_coordinator::dispatch::reason::DeclineReason;
use phalanx_coordinator::dispatch::server;
use phalanx_coordinator::journal::Receipt;
use phalanx_coordinator::workspace::Workspaces;
use phalanx_shared::diagnostic::{Sources, Span};
use phalanx_shared::event::EventKind;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::language::model::{CellSettings, Spec, Strategy};
use phalanx_shared::plan::{CellJob, Keep, PlannedCell, Resources, SpecSource};
use serde_json::Map;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;

const HANG: Duration = Duration::from_secs(180);

pub fn token(attempt: u32) -> Token {
    Token {
        run: "run".into(),
        cell: "cell".into(),
        attempt,
        epoch: 1,
    }
}

pub fn job(workspace: Option<&str>) -> CellJob {
    let mut of_workspace = Map::new();
    if let Some(digest) = workspace {
        of_workspace.insert("digest".to_owned(), digest.into());
    }
    CellJob {
        source: Arc::new(SpecSource::new(
            Arc::new(Spec {
                name: "spec".to_owned(),
                inputs: vec![],
                require: vec![],
                strategy: Strategy {
                    matrix: true,
                    axes: vec![],
                    include: None,
                    exclude: None,
                    fail_fast: None,
                    max_parallel: None,
                    queue_timeout: None,
                    max_skips: None,
                    span: Span::default(),
                },
                cell: CellSettings::default(),
                coverage: vec![],
                secrets: vec![],
                vars: vec![],
                workspace: vec![],
                network: None,
                compose: None,
                compose_variables: Vec::new(),
                services: vec![],
                sessions: vec![],
                default_session: None,
                define: vec![],
                phases: vec![],
            }),
            Sources::default(),
        )),
        cell: PlannedCell {
            id: "cell".into(),
            name: "cell".to_owned(),
            matrix: Default::default(),
            runs_on: vec![],
            experimental: false,
            resources: Resources::default(),
            timeout_ms: 60_000,
            attempts: 1,
            retries: 0,
        },
        inputs: Map::new(),
        matrix: Map::new(),
        vars: Map::new(),
        workspace: of_workspace,
        keep: Keep::Never,
        submitted: None,
        images: BTreeMap::new(),
        snapshots: Default::default(),
        snapshot_family: None,
    }
}

/// What sessions report, other than events.
pub enum Fact {
    Accepted,
    Declined { token: Token, reason: DeclineReason },
    Revoked,
    Disconnected,
    Lost { agent: AgentId },
    Draining,
}

/// What the scripted rest of the coordinator has received and keeps.
#[derive(Default)]
struct Heard {
    facts: VecDeque<Fact>,
    events: BTreeMap<Token, Vec<EventKind>>,
    last: BTreeMap<Token, u64>,
    greetings: VecDeque<(AgentId, Vec<Token>)>,
    hold: bool,
    held: Vec<Receipt>,
}

pub struct Rig {
    place: tempfile::TempDir,
    heard: Arc<Mutex<Heard>>,
    news: watch::Receiver<u64>,
    told: watch::Sender<u64>,
    commands: mpsc::UnboundedSender<ToAgents>,
    logs: LogStore,
    agent: actor::Handle,
    script: Script,
    proxy: Option<proxy::Proxy>,
    address: String,
}

impl Rig {
    /// Starts the rig over TCP through a proxy, or over a Unix socket.
    pub async fn start(tcp: bool, script: Script) -> Rig {
        let place = tempfile::tempdir().unwrap();
        let (agents, received) = mpsc::unbounded_channel();
        let (commands, commanded) = mpsc::unbounded_channel();
        let logs = LogStore::new(place.path().join("logs"));
        let service = server::service(server::Args {
            settings: Settings {
                lease: Duration::from_secs(3),
                heartbeat: Duration::from_millis(300),
                reset_grace: Duration::from_secs(1),
                ..Settings::default()
            },
            clock: Arc::new(SystemClock::default()),
            agents,
            commands: commanded,
            logs: logs.clone(),
            workspaces: Workspaces::new(place.path().join("packed")),
            heard: Default::default(),
            holders: None,
            identities: None,
        });
        let router = server::transport().add_service(service);
        let (address, proxy) = if tcp {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let direct = listener.local_addr().unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tokio::spawn(router.serve_with_incoming(incoming));
            let proxy = proxy::Proxy::start(direct).await;
            (format!("http://{}", proxy.address), Some(proxy))
        } else {
            let path = place.path().join("socket");
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            tokio::spawn(router.serve_with_incoming(incoming));
            (format!("unix:{}", path.display()), None)
        };
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (told, news) = watch::channel(0);
        tokio::spawn(listen(received, heard.clone(), told.clone()));
        let agent = actor::start(actor::Args {
            instance: String::new(),
            about: About {
                agent: "agent-1".into(),
                name: "agent".to_owned(),
                version: "test".to_owned(),
                labels: vec!["linux".to_owned()],
                slots: 2,
                resources: Resources::default(),
                images: vec![],
                policy: None,
                ahead: 2,
                snapshots: None,
            },
            coordinator: Coordinator::at(&address, None).unwrap(),
            state_dir: place.path().join("agent"),
            cells: Arc::new(script.clone()),
            images: None,
            snapshots: None,
            clock: Arc::new(phalanx_agent::clock::SystemClock::default()),
            events: Default::default(),
            logs: Default::default(),
            stay: Default::default(),
        })
        .await
        .unwrap();
        Rig {
            place,
            heard,
            news,
            told,
            commands,
            logs,
            agent,
            script,
            proxy,
            address,
        }
    }

    pub fn agent(&self) -> &actor::Handle {
        &self.agent
    }

    pub fn script(&self) -> &Script {
        &self.script
    }

    pub fn logs(&self) -> &LogStore {
        &self.logs
    }

    pub fn proxy(&self) -> &proxy::Proxy {
        self.proxy.as_ref().unwrap()
    }

    pub fn url(&self) -> String {
        self.address.clone()
    }

    pub fn command(&self, command: ToAgents) {
        self.commands.send(command).unwrap();
    }

    pub fn offer(&self, agent: &AgentId, token: Token) {
        self.offer_job(agent, token, job(None));
    }

    pub fn offer_job(&self, agent: &AgentId, token: Token, job: CellJob) {
        let run = Arc::new(RunOf {
            token: token.clone(),
            heard: self.heard.clone(),
            told: self.told.clone(),
        });
        self.command(ToAgents::Offer {
            agent: agent.clone(),
            run,
            token,
            job: Arc::new(job),
            secrets: Arc::default(),
            traceparent: None,
        });
    }

    /// Waits until the received messages give a result.
    async fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Heard) -> Option<T>) -> T {
        let heard = self.heard.clone();
        let waiting = async {
            loop {
                if let Some(found) = look(&mut heard.lock().unwrap()) {
                    return found;
                }
                self.news.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(HANG, waiting).await;
        found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    pub async fn connected(&mut self, inventory: Vec<Token>) -> AgentId {
        let (agent, held) = self
            .wait("a Hello", |heard| heard.greetings.pop_front())
            .await;
        assert_eq!(held, inventory);
        agent
    }

    pub async fn reconnected(&mut self, token: &Token) {
        let (_, held) = self
            .wait("a Hello", |heard| heard.greetings.pop_front())
            .await;
        assert_eq!(held, std::slice::from_ref(token));
    }

    pub async fn fact<T>(&mut self, mut wanted: impl FnMut(&Fact) -> Option<T>) -> T {
        self.wait("a fact", |heard| {
            while let Some(fact) = heard.facts.pop_front() {
                if let Some(found) = wanted(&fact) {
                    return Some(found);
                }
            }
            None
        })
        .await
    }

    /// Waits until this many more events arrived.
    pub async fn some_events(&mut self, more: usize) {
        let count = |heard: &Heard| heard.events.values().map(Vec::len).sum::<usize>();
        let before = count(&self.heard.lock().unwrap());
        self.wait("events", |heard| {
            (count(heard) >= before + more).then_some(())
        })
        .await;
    }

    pub fn events_of(&self, token: &Token) -> Vec<EventKind> {
        let heard = self.heard.lock().unwrap();
        heard.events.get(token).cloned().unwrap_or_default()
    }

    pub async fn until_torn_down(&mut self, token: &Token) -> Vec<EventKind> {
        self.wait("the end of the attempt", |heard| {
            let events = heard.events.get(token)?;
            let over = events.iter().any(|kind| kind.name() == "torn_down");
            over.then(|| events.clone())
        })
        .await
    }

    pub fn hold_durable(&mut self, hold: bool) {
        let mut heard = self.heard.lock().unwrap();
        heard.hold = hold;
        if !hold {
            for durable in heard.held.drain(..) {
                durable.give(true);
            }
        }
    }

    pub async fn log(&self, token: &Token) -> Vec<u8> {
        let query = Query {
            run: token.run.clone(),
            cell: token.cell.clone(),
            attempt: token.attempt,
            service: None,
            stream: None,
            offset: 0,
            from_record: 0,
            follow: true,
        };
        let entries: Vec<_> = read(&self.logs, query).collect().await;
        let bytes = entries.into_iter().map(|entry| match entry.unwrap().piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Gap { to, reason } => panic!("a gap up to {to}: {reason}"),
        });
        bytes.flatten().collect()
    }

    pub fn pack_workspace(&self) -> String {
        let root = self.place.path().join("project");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("file"), "in the workspace").unwrap();
        let packed = workspace::pack(&root, &["file".to_owned()]).unwrap();
        let mut parts = Vec::new();
        packed
            .send(&mut |part| {
                parts.push(part);
                true
            })
            .unwrap();
        let store = Workspaces::new(self.place.path().join("packed"));
        let mut parts = parts.into_iter().skip(1);
        store.take(&packed.digest, &mut || parts.next()).unwrap();
        packed.digest
    }

    pub async fn leave(self) {
        self.agent.drain().await;
        tokio::time::timeout(HANG, self.agent.left()).await.unwrap();
    }

    pub async fn send_garbage(&self) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = self.address.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let garbage: Vec<u8> = (0..100_000u32).map(|n| (n * 7919 % 256) as u8).collect();
        let _ = stream.write_all(&garbage).await;
        let mut rest = Vec::new();
        // The server closes the connection.
        let _ = tokio::time::timeout(HANG, stream.read_to_end(&mut rest))
            .await
            .unwrap();
    }
}

/// Receives the reports on one attempt.
struct RunOf {
    token: Token,
    heard: Arc<Mutex<Heard>>,
    told: watch::Sender<u64>,
}

impl ToRun for RunOf {
    fn report(&self, report: Report) {
        {
            let mut heard = self.heard.lock().unwrap();
            let token = self.token.clone();
            match report {
                Report::Events { events, receipt } => {
                    for event in events.into_events() {
                        let last = heard.last.entry(token.clone()).or_default();
                        assert_eq!(event.seq, *last + 1, "a hole or a repetition");
                        *last = event.seq;
                        let kinds = heard.events.entry(token.clone()).or_default();
                        kinds.push(event.kind);
                    }
                    if heard.hold {
                        heard.held.push(receipt);
                    } else {
                        receipt.give(true);
                    }
                }
                Report::Accepted => heard.facts.push_back(Fact::Accepted),
                Report::Declined(reason) => {
                    heard.facts.push_back(Fact::Declined { token, reason });
                }
                Report::Revoked(_) => heard.facts.push_back(Fact::Revoked),
            }
        }
        self.told.send_modify(|version| *version += 1);
    }
}

async fn listen(
    mut changes: mpsc::UnboundedReceiver<FromAgents>,
    heard: Arc<Mutex<Heard>>,
    told: watch::Sender<u64>,
) {
    while let Some(change) = changes.recv().await {
        let fact = match change {
            FromAgents::Connected {
                agent,
                inventory,
                answer,
            } => {
                let tokens: Vec<Token> = inventory.into_iter().map(|item| item.token).collect();
                let resume = |token: &Token| Resumed {
                    goes_on: GoesOn {
                        token: token.clone(),
                        durable_seq: heard.lock().unwrap().last.get(token).copied().unwrap_or(0),
                        timeout: Duration::from_secs(60),
                    },
                    run: Arc::new(RunOf {
                        token: token.clone(),
                        heard: heard.clone(),
                        told: told.clone(),
                    }),
                };
                answer(tokens.iter().map(resume).collect());
                heard
                    .lock()
                    .unwrap()
                    .greetings
                    .push_back((agent.id, tokens));
                None
            }
            FromAgents::Disconnected { .. } => Some(Fact::Disconnected),
            FromAgents::Lost { agent, .. } => Some(Fact::Lost { agent }),
            FromAgents::Draining { .. } => Some(Fact::Draining),
            FromAgents::Ahead { .. } | FromAgents::Snapshots { .. } => None,
        };
        heard.lock().unwrap().facts.extend(fact);
        told.send_modify(|version| *version += 1);
    }
}
