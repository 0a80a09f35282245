//! The agent's root: takes an identity, opens the runtimes, cleans up what its predecessor left, connects, runs cells.
//!
//! Everything is wired here, last to first. [`Agent::leave`] is the gentle end (nothing new, finish, go), [`Agent::stop`] the quick one.

use crate::cell;
use crate::cell_contract::{Assignment, CancelOrder, Host};
use crate::clock::{Clock, SystemClock};
use crate::identity::{self, Home, Identity, IdentityError};
use crate::images::{Ahead, Images};
use crate::keeper;
use crate::link::actor::{self as link, Handle};
use crate::link::core::About;
use crate::link::{CellSpawner, Coordinator, InvalidAddress};
use crate::machine;
use crate::mourner::{self, Mourner};
use crate::private;
use crate::roll::{Gone, Note, Roll};
use crate::runtime::contract::Runtime;
use crate::runtime::docker::{DockerRuntime, DockerSettings, Found, doomed};
use crate::runtime::process::{KeptNotes, ProcessRuntime};
use phalanx_shared::id::AgentId;
use phalanx_shared::plan::Resources;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How often what no live attempt claims is looked for.
const REAP_EVERY: Duration = Duration::from_secs(60);
/// So long an agent that ended may come back and clean up itself, before another one does it.
const MAY_RETURN: Duration = Duration::from_secs(10);
/// An engine that doesn't answer by then is taken for none.
const ENGINE_WITHIN: Duration = Duration::from_secs(5);
/// A file in the state directory: containers of this identity may exist.
const ENGINE_USED: &str = "engine-used";
/// A file in a dead identity's state directory, made when nothing of it was found for the first time.
const SEEN_EMPTY: &str = "seen-empty";
/// An engine may still be at what a killed agent asked of it last: an identity is given up only if nothing is found so much later.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// The label of an agent with a container engine.
const DOCKER: &str = "docker";

