//! Times of two runs: what is outside its noise band, and what changed on the critical path.

use super::Pairs;
use crate::history::band::{Band, LEAST, median};
use crate::history::{History, PastRun};
use crate::text::step_title;
use crate::view::{CellView, RunView};
use indexmap::IndexMap;
use phalanx_shared::outcome::Outcome;
use serde::Serialize;
use std::collections::HashMap;

/// Maximum number of times that are listed.
const LISTED: usize = 50;
/// Least share of the path that something must have to be told.
const SHARE: f64 = 0.05;

/// Least difference on the path that is told, in microseconds.
const LEAST_US: u64 = 100_000;

/// Times of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Earlier runs of the spec from which noise bands are made.
    pub runs: usize,
    /// Number of earlier times that a noise band needs.
    pub needed: usize,
    /// Wall time.
    pub wall: TimeChange,
    /// Cells, and steps by the median over their cells, whose time in the later run is outside its noise band; the
    /// largest difference first.
    pub outside: Vec<TimeChange>,
}

/// A time in two runs. All times are in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeChange {
    /// Cell or step; `wall time` for the run.
    pub what: String,
    /// Time in the earlier run; `None` if it has none.
    pub before_us: Option<u64>,
    /// Time in the later run.
    pub after_us: u64,
    /// Noise band; `None` with too little history.
    pub band: Option<Band>,
}

/// A change on the critical path of the slowest cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathChange {
    /// Activity.
    pub what: String,
    /// How it changed.
    pub change: OnPath,
    /// Time on the path in the earlier run, in microseconds.
    pub before_us: u64,
    /// Time on the path in the later run.
    pub after_us: u64,
}

/// How an activity on the critical path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPath {
    /// It came onto the path.
    Came,
    /// It left the path.
    Left,
    /// It stayed, and the time differs by at least 5 % of the path.
    Differs,
}

/// Returns the times of the later run that are outside their band.
pub(super) fn times(before: &RunView, after: &RunView, pairs: &Pairs, history: &History) -> Times {
    let submitted = after.submitted.unwrap_or_default();
    let earlier: Vec<&PastRun> = history
        .judged()
        .filter(|run| run.run != after.run && run.submitted <= submitted)
        .collect();
    let ok = |outcome: Option<Outcome>| outcome.is_some_and(Outcome::is_ok);
    let walls: Vec<u64> = earlier
        .iter()
        .filter(|run| ok(run.outcome))
        .map(|run| run.wall_us)
        .collect();
    let mut outside = cells(before, after, pairs, history, &earlier);
    outside.extend(steps(before, after, history, &earlier));
    let difference = |one: &TimeChange| {
        let usual = one.band.map_or(one.after_us, |band| band.median_us);
        usual.abs_diff(one.after_us)
    };
    outside.sort_by_key(|one| std::cmp::Reverse(difference(one)));
    outside.truncate(LISTED);
    Times {
        runs: earlier.len(),
        needed: LEAST,
        wall: TimeChange {
            what: "wall time".to_owned(),
            before_us: Some(before.timing.wall_us),
            after_us: after.timing.wall_us,
            band: Band::of(&walls),
        },
        outside,
    }
}

fn passed(cell: &CellView) -> Option<u64> {
    cell.elapsed_us
        .filter(|_| cell.outcome == Some(Outcome::Passed))
}

fn cells(
    before: &RunView,
    after: &RunView,
    pairs: &Pairs,
    history: &History,
    earlier: &[&PastRun],
) -> Vec<TimeChange> {
    let mut past: HashMap<&str, Vec<u64>> = HashMap::new();
    for cell in earlier.iter().flat_map(|run| &run.cells) {
        let ok = cell.outcome == Some(Outcome::Passed);
        if let (Some(time), Some((id, _)), true) = (cell.elapsed_us, history.cell(cell.cell), ok) {
            past.entry(id.as_str()).or_default().push(time);
        }
    }
    let found = pairs.each(before, after).filter_map(|(old, new)| {
        let after_us = passed(new)?;
        let band = Band::of(past.get(old.id.as_str())?)?;
        (!band.holds(after_us)).then(|| TimeChange {
            what: new.name.clone(),
            before_us: passed(old),
            after_us,
            band: Some(band),
        })
    });
    found.collect()
}

