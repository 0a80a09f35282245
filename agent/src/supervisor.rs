//! The agent's root: acquires an identity, opens the runtimes, cleans up after its predecessor, connects and runs
//! cells.
//!
//! Everything is wired here. [`Agent::leave`] shuts down gracefully (no new cells, running ones finish);
//! [`Agent::stop`] shuts down quickly.

use crate::access::Access;
use crate::ahead::Preparing;
use crate::cell;
use crate::cell_contract::{Assignment, Host};
use crate::clock::{Clock, SystemClock};
use crate::enrolment::{self, EnrolError};
use crate::identity::{Identity, IdentityError};
use crate::images::Images;
use crate::keeper;
use crate::kept_snapshots::{self, Recount};
use crate::link::actor::{self as link, Handle};
use crate::link::core::About;
use crate::link::stay::Stay;
use crate::link::{CellSpawner, Coordinator, InvalidAddress};
use crate::machine;
use crate::mourner::{self, Mourner};
use crate::policy::load::PolicyError;
use crate::policy::{Guard, InForce, Policy};
use crate::reaper::{self, ENGINE_WITHIN, MAY_RETURN};
use crate::roll::{Note, Roll};
use crate::runtime::contract::Runtime;
use crate::runtime::docker::{DockerRuntime, DockerSettings};
use crate::runtime::process::ProcessRuntime;
use crate::snapshot::janitor::Janitor;
use crate::snapshot::{self, Store};
use futures::future::BoxFuture;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::plan::Resources;
use phalanx_shared::policy::{Need, Rules};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Interval between two searches for objects that no live attempt claims.
const REAP_EVERY: Duration = Duration::from_secs(60);
/// How long removing snapshots may take when the agent ends. The next start does the rest.
const TIDY_WITHIN: Duration = Duration::from_secs(10);
/// Label of agents with a container engine.
const DOCKER: &str = "docker";

/// Settings of an agent, decided by its operator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Coordinator address: `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`.
    pub coordinator: String,
    /// The agent's certificate, for a coordinator with TLS.
    pub access: Option<Access>,
    /// Display name; the hostname if `None`.
    pub name: Option<String>,
    /// Labels in addition to the machine's own.
    pub labels: Vec<String>,
    /// Maximum number of concurrent attempts.
    pub slots: u32,
    /// Factor by which CPU reservations may exceed the machine's CPUs.
    pub cpu_overcommit: f64,
    /// Factor by which memory reservations may exceed the machine's memory.
    pub memory_overcommit: f64,
    /// What specs may do on this host.
    pub policy: Policy,
    /// Command of the demo server.
    pub demo_server: Vec<String>,
    /// Settings for running containers.
    pub docker: DockerSettings,
    /// Where snapshots of stacks are kept. `None` for an agent that keeps none.
    pub snapshots: Option<snapshot::Place>,
    /// How long the agent stays.
    pub stay: Stay,
    /// Whether to start a [`Mourner`], which tells the coordinator when this process dies.
    pub mourned: bool,
}

