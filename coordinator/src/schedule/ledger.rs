//! What the cells of a run and class waited for, as sums of time by cause.
//!
//! Waiting cells of the same run and class wait for the same thing. So there is one ledger for all of them, and the
//! waits of a cell are the difference between two of its states.

use phalanx_shared::wait::{Wait, WaitCause};
use std::time::Duration;

/// The causes that a ledger tells apart.
const CAUSES: [WaitCause; 7] = [
    WaitCause::Slot,
    WaitCause::MaxParallel,
    WaitCause::LabelLimit,
    WaitCause::Cpu,
    WaitCause::Memory,
    WaitCause::Subnet,
    WaitCause::Agent,
];
/// Shorter waits are not reported.
const SHORTEST: Duration = Duration::from_millis(1);

/// Time by cause.
pub(super) type Sums = [Duration; CAUSES.len()];

/// What cells of one run and class wait for, and did.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    now: Option<(WaitCause, Duration)>,
    before: Sums,
}

impl Ledger {
    /// Notes what the cells wait for from now on.
    pub fn waits_for(&mut self, cause: WaitCause, now: Duration) {
        if self.now.is_none_or(|(known, _)| known != cause) {
            self.before = self.sums(now);
            self.now = Some((cause, now));
        }
    }

    /// Returns what the cells wait for.
    pub fn cause(&self) -> Option<WaitCause> {
        self.now.map(|(cause, _)| cause)
    }

    /// Returns the time by cause until now.
    pub fn sums(&self, now: Duration) -> Sums {
        let mut sums = self.before;
        if let Some((cause, since)) = self.now
            && let Some(index) = CAUSES.iter().position(|known| *known == cause)
            && let Some(sum) = sums.get_mut(index)
        {
            *sum += now.saturating_sub(since);
        }
        sums
    }
}

/// Returns the waits between two states of a ledger.
pub(super) fn waits(from: &Sums, to: &Sums) -> Vec<Wait> {
    let times = CAUSES.iter().zip(from.iter().zip(to));
    times
        .map(|(cause, (from, to))| (*cause, to.saturating_sub(*from)))
        .filter(|(_, time)| *time >= SHORTEST)
        .map(|(cause, time)| Wait {
            cause,
            us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_waits_only_from_its_arrival_on() {
        let at = Duration::from_secs;
        let mut ledger = Ledger::default();
        ledger.waits_for(WaitCause::Slot, at(1));
        let arrived = ledger.sums(at(3));
        ledger.waits_for(WaitCause::Slot, at(4));
        ledger.waits_for(WaitCause::Memory, at(6));
        let waited = waits(&arrived, &ledger.sums(at(10)));
        let expected = [(WaitCause::Slot, 3_000_000), (WaitCause::Memory, 4_000_000)];
        let expected = expected.map(|(cause, us)| Wait { cause, us });
        assert_eq!(waited, expected);
    }
}
