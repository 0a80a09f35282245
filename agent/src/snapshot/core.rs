//! Decides whether a cell restores a snapshot, waits for one, makes one, or does without. Pure.

use super::store::Manifest;
use phalanx_shared::plan::SnapshotUse;
use phalanx_shared::time::Timestamp;
use std::time::Duration;

/// How long a cell waits for another one to make a snapshot if nothing is known of how long that takes.
const USUAL_PATIENCE: Duration = Duration::from_secs(600);
/// What is added to the time that making it took before.
const MARGIN: Duration = Duration::from_secs(30);

/// What a cell does next about a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Restore the one that is kept.
    Restore,
    /// Make it: the reason why there is none to restore.
    Make(String),
    /// Wait for the cell that makes it, at most so long from now.
    Wait(Duration),
    /// Run the steps and save nothing, for this reason.
    Without(String),
}

/// What is known when the decision is made.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What the run does with snapshots.
    pub used: SnapshotUse,
    /// The snapshot with the cell's key.
    pub kept: Option<&'a Manifest>,
    /// Maximum age of it.
    pub max_age: Option<Duration>,
    /// Whether another cell is making it at the moment.
    pub made_by_other: bool,
    /// How long the cell has waited for that.
    pub waited: Duration,
    /// How long making it took before, setup and saving together.
    pub took: Option<Duration>,
    /// The time now.
    pub now: Timestamp,
}

/// Decides what a cell does next.
pub fn next(known: Known<'_>) -> Next {
    let reason = match (known.used, known.kept) {
        (SnapshotUse::Never, _) => return Next::Without("the run uses no snapshots".to_owned()),
        // Those who waited for a refreshed one take it.
        (SnapshotUse::Refresh, _) if known.waited.is_zero() => {
            "the run makes its snapshots again".to_owned()
        }
        (_, Some(kept)) if is_too_old(kept, known.max_age, known.now) => {
            "the one that was kept is older than `max-age`".to_owned()
        }
        (_, Some(_)) => return Next::Restore,
        (_, None) => "none is kept for this key".to_owned(),
    };
    if !known.made_by_other {
        return Next::Make(reason);
    }
    let patience = patience(known.took);
    match patience.checked_sub(known.waited) {
        Some(left) if !left.is_zero() => Next::Wait(left),
        _ => Next::Without(format!(
            "another cell has been making it for more than {}s",
            patience.as_secs()
        )),
    }
}

/// Returns how long a cell waits for another one: no longer than making it took before. Both would do the same work at the
/// same time on the same machine, so waiting is sooner unless the other one hangs.
fn patience(took: Option<Duration>) -> Duration {
    took.map_or(USUAL_PATIENCE, |took| took * 2 + MARGIN)
}

fn is_too_old(kept: &Manifest, max_age: Option<Duration>, now: Timestamp) -> bool {
    max_age.is_some_and(|max| now.since(Timestamp(kept.made_us)) > max)
}

/// Returns the services of a group in the order in which they start: each after those that it depends on.
pub fn start_order<'a>(services: impl IntoIterator<Item = (&'a str, &'a [String])>) -> Vec<String> {
    let mut left: Vec<(&str, &[String])> = services.into_iter().collect();
    let mut order: Vec<String> = Vec::new();
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        let free = left
            .iter()
            .position(|(_, needs)| !needs.iter().any(|on| names.contains(&on.as_str())));
        // A circle isn't valid; it must not hang anything.
        let (name, _) = left.remove(free.unwrap_or(0));
        order.push(name.to_owned());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known<'a>() -> Known<'a> {
        Known {
            used: SnapshotUse::Use,
            kept: None,
            max_age: None,
            made_by_other: false,
            waited: Duration::ZERO,
            took: None,
            now: Timestamp(1_000_000_000),
        }
    }

    fn kept(made_us: i64) -> Manifest {
        Manifest {
            made_us,
            ..Manifest::default()
        }
    }

    #[test]
    fn what_is_kept_is_restored_unless_it_is_too_old() {
        let kept = kept(400_000_000);
        let of = |max_age| Known {
            kept: Some(&kept),
            max_age,
            ..known()
        };
        assert_eq!(next(of(None)), Next::Restore);
        assert_eq!(next(of(Some(Duration::from_secs(600)))), Next::Restore);
        let old = next(of(Some(Duration::from_secs(599))));
        assert!(matches!(old, Next::Make(why) if why.contains("max-age")));
    }

    #[test]
    fn a_run_without_snapshots_neither_restores_nor_makes_one() {
        let kept = kept(0);
        let never = Known {
            used: SnapshotUse::Never,
            kept: Some(&kept),
            ..known()
        };
        assert!(matches!(next(never), Next::Without(_)));
    }

    #[test]
    fn a_refresh_makes_it_again_once_and_those_who_waited_take_the_new_one() {
        let kept = kept(0);
        let refresh = Known {
            used: SnapshotUse::Refresh,
            kept: Some(&kept),
            ..known()
        };
        assert!(matches!(next(refresh), Next::Make(_)));
        let waited = Known {
            waited: Duration::from_secs(1),
            ..refresh
        };
        assert_eq!(next(waited), Next::Restore);
    }

    #[test]
    fn a_cell_waits_for_another_one_no_longer_than_making_it_takes() {
        let other = Known {
            made_by_other: true,
            took: Some(Duration::from_secs(60)),
            ..known()
        };
        assert_eq!(next(other), Next::Wait(Duration::from_secs(150)));
        let waited = |secs| Known {
            waited: Duration::from_secs(secs),
            ..other
        };
        assert_eq!(next(waited(149)), Next::Wait(Duration::from_secs(1)));
        assert!(matches!(next(waited(150)), Next::Without(_)));
        let gone = Known {
            made_by_other: false,
            ..waited(5)
        };
        assert!(matches!(next(gone), Next::Make(_)));
    }

    #[test]
    fn services_start_after_what_they_need() {
        let needs = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let (api, app, db) = (
            needs(&["app", "db"]),
            needs(&["db", "elsewhere"]),
            needs(&[]),
        );
        let order = start_order([("api", &api[..]), ("app", &app[..]), ("db", &db[..])]);
        assert_eq!(order, ["db", "app", "api"]);
        let circle = needs(&["a"]);
        assert_eq!(start_order([("a", &circle[..])]), ["a"]);
    }
}
