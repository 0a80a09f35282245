//! The workspaces that a coordinator holds: files `DIGEST.tar` in one directory.
//!
//! A workspace that no run uses yet may belong to a client that is about to submit it. So each is kept for an hour
//! after it was last asked for, sent or submitted. The file's modification time records this, so it survives a restart
//! of the coordinator.

use super::receive::{Next, Refused, receive};
use phalanx_shared::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a workspace is kept for a client.
const HOLD: Duration = Duration::from_secs(3600);
/// Maximum number of workspaces received concurrently; further ones wait. Each needs a thread and a file.
const AT_ONCE: usize = 24;
/// Maximum number from one peer, which leaves some for others.
const OF_A_PEER: usize = 16;

/// The store of workspaces. Clones share it.
#[derive(Clone, Debug)]
pub struct Workspaces {
    directory: PathBuf,
    /// Locked while a workspace is held or removed, so that these exclude each other.
    change: Arc<Mutex<()>>,
    turns: Arc<Turns>,
}

/// Limits on concurrent uploads.
#[derive(Debug)]
struct Turns {
    all: Arc<Semaphore>,
    peers: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    waiting: AtomicUsize,
}

/// Permission to send a workspace, valid until dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    _own: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Returns whether another upload waits for a turn.
    pub fn is_wanted(&self) -> bool {
        self.turns.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Counts an upload as waiting until dropped.
struct Waits<'t>(&'t AtomicUsize);

