//! The parts of `phalanx gc` that go beyond reaping dead agents: removes kept stacks before their TTL expires, and
//! images that Phalanx built on this machine.

use crate::identity::{self, Identity};
use crate::runtime::contract::RuntimeError;
use crate::runtime::docker::{DockerRuntime, DockerSettings, Unusable};
use crate::runtime::process::KeptNotes;
use futures::future::BoxFuture;
use phalanx_shared::id::AgentId;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Why something was not removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// No engine can be used.
    #[error(transparent)]
    Engine(#[from] Unusable),
    /// The engine refused.
    #[error(transparent)]
    Refused(#[from] RuntimeError),
    /// These objects could not be removed, each with the reason.
    #[error("{}", .0.join("; "))]
    Left(Vec<String>),
}

/// Ends everything that the agents with these directories keep. Kept containers are removed at once, even if their
/// agent is alive. For kept processes only the notes of dead agents are removed, so that the reaper ends the processes
/// next. Returns descriptions of the removed objects, or with `dry_run` of those that would be removed.
///
/// # Errors
/// No engine answers, or the engine can't remove an object.
pub fn end_kept<'a>(
    identities: &'a [PathBuf],
    docker: &'a DockerSettings,
    dry_run: bool,
) -> BoxFuture<'a, Result<Vec<String>, GcError>> {
    Box::pin(end_kept_of(identities, docker, dry_run))
}

async fn end_kept_of(
    identities: &[PathBuf],
    docker: &DockerSettings,
    dry_run: bool,
) -> Result<Vec<String>, GcError> {
    let mut gone = Vec::new();
    let agents: HashSet<AgentId> = identities
        .iter()
        .filter_map(|of| identity::id_of(of))
        .collect();
    for directory in identities.iter().filter(|of| identity::id_of(of).is_some()) {
        // A live agent holds the lock of its identity.
        if let Ok(identity) = Identity::acquire(directory) {
            let notes = KeptNotes::new(directory).all();
            gone.extend(
                notes
                    .iter()
                    .map(|token| format!("kept processes of {token}")),
            );
            if !dry_run {
                KeptNotes::new(directory).forget();
            }
            drop(identity);
        }
    }
    if agents.is_empty() {
        return Ok(gone);
    }
    let engine = match connect(docker).await {
        Ok(engine) => engine,
        Err(unusable) if gone.is_empty() => return Err(unusable.into()),
        Err(_) => return Ok(gone),
    };
    let found = engine.list_kept(&agents).await?;
    gone.extend(found.iter().map(|object| format!("kept {object}")));
    if !dry_run {
        let closed = engine.remove(&found).await;
        if !closed.left.is_empty() {
            return Err(GcError::Left(closed.left));
        }
    }
    Ok(gone)
}

/// Removes images that were built from contexts before a time (in seconds since 1970) and that no container uses.
/// Returns their tags with the number of bytes that each one frees, or would free with `dry_run`.
///
/// # Errors
/// No engine answers.
pub fn remove_built(
    docker: &DockerSettings,
    before_s: i64,
    dry_run: bool,
) -> BoxFuture<'_, Result<Vec<(String, u64)>, GcError>> {
    Box::pin(async move {
        let engine = connect(docker).await?;
        Ok(engine.remove_built(before_s, dry_run).await?)
    })
}

/// Connects to an engine for questions and removals: nothing is created.
pub(crate) async fn connect(docker: &DockerSettings) -> Result<Arc<DockerRuntime>, Unusable> {
    DockerRuntime::connect(DockerSettings {
        ready_networks: 0,
        // This connection creates no objects, so the agent id is never used.
        agent: AgentId("gc".to_owned()),
        ..docker.clone()
    })
    .await
}
