//! Who an agent is, over restarts: a directory with an id and a lock.
//!
//! Everything an agent makes bears its id (I3), and only the holder of the lock may remove it, so that two runs on one machine
//! never reap each other. The kernel frees the lock when its holder dies, however it dies: an identity that nobody holds is dead,
//! and the next run cleans up after it.

use phalanx_shared::id::AgentId;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "agent.lock";
const ID_FILE: &str = "agent-id";

/// An identity that is this process's alone while it lives.
#[derive(Debug)]
pub struct Identity {
    agent: AgentId,
    state_dir: PathBuf,
    _lock: File,
}

/// Why an identity can't be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Somebody else is it.
    #[error("the state directory {} is in use by another agent: give this one another directory", .0.display())]
    InUse(PathBuf),
    /// The directory can't be used.
    #[error("can't use {} as state directory: {error}", .path.display())]
    Unusable {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Identity {
    /// Takes the identity of a state directory; the first time a new one is made there.
    pub fn acquire(state_dir: &Path) -> Result<Identity, IdentityError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |error| IdentityError::Unusable { path, error }
        };
        std::fs::create_dir_all(state_dir).map_err(unusable(state_dir))?;
        let lock_path = state_dir.join(LOCK_FILE);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(unusable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(IdentityError::InUse(state_dir.to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(&lock_path)(error)),
        }
        let id_path = state_dir.join(ID_FILE);
        let agent = read_or_make_id(&id_path).map_err(unusable(&id_path))?;
        Ok(Identity {
            agent,
            state_dir: state_dir.to_owned(),
            _lock: lock,
        })
    }

    /// The id.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Its directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Removes the identity for good, once nothing of it is left anywhere.
    pub fn retire(self) {
        if let Err(error) = std::fs::remove_dir_all(&self.state_dir) {
            tracing::debug!(directory = %self.state_dir.display(), %error, "can't remove");
        }
    }
}

/// Takes every identity in the directories directly below `parent` that nobody holds. Clean up after them, then drop them.
/// A directory that never was an identity, or that can't be read, is left out.
pub fn take_dead(parent: &Path) -> Vec<Identity> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|directory| directory.join(ID_FILE).is_file())
        .filter_map(|directory| Identity::acquire(&directory).ok())
        .collect()
}

/// The id of a directory that is an identity, whoever holds it.
pub fn id_of(directory: &Path) -> Option<AgentId> {
    let text = std::fs::read_to_string(directory.join(ID_FILE)).ok()?;
    Some(text.trim())
        .filter(|id| !id.is_empty())
        .map(AgentId::from)
}

fn read_or_make_id(path: &Path) -> io::Result<AgentId> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(AgentId::from(text.trim())),
        Ok(_) => {} // A crash while it was written: nothing was made under it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = uuid::Uuid::now_v7().to_string();
    let mut file = File::create(path)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    Ok(AgentId::from(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_identity_is_the_same_at_each_start_and_held_by_one_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("one");
        let first = Identity::acquire(&directory).unwrap();
        let agent = first.agent().clone();
        assert!(matches!(
            Identity::acquire(&directory),
            Err(IdentityError::InUse(_))
        ));
        drop(first);
        assert_eq!(Identity::acquire(&directory).unwrap().agent(), &agent);
    }

    #[test]
    fn only_dead_identities_are_taken_and_only_once() {
        let place = tempfile::tempdir().unwrap();
        let alive = Identity::acquire(&place.path().join("alive")).unwrap();
        let dead = Identity::acquire(&place.path().join("dead"))
            .unwrap()
            .agent()
            .clone();
        std::fs::create_dir(place.path().join("never-an-agent")).unwrap();
        let taken = take_dead(place.path());
        let ids: Vec<&AgentId> = taken.iter().map(Identity::agent).collect();
        assert_eq!(ids, [&dead]);
        assert_ne!(alive.agent(), &dead);
        assert!(take_dead(place.path()).is_empty());
        assert!(take_dead(&place.path().join("absent")).is_empty());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Identity::acquire(&file).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
