//! Tells the coordinator which snapshots this agent keeps, and removes those that it names.
//!
//! The list holds what a snapshot's manifest says of where it comes from: names, sizes, times. Captures are sealed in other
//! files and aren't opened. Agents with the same directory keep the same snapshots, so what others change is looked at now
//! and then.

use crate::clock::Clock;
use crate::gc;
use crate::link::actor::{Handle, SnapshotRemover};
use crate::runtime::docker::{DockerRuntime, DockerSettings};
use crate::snapshot::key::FORMAT;
use crate::snapshot::{self, Manifest, Removal, Store};
use futures::future::BoxFuture;
use phalanx_proto::limit::{NAME_BYTES, SNAPSHOTS};
use phalanx_proto::link::{HeldSnapshot, Snapshots};
use phalanx_shared::time::Timestamp;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Time between two looks for what other agents with the same directory have changed.
const LOOKS: Duration = Duration::from_secs(3);
/// Looks between two reports of when snapshots were last used by other agents, and of those that became too old.
const SLOWER: u32 = 20;
/// Maximum number of orders that wait. Each is a user's, and takes seconds.
const ORDERS: usize = 64;

/// Returns the snapshots of a store as the coordinator is told of them.
pub async fn told(store: Store, now: Timestamp) -> Snapshots {
    let id = store.id().to_owned();
    let read = tokio::task::spawn_blocking(move || list(&store, now)).await;
    Snapshots {
        held: read.unwrap_or_default(),
        store: id,
        left: Vec::new(),
    }
}

/// Returns the snapshots of a store, the most recently used ones first. Blocks.
pub fn list(store: &Store, now: Timestamp) -> Vec<HeldSnapshot> {
    let kept = store.list().unwrap_or_default();
    let mut held: Vec<HeldSnapshot> = kept
        .into_iter()
        .map(|manifest| {
            let used = store.last_used(&manifest.key).map(time_of);
            held(manifest, used, now)
        })
        .collect();
    held.sort_by(|one, other| (other.used, &other.key).cmp(&(one.used, &one.key)));
    held.truncate(SNAPSHOTS);
    held
}

fn held(manifest: Manifest, used: Option<Timestamp>, now: Timestamp) -> HeldSnapshot {
    let made = Timestamp(manifest.made_us);
    let too_old = manifest
        .max_age_s
        .is_some_and(|age| now.since(made) > Duration::from_secs(age));
    // No cell can use it.
    let useless = too_old || manifest.format != FORMAT;
    HeldSnapshot {
        key: manifest.key,
        family: match useless {
            true => String::new(),
            false => manifest.family,
        },
        spec: line(&manifest.spec),
        group: line(&manifest.group),
        bytes: manifest.bytes,
        made,
        used: used.unwrap_or(made).max(made),
        run: manifest.run,
        cell: manifest.cell,
        cell_name: line(&manifest.cell_name),
        setup_us: manifest.setup_us,
        save_us: manifest.save_us,
    }
}

/// Returns a name as one short line, for tables.
fn line(name: &str) -> String {
    let mut line = String::new();
    for character in name.chars() {
        let shown = match character.is_control() {
            true => ' ',
            false => character,
        };
        if line.len() + shown.len_utf8() > NAME_BYTES {
            break;
        }
        line.push(shown);
    }
    line
}

fn time_of(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The way to the task that removes snapshots.
pub struct Remover(mpsc::Sender<Vec<String>>);

impl SnapshotRemover for Remover {
    fn remove(&self, keys: Vec<String>) {
        if self.0.try_send(keys).is_err() {
            tracing::warn!("too many orders to remove snapshots at once: one is ignored");
        }
    }
}

/// The task that reports what is kept, before it runs.
pub struct Recount {
    store: Store,
    engine: Arc<DockerRuntime>,
    clock: Arc<dyn Clock>,
    orders: mpsc::Receiver<Vec<String>>,
}

impl Recount {
    /// Creates the task and the way to it.
    pub fn new(
        store: Store,
        engine: Arc<DockerRuntime>,
        clock: Arc<dyn Clock>,
    ) -> (Remover, Recount) {
        let (sender, orders) = mpsc::channel(ORDERS);
        let recount = Recount {
            store,
            engine,
            clock,
            orders,
        };
        (Remover(sender), recount)
    }

    /// Reports to the link whenever what is kept has changed, until the link is gone.
    pub async fn run(self, link: Handle) {
        let Recount {
            store,
            engine,
            clock,
            mut orders,
        } = self;
        let mut changes = store.changes();
        let mut looks = tokio::time::interval(LOOKS);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut before, mut seen, mut count) = (None, None, 0);
        loop {
            let mut left = None;
            tokio::select! {
                order = orders.recv() => match order {
                    Some(keys) => left = Some(remove(&engine, &store, keys).await),
                    None => return,
                },
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                _ = looks.tick() => {
                    count = (count + 1) % SLOWER;
                    let changed_at = store.changed_at();
                    if std::mem::replace(&mut seen, changed_at) == changed_at && count != 0 {
                        continue;
                    }
                }
            }
            let answers = left.is_some();
            let mut now = told(store.clone(), clock.wall()).await;
            now.left = left.unwrap_or_default();
            if answers || before.as_ref() != Some(&now) {
                link.keeps(now.clone()).await;
            }
            now.left = Vec::new();
            before = Some(now);
        }
    }
}

