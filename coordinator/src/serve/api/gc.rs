//! Gc: removes old runs from the journal, and files that belong to no run.

use super::status::of_store;
use crate::dispatch::artifacts::ArtifactStore;
use crate::journal::Write;
use crate::supervisor::Handle;
use crate::workspace::Workspaces;
use phalanx_proto::v1;
use phalanx_shared::id::RunId;
use phalanx_shared::time::Timestamp;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::Status;

/// Subdirectory of the state directory for logs, with one directory per run.
pub const LOGS: &str = "logs";
/// Subdirectory of the state directory for packed workspaces, `DIGEST.tar`.
pub const WORKSPACES: &str = "workspaces";

/// Removes what isn't needed any more, or lists what would be removed.
pub(super) async fn gc(
    handle: &Handle,
    workspaces: &Workspaces,
    artifacts: &ArtifactStore,
    state_dir: &Path,
    request: v1::GcRequest,
) -> Result<v1::GcResponse, Status> {
    let v1::GcRequest {
        older_than_s,
        dry_run,
    } = request;
    let store = handle.journal.store();
    let mut old = Vec::new();
    if older_than_s > 0 {
        let age = i64::try_from(older_than_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let mut before = handle.clock.wall();
        before.0 = before.0.saturating_sub(age);
        old = store.settled_before(before).await.map_err(of_store)?;
        old.extend(parked_before(handle, before).await?);
    }
    remove(handle, workspaces, artifacts, state_dir, old, dry_run).await
}

/// Removes runs that finished longer ago than `keep`, with their logs and artifacts. A coordinator does this periodically.
pub(crate) async fn tidy(
    handle: &Handle,
    workspaces: &Workspaces,
    artifacts: &ArtifactStore,
    state_dir: &Path,
    keep: Duration,
) -> Result<v1::GcResponse, Status> {
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let mut before = handle.clock.wall();
    before.0 = before.0.saturating_sub(keep);
    let old = handle.journal.store().settled_before(before).await;
    remove(
        handle,
        workspaces,
        artifacts,
        state_dir,
        old.map_err(of_store)?,
        false,
    )
    .await
}

/// Removes runs, and files that belong to no run.
async fn remove(
    handle: &Handle,
    workspaces: &Workspaces,
    artifacts: &ArtifactStore,
    state_dir: &Path,
    old: Vec<RunId>,
    dry_run: bool,
) -> Result<v1::GcResponse, Status> {
    let store = handle.journal.store();
    let gone: HashSet<RunId> = old.iter().cloned().collect();
    let mut removed: Vec<String> = old.iter().map(|run| format!("run {run}")).collect();
    if !dry_run && !old.is_empty() {
        old.iter().for_each(|run| handle.registry.unpark(run));
        let writes = old.into_iter().map(|run| Write::Forget { run }).collect();
        handle
            .journal
            .append(writes)
            .await
            .await
            .map_err(of_store)?;
    }
    // Before the rows are read: a run that starts in the meantime has files only once it has a row.
    let logs = state_dir.join(LOGS);
    let of_runs = artifacts.clone();
    let listed = tokio::task::spawn_blocking(move || (entries(&logs), of_runs.list()));
    let (listed, listed_artifacts) = listed.await.map_err(|e| Status::internal(e.to_string()))?;
    // Doesn't include the workspaces of the removed runs.
    let digests = store.workspaces().await.map_err(of_store)?;
    let rows = store.runs(u32::MAX, false, None).await.map_err(of_store)?;
    let kept = rows.iter().filter(|row| !gone.contains(&row.run));
    let runs: HashSet<String> = kept.map(|row| row.run.to_string()).collect();
    let unfinished = rows.iter().filter(|row| !row.settled);
    let unfinished: HashSet<String> = unfinished.map(|row| row.run.to_string()).collect();
    let (workspaces, artifacts) = (workspaces.clone(), artifacts.clone());
    let now = handle.clock.wall();
    let files = tokio::task::spawn_blocking(move || {
        let mut found = orphans(listed, &runs, dry_run);
        found.extend(artifacts.sweep(listed_artifacts, &runs, &unfinished, dry_run));
        found.extend(workspaces.remove_unclaimed(&digests, now, dry_run));
        found
    });
    let files = files.await.map_err(|e| Status::internal(e.to_string()))?;
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    removed.extend(files.into_iter().map(|(path, _)| path));
    Ok(v1::GcResponse { removed, bytes })
}

/// Returns parked runs that were submitted before a time. They can't continue, so they will never finish.
async fn parked_before(handle: &Handle, before: Timestamp) -> Result<Vec<RunId>, Status> {
    let mut old = Vec::new();
    for (run, _) in handle.registry.all_parked() {
        let row = handle.journal.store().run(&run).await.map_err(of_store)?;
        old.extend(row.filter(|row| row.new.submitted < before).map(|_| run));
    }
    Ok(old)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Returns the entries whose names aren't in `claimed`, with their sizes. Removes them unless it is a dry run.
fn orphans(listed: Vec<PathBuf>, claimed: &HashSet<String>, dry_run: bool) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for path in listed {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if claimed.contains(&*name) {
            continue;
        }
        let bytes = size(&path);
        let gone = match (dry_run, path.is_dir()) {
            (true, _) => Ok(()),
            (false, true) => std::fs::remove_dir_all(&path),
            (false, false) => std::fs::remove_file(&path),
        };
        match gone {
            Ok(()) => found.push((path.display().to_string(), bytes)),
            Err(error) => tracing::warn!(path = %path.display(), %error, "can't remove"),
        }
    }
    found
}

fn size(path: &Path) -> u64 {
    let own = path.symlink_metadata().map_or(0, |meta| meta.len());
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| size(&entry.path())).sum::<u64>()
}
