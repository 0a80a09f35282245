//! The root of the coordinator: starts all components, starts and supervises runs, and recovers the open ones after a
//! restart.
//!
//! ```text
//! session × n ─▶ run × n ─▶ journal ─▶ session × n      sessions ─▶ agents ─▶ run × n, scheduling
//!                run × n ◀─▶ scheduling ─▶ sessions
//! ```

mod agents;
mod coordinator;
mod recovery;
mod replay;

pub use coordinator::{Coordinator, Launch};
pub use replay::replay;

use crate::clock::Clock;
use crate::dispatch::contract::{FromAgents, ToAgents};
use crate::journal::{Journal, Store, StoreError};
use crate::registry::Registry;
use crate::schedule::actor::{self as schedule_actor, Scheduling};
use crate::submission::Planner;
use agents::Agents;
use futures::future::BoxFuture;
use kameo::actor::{ActorRef, Spawn};
use kameo::mailbox;
use phalanx_otlp::Tracer;
use phalanx_shared::id::RunId;
use phalanx_shared::namespace::Namespace;
use recovery::{bring_open, expire, forget_old};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Settings of the operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long attempts wait for their agent after a restart of the coordinator.
    pub reconnect_within: Duration,
    /// Grace period of a cancel.
    pub cancel_grace: Duration,
    /// Maximum number of cells with a label that run concurrently, by label.
    pub label_limits: BTreeMap<String, u32>,
    /// The namespace that each pool of agents belongs to. Agents of a pool have the label `pool=NAME`; those of other pools
    /// are for all namespaces.
    pub pools: BTreeMap<String, Namespace>,
    /// Runs that finished longer ago are forgotten; `None` keeps all.
    pub keep_runs_for: Option<Duration>,
    /// Interval at which old runs are removed.
    pub tidy_every: Duration,
    /// Whether no further agents will connect: then a submission with a cell that none of them can take is rejected.
    pub agents_are_all_here: bool,
    /// Exporter of the runs' traces, if runs are traced.
    pub tracer: Option<Tracer>,
    /// Directory for notes about runs being recovered, for the next start if this process doesn't survive a recovery.
    pub trials: Option<PathBuf>,
}

/// Label that says an agent's pool.
const POOL: &str = "pool";

impl Settings {
    /// Returns the labels of the pools that belong to other namespaces than this one.
    pub fn foreign_pools(&self, namespace: &Namespace) -> Vec<String> {
        let foreign = self.pools.iter().filter(|(_, owner)| *owner != namespace);
        foreign.map(|(pool, _)| format!("{POOL}={pool}")).collect()
    }

    /// Returns the namespace that an agent belongs to, by its labels; `None` if it is for all.
    pub fn owner_of(&self, labels: &[String]) -> Option<&Namespace> {
        labels.iter().find_map(|label| {
            let pool = label.strip_prefix(POOL)?.strip_prefix('=')?;
            self.pools.get(pool)
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            reconnect_within: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(30),
            label_limits: BTreeMap::new(),
            pools: BTreeMap::new(),
            keep_runs_for: Some(Duration::from_secs(90 * 24 * 3_600)),
            tidy_every: Duration::from_secs(3_600),
            agents_are_all_here: false,
            tracer: None,
            trials: None,
        }
    }
}

/// Returns the value of a secret that a submission doesn't include, by the run's namespace and the secret's name.
pub type OwnSecrets = Arc<dyn Fn(&Namespace, &str) -> Option<String> + Send + Sync>;

/// Arguments of [`start`].
pub struct Args {
    /// Storage of runs and events.
    pub store: Arc<dyn Store>,
    /// Expands submissions to plans.
    pub planner: Arc<dyn Planner>,
    /// Provides the secrets that a submission doesn't include.
    pub own_secrets: OwnSecrets,
    /// Changes of agents, from the sessions.
    pub from_agents: mpsc::UnboundedReceiver<FromAgents>,
    /// Commands to the sessions. Unbounded, so that no run ever waits for a session; the live attempts bound their
    /// number.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    /// Clock for deadlines and timestamps.
    pub clock: Arc<dyn Clock>,
    /// Settings of the operator.
    pub settings: Settings,
    /// How the coordinator starts.
    pub begin: Begin,
}

/// How a coordinator starts.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Whether unfinished runs continue.
    pub bring_open_runs: bool,
    /// Id of the first run that is launched; `None` for a new one.
    pub first_run: Option<RunId>,
    /// Secret values for runs that continue.
    pub secrets: BTreeMap<String, String>,
}

