//! Decides which snapshots a store gives up. Pure.

use phalanx_shared::language::quantity::spelled_bytes;
use phalanx_shared::time::Timestamp;
use std::fmt;
use std::time::Duration;

/// Maximum size of all snapshots in MiB, if nothing else is set.
pub const USUAL_MIB: u64 = 20 * 1024;
/// Number of days for which an unused snapshot is kept, if nothing else is set.
pub const USUAL_DAYS: u64 = 30;
const DAY: u64 = 24 * 3600;

/// What a store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Maximum size of all snapshots together in bytes.
    pub max_bytes: Option<u64>,
    /// How long a snapshot is kept that nobody uses.
    pub max_unused: Option<Duration>,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Bounds = Bounds {
        max_bytes: None,
        max_unused: None,
    };

    /// Returns the bounds of an agent's settings, in which 0 is none.
    pub fn of_settings(max_mib: u64, keep_days: u64) -> Bounds {
        let set = |number: u64| (number > 0).then_some(number);
        Bounds {
            max_bytes: set(max_mib).map(|mib| mib.saturating_mul(1 << 20)),
            max_unused: set(keep_days).map(|days| Duration::from_secs(days.saturating_mul(DAY))),
        }
    }
}

/// A snapshot as the decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its size.
    pub bytes: u64,
    /// When it was made.
    pub made: Timestamp,
    /// When it was last used.
    pub last_used: Timestamp,
    /// Age from which no cell uses it any more.
    pub max_age: Option<Duration>,
    /// Why no cell can use it, if that is so.
    pub useless: Option<Useless>,
    /// Whether a cell uses it at the moment, or has just made it.
    pub held: bool,
}

/// Why no cell can use a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Useless {
    /// A service couldn't run with it.
    Broken,
    /// It was made again.
    Replaced,
    /// It is damaged, or an earlier version of Phalanx made it.
    Unreadable,
}

/// Why a snapshot is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No cell can use it.
    Useless(Useless),
    /// It is older than its spec allows.
    TooOld,
    /// Nobody has used it for this time.
    Unused(Duration),
    /// All together are larger than this, and others were used later.
    TooMuch(u64),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Useless(Useless::Broken) => f.write_str("a service couldn't run with it"),
            Why::Useless(Useless::Replaced) => f.write_str("it was made again"),
            Why::Useless(Useless::Unreadable) => {
                f.write_str("it is damaged, or of an earlier version of phalanx")
            }
            Why::TooOld => f.write_str("older than its `max-age`"),
            Why::Unused(time) => match time.as_secs() {
                seconds @ 0..3600 => write!(f, "unused for {}m", seconds / 60),
                seconds @ 3600..=172_800 => write!(f, "unused for {}h", seconds / 3600),
                seconds => write!(f, "unused for {}d", seconds / DAY),
            },
            Why::TooMuch(max) => {
                let max = spelled_bytes(*max);
                write!(f, "all together may take {max}, and others were used later")
            }
        }
    }
}

/// Returns which snapshots to give up, in this order, by their positions in `all`: first what no cell can use any more, then
/// what nobody has used for too long, then the least recently used ones until the rest fits. Never one that is held.
pub fn given_up(all: &[Candidate], bounds: &Bounds, now: Timestamp) -> Vec<(usize, Why)> {
    let mut free: Vec<usize> = (0..all.len()).filter(|n| is_free(all, *n)).collect();
    // The least recently used first. Positions only decide between those that nothing else tells apart.
    free.sort_by_key(|n| all.get(*n).map(|one| (one.last_used, one.made, *n)));
    let mut gone: Vec<(usize, Why)> = Vec::new();
    let useless = |one: &Candidate| one.useless.map(Why::Useless);
    let too_old = |one: &Candidate| {
        let old = one.max_age.is_some_and(|max| now.since(one.made) > max);
        old.then_some(Why::TooOld)
    };
    let unused = |one: &Candidate| {
        let time = now.since(one.last_used);
        let long = bounds.max_unused.is_some_and(|max| time > max);
        long.then_some(Why::Unused(time))
    };
    free.retain(|n| {
        let why = all.get(*n).and_then(|one| useless(one).or(too_old(one)));
        gone.extend(why.map(|why| (*n, why)));
        why.is_none()
    });
    free.retain(|n| {
        let why = all.get(*n).and_then(unused);
        gone.extend(why.map(|why| (*n, why)));
        why.is_none()
    });
    let Some(max) = bounds.max_bytes else {
        return gone;
    };
    let bytes = |n: &usize| all.get(*n).map_or(0, |one| u128::from(one.bytes));
    let mut total: u128 = all.iter().map(|one| u128::from(one.bytes)).sum();
    total -= gone.iter().map(|(n, _)| bytes(n)).sum::<u128>();
    for n in free {
        if total <= u128::from(max) {
            break;
        }
        total -= bytes(&n);
        gone.push((n, Why::TooMuch(max)));
    }
    gone
}

