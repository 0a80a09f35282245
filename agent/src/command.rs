//! The command line of an agent, shared by `phalanx-agent` and `phalanx agent`.

use crate::access::Access;
use crate::enrolment::{self, Wish};
use crate::identity::Identity;
use crate::link::stay::Stay;
use crate::policy::Policy;
use crate::policy::load::{self, PolicyError, Said};
use crate::private;
use crate::runtime::docker::DockerSettings;
use crate::snapshot;
use crate::supervisor::{self, Agent, Options, StartError};
use futures::future::BoxFuture;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::language::quantity;
use phalanx_shared::policy::Rules;
use phalanx_shared::policy::rules::CLOSED;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Time limit for cleaning up when the agent stops.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Time that running attempts get to finish when a second signal cancels them.
const GRACE: Duration = Duration::from_secs(30);

/// Settings of an agent on the command line.
#[derive(clap::Args, Clone, Debug)]
pub struct AgentArgs {
    /// Directory for the agent's identity, spools and scratch files [default: `agent` in the state directory]
    #[arg(long, value_name = "DIR")]
    pub identity_dir: Option<PathBuf>,
    /// Display name [default: hostname]
    #[arg(long)]
    pub name: Option<String>,
    /// Add a label that cells can require with `runs-on`; repeatable
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Maximum concurrent cells [default: 4 per CPU, minimum 8]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// Run one cell and stop, as an ephemeral runner: the agent has one slot
    #[arg(long, conflicts_with = "slots")]
    pub once: bool,
    /// Stop after this time without a cell: 90s, 10m [default: stay]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub idle_exit: Option<Duration>,
    /// Factor by which CPU reservations may exceed the machine's CPUs [default: 8]
    #[arg(long)]
    pub cpu_overcommit: Option<f64>,
    /// Factor by which memory reservations may exceed the machine's memory [default: 1]
    #[arg(long)]
    pub memory_overcommit: Option<f64>,
    /// Policy file: what specs may do on this machine, over what /etc/phalanx/policy.toml says [default: only containers]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Allow more than the policy files do: a rule, a rule with items, or `all`; repeatable
    #[arg(long, value_name = "RULE[=ITEM,…]")]
    pub allow: Vec<String>,
    /// Refuse `run` steps and `process` services, whatever the policy files say
    #[arg(long)]
    pub no_host_commands: bool,
    /// Policy as JSON; a local run passes its own to its child this way
    #[arg(long, hide = true, value_parser = rules, conflicts_with_all = ["policy", "allow", "no_host_commands"])]
    pub rules: Option<Rules>,
    /// Directory for snapshots of services, which agents of one user may share [default: `snapshots` in the state directory]
    #[arg(long, value_name = "DIR")]
    pub snapshot_dir: Option<PathBuf>,
    /// Maximum size in MiB of all snapshots together; the least recently used are removed first; 0 for no limit [default: 20480]
    #[arg(long, value_name = "MIB")]
    pub snapshot_mib: Option<u64>,
    /// Days after which a snapshot that no cell has used is removed; 0 for never [default: 30]
    #[arg(long, value_name = "DAYS")]
    pub snapshot_days: Option<u64>,
    /// Token of `phalanx token create agent`, or @FILE with one, to get a certificate from a coordinator with TLS. Needed once:
    /// the certificate is kept in the identity's directory and renewed
    #[arg(
        long,
        value_name = "TOKEN|@FILE",
        env = "PHALANX_ENROL",
        hide_env_values = true
    )]
    pub enrol: Option<String>,
    /// Certificate of another PKI instead, as a PEM file with its chain; it names the agent: phalanx://CLUSTER/agent/ID
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "enrol")]
    pub certificate: Option<PathBuf>,
    /// Private key of --certificate, as a PEM file
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// What the coordinator is known by: a PEM file with its CA, or a fingerprint. `phalanx agent` takes it from the setting `ca`
    #[arg(skip)]
    pub ca: String,
    /// Stop when standard input is closed, because the parent process has ended then
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// Docker settings as JSON; a local run passes its `docker.*` settings to its child this way
    #[arg(long, hide = true, value_parser = docker_settings)]
    pub docker: Option<DockerSettings>,
}

