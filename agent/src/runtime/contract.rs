//! The runtime contract: three traits that the Docker, host process and fake runtimes implement.
//!
//! # Order of calls
//! `Runtime::open` once per attempt → per service `Stack::prepare` → `Stack::create` → `Member::start` (again after a
//! stop, kill or exit) → any calls on the running member → `Stack::close` once, whatever happened before, even after a
//! failed or abandoned call. After `close` nothing of the attempt exists, unless the caller asked to keep it.
//!
//! # Concurrency
//! All methods take `&self` and may be called concurrently for different services. For one member the caller serialises
//! `start`, `stop`, `kill`, `pause` and `unpause`; `exec`, `copy_*`, `inspect` and `addresses` may run concurrently with
//! them and with each other.
//!
//! # Cancellation
//! Every future may be dropped at any await. The stack still knows the objects that a dropped call had begun to create,
//! so `close` removes them: implementations record an object's name (label, marker) *before* they request the object.
//!
//! # Idempotence
//! `stop` and `kill` return `Ok` for a member that isn't running, and `close` succeeds if everything is already gone.
//! `reap` may run at any time alongside live attempts.
//!
//! # Errors
//! A [`RuntimeError`] has a [`Fault`], which says whether the system under test is at fault (→ `failed`) or the machinery
//! (→ `errored`).

use crate::beneath::Place;
use crate::policy::Policy;
use crate::runtime::gather::Gather;
use crate::runtime::head_tail::HeadTail;
use crate::runtime::search::{FoundFile, Search};
use crate::sink::LogSink;
use async_trait::async_trait;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::language::service::ServiceConfig;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::policy::Refusal;
use phalanx_shared::trace::AttemptTrace;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Bytes of each output stream that are available while a command runs.
const HEARD: usize = 32 * 1024;

/// Identifies the attempt that a stack is created for. The stack's objects are labelled with it (I3).
#[derive(Clone, Debug)]
pub struct AttemptScope {
    /// Run, cell, attempt and epoch.
    pub token: Token,
    /// Identity of the agent that runs the attempt.
    pub agent: AgentId,
    /// Name of the cell, shown to people in `docker ps`.
    pub cell_name: String,
    /// Directory for this attempt only. Created by the first code that writes to it; removed by the caller after
    /// `close`.
    pub scratch: PathBuf,
    /// The unpacked workspace (or the directory of the spec in local mode), if any.
    pub workspace: Option<PathBuf>,
    /// Whether the cell's network is dual-stack (IPv4 and IPv6).
    pub ipv6: bool,
    /// Trace context of the attempt, if it is traced. Containers and processes get the span of their service as
    /// `TRACEPARENT`.
    pub trace: Option<AttemptTrace>,
    /// Images by service that replace those of the services' definitions: references with digests, or the engine's ids.
    pub images: BTreeMap<String, String>,
    /// What the attempt may do outside its own objects and its workspace.
    pub policy: Arc<Policy>,
}

impl AttemptScope {
    /// Returns the `TRACEPARENT` for a service: the service's own span. `None` if the attempt is not traced.
    pub fn traceparent(&self, service: &str) -> Option<String> {
        let trace = self.trace.as_ref()?;
        Some(trace.parent(trace.service(service)))
    }
}

/// What went wrong in a runtime's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A command can't run: its program, user or signal doesn't exist, or it is empty.
    Command,
    /// The member's state doesn't allow the operation: it doesn't run, or it runs already.
    State,
    /// A file or directory is missing, can't be used, or leads out of its root.
    Path,
    /// Members of this kind can't do it.
    Unsupported,
    /// Another service that it depends on failed.
    Dependency,
    /// The agent's policy refuses it.
    Policy,
    /// The service's definition can't be evaluated, or asks for something that this agent lacks.
    Definition,
    /// An image is missing, or can't be pulled or built.
    Image,
    /// The engine can't be reached, refuses for reasons of its own, or lost its answer.
    Engine,
    /// The agent's machine has too little of something (disk, ports, subnets), or changed something: a process was
    /// killed, a mount's source replaced.
    Machine,
    /// The operation came in the wrong order or at the wrong time, or ended by a bug in Phalanx.
    Misuse,
}

