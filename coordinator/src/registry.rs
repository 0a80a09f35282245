//! Which runs are open and who acts for them. Written by the supervisor, read by everybody who has a run's id.

use crate::dispatch::contract::AgentInfo;
use crate::dispatch::heard::Heard;
use crate::run::actor::{Run, RunTail};
use kameo::actor::{ActorId, ActorRef};
use phalanx_shared::id::{AgentId, RunId};
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// A run's actor, and how far its journal is.
#[derive(Clone)]
pub struct RunHandle {
    /// The actor.
    pub actor: ActorRef<Run>,
    /// Newest durable position, outcome, end.
    pub tail: watch::Receiver<RunTail>,
}

/// An agent as its sessions last told.
#[derive(Clone, Debug)]
pub struct Presence {
    /// What it said of itself.
    pub info: AgentInfo,
    /// When something came from it last; when it went, if it is away.
    pub heard: Timestamp,
    /// Why it is away, if it is: disconnected or lost.
    pub gone: Option<String>,
    lost: bool,
}

/// Lost agents that are remembered.
const LOST: usize = 100;

#[derive(Default)]
struct Inner {
    runs: BTreeMap<RunId, RunHandle>,
    agents: BTreeMap<AgentId, Presence>,
    /// Open runs that nobody acts for, and why.
    parked: BTreeMap<RunId, String>,
}

/// The open runs, and the agents seen since the start. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>, Arc<Notify>, Heard);

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is locked; if it did, the maps would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When agents were heard of: the sessions note it.
    pub fn heard(&self) -> &Heard {
        &self.2
    }

    /// An open run.
    pub fn get(&self, run: &RunId) -> Option<RunHandle> {
        self.inner().runs.get(run).cloned()
    }

    /// All open runs, oldest first.
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

    /// An open run can't go on, whatever the reason; all others do.
    pub(crate) fn park(&self, run: RunId, reason: String) {
        tracing::error!(%run, reason, "the run is parked");
        self.inner().parked.insert(run, reason);
    }

    /// A parked run is forgotten.
    pub(crate) fn unpark(&self, run: &RunId) {
        self.inner().parked.remove(run);
    }

    /// Why an open run doesn't go on, if it doesn't.
    pub fn parked(&self, run: &RunId) -> Option<String> {
        self.inner().parked.get(run).cloned()
    }

    /// All runs that don't go on, with the reason.
    pub fn all_parked(&self) -> Vec<(RunId, String)> {
        let inner = self.inner();
        let parked = inner.parked.iter();
        parked
            .map(|(run, reason)| (run.clone(), reason.clone()))
            .collect()
    }

    /// Takes out the run of an actor.
    pub(crate) fn remove_actor(&self, actor: ActorId) -> Option<RunId> {
        let mut inner = self.inner();
        let found = inner.runs.iter().find(|(_, h)| h.actor.id() == actor);
        let run = found.map(|(run, _)| run.clone())?;
        inner.runs.remove(&run);
        Some(run)
    }

    /// All agents since the start, the newest lost ones included.
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

    /// Returns when so many agents are here.
    pub async fn wait_for_agents(&self, many: usize) {
        loop {
            let came = self.1.notified();
            tokio::pin!(came);
            // Listening before looking: who comes in between wakes us.
            came.as_mut().enable();
            let here = self
                .inner()
                .agents
                .values()
                .filter(|a| a.gone.is_none())
                .count();
            if here >= many {
                return;
            }
            came.await;
        }
    }

    /// It is away; for good if `lost`.
    pub(crate) fn agent_away(&self, agent: &AgentId, reason: String, lost: bool, now: Timestamp) {
        let mut inner = self.inner();
        if let Some(presence) = inner.agents.get_mut(agent) {
            presence.gone = Some(reason);
            presence.heard = now;
            presence.lost |= lost;
        }
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

    /// Whether an agent has connected since the start and isn't lost.
    pub(crate) fn is_present(&self, agent: &AgentId) -> bool {
        self.inner().agents.get(agent).is_some_and(|p| !p.lost)
    }
}
