//! The logs of all attempts: which are still being written, by which agent, and how far they are.

use super::writer::Writer;
use crate::dispatch::artifacts::{self, ArtifactStore};
use crate::metrics::METRICS;
use phalanx_proto::log::{Body, Record};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Directory of the artifacts, beside that of the logs.
const ARTIFACTS: &str = "artifacts";

/// Limits on stored logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum bytes of one attempt's logs.
    pub attempt_bytes: u64,
    /// Maximum bytes of the logs of all attempts that one agent holds.
    pub agent_bytes: u64,
    /// Bytes of the disk that logs leave free for the journal; `None` derives it from the size of the disk.
    pub reserve_bytes: Option<u64>,
    /// Limits on artifacts, which are stored beside the logs.
    pub artifacts: artifacts::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            attempt_bytes: 512 << 20,
            agent_bytes: 8 << 30,
            reserve_bytes: None,
            artifacts: artifacts::Limits::default(),
        }
    }
}

impl Limits {
    /// Returns how many bytes logs leave free on a disk of this size: 1 GiB, or a tenth of the disk if that is less. A
    /// fixed share of a large disk would be more than the journal ever needs, and logs would be refused while there is
    /// plenty of room.
    fn reserve(&self, disk_bytes: u64) -> u64 {
        self.reserve_bytes.unwrap_or((disk_bytes / 10).min(1 << 30))
    }
}

/// Result of [`LogStore::append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The records are kept, or a gap explains why not.
    Kept,
    /// The attempt isn't open any more.
    Over,
    /// Nothing of the attempt can be kept, not even a gap. Holds the reason.
    Refused(String),
}

/// All logs below one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogStore {
    root: Arc<PathBuf>,
    artifacts: ArtifactStore,
    limits: Limits,
    /// Why the last append failed, if it did.
    failed: Arc<Mutex<Option<String>>>,
    live: Arc<Mutex<HashMap<Key, Live>>>,
    spent: Arc<Mutex<Spent>>,
}

/// Bytes of the logs of each agent's open attempts.
#[derive(Debug, Default)]
struct Spent {
    agents: HashMap<AgentId, u64>,
    attempts: HashMap<Key, (AgentId, u64)>,
}

impl Spent {
    /// Sets the bytes counted for an attempt and adjusts its agent's sum.
    fn set(&mut self, key: &Key, bytes: u64) {
        let Some((agent, before)) = self.attempts.get_mut(key) else {
            return;
        };
        let of_agent = self.agents.entry(agent.clone()).or_default();
        *of_agent = of_agent.saturating_sub(*before).saturating_add(bytes);
        *before = bytes;
    }

    fn open(&mut self, key: Key, agent: &AgentId) {
        self.attempts
            .entry(key)
            .or_insert_with(|| (agent.clone(), 0));
    }

    fn close(&mut self, key: &Key) {
        self.set(key, 0);
        if let Some((agent, _)) = self.attempts.remove(key)
            && self.agents.get(&agent) == Some(&0)
        {
            self.agents.remove(&agent);
        }
    }

    /// Returns how many of the `wants` bytes an attempt that has `has` bytes may add. Counts them at once, since other
    /// attempts of the agent may add logs concurrently.
    fn reserve(&mut self, key: &Key, has: u64, wants: u64, limit: u64) -> u64 {
        self.set(key, has);
        let agent = self.attempts.get(key).map(|(agent, _)| agent);
        let of_agent = agent.and_then(|agent| self.agents.get(agent)).copied();
        let granted = wants.min(limit.saturating_sub(of_agent.unwrap_or_default()));
        self.set(key, has.saturating_add(granted));
        granted
    }
}

/// Identifies an attempt, in whatever term of the coordinator.
type Key = (RunId, CellId, u32);

/// Logs that may still grow.
#[derive(Debug)]
struct Live {
    /// Opened with the first record.
    writer: Arc<Mutex<Option<Writer>>>,
    progress: watch::Sender<Progress>,
}

