//! Counts how often each fault and each recovery path occurred. A path that no seed takes is not tested.

use std::collections::BTreeMap;
use std::fmt;

/// What must occur within a few hundred seeds.
const EXPECTED: [&str; 61] = [
    "Hello came late",
    "agent crashed",
    "agent ended an attempt that wasn't its own any more",
    "agent left",
    "agent reconnected",
    "agent slow",
    "agent's disk full",
    "agent's lease ran out",
    "attempt finished",
    "attempt lost",
    "attempt of a liar ended",
    "attempt overdue",
    "attempt resumed",
    "attempt resumed in a later term",
    "cancel delivered",
    "cell hung",
    "cell quarantined",
    "cell tried again",
    "clean-up left something",
    "clock jumped",
    "connection cut",
    "connection half open",
    "coordinator crashed",
    "coordinator slow",
    "coordinator's disk full",
    "engine refused to make something",
    "engine restarted",
    "event repeated and dropped",
    "forged what only a coordinator says",
    "hole noticed",
    "identity kept from an impostor",
    "image prepared ahead",
    "impostor said Hello",
    "journal waited for room",
    "leftover reaped",
    "lied about a cell that isn't there",
    "lied about an attempt to come",
    "lied about another's cell",
    "lied with a stale token",
    "late Hello refused",
    "message delayed",
    "message doubled",
    "message lost",
    "message out of order",
    "next process waited for its identity",
    "offer declined",
    "offer unanswered",
    "partition",
    "preparation failed",
    "preparation given up",
    "producer waited for the spool",
    "reaper found no engine",
    "run cancelled",
    "run finished",
    "run replayed",
    "secret said",
    "silence noticed",
    "slow disk",
    "spool went to disk",
    "stale token refused",
    "unsynced events lost",
];

#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Returns what was expected and never occurred.
    pub fn never(&self) -> Vec<&'static str> {
        EXPECTED
            .into_iter()
            .filter(|what| !self.0.contains_key(what))
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.0 {
            writeln!(f, "{times:>9} {what}")?;
        }
        Ok(())
    }
}
