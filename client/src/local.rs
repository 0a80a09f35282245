//! Single-machine mode: a coordinator and its agents for one command, speaking the real protocol over a Unix socket.
//!
//! The only file (with `local/`) that knows the agent's crate. Each run has a directory of its own, so that several can go on at once;
//! the directories of all runs lie side by side and are listed together (`place.rs`). Agents run in this process or as its children
//! (`agents.rs`); whichever way, what dead ones left behind is cleaned up at the next start.

mod agents;
mod docker;
mod gc;
mod look;
mod place;

pub use docker::of_agents;
pub use gc::{Gc, gc};
pub use look::{Look, list, open};
pub use place::{Found, find};

use agents::Agents;
use phalanx_agent::identity::IdentityError;
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_agent::supervisor::StartError;
use phalanx_coordinator::api::cancel_all;
use phalanx_coordinator::dispatch::core::Settings as SessionSettings;
use phalanx_coordinator::journal::StoreError;
use phalanx_coordinator::server::{self, Server};
use phalanx_coordinator::supervisor::{Begin, OwnSecrets, Settings};
use phalanx_coordinator::trace::Tracer;
use phalanx_proto::limit::{CLIENT_ANSWER_BYTES, CLIENT_REQUEST_BYTES};
use phalanx_proto::v1::control_client::ControlClient;
use phalanx_shared::id::RunId;
use place::Place;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;

/// How long agents may take to connect.
const AGENTS_WITHIN: Duration = Duration::from_secs(30);
/// How long clean-up is waited for at the end.
const CLEAN_WITHIN: Duration = Duration::from_secs(90);

/// How a local run is made.
#[derive(Clone)]
pub struct Options {
    /// Where the directories of all runs and agents are.
    pub state_dir: PathBuf,
    /// Agents to start.
    pub agents: u32,
    /// Cells that each runs at once.
    pub slots: u32,
    /// Agents as child processes instead of tasks of this one.
    pub agents_as_processes: bool,
    /// How far reserved CPUs may exceed the machine's.
    pub cpu_overcommit: f64,
    /// How far reserved memory may exceed the machine's.
    pub memory_overcommit: f64,
    /// Whether `run` steps and `process` services are allowed.
    pub allow_host_commands: bool,
    /// Labels beside the machine's own.
    pub labels: Vec<String>,
    /// How containers are run; no networks are kept ready if the spec has none.
    pub docker: DockerSettings,
    /// For `always` steps after a cancel.
    pub cancel_grace: Duration,
    /// The most cells of a plan.
    pub max_cells: Option<usize>,
    /// Where the run is traced to, if it is.
    pub tracer: Option<Tracer>,
    /// The program that answers `demo-server`, `agent` and the agent's hidden commands; this one without it.
    pub program: Option<PathBuf>,
}

/// Why there is no local run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run's journal.
    #[error(transparent)]
    Journal(#[from] StoreError),
    /// A directory or the socket.
    #[error("can't use {}: {error}", .path.display())]
    Place {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// An agent.
    #[error("can't start an agent: {0}")]
    Agent(#[from] StartError),
    /// An agent's identity.
    #[error("can't start an agent: {0}")]
    Identity(#[from] IdentityError),
    /// An agent in this process.
    #[error("can't start an agent: {0}")]
    Start(&'static str),
    /// An agent's process.
    #[error("can't start an agent as a process: {0}")]
    Process(String),
    /// The own coordinator doesn't answer.
    #[error("the local coordinator doesn't answer: {0}")]
    Connect(String),
    /// Containers or images.
    #[error("can't clean up in the engine: {0}")]
    Engine(String),
    /// No such run.
    #[error("there is no local run {0}")]
    NoSuchRun(String),
    /// It is still going on.
    #[error("run {run} is still going on, in another `phalanx`")]
    Live {
        /// Which.
        run: RunId,
    },
}

/// A coordinator of this command's own, and its agents.
pub struct LocalRun {
    client: ControlClient<Channel>,
    run: RunId,
    place: Place,
    server: Server,
    agents: Agents,
}

impl LocalRun {
    /// Starts everything for a new run; the first one that is submitted gets the id [`LocalRun::run`].
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

    /// Goes on with a run that was killed: finished cells aren't repeated.
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

    /// Starts everything in the directory of an earlier run, without going on with it: for running cells of it again.
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
        let own_secrets: OwnSecrets = Arc::new(|_| None);
        let server_options = server::Options {
            settings: Settings {
                // Agents of a local run die with it: nobody will come back.
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
        // The journal's lock first: whoever has it owns the socket's path, too.
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

    /// Speaks to the coordinator; cheap to have many of.
    pub fn client(&self) -> ControlClient<Channel> {
        self.client.clone()
    }

    /// The run: the first one submitted, or the one that goes on.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The run's own directory: journal, logs, workspaces.
    pub fn directory(&self) -> &std::path::Path {
        self.place.directory()
    }

    /// Ends at once, as if this process had been killed: nothing is said or cleaned up. For tests, and for a second Ctrl-C.
    pub async fn kill(self) {
        let LocalRun { server, agents, .. } = self;
        // The coordinator first, so that it journals nothing of the agents' end.
        server.stop().await;
        agents.kill().await;
    }

    /// Ends everything. Runs that aren't over are cancelled; clean-up is waited for, within a bound. Returns whether all of it was seen.
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

/// Waits until all agents are connected, or the first one can't be.
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

fn client(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel)
        .max_decoding_message_size(CLIENT_ANSWER_BYTES)
        .max_encoding_message_size(CLIENT_REQUEST_BYTES)
}
