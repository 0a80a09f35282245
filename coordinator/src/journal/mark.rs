//! Records how far the journal is, in a separate file beside the database. A database that lost its newest commits
//! (because its `-wal` file was removed, cut or changed, or the file was emptied or replaced) looks intact to SQLite,
//! and its runs would be lost silently.
//!
//! The file is written after each commit and never synced, so it costs no more than copying a few bytes. After a crash
//! it may be older than the database. It is newer only if the database lost something.

use phalanx_shared::id::RunId;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Fixed size of the file in bytes, so that overwriting it needs no space on a full disk.
const SIZE: usize = 512;

/// The newest durable entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Epoch of the newest term.
    pub epoch: u64,
    /// Run and position of the newest event.
    pub newest: Option<(RunId, u64)>,
}

/// The open mark file.
pub(super) struct MarkFile {
    file: File,
    last: Mutex<Mark>,
}

/// Returns the path of a database's mark file.
pub(super) fn path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".mark");
    PathBuf::from(path)
}

impl MarkFile {
    /// Opens the file, creating it if necessary. An unreadable file counts as an empty mark.
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

    /// Returns the current mark.
    pub fn get(&self) -> Mark {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the mark. If it can't be written, it stays older than the database, which is harmless.
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
