//! Stores artifacts: files that agents keep with a run, by the SHA-256 of their content.
//!
//! `blobs/DIGEST` and `runs/RUN/DIGEST` are two names of one file (hard links), so equal files of all runs take the space
//! of one, and the file system counts who needs it: a blob with a single name belongs to no run. Readers use the run's
//! name. What is still arriving is in `incoming/RUN/CELL.ATTEMPT.NUMBER`; it gets its names only when it is complete,
//! synced, and has the announced digest. A name in `runs` comes before the one in `blobs`, so a crash in between leaves
//! nothing that isn't in a run.

use crate::metrics::METRICS;
use phalanx_shared::id::{CellId, RunId, Token};
use phalanx_shared::language::quantity::spelled_bytes;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Limits on stored artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum bytes of one artifact.
    pub file_bytes: u64,
    /// Maximum bytes of the artifacts of one attempt.
    pub attempt_bytes: u64,
    /// Maximum bytes of the artifacts of one run; equal files count once.
    pub run_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_bytes: 256 << 20,
            attempt_bytes: 1 << 30,
            run_bytes: 8 << 30,
        }
    }
}

/// Maximum artifacts of one attempt that a coordinator takes; a correct agent sends fewer.
const ATTEMPT_FILES: usize = 2_000;
/// Maximum artifacts of one attempt that arrive at the same time.
const AT_ONCE: usize = 64;

/// All artifacts below one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    root: Arc<PathBuf>,
    limits: Limits,
    /// Whether an artifact must survive a power loss once it is stored.
    durable: bool,
    /// Attempts whose artifacts are taken.
    attempts: Arc<Mutex<HashMap<Key, Arc<Open>>>>,
    /// Bytes of the runs that have got artifacts since the start.
    runs: Arc<Mutex<HashMap<RunId, Arc<Sum>>>>,
}

type Key = (RunId, CellId, u32);

/// Bytes of a run, with those that are arriving; `None` until its files have been counted.
type Sum = Mutex<Option<u64>>;

/// An attempt whose artifacts are taken.
#[derive(Debug, Default)]
struct Open {
    /// Whether no more of them are taken.
    over: AtomicBool,
    attempt: Mutex<Attempt>,
}

/// Artifacts of one attempt.
#[derive(Debug, Default)]
struct Attempt {
    bytes: u64,
    files: usize,
    parts: BTreeMap<u32, Part>,
    /// Numbers of artifacts that are stored: the agent sends them again if it lost the answer.
    stored: BTreeSet<u32>,
    /// Numbers whose beginning isn't here. It was stored before a restart, or it is lost: the digest at the end tells.
    headless: BTreeSet<u32>,
    /// Why artifacts are not kept, by number.
    refused: BTreeMap<u32, String>,
    /// Refusals that the agent hasn't been told of.
    untold: Vec<(u32, String)>,
}

/// Directories of runs.
#[derive(Debug)]
pub struct Listed {
    runs: Vec<PathBuf>,
    incoming: Vec<PathBuf>,
}