impl Default for Begin {
    fn default() -> Self {
        Begin {
            bring_open_runs: true,
            first_run: None,
            secrets: BTreeMap::new(),
        }
    }
}

/// A running coordinator, for the code that serves clients. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// The root actor, which launches runs.
    pub coordinator: ActorRef<Coordinator>,
    /// The scheduling actor.
    pub scheduling: ActorRef<Scheduling>,
    /// The open runs.
    pub registry: Registry,
    /// Journal of all runs.
    pub journal: Journal,
    /// Expands submissions to plans.
    pub planner: Arc<dyn Planner>,
    /// Provides the secrets that a submission doesn't include.
    pub own_secrets: OwnSecrets,
    /// Commands to agents.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    /// Clock for deadlines and timestamps.
    pub clock: Arc<dyn Clock>,
    /// Settings of the operator.
    pub settings: Settings,
}

/// Starts everything: the journal, scheduling, the open runs, and then the loop that handles changes of agents. Sessions
/// may connect afterwards. The returned task is the journal's writer; it ends when the handle and everything started here
/// are gone.
pub fn start(args: Args) -> BoxFuture<'static, Result<(Handle, JoinHandle<()>), StoreError>> {
    Box::pin(start_actors(args))
}

async fn start_actors(args: Args) -> Result<(Handle, JoinHandle<()>), StoreError> {
    let Args {
        store,
        planner,
        own_secrets,
        from_agents,
        to_agents,
        clock,
        settings,
        begin,
    } = args;
    let (journal, writer) = Journal::start(store, clock.wall()).await?;
    forget_old(&journal, &settings, &*clock).await?;
    let bring_open_runs = begin.bring_open_runs;
    let handle = wire(
        journal,
        planner,
        own_secrets,
        to_agents,
        clock,
        settings,
        begin,
    );
    let agents = Agents {
        registry: handle.registry.clone(),
        scheduling: handle.scheduling.clone(),
        clock: handle.clock.clone(),
    };
    let waiting_for_agents = bring_open_runs && bring_open(&handle).await?;
    tokio::spawn(agents.clone().run(from_agents));
    if waiting_for_agents {
        tokio::spawn(expire(agents, handle.settings.reconnect_within));
    }
    Ok((handle, writer))
}

/// Returns a handle for reading a journal without a coordinator: no run is started, and none can be launched.
pub fn look_at(store: Arc<dyn Store>, planner: Arc<dyn Planner>, clock: Arc<dyn Clock>) -> Handle {
    let (to_agents, _) = mpsc::unbounded_channel();
    let journal = Journal::read_only(store);
    let (settings, begin) = (Settings::default(), Begin::default());
    wire(
        journal,
        planner,
        Arc::new(|_, _| None),
        to_agents,
        clock,
        settings,
        begin,
    )
}

/// Starts the actors that exist once.
fn wire(
    journal: Journal,
    planner: Arc<dyn Planner>,
    own_secrets: OwnSecrets,
    to_agents: mpsc::UnboundedSender<ToAgents>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    begin: Begin,
) -> Handle {
    let scheduling = Scheduling::spawn_with_mailbox(
        schedule_actor::Args {
            clock: clock.clone(),
            to_agents: to_agents.clone(),
            label_limits: settings.label_limits.clone(),
        },
        mailbox::unbounded(),
    );
    let registry = Registry::default();
    let coordinator = Coordinator::spawn(Coordinator {
        journal: journal.clone(),
        scheduling: scheduling.clone(),
        registry: registry.clone(),
        planner: planner.clone(),
        own_secrets: own_secrets.clone(),
        to_agents: to_agents.clone(),
        clock: clock.clone(),
        settings: settings.clone(),
        begin,
        secrets: HashMap::new(),
        revivals: HashMap::new(),
    });
    Handle {
        coordinator,
        scheduling,
        registry,
        journal,
        planner,
        own_secrets,
        to_agents,
        clock,
        settings,
    }
}

impl Handle {
    /// Stops every actor immediately. Journaled events stay; open runs continue at the next start.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop_actors())
    }

    async fn stop_actors(&self) {
        // The root first, because it would restart its runs.
        self.coordinator.kill();
        self.coordinator.wait_for_shutdown().await;
        for (_, run) in self.registry.all() {
            run.actor.kill();
            run.actor.wait_for_shutdown().await;
        }
        self.scheduling.kill();
        self.scheduling.wait_for_shutdown().await;
    }
}