/// What an operator decides about an agent.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://HOST:PORT` or `unix:PATH`.
    pub coordinator: String,
    /// For people; the host's name without one.
    pub name: Option<String>,
    /// Labels beside the machine's own.
    pub labels: Vec<String>,
    /// Attempts at once.
    pub slots: u32,
    /// How far reservations of CPUs may exceed the machine's.
    pub cpu_overcommit: f64,
    /// How far reservations of memory may exceed the machine's.
    pub memory_overcommit: f64,
    /// Whether `run` steps and `process` services are allowed.
    pub allow_host_commands: bool,
    /// The program that answers `demo-server`.
    pub demo_server: Vec<String>,
    /// How containers are run.
    pub docker: DockerSettings,
    /// Whether a child is left behind that tells the coordinator when this process dies.
    pub mourned: bool,
}

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The coordinator's address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// The spools.
    #[error("can't use the state directory: {0}")]
    Spool(#[from] std::io::Error),
    /// Neither containers nor host commands.
    #[error("this agent could run nothing: host commands aren't allowed and {0}")]
    Useless(String),
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
        // Before the first object: networks are made ready from the first moment on. A note too many costs a directory that is
        // looked through once more.
        let note = identity.state_dir().join(ENGINE_USED);
        let noted = note.exists();
        let _ = private::write(&note, "");
        let connect = DockerRuntime::connect(settings);
        let connected = tokio::time::timeout(ENGINE_WITHIN, connect).await;
        let connected = connected.unwrap_or_else(|_| {
            let within = ENGINE_WITHIN.as_secs();
            Err(format!("no container engine answered within {within}s"))
        });
        if connected.is_err() && !noted {
            let _ = std::fs::remove_file(&note);
        }
        let subnets = connected
            .as_ref()
            .map_or(0, |docker| docker.network_capacity());
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

    /// Removes what no live attempt claims.
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

    /// Cleans up after agents of this machine that nobody is any more and that may never return. Whether one of them may still return.
    async fn reap_abandoned(&self, settings: &DockerSettings) -> bool {
        let found = match &self.docker {
            None => Vec::new(),
            Some(docker) => docker.list_ours(true).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "can't look for what others left behind");
                Vec::new()
            }),
        };
        let mut may_return = false;
        if let Some(roll) = Roll::here() {
            for gone in roll.gone() {
                may_return |= self.reap_gone(&roll, &gone, &found, settings).await;
            }
        }
        let homes: HashSet<(AgentId, String)> = found
            .iter()
            .filter_map(|object| Some((AgentId::from(object.agent()?), object.home()?.to_label())))
            .collect();
        for (agent, home) in homes {
            // Our own is held, by us.
            let abandoned =
                Home::from_label(&home).and_then(|home| identity::take_abandoned(&home, &agent));
            let Some(abandoned) = abandoned else { continue };
            let reaped = reap_dead(&abandoned, settings).await;
            if reaped.removed > 0 {
                let removed = reaped.removed;
                tracing::info!(%agent, removed, "cleaned up after an agent that is gone");
            }
        }
        may_return
    }

    /// Cleans up after an agent that no process is any more, whether its directory is still there or not. Whether it may still return, and it was
    /// left to that.
    async fn reap_gone(
        &self,
        roll: &Roll,
        gone: &Gone,
        found: &[Found],
        settings: &DockerSettings,
    ) -> bool {
        let clock = SystemClock::default();
        let agent = &gone.agent;
        if gone
            .empty_for(&clock)
            .is_some_and(|since| since < SETTLED_AFTER)
        {
            return false;
        }
        let removed = |home: &Home| identity::is_removed(home, agent);
        let (removed, over) = if gone.homes.iter().all(removed) {
            // Somebody may be it by now, in another directory.
            let (Some(home), true) = (gone.homes.first(), roll.is_gone(agent)) else {
                return false;
            };
            self.reap_removed(agent, home, gone, found).await
        } else if gone.seen_for(&clock) < MAY_RETURN {
            return true;
        } else {
            let take = |home: &Home| identity::take_abandoned(home, agent);
            let Some(identity) = gone.homes.iter().find_map(take) else {
                return false;
            };
            let reaped = reap_dead(&identity, settings).await;
            (reaped.removed, reaped.is_over())
        };
        if removed > 0 {
            tracing::info!(%agent, removed, "cleaned up after an agent that is gone");
        }
        if over {
            gone.was_empty(&clock, SETTLED_AFTER);
        }
        false
    }

    /// What is left of an agent without a directory: how many objects were removed, and whether nothing was there.
    async fn reap_removed(
        &self,
        agent: &AgentId,
        home: &Home,
        gone: &Gone,
        found: &[Found],
    ) -> (u32, bool) {
        let clock = SystemClock::default();
        let directory = home.lock.parent().unwrap_or(&home.lock);
        let processes = ProcessRuntime::new(agent.clone(), directory, Arc::new(clock.clone()));
        let mut closed = processes.reap(&HashSet::new()).await.unwrap_or_default();
        let theirs = |object: &&Found| {
            object.agent() == Some(agent.as_str())
                && object.home().is_some_and(|home| gone.homes.contains(&home))
        };
        let objects: Vec<Found> = found.iter().filter(theirs).cloned().collect();
        let all = objects.len();
        let now_s = u64::try_from(clock.wall().0 / 1_000_000).unwrap_or_default();
        let doomed = doomed(objects, now_s, &|_| false, &|_| false);
        let kept = all > doomed.len();
        if let Some(docker) = &self.docker
            && !doomed.is_empty()
        {
            let engine = docker.remove(&doomed).await;
            closed.removed += engine.removed;
            closed.left.extend(engine.left);
        }
        let over = closed.removed == 0 && closed.left.is_empty() && !kept;
        (closed.removed, over)
    }

    async fn shutdown(&self) {
        for runtime in self.all() {
            runtime.shutdown().await;
        }
    }
}

/// Runs real cells.
struct Cells {
    host: Host,
    docker: DockerSettings,
    keeper: Arc<Once>,
    running: TaskTracker,
}

impl CellSpawner for Cells {
    fn spawn(&self, assignment: Assignment) {
        let cell = cell::spawn(self.host.clone(), assignment);
        let state_dir = self.host.state_dir.clone();
        let (docker, keeper) = (self.docker.clone(), self.keeper.clone());
        self.running.spawn(async move {
            cell.join().await;
            if keeper::noted(&state_dir).is_some() {
                keeper.call_once(|| start_keeper(&state_dir, &docker));
            }
        });
    }
}

