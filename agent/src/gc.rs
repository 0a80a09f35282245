//! What `phalanx gc` removes besides what dead agents left: kept stacks before their time, and images that were built here.

use crate::identity::{self, Identity};
use crate::runtime::docker::{DockerRuntime, DockerSettings};
use crate::runtime::process::KeptNotes;
use phalanx_shared::id::AgentId;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Ends what agents with these directories keep. Containers go at once, whether their agent lives or not; of processes only the
/// notes of dead agents are removed, so that the reaper takes them next. Returns what went, or would.
///
/// # Errors
/// No engine answers, or it can't remove something.
pub async fn end_kept(
    identities: &[PathBuf],
    docker: &DockerSettings,
    dry_run: bool,
) -> Result<Vec<String>, String> {
    let mut gone = Vec::new();
    let agents: HashSet<AgentId> = identities
        .iter()
        .filter_map(|of| identity::id_of(of))
        .collect();
    for directory in identities.iter().filter(|of| identity::id_of(of).is_some()) {
        // A live agent holds its identity.
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
        Err(why) if gone.is_empty() => return Err(why),
        Err(_) => return Ok(gone),
    };
    let found = engine.list_kept(&agents).await;
    let found = found.map_err(|error| error.to_string())?;
    gone.extend(found.iter().map(|object| format!("kept {object}")));
    if !dry_run {
        let closed = engine.remove(&found).await;
        if !closed.left.is_empty() {
            return Err(closed.left.join("; "));
        }
    }
    Ok(gone)
}

/// Removes images that were built from contexts before a time (in seconds since 1970) and that no container uses.
/// Returns their tags, with the bytes that this freed, or would.
///
/// # Errors
/// No engine answers.
pub async fn remove_built(
    docker: &DockerSettings,
    before_s: i64,
    dry_run: bool,
) -> Result<Vec<(String, u64)>, String> {
    let engine = connect(docker).await?;
    let removed = engine.remove_built(before_s, dry_run).await;
    removed.map_err(|error| error.to_string())
}

async fn connect(docker: &DockerSettings) -> Result<Arc<DockerRuntime>, String> {
    DockerRuntime::connect(DockerSettings {
        ready_networks: 0,
        // Nothing is made under it.
        agent: AgentId("gc".to_owned()),
        ..docker.clone()
    })
    .await
}