/// Compares steps by the median over the cells in which they passed.
fn steps(
    before: &RunView,
    after: &RunView,
    history: &History,
    earlier: &[&PastRun],
) -> Vec<TimeChange> {
    let mut past: HashMap<&str, Vec<u64>> = HashMap::new();
    for run in earlier {
        let mut of_run: HashMap<usize, Vec<u64>> = HashMap::new();
        for step in run.cells.iter().flat_map(|cell| &cell.steps) {
            if step.outcome == Some(Outcome::Passed) {
                of_run.entry(step.title).or_default().push(step.elapsed_us);
            }
        }
        for (title, times) in of_run {
            past.entry(history.title(title))
                .or_default()
                .extend(median(&times));
        }
    }
    let old = step_medians(before);
    let found = step_medians(after)
        .into_iter()
        .filter_map(|(title, after_us)| {
            let band = Band::of(past.get(title.as_str())?)?;
            (!band.holds(after_us)).then(|| TimeChange {
                before_us: old.get(&title).copied(),
                what: title,
                after_us,
                band: Some(band),
            })
        });
    found.collect()
}

fn step_medians(view: &RunView) -> IndexMap<String, u64> {
    let mut times: IndexMap<String, Vec<u64>> = IndexMap::new();
    for step in view.cells.iter().flat_map(CellView::steps) {
        if step.outcome == Some(Outcome::Passed) && !step.is_restored() {
            times
                .entry(step_title(&step.phase, &step.name))
                .or_default()
                .push(step.elapsed_us);
        }
    }
    times
        .into_iter()
        .filter_map(|(title, times)| Some((title, median(&times)?)))
        .collect()
}

/// Returns what came onto the critical path of the slowest cell, left it, or takes a different time on it.
pub(super) fn critical_path(before: &RunView, after: &RunView) -> Vec<PathChange> {
    let (old, new) = (path(before), path(after));
    let sum = |times: &IndexMap<String, u64>| times.values().copied().fold(0, u64::saturating_add);
    let whole = sum(&old).max(sum(&new));
    let least = ((whole as f64 * SHARE) as u64).max(LEAST_US);
    let mut names: Vec<&String> = new.keys().collect();
    names.extend(old.keys().filter(|name| !new.contains_key(*name)));
    let mut found: Vec<PathChange> = names
        .into_iter()
        .filter_map(|what| {
            let (before, after) = (old.get(what).copied(), new.get(what).copied());
            let change = match (before, after) {
                (None, _) => OnPath::Came,
                (_, None) => OnPath::Left,
                _ => OnPath::Differs,
            };
            let (before_us, after_us) = (before.unwrap_or(0), after.unwrap_or(0));
            let told = before_us.abs_diff(after_us) >= least;
            let what = what.clone();
            told.then_some(PathChange {
                what,
                change,
                before_us,
                after_us,
            })
        })
        .collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.before_us.abs_diff(one.after_us)));
    found.truncate(LISTED);
    found
}

/// Returns the activities on the critical path of the slowest cell, with the sum of their times.
fn path(view: &RunView) -> IndexMap<String, u64> {
    let mut sums = IndexMap::new();
    for segment in view
        .timing
        .slowest
        .iter()
        .flat_map(|slowest| &slowest.critical_path)
    {
        let what = match &segment.phase {
            Some(phase) => step_title(phase, &segment.what),
            None => segment.what.clone(),
        };
        *sums.entry(what).or_default() += segment.elapsed_us;
    }
    sums
}
