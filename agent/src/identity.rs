//! An agent's identity, which survives restarts: a directory with an id and a lock.
//!
//! Everything an agent creates carries its id (I3). Only the holder of the lock may remove it, so two agents on one
//! machine never reap each other's objects. The kernel releases the lock when its holder dies for any reason. An
//! identity whose lock is free is dead, and the next agent cleans up after it.

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

/// Maximum time an agent waits for another agent that is cleaning up after its predecessor.
const CLEANED_WITHIN: Duration = Duration::from_secs(60);
/// Interval between two checks of that.
const LOOK: Duration = Duration::from_millis(100);

/// An identity that this process holds exclusively while it lives.
#[derive(Debug)]
pub struct Identity {
    agent: AgentId,
    state_dir: PathBuf,
    lock: File,
    /// Whether the identity belongs to another agent and is held only to clean up after it.
    borrowed: bool,
}

impl Drop for Identity {
    fn drop(&mut self) {
        if self.borrowed {
            let _ = self.lock.set_len(0);
        }
    }
}

/// Location of an identity's lock, for other agents on the same host. Everything an agent creates carries it as a
/// label, so that another agent can clean up if this one never returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Id of the machine.
    pub host: String,
    /// Inode of the lock file: in another container the same path may name a different file.
    pub inode: u64,
    /// Path of the lock file.
    pub lock: PathBuf,
}

impl Home {
    /// Formats the location as a label value.
    pub fn to_label(&self) -> String {
        format!("{}:{}:{}", self.host, self.inode, self.lock.display())
    }

    /// Parses a label value. Returns `None` if it is malformed.
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

/// Returns the id of this machine: the machine id, which survives restarts, or else the boot id.
fn host() -> Option<String> {
    ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|id| !id.is_empty() && !id.contains(':'))
}

/// Acquires the identity at `home` if its lock is free, so that the caller can clean up after it and release it.
/// Returns `None` if the lock is held or if that can't be determined: the identity is of another machine, the path
/// names another file, or this user can't open it.
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
    // The mark makes an agent that starts now wait until the clean-up is done.
    let _ = lock.write_all(b"cleaning");
    Some(Identity {
        agent: agent.clone(),
        state_dir,
        lock,
        borrowed: true,
    })
}

/// Returns whether the identity's directory has been removed or belongs to another identity by now. Returns `false` for
/// other machines and for paths that can't be read.
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

/// Reasons why an identity can't be acquired.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process holds the lock.
    #[error("the state directory {} is in use by another agent: give this one another directory", .0.display())]
    InUse(PathBuf),
    /// The directory or one of its files can't be used.
    #[error("can't use {} as state directory: {error}", .path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// The underlying error.
        error: io::Error,
    },
}

impl Identity {
    /// Like [`Identity::acquire`], but first waits for another agent that is cleaning up after the predecessor.
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

    /// Returns the location of the lock, or `None` if it can't be determined.
    pub fn home(&self) -> Option<Home> {
        let lock = self.state_dir.join(LOCK_FILE).canonicalize().ok()?;
        Some(Home {
            host: host()?,
            inode: self.lock.metadata().ok()?.ino(),
            lock,
        })
    }

    /// Acquires the identity in a state directory. Creates one if the directory has none.
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

    /// Returns the agent's id.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Returns the agent's state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Removes the identity for good. Call it when nothing that it created is left.
    pub fn retire(self) {
        if let Err(error) = std::fs::remove_dir_all(&self.state_dir) {
            tracing::debug!(directory = %self.state_dir.display(), %error, "can't remove");
        }
    }
}

/// Acquires every identity directly below `parent` whose lock is free. The caller cleans up after them and drops them.
/// Skips directories that hold no identity or can't be read.
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

/// Returns the agent id in a directory, whether or not the identity is held. Returns `None` if the directory holds no
/// identity.
pub fn id_of(directory: &Path) -> Option<AgentId> {
    let text = std::fs::read_to_string(directory.join(ID_FILE)).ok()?;
    Some(text.trim())
        .filter(|id| !id.is_empty())
        .map(AgentId::from)
}

/// Writes an agent id into a directory that has none, for the agent that will acquire it.
pub fn adopt(directory: &Path, agent: &AgentId) -> io::Result<()> {
    private::directory(directory)?;
    let path = directory.join(ID_FILE);
    let mut options = private::file();
    match options.create_new(true).write(true).open(&path) {
        Ok(mut file) => {
            file.write_all(agent.as_str().as_bytes())?;
            file.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn read_or_make_id(path: &Path) -> io::Result<AgentId> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(AgentId::from(text.trim())),
        Ok(_) => {} // The process crashed while writing it, before it created anything.
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
        // A live agent holds this identity and isn't cleaning up, so the call doesn't wait.
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