impl Fault {
    /// Returns the outcome that the fault leads to. Only this function decides whether the system under test is at
    /// fault (`failed`) or could not be judged (`errored`).
    pub fn outcome(self) -> Outcome {
        match self {
            Fault::Command
            | Fault::State
            | Fault::Path
            | Fault::Unsupported
            | Fault::Dependency => Outcome::Failed,
            Fault::Policy
            | Fault::Definition
            | Fault::Image
            | Fault::Engine
            | Fault::Machine
            | Fault::Misuse => Outcome::Errored,
        }
    }
}

/// Error of a runtime operation.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct RuntimeError {
    /// What went wrong.
    pub fault: Fault,
    /// Reason, as shown to the user.
    pub reason: String,
    /// The service that the reason names as the one that the operation was for.
    service: Option<String>,
}

impl RuntimeError {
    /// Creates an error whose reason names no service.
    pub fn new(fault: Fault, reason: impl Into<String>) -> Self {
        RuntimeError {
            fault,
            reason: reason.into(),
            service: None,
        }
    }

    /// Creates the error of an operation on a service: `service NAME: WHY`.
    pub fn of(service: &str, fault: Fault, why: impl fmt::Display) -> Self {
        RuntimeError::new(fault, format!("service {service}: {why}")).naming(service)
    }

    /// Creates the error of something that the agent's policy refuses.
    pub fn refused(refusal: &Refusal) -> Self {
        RuntimeError::new(Fault::Policy, format!("{refusal}; {}", refusal.help()))
    }

    /// Declares that the reason names this service already.
    #[must_use]
    pub fn naming(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self
    }

    /// Returns whether the reason names this service.
    pub fn names(&self, service: &str) -> bool {
        self.service.as_deref() == Some(service)
    }

    /// Returns the service to blame if the error says that it can't run, and not only that an operation is impossible.
    pub fn culprit(&self) -> Option<&str> {
        match self.fault {
            Fault::Dependency | Fault::Image | Fault::Engine | Fault::Machine => {
                self.service.as_deref()
            }
            Fault::Command
            | Fault::State
            | Fault::Path
            | Fault::Unsupported
            | Fault::Policy
            | Fault::Definition
            | Fault::Misuse => None,
        }
    }

    /// Returns the outcome that the error leads to.
    pub fn outcome(&self) -> Outcome {
        self.fault.outcome()
    }
}

/// How a member exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal number if a signal killed the process.
    pub code: i64,
    /// Whether the kernel killed it because it ran out of memory.
    pub oom: bool,
    /// Number of the start that this exit ended, counted from 1.
    pub start: u32,
}

/// Addresses at which a running member can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Host name that other services use.
    pub host: String,
    /// IPv4 address in the cell's network; 127.0.0.1 for a host process.
    pub ip: Option<IpAddr>,
    /// IPv6 address in the cell's network.
    pub ipv6: Option<IpAddr>,
    /// Ports for steps, in the order of `ports`: container port (or the name of a process port) as text →
    /// `address:port` to connect to.
    pub ports: Vec<(String, std::net::SocketAddr)>,
}

/// A command to run inside a member.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Bytes written to its standard input, which is then closed.
    pub stdin: Option<Vec<u8>>,
    /// Variables added to the environment.
    pub env: BTreeMap<String, String>,
    /// User to run as.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Whether it has extended privileges.
    pub privileged: bool,
    /// Maximum bytes kept of each output stream: half from the head and half from the tail, with a marker line between.
    pub max_output: usize,
    /// Receives output as it arrives, so that it is available even if no caller waits for the end.
    pub heard: Heard,
}

