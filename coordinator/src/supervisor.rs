//! The root: wires everything last to first, starts and supervises runs, brings the open ones back after a restart.
//!
//! ```text
//! journal ◀─ run × n ◀─▶ scheduling        sessions ─▶ routing ─▶ run × n, scheduling
//!                └───────────┴─▶ sessions
//! ```

mod coordinator;
mod recovery;

pub use coordinator::{Coordinator, Launch};
pub use recovery::replay;

use crate::clock::Clock;
use crate::dispatch::contract::{FromAgents, ToAgents};
use crate::journal::{Journal, Store, StoreError};
use crate::registry::Registry;
use crate::routing::Routing;
use crate::schedule::actor::{self as schedule_actor, Scheduling};
use crate::submission::Planner;
use crate::trace::Tracer;
use kameo::actor::{ActorRef, Spawn};
use kameo::mailbox;
use phalanx_shared::id::RunId;
use recovery::{bring_open, expire, forget_old};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long attempts wait for their agent after the coordinator's restart.
    pub reconnect_within: Duration,
    /// Grace of a cancel that names none.
    pub cancel_grace: Duration,
    /// At most so many cells at once that ask for a label.
    pub label_limits: BTreeMap<String, u32>,
    /// Runs that finished longer ago are forgotten; `None` keeps all.
    pub keep_runs_for: Option<Duration>,
    /// How often it is looked for them.
    pub tidy_every: Duration,
    /// Whether no agent will come beside those that are there: a cell that none of them may take is refused.
    pub agents_are_all_here: bool,
    /// Where runs are traced to, if they are.
    pub tracer: Option<Tracer>,
    /// Where it is noted that a run is being brought back, for the next start if this one doesn't survive it.
    pub trials: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            reconnect_within: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(30),
            label_limits: BTreeMap::new(),
            keep_runs_for: Some(Duration::from_secs(90 * 24 * 3_600)),
            tidy_every: Duration::from_secs(3_600),
            agents_are_all_here: false,
            tracer: None,
            trials: None,
        }
    }
}

/// Values for secrets that a submission doesn't bring, by name.
pub type OwnSecrets = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a coordinator is made of.
pub struct Args {
    /// Where runs and events are kept.
    pub store: Arc<dyn Store>,
    /// Expands submissions.
    pub planner: Arc<dyn Planner>,
    /// Values for secrets that a submission doesn't bring.
    pub own_secrets: OwnSecrets,
    /// Facts from the sessions.
    pub from_agents: mpsc::Receiver<FromAgents>,
    /// Commands to the sessions. Unbounded, so that no run ever waits for a session; bounded by live attempts.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What an operator decides.
    pub settings: Settings,
    /// How it begins.
    pub begin: Begin,
}

/// How a coordinator begins.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Whether runs that weren't over go on.
    pub bring_open_runs: bool,
    /// The id of the first run that is launched; a new one without it.
    pub first_run: Option<RunId>,
    /// Secret values for runs that go on.
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

/// A running coordinator, for whoever answers clients. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// The root actor: launches runs.
    pub coordinator: ActorRef<Coordinator>,
    /// Where cells wait.
    pub scheduling: ActorRef<Scheduling>,
    /// The open runs.
    pub registry: Registry,
    /// All runs.
    pub journal: Journal,
    /// Expands submissions.
    pub planner: Arc<dyn Planner>,
    /// Values for secrets that a submission doesn't bring.
    pub own_secrets: OwnSecrets,
    /// Commands to agents.
    pub to_agents: mpsc::UnboundedSender<ToAgents>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What an operator decided.
    pub settings: Settings,
}

/// Starts everything: journal, scheduling, the open runs, then the ears for agents. Sessions may connect from now on.
/// The task is the journal's writer; it ends when the handle and everything started here is gone.
pub async fn start(args: Args) -> Result<(Handle, JoinHandle<()>), StoreError> {
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
    let routing = Routing {
        registry: handle.registry.clone(),
        scheduling: handle.scheduling.clone(),
        clock: handle.clock.clone(),
        to_agents: handle.to_agents.clone(),
    };
    let waiting_for_agents = bring_open_runs && bring_open(&handle).await?;
    tokio::spawn(routing.clone().run(from_agents));
    if waiting_for_agents {
        tokio::spawn(expire(routing, handle.settings.reconnect_within));
    }
    Ok((handle, writer))
}

/// A handle for looking at a journal that nobody writes to: nothing is started, nothing can be launched.
pub fn look_at(store: Arc<dyn Store>, planner: Arc<dyn Planner>, clock: Arc<dyn Clock>) -> Handle {
    let (to_agents, _) = mpsc::unbounded_channel();
    let journal = Journal::read_only(store);
    let (settings, begin) = (Settings::default(), Begin::default());
    wire(
        journal,
        planner,
        Arc::new(|_| None),
        to_agents,
        clock,
        settings,
        begin,
    )
}

/// The actors that are there once, last to first.
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
    /// Ends every actor at once. What is journaled stays; open runs go on at the next start.
    pub async fn stop(&self) {
        // The root first: it would bring its runs back.
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
