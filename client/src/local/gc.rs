//! `phalanx gc` on this machine: removes the leftovers of dead agents and the directories of old runs.

use super::Error;
use super::place::{self, Place, at};
use phalanx_agent::identity;
use phalanx_agent::reaper;
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_coordinator::journal::{RunHead, SqliteStore};
use phalanx_coordinator::serve::server::journal_path;
use phalanx_proto::v1::GcResponse;
use phalanx_shared::time::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to remove in addition to the leftovers of dead agents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gc {
    /// Remove runs that finished longer ago than this, in seconds; 0 keeps all.
    pub older_than_s: u64,
    /// Print only what would be removed.
    pub dry_run: bool,
    /// Remove kept stacks before their TTL expires.
    pub kept: bool,
    /// Remove unused images that were built from contexts longer ago than this, in seconds.
    pub images_older_than_s: Option<u64>,
    /// Remove snapshots that no cell has used for this time, in seconds.
    pub snapshots_unused_s: Option<u64>,
}

/// Removes what is no longer needed, or lists what would be removed. Never touches runs in progress.
pub async fn gc(
    state_dir: &Path,
    docker: &DockerSettings,
    wish: Gc,
    now: Timestamp,
) -> Result<GcResponse, Error> {
    let Gc {
        older_than_s,
        dry_run,
        kept,
        images_older_than_s,
        snapshots_unused_s,
    } = wish;
    let mut answer = GcResponse::default();
    if kept {
        let found = phalanx_agent::gc::end_kept(&all_identities(state_dir), docker, dry_run).await;
        answer.removed.extend(found?);
    }
    dead_agents(state_dir, docker, dry_run, &mut answer).await;
    if let Some(age_s) = images_older_than_s {
        let before_s = now.0 / 1_000_000 - i64::try_from(age_s).unwrap_or(i64::MAX);
        let found = phalanx_agent::gc::remove_built(docker, before_s, dry_run).await;
        for (image, bytes) in found? {
            answer.removed.push(format!("image {image}"));
            answer.bytes += bytes;
        }
    }
    let snapshots = phalanx_agent::gc::Snapshots {
        directory: &state_dir.join(place::SNAPSHOTS),
        unused_for: snapshots_unused_s.map(Duration::from_secs),
        now,
        dry_run,
    };
    for (what, bytes) in phalanx_agent::gc::remove_snapshots(docker, snapshots).await? {
        answer.removed.push(what);
        answer.bytes += bytes;
    }
    if older_than_s > 0 {
        let age = i64::try_from(older_than_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let before = Timestamp(now.0.saturating_sub(age));
        for place in place::all(state_dir) {
            old_runs(&place, before, dry_run, &mut answer).await?;
        }
    }
    Ok(answer)
}

/// Returns the directories of all agent identities of this state directory.
fn all_identities(state_dir: &Path) -> Vec<PathBuf> {
    let locals = std::fs::read_dir(state_dir.join(place::AGENTS));
    let locals = locals
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    // The identity of `phalanx agent`.
    std::iter::once(state_dir.join("agent"))
        .chain(locals)
        .collect()
}

/// Removes containers, processes and networks of agents whose identity is free.
async fn dead_agents(
    state_dir: &Path,
    docker: &DockerSettings,
    dry_run: bool,
    answer: &mut GcResponse,
) {
    for dead in identity::take_dead(&state_dir.join(place::AGENTS)) {
        let name = format!("agent {} and what it left", dead.agent());
        if dry_run {
            answer.removed.push(name);
            continue;
        }
        let reaped = reaper::reap_dead(&dead, docker).await;
        if reaped.removed > 0 || reaped.is_over() {
            answer.removed.push(name);
        } else if reaped.left {
            // A kept stack hasn't expired, or an engine doesn't answer.
            tracing::info!(agent = %dead.agent(), "something of this agent is still kept");
        }
        if reaped.is_over() {
            dead.retire();
        }
    }
}

async fn old_runs(
    place: &Place,
    before: Timestamp,
    dry_run: bool,
    answer: &mut GcResponse,
) -> Result<(), Error> {
    let rows = place::rows(place).await;
    let last = |row: &RunHead| row.end.as_ref().map_or(row.submitted, |end| end.finished);
    if rows.is_empty()
        || rows.iter().any(|row| last(row) >= before)
        || place.connect().await.is_ok()
    {
        return Ok(());
    }
    let directory = place.directory();
    let bytes = size(directory);
    if !dry_run {
        // Hold the lock until everything is removed, so that no other process resumes the run meanwhile.
        let Ok(_locked) = SqliteStore::open(&journal_path(directory)).await else {
            return Ok(());
        };
        std::fs::remove_dir_all(directory).map_err(at(directory))?;
    }
    answer
        .removed
        .extend(rows.iter().map(|row| format!("run {}", row.run)));
    answer.bytes += bytes;
    Ok(())
}

fn size(path: &Path) -> u64 {
    let own = path.symlink_metadata().map_or(0, |meta| meta.len());
    let is_directory = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let entries = is_directory
        .then(|| std::fs::read_dir(path))
        .into_iter()
        .flatten()
        .flatten();
    own + entries
        .flatten()
        .map(|entry| size(&entry.path()))
        .sum::<u64>()
}
