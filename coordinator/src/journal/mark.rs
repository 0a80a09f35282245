//! How far the journal is, in a file of its own beside it: a database that lost its newest commits (its `-wal` file was removed, cut or
//! changed, the file was emptied or replaced) is whole as far as SQLite can see, and its runs would be gone without a word.
//!
//! Written after each commit and never synced, so it costs no more than a copy of a few bytes: after a crash it may be older than the
//! database, never newer, unless the database lost something.

use phalanx_shared::id::RunId;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of the file, always: writing over them needs no room on a full disk.
const SIZE: usize = 512;

/// What was durable last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The newest term of office.
    pub epoch: u64,
    /// The newest event.
    pub newest: Option<(RunId, u64)>,
}

/// The file.
pub(super) struct MarkFile {
    file: File,
    last: Mutex<Mark>,
}

/// Where the mark of a database is.
pub(super) fn path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".mark");
    PathBuf::from(path)
}

impl MarkFile {
    /// Opens it, made if need be. One that can't be read marks nothing.
    pub fn open(database: &Path) -> io::Result<MarkFile> {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.mode(0o600).open(path(database))?;
        let mut text = String::new();
        let read = (&mut file).take(SIZE as u64).read_to_string(&mut text);
        let mark = read
            .ok()
            .and_then(|_| serde_json::from_str(text.trim_end()).ok())
            .unwrap_or_default();
        Ok(MarkFile {
            file,
            last: Mutex::new(mark),
        })
    }

    /// What it says.
    pub fn get(&self) -> Mark {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes it. A mark that can't be written stays older than the database, which harms nothing.
    pub fn set(&self, change: impl FnOnce(&mut Mark)) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.clone();
        change(&mut last);
        if *last == before {
            return;
        }
        let Ok(mut text) = serde_json::to_vec(&*last) else {
            return;
        };
        if text.len() < SIZE {
            text.resize(SIZE - 1, b' ');
            text.push(b'\n');
            if let Err(error) = self.file.write_all_at(&text, 0) {
                tracing::debug!(%error, "marking how far the journal is");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_broken_one_marks_nothing() {
        let place = tempfile::tempdir().unwrap();
        let database = place.path().join("journal.db");
        let mark = MarkFile::open(&database).unwrap();
        assert_eq!(mark.get(), Mark::default());
        mark.set(|mark| mark.newest = Some(("a-longer-id".into(), 1_000)));
        mark.set(|mark| {
            mark.epoch = 3;
            mark.newest = Some(("run".into(), 7));
        });
        let again = MarkFile::open(&database).unwrap().get();
        assert_eq!((again.epoch, again.newest), (3, Some(("run".into(), 7))));
        std::fs::write(path(&database), "{\"epoch\":").unwrap();
        assert_eq!(MarkFile::open(&database).unwrap().get(), Mark::default());
    }
}
