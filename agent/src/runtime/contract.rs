//! What a runtime promises. Docker, host processes and the fake all stand behind these three traits.
//!
//! # Order of calls
//! `Runtime::open` once per attempt → per service `Stack::prepare` → `Stack::create` → `Member::start` (again after a stop,
//! kill or exit) → anything on the running member → `Stack::close` once, whatever happened before, also after a failed or
//! abandoned call. After `close` nothing of the attempt exists, unless it was told to keep it.
//!
//! # Concurrency
//! All methods take `&self` and may be called at once for different services; for one member the caller serialises
//! `start`, `stop`, `kill`, `restart`, `pause`, `unpause`. `exec`, `copy_*`, `inspect`, `addresses` may run beside each other.
//!
//! # Cancellation
//! Every future may be dropped at any await. What a dropped call had begun is still known to the stack, so that `close`
//! removes it: implementations record an object's name (label, marker) *before* asking for it.
//!
//! # Idempotence
//! `stop`, `kill` of what isn't running, `close` of what is gone: `Ok`. `reap` may run at any time beside live attempts.
//!
//! # Errors
//! [`RuntimeError`] says whose fault it is: of the system under test (→ `failed`) or of the machinery (→ `errored`).

use crate::beneath::Place;
use crate::runtime::head_tail::HeadTail;
use crate::sink::LogSink;
use async_trait::async_trait;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::spec::service::ServiceConfig;
use phalanx_shared::trace::AttemptTrace;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Bytes of each output that are at hand while a command runs.
const HEARD: usize = 32 * 1024;

/// What an attempt's stack is made for; also what its objects are labelled with (I3).
#[derive(Clone, Debug)]
pub struct AttemptScope {
    /// Run, cell, attempt, epoch.
    pub token: Token,
    /// The agent's identity.
    pub agent: AgentId,
    /// The cell's name, for people who look at `docker ps`.
    pub cell_name: String,
    /// A directory of the attempt's own: made by who puts something into it, removed by the caller after `close`.
    pub scratch: PathBuf,
    /// The unpacked workspace (or the spec's own directory in local mode), if any.
    pub workspace: Option<PathBuf>,
    /// Whether the cell's network is dual stack.
    pub ipv6: bool,
    /// The attempt's place in a trace, if there is one; containers and processes get their service's as `TRACEPARENT`.
    pub trace: Option<AttemptTrace>,
}

impl AttemptScope {
    /// `TRACEPARENT` of a service: its own span.
    pub fn traceparent(&self, service: &str) -> Option<String> {
        let trace = self.trace.as_ref()?;
        Some(trace.parent(trace.service(service)))
    }
}

/// Why a runtime could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The system under test is wrong: a container exits, an exec's user doesn't exist.
    #[error("{0}")]
    Failed(String),
    /// It could not be judged: pull, build, daemon, disk, a bug of ours.
    #[error("{0}")]
    Errored(String),
}

/// How a member ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + signal of a killed process.
    pub code: i64,
    /// Whether the kernel killed it for want of memory.
    pub oom: bool,
    /// Which start it was, from 1.
    pub start: u32,
}

/// Where a running member is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// What other services use as its name.
    pub host: String,
    /// Its IPv4 address in the cell's network; 127.0.0.1 of a process.
    pub ip: Option<IpAddr>,
    /// Its IPv6 address in the cell's network.
    pub ipv6: Option<IpAddr>,
    /// For steps: container port (or a process port's name) as text → `address:port` to connect to, in the order of `ports`.
    pub ports: Vec<(String, std::net::SocketAddr)>,
}

/// A command inside a member.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// Words; never empty.
    pub command: Vec<String>,
    /// Fed to it, then closed.
    pub stdin: Option<Vec<u8>>,
    /// Variables added.
    pub env: BTreeMap<String, String>,
    /// As whom.
    pub user: Option<String>,
    /// In which directory.
    pub workdir: Option<String>,
    /// Each output is kept up to so many bytes: the head and the tail half each, a marker line between.
    pub max_output: usize,
    /// Hears it as it comes, for when nobody waits for the end.
    pub heard: Heard,
}

/// The first and the last of what a command has said so far.
#[derive(Clone, Debug)]
pub struct Heard(Arc<Mutex<[HeadTail; 2]>>);

impl Default for Heard {
    fn default() -> Self {
        Heard(Arc::new(Mutex::new([
            HeadTail::new(HEARD),
            HeadTail::new(HEARD),
        ])))
    }
}

impl Heard {
    /// Adds bytes as they come.
    pub fn push(&self, stream: LogStream, bytes: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = &mut *heard;
        match stream {
            LogStream::Stdout => stdout.push(bytes),
            LogStream::Stderr => stderr.push(bytes),
        }
    }

    /// Standard output and errors up to now.
    pub fn so_far(&self) -> [HeadTail; 2] {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What a command said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// 126/127 when it could not be run, as in a shell.
    pub exit_code: i64,
    /// Its output.
    pub stdout: Vec<u8>,
    /// Its errors.
    pub stderr: Vec<u8>,
    /// How many bytes its output was in all, if not all of it was kept.
    pub stdout_cut: Option<u64>,
    /// How many bytes its errors were in all, if not all of them were kept.
    pub stderr_cut: Option<u64>,
}

/// What clean-up did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Objects removed (containers, networks, volumes, processes).
    pub removed: u32,
    /// Objects that could not be removed, with the reason, for people.
    pub left: Vec<String>,
}

