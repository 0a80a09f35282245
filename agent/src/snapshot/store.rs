//! The directory in which an agent's machine keeps snapshots. All agents with this directory share it.
//!
//! ```text
//! id                      id of the store, the value of a label of its images
//! seal                    key that seals captures
//! kept/KEY/manifest.json  what the snapshot holds, without captures
//! kept/KEY/captures       captures and results, sealed
//! kept/KEY/N.tar          a volume
//! used/KEY                its time is that of the last use
//! making/KEY.lock         locked by the process that makes the snapshot
//! making/KEY.…            half-made, or being removed
//! ```
//!
//! A snapshot appears by one rename of a directory whose files are synced, and vanishes by one rename. So whatever a killed
//! process leaves is in `making`, and nothing reads that. All functions here block.

use super::seal::{LENGTH, Seal};
use crate::private;
use crate::runtime::contract::Saved;
use phalanx_shared::id::{CellId, RunId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

const KEPT: &str = "kept";
const MAKING: &str = "making";
const USED: &str = "used";
const MANIFEST: &str = "manifest.json";
const CAPTURES: &str = "captures";
/// Maximum size of a manifest and of sealed captures: far more than what a cell may hold.
const MAX_FILE: u64 = 256 << 20;

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// The snapshot's key.
    pub key: String,
    /// Name of the spec.
    pub spec: String,
    /// Name of the group.
    pub group: String,
    /// Path of the group.
    pub path: String,
    /// Cell that made it.
    pub cell: CellId,
    /// Run that made it.
    pub run: RunId,
    /// When it was made, in Unix microseconds.
    pub made_us: i64,
    /// How long the group's steps took, in microseconds.
    pub setup_us: u64,
    /// How long stopping, saving and starting the services took, in microseconds.
    pub save_us: u64,
    /// Total size of its files and images in bytes.
    pub bytes: u64,
    /// Maximum age in seconds, if the spec limits it.
    #[serde(default)]
    pub max_age_s: Option<u64>,
    /// Number of steps that it stands for.
    pub steps: u64,
    /// The saved containers and volumes.
    #[serde(flatten)]
    pub saved: Saved,
}

impl Default for Manifest {
    fn default() -> Self {
        Manifest {
            format: super::key::FORMAT,
            key: String::new(),
            spec: String::new(),
            group: String::new(),
            path: String::new(),
            cell: CellId(String::new()),
            run: RunId(String::new()),
            made_us: 0,
            setup_us: 0,
            save_us: 0,
            bytes: 0,
            max_age_s: None,
            steps: 0,
            saved: Saved::default(),
        }
    }
}

/// A store of snapshots.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    id: String,
    seal: Seal,
}

/// A snapshot that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it holds.
    pub manifest: Manifest,
    /// The directory with its files.
    pub directory: PathBuf,
}

/// A snapshot that is being made. If it is dropped, what was made of it is removed.
#[derive(Debug)]
pub struct Making {
    lock: File,
    lock_path: PathBuf,
    key: String,
    directory: PathBuf,
    kept: PathBuf,
}

impl Store {
    /// Opens the store in a directory, which is created if it is missing.
    pub fn open(directory: &Path) -> io::Result<Store> {
        private::directory(directory)?;
        for name in [KEPT, MAKING, USED] {
            private::directory(&directory.join(name))?;
        }
        let id = made_once(&directory.join("id"), || {
            Some(uuid::Uuid::new_v4().simple().to_string().into_bytes())
        })?;
        let seal = made_once(&directory.join("seal"), || {
            Seal::random().map(|bytes| bytes.to_vec())
        })?;
        let seal: [u8; LENGTH] = seal.try_into().map_err(|_| {
            let path = directory.join("seal");
            io::Error::other(format!(
                "{}: it doesn't have {LENGTH} bytes",
                path.display()
            ))
        })?;
        let id = String::from_utf8(id).map_err(io::Error::other)?;
        Ok(Store {
            inner: Arc::new(Inner {
                directory: directory.to_owned(),
                id,
                seal: Seal::new(seal),
            }),
        })
    }

    /// Returns the store's id.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Returns the store's key.
    pub fn seal(&self) -> &Seal {
        &self.inner.seal
    }

    fn at(&self, name: &str) -> PathBuf {
        self.inner.directory.join(name)
    }

    /// Returns the snapshot with a key, if it is kept and of this version's format.
    pub fn find(&self, key: &str) -> Option<Kept> {
        let directory = self.at(KEPT).join(safe(key)?);
        let manifest = manifest(&directory).ok()?;
        (manifest.key == key && manifest.format == super::key::FORMAT).then_some(Kept {
            manifest,
            directory,
        })
    }

