//! The directory in which an agent's machine keeps snapshots. All agents with this directory share it.
//!
//! ```text
//! id                         id of the store, the value of a label of its images
//! seal                       key that seals captures
//! kept/KEY.ID/manifest.json  what the snapshot holds, without captures; cells that use it hold a shared lock on it
//! kept/KEY.ID/captures       captures and results, sealed
//! kept/KEY.ID/N.tar          a volume
//! kept/KEY.ID/used           its time is that of the last use
//! kept/KEY.ID/broken         a service couldn't run with it: nobody uses it any more
//! making/KEY.lock            locked by the process that makes the snapshot
//! making/KEY.…               half-made, or being removed
//! ```
//!
//! A snapshot appears by one rename of a directory whose files are synced, and vanishes by one rename. So whatever a killed
//! process leaves is in `making`, and nothing reads that. One that is made again gets a directory of its own: cells that use
//! the older one go on reading its files. Nothing that a cell uses is removed. All functions here block.

use super::bounds::Bounds;
use super::key::FORMAT;
use super::seal::{LENGTH, Seal};
use crate::private;
use crate::runtime::contract::Saved;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

const KEPT: &str = "kept";
const MAKING: &str = "making";
const USED: &str = "used";
const BROKEN: &str = "broken";
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
    /// Display name of that cell.
    #[serde(default)]
    pub cell_name: String,
    /// The family that its job named; empty if it named none.
    #[serde(default)]
    pub family: String,
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
            format: FORMAT,
            key: String::new(),
            spec: String::new(),
            group: String::new(),
            path: String::new(),
            cell: CellId(String::new()),
            cell_name: String::new(),
            family: String::new(),
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
    bounds: Bounds,
}

struct Inner {
    directory: PathBuf,
    id: String,
    seal: Seal,
    changes: Changes,
}

/// Counts what this process changes.
#[derive(Clone, Debug, Default)]
struct Changes {
    /// Snapshots that were kept or taken out.
    contents: watch::Sender<u64>,
    /// These, and uses.
    all: watch::Sender<u64>,
}

impl Changes {
    fn used(&self) {
        self.all.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn changed(&self) {
        self.contents
            .send_modify(|count| *count = count.wrapping_add(1));
        self.used();
    }
}

/// A snapshot that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it holds.
    pub manifest: Manifest,
    /// The directory with its files.
    pub directory: PathBuf,
}

/// A snapshot with what is known of it besides.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The snapshot.
    pub kept: Kept,
    /// When a cell last began to use it, or when it was made.
    pub last_used: Timestamp,
    /// Whether a service couldn't run with it.
    pub broken: bool,
    /// Whether there is a newer one with its key.
    pub replaced: bool,
}

/// A snapshot that a cell uses. Nobody removes it until this is dropped.
#[derive(Debug)]
pub struct Held {
    kept: Kept,
    /// Its lock ends when the last handle of the file is closed, also by a kill.
    _lock: File,
}

/// A snapshot that was taken out of the store: nobody finds it any more, and its files are still there.
#[derive(Debug)]
pub struct TakenOut {
    /// What it held.
    pub manifest: Manifest,
    directory: PathBuf,
}

/// What a killed process left of a snapshot that it made or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfMade {
    /// The snapshot's key.
    pub key: String,
    /// Size of its files in bytes.
    pub bytes: u64,
}

/// What came of the removal of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// A cell uses it, so it stays.
    InUse,
    /// None is kept for this key.
    NotKept,
}

/// A snapshot that is being made. If it is dropped, what was made of it is removed.
#[derive(Debug)]
pub struct Making {
    lock: File,
    lock_path: PathBuf,
    directory: PathBuf,
    kept: PathBuf,
    changes: Changes,
}

