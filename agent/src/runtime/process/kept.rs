//! Notes about kept attempts (`--keep`): whose processes may outlive the attempt, and until when. The reaper leaves
//! them alone.

use crate::private;
use phalanx_shared::id::Token;
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The notes of one agent identity: one file per kept attempt, in a directory of the agent's state.
#[derive(Clone, Debug)]
pub struct KeptNotes {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Note {
    token: Token,
    until: Timestamp,
}

impl KeptNotes {
    /// Uses a directory within the agent's state directory.
    pub fn new(state_dir: &Path) -> KeptNotes {
        KeptNotes {
            directory: state_dir.join("kept-processes"),
        }
    }

    /// Notes that the processes of an attempt may live for `ttl` from `now`.
    pub fn write(&self, token: &Token, now: Timestamp, ttl: Duration) -> io::Result<()> {
        let ttl_us = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        let note = Note {
            token: token.clone(),
            until: Timestamp(now.0.saturating_add(ttl_us)),
        };
        let name = format!(
            "{}-{}-{}-{}.json",
            token.run, token.cell, token.attempt, token.epoch
        );
        private::directory(&self.directory)?;
        private::write(&self.directory.join(name), serde_json::to_vec(&note)?)
    }

    /// Returns all noted attempts, expired or not.
    pub fn all(&self) -> HashSet<Token> {
        self.unexpired(Timestamp(i64::MIN))
    }

    /// Deletes all notes.
    pub fn forget(&self) {
        // The directory may not exist.
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    /// Returns the attempts whose processes must still be left alone. Removes notes that have expired or can't be read.
    pub fn unexpired(&self, now: Timestamp) -> HashSet<Token> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return HashSet::new();
        };
        let mut tokens = HashSet::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let note = std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
            match note {
                Some(note) if note.until > now => {
                    tokens.insert(note.token);
                }
                _ => {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kept_attempt_is_left_alone_until_its_time_is_over() {
        let state = tempfile::tempdir().unwrap();
        let notes = KeptNotes::new(state.path());
        let token = Token {
            run: "r".into(),
            cell: "c".into(),
            attempt: 1,
            epoch: 1,
        };
        assert!(notes.unexpired(Timestamp(0)).is_empty());
        notes
            .write(&token, Timestamp(1_000_000), Duration::from_secs(1))
            .unwrap();
        assert!(notes.unexpired(Timestamp(1_999_999)).contains(&token));
        assert!(notes.unexpired(Timestamp(2_000_000)).is_empty());
        assert!(notes.unexpired(Timestamp(0)).is_empty(), "its file is gone");
    }
}
