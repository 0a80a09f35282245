//! Lists agents with their state and capacity, drains them, and says how many are wanted.

use super::status::of_actor;
use crate::access::Caller;
use crate::access::core::Role;
use crate::dispatch::contract::{AgentInfo, ToAgents};
use crate::registry::Presence;
use crate::schedule::actor::{Agents, Demand};
use crate::schedule::core::Input;
use crate::schedule::{AgentView, Wanted};
use crate::supervisor::Handle;
use phalanx_proto::v1;
use phalanx_shared::id::AgentId;
use std::collections::BTreeMap;
use tonic::Status;

/// Returns the agents that are connected or were since the start, with the attempts that the caller sees. Agents of pools
/// that belong to other namespaces aren't listed.
pub(in crate::serve) async fn list(
    handle: &Handle,
    caller: &Caller,
) -> Result<v1::ListAgentsResponse, Status> {
    let views = handle.scheduling.ask(Agents).await.map_err(of_actor)?;
    let mut views: BTreeMap<AgentId, AgentView> = views
        .into_iter()
        .map(|view| (view.info.id.clone(), view))
        .collect();
    let mut agents = Vec::new();
    let seen = |presence: &Presence| {
        let owner = handle.settings.owner_of(&presence.info.labels);
        owner.is_none_or(|owner| caller.scope().has(owner))
    };
    let known = handle.registry.agents().into_iter();
    for (id, presence) in known.filter(|(_, presence)| seen(presence)) {
        let mut agent = summary(views.remove(&id), presence);
        if caller.only().is_some() {
            agent.attempts.retain(|token| {
                let open = handle.registry.get(&token.run.as_str().into());
                open.is_some_and(|run| caller.scope().has(&run.namespace))
            });
        }
        agents.push(agent);
    }
    Ok(v1::ListAgentsResponse { agents })
}

/// Returns what the cells of all runs want of agents.
pub(in crate::serve) async fn demand(handle: &Handle) -> Result<v1::DemandResponse, Status> {
    let wanted = handle.scheduling.ask(Demand).await.map_err(of_actor)?;
    let wanted = wanted.into_iter().map(|wanted: Wanted| v1::Wanted {
        labels: wanted.labels.into_iter().collect(),
        waiting: wanted.waiting,
        startable: wanted.startable,
        placed: wanted.placed,
        resources: Some(wanted.resources.into()),
    });
    Ok(v1::DemandResponse {
        wanted: wanted.collect(),
    })
}

fn summary(view: Option<AgentView>, presence: Presence) -> v1::AgentSummary {
    let state = match &view {
        None => v1::AgentState::Lost,
        Some(view) if !view.connected => v1::AgentState::Disconnected,
        Some(view) if view.draining => v1::AgentState::Draining,
        Some(_) => v1::AgentState::Connected,
    };
    let declined = view.as_ref().and_then(|view| view.declined.clone());
    let reserved = view.as_ref().map(|view| view.reserved).unwrap_or_default();
    let attempts = view.map(|view| view.attempts).unwrap_or_default();
    let AgentInfo {
        id,
        name,
        version,
        labels,
        slots,
        resources,
        images,
        policy: _,
        ahead: _,
        snapshots,
    } = presence.info;
    v1::AgentSummary {
        agent_id: id.to_string(),
        name,
        version,
        labels,
        slots,
        resources: Some(resources.into()),
        reserved: Some(reserved.into()),
        state: state.into(),
        attempts: attempts.into_iter().map(Into::into).collect(),
        images: u32::try_from(images.len()).unwrap_or(u32::MAX),
        heard_us: presence.heard.0,
        reason: presence
            .gone
            .or(declined.map(|reason| format!("declined: {reason}")))
            .unwrap_or_default(),
        snapshots: u32::try_from(snapshots.held.len()).unwrap_or(u32::MAX),
    }
}

/// Drains an agent: it finishes its attempts and leaves. An agent that is for all namespaces needs a caller for all.
pub(in crate::serve) async fn drain(
    handle: &Handle,
    caller: &Caller,
    request: v1::DrainAgentRequest,
) -> Result<v1::DrainAgentResponse, Status> {
    let views = handle.scheduling.ask(Agents).await.map_err(of_actor)?;
    let wanted = &request.agent;
    let owner = |view: &AgentView| handle.settings.owner_of(&view.info.labels).cloned();
    let mut found = views
        .into_iter()
        .filter(|view| view.info.id.as_str() == wanted || view.info.name == *wanted)
        .filter(|view| owner(view).is_none_or(|owner| caller.scope().has(&owner)));
    let view = match (found.next(), found.next()) {
        (Some(view), None) => view,
        (Some(_), Some(_)) => {
            return Err(Status::invalid_argument(format!(
                "several agents are called {wanted}: use the id"
            )));
        }
        (None, _) => {
            return Err(Status::not_found(format!(
                "there is no agent {wanted}: `phalanx agents` lists them"
            )));
        }
    };
    if owner(&view).is_none() && !caller.has_everywhere(Role::Admin) {
        return Err(Status::permission_denied(format!(
            "agent {wanted} is for all namespaces: draining it needs the role `admin` in all namespaces"
        )));
    }
    let agent = view.info.id;
    caller.about(format!("agent {agent}"));
    let draining = Input::AgentDraining {
        agent: agent.clone(),
    };
    handle.scheduling.tell(draining).await.map_err(of_actor)?;
    handle
        .to_agents
        .send(ToAgents::Drain { agent })
        .map_err(|_| Status::unavailable("the coordinator is going away"))?;
    Ok(v1::DrainAgentResponse {
        attempts: u32::try_from(view.attempts.len()).unwrap_or(u32::MAX),
    })
}