/// How far an attempt's logs are, for readers that follow them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of records in the index.
    pub records: u64,
    /// Whether the logs are complete.
    pub over: bool,
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock is fine: files grow by whole lines, and an interrupted write is cut off when the files are
    // reopened.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(token: &Token) -> Key {
    (token.run.clone(), token.cell.clone(), token.attempt)
}

fn only_ends(records: &[Record]) -> bool {
    records.iter().all(|record| record.body == Body::End)
}

impl LogStore {
    /// Returns a store below this directory, which is created with the first record. Uses the default limits.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::with_limits(root, Limits::default())
    }

    /// Returns a store with the given limits.
    pub fn with_limits(root: impl Into<PathBuf>, limits: Limits) -> Self {
        let root: PathBuf = root.into();
        let beside = root.with_file_name(ARTIFACTS);
        LogStore {
            artifacts: ArtifactStore::new(beside, limits.artifacts),
            root: Arc::new(root),
            limits,
            failed: Arc::default(),
            live: Arc::default(),
            spent: Arc::default(),
        }
    }

    /// Never waits for the disk for an artifact: nobody needs the store after a crash.
    #[must_use]
    pub fn temporary(self) -> Self {
        let artifacts = self.artifacts.temporary();
        LogStore { artifacts, ..self }
    }

    /// Returns the artifacts, which agents send among their logs.
    pub fn artifacts(&self) -> &ArtifactStore {
        &self.artifacts
    }

    /// Returns the store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory of an attempt's logs.
    pub fn directory(&self, run: &RunId, cell: &CellId, attempt: u32) -> PathBuf {
        self.root
            .join(run.as_str())
            .join(cell.as_str())
            .join(attempt.to_string())
    }

    /// Accepts logs of this attempt from this agent from now on.
    pub fn open(&self, token: &Token, agent: &AgentId) {
        whole(&self.spent).open(key(token), agent);
        self.artifacts.accept(token);
        whole(&self.live).entry(key(token)).or_insert_with(|| Live {
            writer: Arc::default(),
            progress: watch::channel(Progress::default()).0,
        });
    }

    /// Accepts no more logs of this attempt. Readers that follow it end.
    pub fn close(&self, token: &Token) {
        whole(&self.spent).close(&key(token));
        if let Some(live) = whole(&self.live).remove(&key(token)) {
            live.progress.send_modify(|progress| progress.over = true);
        }
        self.artifacts.close(token);
    }

    /// Stores records of one attempt in order. Blocks on the disk. Returns an error for a failure that may pass: the
    /// agent sends the records again.
    pub fn append(&self, token: &Token, records: Vec<Record>) -> io::Result<Stored> {
        let stored = self.try_append(token, records);
        *whole(&self.failed) = match &stored {
            Ok(Stored::Refused(reason)) => Some(reason.clone()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        match stored {
            // An attempt that exceeds its own limit is no problem of the store.
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
                *whole(&self.failed) = None;
                Ok(Stored::Refused(error.to_string()))
            }
            stored => stored,
        }
    }

    fn try_append(&self, token: &Token, records: Vec<Record>) -> io::Result<Stored> {
        let writer = match whole(&self.live).get(&key(token)) {
            Some(live) => live.writer.clone(),
            None => return Ok(Stored::Over),
        };
        let mut writer = whole(&writer);
        let records = self.without_artifacts(token, records);
        if records.is_empty() {
            return Ok(Stored::Kept);
        }
        let files = match writer.take() {
            Some(files) => files,
            None => {
                let directory = self.directory(&token.run, &token.cell, token.attempt);
                if only_ends(&records) && !directory.try_exists()? {
                    // Most cells print nothing: create no files and don't wait for the disk.
                    self.tell(
                        token,
                        Progress {
                            records: 0,
                            over: true,
                        },
                    );
                    return Ok(Stored::Kept);
                }
                match Writer::open(directory) {
                    Ok(files) => files,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
                    // A retry wouldn't help.
                    Err(error) => {
                        let root = self.root.display();
                        let reason = format!("the coordinator can't write to {root}: {error}");
                        return Ok(Stored::Refused(reason));
                    }
                }
            }
        };
        let files = writer.insert(files);
        let reserve = self.below_reserve();
        let before = files.bytes();
        let wants = records.iter().map(bytes_of).sum();
        let of_agent = self.limits.agent_bytes;
        let granted = whole(&self.spent).reserve(&key(token), before, wants, of_agent);
        let stored = records.into_iter().try_for_each(|record| {
            let limit = self.limits.attempt_bytes;
            let over = if files.bytes() >= limit {
                Some(over(limit, "one attempt"))
            } else if files.bytes() - before + bytes_of(&record) > granted {
                Some(over(of_agent, "all attempts that an agent holds"))
            } else {
                reserve.clone()
            };
            files.append(record, over.as_deref())
        });
        let bytes = files.bytes() - before;
        whole(&self.spent).set(&key(token), files.bytes());
        let progress = Progress {
            records: files.records(),
            over: files.ended(),
        };
        if stored.is_err() {
            // Reopening the files repairs a half-finished write.
            *writer = None;
        }
        drop(writer);
        self.tell(token, progress);
        METRICS.log_bytes.inc_by(bytes);
        stored.map(|()| Stored::Kept)
    }

    /// Stores the records of artifacts, and returns the others. Their numbers need no memory: an agent sends again only
    /// what has no answer, and bytes tell where they belong.
    fn without_artifacts(&self, token: &Token, records: Vec<Record>) -> Vec<Record> {
        let is_artifact = |record: &Record| {
            matches!(
                record.body,
                Body::Artifact { .. } | Body::ArtifactEnd { .. }
            )
        };
        if !records.iter().any(is_artifact) {
            return records;
        }
        let full = self.below_reserve();
        let mut others = Vec::new();
        for record in records {
            match record.body {
                Body::Artifact { id, offset, bytes } => {
                    let artifacts = &self.artifacts;
                    artifacts.chunk(token, id, offset, &bytes, full.as_deref());
                }
                Body::ArtifactEnd { id, digest, size } => {
                    self.artifacts.end(token, id, digest.as_deref(), size);
                }
                _ => others.push(record),
            }
        }
        others
    }

    fn tell(&self, token: &Token, progress: Progress) {
        if let Some(live) = whole(&self.live).get(&key(token)) {
            live.progress.send_if_modified(|before| {
                let news = *before != progress;
                *before = progress;
                news
            });
        }
    }

    /// Returns why logs are refused at the moment, if the disk has too little room for them and the journal.
    pub fn below_reserve(&self) -> Option<String> {
        let disk = nix::sys::statvfs::statvfs(self.root.parent()?).ok()?;
        let block = disk.fragment_size();
        let reserve = self.limits.reserve(disk.blocks() * block);
        let free = disk.blocks_available() * block;
        (free < reserve).then(|| {
            format!(
                "the coordinator's disk is nearly full: {} are left, {} are kept for the journal",
                mib(free),
                mib(reserve)
            )
        })
    }

    /// Returns the reason why logs can't be stored at the moment, if there is one.
    pub fn problem(&self) -> Option<String> {
        let usable = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&*self.root);
        let usable = usable.and_then(|()| {
            let writable = nix::unistd::access(&*self.root, nix::unistd::AccessFlags::W_OK);
            writable.map_err(io::Error::from)
        });
        match usable {
            Err(error) => Some(format!("{}: {error}", self.root.display())),
            Ok(()) => self.below_reserve().or_else(|| self.still_failing()),
        }
    }

    /// Returns why the last append failed if writing still fails. It probes the disk because no new record may come to
    /// try again.
    fn still_failing(&self) -> Option<String> {
        let failed = whole(&self.failed).clone()?;
        let probe = self.root.join(".probe");
        let tried = std::fs::write(&probe, "x").and_then(|()| std::fs::remove_file(&probe));
        if tried.is_ok() {
            *whole(&self.failed) = None;
            return None;
        }
        Some(failed)
    }

    /// Subscribes to the progress of an attempt's logs. Returns none if they don't grow any more.
    pub fn follow(
        &self,
        run: &RunId,
        cell: &CellId,
        attempt: u32,
    ) -> Option<watch::Receiver<Progress>> {
        let live = whole(&self.live);
        let live = live.get(&(run.clone(), cell.clone(), attempt))?;
        Some(live.progress.subscribe())
    }

    /// Removes the logs of a forgotten run.
    pub fn remove_run(&self, run: &RunId) -> io::Result<()> {
        match std::fs::remove_dir_all(self.root.join(run.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn bytes_of(record: &Record) -> u64 {
    match &record.body {
        Body::Chunk { bytes, .. } => bytes.len() as u64,
        Body::Gap { .. } | Body::Artifact { .. } | Body::ArtifactEnd { .. } | Body::End => 0,
    }
}

fn over(limit: u64, whose: &str) -> String {
    format!("over the limit of {} for the logs of {whose}", mib(limit))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::dispatch::logs::writer::MAX_SOURCES;
    use phalanx_proto::log::Source;
    use phalanx_shared::event::LogStream;
    use phalanx_shared::time::Timestamp;

    fn token() -> Token {
        Token {
            run: "run".into(),
            cell: "cell".into(),
            attempt: 1,
            epoch: 1,
        }
    }

    fn records(from: u64, count: u64, bytes: usize) -> Vec<Record> {
        let one = |n: u64| Record {
            number: from + n + 1,
            body: Body::Chunk {
                source: Source {
                    service: "s".to_owned(),
                    stream: LogStream::Stdout,
                },
                offset: (from + n) * bytes as u64,
                at: Timestamp(1),
                bytes: vec![b'x'; bytes],
            },
        };
        (0..count).map(one).collect()
    }

    fn limited(limits: Limits) -> (tempfile::TempDir, LogStore) {
        let place = tempfile::tempdir().unwrap();
        let store = LogStore::with_limits(place.path().join("logs"), limits);
        store.open(&token(), &"agent".into());
        (place, store)
    }

    #[test]
    fn the_logs_of_an_attempt_are_bounded_whatever_its_agent_sends() {
        let (place, store) = limited(Limits {
            attempt_bytes: 10_000,
            reserve_bytes: Some(0),
            ..Limits::default()
        });
        for n in 0..20 {
            let stored = store.append(&token(), records(n * 10, 10, 1_000)).unwrap();
            assert_eq!(stored, Stored::Kept);
        }
        let file = place.path().join("logs/run/cell/1/s.stdout");
        assert_eq!(file.metadata().unwrap().len(), 10_000);
        assert_eq!(store.problem(), None, "one noisy attempt disturbs no other");
    }

    #[test]
    fn an_agents_attempts_share_a_budget_that_frees_as_they_end_and_other_agents_have_their_own() {
        let limits = Limits {
            agent_bytes: 10_000,
            reserve_bytes: Some(0),
            ..Limits::default()
        };
        let (place, store) = limited(limits);
        let of = |attempt: u32| Token { attempt, ..token() };
        store.open(&of(2), &"agent".into());
        store.open(&of(3), &"other".into());
        let kept = |attempt: u32| {
            let file = format!("logs/run/cell/{attempt}/s.stdout");
            let file = place.path().join(file).metadata();
            file.map_or(0, |file| file.len())
        };
        store.append(&of(1), records(0, 8, 1_000)).unwrap();
        let stored = store.append(&of(2), records(0, 8, 1_000)).unwrap();
        assert_eq!((kept(1), kept(2)), (8_000, 2_000));
        assert_eq!((stored, store.problem()), (Stored::Kept, None));
        store.append(&of(3), records(0, 8, 1_000)).unwrap();
        assert_eq!(kept(3), 8_000, "another agent");
        store.close(&of(1));
        store.append(&of(2), records(8, 8, 1_000)).unwrap();
        assert_eq!(kept(2), 10_000);
        let index = place.path().join("logs/run/cell/2/index");
        let index = std::fs::read_to_string(index).unwrap();
        assert!(
            index.contains("all attempts that an agent holds"),
            "{index}"
        );
        // After a restart, the bytes on disk count.
        let again = LogStore::with_limits(place.path().join("logs"), limits);
        for attempt in [2, 4] {
            again.open(&of(attempt), &"agent".into());
            again.append(&of(attempt), records(16, 1, 1_000)).unwrap();
        }
        assert_eq!((kept(2), kept(4)), (10_000, 0));
        for attempt in [2, 4] {
            again.close(&of(attempt));
        }
        assert!(whole(&again.spent).agents.is_empty());
    }

    #[test]
    fn a_disk_below_its_reserve_takes_no_logs_and_says_so_until_there_is_room() {
        let all = Limits {
            reserve_bytes: Some(u64::MAX),
            ..Limits::default()
        };
        let (place, store) = limited(all);
        let stored = store.append(&token(), records(0, 3, 10)).unwrap();
        assert_eq!(stored, Stored::Kept);
        assert!(store.problem().unwrap().contains("kept for the journal"));
        let room = LogStore {
            limits: Limits {
                reserve_bytes: Some(0),
                ..all
            },
            ..store
        };
        room.append(&token(), records(3, 1, 10)).unwrap();
        assert_eq!(room.problem(), None);
        let index = std::fs::read_to_string(place.path().join("logs/run/cell/1/index")).unwrap();
        assert!(
            index.starts_with("{\"n\":0,\"gap\"") && index.contains("\"to\":30"),
            "{index}"
        );
    }

    #[test]
    fn an_agent_that_names_too_many_outputs_is_refused_and_is_nobody_elses_problem() {
        let (_place, store) = limited(Limits {
            reserve_bytes: Some(0),
            ..Limits::default()
        });
        let mut last = Stored::Kept;
        for n in 0..=MAX_SOURCES as u64 {
            let mut one = records(0, 1, 1);
            one[0].number = n + 1;
            if let Body::Chunk { source, .. } = &mut one[0].body {
                source.service = format!("s{n}");
            }
            last = store.append(&token(), one).unwrap();
        }
        assert!(
            matches!(&last, Stored::Refused(why) if why.contains("outputs")),
            "{last:?}"
        );
        assert_eq!(store.problem(), None);
    }

    #[test]
    fn a_directory_that_is_none_refuses_logs_with_its_name() {
        let (place, store) = limited(Limits::default());
        std::fs::write(place.path().join("logs"), "").unwrap();
        let stored = store.append(&token(), records(0, 1, 10)).unwrap();
        assert!(
            matches!(&stored, Stored::Refused(why) if why.contains("logs")),
            "{stored:?}"
        );
        assert!(store.problem().unwrap().contains("logs"));
        std::fs::remove_file(place.path().join("logs")).unwrap();
        store.append(&token(), records(0, 1, 10)).unwrap();
        assert_eq!(store.problem(), None);
    }

    #[test]
    fn the_reserve_follows_the_size_of_the_disk() {
        let reserve = |gib: u64| Limits::default().reserve(gib << 30) >> 20;
        assert_eq!([1, 20, 100, 1_000].map(reserve), [102, 1_024, 1_024, 1_024]);
    }

    fn record(number: u64, body: Body) -> Record {
        Record { number, body }
    }

    #[test]
    fn an_attempt_that_prints_nothing_makes_no_file_and_is_over_all_the_same() {
        let place = tempfile::tempdir().unwrap();
        let store = LogStore::new(place.path().join("logs"));
        let token = token();
        store.open(&token, &"agent".into());
        let progress = store.follow(&token.run, &token.cell, 1).unwrap();
        let stored = store.append(&token, vec![record(1, Body::End)]).unwrap();
        assert_eq!(stored, Stored::Kept);
        assert!(progress.borrow().over);
        assert!(!store.root().exists());
    }

    #[test]
    fn an_end_that_comes_after_a_restart_goes_to_the_files_that_are_there() {
        let place = tempfile::tempdir().unwrap();
        let token = token();
        let chunk = records(0, 1, 2).remove(0).body;
        for (number, body) in [(1, chunk), (2, Body::End)] {
            let store = LogStore::new(place.path());
            store.open(&token, &"agent".into());
            store.append(&token, vec![record(number, body)]).unwrap();
        }
        let directory = LogStore::new(place.path()).directory(&token.run, &token.cell, 1);
        assert!(Writer::open(directory).unwrap().ended());
    }
}