/// The head and tail of the output that a command has produced so far.
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
    /// Appends bytes to one stream.
    pub fn push(&self, stream: LogStream, bytes: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = &mut *heard;
        match stream {
            LogStream::Stdout => stdout.push(bytes),
            LogStream::Stderr => stderr.push(bytes),
        }
    }

    /// Returns standard output and standard error up to now.
    pub fn so_far(&self) -> [HeadTail; 2] {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Exit code and output of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code; 126 or 127 if the command could not be run, as in a shell.
    pub exit_code: i64,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Total bytes of standard output, if only a part was kept.
    pub stdout_cut: Option<u64>,
    /// Total bytes of standard error, if only a part was kept.
    pub stderr_cut: Option<u64>,
}

/// Result of a clean-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Number of objects removed (containers, networks, volumes, processes).
    pub removed: u32,
    /// Objects that could not be removed, each with the reason, for display.
    pub left: Vec<String>,
}

/// A signal name for [`Member::kill`], such as `SIGKILL`.
pub type SignalName = String;

/// Creates stacks. One exists per agent process and runtime kind.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Returns `docker`, `process` or `fake`.
    fn kind(&self) -> &'static str;
    /// Creates what the services of one attempt share, such as a network.
    async fn open(&self, scope: AttemptScope) -> Result<Arc<dyn Stack>, RuntimeError>;
    /// Removes leftover objects of this agent's identity that belong to no live attempt.
    async fn reap(&self, live: &HashSet<Token>) -> Result<Closed, RuntimeError>;
    /// Ends background work (pools of prepared networks, watchers). Called once, when the agent exits.
    async fn shutdown(&self);
}

/// The services of one attempt.
#[async_trait]
pub trait Stack: Send + Sync {
    /// Returns the part of the time that opening it took in which the engine was busy with other requests.
    fn queued(&self) -> Duration {
        Duration::ZERO
    }
    /// Pulls or builds the image. Returns a summary (`postgres:17, pulled in 3.1s`) for the `Pulled` or `Built` event,
    /// or `None` if there was nothing to do.
    async fn prepare(&self, config: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError>;
    /// Returns how far the pull or build is that `prepare` waits for (`2 of 5 layers done, 31 of 120 MiB`), if that is
    /// known.
    fn preparing(&self, _service: &str) -> Option<String> {
        None
    }
    /// Returns what a definition asks for that makes no difference to the service and that this runtime leaves out, for
    /// display.
    fn notes(&self, config: &ServiceConfig) -> Vec<String> {
        let _ = config;
        Vec::new()
    }
    /// Creates the member without starting it. Called once per service name.
    async fn create(
        &self,
        config: &ServiceConfig,
        logs: LogSink,
    ) -> Result<Arc<dyn Member>, RuntimeError>;
    /// Returns the engine's id of the image that a prepared service runs; `None` if members of this kind run no images.
    async fn image_id(&self, config: &ServiceConfig) -> Result<Option<String>, RuntimeError> {
        let _ = config;
        Ok(None)
    }
    /// Saves the files of members that don't run: what their containers changed, and their volumes. Nothing of the
    /// environment or the command gets into what is saved.
    async fn save(&self, order: SaveOrder) -> Result<Saved, RuntimeError> {
        let _ = order;
        Err(RuntimeError::new(
            Fault::Unsupported,
            "members of this kind can't be saved",
        ))
    }
    /// Puts saved files in place: later `create`s of these services start with them. Called before any of them is created.
    /// Checks the digest of each file.
    async fn restore(&self, saved: &Saved, from: PathBuf) -> Result<(), RuntimeError> {
        let _ = (saved, from);
        Err(RuntimeError::new(
            Fault::Unsupported,
            "members of this kind can't be restored",
        ))
    }
    /// Removes the members of services and their volumes, and forgets what was restored for them, so that they can be created
    /// anew.
    async fn discard(&self, services: &[String]) -> Result<(), RuntimeError> {
        let _ = services;
        Ok(())
    }
    /// Chooses a free port of 127.0.0.1 for each name and holds it for the service until `close`, so that the service's
    /// definition (`port.NAME`) can be evaluated before `create`. Repeated calls with the same names return the same
    /// ports. Only for services that run as host processes: containers have their own ports.
    async fn reserve_ports(
        &self,
        service: &str,
        names: &[String],
    ) -> Result<Vec<(String, u16)>, RuntimeError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        Err(RuntimeError::of(
            service,
            Fault::Definition,
            "only host processes have named ports",
        ))
    }
    /// Runs a command on the agent's host, next to the services (a `run` step), in the workspace unless `workdir` says
    /// otherwise. The command and all its descendants are killed when the future is dropped, when the command itself
    /// exits, or when the agent dies.
    async fn run_on_host(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        let _ = request;
        Err(RuntimeError::new(
            Fault::Definition,
            "this runtime can't run commands on the host",
        ))
    }
    /// Finds files in the directory where `run_on_host` runs commands.
    async fn find_on_host(&self, search: Search) -> Result<Vec<FoundFile>, RuntimeError> {
        let pattern = search.pattern.as_str();
        let why =
            format!("{pattern} can't be looked for: this runtime has no directory on the host");
        Err(RuntimeError::new(Fault::Unsupported, why))
    }
    /// Sends files in the directory where `run_on_host` runs commands. What doesn't exist isn't an error.
    async fn gather_on_host(&self, gather: Gather) -> Result<(), RuntimeError> {
        let pattern = gather.pattern.as_str();
        let why = format!("{pattern} can't be kept: this runtime has no directory on the host");
        Err(RuntimeError::new(Fault::Unsupported, why))
    }
    /// Stops every service (with its stop signal, within `grace`) and removes everything, in reverse order of creation
    /// where the order matters. If `keep` is set, removes nothing and marks the objects to be reaped after that time.
    async fn close(&self, grace: Duration, keep: Option<Duration>) -> Closed;
}