impl Store {
    /// Opens the store in a directory, which is created if it is missing.
    pub fn open(directory: &Path) -> io::Result<Store> {
        private::directory(directory)?;
        for name in [KEPT, MAKING] {
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
                changes: Changes::default(),
            }),
            bounds: Bounds::NONE,
        })
    }

    /// Opens a store that exists already; `None` if there is none in the directory.
    pub fn open_existing(directory: &Path) -> io::Result<Option<Store>> {
        match directory.join("id").try_exists()? {
            true => Store::open(directory).map(Some),
            false => Ok(None),
        }
    }

    /// Returns the store with bounds, which [`super::tidy`] enforces.
    pub fn within(self, bounds: Bounds) -> Store {
        Store { bounds, ..self }
    }

    /// Returns the bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Returns the store's id.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Returns the store's key.
    pub fn seal(&self) -> &Seal {
        &self.inner.seal
    }

    /// Returns a receiver that changes when this process has kept, used or removed a snapshot.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.all.subscribe()
    }

    /// Returns a receiver that changes when this process has kept or removed a snapshot.
    pub fn contents(&self) -> watch::Receiver<u64> {
        self.inner.changes.contents.subscribe()
    }

    /// Returns when a snapshot last appeared or vanished, through any process.
    pub fn changed_at(&self) -> Option<SystemTime> {
        self.at(KEPT).metadata().ok()?.modified().ok()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.inner.directory.join(name)
    }

    /// Returns the snapshot with a key, if one is kept that this version can use.
    pub fn find(&self, key: &str) -> Option<Kept> {
        let versions = self.versions(safe(key)?).ok()?;
        versions
            .into_iter()
            .filter(|kept| kept.manifest.format == FORMAT && !kept.is_broken())
            .max_by(|one, other| one.order().cmp(&other.order()))
    }

    /// Returns all snapshots that are kept, oldest first, the newest one of each key. Leaves out what can't be used.
    pub fn list(&self) -> io::Result<Vec<Manifest>> {
        let usable = |entry: &Entry| {
            !entry.broken && !entry.replaced && entry.kept.manifest.format >= FORMAT
        };
        let all = self.entries()?.into_iter().filter(usable);
        Ok(all.map(|entry| entry.kept.manifest).collect())
    }

    /// Returns everything that is kept, oldest first, with what is replaced or broken and not removed yet.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut all = Vec::new();
        for directory in directories(&self.at(KEPT))? {
            if let Some(key) = key_of(&directory).map(str::to_owned) {
                all.push(Kept::of(&key, directory)?);
            }
        }
        all.sort_by(|one, other| one.order().cmp(&other.order()));
        let newest: HashMap<String, PathBuf> = all
            .iter()
            .filter(|kept| kept.manifest.format == FORMAT && !kept.is_broken())
            .map(|kept| (kept.manifest.key.clone(), kept.directory.clone()))
            .collect();
        let entry = |kept: Kept| Entry {
            last_used: kept.last_used(),
            broken: kept.is_broken(),
            replaced: kept.manifest.format <= FORMAT
                && newest
                    .get(&kept.manifest.key)
                    .is_some_and(|newest| *newest != kept.directory),
            kept,
        };
        Ok(all.into_iter().map(entry).collect())
    }

    fn versions(&self, key: &str) -> io::Result<Vec<Kept>> {
        let all = directories(&self.at(KEPT))?.into_iter();
        let of_key = all.filter(|directory| key_of(directory) == Some(key));
        of_key.map(|directory| Kept::of(key, directory)).collect()
    }

    /// Returns whether a snapshot with this key has this image.
    pub fn claims(&self, key: &str, image: &str) -> bool {
        let Some(key) = safe(key) else { return false };
        // If that isn't known, nothing is given up.
        let Ok(versions) = self.versions(key) else {
            return true;
        };
        versions.iter().any(|kept| {
            let services = &kept.manifest.saved.services;
            let mut images = services.iter().filter_map(|one| one.image.as_ref());
            kept.manifest.format > FORMAT || images.any(|one| one.id == image)
        })
    }

    /// Returns the total size of all snapshots.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self
            .entries()?
            .iter()
            .map(|one| one.kept.manifest.bytes)
            .sum())
    }

    /// Returns when a snapshot was last used, or made if it never was.
    pub fn last_used(&self, key: &str) -> Option<SystemTime> {
        let us = u64::try_from(self.find(key)?.last_used().0).ok()?;
        Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(us))
    }

    /// Removes the snapshots with a key, unless a cell uses them. Their images in the engine are removed by
    /// [`super::tidy`]; [`super::remove`] removes both.
    pub fn remove(&self, key: &str) -> io::Result<Removal> {
        let (removal, taken) = self.take_out_all(key)?;
        for one in taken {
            one.erase()?;
        }
        Ok(removal)
    }

    /// Takes the snapshots with a key out of the store, unless a cell uses them.
    pub fn take_out_all(&self, key: &str) -> io::Result<(Removal, Vec<TakenOut>)> {
        let key = safe(key).ok_or_else(|| io::Error::other("no key of a snapshot"))?;
        let mut removal = Removal::NotKept;
        let mut taken = Vec::new();
        for kept in self.versions(key)? {
            match self.take_out(&kept)? {
                Some(one) => taken.push(one),
                None if kept.directory.exists() => removal = Removal::InUse,
                None => {}
            }
        }
        if removal == Removal::NotKept && !taken.is_empty() {
            removal = Removal::Removed;
        }
        Ok((removal, taken))
    }

    /// Takes a snapshot out of the store. `None` if a cell uses it, or if another process has removed it.
    pub fn take_out(&self, kept: &Kept) -> io::Result<Option<TakenOut>> {
        let Some(key) = key_of(&kept.directory) else {
            return Ok(None);
        };
        let lock = match alone(&kept.directory) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Some(file),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            },
            // Damaged: nobody can use it.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let gone = self.at(MAKING).join(half(key));
        match fs::rename(&kept.directory, &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        }
        drop(lock);
        self.inner.changes.changed();
        Ok(Some(TakenOut {
            manifest: kept.manifest.clone(),
            directory: gone,
        }))
    }

    /// Begins to use a snapshot. `None` if it was removed meanwhile, or if a service couldn't run with it.
    pub fn hold(&self, kept: &Kept) -> io::Result<Option<Held>> {
        let path = kept.directory.join(MANIFEST);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Whoever has it alone only renames the directory.
        lock.lock_shared()?;
        if !is_at(&lock, &path) || kept.is_broken() {
            return Ok(None);
        }
        // It only says which ones are used least.
        let _ = private::write(&kept.directory.join(USED), "");
        self.inner.changes.used();
        Ok(Some(Held {
            kept: kept.clone(),
            _lock: lock,
        }))
    }

    /// Begins to make a snapshot. `None` if another cell makes it at the moment.
    pub fn begin(&self, key: &str) -> io::Result<Option<Making>> {
        let key = safe(key).ok_or_else(|| io::Error::other("no key of a snapshot"))?;
        let lock_path = self.at(MAKING).join(format!("{key}.lock"));
        let Some(lock) = locked(&lock_path)? else {
            return Ok(None);
        };
        // A killed process may have left the file: its time is that of this write.
        (&lock).write_all(b"\n")?;
        let directory = self.at(MAKING).join(half(key));
        private::directory(&directory)?;
        Ok(Some(Making {
            lock,
            lock_path,
            directory,
            kept: self.at(KEPT).join(half(key)),
            changes: self.inner.changes.clone(),
        }))
    }

    /// Returns whether a cell is making the snapshot with this key at the moment.
    pub fn is_being_made(&self, key: &str) -> bool {
        let Some(key) = safe(key) else { return false };
        let path = self.at(MAKING).join(format!("{key}.lock"));
        // Whoever looks must not keep others from beginning: a shared lock is given back at once.
        File::open(path).is_ok_and(|lock| lock.try_lock_shared().is_err())
    }

    /// Returns when the cell began that is making the snapshot with this key at the moment.
    pub fn made_since(&self, key: &str) -> Option<Timestamp> {
        let path = self.at(MAKING).join(format!("{}.lock", safe(key)?));
        let since = path.metadata().ok()?.modified().ok()?;
        let since = since.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Timestamp(i64::try_from(since.as_micros()).ok()?))
    }

    /// Returns what killed processes left half-made.
    pub fn half_made(&self) -> io::Result<Vec<HalfMade>> {
        // In this order: what exists when its key has no lock is not being made any more.
        let all = directories(&self.at(MAKING))?.into_iter();
        let half_made = all.filter_map(|directory| {
            let key = key_of(&directory).filter(|key| !self.is_being_made(key))?;
            let files = fs::read_dir(&directory).into_iter().flatten().flatten();
            let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
            Some(HalfMade {
                key: key.to_owned(),
                bytes: sizes.sum(),
            })
        });
        Ok(half_made.collect())
    }

    /// Removes what killed processes left half-made. Returns how many of them there were.
    pub fn sweep(&self) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(self.at(MAKING))?.flatten() {
            let path = entry.path();
            let Some(key) = key_of(&path) else {
                continue;
            };
            let lock_path = self.at(MAKING).join(format!("{key}.lock"));
            let Ok(Some(lock)) = locked(&lock_path) else {
                continue;
            };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                erase(&path)?;
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

    /// Makes the snapshot visible, instead of an older one with the same key. `sealed` holds its captures. The cell that
    /// made it uses it, so that it isn't removed at once.
    pub fn keep(self, manifest: &Manifest, sealed: &[u8]) -> io::Result<Held> {
        private::write(&self.directory.join(CAPTURES), sealed)?;
        let text = serde_json::to_vec_pretty(manifest)?;
        private::write(&self.directory.join(MANIFEST), text)?;
        for entry in fs::read_dir(&self.directory)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&self.directory)?.sync_all()?;
        let lock = File::open(self.directory.join(MANIFEST))?;
        lock.lock_shared()?;
        fs::rename(&self.directory, &self.kept)?;
        if let Some(parent) = self.kept.parent() {
            File::open(parent)?.sync_all()?;
        }
        self.changes.changed();
        Ok(Held {
            kept: Kept {
                manifest: manifest.clone(),
                directory: self.kept.clone(),
            },
            _lock: lock,
        })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let unkept = fs::remove_dir_all(&self.directory).is_ok();
        // Before the lock is released: whoever opened the file meanwhile notices that it is another one.
        let _ = fs::remove_file(&self.lock_path);
        let _ = self.lock.unlock();
        if unkept {
            // The engine may have images of it.
            self.changes.changed();
        }
    }
}