/// Removes snapshots. Returns those that are still there, each with the reason.
async fn remove(engine: &DockerRuntime, store: &Store, keys: Vec<String>) -> Vec<(String, String)> {
    let left = remove_files(store, keys).await;
    if let Err(error) = snapshot::remove_images(engine, store).await {
        // The next start of an agent tries again.
        tracing::warn!(%error, "images of removed snapshots are still there");
    }
    left
}

async fn remove_files(store: &Store, keys: Vec<String>) -> Vec<(String, String)> {
    let mut left = Vec::new();
    for key in keys {
        let (store, wanted) = (store.clone(), key.clone());
        let removed = tokio::task::spawn_blocking(move || store.remove(&wanted)).await;
        let why = match removed {
            Ok(Ok(Removal::Removed | Removal::NotKept)) => continue,
            Ok(Ok(Removal::InUse)) => "a cell uses it".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        left.push((key, why));
    }
    left
}

/// Snapshots that are still there, each with the reason, and why images may still be there, if so.
pub type NotRemoved = (Vec<(String, String)>, Option<String>);

/// Removes snapshots of a directory whose agents may run or not.
pub fn remove_here<'a>(
    store: &'a Store,
    docker: &'a DockerSettings,
    keys: Vec<String>,
) -> BoxFuture<'a, NotRemoved> {
    Box::pin(async move {
        let left = remove_files(store, keys).await;
        let images = match gc::connect(docker).await {
            Ok(engine) => {
                let removed = snapshot::remove_images(&engine, store).await;
                removed.err().map(|error| error.reason)
            }
            Err(unusable) => Some(unusable.to_string()),
        };
        (left, images)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn names_are_short_lines() {
        assert_eq!(line("a\n\u{1b}b"), "a  b");
        let long = line(&"ä".repeat(NAME_BYTES));
        assert!(long.len() <= NAME_BYTES && long.len() > NAME_BYTES - 2);
    }

    #[test]
    fn what_no_cell_can_use_has_no_family() {
        let manifest = || Manifest {
            family: "fa".to_owned(),
            made_us: 1_000_000,
            max_age_s: Some(10),
            ..Manifest::default()
        };
        let at = |us| held(manifest(), None, Timestamp(us));
        assert_eq!(at(11_000_000).family, "fa");
        assert_eq!(at(11_000_001).family, "");
        assert_eq!(at(11_000_001).used, Timestamp(1_000_000));
        let other = Manifest {
            format: FORMAT + 1,
            ..manifest()
        };
        assert_eq!(held(other, None, Timestamp(0)).family, "");
    }

    #[test]
    fn the_most_recently_used_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut changes = store.changes();
        for (digit, made_us) in [("a", 5), ("b", 7), ("c", 6)] {
            let key = digit.repeat(64);
            let making = store.begin(&key).unwrap().unwrap();
            let manifest = Manifest {
                key,
                made_us,
                ..Manifest::default()
            };
            making.keep(&manifest, b"").unwrap();
        }
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let kept = store.find(&"a".repeat(64)).unwrap();
        drop(store.hold(&kept).unwrap().unwrap());
        assert!(changes.has_changed().unwrap());
        let mut used = std::fs::File::options();
        let used = used.write(true).open(kept.directory.join("used"));
        let later = SystemTime::now() + Duration::from_secs(60);
        used.unwrap().set_modified(later).unwrap();
        let listed = list(&store, Timestamp(0));
        let keys: Vec<&str> = listed.iter().map(|one| &one.key[..1]).collect();
        assert_eq!(keys[0], "a");
        assert_eq!(keys.len(), 3);
        changes.mark_unchanged();
        store.remove(&"a".repeat(64)).unwrap();
        assert!(changes.has_changed().unwrap());
        assert_eq!(list(&store, Timestamp(0)).len(), 2);
    }
}