impl<'t> Waits<'t> {
    fn begin(waiting: &'t AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workspaces {
    /// Creates a store in a directory, which is created with the first workspace.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Workspaces {
            directory: directory.into(),
            change: Arc::default(),
            turns: Arc::new(Turns {
                all: Arc::new(Semaphore::new(AT_ONCE)),
                peers: Mutex::default(),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// Waits until one more workspace of a peer may be received.
    pub async fn turn(&self, peer: Option<IpAddr>) -> Turn {
        let turns = &self.turns;
        let _waits = Waits::begin(&turns.waiting);
        let of_peer = peer.map(|peer| {
            let mut peers = turns.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.retain(|_, known| known.strong_count() > 0);
            let known = peers.get(&peer).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::new(Semaphore::new(OF_A_PEER));
                peers.insert(peer, Arc::downgrade(&new));
                new
            })
        });
        // Neither semaphore is ever closed.
        let own = match of_peer {
            Some(of_peer) => of_peer.acquire_owned().await.ok(),
            None => None,
        };
        Turn {
            turns: Arc::clone(turns),
            _own: own,
            _of_all: Arc::clone(&turns.all).acquire_owned().await.ok(),
        }
    }

    /// Returns the path where the archive of a workspace is, or would be.
    pub fn path(&self, digest: &str) -> PathBuf {
        self.directory.join(file_name(digest))
    }

    /// Returns whether the workspace exists. If so, keeps it for [`HOLD`].
    pub fn hold(&self, digest: &str) -> io::Result<bool> {
        let _changing = self.changing();
        match File::open(self.path(digest)) {
            Ok(file) => touch(&file).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Receives a workspace. It exists once it is complete and synced and matches its digest. On an error, nothing of
    /// it is left.
    pub fn take(&self, digest: &str, next: Next<'_>) -> Result<(), Refused> {
        crate::private::directory(&self.directory)?;
        let partial = Partial(
            self.directory
                .join(format!(".{}.partial", uuid::Uuid::new_v4())),
        );
        let mut options = File::options();
        let options = options.create_new(true).write(true).read(true).mode(0o600);
        let found = receive(options.open(&partial.0)?, next)?;
        if found != digest {
            return Err(Refused::OtherDigest {
                said: digest.to_owned(),
                found,
            });
        }
        fs::rename(&partial.0, self.path(digest))?;
        // So that the name, too, survives a power cut.
        File::open(&self.directory)?.sync_all()?;
        Ok(())
    }

    /// Removes the partial uploads of a killed coordinator. Call it before any upload starts.
    pub fn clear(&self) {
        for path in entries(&self.directory) {
            if path
                .extension()
                .is_some_and(|extension| extension == "partial")
            {
                let gone = fs::remove_file(&path);
                tracing::info!(path = %path.display(), ?gone, "half a workspace");
            }
        }
    }

    /// Removes workspaces that no run uses and no client is about to submit, or lists them for a dry run. Returns paths
    /// and sizes in bytes.
    pub fn remove_unclaimed(
        &self,
        claimed: &HashSet<String>,
        now: Timestamp,
        dry_run: bool,
    ) -> Vec<(String, u64)> {
        let claimed: HashSet<PathBuf> = claimed.iter().map(|digest| self.path(digest)).collect();
        let unclaimed = entries(&self.directory).filter(|path| !claimed.contains(path));
        let gone = unclaimed.filter_map(|path| {
            let _changing = self.changing();
            let meta = path.symlink_metadata().ok()?;
            let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            let now = Duration::from_micros(u64::try_from(now.0).ok()?);
            if now < changed + HOLD {
                return None;
            }
            if !dry_run && let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "can't remove a workspace");
                return None;
            }
            Some((path.display().to_string(), meta.len()))
        });
        gone.collect()
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_name(digest: &str) -> String {
    format!("{digest}.tar")
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Sets the file's modification time to now.
fn touch(file: &File) -> io::Result<()> {
    use nix::sys::stat::futimens;
    use nix::sys::time::TimeSpec;
    let now = &TimeSpec::UTIME_NOW;
    futimens(file, now, now).map_err(io::Error::from)
}

/// A file that is removed on drop unless it was renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Fails if the file was renamed, which is the normal case.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_proto::workspace::Part;
    use phalanx_shared::workspace_name::Naming;
    use sha2::{Digest, Sha256};

    /// Returns a workspace of one file: its digest, and its parts without the digest.
    fn one_file(text: &str) -> (String, Vec<Part>) {
        let mut naming = Naming::default();
        naming.file("a", false, &hex::encode(Sha256::digest(text)));
        let file = Part::File {
            path: "a".to_owned(),
            executable: false,
            size: text.len() as u64,
        };
        (naming.finish(), vec![file, Part::Data(text.into())])
    }

    fn take(store: &Workspaces, digest: &str, parts: &[Part]) -> Result<(), Refused> {
        let mut parts = parts.iter().cloned();
        store.take(digest, &mut || parts.next())
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        entries(folder).collect()
    }

    #[test]
    fn what_isnt_whole_or_not_what_its_digest_says_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Workspaces::new(folder.path().join("w"));
        let (digest, parts) = one_file("text");
        let other = one_file("other").0;
        assert!(!store.hold(&digest).unwrap());
        for (digest, parts) in [
            (&digest, &parts[..1]),
            (&digest, &parts[..0]),
            (&other, &parts[..]),
        ] {
            assert!(take(&store, digest, parts).is_err());
            assert!(!store.hold(digest).unwrap());
            assert_eq!(files(&store.directory), Vec::<PathBuf>::new());
        }
        take(&store, &digest, &parts).unwrap();
        assert!(store.hold(&digest).unwrap());
        assert_eq!(files(&store.directory), [store.path(&digest)]);
    }

    #[test]
    fn a_kill_in_the_middle_leaves_a_partial_file_that_the_next_start_removes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Workspaces::new(folder.path());
        let (digest, parts) = one_file("text");
        take(&store, &digest, &parts).unwrap();
        fs::write(folder.path().join(".x.partial"), "half").unwrap();
        store.clear();
        assert_eq!(files(folder.path()), [store.path(&digest)]);
    }

    #[test]
    fn what_no_run_uses_goes_an_hour_after_a_client_last_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Workspaces::new(folder.path());
        let (used, parts) = one_file("used");
        take(&store, &used, &parts).unwrap();
        let (unused, parts) = one_file("unused");
        take(&store, &unused, &parts).unwrap();
        let claimed = HashSet::from([used.clone()]);
        let changed = |digest: &str| {
            let changed = fs::metadata(store.path(digest))
                .unwrap()
                .modified()
                .unwrap();
            changed.duration_since(UNIX_EPOCH).unwrap()
        };
        let at = |after: Duration| {
            let now = changed(&unused) + after;
            Timestamp(i64::try_from(now.as_micros()).unwrap() + 1)
        };
        let soon = at(HOLD - Duration::from_secs(1));
        assert!(store.remove_unclaimed(&claimed, soon, false).is_empty());
        // A client asks long after the upload, so the hour starts again.
        let old = File::options()
            .write(true)
            .open(store.path(&unused))
            .unwrap();
        old.set_modified(UNIX_EPOCH).unwrap();
        assert!(store.hold(&unused).unwrap());
        assert!(changed(&unused) > Duration::ZERO);
        assert!(store.remove_unclaimed(&claimed, soon, false).is_empty());
        let late = at(HOLD);
        let path = store.path(&unused).display().to_string();
        let would = store.remove_unclaimed(&claimed, late, true);
        assert_eq!(would[0].0, path);
        assert!(store.path(&unused).exists());
        assert_eq!(store.remove_unclaimed(&claimed, late, false), would);
        assert_eq!(files(folder.path()), [store.path(&used)]);
    }
}
