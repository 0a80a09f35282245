//! The logs of all attempts: which are still written, by whom they are opened, and how far they are.

use super::writer::Writer;
use crate::metrics::METRICS;
use phalanx_proto::log::{Body, Record};
use phalanx_shared::id::{CellId, RunId, Token};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// All logs below one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogStore {
    root: Arc<PathBuf>,
    live: Arc<Mutex<HashMap<Key, Live>>>,
}

/// Which attempt, whatever the coordinator's term.
type Key = (RunId, CellId, u32);

/// Logs that may still grow.
#[derive(Debug)]
struct Live {
    /// Opened with the first record.
    writer: Arc<Mutex<Option<Writer>>>,
    progress: watch::Sender<Progress>,
}

/// How far an attempt's logs are, for readers that follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records in the index.
    pub records: u64,
    /// Nothing follows.
    pub over: bool,
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Files are appended to whole lines; what a panic interrupted is cut off when they are opened again.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(token: &Token) -> Key {
    (token.run.clone(), token.cell.clone(), token.attempt)
}

impl LogStore {
    /// The logs below this directory, which is made with the first record.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        LogStore {
            root: Arc::new(root.into()),
            live: Arc::default(),
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an attempt's logs are.
    pub fn directory(&self, run: &RunId, cell: &CellId, attempt: u32) -> PathBuf {
        self.root
            .join(run.as_str())
            .join(cell.as_str())
            .join(attempt.to_string())
    }

    /// The attempt's logs may come.
    pub fn open(&self, token: &Token) {
        whole(&self.live).entry(key(token)).or_insert_with(|| Live {
            writer: Arc::default(),
            progress: watch::channel(Progress::default()).0,
        });
    }

    /// Nothing more comes.
    pub fn close(&self, token: &Token) {
        if let Some(live) = whole(&self.live).remove(&key(token)) {
            live.progress.send_modify(|progress| progress.over = true);
        }
    }

    /// Stores records of one attempt in order. Blocks for the disk. False if the attempt isn't open any more.
    pub fn append(&self, token: &Token, records: Vec<Record>) -> io::Result<bool> {
        let writer = match whole(&self.live).get(&key(token)) {
            Some(live) => live.writer.clone(),
            None => return Ok(false),
        };
        let mut writer = whole(&writer);
        let files = match writer.take() {
            Some(files) => files,
            None => Writer::open(self.directory(&token.run, &token.cell, token.attempt))?,
        };
        let files = writer.insert(files);
        let bytes = records.iter().map(|record| match &record.body {
            Body::Chunk { bytes, .. } => bytes.len() as u64,
            Body::Gap { .. } | Body::End => 0,
        });
        let bytes: u64 = bytes.sum();
        let stored = records
            .into_iter()
            .try_for_each(|record| files.append(record));
        let progress = Progress {
            records: files.records(),
            over: files.ended(),
        };
        if stored.is_err() {
            // What is half done is found out when the files are opened again.
            *writer = None;
        }
        drop(writer);
        if let Some(live) = whole(&self.live).get(&key(token)) {
            live.progress.send_if_modified(|before| {
                let news = *before != progress;
                *before = progress;
                news
            });
        }
        stored.map(|()| {
            METRICS.log_bytes.add(bytes);
            true
        })
    }

    /// How far an attempt's logs are; none if they don't grow any more.
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

    /// Removes the logs of a run that is forgotten.
    pub fn remove_run(&self, run: &RunId) -> io::Result<()> {
        match std::fs::remove_dir_all(self.root.join(run.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
