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
    /// How long the other cell has been making it, if that is known.
    pub made_for: Option<Duration>,
    /// How long such snapshots took before.
    pub usual: Option<Usual>,
    /// The time now.
    pub now: Timestamp,
}

/// How long a snapshot took when it was made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual {
    /// The group's steps.
    pub setup: Duration,
    /// Stopping, saving and starting the services. Restoring copies the same files, so it takes no longer.
    pub save: Duration,
}

impl Usual {
    fn making(&self) -> Duration {
        self.setup + self.save
    }
}

/// Returns how long the newest snapshot took that is probably like a cell's: one of its family, else one of its group.
pub fn usual(all: &[Manifest], family: &str, spec: &str, path: &str) -> Option<Usual> {
    let newest = |like: &dyn Fn(&&Manifest) -> bool| {
        let alike = all.iter().filter(like);
        alike.max_by_key(|manifest| manifest.made_us)
    };
    let kin = newest(&|one| !family.is_empty() && one.family == family);
    let found = kin.or_else(|| newest(&|one| one.spec == spec && one.path == path))?;
    Some(Usual {
        setup: Duration::from_micros(found.setup_us),
        save: Duration::from_micros(found.save_us),
    })
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
    if let Some(why) = sooner_without(&known) {
        return Next::Without(why);
    }
    let patience = patience(known.usual.map(|usual| usual.making()));
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

/// Returns why a cell doesn't wait, if running the steps is sooner: saving takes so long that the other cell will be done
/// later. The steps count by half more than they take alone, because two cells that do the same work slow each other.
fn sooner_without(known: &Known<'_>) -> Option<String> {
    let (usual, made_for) = (known.usual?, known.made_for?);
    // One that takes longer than usual is nearly done, or hangs; then patience ends.
    let rest = usual.making().checked_sub(made_for)?;
    let (waiting, running) = (rest + usual.save, usual.setup + usual.setup / 2);
    (waiting > running).then(|| {
        format!(
            "another cell is making it, and running the steps ({:.1}s) is sooner than waiting for that ({:.1}s)",
            usual.setup.as_secs_f64(),
            waiting.as_secs_f64()
        )
    })
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
            made_for: None,
            usual: None,
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
            usual: Some(Usual {
                setup: Duration::from_secs(50),
                save: Duration::from_secs(10),
            }),
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
    fn a_cell_runs_the_steps_itself_if_saving_takes_so_long_that_it_is_sooner() {
        let secs = Duration::from_secs;
        let other = |setup, save, made_for| Known {
            made_by_other: true,
            made_for: Some(secs(made_for)),
            usual: Some(Usual {
                setup: secs(setup),
                save: secs(save),
            }),
            ..known()
        };
        // 100 s are left, and then 5 s to restore: the steps alone take 95 s, and longer beside those of the other cell.
        assert!(matches!(next(other(95, 5, 0)), Next::Wait(_)));
        // 10 s of steps, and a minute of saving.
        let without = next(other(10, 60, 5));
        assert!(
            matches!(&without, Next::Without(why) if why.contains("(10.0s)") && why.contains("(125.0s)")),
            "{without:?}"
        );
        // It is nearly done.
        assert!(matches!(next(other(80, 60, 130)), Next::Wait(_)));
        assert!(matches!(next(other(80, 60, 20)), Next::Without(_)));
        // It takes longer than usual, or it isn't known when it began.
        assert!(matches!(next(other(10, 60, 71)), Next::Wait(_)));
        let unknown = Known {
            made_for: None,
            ..other(10, 60, 0)
        };
        assert!(matches!(next(unknown), Next::Wait(_)));
        // Whoever has what it needs doesn't weigh anything.
        let kept = kept(0);
        let restores = Known {
            kept: Some(&kept),
            ..other(10, 60, 5)
        };
        assert_eq!(next(restores), Next::Restore);
    }

    #[test]
    fn what_is_usual_is_told_by_the_newest_of_the_family_and_else_of_the_group() {
        let of = |family: &str, path: &str, made_us, setup_us| Manifest {
            family: family.to_owned(),
            spec: "shop".to_owned(),
            path: path.to_owned(),
            setup_us,
            save_us: 1,
            ..kept(made_us)
        };
        let all = [
            of("f", "setup/0", 1, 10),
            of("f", "setup/0", 2, 20),
            of("g", "setup/0", 3, 30),
            of("", "setup/1", 4, 40),
        ];
        let setup = |family: &str, path: &str| {
            let usual = usual(&all, family, "shop", path);
            usual.map(|usual| usual.setup.as_micros())
        };
        assert_eq!(setup("f", "setup/0"), Some(20));
        assert_eq!(setup("h", "setup/0"), Some(30));
        assert_eq!(setup("", "setup/0"), Some(30));
        assert_eq!(setup("h", "setup/2"), None);
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
