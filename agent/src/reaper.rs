//! Cleans up after agents that are dead: those whose identity no process holds, and those whose directory is gone.
//!
//! A live agent's own leftovers are not handled here: its runtimes reap them (`Runtime::reap`).

use crate::clock::{Clock, SystemClock};
use crate::identity::{self, Home, Identity};
use crate::private;
use crate::roll::{Gone, Roll};
use crate::runtime::contract::Runtime;
use crate::runtime::docker::{DockerRuntime, DockerSettings, Found, doomed};
use crate::runtime::process::{KeptNotes, ProcessRuntime};
use futures::future::BoxFuture;
use phalanx_shared::id::AgentId;
use phalanx_shared::time::Timestamp;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An engine that doesn't answer within this time counts as unavailable.
pub const ENGINE_WITHIN: Duration = Duration::from_secs(5);
/// Time that an agent which ended has to return and clean up itself before another agent does it.
pub const MAY_RETURN: Duration = Duration::from_secs(10);
/// File in the state directory: this identity may have created containers.
const ENGINE_USED: &str = "engine-used";
/// File in a dead identity's state directory, created when nothing of the identity was found for the first time.
const SEEN_EMPTY: &str = "seen-empty";
/// An identity is given up only if nothing of it is found this long after the first empty search: until then the engine
/// may still be executing the killed agent's last request.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Returns whether the identity with this state directory may have created objects in an engine.
pub fn may_have_used_engine(state_dir: &Path) -> bool {
    state_dir.join(ENGINE_USED).exists()
}

/// Notes that the identity may create objects in an engine. Call it before the first one; a superfluous note only costs
/// one more search.
pub fn note_engine(state_dir: &Path) {
    let _ = private::write(&state_dir.join(ENGINE_USED), "");
}

/// Removes the note of [`note_engine`], because nothing was created.
pub fn forget_engine(state_dir: &Path) {
    let _ = std::fs::remove_file(state_dir.join(ENGINE_USED));
}

/// Notes that the identity is in use again: what was found of it so far doesn't count any more.
pub fn in_use(state_dir: &Path) {
    let _ = std::fs::remove_file(state_dir.join(SEEN_EMPTY));
}

/// Cleans up after agents of this machine that are dead and had time to return. Returns whether one of them may
/// still return.
pub async fn reap_abandoned(docker: Option<&DockerRuntime>, settings: &DockerSettings) -> bool {
    let found = match docker {
        None => Vec::new(),
        Some(docker) => docker.list_ours(true).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "can't look for what others left behind");
            Vec::new()
        }),
    };
    let mut may_return = false;
    if let Some(roll) = Roll::here() {
        for gone in roll.gone() {
            may_return |= reap_gone(docker, &roll, &gone, &found, settings).await;
        }
    }
    let homes: HashSet<(AgentId, String)> = found
        .iter()
        .filter_map(|object| Some((AgentId::from(object.agent()?), object.home()?.to_label())))
        .collect();
    for (agent, home) in homes {
        // This agent's own identity is skipped, because its lock is held.
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

/// Cleans up after an agent that no process runs any more, whether or not its directory still exists. Returns
/// `true` if the agent may still return and nothing was done for that reason.
async fn reap_gone(
    docker: Option<&DockerRuntime>,
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
        // Another process may run the agent by now, in another directory.
        let (Some(home), true) = (gone.homes.first(), roll.is_gone(agent)) else {
            return false;
        };
        reap_removed(docker, agent, home, gone, found).await
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

/// Cleans up after an agent whose directory is gone. Returns how many objects were removed, and whether there was
/// nothing to find.
async fn reap_removed(
    docker: Option<&DockerRuntime>,
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
    if let Some(docker) = docker
        && !doomed.is_empty()
    {
        let engine = docker.remove(&doomed).await;
        closed.removed += engine.removed;
        closed.left.extend(engine.left);
    }
    let over = closed.removed == 0 && closed.left.is_empty() && !kept;
    (closed.removed, over)
}

/// Result of cleaning up after a dead identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Number of removed objects.
    pub removed: u32,
    /// Whether something is left: kept, or out of reach.
    pub left: bool,
    /// Whether the engine has certainly finished the last requests of the dead agent.
    pub settled: bool,
}

impl Reaped {
    /// Returns whether the identity can be given up.
    pub fn is_over(&self) -> bool {
        !self.left && self.settled
    }
}

/// Cleans up after an identity that no process held. Kept stacks stay until they expire.
pub fn reap_dead<'a>(identity: &'a Identity, docker: &'a DockerSettings) -> BoxFuture<'a, Reaped> {
    Box::pin(reap_identity(identity, docker))
}

async fn reap_identity(identity: &Identity, docker: &DockerSettings) -> Reaped {
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
    let engine_used = may_have_used_engine(state_dir);
    let connect = tokio::time::timeout(ENGINE_WITHIN, DockerRuntime::connect(docker));
    // An unreachable engine may still hold objects of this identity, but only if the identity has used an engine.
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

/// Returns whether nothing was found already [`SETTLED_AFTER`] ago. Records the time on the first call.
fn seen_empty_since(state_dir: &Path, now: Timestamp) -> bool {
    let path = state_dir.join(SEEN_EMPTY);
    let noted = std::fs::read_to_string(&path).ok();
    let Some(since) = noted.and_then(|text| text.parse::<i64>().ok()) else {
        // A failed write only costs one more search.
        let _ = private::write(&path, now.0.to_string());
        return false;
    };
    u128::try_from(now.0.saturating_sub(since)).is_ok_and(|us| us >= SETTLED_AFTER.as_micros())
}
