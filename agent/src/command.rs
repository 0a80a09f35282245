//! The command line of an agent: `phalanx-agent` and `phalanx agent` are the same.

use crate::cell_contract::CancelOrder;
use crate::identity::Identity;
use crate::private;
use crate::runtime::docker::DockerSettings;
use crate::supervisor::{self, Agent, Options, StartError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// How long a stopping agent cleans up.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// What attempts have left of their time when the agent is told to end.
const GRACE: Duration = Duration::from_secs(30);

/// What an operator says of an agent.
#[derive(clap::Args, Clone, Debug)]
pub struct AgentArgs {
    /// The agent's own directory (identity, spools, scratch) instead of `agent` in the state directory
    #[arg(long, value_name = "DIR")]
    pub identity_dir: Option<PathBuf>,
    /// Its name for people; the host's name without one
    #[arg(long)]
    pub name: Option<String>,
    /// A label that cells may ask for by `runs-on`
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Cells at once; four for each CPU without one, at least eight
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// How far reserved CPUs may exceed the machine's; 8 without one
    #[arg(long)]
    pub cpu_overcommit: Option<f64>,
    /// How far reserved memory may exceed the machine's; 1 without one
    #[arg(long)]
    pub memory_overcommit: Option<f64>,
    /// Refuse `run` steps and `process` services
    #[arg(long)]
    pub no_host_commands: bool,
    /// End when standard input does: whoever started this agent is gone then
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// How containers are run, as JSON: a local run's `docker.*` settings for its child
    #[arg(long, hide = true, value_parser = docker_settings)]
    pub docker: Option<DockerSettings>,
}

fn docker_settings(text: &str) -> Result<DockerSettings, serde_json::Error> {
    serde_json::from_str(text)
}

impl AgentArgs {
    fn options(&self, coordinator: &str, demo_server: Vec<String>) -> Options {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let by_cpus = u32::try_from(cpus.saturating_mul(4)).unwrap_or(u32::MAX);
        Options {
            coordinator: coordinator.to_owned(),
            name: self.name.clone(),
            labels: self.labels.clone(),
            slots: self.slots.unwrap_or(by_cpus.max(8)),
            cpu_overcommit: self.cpu_overcommit.unwrap_or(8.0),
            memory_overcommit: self.memory_overcommit.unwrap_or(1.0),
            allow_host_commands: !self.no_host_commands,
            demo_server,
            docker: self.docker.clone().unwrap_or_default(),
            // Whoever holds our standard input sees our end, and starts us again.
            mourned: !self.with_parent,
        }
    }
}

/// Runs an agent of a coordinator (`http://HOST:PORT`, `unix:PATH`) until it is sent away (drained by its coordinator), told to end, or its parent is gone.
///
/// `demo_server` is the program that answers `phalanx.demo_server`. The first SIGINT or SIGTERM lets it finish what it has; the second ends its cells.
pub async fn run(
    coordinator: &str,
    state_dir: &Path,
    args: AgentArgs,
    demo_server: Vec<String>,
) -> Result<ExitCode, StartError> {
    private::memory();
    let own = args.identity_dir.clone();
    // Processes of services run in directories below it, and are started from elsewhere.
    let place = std::path::absolute(own.unwrap_or_else(|| state_dir.join("agent")))?;
    let identity = Identity::acquire_cleaned(&place).await?;
    // Before anything is started that would have to be ended.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let agent = supervisor::start(identity, args.options(coordinator, demo_server)).await?;
    tracing::info!(coordinator, "the agent runs");
    let orphaned = parent_is_gone(args.with_parent);
    tokio::pin!(orphaned);
    tokio::select! {
        () = agent.left() => {
            agent.leave().await;
            return Ok(ExitCode::SUCCESS);
        }
        () = &mut orphaned => return Ok(stop(agent).await),
        () = either(&mut interrupt, &mut terminate) => {}
    }
    tracing::info!("finishing what runs; once more ends it");
    let order = CancelOrder {
        grace: GRACE,
        reason: "the agent is stopped".to_owned(),
        force: false,
    };
    tokio::select! {
        () = drain(&agent) => {
            agent.leave().await;
            Ok(ExitCode::SUCCESS)
        }
        () = &mut orphaned => Ok(stop(agent).await),
        () = either(&mut interrupt, &mut terminate) => {
            agent.cancel(order).await;
            Ok(stop(agent).await)
        }
    }
}

async fn drain(agent: &Agent) {
    agent.drain().await;
    agent.left().await;
}

async fn stop(agent: Agent) -> ExitCode {
    if agent.stop(STOP_WITHIN).await {
        return ExitCode::SUCCESS;
    }
    tracing::error!(
        "not everything could be cleaned up in time: the next start of this agent will"
    );
    ExitCode::FAILURE
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Whoever started this agent holds its standard input open while it lives.
///
/// Read by a thread of its own: tokio's would keep the runtime from ending.
async fn parent_is_gone(watched: bool) {
    if !watched {
        return std::future::pending().await;
    }
    let (gone, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        let _ = gone.send(());
    });
    let _ = told.await;
}
