//! `phalanx snapshots` on this machine: the store that local agents share.

use super::Error;
use super::place::{SNAPSHOTS, at};
use phalanx_agent::kept_snapshots;
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_agent::snapshot::Store;
use phalanx_proto::v1::{RemoveSnapshotsResponse, SnapshotNotRemoved, SnapshotSummary};
use phalanx_shared::time::Timestamp;
use std::path::Path;

/// Returns the snapshots that are kept here, the most recently used first.
pub fn snapshots(state_dir: &Path, now: Timestamp) -> Result<Vec<SnapshotSummary>, Error> {
    let store = store(state_dir)?;
    let held = store.map(|store| kept_snapshots::list(&store, now));
    let summaries = held.into_iter().flatten().map(|held| SnapshotSummary {
        snapshot: Some(held.into()),
        // Whose they are is clear.
        agents: Vec::new(),
    });
    Ok(summaries.collect())
}

/// Opens the store, if there is one. Looking at it creates nothing.
fn store(state_dir: &Path) -> Result<Option<Store>, Error> {
    let directory = state_dir.join(SNAPSHOTS);
    if !directory.is_dir() {
        return Ok(None);
    }
    Store::open(&directory).map(Some).map_err(at(&directory))
}

/// Removes snapshots with their images. Returns what is gone and what isn't, and why images may still be there.
pub async fn remove_snapshots(
    state_dir: &Path,
    docker: &DockerSettings,
    keys: Vec<String>,
    now: Timestamp,
) -> Result<(RemoveSnapshotsResponse, Option<String>), Error> {
    let mut answer = RemoveSnapshotsResponse::default();
    let Some(store) = store(state_dir)? else {
        return Ok((answer, None));
    };
    let before = snapshots(state_dir, now)?;
    let (left, images) = kept_snapshots::remove_here(&store, docker, keys.clone()).await;
    for summary in before {
        let key = summary.snapshot.as_ref().map(|held| held.key.clone());
        let Some(key) = key.filter(|key| keys.contains(key)) else {
            continue;
        };
        match left.iter().find(|(left, _)| *left == key) {
            None => answer.removed.push(summary),
            Some((_, reason)) => answer.left.push(SnapshotNotRemoved {
                snapshot: Some(summary),
                reason: reason.clone(),
            }),
        }
    }
    Ok((answer, images))
}