/// Reasons why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The identity can't be acquired.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The coordinator's address is invalid.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// The agent gets no certificate.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The spools can't be opened.
    #[error("can't use the state directory: {0}")]
    Spool(#[from] std::io::Error),
    /// The agent could run neither containers nor host commands.
    #[error("this agent could run nothing: {0}, and {1}")]
    Useless(String, String),
    /// The policy can't be read.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The runtimes of one identity.
#[derive(Clone)]
struct Runtimes {
    processes: Arc<dyn Runtime>,
    containers: Result<Arc<dyn Runtime>, String>,
    docker: Option<Arc<DockerRuntime>>,
    images: Option<Arc<Images>>,
    subnets: u32,
}

impl Runtimes {
    async fn open(identity: &Identity, docker: &DockerSettings, clock: Arc<dyn Clock>) -> Self {
        let agent = identity.agent().clone();
        let processes = ProcessRuntime::new(agent.clone(), identity.state_dir(), clock);
        let settings = DockerSettings {
            agent,
            home: identity.home(),
            ..docker.clone()
        };
        // The note must precede the first object, and networks are prepared as soon as the engine is connected.
        let noted = reaper::may_have_used_engine(identity.state_dir());
        reaper::note_engine(identity.state_dir());
        let connect = DockerRuntime::connect(settings);
        let connected = tokio::time::timeout(ENGINE_WITHIN, connect).await;
        let connected = match connected {
            Ok(connected) => connected.map_err(|unusable| unusable.to_string()),
            Err(_) => {
                let within = ENGINE_WITHIN.as_secs();
                Err(format!("no container engine answered within {within}s"))
            }
        };
        if connected.is_err() && !noted {
            reaper::forget_engine(identity.state_dir());
        }
        // Without an engine a cell with networks must come here and be refused with the reason, not wait for subnets.
        let subnets = connected
            .as_ref()
            .map_or(u32::MAX, |docker| docker.network_capacity());
        Runtimes {
            processes: Arc::new(processes),
            docker: connected.as_ref().ok().cloned(),
            images: connected
                .as_ref()
                .ok()
                .map(|docker| Images::of(docker.clone())),
            containers: connected.map(|docker| docker as Arc<dyn Runtime>),
            subnets,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        std::iter::once(&self.processes).chain(self.containers.iter())
    }

    /// Removes every object that no live attempt claims.
    async fn reap(&self, live: &HashSet<phalanx_shared::id::Token>) {
        for runtime in self.all() {
            let kind = runtime.kind();
            match runtime.reap(live).await {
                Ok(closed) if closed.removed > 0 || !closed.left.is_empty() => {
                    let (removed, left) = (closed.removed, closed.left);
                    tracing::info!(kind, removed, ?left, "cleaned up what was left behind");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(kind, %error, "can't look for what was left behind"),
            }
        }
    }

    async fn shutdown(&self) {
        for runtime in self.all() {
            runtime.shutdown().await;
        }
    }
}

/// Spawns real cells.
struct Cells {
    host: Host,
    policy: Arc<InForce>,
    docker: DockerSettings,
    keeper: Arc<Once>,
    running: TaskTracker,
}

impl CellSpawner for Cells {
    fn spawn(&self, assignment: Assignment) {
        let host = Host {
            guard: self.policy.guard(),
            ..self.host.clone()
        };
        let cell = cell::spawn(host, assignment);
        let state_dir = self.host.state_dir.clone();
        let (docker, keeper) = (self.docker.clone(), self.keeper.clone());
        self.running.spawn(async move {
            cell.join().await;
            if keeper::noted(&state_dir).is_some() {
                keeper.call_once(|| start_keeper(&state_dir, &docker));
            }
        });
    }

    fn narrow(&self, rules: Option<Rules>) {
        self.policy.narrow(rules);
    }
}

/// Starts the keeper, which removes expired objects after this agent has ended. Until then the agent removes them
/// itself.
fn start_keeper(state_dir: &Path, docker: &DockerSettings) {
    if let Err(error) = keeper::start(state_dir, docker) {
        tracing::warn!(%error, "what is kept will be removed by the next start only");
    }
}

/// A running agent.
pub struct Agent {
    link: Handle,
    runtimes: Runtimes,
    cells: TaskTracker,
    reaper: tokio::task::JoinHandle<()>,
    /// Renews the agent's certificate; `None` without TLS.
    renewing: Option<tokio::task::JoinHandle<()>>,
    /// Prepares images ahead; `None` if there is no engine.
    preparing: Option<tokio::task::JoinHandle<()>>,
    /// Keeps the snapshots within their bounds; `None` if the agent keeps none.
    janitor: Option<Janitor>,
    /// Reports the snapshots that are kept; `None` if none are.
    recount: Option<tokio::task::JoinHandle<()>>,
    /// Whether an earlier process of this identity used an engine.
    inherited: bool,
    /// This process's note in the register, read by other agents.
    note: Option<Note>,
    // Holds one end of the pipe, which closes when this process ends.
    _mourner: Option<Mourner>,
    // Holds the lock while any part of the agent runs.
    identity: Arc<Identity>,
}

/// Starts an agent under an identity. The agent connects, and reconnects, in the background.
pub fn start(
    identity: Identity,
    options: Options,
) -> BoxFuture<'static, Result<Agent, StartError>> {
    Box::pin(start_agent(identity, options))
}

async fn start_agent(identity: Identity, options: Options) -> Result<Agent, StartError> {
    let coordinator = Coordinator::at(&options.coordinator, options.access.clone())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let inherited = reaper::may_have_used_engine(identity.state_dir());
    reaper::in_use(identity.state_dir());
    // Before the agent creates anything that it could leave behind.
    let roll = Roll::here();
    let note = roll.as_ref().and_then(|roll| roll.sign_on(&identity));
    let runtimes = Runtimes::open(&identity, &options.docker, clock.clone()).await;
    let refused = options.policy.refuses(&Need::run());
    if let (Err(reason), Some(refusal)) = (&runtimes.containers, refused) {
        return Err(StartError::Useless(refusal.to_string(), reason.clone()));
    }
    // Before the first attempt: objects of the predecessor may occupy resources that an attempt needs.
    runtimes.reap(&HashSet::new()).await;
    if let Some(roll) = &roll {
        roll.forget_earlier(identity.agent());
    }
    if keeper::noted(identity.state_dir()).is_some_and(|until| until < clock.wall()) {
        keeper::forget(identity.state_dir());
    }
    let store = snapshots(&options, &runtimes).await;
    let janitor = store.clone().zip(runtimes.docker.clone());
    let janitor = janitor.map(|(store, engine)| Janitor::start(engine, store, clock.clone()));
    let images = runtimes.images.clone();
    let mut about = about(&identity, &options, &runtimes);
    if let Some(images) = &images {
        about.images = images.held().await;
    }
    if let Some(store) = &store {
        about.snapshots = Some(kept_snapshots::told(store.clone(), clock.wall()).await);
    }
    let recount = store.clone().zip(runtimes.docker.clone());
    let (remover, recount) = recount
        .map(|(store, engine)| Recount::new(store, engine, clock.clone()))
        .unzip();
    let identity = Arc::new(identity);
    let running = TaskTracker::new();
    let guard = Arc::new(Guard::new(
        Arc::new(options.policy.clone()),
        &options.coordinator,
    ));
    let in_force = Arc::new(InForce::new(Arc::clone(&guard)));
    let cells = Cells {
        policy: Arc::clone(&in_force),
        host: Host {
            agent: identity.agent().clone(),
            state_dir: identity.state_dir().to_owned(),
            processes: runtimes.processes.clone(),
            containers: runtimes.containers.clone(),
            clock: clock.clone(),
            guard,
            snapshots: store,
            demo_server: options.demo_server.clone(),
        },
        docker: options.docker.clone(),
        keeper: Arc::new(Once::new()),
        running: running.clone(),
    };
    let mourner = options.mourned.then(|| {
        let of = mourner::Of::this_process(
            &options.coordinator,
            options.access.clone(),
            identity.agent(),
        );
        Mourner::start(of)
    });
    // Without a mourner the coordinator notices a death later, when the lease expires.
    let mourner = mourner.and_then(|started| {
        started
            .inspect_err(|error| tracing::warn!(%error, "the coordinator will learn of this agent's death only when its lease ends"))
            .ok()
    });
    let instance = match &mourner {
        Some(mourner) => mourner.instance().to_owned(),
        // The instance id still distinguishes this process from others with the same identity.
        None => uuid::Uuid::now_v7().to_string(),
    };
    let engine = runtimes.docker.clone();
    let (ahead, preparing) = engine
        .map(|engine| {
            let scratch = identity.state_dir().join("ahead");
            Preparing::new(engine, in_force, scratch, options.docker.prefetch)
        })
        .unzip();
    let link = link::start(link::Args {
        about,
        instance,
        coordinator,
        state_dir: identity.state_dir().to_owned(),
        cells: Arc::new(cells),
        images: ahead.map(|ahead| Arc::new(ahead) as _),
        snapshots: remover.map(|remover| Arc::new(remover) as _),
        clock,
        events: Default::default(),
        logs: Default::default(),
        stay: options.stay,
    })
    .await?;
    let preparing = preparing.map(|preparing| tokio::spawn(preparing.run(link.clone())));
    let recount = recount.map(|recount| tokio::spawn(recount.run(link.clone())));
    let reaper = reap_now_and_then(link.clone(), runtimes.clone(), options.docker.clone());
    let reaper = tokio::spawn(reaper);
    let renewing = options.access.map(|access| {
        let agent = identity.agent().clone();
        tokio::spawn(enrolment::keep_renewed(options.coordinator, agent, access))
    });
    Ok(Agent {
        link,
        runtimes,
        cells: running,
        reaper,
        renewing,
        preparing,
        janitor,
        recount,
        inherited,
        note,
        _mourner: mourner,
        identity,
    })
}

/// Opens the store of snapshots. An agent without one runs all steps.
async fn snapshots(options: &Options, runtimes: &Runtimes) -> Option<Store> {
    runtimes.docker.as_ref()?;
    let snapshot::Place { directory, bounds } = options.snapshots.clone()?;
    let place = directory.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&place));
    match opened
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    {
        Ok(store) => Some(store.within(bounds)),
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "no snapshots are kept");
            None
        }
    }
}