/// A signal for [`Member::kill`], by name (`SIGKILL`).
pub type SignalName = String;

/// A maker of stacks. One per agent process and kind.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// `docker`, `process`, `fake`.
    fn kind(&self) -> &'static str;
    /// Makes what the services of one attempt share (a network).
    async fn open(&self, scope: AttemptScope) -> Result<Arc<dyn Stack>, RuntimeError>;
    /// Removes what this agent identity left behind and no live attempt claims.
    async fn reap(&self, live: &HashSet<Token>) -> Result<Closed, RuntimeError>;
    /// Ends background work (ready-made networks, watchers). Called once, when the agent goes away.
    async fn shutdown(&self);
}

/// The services of one attempt.
#[async_trait]
pub trait Stack: Send + Sync {
    /// Pulls or builds the image. Returns what it came to (`postgres:17, pulled in 3.1s`) for the `Pulled`/`Built` event, or `None` if there was nothing to do.
    async fn prepare(&self, config: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError>;
    /// Creates the member, not started. Once per service name.
    async fn create(
        &self,
        config: &ServiceConfig,
        logs: LogSink,
    ) -> Result<Arc<dyn Member>, RuntimeError>;
    /// Chooses a free port of 127.0.0.1 for each name and keeps it for the service until `close`, so that its definition
    /// (`port.NAME`) can be evaluated before `create`. Asked again for the same names it answers the same.
    /// Only for services that are host processes: containers have ports of their own.
    async fn reserve_ports(
        &self,
        service: &str,
        names: &[String],
    ) -> Result<Vec<(String, u16)>, RuntimeError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        Err(RuntimeError::Errored(format!(
            "service {service}: only host processes have named ports"
        )))
    }
    /// Runs a command on the agent's host, beside the services (a `run` step): in the workspace unless `workdir` says otherwise.
    /// It and all its descendants are killed when the future is dropped, when the command itself has ended, or when the agent dies.
    async fn run_on_host(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        let _ = request;
        Err(RuntimeError::Errored(
            "this runtime can't run commands on the host".to_owned(),
        ))
    }
    /// Stops (by each service's signal, within `grace`) and removes everything, in the reverse order of creation as far as it matters.
    /// With `keep` set nothing is removed and the objects are marked to be reaped after that time.
    async fn close(&self, grace: Duration, keep: Option<Duration>) -> Closed;
}

/// What `prepare` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// An image was pulled.
    Pulled(String),
    /// An image was built.
    Built(String),
}

/// One service of a stack.
#[async_trait]
pub trait Member: Send + Sync {
    /// Starts it; returns once it runs and its addresses are known. Output goes to the sink given at creation from the first byte on.
    async fn start(&self) -> Result<Addresses, RuntimeError>;
    /// The newest exit; `None` while it runs or before the first start. Sent only after all output of that start was handed to the log sink.
    fn exits(&self) -> watch::Receiver<Option<Exit>>;
    /// Why the newest exit says nothing of the system under test, if so: the engine went away and the member ended with it.
    /// Then what depended on it is `errored`, not `failed`.
    fn ended_by_machinery(&self) -> Option<String> {
        None
    }
    /// The engine's health if it judges one: `Some(true)` healthy, `Some(false)` unhealthy, `None` no health check or not known yet.
    fn health(&self) -> watch::Receiver<Option<bool>>;
    /// Whether the member has a health check of the engine's (its own or the image's). Known after `create`.
    fn has_healthcheck(&self) -> bool;
    /// How long its health check allows from a start to `unhealthy`: its start period and all its retries; if it is known.
    fn health_allows(&self) -> Option<Duration> {
        None
    }
    /// What the last probe of its health check answered, for people.
    async fn last_probe(&self) -> Option<String> {
        None
    }
    /// Where it is now; resolved anew, since a restart may change it.
    async fn addresses(&self) -> Result<Addresses, RuntimeError>;
    /// Asks it to stop by its stop signal, kills it after `grace` (its own if `None`). Returns when it has exited.
    async fn stop(&self, grace: Option<Duration>) -> Result<(), RuntimeError>;
    /// Sends a signal. With SIGKILL returns when it has exited.
    async fn kill(&self, signal: SignalName) -> Result<(), RuntimeError>;
    /// Freezes it.
    async fn pause(&self) -> Result<(), RuntimeError>;
    /// Thaws it.
    async fn unpause(&self) -> Result<(), RuntimeError>;
    /// Takes it off the cell's network.
    async fn disconnect(&self) -> Result<(), RuntimeError>;
    /// Puts it on again, with the same aliases.
    async fn connect(&self) -> Result<(), RuntimeError>;
    /// Runs a command in it.
    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError>;
    /// Copies a file or directory of the agent's into it. Neither leads out of its root, whoever else writes there.
    async fn copy_in(&self, from: Place, to: String) -> Result<(), RuntimeError>;
    /// Copies a file or directory out of it.
    async fn copy_out(&self, from: String, to: Place) -> Result<(), RuntimeError>;
    /// A summary for a failure: exit code, OOM, health log, restarts; lines for people, no environment, no secrets.
    async fn inspect(&self) -> Vec<String>;
}

/// A convenience for implementations: which stream a chunk is of.
pub type Stream = LogStream;
