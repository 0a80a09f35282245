//! Who an agent is, over restarts: a directory with an id and a lock.
//!
//! Everything an agent makes bears its id (I3), and only the holder of the lock may remove it, so that two runs on one machine
//! never reap each other. The kernel frees the lock when its holder dies, however it dies: an identity that nobody holds is dead,
//! and the next run cleans up after it.

use crate::clock::Deadline;
use crate::private;
use phalanx_shared::id::AgentId;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_FILE: &str = "agent.lock";
const ID_FILE: &str = "agent-id";

/// How long an agent waits for another one that is cleaning up after it at the moment.
const CLEANED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(100);

/// An identity that is this process's alone while it lives.
#[derive(Debug)]
pub struct Identity {
    agent: AgentId,
    state_dir: PathBuf,
    lock: File,
    /// Whether it is another's, held for a moment to clean up after it.
    borrowed: bool,
}

impl Drop for Identity {
    fn drop(&mut self) {
        if self.borrowed {
            let _ = self.lock.set_len(0);
        }
    }
}

/// Where an identity's lock is, for other agents of the same host: everything that it makes bears this, so that somebody can clean up after it
/// if it never returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The machine.
    pub host: String,
    /// Of the lock's file: the same path may lead to another one in another container.
    pub inode: u64,
    /// The lock's file.
    pub lock: PathBuf,
}

impl Home {
    /// As a label's value.
    pub fn to_label(&self) -> String {
        format!("{}:{}:{}", self.host, self.inode, self.lock.display())
    }

    /// Of a label's value.
    pub fn from_label(text: &str) -> Option<Home> {
        let (host, rest) = text.split_once(':')?;
        let (inode, lock) = rest.split_once(':')?;
        Some(Home {
            host: host.to_owned(),
            inode: inode.parse().ok()?,
            lock: PathBuf::from(lock),
        })
    }
}

/// This machine, over restarts if it has an id.
fn host() -> Option<String> {
    ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|id| !id.is_empty() && !id.contains(':'))
}

/// Takes an identity whose directory is somewhere on this machine, if nobody holds it: to clean up after it, and then to let go of it. `None` if it is
/// held, or if that can't be judged: another machine's, another file at the path, one that isn't ours to open.
pub fn take_abandoned(home: &Home, agent: &AgentId) -> Option<Identity> {
    if host()? != home.host {
        return None;
    }
    let state_dir = home.lock.parent()?.to_owned();
    let mut lock = File::options()
        .read(true)
        .write(true)
        .open(&home.lock)
        .ok()?;
    let same = |meta: std::fs::Metadata| meta.is_file() && meta.ino() == home.inode;
    if !lock.metadata().is_ok_and(same) || id_of(&state_dir).as_ref() != Some(agent) {
        return None;
    }
    lock.try_lock().ok()?;
    // An agent that starts meanwhile waits for us.
    let _ = lock.write_all(b"cleaning");
    Some(Identity {
        agent: agent.clone(),
        state_dir,
        lock,
        borrowed: true,
    })
}

/// Whether an identity's directory is not there any more: removed, or another one's by now. Only of this machine, and of what can be looked at.
pub fn is_removed(home: &Home, agent: &AgentId) -> bool {
    if host().as_ref() != Some(&home.host) {
        return false;
    }
    let other = |meta: std::fs::Metadata| {
        let id = home.lock.parent().and_then(id_of);
        meta.ino() != home.inode || id.is_some_and(|id| id != *agent)
    };
    match home.lock.metadata() {
        Ok(meta) => other(meta),
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
    }
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
    /// The same, after whoever cleans up after its predecessor at the moment.
    pub async fn acquire_cleaned(state_dir: &Path) -> Result<Identity, IdentityError> {
        let until = Deadline::within(CLEANED_WITHIN);
        loop {
            let acquired = Identity::acquire(state_dir);
            let cleaning = matches!(acquired, Err(IdentityError::InUse(_)))
                && state_dir
                    .join(LOCK_FILE)
                    .metadata()
                    .is_ok_and(|lock| lock.len() > 0);
            if !cleaning || until.is_over() {
                return acquired;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where its lock is.
    pub fn home(&self) -> Option<Home> {
        let lock = self.state_dir.join(LOCK_FILE).canonicalize().ok()?;
        Some(Home {
            host: host()?,
            inode: self.lock.metadata().ok()?.ino(),
            lock,
        })
    }

    /// Takes the identity of a state directory; the first time a new one is made there.
    pub fn acquire(state_dir: &Path) -> Result<Identity, IdentityError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |error| IdentityError::Unusable { path, error }
        };
        private::directory(state_dir).map_err(unusable(state_dir))?;
        let lock_path = state_dir.join(LOCK_FILE);
        let lock = private::file()
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
        private::tighten_all(state_dir);
        Ok(Identity {
            agent,
            state_dir: state_dir.to_owned(),
            lock,
            borrowed: false,
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
    let mut options = private::file();
    let options = options.create(true).truncate(true).write(true);
    let mut file = options.open(path)?;
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

    #[tokio::test]
    async fn an_abandoned_identity_is_taken_by_its_home_and_only_if_that_can_be_judged() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("one");
        let identity = Identity::acquire(&directory).unwrap();
        let (agent, home) = (identity.agent().clone(), identity.home().unwrap());
        assert_eq!(Home::from_label(&home.to_label()), Some(home.clone()));
        assert!(take_abandoned(&home, &agent).is_none(), "it is held");
        drop(identity);
        let judged = |change: fn(&mut Home)| {
            let mut home = home.clone();
            change(&mut home);
            take_abandoned(&home, &agent).is_some()
        };
        let removed = |change: fn(&mut Home)| {
            let mut home = home.clone();
            change(&mut home);
            is_removed(&home, &agent)
        };
        assert!(!removed(|_| {}) && !removed(|home| home.host.push('x')));
        assert!(removed(|home| home.inode += 1) && removed(|home| home.lock.push("x")));
        assert!(is_removed(&home, &"other".into()));
        assert!(!judged(|home| home.host.push('x')), "another machine's");
        assert!(!judged(|home| home.inode += 1), "another file");
        assert!(!judged(|home| home.lock.push("x")), "no file");
        assert!(
            take_abandoned(&home, &"other".into()).is_none(),
            "another identity"
        );
        let taken = take_abandoned(&home, &agent).unwrap();
        assert!(take_abandoned(&home, &agent).is_none(), "one cleans up");
        assert!(Identity::acquire(&directory).is_err());
        let waiting = tokio::spawn({
            let directory = directory.clone();
            async move { Identity::acquire_cleaned(&directory).await }
        });
        tokio::time::sleep(LOOK * 2).await;
        assert!(!waiting.is_finished());
        drop(taken);
        let back = waiting.await.unwrap().unwrap();
        assert_eq!(back.agent(), &agent);
        // Of one that is held by an agent nobody waits.
        assert!(Identity::acquire_cleaned(&directory).await.is_err());
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
