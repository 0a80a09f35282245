//! Snapshots: which agents keep or make one of the family that a cell needs, and how much time that saves.
//!
//! A snapshot only makes an agent cheaper than others that may take a cell; no cell waits for one (I6). How long a cell
//! takes with and without one is known from its history.

use phalanx_proto::link::Snapshots;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Cost of an agent that lacks the snapshot of a cell if nothing is known of the times: as much as for lacking images.
const UNKNOWN: u64 = 500_000;
/// The whole of a share.
const WHOLE: u64 = 1_000_000;

/// What a cell hopes for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The family of its snapshot.
    pub family: String,
    /// Expected duration in milliseconds if it restores one; `None` if unknown.
    pub restored_ms: Option<u64>,
    /// Expected time in milliseconds from the start of a cell until others can restore what it has made; `None` if unknown.
    pub making_ms: Option<u64>,
}

/// What an agent keeps and makes.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// Families of the snapshots that it keeps.
    pub kept: BTreeSet<String>,
    /// The cells on it by family, and when the first one of each was placed.
    cells: BTreeMap<String, (u32, Duration)>,
}

impl Shelf {
    pub fn placed(&mut self, family: &str, now: Duration) {
        let (count, _) = self.cells.entry(family.to_owned()).or_insert((0, now));
        *count += 1;
    }

    pub fn released(&mut self, family: &str) {
        if let Some((count, _)) = self.cells.get_mut(family) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.cells.remove(family);
            }
        }
    }

    /// Returns how long it will still take until a cell on this agent has made a snapshot. `None` if none makes one, if it
    /// isn't known, or if it takes so much longer than usual that it may never end.
    fn rest_of_making(&self, wish: &Wish, now: Duration) -> Option<u64> {
        let (_, since) = self.cells.get(&wish.family)?;
        let usual = wish.making_ms?;
        let elapsed = u64::try_from(now.saturating_sub(*since).as_millis()).unwrap_or(u64::MAX);
        (elapsed <= usual.saturating_mul(2)).then(|| usual.saturating_sub(elapsed))
    }

    /// Returns how long a cell is expected to take here, in milliseconds, if it takes `missed_ms` without a snapshot. Waiting
    /// for one that is being made never counts as longer than making another.
    pub fn expects(&self, wish: &Wish, missed_ms: u64, now: Duration) -> u64 {
        let Some(restored) = wish.restored_ms else {
            return missed_ms;
        };
        if self.kept.contains(&wish.family) {
            return restored;
        }
        match self.rest_of_making(wish, now) {
            Some(rest) => missed_ms.min(rest.saturating_add(restored)),
            None => missed_ms,
        }
    }

    /// Returns the cost of running a cell here instead of where its snapshot is: the share of its time that it loses.
    pub fn cost(&self, wish: &Wish, missed_ms: u64, now: Duration) -> u64 {
        if self.kept.contains(&wish.family) {
            return 0;
        }
        let Some(restored) = wish.restored_ms.filter(|_| missed_ms > 0) else {
            return UNKNOWN;
        };
        let lost = self.expects(wish, missed_ms, now).saturating_sub(restored);
        let share = u128::from(lost) * u128::from(WHOLE) / u128::from(missed_ms);
        u64::try_from(share).unwrap_or(WHOLE).min(WHOLE)
    }
}

/// A cell's wish, with what it is weighed against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hope<'w> {
    pub wish: &'w Wish,
    /// Expected duration without a snapshot, in milliseconds.
    pub missed_ms: u64,
    pub now: Duration,
}

impl Hope<'_> {
    /// Returns the cost of an agent that keeps and makes this.
    pub fn cost(&self, shelf: &Shelf) -> u64 {
        shelf.cost(self.wish, self.missed_ms, self.now)
    }
}

/// How many agents keep a snapshot of each family, and how many have cells of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    kept: BTreeMap<String, u32>,
    cells: BTreeMap<String, u32>,
}

impl Known {
    /// Returns whether agents differ in what they have of a family.
    pub fn differs(&self, family: &str) -> bool {
        self.kept.contains_key(family) || self.cells.contains_key(family)
    }

    pub fn is_kept(&self, family: &str) -> bool {
        self.kept.contains_key(family)
    }

    fn changed(counts: &mut BTreeMap<String, u32>, family: &str, more: bool) {
        let count = counts.entry(family.to_owned()).or_default();
        *count = match more {
            true => count.saturating_add(1),
            false => count.saturating_sub(1),
        };
        if *count == 0 {
            counts.remove(family);
        }
    }