/// This agent removes what expires while it lives; the keeper does afterwards.
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
    /// Whether the identity had an agent with an engine before.
    inherited: bool,
    /// What others know of this agent.
    note: Option<Note>,
    // Its end of the pipe closes when this process ends.
    _mourner: Option<Mourner>,
    // The lock is held as long as anything of the agent runs.
    identity: Arc<Identity>,
}

/// Starts an agent under an identity. It connects, and goes on trying, on its own.
pub async fn start(identity: Identity, options: Options) -> Result<Agent, StartError> {
    let coordinator = Coordinator::at(&options.coordinator)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let inherited = identity.state_dir().join(ENGINE_USED).exists();
    let _ = std::fs::remove_file(identity.state_dir().join(SEEN_EMPTY));
    // Before anything is made that could be left behind.
    let roll = Roll::here();
    let note = roll.as_ref().and_then(|roll| roll.sign_on(&identity));
    let runtimes = Runtimes::open(&identity, &options.docker, clock.clone()).await;
    if let (Err(reason), false) = (&runtimes.containers, options.allow_host_commands) {
        return Err(StartError::Useless(reason.clone()));
    }
    // Before the first attempt: what a predecessor left may hold what this one needs.
    runtimes.reap(&HashSet::new()).await;
    if let Some(roll) = &roll {
        roll.forget_earlier(identity.agent());
    }
    if keeper::noted(identity.state_dir()).is_some_and(|until| until < clock.wall()) {
        keeper::forget(identity.state_dir());
    }
    let images = runtimes.images.clone();
    let mut about = about(&identity, &options, &runtimes);
    if let Some(images) = &images {
        about.images = images.held().await;
    }
    let identity = Arc::new(identity);
    let running = TaskTracker::new();
    let cells = Cells {
        host: Host {
            agent: identity.agent().clone(),
            state_dir: identity.state_dir().to_owned(),
            processes: runtimes.processes.clone(),
            containers: runtimes.containers.clone(),
            clock: clock.clone(),
            allow_host_commands: options.allow_host_commands,
            demo_server: options.demo_server.clone(),
        },
        docker: options.docker.clone(),
        keeper: Arc::new(Once::new()),
        running: running.clone(),
    };
    let mourner = options.mourned.then(|| {
        let of = mourner::Of::this_process(&options.coordinator, identity.agent());
        Mourner::start(of)
    });
    // Without one a death is noticed later, at the end of the lease.
    let mourner = mourner.and_then(|started| {
        started
            .inspect_err(|error| tracing::warn!(%error, "nobody will tell of this agent's death"))
            .ok()
    });
    let instance = match &mourner {
        Some(mourner) => mourner.instance().to_owned(),
        // Nobody tells of its death, but it is told from another process with the same identity.
        None => uuid::Uuid::now_v7().to_string(),
    };
    let link = link::start(link::Args {
        about,
        instance,
        coordinator,
        state_dir: identity.state_dir().to_owned(),
        cells: Arc::new(cells),
        images: images.clone().map(|images| Arc::new(Ahead(images)) as _),
        clock,
        events: Default::default(),
        logs: Default::default(),
    })
    .await?;
    if let Some(images) = &images {
        images.tell(link.clone());
    }
    let reaper = reap_now_and_then(link.clone(), runtimes.clone(), options.docker.clone());
    let reaper = tokio::spawn(reaper);
    Ok(Agent {
        link,
        runtimes,
        cells: running,
        reaper,
        inherited,
        note,
        _mourner: mourner,
        identity,
    })
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
        if runtimes.reap_abandoned(&docker).await {
            tokio::time::sleep(MAY_RETURN).await;
            runtimes.reap_abandoned(&docker).await;
        }
        tokio::time::sleep(REAP_EVERY).await;
        let live = link.live().await.into_iter().collect();
        runtimes.reap(&live).await;
        if let Some(images) = &runtimes.images {
            link.holds_images(images.held().await).await;
        }
    }
}