impl Kept {
    fn of(key: &str, directory: PathBuf) -> io::Result<Kept> {
        Ok(Kept {
            manifest: manifest(&directory, key)?,
            directory,
        })
    }

    fn order(&self) -> (i64, &Path) {
        (self.manifest.made_us, &self.directory)
    }

    /// Returns the sealed captures.
    pub fn captures(&self) -> io::Result<Vec<u8>> {
        read(&self.directory.join(CAPTURES))
    }

    /// Returns whether a cell uses it at the moment.
    pub fn is_held(&self) -> bool {
        alone(&self.directory).is_ok_and(|lock| lock.try_lock().is_err())
    }

    fn is_broken(&self) -> bool {
        self.directory.join(BROKEN).exists()
    }

    fn last_used(&self) -> Timestamp {
        let used = self.directory.join(USED).metadata();
        let used = used.and_then(|meta| meta.modified()).map_or(0, micros);
        Timestamp(used.max(self.manifest.made_us))
    }
}

impl Held {
    /// Returns the snapshot.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Notes that a service couldn't run with it: from now on nobody begins to use it.
    pub fn condemn(&self) -> io::Result<()> {
        private::write(&self.kept.directory.join(BROKEN), "")
    }

    /// Ends the use, and removes the snapshot if no other cell uses it.
    pub fn discard(self, store: &Store) -> io::Result<()> {
        let kept = self.kept.clone();
        drop(self);
        match store.take_out(&kept)? {
            Some(taken) => taken.erase(),
            None => Ok(()),
        }
    }
}

