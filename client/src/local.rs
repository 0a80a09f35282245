//! Single-machine mode: a coordinator and its agents for one command, which speak the real protocol over a Unix socket.
//!
//! Apart from `entry.rs`, `main.rs` and the command `agent`, only this module (with `local/`) uses the agent's crate.
//! Each run has its own directory, so several can run at once; the directories of all runs are side by side and
//! are listed together (`place.rs`). Agents run in this process or as its children (`agents.rs`). Either way, the next
//! start cleans up after dead ones.

mod agents;
mod checkup;
mod docker;
mod gc;
mod look;
mod place;
mod snapshots;
mod unpack;

pub use checkup::{Finding, Verdict, Wish, checkup};
pub use docker::of_agents;
pub use gc::{Gc, gc};
pub use look::{Look, list, newest, open};
pub use place::{Found, find, workspace_of};
pub use snapshots::{remove_snapshots, snapshots};
pub use unpack::open_file;

use crate::credential::{Client, Credential};
use agents::Agents;
use phalanx_agent::identity::IdentityError;
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_agent::supervisor::StartError;
use phalanx_coordinator::dispatch::core::Settings as SessionSettings;
use phalanx_coordinator::journal::StoreError;
use phalanx_coordinator::serve::api::cancel_all;
use phalanx_coordinator::serve::api::gc::WORKSPACES;
use phalanx_coordinator::serve::server::{self, Server};
use phalanx_coordinator::serve::web;
use phalanx_coordinator::supervisor::{Begin, OwnSecrets, Settings};
use phalanx_otlp::Tracer;
use phalanx_shared::id::RunId;
use phalanx_shared::policy::Rules;
use place::{Place, at};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::Channel;

/// How long agents may take to connect.
const AGENTS_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait for clean-up at the end.
const CLEAN_WITHIN: Duration = Duration::from_secs(90);

/// Options of a local run.
#[derive(Clone)]
pub struct Options {
    /// Directory of all runs and agents.
    pub state_dir: PathBuf,
    /// Number of agents to start.
    pub agents: u32,
    /// Maximum concurrent cells per agent.
    pub slots: u32,
    /// Whether agents are child processes instead of tasks of this process.
    pub agents_as_processes: bool,
    /// Factor by which reserved CPUs may exceed the machine's.
    pub cpu_overcommit: f64,
    /// Factor by which reserved memory may exceed the machine's.
    pub memory_overcommit: f64,
    /// Maximum size of all snapshots in MiB; 0 for no limit.
    pub snapshots_mib: u64,
    /// Days after which an unused snapshot is removed; 0 for never.
    pub snapshots_days: u64,
    /// What specs may do on this machine.
    pub policy: Rules,
    /// Labels in addition to the machine's own.
    pub labels: Vec<String>,
    /// Settings of the Docker runtime; no networks are kept ready if the spec has no containers.
    pub docker: DockerSettings,
    /// How long `always` steps may run after a cancel.
    pub cancel_grace: Duration,
    /// Maximum number of cells of a plan; `None` for no limit.
    pub max_cells: Option<usize>,
    /// Exporter of traces, if one is configured.
    pub tracer: Option<Tracer>,
    /// The program that answers `demo-server`, `agent` and the agent's hidden commands; `None` for this program.
    pub program: Option<PathBuf>,
}

