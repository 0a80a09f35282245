//! Lists the snapshots that agents keep, and removes them.
//!
//! Agents with one directory share its snapshots, so a snapshot is listed once for each store, with all agents that have
//! it. One of them removes it, and what all of them report afterwards tells whether it is gone.

use crate::dispatch::contract::ToAgents;
use crate::registry::{Presence, Registry};
use crate::supervisor::Handle;
use phalanx_proto::limit::SNAPSHOTS;
use phalanx_proto::link::HeldSnapshot;
use phalanx_proto::v1;
use phalanx_shared::id::AgentId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tonic::Status;

/// How long agents may take to remove what they were told.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// A snapshot of a store, and the agents that have it.
#[derive(Clone)]
struct Found {
    held: HeldSnapshot,
    agents: BTreeMap<AgentId, Holder>,
}

#[derive(Clone)]
struct Holder {
    name: String,
    /// Why it can't be told anything.
    gone: Option<String>,
}

/// A store and a key.
type Place = (String, String);

/// Returns the snapshots that agents keep which aren't lost.
pub(super) fn list(registry: &Registry) -> v1::ListSnapshotsResponse {
    let agents = registry.agents().into_iter().collect();
    let mut found: Vec<Found> = gather(&agents, |_| true).into_values().collect();
    found.sort_by_key(|one| (Reverse(one.held.used), one.held.key.clone()));
    v1::ListSnapshotsResponse {
        snapshots: found.into_iter().map(summary).collect(),
    }
}

fn gather(
    agents: &BTreeMap<AgentId, Presence>,
    wanted: impl Fn(&str) -> bool,
) -> BTreeMap<Place, Found> {
    let mut found: BTreeMap<Place, Found> = BTreeMap::new();
    for (id, presence) in agents.iter().filter(|(_, presence)| !presence.is_lost()) {
        let snapshots = &presence.info.snapshots;
        // Without the store's id, each agent counts as having its own.
        let store = match snapshots.store.is_empty() {
            true => id.to_string(),
            false => snapshots.store.clone(),
        };
        for held in snapshots.held.iter().filter(|held| wanted(&held.key)) {
            let place = (store.clone(), held.key.clone());
            let one = found.entry(place).or_insert_with(|| Found {
                held: held.clone(),
                agents: BTreeMap::new(),
            });
            let holder = Holder {
                name: presence.info.name.clone(),
                gone: presence.gone.clone(),
            };
            one.held.used = one.held.used.max(held.used);
            one.agents.insert(id.clone(), holder);
        }
    }
    found
}

fn summary(found: Found) -> v1::SnapshotSummary {
    let names: BTreeSet<String> = found.agents.into_values().map(|one| one.name).collect();
    v1::SnapshotSummary {
        snapshot: Some(found.held.into()),
        agents: names.into_iter().collect(),
    }
}

/// Removes snapshots from all agents, and waits until they have.
pub(super) async fn remove(
    handle: &Handle,
    request: v1::RemoveSnapshotsRequest,
) -> Result<v1::RemoveSnapshotsResponse, Status> {
    let v1::RemoveSnapshotsRequest { keys } = request;
    if keys.len() > SNAPSHOTS {
        let message = format!("{} keys, the limit is {SNAPSHOTS}", keys.len());
        return Err(Status::invalid_argument(message));
    }
    let keys: BTreeSet<String> = keys.into_iter().collect();
    let registry = &handle.registry;
    let agents = registry.agents().into_iter().collect();
    let mut open = gather(&agents, |key| keys.contains(key));
    let mut answer = v1::RemoveSnapshotsResponse::default();
    let mut orders: BTreeMap<AgentId, Vec<String>> = BTreeMap::new();
    open.retain(|(_, key), found| {
        let here = found
            .agents
            .iter()
            .find(|(_, holder)| holder.gone.is_none());
        if let Some((agent, _)) = here {
            orders.entry(agent.clone()).or_default().push(key.clone());
            return true;
        }
        let gone = found.agents.values().find_map(|holder| holder.gone.clone());
        let reason = format!("its agent isn't connected: {}", gone.unwrap_or_default());
        answer.left.push(not_removed(found.clone(), reason));
        false
    });
    for (agent, keys) in &orders {
        // What the agent could not remove before may work now.
        registry.agent_is_told(agent);
        let (agent, keys) = (agent.clone(), keys.clone());
        let told = handle
            .to_agents
            .send(ToAgents::RemoveSnapshots { agent, keys });
        told.map_err(|_| Status::unavailable("the coordinator is going away"))?;
    }
    let settled = registry.wait_for(|agents| {
        settle(&mut open, agents, &orders, &mut answer);
        open.is_empty().then_some(())
    });
    if tokio::time::timeout(REMOVED_WITHIN, settled).await.is_err() {
        let seconds = REMOVED_WITHIN.as_secs();
        for found in std::mem::take(&mut open).into_values() {
            let reason = format!("its agent didn't answer within {seconds}s");
            answer.left.push(not_removed(found, reason));
        }
    }
    Ok(answer)
}

/// Moves to the answer what is decided: the snapshots that the agents which were told don't have any more, and those that
/// they can't remove.
fn settle(
    open: &mut BTreeMap<Place, Found>,
    agents: &BTreeMap<AgentId, Presence>,
    orders: &BTreeMap<AgentId, Vec<String>>,
    answer: &mut v1::RemoveSnapshotsResponse,
) {
    open.retain(|(_, key), found| {
        let told = found
            .agents
            .keys()
            .find(|agent| orders.contains_key(*agent));
        let Some(presence) = told.and_then(|agent| agents.get(agent)) else {
            let reason = "its agent is gone".to_owned();
            answer.left.push(not_removed(found.clone(), reason));
            return false;
        };
        if let Some(gone) = &presence.gone {
            let reason = format!("its agent isn't connected any more: {gone}");
            answer.left.push(not_removed(found.clone(), reason));
            return false;
        }
        let snapshots = &presence.info.snapshots;
        if !snapshots.held.iter().any(|held| held.key == *key) {
            answer.removed.push(summary(found.clone()));
            return false;
        }
        let left = snapshots.left.iter().find(|(left, _)| left == key);
        if let Some((_, reason)) = left {
            answer.left.push(not_removed(found.clone(), reason.clone()));
        }
        left.is_none()
    });
}

fn not_removed(found: Found, reason: String) -> v1::SnapshotNotRemoved {
    v1::SnapshotNotRemoved {
        snapshot: Some(summary(found)),
        reason,
    }
}