    /// Notes what an agent keeps from now on. Returns the families that some agent keeps now and none did before, or the
    /// other way round.
    pub fn keeps(&mut self, before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
        let mut changed = Vec::new();
        for (families, more) in [
            (after.difference(before), true),
            (before.difference(after), false),
        ] {
            for family in families {
                let was = self.is_kept(family);
                Known::changed(&mut self.kept, family, more);
                if was != self.is_kept(family) {
                    changed.push(family.clone());
                }
            }
        }
        changed
    }

    pub fn cell(&mut self, family: &str, more: bool) {
        Known::changed(&mut self.cells, family, more);
    }
}

/// Returns the families of the snapshots that an agent keeps.
pub(super) fn families(snapshots: &Snapshots) -> BTreeSet<String> {
    let held = snapshots.held.iter().map(|held| held.family.clone());
    held.filter(|family| !family.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(restored_ms: Option<u64>, making_ms: Option<u64>) -> Wish {
        Wish {
            family: "f".to_owned(),
            restored_ms,
            making_ms,
        }
    }

    fn making(since_s: u64) -> Shelf {
        let mut shelf = Shelf::default();
        shelf.placed("f", Duration::from_secs(since_s));
        shelf
    }

    #[test]
    fn a_kept_snapshot_costs_nothing_and_the_lack_of_one_the_share_of_time_that_it_saves() {
        let kept = Shelf {
            kept: BTreeSet::from(["f".to_owned()]),
            ..Shelf::default()
        };
        let (known, now) = (wish(Some(10_000), Some(90_000)), Duration::ZERO);
        assert_eq!(kept.cost(&known, 100_000, now), 0);
        assert_eq!(kept.expects(&known, 100_000, now), 10_000);
        let lacks = Shelf::default();
        assert_eq!(lacks.cost(&known, 100_000, now), 900_000);
        assert_eq!(lacks.cost(&wish(Some(99_000), None), 100_000, now), 10_000);
        assert_eq!(lacks.cost(&wish(None, None), 100_000, now), UNKNOWN);
        assert_eq!(lacks.cost(&wish(Some(1), None), 0, now), UNKNOWN);
        assert_eq!(kept.cost(&wish(None, None), 0, now), 0);
    }

    #[test]
    fn one_that_is_being_made_counts_as_far_as_it_is_sooner() {
        let known = wish(Some(10_000), Some(90_000));
        let at = Duration::from_secs;
        // 60 s are left, then 10 s.
        assert_eq!(making(0).expects(&known, 100_000, at(30)), 70_000);
        assert_eq!(making(0).cost(&known, 100_000, at(30)), 600_000);
        // It isn't sooner: others make one at the same cost.
        assert_eq!(making(0).cost(&known, 100_000, at(0)), 900_000);
        assert_eq!(making(0).cost(&known, 95_000, at(0)), 894_736);
        assert_eq!(making(0).expects(&known, 95_000, at(0)), 95_000);
        // It takes longer than usual, and then so long that nobody should count on it.
        assert_eq!(making(0).cost(&known, 100_000, at(120)), 0);
        assert_eq!(making(0).cost(&known, 100_000, at(181)), 900_000);
        // Nobody knows how long it takes.
        assert_eq!(
            making(0).cost(&wish(Some(10_000), None), 100_000, at(30)),
            900_000
        );
    }

    #[test]
    fn it_is_being_made_as_long_as_a_cell_of_the_family_is_there() {
        let known = wish(Some(10_000), Some(90_000));
        let mut shelf = making(0);
        shelf.placed("f", Duration::from_secs(50));
        shelf.released("f");
        assert_eq!(
            shelf.expects(&known, 100_000, Duration::from_secs(80)),
            20_000
        );
        shelf.released("f");
        assert_eq!(
            shelf.expects(&known, 100_000, Duration::from_secs(80)),
            100_000
        );
        shelf.released("f");
    }

    #[test]
    fn only_the_first_and_the_last_agent_change_whether_a_family_is_kept() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (none, f, fg): (BTreeSet<String>, _, _) = (set(&[]), set(&["f"]), set(&["f", "g"]));
        let mut known = Known::default();
        assert_eq!(known.keeps(&none, &f), ["f"]);
        assert_eq!(known.keeps(&none, &fg), ["g"]);
        assert_eq!(known.keeps(&f, &none), Vec::<String>::new());
        assert!(known.is_kept("f") && known.differs("g"));
        assert_eq!(known.keeps(&fg, &f), ["g"]);
        assert_eq!(known.keeps(&f, &none), ["f"]);
        assert!(!known.differs("f"));
    }
}