/// Why a local run can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run's journal can't be used.
    #[error(transparent)]
    Journal(#[from] StoreError),
    /// A directory or the socket can't be used.
    #[error("can't use {}: {error}", .path.display())]
    Place {
        /// Path of the directory or socket.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// An agent can't start.
    #[error("can't start an agent: {0}")]
    Agent(#[from] StartError),
    /// An agent's identity can't be used.
    #[error("can't start an agent: {0}")]
    Identity(#[from] IdentityError),
    /// An agent in this process can't start.
    #[error("can't start an agent: {0}")]
    Start(&'static str),
    /// An agent can't start as a child process.
    #[error("can't start an agent as a process: {0}")]
    Process(String),
    /// The local coordinator doesn't answer.
    #[error("the local coordinator doesn't answer: {0}")]
    Connect(String),
    /// Clean-up in the engine failed.
    #[error("can't clean up in the engine: {0}")]
    Engine(#[from] phalanx_agent::gc::GcError),
    /// There is no such run.
    #[error("there is no local run {0}")]
    NoSuchRun(String),
    /// An exported run can't be read.
    #[error("can't read the run in {}: {error}", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Why not.
        error: phalanx_report::archive::Error,
    },
    /// An exported run can't be unpacked on this machine.
    #[error("can't unpack the run: {0}")]
    Unpack(String),
    /// Another `phalanx` still runs it.
    #[error("run {run} is still going on, in another `phalanx`")]
    Live {
        /// The id of the run.
        run: RunId,
    },
}

/// A local coordinator and its agents.
pub struct LocalRun {
    client: Client,
    run: RunId,
    place: Place,
    server: Server,
    agents: Agents,
}

impl LocalRun {
    /// Starts everything for a new run. The first submitted run gets the id [`LocalRun::run`].
    pub async fn start(options: &Options) -> Result<LocalRun, Error> {
        let run = RunId(uuid::Uuid::now_v7().to_string());
        let place = Place::of_run(&options.state_dir, &run);
        let begin = Begin {
            bring_open_runs: true,
            first_run: Some(run.clone()),
            secrets: BTreeMap::new(),
        };
        Self::at(options, run, place, begin).await
    }

    /// Resumes a run that was killed, without repeating finished cells.
    pub async fn resume(
        options: &Options,
        run: &RunId,
        secrets: BTreeMap<String, String>,
    ) -> Result<LocalRun, Error> {
        let begin = Begin {
            bring_open_runs: true,
            first_run: None,
            secrets,
        };
        Self::again(options, run, begin).await
    }

    /// Starts everything in the directory of an earlier run without resuming it, to run its cells again.
    pub async fn beside(options: &Options, run: &RunId) -> Result<LocalRun, Error> {
        let begin = Begin {
            bring_open_runs: false,
            ..Begin::default()
        };
        Self::again(options, run, begin).await
    }

    async fn again(options: &Options, run: &RunId, begin: Begin) -> Result<LocalRun, Error> {
        let found = find(&options.state_dir, run.as_str()).await;
        let found = found.ok_or_else(|| Error::NoSuchRun(run.to_string()))?;
        let started = Self::at(options, found.run.clone(), found.place, begin).await;
        started.map_err(|error| match error {
            Error::Journal(StoreError::InUse { .. }) => Error::Live { run: found.run },
            other => other,
        })
    }

    async fn at(
        options: &Options,
        run: RunId,
        place: Place,
        begin: Begin,
    ) -> Result<LocalRun, Error> {
        phalanx_agent::private::memory();
        place.make()?;
        let own_secrets: OwnSecrets = Arc::new(|_, _| None);
        let server_options = server::Options {
            settings: Settings {
                // The agents of a local run die with it, so none will reconnect.
                reconnect_within: Duration::ZERO,
                cancel_grace: options.cancel_grace,
                keep_runs_for: None,
                agents_are_all_here: true,
                tracer: options.tracer.clone(),
                ..Settings::default()
            },
            sessions: SessionSettings::default(),
            own_secrets,
            begin,
            max_cells: options.max_cells,
            ..server::Options::below(place.directory())
        };
        // Take the journal's lock first: its holder also owns the path of the socket.
        let server = place.serve(server_options).await?;
        let started = async {
            let channel = place.connect().await.map_err(Error::Connect)?;
            let agents = Agents::start(options, &place).await?;
            let agents = here(agents, &server, options, &place).await?;
            Ok((agents, client(channel)))
        };
        match started.await {
            Ok((agents, client)) => Ok(LocalRun {
                client,
                run,
                place,
                server,
                agents,
            }),
            Err(error) => {
                server.stop().await;
                Err(error)
            }
        }
    }

    /// Returns a client of the coordinator. Clones are cheap.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Serves pages, `/healthz` and `/metrics` until the coordinator ends.
    pub fn observe(&self, listener: TcpListener, pages: web::Options) {
        self.server.observe(listener, Some(pages), false);
    }

    /// Returns the id of the run: the first submitted one, or the resumed one.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Returns the run's own directory: journal, logs, workspaces.
    pub fn directory(&self) -> &std::path::Path {
        self.place.directory()
    }

    /// Takes a workspace that another coordinator of this machine received and checked.
    pub fn adopt_workspace(&self, archive: &Path) -> Result<(), Error> {
        let directory = self.place.directory().join(WORKSPACES);
        phalanx_coordinator::private::directory(&directory).map_err(at(&directory))?;
        let own = directory.join(archive.file_name().unwrap_or_default());
        // A second name for the same file, unless it is on another disk.
        std::fs::hard_link(archive, &own)
            .or_else(|_| std::fs::copy(archive, &own).map(|_| ()))
            .map_err(at(&own))
    }

    /// Ends at once, as if this process had been killed, without any clean-up. For tests, and for a third Ctrl-C.
    pub async fn kill(self) {
        let LocalRun { server, agents, .. } = self;
        // Stop the coordinator first, so that it journals nothing about the end of the agents.
        server.stop().await;
        agents.kill().await;
    }

    /// Ends everything. Cancels unfinished runs and waits for clean-up, up to a limit. Returns whether all of it
    /// completed.
    pub async fn close(self) -> bool {
        let LocalRun {
            place,
            server,
            agents,
            ..
        } = self;
        let settled = cancel_all(&server.handle, CLEAN_WITHIN).await;
        let clean = agents.stop(CLEAN_WITHIN).await;
        server.stop().await;
        place.leave();
        settled && clean
    }
}

/// Waits until all agents are connected. Returns an error if one gives up or they take too long.
async fn here(
    mut agents: Agents,
    server: &Server,
    options: &Options,
    place: &Place,
) -> Result<Agents, Error> {
    let many = usize::try_from(options.agents.max(1)).unwrap_or(usize::MAX);
    let why = tokio::select! {
        () = server.handle.registry.wait_for_agents(many) => return Ok(agents),
        () = agents.given_up() => "it ends right after its start",
        () = tokio::time::sleep(AGENTS_WITHIN) => "it doesn't connect",
    };
    agents.kill().await;
    if !options.agents_as_processes {
        return Err(Error::Start(why));
    }
    let log = place.directory().display().to_string();
    Err(Error::Process(format!(
        "{why}; its words are in {log}/agent-N.log"
    )))
}

fn client(channel: Channel) -> Client {
    Credential::default().client(channel)
}
