//! A process runtime with everything around it that an agent would have.

use phalanx_agent::clock::SystemClock;
use phalanx_agent::runtime::contract::{AttemptScope, Exit, Member, Runtime, Stack};
use phalanx_agent::runtime::process::{ProcessRuntime, WardenProgram};
use phalanx_agent::sink::LogSink;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::language::service::ServiceConfig;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// No test hangs for longer.
pub const BOUND: Duration = Duration::from_secs(60);

pub type Frames = mpsc::Receiver<(String, LogStream, Vec<u8>)>;

pub struct Bench {
    pub runtime: ProcessRuntime,
    pub agent: AgentId,
    pub place: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let agent = AgentId::from(format!("test-{}", uuid::Uuid::new_v4()));
        let place = tempfile::tempdir().unwrap();
        Bench {
            runtime: runtime(&agent, place.path()),
            agent,
            place,
        }
    }

    pub fn token(&self) -> Token {
        token("cell")
    }

    pub async fn stack(&self) -> Arc<dyn Stack> {
        self.stack_of(self.token()).await
    }

    pub async fn stack_of(&self, token: Token) -> Arc<dyn Stack> {
        let scope = scope(&self.agent, token, self.place.path());
        self.runtime.open(scope).await.unwrap()
    }
}

pub fn runtime(agent: &AgentId, state: &Path) -> ProcessRuntime {
    ProcessRuntime::new(agent.clone(), state, Arc::new(SystemClock::default())).with_warden(
        WardenProgram(PathBuf::from(env!("CARGO_BIN_EXE_phalanx-agent"))),
    )
}

pub fn token(cell: &str) -> Token {
    Token {
        run: "run".into(),
        cell: cell.into(),
        attempt: 1,
        epoch: 1,
    }
}

pub fn scope(agent: &AgentId, token: Token, scratch: &Path) -> AttemptScope {
    AttemptScope {
        token,
        agent: agent.clone(),
        cell_name: "cell".to_owned(),
        scratch: scratch.to_owned(),
        workspace: None,
        ipv6: false,
        trace: None,
        images: Default::default(),
        policy: std::sync::Arc::new(phalanx_agent::policy::Policy::open()),
    }
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn shell(name: &str, script: &str) -> ServiceConfig {
    ServiceConfig {
        name: name.to_owned(),
        process: Some(words(&["sh", "-c", script])),
        ..ServiceConfig::default()
    }
}

/// A service and the lines it prints.
pub struct Service {
    pub member: Arc<dyn Member>,
    pub frames: Frames,
    text: String,
}

impl Service {
    pub async fn create(stack: &Arc<dyn Stack>, config: &ServiceConfig) -> Service {
        let (out, frames) = mpsc::channel(64);
        let member = stack
            .create(config, LogSink::new(&config.name, out))
            .await
            .unwrap();
        Service {
            member,
            frames,
            text: String::new(),
        }
    }

    pub async fn start(stack: &Arc<dyn Stack>, config: &ServiceConfig) -> Service {
        let service = Service::create(stack, config).await;
        service.member.start().await.unwrap();
        service
    }

    /// The next line of its output.
    pub async fn line(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.text = rest;
                return line;
            }
            let frame = tokio::time::timeout(BOUND, self.frames.recv()).await;
            let (_, _, bytes) = frame
                .expect("a line in time")
                .expect("a line before the end");
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// A line that is a pid, pinned.
    pub async fn process(&mut self) -> Process {
        Process::open(self.line().await.trim().parse().unwrap())
    }

    pub async fn exit(&self) -> Exit {
        let mut exits = self.member.exits();
        let exit = tokio::time::timeout(BOUND, exits.wait_for(Option::is_some)).await;
        exit.expect("an exit in time").unwrap().clone().unwrap()
    }

    /// All that it printed and hasn't been read, once it has exited.
    pub async fn rest(mut self) -> String {
        let mut text = std::mem::take(&mut self.text);
        self.exit().await;
        while let Ok((_, _, bytes)) = self.frames.try_recv() {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }
}

/// A process pinned by a descriptor.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    descriptor: OwnedFd,
}

impl Process {
    pub fn open(pid: i32) -> Process {
        let descriptor = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::NONBLOCK).unwrap();
        Process { pid, descriptor }
    }

    pub fn is_dead(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits for its death.
    pub fn dies(&self) -> bool {
        self.wait(BOUND)
    }

    fn wait(&self, at_most: Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(at_most).unwrap();
        poll(&mut fds, timeout).unwrap() > 0
    }

    pub fn kill(&self) {
        use std::os::fd::AsFd;
        let signal = rustix::process::Signal::KILL;
        rustix::process::pidfd_send_signal(self.descriptor.as_fd(), signal).unwrap();
    }

    /// The letter of its state: `T` stopped, `S` sleeping …
    pub fn state(&self) -> char {
        self.stat(0).chars().next().unwrap()
    }

    pub fn parent(&self) -> Process {
        Process::open(self.stat(1).parse().unwrap())
    }

    /// A field after the name.
    fn stat(&self, index: usize) -> String {
        let line = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let (_, fields) = line.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(index).unwrap().to_owned()
    }
}