impl TakenOut {
    /// Removes its files.
    pub fn erase(self) -> io::Result<()> {
        erase(&self.directory)
    }
}

/// Opens what cells that use a snapshot have locked, to lock it alone. Network file systems want it to be writable for that.
fn alone(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .open(directory.join(MANIFEST))
}

fn directories(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(parent)?.flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(|entry| entry.path()).collect())
}

/// Removes a directory that another process may be removing as well.
fn erase(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
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
        if is_at(&file, path) {
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

/// Returns the manifest in a directory. A damaged one has the format 0, which is never used; one of a newer format is
/// returned without what this version can't read.
fn manifest(directory: &Path, key: &str) -> io::Result<Manifest> {
    #[derive(Deserialize)]
    struct Newer {
        format: u32,
        #[serde(default)]
        bytes: u64,
    }
    let of = |format, bytes| Manifest {
        format,
        key: key.to_owned(),
        bytes,
        ..Manifest::default()
    };
    let bytes = match read(&directory.join(MANIFEST)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    Ok(match serde_json::from_slice::<Manifest>(&bytes) {
        Ok(manifest) if manifest.key == key => manifest,
        Ok(_) => of(0, 0),
        Err(_) => match serde_json::from_slice::<Newer>(&bytes) {
            Ok(newer) if newer.format > FORMAT => of(newer.format, newer.bytes),
            _ => of(0, 0),
        },
    })
}

/// Returns the key in a directory's name.
fn key_of(directory: &Path) -> Option<&str> {
    safe(directory.file_name()?.to_str()?.split('.').next()?)
}

/// Returns whether an open file is still the one with this path.
fn is_at(file: &File, path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino()))
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
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
        assert_eq!(
            (store.list().unwrap().len(), store.bytes().unwrap()),
            (1, 5)
        );
        assert_eq!(store.remove(KEY).unwrap(), Removal::Removed);
        assert_eq!(store.remove(KEY).unwrap(), Removal::NotKept);
        assert!(store.find(KEY).is_none());
        for name in [KEPT, MAKING] {
            assert_eq!(fs::read_dir(dir.path().join(name)).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_a_cell_uses_is_neither_removed_nor_replaced_under_it() {
        let dir = tempfile::tempdir().unwrap();
        // As two agents that share it.
        let (store, other) = (
            Store::open(dir.path()).unwrap(),
            Store::open(dir.path()).unwrap(),
        );
        make(&store, "one");
        let kept = store.find(KEY).unwrap();
        let used = store.hold(&kept).unwrap().unwrap();
        let also = other.hold(&other.find(KEY).unwrap()).unwrap().unwrap();
        assert_eq!(other.remove(KEY).unwrap(), Removal::InUse);
        // Made again meanwhile: both are there, and the newer one is found.
        let making = other.begin(KEY).unwrap().unwrap();
        let newer = Manifest {
            made_us: 1,
            ..of(KEY)
        };
        drop(making.keep(&newer, b"two").unwrap());
        assert_eq!(store.find(KEY).unwrap().captures().unwrap(), b"two");
        assert_eq!(used.kept().captures().unwrap(), b"one");
        let replaced: Vec<bool> = store
            .entries()
            .unwrap()
            .iter()
            .map(|one| one.replaced)
            .collect();
        assert_eq!(
            (replaced, store.list().unwrap().len()),
            (vec![true, false], 1)
        );
        assert_eq!(store.bytes().unwrap(), 10, "both take place");
        assert_eq!(other.remove(KEY).unwrap(), Removal::InUse);
        assert!(
            store
                .find(KEY)
                .is_some_and(|kept| kept.captures().unwrap() == b"one")
        );
        drop(used);
        assert_eq!(store.remove(KEY).unwrap(), Removal::InUse);
        drop(also);
        assert_eq!(store.remove(KEY).unwrap(), Removal::Removed);
        assert!(
            store.hold(&kept).unwrap().is_none(),
            "found before it was removed"
        );
    }

    #[test]
    fn nobody_begins_to_use_what_a_service_could_not_run_with() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        make(&store, "one");
        let kept = store.find(KEY).unwrap();
        let used = store.hold(&kept).unwrap().unwrap();
        let also = store.hold(&kept).unwrap().unwrap();
        used.condemn().unwrap();
        assert!(store.find(KEY).is_none() && store.hold(&kept).unwrap().is_none());
        used.discard(&store).unwrap();
        // The other cell goes on with it.
        assert_eq!(also.kept().captures().unwrap(), b"one");
        also.discard(&store).unwrap();
        assert!(store.entries().unwrap().is_empty());
    }

    #[test]
    fn those_who_listen_are_told_what_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (mut all, mut contents) = (store.changes(), store.contents());
        let mut told = || {
            let told = (all.has_changed().unwrap(), contents.has_changed().unwrap());
            all.mark_unchanged();
            contents.mark_unchanged();
            told
        };
        let before = store.changed_at();
        make(&store, "one");
        assert_eq!((told(), told()), ((true, true), (false, false)));
        assert!(store.changed_at() > before);
        drop(store.hold(&store.find(KEY).unwrap()).unwrap());
        assert_eq!(told(), (true, false));
        store.remove(KEY).unwrap();
        assert_eq!(told(), (true, true));
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
        let half_made = HalfMade {
            key: other,
            bytes: 1,
        };
        assert_eq!(store.half_made().unwrap(), [half_made]);
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
        let kept = one.find(KEY).unwrap().directory;
        for path in [
            dir.path().join("seal"),
            kept.join("captures"),
            kept.join("manifest.json"),
            kept,
        ] {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
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