/// What became of a dead identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Objects removed.
    pub removed: u32,
    /// Whether something is there yet: kept, or out of reach.
    pub left: bool,
    /// Whether nothing can come any more of what its agent asked for last.
    pub settled: bool,
}

impl Reaped {
    /// Whether the identity can be given up.
    pub fn is_over(&self) -> bool {
        !self.left && self.settled
    }
}

/// Cleans up after an identity that nobody held any more; kept stacks stay until their time.
pub async fn reap_dead(identity: &Identity, docker: &DockerSettings) -> Reaped {
    let docker = DockerSettings {
        ready_networks: 0,
        agent: identity.agent().clone(),
        ..docker.clone()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let state_dir = identity.state_dir();
    let processes = ProcessRuntime::new(identity.agent().clone(), state_dir, clock.clone());
    let closed = processes.reap(&HashSet::new()).await;
    let mut removed = closed.as_ref().map_or(0, |closed| closed.removed);
    let mut nothing = closed.is_ok_and(|closed| closed.left.is_empty())
        && KeptNotes::new(state_dir).unexpired(clock.wall()).is_empty();
    let engine_used = state_dir.join(ENGINE_USED).exists();
    let connect = tokio::time::timeout(ENGINE_WITHIN, DockerRuntime::connect(docker));
    // No engine: it can't hold anything of ours now, but it may when it is back.
    nothing &= match connect.await {
        Ok(Ok(docker)) => {
            let closed = docker.reap(&HashSet::new()).await;
            let listed = docker.list_ours(false).await;
            docker.shutdown().await;
            removed += closed.as_ref().map_or(0, |closed| closed.removed);
            closed.is_ok() && listed.is_ok_and(|found| found.is_empty())
        }
        Ok(Err(_)) | Err(_) => !engine_used,
    };
    let settled = !engine_used || nothing && seen_empty_since(state_dir, clock.wall());
    Reaped {
        removed,
        left: !nothing,
        settled,
    }
}

/// Whether nothing was found already a while ago; the first time is noted.
fn seen_empty_since(state_dir: &Path, now: Timestamp) -> bool {
    let path = state_dir.join(SEEN_EMPTY);
    let noted = std::fs::read_to_string(&path).ok();
    let Some(since) = noted.and_then(|text| text.parse::<i64>().ok()) else {
        // Failing to note it costs a look more.
        let _ = private::write(&path, now.0.to_string());
        return false;
    };
    u128::try_from(now.0.saturating_sub(since)).is_ok_and(|us| us >= SETTLED_AFTER.as_micros())
}

impl Agent {
    /// Takes nothing new, finishes what runs, tells everything, and goes.
    pub async fn leave(self) {
        self.link.drain().await;
        self.link.left().await;
        self.close(true).await;
    }

    /// Takes nothing new from now on.
    pub async fn drain(&self) {
        self.link.drain().await;
    }

    /// Returns when the agent has left because the coordinator sent it away.
    pub async fn left(&self) {
        self.link.left().await;
    }

    /// Ends every attempt; they go on being told of until they are over.
    pub async fn cancel(&self, order: CancelOrder) {
        self.link.cancel_all(order).await;
    }

    /// Ends at once: attempts are cancelled without their `always` steps, and cleaned up within a bound. Returns whether all of it was.
    pub async fn stop(self, within: Duration) -> bool {
        self.link.stop().await;
        self.cells.close();
        let clean = tokio::time::timeout(within, self.cells.wait())
            .await
            .is_ok();
        self.close(clean).await;
        clean
    }

    async fn close(self, clean: bool) {
        self.reaper.abort();
        if self.inherited {
            // What a killed predecessor asked of the engine last may have come true since our start.
            let live = HashSet::new();
            let reap = self.runtimes.reap(&live);
            let _ = tokio::time::timeout(ENGINE_WITHIN, reap).await;
        }
        self.runtimes.shutdown().await;
        // What is kept outlives this process, and perhaps its keeper.
        let kept = keeper::noted(self.identity.state_dir()).is_some();
        if let Some(note) = self.note.filter(|_| clean && !kept) {
            note.sign_off();
        }
    }
}
