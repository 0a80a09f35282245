//! Removes what a store gives up and what killed processes left of snapshots: files of the store, and images of the engine.
//!
//! `bounds` decides and the store's locks protect what cells use. A snapshot first leaves the store by one rename; its images
//! are found as those that no snapshot of the store has. So a kill in between leaves nothing that the next pass doesn't find.

use super::bounds::{Bounds, Candidate, Useless, Why, given_up};
use super::key::FORMAT;
use super::store::{Entry, Manifest, Removal, Store, TakenOut};
use crate::runtime::contract::RuntimeError;
use crate::runtime::docker::{DockerRuntime, SnapshotImage};
use phalanx_shared::time::Timestamp;
use std::io;
use std::time::Duration;

/// What to give up, besides what no cell can use any more.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// What the store may hold.
    pub bounds: Bounds,
    /// The time now.
    pub now: Timestamp,
    /// Remove nothing.
    pub dry_run: bool,
}

/// Something that was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// What it was, and why it was removed.
    pub what: String,
    /// Its size in bytes, as far as it is known.
    pub bytes: u64,
}

/// Result of [`tidy`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// What was removed, or would be.
    pub removed: Vec<Removed>,
    /// What couldn't be removed or looked for, each with the reason.
    pub problems: Vec<String>,
}

/// Why a snapshot couldn't be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Its files can't be removed.
    #[error("files of the snapshot can't be removed: {0}")]
    Files(#[from] io::Error),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] RuntimeError),
}

/// Removes what the store gives up, and leftovers. Without an engine, images stay until the next time.
pub async fn tidy(engine: Option<&DockerRuntime>, store: &Store, wish: Wish) -> Tidied {
    let own = store.clone();
    let (mut tidied, taken) = match blocking(move || in_store(&own, wish)).await {
        Ok(done) => done,
        Err(error) => {
            let problems = vec![format!("snapshots can't be tidied: {error}")];
            return Tidied {
                problems,
                ..Tidied::default()
            };
        }
    };
    if let Some(engine) = engine {
        let known: Vec<String> = taken.iter().flat_map(|one| images(&one.manifest)).collect();
        match left_over(engine, store, wish.dry_run).await {
            Ok(images) => tidied.removed.extend(
                images
                    .iter()
                    .filter(|image| !known.contains(&image.id))
                    .map(of_image),
            ),
            Err(error) => tidied.problems.push(error.to_string()),
        }
    }
    let erased = blocking(move || taken.into_iter().map(TakenOut::erase).collect::<Vec<_>>());
    match erased.await {
        Ok(erased) => tidied.problems.extend(
            erased
                .into_iter()
                .filter_map(Result::err)
                .map(|error| format!("files of a snapshot can't be removed: {error}")),
        ),
        Err(error) => tidied.problems.push(error.to_string()),
    }
    tidied
}

/// Removes the snapshots with a key and their images, unless a cell uses them.
pub async fn remove(
    engine: &DockerRuntime,
    store: &Store,
    key: &str,
) -> Result<Removal, RemoveError> {
    let (own, key) = (store.clone(), key.to_owned());
    let (removal, taken) = blocking(move || own.take_out_all(&key)).await??;
    let images = remove_images(engine, store).await;
    let erased = blocking(move || taken.into_iter().try_for_each(TakenOut::erase));
    erased.await??;
    images?;
    Ok(removal)
}

/// Removes the images that no snapshot of the store has: of removed snapshots, and what killed agents left half-made. Returns
/// how many there were.
pub async fn remove_images(engine: &DockerRuntime, store: &Store) -> Result<usize, RuntimeError> {
    Ok(left_over(engine, store, false).await?.len())
}

/// Does a pass over the store's directory. Returns what it took out, of which the images and files are still there.
fn in_store(store: &Store, wish: Wish) -> (Tidied, Vec<TakenOut>) {
    let mut tidied = Tidied::default();
    let mut taken = Vec::new();
    if let Err(error) = give_up(store, wish, &mut tidied, &mut taken) {
        let problem = format!("snapshots can't be tidied: {error}");
        tidied.problems.push(problem);
    }
    (tidied, taken)
}

fn give_up(
    store: &Store,
    wish: Wish,
    tidied: &mut Tidied,
    taken: &mut Vec<TakenOut>,
) -> io::Result<()> {
    let half_made = store.half_made()?;
    tidied
        .removed
        .extend(half_made.into_iter().map(|half| Removed {
            what: format!("half-made snapshot {}", short(&half.key)),
            bytes: half.bytes,
        }));
    if !wish.dry_run {
        store.sweep()?;
    }
    let entries = store.entries()?;
    let candidates: Vec<Candidate> = entries.iter().map(candidate).collect();
    for (n, why) in given_up(&candidates, &wish.bounds, wish.now) {
        let Some(entry) = entries.get(n) else {
            continue;
        };
        if !wish.dry_run {
            match store.take_out(&entry.kept)? {
                Some(one) => taken.push(one),
                // A cell has begun to use it, or another process was sooner.
                None => continue,
            }
        }
        tidied.removed.push(of_entry(entry, why));
    }
    Ok(())
}