fn about(identity: &Identity, options: &Options, runtimes: &Runtimes) -> About {
    let mut labels: BTreeSet<String> = machine::labels().into_iter().collect();
    labels.extend(options.labels.iter().cloned());
    if runtimes.containers.is_ok() {
        labels.insert(DOCKER.to_owned());
    }
    About {
        agent: identity.agent().clone(),
        name: options.name.clone().unwrap_or_else(machine::name),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: labels.into_iter().collect(),
        slots: options.slots,
        resources: overcommitted(machine::resources(), options, runtimes.subnets),
        images: Vec::new(),
        policy: Some(options.policy.own().clone()),
        ahead: match runtimes.docker {
            Some(_) => options.docker.prefetch,
            None => 0,
        },
        snapshots: None,
    }
}

fn overcommitted(machine: Resources, options: &Options, subnets: u32) -> Resources {
    Resources {
        millicpus: scaled(machine.millicpus, options.cpu_overcommit),
        memory_bytes: scaled(machine.memory_bytes, options.memory_overcommit),
        subnets,
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // Capacities; the cast saturates.
fn scaled(amount: u64, factor: f64) -> u64 {
    (amount as f64 * factor.max(0.0)) as u64
}

async fn reap_now_and_then(link: Handle, runtimes: Runtimes, docker: DockerSettings) {
    loop {
        let engine = runtimes.docker.as_deref();
        if reaper::reap_abandoned(engine, &docker).await {
            tokio::time::sleep(MAY_RETURN).await;
            reaper::reap_abandoned(engine, &docker).await;
        }
        tokio::time::sleep(REAP_EVERY).await;
        let live = link.live().await.into_iter().collect();
        runtimes.reap(&live).await;
        if let Some(images) = &runtimes.images {
            link.holds_images(images.held().await).await;
        }
    }
}

impl Agent {
    /// Shuts down gracefully: accepts no new cells, finishes the running ones, delivers all events, and disconnects.
    pub fn leave(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.link.drain().await;
            self.link.left().await;
            self.close(true).await;
        })
    }

    /// Accepts no new cells from now on.
    pub fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.link.drain())
    }

    /// Waits until the agent has left because it was drained.
    pub fn left(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.link.left())
    }

    /// Cancels every attempt. Their events are still delivered until they end.
    pub fn cancel(&self, order: CancelOrder) -> BoxFuture<'_, ()> {
        Box::pin(self.link.cancel_all(order))
    }

    /// Shuts down quickly: cancels all attempts, skips their `always` steps and cleans up within the limit. Returns
    /// whether the clean-up was complete.
    pub fn stop(self, within: Duration) -> BoxFuture<'static, bool> {
        Box::pin(async move {
            self.link.stop().await;
            self.cells.close();
            let clean = tokio::time::timeout(within, self.cells.wait())
                .await
                .is_ok();
            self.close(clean).await;
            clean
        })
    }

    async fn close(self, clean: bool) {
        self.reaper.abort();
        match self.janitor {
            Some(janitor) if clean => janitor.finish(TIDY_WITHIN).await,
            Some(janitor) => janitor.abort(),
            None => {}
        }
        if let Some(renewing) = &self.renewing {
            renewing.abort();
        }
        if let Some(preparing) = &self.preparing {
            preparing.abort();
        }
        if let Some(recount) = &self.recount {
            recount.abort();
        }
        if self.inherited {
            // The engine may have executed a killed predecessor's last request after this agent started.
            let live = HashSet::new();
            let reap = self.runtimes.reap(&live);
            let _ = tokio::time::timeout(ENGINE_WITHIN, reap).await;
        }
        self.runtimes.shutdown().await;
        // Kept objects outlive this process, and possibly the keeper.
        let kept = keeper::noted(self.identity.state_dir()).is_some();
        if let Some(note) = self.note.filter(|_| clean && !kept) {
            note.sign_off();
        }
    }
}
