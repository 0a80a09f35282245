//! What every test needs: a runtime of an identity of its own, attempts, services, their logs, and a look at what is left.

use crate::image::{self, BUSYBOX};
use bollard::Docker;
use phalanx_agent::runtime::contract::{
    AttemptScope, Closed, ExecOutput, ExecRequest, Exit, Member, Runtime, RuntimeError, Stack,
};
use phalanx_agent::runtime::docker::{DockerRuntime, DockerSettings};
use phalanx_agent::sink::LogSink;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::language::service::{Port, ServiceConfig};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// The tests' engine and runtime.
pub struct Lab {
    pub docker: Docker,
    pub runtime: Arc<DockerRuntime>,
    pub agent: AgentId,
    /// Identities that tests used besides.
    others: Mutex<Vec<AgentId>>,
}

impl Lab {
    pub async fn open() -> Result<Arc<Lab>, String> {
        let agent = AgentId(format!("test-{}", uuid::Uuid::new_v4().simple()));
        let connected = DockerRuntime::connect(DockerSettings::of(agent.clone())).await;
        let runtime = connected.map_err(|unusable| unusable.to_string())?;
        let docker = Docker::connect_with_defaults().map_err(|e| e.to_string())?;
        image::provide(&docker).await?;
        Ok(Arc::new(Lab {
            docker,
            runtime,
            agent,
            others: Mutex::default(),
        }))
    }

    /// Settings of a further identity, whose leftovers are looked for at the end too.
    pub fn settings(&self) -> DockerSettings {
        let agent = AgentId(format!("test-{}", uuid::Uuid::new_v4().simple()));
        self.others.lock().unwrap().push(agent.clone());
        DockerSettings::of(agent)
    }

    /// A cell of the lab's runtime.
    pub async fn cell(&self) -> Cell {
        self.cell_of(self.runtime.clone(), &self.agent, |_| {})
            .await
            .unwrap()
    }

    /// A cell in a workspace with these files.
    pub async fn cell_in(&self, files: &[(&str, &str)]) -> Cell {
        self.cell_of(self.runtime.clone(), &self.agent, |scope| {
            let root = scope.scratch.join("workspace");
            for (path, content) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            scope.workspace = Some(root);
        })
        .await
        .unwrap()
    }

    pub async fn cell_of(
        &self,
        runtime: Arc<DockerRuntime>,
        agent: &AgentId,
        change: impl FnOnce(&mut AttemptScope),
    ) -> Result<Cell, RuntimeError> {
        let scratch = tempfile::tempdir().unwrap();
        let mut scope = AttemptScope {
            token: Token {
                run: uuid::Uuid::now_v7().to_string().into(),
                cell: uuid::Uuid::new_v4().simple().to_string()[..16].into(),
                attempt: 1,
                epoch: 1,
            },
            agent: agent.clone(),
            cell_name: "a cell".to_owned(),
            scratch: scratch.path().to_owned(),
            workspace: None,
            ipv6: false,
            trace: None,
            images: Default::default(),
            policy: std::sync::Arc::new(phalanx_agent::policy::Policy::open()),
        };
        change(&mut scope);
        let token = scope.token.clone();
        let stack = runtime.open(scope).await?;
        Ok(Cell {
            docker: self.docker.clone(),
            stack,
            token,
            scratch,
        })
    }

    /// Everything of ours that the engine still holds.
    pub async fn left(&self, agent: &AgentId) -> Vec<String> {
        left(&self.docker, &format!("phalanx.agent={agent}")).await
    }

    pub async fn close(&self) -> Vec<String> {
        self.runtime.shutdown().await;
        let mut agents = self.others.lock().unwrap().clone();
        agents.push(self.agent.clone());
        let mut all = Vec::new();
        for agent in agents {
            let left = self.left(&agent).await;
            if !left.is_empty() {
                // Found, told, and then removed: the next run begins clean.
                let settings = DockerSettings {
                    ready_networks: 0,
                    ..DockerSettings::of(agent)
                };
                if let Ok(runtime) = DockerRuntime::connect(settings).await {
                    let _ = runtime.reap(&HashSet::new()).await;
                }
            }
            all.extend(left);
        }
        all
    }
}

pub async fn left(docker: &Docker, label: &str) -> Vec<String> {
    use bollard::query_parameters::*;
    let filter = std::collections::HashMap::from([("label", vec![label])]);
    let containers = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filter)
        .build();
    let networks = ListNetworksOptionsBuilder::default()
        .filters(&filter)
        .build();
    let volumes = ListVolumesOptionsBuilder::default()
        .filters(&filter)
        .build();
    let mut all = Vec::new();
    for c in docker.list_containers(Some(containers)).await.unwrap() {
        all.push(format!("container {:?}", c.names.unwrap_or_default()));
    }
    for n in docker.list_networks(Some(networks)).await.unwrap() {
        all.push(format!("network {}", n.name.unwrap_or_default()));
    }
    for v in docker
        .list_volumes(Some(volumes))
        .await
        .unwrap()
        .volumes
        .unwrap_or_default()
    {
        all.push(format!("volume {}", v.name));
    }
    all
}

/// An attempt's stack.
pub struct Cell {
    docker: Docker,
    pub stack: Arc<dyn Stack>,
    pub token: Token,
    pub scratch: tempfile::TempDir,
}

impl Cell {
    /// Prepares, creates and starts a service.
    pub async fn up(&self, config: ServiceConfig) -> Service {
        let service = self.create(config).await.unwrap();
        service.member.start().await.unwrap();
        service
    }