/// An artifact that is arriving. Its file is open only while it is written: an agent decides how many there are.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    len: u64,
    hash: Sha256,
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock is fine: what is incomplete has no name in a run.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ArtifactStore {
    /// Returns a store below this directory, which is created with the first artifact.
    pub fn new(root: impl Into<PathBuf>, limits: Limits) -> Self {
        ArtifactStore {
            root: Arc::new(root.into()),
            limits,
            durable: true,
            attempts: Arc::default(),
            runs: Arc::default(),
        }
    }

    /// Never waits for the disk: nobody needs the store after a crash.
    #[must_use]
    pub fn temporary(self) -> Self {
        ArtifactStore {
            durable: false,
            ..self
        }
    }

    /// Takes artifacts of this attempt from now on.
    pub fn accept(&self, token: &Token) {
        whole(&self.attempts).entry(key(token)).or_default();
    }

    /// Takes bytes of an artifact of an open attempt. `full` is why the disk takes no more.
    pub fn chunk(&self, token: &Token, id: u32, offset: u64, bytes: &[u8], full: Option<&str>) {
        self.in_attempt(token, |attempt| {
            if attempt.is_decided(id) {
                return;
            }
            if let Err(reason) = self.try_chunk(attempt, token, id, offset, bytes, full) {
                self.refuse(attempt, &token.run, id, reason);
            }
        });
    }

    fn try_chunk(
        &self,
        attempt: &mut Attempt,
        token: &Token,
        id: u32,
        offset: u64,
        bytes: &[u8],
        full: Option<&str>,
    ) -> Result<(), String> {
        if !attempt.parts.contains_key(&id) {
            if attempt.parts.len() >= AT_ONCE || attempt.files >= ATTEMPT_FILES {
                return Err("there are too many artifacts".to_owned());
            }
            let part = self.arriving(token, &id.to_string()).map_err(failed)?;
            attempt.bytes += part.len;
            attempt.files += 1;
            attempt.parts.insert(id, part);
        }
        let len = attempt.parts.get(&id).map_or(0, |part| part.len);
        if offset > len {
            self.drop_part(attempt, &token.run, id);
            if attempt.headless.len() >= ATTEMPT_FILES {
                return Err("there are too many artifacts".to_owned());
            }
            attempt.headless.insert(id);
            return Ok(());
        }
        // An agent that lost its connection sends again what it has no answer for.
        let known = usize::try_from(len - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        let added = new.len() as u64;
        if let Some(full) = full {
            return Err(full.to_owned());
        }
        let of_run = self.sum(&token.run);
        let mut of_run = whole(&of_run);
        let of_run = of_run.get_or_insert_with(|| self.count(&token.run));
        for (sum, limit, whose, setting) in [
            (len, self.limits.file_bytes, "one artifact", "file_mib"),
            (
                attempt.bytes,
                self.limits.attempt_bytes,
                "the artifacts of one attempt",
                "attempt_mib",
            ),
            (
                *of_run,
                self.limits.run_bytes,
                "the artifacts of one run",
                "run_mib",
            ),
        ] {
            if sum.saturating_add(added) > limit {
                let limit = spelled_bytes(limit);
                return Err(format!(
                    "over the coordinator's limit of {limit} for {whose} (artifacts.{setting})"
                ));
            }
        }
        let Some(part) = attempt.parts.get_mut(&id) else {
            return Ok(());
        };
        part.write(new).map_err(failed)?;
        attempt.bytes += added;
        *of_run += added;
        METRICS.artifact_bytes.inc_by(added);
        Ok(())
    }

    /// Handles the end of an artifact: gives it its names, or drops it if it has no digest.
    pub fn end(&self, token: &Token, id: u32, digest: Option<&str>, size: u64) {
        self.in_attempt(token, |attempt| {
            let Some(digest) = digest else {
                attempt.headless.remove(&id);
                self.drop_part(attempt, &token.run, id);
                return;
            };
            // Refused before: the agent sends it again because it lost the answer.
            if let Some(reason) = attempt.refused.get(&id).cloned() {
                attempt.tell(id, reason);
                return;
            }
            if attempt.stored.contains(&id) {
                return;
            }
            match self.try_end(attempt, token, id, digest, size) {
                Ok(()) => {
                    attempt.stored.insert(id);
                }
                Err(reason) => self.refuse(attempt, &token.run, id, reason),
            }
        });
    }

    fn try_end(
        &self,
        attempt: &mut Attempt,
        token: &Token,
        id: u32,
        digest: &str,
        size: u64,
    ) -> Result<(), String> {
        attempt.headless.remove(&id);
        if let Some(part) = attempt.parts.get(&id) {
            let is_new = self.keep(&token.run, part, digest, size)?;
            let len = part.len;
            attempt.parts.remove(&id);
            if !is_new {
                // Equal files count once.
                self.take_from_run(&token.run, len);
            }
            return Ok(());
        }
        if attempt.stored.len() >= ATTEMPT_FILES {
            return Err("there are too many artifacts".to_owned());
        }
        // Its end was stored before the coordinator crashed, or before the connection was cut.
        if self.path(&token.run, digest).is_file() {
            return Ok(());
        }
        if size > 0 {
            return Err("bytes of it are missing".to_owned());
        }
        let part = self.arriving(token, "empty").map_err(failed)?;
        self.keep(&token.run, &part, digest, 0).map(drop)
    }

    /// Returns whether the run has got a file that it didn't have.
    fn keep(&self, run: &RunId, part: &Part, digest: &str, size: u64) -> Result<bool, String> {
        let found = hex::encode(part.hash.clone().finalize());
        if found != digest || part.len != size {
            return Err("it didn't arrive whole: its digest is another one".to_owned());
        }
        self.name(run, part, digest).map_err(failed)
    }

    /// Gives a complete file its names, and takes that of what is arriving. Returns whether the run didn't have it.
    fn name(&self, run: &RunId, part: &Part, digest: &str) -> io::Result<bool> {
        let (of_run, blob) = (self.path(run, digest), self.blobs().join(digest));
        self.make(&self.run(run))?;
        self.make(&self.blobs())?;
        let mut is_new = true;
        match std::fs::hard_link(&blob, &of_run) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => is_new = false,
            // There is none, or it has as many names as a file may have.
            Err(_) => {
                if self.durable {
                    File::open(&part.path)?.sync_all()?;
                }
                is_new = link(&part.path, &of_run)?;
                // Without this name the file only can't be shared.
                let _ = std::fs::hard_link(&of_run, &blob);
            }
        }
        // An equal file's name may be as new as this one.
        self.sync(&self.run(run))?;
        std::fs::remove_file(&part.path)?;
        Ok(is_new)
    }

    /// Returns the refusals that the attempt's agent hasn't been told of.
    pub fn take_refusals(&self, token: &Token) -> Vec<(u32, String)> {
        let mut refusals = Vec::new();
        self.in_attempt(token, |attempt| {
            refusals = std::mem::take(&mut attempt.untold);
        });
        refusals
    }

    /// Takes no more artifacts of an attempt; what is incomplete is removed. Never waits for one that is being stored.
    pub fn close(&self, token: &Token) {
        let open = whole(&self.attempts).remove(&key(token));
        if let Some(open) = open {
            open.over.store(true, Ordering::SeqCst);
            self.clear(token, &open);
        }
    }

    /// Acts on an attempt, if its artifacts are still taken.
    fn in_attempt(&self, token: &Token, act: impl FnOnce(&mut Attempt)) {
        let Some(open) = whole(&self.attempts).get(&key(token)).cloned() else {
            return;
        };
        {
            let mut attempt = whole(&open.attempt);
            if !open.over.load(Ordering::SeqCst) {
                act(&mut attempt);
            }
        }
        // It may have been closed in the meantime.
        if open.over.load(Ordering::SeqCst) {
            self.clear(token, &open);
        }
    }

    /// Removes what is incomplete of a closed attempt. Whoever acts on the attempt right now does so afterwards.
    fn clear(&self, token: &Token, open: &Open) {
        let mut attempt = match open.attempt.try_lock() {
            Ok(attempt) => attempt,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let ids: Vec<u32> = attempt.parts.keys().copied().collect();
        for id in ids {
            self.drop_part(&mut attempt, &token.run, id);
        }
        // Fails as long as other attempts have parts there.
        let _ = std::fs::remove_dir(self.incoming(&token.run));
    }

    /// Opens an artifact of a run. The digest must be one: it becomes a file name.
    pub fn open(&self, run: &RunId, digest: &str) -> io::Result<File> {
        File::open(self.path(run, digest))
    }

    /// Lists the directories of runs, for [`ArtifactStore::sweep`].
    pub fn list(&self) -> Listed {
        Listed {
            runs: entries(&self.root.join("runs")),
            incoming: entries(&self.root.join("incoming")),
        }
    }

    /// Removes what belongs to none of the runs, and what arrives for none of the unfinished ones. Returns what was
    /// removed, or would be, with sizes. List before the runs are known: a run may start in the meantime.
    pub fn sweep(
        &self,
        listed: Listed,
        runs: &HashSet<String>,
        unfinished: &HashSet<String>,
        dry_run: bool,
    ) -> Vec<(String, u64)> {
        let mut removed = Vec::new();
        for (directories, claimed) in [(listed.runs, runs), (listed.incoming, unfinished)] {
            for path in directories {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if claimed.contains(&*name) {
                    continue;
                }
                // A file that other runs have too frees no space.
                let files = entries(&path).into_iter();
                let bytes = files
                    .filter_map(|file| file.symlink_metadata().ok())
                    .filter(|file| file.nlink() <= 2)
                    .map(|file| file.len())
                    .sum();
                if dry_run || is_gone(std::fs::remove_dir_all(&path), &path) {
                    removed.push((path.display().to_string(), bytes));
                }
            }
        }
        if !dry_run {
            for path in entries(&self.blobs()) {
                let names = path.symlink_metadata().map_or(0, |file| file.nlink());
                if names == 1 {
                    is_gone(std::fs::remove_file(&path), &path);
                }
            }
            // The others may be growing.
            whole(&self.runs).retain(|run, _| unfinished.contains(run.as_str()));
        }
        removed
    }

    fn refuse(&self, attempt: &mut Attempt, run: &RunId, id: u32, reason: String) {
        self.drop_part(attempt, run, id);
        attempt.refused.insert(id, reason.clone());
        // An agent that sends numbers without end gets no answers without end.
        if attempt.refused.len() > ATTEMPT_FILES {
            attempt.refused.pop_first();
        }
        attempt.tell(id, reason);
    }

    /// Drops what has arrived of an artifact, and counts it no more.
    fn drop_part(&self, attempt: &mut Attempt, run: &RunId, id: u32) {
        let Some(part) = attempt.parts.remove(&id) else {
            return;
        };
        attempt.bytes = attempt.bytes.saturating_sub(part.len);
        attempt.files = attempt.files.saturating_sub(1);
        self.take_from_run(run, part.len);
        let _ = std::fs::remove_file(&part.path);
    }

    /// Opens the file of an artifact that is arriving, and continues after what it holds.
    fn arriving(&self, token: &Token, name: &str) -> io::Result<Part> {
        let directory = self.incoming(&token.run);
        let path = directory.join(format!("{}.{}.{name}", token.cell, token.attempt));
        self.make(&directory)?;
        match Part::open(path.clone()) {
            // Another attempt was closed, and removed the directory that was still empty.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make(&directory)?;
                Part::open(path)
            }
            opened => opened,
        }
    }

    fn sum(&self, run: &RunId) -> Arc<Sum> {
        whole(&self.runs).entry(run.clone()).or_default().clone()
    }

    /// Returns the bytes that a run has, with those that are arriving.
    fn count(&self, run: &RunId) -> u64 {
        let files = [self.run(run), self.incoming(run)];
        let files = files.iter().flat_map(|directory| entries(directory));
        let files = files.filter_map(|file| file.symlink_metadata().ok());
        files.map(|file| file.len()).sum()
    }

    fn take_from_run(&self, run: &RunId, bytes: u64) {
        let sum = whole(&self.runs).get(run).cloned();
        if let Some(sum) = sum
            && let Some(sum) = &mut *whole(&sum)
        {
            *sum = sum.saturating_sub(bytes);
        }
    }

    /// Creates a directory of the store, so that it is there after a power loss.
    fn make(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let above = directory.ancestors().skip(1);
        above
            .take_while(|above| above.starts_with(&*self.root))
            .try_for_each(|above| self.sync(above))
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        match self.durable {
            true => File::open(directory)?.sync_all(),
            false => Ok(()),
        }
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn run(&self, run: &RunId) -> PathBuf {
        self.root.join("runs").join(run.as_str())
    }

    fn incoming(&self, run: &RunId) -> PathBuf {
        self.root.join("incoming").join(run.as_str())
    }

    fn path(&self, run: &RunId, digest: &str) -> PathBuf {
        self.run(run).join(digest)
    }
}

impl Attempt {
    /// Returns whether more bytes of an artifact don't matter.
    fn is_decided(&self, id: u32) -> bool {
        self.refused.contains_key(&id) || self.stored.contains(&id) || self.headless.contains(&id)
    }

    fn tell(&mut self, id: u32, reason: String) {
        if self.untold.len() < ATTEMPT_FILES {
            self.untold.push((id, reason));
        }
    }
}

impl Part {
    /// Opens a file that is arriving, and continues after what it holds.
    fn open(path: PathBuf) -> io::Result<Part> {
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path)
        };
        let mut file = open()?;
        if file.metadata()?.nlink() > 1 {
            // It got its names just before a crash: more bytes would change what runs have.
            std::fs::remove_file(&path)?;
            file = open()?;
        }
        let (mut hash, mut len) = (Sha256::new(), 0);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(buffer.get(..read).unwrap_or_default());
            len += read as u64;
        }
        Ok(Part { path, len, hash })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let file = File::options().write(true).open(&self.path)?;
        file.write_all_at(bytes, self.len)?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }
}