fn candidate(entry: &Entry) -> Candidate {
    let manifest = &entry.kept.manifest;
    let useless = if entry.broken {
        Some(Useless::Broken)
    } else if entry.replaced {
        Some(Useless::Replaced)
    } else {
        // A newer version may have made it, and be used again.
        (manifest.format < FORMAT).then_some(Useless::Unreadable)
    };
    Candidate {
        bytes: manifest.bytes,
        made: Timestamp(manifest.made_us),
        last_used: entry.last_used,
        max_age: manifest.max_age_s.map(Duration::from_secs),
        useless,
        held: entry.kept.is_held(),
    }
}

fn of_entry(entry: &Entry, why: Why) -> Removed {
    let Manifest {
        key, spec, group, ..
    } = &entry.kept.manifest;
    let of = match spec.is_empty() {
        true => String::new(),
        false => format!(" of {spec} ({group})"),
    };
    Removed {
        what: format!("snapshot {}{of}: {why}", short(key)),
        bytes: entry.kept.manifest.bytes,
    }
}

fn of_image(image: &SnapshotImage) -> Removed {
    let id = image.id.trim_start_matches("sha256:");
    let of = match &image.service {
        Some(service) => format!("removed snapshot {} ({service})", short(&image.key)),
        None => format!("half-made snapshot {}", short(&image.key)),
    };
    Removed {
        what: format!("image {} of {of}", short(id)),
        // The engine tells its size only together with the layers that others share.
        bytes: 0,
    }
}

/// Removes the images that no snapshot of the store has, or only returns them.
async fn left_over(
    engine: &DockerRuntime,
    store: &Store,
    dry_run: bool,
) -> Result<Vec<SnapshotImage>, RuntimeError> {
    let listed = engine.snapshot_images(store.id()).await?;
    if listed.is_empty() {
        return Ok(listed);
    }
    let own = store.clone();
    // After the list was made: what is made later isn't in it.
    let left = blocking(move || {
        let left = listed.into_iter().filter(|image| is_left_over(&own, image));
        left.collect::<Vec<_>>()
    });
    let left = left.await.map_err(|error| {
        let why = format!("looking for images of snapshots: {error}");
        RuntimeError::new(crate::runtime::contract::Fault::Machine, why)
    })?;
    if dry_run {
        return Ok(left);
    }
    let mut removed = Vec::new();
    for image in left {
        if engine.remove_snapshot_image(&image.id).await? {
            removed.push(image);
        }
    }
    Ok(removed)
}

fn is_left_over(store: &Store, image: &SnapshotImage) -> bool {
    // In this order: one that has just been made is kept before its lock ends.
    !store.is_being_made(&image.key)
        && (image.service.is_none() || !store.claims(&image.key, &image.id))
}