fn docker_settings(text: &str) -> Result<DockerSettings, serde_json::Error> {
    serde_json::from_str(text)
}

fn time(text: &str) -> Result<Duration, &'static str> {
    quantity::duration(text).ok_or("not a time; write 90s or 10m")
}

fn rules(text: &str) -> Result<Rules, serde_json::Error> {
    serde_json::from_str(text)
}

impl AgentArgs {
    /// Returns the policy in force.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        if let Some(rules) = &self.rules {
            return Ok(Policy::of(rules.clone()));
        }
        let said = Said {
            file: self.policy.clone(),
            allow: self.allow.clone(),
            no_host_commands: self.no_host_commands,
        };
        Ok(Policy::of(load::rules(Rules::closed(CLOSED), &said)?))
    }

    fn wish(&self) -> Wish {
        Wish {
            token: self.enrol.clone(),
            files: self.certificate.clone().zip(self.key.clone()),
            ca: self.ca.clone(),
        }
    }

    fn options(
        &self,
        coordinator: &str,
        access: Option<Access>,
        policy: Policy,
        demo_server: Vec<String>,
        snapshots: PathBuf,
    ) -> Options {
        let bounds = snapshot::Bounds::of_settings(
            self.snapshot_mib.unwrap_or(snapshot::bounds::USUAL_MIB),
            self.snapshot_days.unwrap_or(snapshot::bounds::USUAL_DAYS),
        );
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let by_cpus = u32::try_from(cpus.saturating_mul(4)).unwrap_or(u32::MAX);
        Options {
            coordinator: coordinator.to_owned(),
            access,
            name: self.name.clone(),
            labels: self.labels.clone(),
            slots: match self.once {
                true => 1,
                false => self.slots.unwrap_or(by_cpus.max(8)),
            },
            cpu_overcommit: self.cpu_overcommit.unwrap_or(8.0),
            memory_overcommit: self.memory_overcommit.unwrap_or(1.0),
            policy,
            demo_server,
            docker: self.docker.clone().unwrap_or_default(),
            snapshots: Some(snapshot::Place {
                directory: snapshots,
                bounds,
            }),
            stay: Stay {
                attempts: self.once.then_some(1),
                idle: self.idle_exit,
            },
            // The parent, which holds this process's standard input, notices its death and restarts it.
            mourned: !self.with_parent,
        }
    }
}

/// Runs an agent of the coordinator at `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`. Returns when the coordinator has
/// drained the agent, when it has stayed for as long as it should, when a signal has ended it, or when its parent is gone.
///
/// `demo_server` is the program that answers `phalanx.demo_server`. On the first SIGINT or SIGTERM the agent accepts no
/// new cells and finishes the running ones; on the second it cancels them.
pub fn run<'a>(
    coordinator: &'a str,
    state_dir: &'a Path,
    args: AgentArgs,
    demo_server: Vec<String>,
) -> BoxFuture<'a, Result<ExitCode, StartError>> {
    Box::pin(run_agent(coordinator, state_dir, args, demo_server))
}

async fn run_agent(
    coordinator: &str,
    state_dir: &Path,
    args: AgentArgs,
    demo_server: Vec<String>,
) -> Result<ExitCode, StartError> {
    private::memory();
    // Before anything is made: an agent with a wrong policy doesn't start.
    let policy = args.policy()?;
    let own = args.identity_dir.clone();
    // The path must be absolute: services run in directories below it but are started from elsewhere.
    let place = std::path::absolute(own.unwrap_or_else(|| state_dir.join("agent")))?;
    enrolment::adopt(&args.wish(), &place)?;
    let identity = Identity::acquire_cleaned(&place).await?;
    let access = enrolment::access(coordinator, identity.agent(), &place, args.wish()).await?;
    // Install the handlers before anything is started that a signal would have to end.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let snapshots = args.snapshot_dir.clone();
    let snapshots = std::path::absolute(snapshots.unwrap_or_else(|| state_dir.join("snapshots")))?;
    let options = args.options(coordinator, access, policy, demo_server, snapshots);
    let agent = supervisor::start(identity, options).await?;
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

/// Waits until standard input is closed: the parent process holds it open while it lives.
///
/// A separate thread reads it, because tokio's reader would keep the runtime from shutting down.
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
