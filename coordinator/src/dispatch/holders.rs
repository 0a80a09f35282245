//! Remembers across a restart of the coordinator which process is which agent.
//!
//! An identity that a live process holds can't be taken over by another one. After a restart no agent is connected, so
//! the first process to say Hello would become the agent, even if it runs from a copy of the agent's directory. So a
//! small file beside the journal records how long each lease still runs. It is written every few seconds and never
//! synced: if it is lost, only this protection is lost.

use crate::clock::Clock;
use phalanx_shared::id::AgentId;
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Interval between two writes.
const EVERY: Duration = Duration::from_secs(2);

/// A process that is an agent, or may still be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    instance: String,
    /// When its lease ends at the latest if the agent sends nothing more.
    until: Timestamp,
}

#[derive(Debug, Default)]
struct Known {
    /// This term: processes that are connected, or were a moment ago.
    now: BTreeMap<AgentId, String>,
    /// The previous term: processes that no process of this term has replaced.
    before: BTreeMap<AgentId, Holder>,
}

/// The processes that hold agent identities. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Holders(Arc<Mutex<Known>>);

impl Holders {
    /// Loads the file that the previous term left. An unreadable file counts as empty.
    pub fn load(file: &Path) -> Holders {
        let text = fs::read(file).unwrap_or_default();
        let before = serde_json::from_slice(&text).unwrap_or_default();
        let now = BTreeMap::new();
        Holders(Arc::new(Mutex::new(Known { now, before })))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a process is this agent in this term.
    pub(super) fn note(&self, agent: &AgentId, instance: &str) {
        let mut known = self.known();
        known.before.remove(agent);
        known.now.insert(agent.clone(), instance.to_owned());
    }

    /// Records that no process is this agent any more.
    pub(super) fn forget(&self, agent: &AgentId) {
        let mut known = self.known();
        known.before.remove(agent);
        known.now.remove(agent);
    }

    /// Records that a process ended before it reconnected in this term.
    pub(super) fn died(&self, agent: &AgentId, instance: &str) {
        let mut known = self.known();
        if known
            .before
            .get(agent)
            .is_some_and(|holder| holder.instance == instance)
        {
            known.before.remove(agent);
        }
    }

    /// Returns the process that was the agent in the previous term, and for how long it may still be. `lease` is the
    /// longest possible lease.
    pub(super) fn before(
        &self,
        agent: &AgentId,
        now: Timestamp,
        lease: Duration,
    ) -> Option<(String, Duration)> {
        let holder = self.known().before.get(agent)?.clone();
        // A clock that was set back must not make it longer.
        let left = holder.until.since(now).min(lease + EVERY);
        (!left.is_zero()).then_some((holder.instance, left))
    }

    /// Writes the file every [`EVERY`] while the coordinator runs.
    pub(super) async fn keep(self, file: PathBuf, clock: Arc<dyn Clock>, lease: Duration) {
        let mut interval = tokio::time::interval(EVERY);
        let mut written = BTreeMap::new();
        loop {
            interval.tick().await;
            let now = self.as_of(clock.wall(), lease);
            if now.is_empty() && written.is_empty() {
                continue;
            }
            let (to, holders) = (file.clone(), now.clone());
            let done = tokio::task::spawn_blocking(move || write(&to, &holders)).await;
            match done {
                Ok(Ok(())) => written = now,
                Ok(Err(error)) => tracing::debug!(%error, "who is which agent can't be noted"),
                Err(error) => tracing::debug!(%error, "who is which agent can't be noted"),
            }
        }
    }

    fn as_of(&self, now: Timestamp, lease: Duration) -> BTreeMap<AgentId, Holder> {
        let known = self.known();
        let ahead = i64::try_from((lease + EVERY).as_micros()).unwrap_or(i64::MAX);
        let until = Timestamp(now.0.saturating_add(ahead));
        let open = known.before.iter().filter(|(_, holder)| holder.until > now);
        let mut holders: BTreeMap<AgentId, Holder> = open
            .map(|(agent, holder)| (agent.clone(), holder.clone()))
            .collect();
        holders.extend(known.now.iter().map(|(agent, instance)| {
            let instance = instance.clone();
            (agent.clone(), Holder { instance, until })
        }));
        holders
    }
}

/// Replaces the file atomically, so that a crash leaves the previous one.
fn write(file: &Path, holders: &BTreeMap<AgentId, Holder>) -> io::Result<()> {
    let half = file.with_extension("half");
    let mut options = fs::File::options();
    let options = options.create(true).truncate(true).write(true).mode(0o600);
    io::Write::write_all(&mut options.open(&half)?, &serde_json::to_vec(holders)?)?;
    fs::rename(half, file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LEASE: Duration = Duration::from_secs(13);

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn who_held_an_identity_is_known_after_a_restart_until_its_lease_is_over() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("holders");
        assert!(Holders::load(&file).known().before.is_empty());
        let (a, b) = (AgentId::from("a"), AgentId::from("b"));
        let term = Holders::default();
        term.note(&a, "1");
        term.note(&b, "2");
        write(&file, &term.as_of(at(100), LEASE)).unwrap();
        let term = Holders::load(&file);
        let left = |seconds: i64| term.before(&a, at(seconds), LEASE).map(|(_, left)| left);
        assert_eq!(left(101), Some(Duration::from_secs(14)));
        assert_eq!(left(115), None);
        assert_eq!(left(-5_000), Some(LEASE + EVERY), "a clock was set back");
        // A second restart soon after the first changes nothing for agents that haven't come back.
        write(&file, &term.as_of(at(105), LEASE)).unwrap();
        let again = Holders::load(&file);
        let left = |agent: &AgentId| again.before(agent, at(106), LEASE).map(|(_, left)| left);
        assert_eq!(left(&a), Some(Duration::from_secs(9)));
        again.died(&a, "another");
        assert!(left(&a).is_some());
        again.died(&a, "1");
        assert_eq!(left(&a), None);
        again.note(&b, "2");
        assert_eq!(left(&b), None, "it came back");
        again.forget(&b);
        assert!(again.as_of(at(107), LEASE).is_empty());
    }
}