fn images(manifest: &Manifest) -> Vec<String> {
    let services = manifest.saved.services.iter();
    let images = services.filter_map(|one| one.image.as_ref());
    images.map(|image| image.id.clone()).collect()
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::contract::{SavedImage, SavedService};

    const NOW: Timestamp = Timestamp(1_000_000_000_000_000);

    fn key(n: u8) -> String {
        format!("{n:02x}").repeat(32)
    }

    fn keep(store: &Store, n: u8, change: impl FnOnce(&mut Manifest)) -> super::super::store::Held {
        let making = store.begin(&key(n)).unwrap().unwrap();
        std::fs::write(making.directory().join("0.tar"), "volume").unwrap();
        let mut manifest = Manifest {
            key: key(n),
            spec: "shop".to_owned(),
            group: "prepare".to_owned(),
            made_us: i64::from(n),
            bytes: 10,
            ..Manifest::default()
        };
        change(&mut manifest);
        making.keep(&manifest, b"").unwrap()
    }

    async fn run(store: &Store, max_bytes: u64, dry_run: bool) -> Tidied {
        let wish = Wish {
            bounds: Bounds {
                max_bytes: Some(max_bytes),
                ..Bounds::NONE
            },
            now: NOW,
            dry_run,
        };
        tidy(None, store, wish).await
    }

    fn kept(store: &Store) -> Vec<String> {
        let all = store.list().unwrap();
        all.into_iter().map(|one| one.key).collect()
    }

    fn making(directory: &std::path::Path) -> usize {
        std::fs::read_dir(directory.join("making")).unwrap().count()
    }

    #[tokio::test]
    async fn the_least_recently_used_ones_go_and_what_a_cell_uses_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = keep(&store, 1, |_| {});
        drop(keep(&store, 2, |_| {}));
        drop(keep(&store, 3, |_| {}));
        // Used last.
        drop(store.hold(&store.find(&key(2)).unwrap()).unwrap());
        let would = run(&store, 20, true).await;
        assert_eq!(kept(&store), [key(1), key(2), key(3)]);
        let done = run(&store, 20, false).await;
        assert_eq!(would, done);
        assert_eq!(kept(&store), [key(1), key(2)]);
        let removed = Removed {
            what: "snapshot 030303030303 of shop (prepare): all together may take 20 B, and others were used later".to_owned(),
            bytes: 10,
        };
        assert_eq!((done.removed, done.problems), (vec![removed], vec![]));
        assert_eq!(run(&store, 0, false).await.removed.len(), 1);
        assert_eq!(kept(&store), [key(1)], "a cell uses it");
        drop(first);
        assert_eq!(run(&store, 0, false).await.removed.len(), 1);
        assert!(kept(&store).is_empty() && making(dir.path()) == 0);
    }

    #[tokio::test]
    async fn what_no_cell_can_use_goes_without_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let now_us = NOW.0;
        drop(keep(&store, 1, |one| one.max_age_s = Some(60)));
        drop(keep(&store, 2, |one| {
            one.max_age_s = Some(60);
            one.made_us = now_us - 59_000_000;
        }));
        drop(keep(&store, 3, |one| one.format = FORMAT - 1));
        drop(keep(&store, 4, |one| one.format = FORMAT + 1));
        let replaced = keep(&store, 5, |_| {});
        drop(keep(&store, 5, |one| one.made_us = 100));
        let broken = keep(&store, 6, |_| {});
        broken.condemn().unwrap();
        // Damaged: nobody can read what it is.
        let damaged = keep(&store, 7, |_| {}).kept().directory.clone();
        std::fs::write(damaged.join("manifest.json"), "{").unwrap();
        let half = dir.path().join("making").join(format!("{}.x", key(8)));
        std::fs::create_dir(&half).unwrap();
        std::fs::write(half.join("0.tar"), "half").unwrap();
        let done = run(&store, u64::MAX, false).await;
        assert_eq!(done.removed.len(), 4, "{done:#?}");
        assert_eq!(
            (done.removed[0].what.as_str(), done.removed[0].bytes),
            ("half-made snapshot 080808080808", 4)
        );
        drop((replaced, broken));
        let done = run(&store, u64::MAX, false).await;
        let mut why: Vec<&str> = done.removed.iter().map(|one| one.what.as_str()).collect();
        why.sort_unstable();
        assert_eq!(
            why,
            [
                "snapshot 050505050505 of shop (prepare): it was made again",
                "snapshot 060606060606 of shop (prepare): a service couldn't run with it"
            ]
        );
        let mut left = kept(&store);
        left.sort();
        assert_eq!(left, [key(2), key(4), key(5)]);
        assert_eq!(making(dir.path()), 0);
    }

    #[test]
    fn only_images_that_no_snapshot_has_are_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let with_image = |id: &str| {
            let image = SavedImage {
                id: id.to_owned(),
                bytes: 1,
            };
            vec![SavedService {
                image: Some(image),
                ..SavedService::default()
            }]
        };
        let older = keep(&store, 1, |one| one.saved.services = with_image("older"));
        drop(keep(&store, 1, |one| {
            one.saved.services = with_image("newer")
        }));
        drop(keep(&store, 3, |one| one.format = FORMAT + 1));
        let made = store.begin(&key(2)).unwrap();
        let left = |key: String, id: &str, service: Option<&str>| {
            let image = SnapshotImage {
                id: id.to_owned(),
                key,
                service: service.map(str::to_owned),
            };
            is_left_over(&store, &image)
        };
        let db = Some("db");
        assert!(!left(key(1), "newer", db) && !left(key(1), "older", db));
        assert!(left(key(1), "another", db) && left(key(9), "newer", db));
        assert!(
            !left(key(2), "any", db) && !left(key(2), "any", None),
            "it is being made"
        );
        assert!(left(key(1), "half", None));
        assert!(
            !left(key(3), "any", db),
            "only a newer version knows its images"
        );
        drop(made);
        assert!(left(key(2), "any", db) && left(key(2), "any", None));
        older.discard(&store).unwrap();
        assert!(left(key(1), "older", db) && !left(key(1), "newer", db));
    }
}