/// An order to save the files of services.
#[derive(Clone, Debug)]
pub struct SaveOrder {
    /// The services. They have been created and don't run.
    pub services: Vec<String>,
    /// Directory for the files.
    pub directory: PathBuf,
    /// Key of the snapshot, for labels.
    pub key: String,
    /// Id of the store, for labels.
    pub store: String,
    /// Maximum total size in bytes.
    pub max_bytes: u64,
}

/// The saved files of services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The services.
    pub services: Vec<SavedService>,
    /// Their volumes, each once.
    pub volumes: Vec<SavedVolume>,
}

impl Saved {
    /// Returns the total size in bytes.
    pub fn bytes(&self) -> u64 {
        let images = self.services.iter().flat_map(|service| &service.image);
        let images: u64 = images.map(|image| image.bytes).sum();
        images + self.volumes.iter().map(|volume| volume.bytes).sum::<u64>()
    }
}

/// A service whose files are saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedService {
    /// Name of the service.
    pub name: String,
    /// Id of the image that it ran.
    pub base: String,
    /// What its container has changed outside of volumes, as an image; `None` if it changed nothing.
    pub image: Option<SavedImage>,
}

/// A container's own files, as an image over that of its service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedImage {
    /// Id of the image.
    pub id: String,
    /// Size of what it adds to the service's image.
    pub bytes: u64,
}

/// A saved volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedVolume {
    /// The service whose container it was read from.
    pub service: String,
    /// Its path in that container.
    pub target: String,
    /// Its name in the spec; `None` if it has none.
    pub name: Option<String>,
    /// Name of its file in the snapshot's directory: a tar archive.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Result of `prepare`, with a summary for the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// An image was pulled.
    Pulled {
        /// The image, as the service's definition names it.
        image: String,
        /// Summary.
        detail: String,
    },
    /// An image was built.
    Built(String),
}

