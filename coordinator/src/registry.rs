//! The open runs with their actors, and the known agents. The supervisor writes it; all requests about a
//! run read it.

use crate::dispatch::contract::AgentInfo;
use crate::dispatch::heard::Heard;
use crate::run::actor::{Run, RunTail};
use crate::run::index::AgentsOfRuns;
use kameo::actor::{ActorId, ActorRef};
use phalanx_proto::link::Snapshots;
use phalanx_shared::id::{AgentId, RunId};
use phalanx_shared::namespace::Namespace;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// An open run's actor, and how much of the run is durable.
#[derive(Clone)]
pub struct RunHandle {
    /// Actor of the run.
    pub actor: ActorRef<Run>,
    /// The newest durable position, the outcome, and whether the run is settled.
    pub tail: watch::Receiver<RunTail>,
    /// The namespace that the run belongs to.
    pub namespace: Namespace,
}

/// An agent and whether it is connected.
#[derive(Clone, Debug)]
pub struct Presence {
    /// The agent as it described itself.
    pub info: AgentInfo,
    /// When its last message arrived; when it left, if it is away.
    pub heard: Timestamp,
    /// Why it is away, if it is: disconnected or lost.
    pub gone: Option<String>,
    lost: bool,
}

impl Presence {
    /// Returns whether it is gone for good.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

/// Maximum number of lost agents to remember.
const LOST: usize = 100;

#[derive(Default)]
struct Inner {
    runs: BTreeMap<RunId, RunHandle>,
    agents: BTreeMap<AgentId, Presence>,
    /// Open runs without an actor, and why.
    parked: BTreeMap<RunId, String>,
}

/// The open runs, and the agents seen since the start. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>, Arc<Notify>, Heard, AgentsOfRuns);

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is locked; if something did, the maps would still be consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the times of the agents' last messages, which the sessions record.
    pub fn heard(&self) -> &Heard {
        &self.2
    }

    /// Returns which runs may hold attempts of which agents.
    pub fn index(&self) -> &AgentsOfRuns {
        &self.3
    }

    /// Returns an open run.
    pub fn get(&self, run: &RunId) -> Option<RunHandle> {
        self.inner().runs.get(run).cloned()
    }

    /// Returns all open runs, oldest first.
    pub fn all(&self) -> Vec<(RunId, RunHandle)> {
        let inner = self.inner();
        let runs = inner.runs.iter();
        runs.map(|(run, handle)| (run.clone(), handle.clone()))
            .collect()
    }

    pub(crate) fn insert(&self, run: RunId, handle: RunHandle) {
        let mut inner = self.inner();
        inner.parked.remove(&run);
        inner.runs.insert(run, handle);
    }

    /// Parks an open run that can't continue, for whatever reason. All others continue.
    pub(crate) fn park(&self, run: RunId, reason: String) {
        tracing::error!(%run, reason, "the run is parked");
        self.inner().parked.insert(run, reason);
    }

    /// Removes a parked run that is forgotten.
    pub(crate) fn unpark(&self, run: &RunId) {
        self.inner().parked.remove(run);
    }

    /// Returns why an open run is parked, if it is.
    pub fn parked(&self, run: &RunId) -> Option<String> {
        self.inner().parked.get(run).cloned()
    }

    /// Returns all parked runs with the reason.
    pub fn all_parked(&self) -> Vec<(RunId, String)> {
        let inner = self.inner();
        let parked = inner.parked.iter();
        parked
            .map(|(run, reason)| (run.clone(), reason.clone()))
            .collect()
    }

    /// Removes the run of an actor and returns its id.
    pub(crate) fn remove_actor(&self, actor: ActorId) -> Option<RunId> {
        let mut inner = self.inner();
        let found = inner.runs.iter().find(|(_, h)| h.actor.id() == actor);
        let run = found.map(|(run, _)| run.clone())?;
        inner.runs.remove(&run);
        self.3.forget(&run);
        Some(run)
    }

    /// Returns all agents since the start, including the most recently lost ones.
    pub fn agents(&self) -> Vec<(AgentId, Presence)> {
        let inner = self.inner();
        let agents = inner.agents.iter();
        agents
            .map(|(id, presence)| {
                let mut presence = presence.clone();
                let last = self.2.last(id).filter(|_| presence.gone.is_none());
                presence.heard = last.map_or(presence.heard, |last| last.max(presence.heard));
                (id.clone(), presence)
            })
            .collect()
    }

    pub(crate) fn agent_came(&self, info: AgentInfo, heard: Timestamp) {
        let presence = Presence {
            info,
            heard,
            gone: None,
            lost: false,
        };
        let id = presence.info.id.clone();
        self.inner().agents.insert(id, presence);
        self.1.notify_waiters();
    }

    /// Replaces what is known of the snapshots that an agent keeps.
    pub(crate) fn agent_keeps(&self, agent: &AgentId, snapshots: Arc<Snapshots>) {
        if let Some(presence) = self.inner().agents.get_mut(agent) {
            presence.info.snapshots = snapshots;
        }
        self.1.notify_waiters();
    }

    /// Forgets what an agent could not remove, because it is told again.
    pub(crate) fn agent_is_told(&self, agent: &AgentId) {
        if let Some(presence) = self.inner().agents.get_mut(agent) {
            Arc::make_mut(&mut presence.info.snapshots).left.clear();
        }
    }

    /// Waits until at least `many` agents are connected.
    pub async fn wait_for_agents(&self, many: usize) {
        self.wait_for(|agents| {
            let here = agents.values().filter(|agent| agent.gone.is_none());
            (here.count() >= many).then_some(())
        })
        .await;
    }

    /// Waits until `look` finds something in the known agents. It is called again whenever an agent comes or goes, or what
    /// it keeps changes.
    pub(crate) async fn wait_for<T>(
        &self,
        mut look: impl FnMut(&BTreeMap<AgentId, Presence>) -> Option<T>,
    ) -> T {
        loop {
            let came = self.1.notified();
            tokio::pin!(came);
            // Register before checking, so that a change in between isn't missed.
            came.as_mut().enable();
            if let Some(found) = look(&self.inner().agents) {
                return found;
            }
            came.await;
        }
    }

    /// Marks an agent as away; for good if `lost`.
    pub(crate) fn agent_away(&self, agent: &AgentId, reason: String, lost: bool, now: Timestamp) {
        let mut inner = self.inner();
        if let Some(presence) = inner.agents.get_mut(agent) {
            presence.gone = Some(reason);
            presence.heard = now;
            presence.lost |= lost;
        }
        self.1.notify_waiters();
        let gone = inner.agents.iter().filter(|(_, presence)| presence.lost);
        let mut gone: Vec<(Timestamp, AgentId)> = gone
            .map(|(id, presence)| (presence.heard, id.clone()))
            .collect();
        if gone.len() > LOST {
            gone.sort_unstable();
            if let Some((_, oldest)) = gone.first() {
                inner.agents.remove(oldest);
                self.2.forget(oldest);
            }
        }
    }

    /// Returns whether an agent has connected since the start and isn't lost.
    pub(crate) fn is_present(&self, agent: &AgentId) -> bool {
        self.inner().agents.get(agent).is_some_and(|p| !p.lost)
    }

    /// Returns whether an agent is lost since the start.
    pub(crate) fn is_lost(&self, agent: &AgentId) -> bool {
        self.inner().agents.get(agent).is_some_and(|p| p.lost)
    }
}