    /// Returns all snapshots that are kept, oldest first. Leaves out what can't be read.
    pub fn list(&self) -> io::Result<Vec<Manifest>> {
        let mut all: Vec<Manifest> = fs::read_dir(self.at(KEPT))?
            .flatten()
            .filter_map(|entry| manifest(&entry.path()).ok())
            .collect();
        all.sort_by(|one, other| (one.made_us, &one.key).cmp(&(other.made_us, &other.key)));
        Ok(all)
    }

    /// Returns the total size of all snapshots.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.list()?.iter().map(|one| one.bytes).sum())
    }

    /// Notes that a snapshot is used.
    pub fn use_now(&self, key: &str) {
        if let Some(key) = safe(key) {
            let _ = private::write(&self.at(USED).join(key), "");
        }
    }

    /// Returns when a snapshot was last used, or made if it never was.
    pub fn last_used(&self, key: &str) -> Option<SystemTime> {
        let key = safe(key)?;
        let of = |name: &str| self.at(name).join(key).metadata().ok()?.modified().ok();
        of(USED).max(of(KEPT))
    }

    /// Removes a snapshot. Cells that restore it at the moment may fail to, and then run its steps. Its images are removed
    /// by their labels.
    pub fn remove(&self, key: &str) -> io::Result<()> {
        let key = safe(key).ok_or_else(|| io::Error::other("no key of a snapshot"))?;
        let gone = self.at(MAKING).join(half(key));
        match fs::rename(self.at(KEPT).join(key), &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        let _ = fs::remove_file(self.at(USED).join(key));
        fs::remove_dir_all(&gone)
    }

    /// Begins to make a snapshot. `None` if another cell makes it at the moment.
    pub fn begin(&self, key: &str) -> io::Result<Option<Making>> {
        let key = safe(key).ok_or_else(|| io::Error::other("no key of a snapshot"))?;
        let lock_path = self.at(MAKING).join(format!("{key}.lock"));
        let Some(lock) = locked(&lock_path)? else {
            return Ok(None);
        };
        let directory = self.at(MAKING).join(half(key));
        private::directory(&directory)?;
        Ok(Some(Making {
            lock,
            lock_path,
            key: key.to_owned(),
            directory,
            kept: self.at(KEPT).join(key),
        }))
    }

    /// Returns whether a cell is making the snapshot with this key at the moment.
    pub fn is_being_made(&self, key: &str) -> bool {
        let Some(key) = safe(key) else { return false };
        let path = self.at(MAKING).join(format!("{key}.lock"));
        // Whoever looks must not keep others from beginning: a shared lock is given back at once.
        File::open(path).is_ok_and(|lock| lock.try_lock_shared().is_err())
    }

    /// Removes what killed processes left half-made. Returns how many of them there were.
    pub fn sweep(&self) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(self.at(MAKING))?.flatten() {
            let name = entry.file_name();
            let Some(key) = name.to_str().and_then(|name| name.split('.').next()) else {
                continue;
            };
            let lock_path = self.at(MAKING).join(format!("{key}.lock"));
            let Ok(Some(lock)) = locked(&lock_path) else {
                continue;
            };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                fs::remove_dir_all(entry.path())?;
                swept += 1;
            }
            let _ = fs::remove_file(&lock_path);
            drop(lock);
        }
        Ok(swept)
    }
}

impl Making {
    /// Returns the directory in which to make its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the snapshot visible, in place of an older one with the same key. `sealed` holds its captures.
    pub fn keep(self, manifest: &Manifest, sealed: &[u8]) -> io::Result<()> {
        private::write(&self.directory.join(CAPTURES), sealed)?;
        let text = serde_json::to_vec_pretty(manifest)?;
        private::write(&self.directory.join(MANIFEST), text)?;
        for entry in fs::read_dir(&self.directory)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&self.directory)?.sync_all()?;
        let older = self.directory.with_file_name(half(&self.key));
        match fs::rename(&self.kept, &older) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(&self.directory, &self.kept)?;
        if let Some(parent) = self.kept.parent() {
            File::open(parent)?.sync_all()?;
        }
        let _ = fs::remove_dir_all(older);
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        // Before the lock is released: whoever opened the file meanwhile notices that it is another one.
        let _ = fs::remove_file(&self.lock_path);
        let _ = self.lock.unlock();
    }
}