fn is_free(all: &[Candidate], n: usize) -> bool {
    all.get(n).is_some_and(|one| !one.held)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: Timestamp = Timestamp(1_000 * 1_000_000);

    fn one(bytes: u64, used_s: i64) -> Candidate {
        Candidate {
            bytes,
            made: Timestamp(0),
            last_used: Timestamp(used_s * 1_000_000),
            max_age: None,
            useless: None,
            held: false,
        }
    }

    fn of(all: &[Candidate], max_bytes: u64, max_unused_s: u64) -> Vec<(usize, Why)> {
        let bounds = Bounds {
            max_bytes: Some(max_bytes),
            max_unused: Some(Duration::from_secs(max_unused_s)),
        };
        given_up(all, &bounds, NOW)
    }

    #[test]
    fn the_least_recently_used_ones_go_until_the_rest_fits() {
        let all = [one(10, 30), one(10, 10), one(10, 20)];
        assert_eq!(of(&all, 30, 1_000), []);
        assert_eq!(of(&all, 29, 1_000), [(1, Why::TooMuch(29))]);
        let both = [(1, Why::TooMuch(10)), (2, Why::TooMuch(10))];
        assert_eq!(of(&all, 10, 1_000), both);
        assert_eq!(given_up(&all, &Bounds::NONE, NOW), []);
    }

    #[test]
    fn what_no_cell_can_use_goes_first_and_may_make_room_enough() {
        let broken = Candidate {
            useless: Some(Useless::Broken),
            ..one(10, 40)
        };
        let too_old = Candidate {
            max_age: Some(Duration::from_secs(999)),
            ..one(10, 30)
        };
        let all = [one(10, 10), broken, too_old, one(10, 20)];
        let useless = [(2, Why::TooOld), (1, Why::Useless(Useless::Broken))];
        assert_eq!(of(&all, 20, 1_000), useless);
        assert_eq!(of(&all, 19, 1_000)[2], (0, Why::TooMuch(19)));
        let just_fits = Candidate {
            max_age: Some(Duration::from_secs(1_000)),
            ..one(10, 30)
        };
        assert_eq!(of(&[just_fits], 10, 1_000), []);
    }

    #[test]
    fn what_nobody_has_used_for_long_goes_though_there_is_room() {
        let all = [one(10, 500), one(10, 501)];
        let unused = Why::Unused(Duration::from_secs(500));
        assert_eq!(of(&all, 1_000, 499), [(0, unused)]);
        assert_eq!(
            Why::Unused(Duration::from_secs(90 * 3600)).to_string(),
            "unused for 3d"
        );
    }

    #[test]
    fn what_a_cell_uses_stays_whatever_the_bounds_are() {
        let held = Candidate {
            held: true,
            useless: Some(Useless::Replaced),
            max_age: Some(Duration::ZERO),
            ..one(100, 0)
        };
        assert_eq!(
            of(&[held, one(1, 900)], 10, 10),
            [(1, Why::Unused(Duration::from_secs(100)))]
        );
    }

    #[test]
    fn zero_in_the_settings_is_no_bound() {
        assert_eq!(Bounds::of_settings(0, 0), Bounds::NONE);
        let bounds = Bounds::of_settings(2, 1);
        assert_eq!(bounds.max_bytes, Some(2 << 20));
        assert_eq!(bounds.max_unused, Some(Duration::from_secs(86_400)));
        // As large as can be written.
        assert_eq!(
            Bounds::of_settings(u64::MAX, u64::MAX).max_bytes,
            Some(u64::MAX)
        );
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        let useless = prop_oneof![
            6 => Just(None),
            1 => Just(Some(Useless::Broken)),
            1 => Just(Some(Useless::Replaced)),
            1 => Just(Some(Useless::Unreadable)),
        ];
        let bytes = prop_oneof![9 => 0u64..50, 1 => Just(u64::MAX)];
        // Some are used after now: a clock may have been set back.
        let fields = (
            bytes,
            0i64..1_100,
            0i64..1_100,
            proptest::option::of(0u64..1_200),
        );
        (fields, useless, any::<bool>()).prop_map(|((bytes, made, used, age), useless, held)| {
            Candidate {
                bytes,
                made: Timestamp(made * 1_000_000),
                last_used: Timestamp(made.max(used) * 1_000_000),
                max_age: age.map(Duration::from_secs),
                useless,
                held,
            }
        })
    }

    fn bounds() -> impl Strategy<Value = Bounds> {
        let max_unused = proptest::option::of((0u64..1_100).prop_map(Duration::from_secs));
        (proptest::option::of(0u64..400), max_unused).prop_map(|(max_bytes, max_unused)| Bounds {
            max_bytes,
            max_unused,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_rest_fits_nothing_held_goes_and_the_latest_used_stay(
            all in proptest::collection::vec(candidate(), 0..12),
            bounds in bounds(),
        ) {
            let gone = given_up(&all, &bounds, NOW);
            let positions: BTreeSet<usize> = gone.iter().map(|(n, _)| *n).collect();
            prop_assert_eq!(positions.len(), gone.len(), "each once");
            prop_assert!(positions.iter().all(|n| !all[*n].held));
            let rest: Vec<usize> = (0..all.len()).filter(|n| !positions.contains(n)).collect();
            let free = |n: &&usize| !all[**n].held;
            for n in rest.iter().filter(free) {
                let one = &all[*n];
                prop_assert!(one.useless.is_none());
                prop_assert!(one.max_age.is_none_or(|max| NOW.since(one.made) <= max));
                prop_assert!(bounds.max_unused.is_none_or(|max| NOW.since(one.last_used) <= max));
            }
            let sum = |of: &[usize]| of.iter().map(|n| u128::from(all[*n].bytes)).sum::<u128>();
            let fits = |sum: u128| bounds.max_bytes.is_none_or(|max| sum <= u128::from(max));
            prop_assert!(fits(sum(&rest)) || rest.iter().all(|n| all[*n].held));
            // For its size only what was used before everything that stays, and no more than is needed.
            let for_size: Vec<usize> = gone
                .iter()
                .filter(|(_, why)| matches!(why, Why::TooMuch(_)))
                .map(|(n, _)| *n)
                .collect();
            for (at, n) in for_size.iter().enumerate() {
                let later = rest.iter().filter(free).chain(&for_size[at + 1..]);
                prop_assert!(later.clone().all(|m| all[*m].last_used >= all[*n].last_used));
                let mut before = rest.clone();
                before.extend(&for_size[at..]);
                prop_assert!(!fits(sum(&before)), "it would have fitted without this one");
            }
        }

        #[test]
        fn giving_up_twice_gives_up_nothing_more(
            all in proptest::collection::vec(candidate(), 0..12),
            bounds in bounds(),
        ) {
            let gone: BTreeSet<usize> = given_up(&all, &bounds, NOW).into_iter().map(|(n, _)| n).collect();
            let rest: Vec<Candidate> = (0..all.len())
                .filter(|n| !gone.contains(n))
                .map(|n| all[n].clone())
                .collect();
            prop_assert_eq!(given_up(&rest, &bounds, NOW), vec![]);
        }
    }
}