/// One service of a stack.
#[async_trait]
pub trait Member: Send + Sync {
    /// Returns the part of the time that its creation and all its starts took in which the engine was busy with other
    /// requests.
    fn queued(&self) -> Duration {
        Duration::ZERO
    }
    /// Returns what the member runs, whatever the image's tag names later: `postgres@sha256:…` if the image came from a
    /// registry, else the engine's id `sha256:…`. `None` for host processes. Known after `create`.
    fn image(&self) -> Option<String> {
        None
    }
    /// Starts the member. Returns once it runs and its addresses are known. Its output goes to the sink given to
    /// `create`, from the first byte on.
    async fn start(&self) -> Result<Addresses, RuntimeError>;
    /// Runs the hooks of its definition that belong to a start, one after the other. Called after `start`.
    async fn post_start(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Returns a watch on the newest exit: `None` while the member runs or before its first start. An exit is sent only
    /// after all output of that start has been handed to the log sink.
    fn exits(&self) -> watch::Receiver<Option<Exit>>;
    /// Returns the reason if the newest exit says nothing about the system under test: the engine went away and the
    /// member ended with it. Everything that depended on the member is then `errored`, not `failed`.
    fn ended_by_machinery(&self) -> Option<String> {
        None
    }
    /// Returns a watch on the engine's health status: `Some(true)` healthy, `Some(false)` unhealthy, `None` if there is
    /// no health check or no result yet.
    fn health(&self) -> watch::Receiver<Option<bool>>;
    /// Returns whether the engine runs a health check for the member (from the service or from the image). Known after
    /// `create`.
    fn has_healthcheck(&self) -> bool;
    /// Returns how long after a start the health check can take to report `unhealthy`: its start period plus all its
    /// retries. `None` if unknown.
    fn health_allows(&self) -> Option<Duration> {
        None
    }
    /// Returns the output of the newest health probe, for display.
    async fn last_probe(&self) -> Option<String> {
        None
    }
    /// Returns the current addresses. Resolves them anew, since a restart may change them.
    async fn addresses(&self) -> Result<Addresses, RuntimeError>;
    /// Runs the hooks of its definition that belong to a stop, then sends the stop signal and kills the member after
    /// `grace` (the service's own if `None`). Returns when it has exited. A hook that fails leaves it running.
    async fn stop(&self, grace: Option<Duration>) -> Result<(), RuntimeError>;
    /// Sends a signal. For SIGKILL, returns when the member has exited.
    async fn kill(&self, signal: SignalName) -> Result<(), RuntimeError>;
    /// Freezes all its processes.
    async fn pause(&self) -> Result<(), RuntimeError>;
    /// Resumes a paused member.
    async fn unpause(&self) -> Result<(), RuntimeError>;
    /// Detaches it from the cell's network.
    async fn disconnect(&self) -> Result<(), RuntimeError>;
    /// Attaches it to the cell's network again, with the same aliases.
    async fn connect(&self) -> Result<(), RuntimeError>;
    /// Runs a command inside the member.
    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError>;
    /// Copies a file or directory from the agent into the member. Neither path can lead out of its root, even if others
    /// write there at the same time.
    async fn copy_in(&self, from: Place, to: String) -> Result<(), RuntimeError>;
    /// Copies a file or directory out of the member.
    async fn copy_out(&self, from: String, to: Place) -> Result<(), RuntimeError>;
    /// Finds files inside the member, whether it runs or not, by a path or a glob. What doesn't exist isn't an error.
    async fn find(&self, search: Search) -> Result<Vec<FoundFile>, RuntimeError> {
        let pattern = search.pattern.as_str();
        let why = format!("{pattern} can't be looked for: members of this kind hold no files");
        Err(RuntimeError::new(Fault::Unsupported, why))
    }
    /// Sends files inside the member, whether it runs or not. What doesn't exist isn't an error.
    async fn gather(&self, gather: Gather) -> Result<(), RuntimeError> {
        let pattern = gather.pattern.as_str();
        let why = format!("{pattern} can't be kept: members of this kind hold no files");
        Err(RuntimeError::new(Fault::Unsupported, why))
    }
    /// Returns a summary for a failure report, as lines of text: exit code, OOM, health log, restarts. Contains no
    /// environment and no secrets.
    async fn inspect(&self) -> Vec<String>;
}

/// Output stream of a chunk; an alias for implementations.
pub type Stream = LogStream;