impl Kept {
    /// Returns the sealed captures.
    pub fn captures(&self) -> io::Result<Vec<u8>> {
        read(&self.directory.join(CAPTURES))
    }
}

/// Locks a file, which is created if it is missing. `None` if another process or cell has the lock.
fn locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = private::file()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        // The one who had it may have removed the file.
        let same = path
            .metadata()
            .is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino()));
        if same {
            return Ok(Some(file));
        }
    }
}

/// Returns the contents of a file, which the first one who needs it makes.
fn made_once(path: &Path, make: impl FnOnce() -> Option<Vec<u8>>) -> io::Result<Vec<u8>> {
    match read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    let bytes = make().ok_or_else(|| io::Error::other("no random numbers"))?;
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let own = PathBuf::from(own);
    private::write(&own, bytes)?;
    File::open(&own)?.sync_all()?;
    let linked = fs::hard_link(&own, path);
    fs::remove_file(&own)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => read(path),
    }
}

fn manifest(directory: &Path) -> io::Result<Manifest> {
    Ok(serde_json::from_slice(&read(&directory.join(MANIFEST))?)?)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns a key that can be a file's name.
fn safe(key: &str) -> Option<&str> {
    let fits = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then_some(key)
}

fn half(key: &str) -> String {
    format!("{key}.{}", uuid::Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn of(key: &str) -> Manifest {
        Manifest {
            format: super::super::key::FORMAT,
            key: key.to_owned(),
            bytes: 5,
            ..Manifest::default()
        }
    }

    fn make(store: &Store, text: &str) {
        let making = store.begin(KEY).unwrap().unwrap();
        fs::write(making.directory().join("0.tar"), text).unwrap();
        making.keep(&of(KEY), text.as_bytes()).unwrap();
    }

    #[test]
    fn a_snapshot_is_there_only_when_all_of_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let making = store.begin(KEY).unwrap().unwrap();
        fs::write(making.directory().join("0.tar"), "half").unwrap();
        assert!(store.find(KEY).is_none() && store.is_being_made(KEY));
        assert!(store.begin(KEY).unwrap().is_none());
        drop(making);
        assert!(!store.is_being_made(KEY));
        assert_eq!(fs::read_dir(dir.path().join(MAKING)).unwrap().count(), 0);
        make(&store, "one");
        let kept = store.find(KEY).unwrap();
        assert_eq!(kept.manifest, of(KEY));
        assert_eq!(kept.captures().unwrap(), b"one");
        make(&store, "two");
        assert_eq!(store.find(KEY).unwrap().captures().unwrap(), b"two");
        assert_eq!(
            (store.list().unwrap().len(), store.bytes().unwrap()),
            (1, 5)
        );
        store.remove(KEY).unwrap();
        store.remove(KEY).unwrap();
        assert!(store.find(KEY).is_none());
        assert_eq!(fs::read_dir(dir.path().join(MAKING)).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_is_being_made_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let other = KEY.replace('0', "f");
        let left = dir.path().join(MAKING).join(half(&other));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("0.tar"), "x").unwrap();
        let making = store.begin(KEY).unwrap().unwrap();
        assert_eq!(store.sweep().unwrap(), 1);
        assert!(!left.exists() && making.directory().exists());
        making.keep(&of(KEY), b"").unwrap();
        assert!(store.find(KEY).is_some());
    }

    #[test]
    fn only_the_owner_can_read_it_and_two_that_open_it_agree() {
        let dir = tempfile::tempdir().unwrap();
        let one = Store::open(dir.path()).unwrap();
        let other = Store::open(dir.path()).unwrap();
        assert_eq!(one.id(), other.id());
        let sealed = one.seal().close(KEY, b"x").unwrap();
        assert_eq!(other.seal().open(KEY, &sealed).unwrap(), b"x");
        make(&one, "one");
        for path in [
            "seal",
            &format!("kept/{KEY}/captures"),
            &format!("kept/{KEY}/manifest.json"),
        ] {
            let mode = dir
                .path()
                .join(path)
                .metadata()
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{path}");
        }
        for key in ["", "../x", "ABC"] {
            assert!(one.begin(key).is_err() && one.find(key).is_none());
        }
    }

    #[test]
    fn another_format_is_not_restored() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let making = store.begin(KEY).unwrap().unwrap();
        let newer = Manifest {
            format: super::super::key::FORMAT + 1,
            ..of(KEY)
        };
        making.keep(&newer, b"").unwrap();
        assert!(store.find(KEY).is_none());
        assert_eq!(store.list().unwrap().len(), 1);
    }
}