    /// Prepares and creates it.
    pub async fn create(&self, config: ServiceConfig) -> Result<Service, RuntimeError> {
        self.stack.prepare(&config).await?;
        let (send, mut receive) = mpsc::channel::<(String, LogStream, Vec<u8>)>(64);
        let log = Log::default();
        let into = log.clone();
        tokio::spawn(async move {
            while let Some((from, stream, bytes)) = receive.recv().await {
                match from.as_str() {
                    FLUSH => into.1.notify_one(),
                    _ => into.take(stream, &bytes),
                }
            }
        });
        let member = self
            .stack
            .create(&config, LogSink::new(&config.name, send.clone()))
            .await?;
        Ok(Service {
            name: config.name,
            member,
            log,
            sink: send,
        })
    }

    /// Closes it, and checks that the engine holds nothing of it.
    pub async fn down(&self) -> Closed {
        let closed = self.stack.close(Duration::ZERO, None).await;
        assert_eq!(closed.left, Vec::<String>::new());
        assert_eq!(self.left().await, Vec::<String>::new());
        closed
    }

    pub async fn left(&self) -> Vec<String> {
        left(&self.docker, &format!("phalanx.run={}", self.token.run)).await
    }

    /// What the engine says of a service's container.
    pub async fn inspect(&self, service: &str) -> bollard::models::ContainerInspectResponse {
        use bollard::query_parameters::ListContainersOptionsBuilder;
        let filter = std::collections::HashMap::from([(
            "label",
            vec![
                format!("phalanx.run={}", self.token.run),
                format!("phalanx.service={service}"),
            ],
        )]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter)
            .build();
        let found = self.docker.list_containers(Some(options)).await.unwrap();
        let id = found
            .first()
            .expect("a container of the service")
            .id
            .clone()
            .unwrap();
        self.docker.inspect_container(&id, None).await.unwrap()
    }
}

/// A service and its log.
pub struct Service {
    pub name: String,
    pub member: Arc<dyn Member>,
    pub log: Log,
    sink: mpsc::Sender<(String, LogStream, Vec<u8>)>,
}

/// Sent after the last bytes: once it has come through, so have they.
const FLUSH: &str = "flush";

impl Service {
    /// Runs a script by `sh -c`.
    pub async fn sh(&self, script: &str) -> ExecOutput {
        self.member
            .exec(words(&["sh", "-c", script]))
            .await
            .unwrap()
    }

    /// A script's output, which must succeed.
    pub async fn says(&self, script: &str) -> String {
        let out = self.sh(script).await;
        assert_eq!(
            out.exit_code,
            0,
            "{script}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    pub async fn exit(&self) -> Exit {
        let mut exits = self.member.exits();
        let exit = exits.wait_for(Option::is_some).await.unwrap().clone();
        self.flush().await;
        exit.unwrap()
    }

    /// Waits until what was handed over so far has reached the log.
    pub async fn flush(&self) {
        let mark = (FLUSH.to_owned(), LogStream::Stdout, Vec::new());
        self.sink.send(mark).await.unwrap();
        self.log.1.notified().await;
    }
}

/// Bytes of a service, as they came.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<LogBytes>>, Arc<tokio::sync::Notify>);

#[derive(Default)]
struct LogBytes {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    total: u64,
}

impl Log {
    fn take(&self, stream: LogStream, bytes: &[u8]) {
        let mut log = self.0.lock().unwrap();
        log.total += bytes.len() as u64;
        let into = match stream {
            LogStream::Stdout => &mut log.stdout,
            LogStream::Stderr => &mut log.stderr,
        };
        // Long logs are counted, not kept.
        if into.len() < 4 << 20 {
            into.extend_from_slice(bytes);
        }
    }
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().stdout).into_owned()
    }
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().stderr).into_owned()
    }
    pub fn total(&self) -> u64 {
        self.0.lock().unwrap().total
    }
    /// Waits until the stdout holds a text.
    pub async fn until(&self, text: &str) {
        while !self.stdout().contains(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A service that runs a script by `sh -c`.
pub fn script(name: &str, script: &str) -> ServiceConfig {
    ServiceConfig {
        name: name.to_owned(),
        image: Some(BUSYBOX.to_owned()),
        command: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        ..ServiceConfig::default()
    }
}

/// A service that does nothing but live, and ends at once when asked to.
pub fn idle(name: &str) -> ServiceConfig {
    script(
        name,
        "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done",
    )
}

/// A service that serves HTTP on a port.
pub fn web(name: &str, port: u16) -> ServiceConfig {
    ServiceConfig {
        ports: vec![tcp(port)],
        ..script(name, &format!("exec httpd -f -p {port} -h /srv"))
    }
}

pub fn tcp(port: u16) -> Port {
    Port {
        target: Some(port),
        name: None,
        protocol: "tcp".to_owned(),
        app_protocol: None,
        published: None,
    }
}

pub fn words(words: &[&str]) -> ExecRequest {
    ExecRequest {
        command: words.iter().map(|w| (*w).to_owned()).collect(),
        max_output: 1 << 20,
        ..ExecRequest::default()
    }
}

/// Asks for a page over a plain connection; waits until somebody listens.
pub async fn get(address: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // Behind a published port the engine's own proxy answers before the service does, and then hangs up.
    loop {
        let mut answer = String::new();
        if let Ok(mut socket) = tokio::net::TcpStream::connect(address).await {
            let _ = socket.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await;
            let _ = socket.read_to_string(&mut answer).await;
        }
        if !answer.is_empty() {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A file's text.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