fn failed(error: io::Error) -> String {
    format!("the coordinator can't store it: {error}")
}

fn key(token: &Token) -> Key {
    (token.run.clone(), token.cell.clone(), token.attempt)
}

/// Links a file, and returns whether the name is new; one that exists already is one of an equal file.
fn link(from: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn is_gone(removed: io::Result<()>, path: &Path) -> bool {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "can't remove");
            false
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token(run: &str) -> Token {
        Token {
            run: run.into(),
            cell: "cell".into(),
            attempt: 1,
            epoch: 1,
        }
    }

    fn digest(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    fn read(store: &ArtifactStore, run: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut file = store.open(&run.into(), &digest(bytes)).ok()?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        Some(content)
    }

    fn files(place: &Path, of: &str) -> usize {
        entries(&place.join(of)).len()
    }

    fn store() -> (tempfile::TempDir, ArtifactStore) {
        let place = tempfile::tempdir().unwrap();
        let store = ArtifactStore::new(place.path(), Limits::default());
        (place, store)
    }

    #[test]
    fn equal_files_of_two_runs_are_stored_once_until_both_runs_are_gone() {
        let (place, store) = store();
        for run in ["a", "b"] {
            store.accept(&token(run));
            store.chunk(&token(run), 1, 0, b"one", None);
            store.end(&token(run), 1, Some(&digest(b"one")), 3);
            assert_eq!(read(&store, run, b"one").as_deref(), Some(&b"one"[..]));
            assert!(store.take_refusals(&token(run)).is_empty());
            store.close(&token(run));
        }
        let inode = |path: &str| place.path().join(path).metadata().unwrap().ino();
        let name = digest(b"one");
        assert_eq!(
            inode(&format!("runs/a/{name}")),
            inode(&format!("runs/b/{name}"))
        );
        assert_eq!(files(place.path(), "incoming"), 0);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        store.sweep(store.list(), &names(&["b"]), &names(&[]), false);
        assert_eq!(read(&store, "a", b"one"), None);
        assert!(read(&store, "b", b"one").is_some());
        assert_eq!(files(place.path(), "blobs"), 1);
        store.sweep(store.list(), &names(&[]), &names(&[]), false);
        assert_eq!(files(place.path(), "blobs"), 0);
    }

    #[test]
    fn what_was_cut_continues_after_a_restart_and_repeated_bytes_count_once() {
        let (place, store) = store();
        let token = token("a");
        store.accept(&token);
        store.chunk(&token, 1, 0, b"hello ", None);
        let again = restarted(&place, &token);
        again.chunk(&token, 1, 3, b"lo w", None);
        again.chunk(&token, 1, 7, b"orld", None);
        again.end(&token, 1, Some(&digest(b"hello world")), 11);
        assert!(read(&again, "a", b"hello world").is_some());
        // The agent didn't hear that the end was stored.
        let restarted = restarted(&place, &token);
        restarted.end(&token, 1, Some(&digest(b"hello world")), 11);
        assert!(restarted.take_refusals(&token).is_empty());
        restarted.end(&token, 2, Some(&digest(b"")), 0);
        assert!(read(&restarted, "a", b"").is_some());
    }

    /// The store of a coordinator that was killed and is back.
    fn restarted(place: &tempfile::TempDir, token: &Token) -> ArtifactStore {
        let store = ArtifactStore::new(place.path(), Limits::default());
        store.accept(token);
        store
    }

    #[test]
    fn an_artifact_whose_end_was_stored_is_not_lost_if_only_its_rest_is_sent_again() {
        let (place, store) = store();
        let token = token("a");
        store.accept(&token);
        let send = |store: &ArtifactStore, from: usize| {
            for (offset, bytes) in [(0, b"one "), (4, b"two "), (8, b"tri ")].iter().skip(from) {
                store.chunk(&token, 7, *offset, *bytes, None);
            }
            store.end(&token, 7, Some(&digest(b"one two tri ")), 12);
            store.take_refusals(&token)
        };
        assert_eq!(send(&store, 0), []);
        // The connection was cut before the second batch was acknowledged.
        assert_eq!(send(&store, 1), []);
        assert_eq!(send(&store, 0), []);
        // The coordinator was killed.
        let back = restarted(&place, &token);
        assert_eq!(send(&back, 2), []);
        assert_eq!(
            read(&back, "a", b"one two tri ").as_deref(),
            Some(&b"one two tri "[..])
        );
        assert_eq!(files(place.path(), "incoming/a"), 0);
    }

    #[test]
    fn what_got_its_names_just_before_a_crash_is_never_written_again() {
        let (place, store) = store();
        let token = token("a");
        store.accept(&token);
        store.chunk(&token, 1, 0, b"shared", None);
        let arriving = place.path().join("incoming/a/cell.1.1");
        let beside = place.path().join("beside");
        std::fs::hard_link(&arriving, &beside).unwrap();
        store.end(&token, 1, Some(&digest(b"shared")), 6);
        std::fs::rename(&beside, &arriving).unwrap();
        let back = restarted(&place, &token);
        back.chunk(&token, 1, 6, b" and more", None);
        back.chunk(&token, 1, 0, b"other", None);
        assert_eq!(read(&back, "a", b"shared").as_deref(), Some(&b"shared"[..]));
    }

    #[test]
    fn nothing_is_taken_of_an_attempt_that_is_closed_or_was_never_opened() {
        let (place, store) = store();
        let token = token("a");
        store.chunk(&token, 1, 0, b"early", None);
        store.accept(&token);
        store.chunk(&token, 1, 0, b"half", None);
        assert_eq!(files(place.path(), "incoming/a"), 1);
        store.close(&token);
        store.chunk(&token, 1, 4, b" late", None);
        store.end(&token, 1, Some(&digest(b"half late")), 9);
        assert_eq!(files(place.path(), "incoming"), 0);
        assert_eq!(files(place.path(), "runs"), 0);
        assert!(whole(&store.attempts).is_empty());
    }

    #[test]
    fn an_attempt_that_is_closed_while_it_stores_is_cleared_by_whoever_stores() {
        let (place, store) = store();
        let token = token("a");
        store.accept(&token);
        store.in_attempt(&token, |attempt| {
            store.close(&token);
            store
                .try_chunk(attempt, &token, 1, 0, b"late", None)
                .unwrap();
        });
        assert_eq!(files(place.path(), "incoming"), 0);
    }

    #[test]
    fn the_files_of_a_run_are_counted_once() {
        let (place, store) = store();
        let token = token("a");
        store.accept(&token);
        store.chunk(&token, 1, 0, b"one", None);
        store.end(&token, 1, Some(&digest(b"one")), 3);
        // Nobody else writes there: a second count would see it.
        std::fs::write(place.path().join("runs/a/other"), "0123456789").unwrap();
        store.chunk(&token, 2, 0, b"two!", None);
        store.end(&token, 2, Some(&digest(b"two!")), 4);
        store.chunk(&token, 3, 0, b"one", None);
        store.end(&token, 3, Some(&digest(b"one")), 3);
        store.chunk(&token, 4, 0, b"given up", None);
        store.end(&token, 4, None, 0);
        store.chunk(&token, 5, 0, b"cut", None);
        store.close(&token);
        assert_eq!(*whole(&store.sum(&token.run)), Some(7));
    }

    #[test]
    fn bytes_that_are_not_those_of_the_digest_are_not_kept() {
        let (place, store) = store();
        let token = token("a");
        store.accept(&token);
        store.chunk(&token, 1, 0, b"changed", None);
        store.end(&token, 1, Some(&digest(b"written")), 7);
        store.chunk(&token, 2, 5, b"hole", None);
        store.end(&token, 2, Some(&digest(b"whole hole")), 10);
        store.end(&token, 3, Some(&digest(b"never came")), 10);
        let refused = store.take_refusals(&token);
        let reasons: Vec<&str> = refused.iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons.first().unwrap().contains("digest"), "{reasons:?}");
        assert_eq!(files(place.path(), "runs"), 0);
        // Given up by the agent.
        store.chunk(&token, 4, 0, b"half", None);
        store.end(&token, 4, None, 0);
        assert_eq!(files(place.path(), "incoming/a"), 0);
        assert!(store.take_refusals(&token).is_empty());
    }

    #[test]
    fn limits_of_a_file_an_attempt_and_a_run_refuse_with_the_setting_that_says_so() {
        let place = tempfile::tempdir().unwrap();
        let limits = Limits {
            file_bytes: 10,
            attempt_bytes: 15,
            run_bytes: 20,
        };
        let store = ArtifactStore::new(place.path(), limits);
        let keep = |attempt: u32, id: u32, bytes: &[u8]| {
            let token = Token {
                attempt,
                ..token("a")
            };
            store.accept(&token);
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            store.chunk(&token, id, 0, first, None);
            store.chunk(&token, id, first.len() as u64, rest, None);
            store.end(&token, id, Some(&digest(bytes)), bytes.len() as u64);
            let refused = store.take_refusals(&token).into_iter();
            refused.map(|(_, reason)| reason).next().unwrap_or_default()
        };
        assert!(keep(1, 1, b"01234567890").contains("artifacts.file_mib"));
        assert_eq!(keep(1, 2, b"0123456789"), "");
        assert!(keep(1, 3, b"abcdef").contains("artifacts.attempt_mib"));
        assert_eq!(keep(2, 1, b"abcdefghij"), "");
        assert!(keep(3, 1, b"x").contains("artifacts.run_mib"));
        // Half of it arrived before it was refused, and none of it counts any more.
        assert!(keep(4, 1, b"0123456789ABCDEF").contains("artifacts.run_mib"));
        assert_eq!(*whole(&store.sum(&"a".into())), Some(20));
        // What the run has already takes no room.
        let full = keep(3, 2, b"");
        assert_eq!(full, "");
        store.accept(&token("b"));
        store.chunk(&token("b"), 1, 0, b"x", Some("the disk is full"));
        let refused = store.take_refusals(&token("b"));
        assert_eq!(refused, [(1, "the disk is full".to_owned())]);
    }

    #[test]
    fn what_arrives_for_a_finished_run_is_swept_and_what_an_open_attempt_sends_is_not() {
        let (place, store) = store();
        for run in ["done", "open"] {
            store.accept(&token(run));
            store.chunk(&token(run), 1, 0, b"half", None);
        }
        let all = ["done", "open"].map(str::to_owned).into();
        let unfinished = ["open"].map(str::to_owned).into();
        let removed = store.sweep(store.list(), &all, &unfinished, true);
        assert_eq!(removed.len(), 1);
        assert_eq!(files(place.path(), "incoming"), 2, "it was a dry run");
        store.sweep(store.list(), &all, &unfinished, false);
        assert_eq!(files(place.path(), "incoming"), 1);
    }
}
