//! The parts of `phalanx gc` that go beyond reaping dead agents: removes kept stacks before their TTL expires, images that
//! Phalanx built on this machine, and snapshots with what killed agents left of them.

use crate::identity::{self, Identity};
use crate::runtime::contract::RuntimeError;
use crate::runtime::docker::{DockerRuntime, DockerSettings, Unusable};
use crate::runtime::process::KeptNotes;
use crate::snapshot::tidy::{Wish, tidy};
use crate::snapshot::{Bounds, Store};
use futures::future::BoxFuture;
use phalanx_shared::id::AgentId;
use phalanx_shared::time::Timestamp;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
    /// The directory with snapshots can't be used.
    #[error("can't use {}: {error}", .directory.display())]
    Store {
        /// Path of the directory.
        directory: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
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

/// Which snapshots to remove.
#[derive(Clone, Copy, Debug)]
pub struct Snapshots<'a> {
    /// Directory of their store.
    pub directory: &'a Path,
    /// Remove those that no cell has used for this time. `None` for only what no cell can use: half-made, broken, replaced or
    /// too old ones, and images that no snapshot has.
    pub unused_for: Option<Duration>,
    /// The time now.
    pub now: Timestamp,
    /// Remove nothing.
    pub dry_run: bool,
}

/// Removes snapshots, with their images in the engine, and what killed agents left of them. Returns descriptions with sizes
/// in bytes of the removed objects, or with `dry_run` of those that would be removed. What a cell uses stays.
///
/// # Errors
/// The store can't be used, something can't be removed, or no engine answers although snapshots are to be removed.
pub fn remove_snapshots<'a>(
    docker: &'a DockerSettings,
    wish: Snapshots<'a>,
) -> BoxFuture<'a, Result<Vec<(String, u64)>, GcError>> {
    Box::pin(remove_snapshots_of(docker, wish))
}

async fn remove_snapshots_of(
    docker: &DockerSettings,
    wish: Snapshots<'_>,
) -> Result<Vec<(String, u64)>, GcError> {
    let Snapshots {
        directory,
        unused_for,
        now,
        dry_run,
    } = wish;
    let own = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || Store::open_existing(&own)).await;
    let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let opened = opened.map_err(|error| GcError::Store {
        directory: directory.to_owned(),
        error,
    })?;
    let Some(store) = opened else {
        return Ok(Vec::new());
    };
    let engine = match connect(docker).await {
        Ok(engine) => Some(engine),
        Err(unusable) if unused_for.is_some() => return Err(unusable.into()),
        // Images that are left over are found when there is an engine again.
        Err(unusable) => {
            tracing::info!(%unusable, "images of snapshots weren't looked for");
            None
        }
    };
    let bounds = Bounds {
        max_unused: unused_for,
        ..Bounds::NONE
    };
    let wish = Wish {
        bounds,
        now,
        dry_run,
    };
    let tidied = tidy(engine.as_deref(), &store, wish).await;
    match tidied.problems.is_empty() {
        true => Ok(tidied
            .removed
            .into_iter()
            .map(|one| (one.what, one.bytes))
            .collect()),
        false => Err(GcError::Left(tidied.problems)),
    }
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
