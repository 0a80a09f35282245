//! What a failure is compared with, what follows from it, and what it kept from running.

use super::axes::Axes;
use super::gather::Gathered;
use super::{Cause, Evidence, Follows, Stopped};
use crate::view::{CellView, RunView, StepView};
use phalanx_shared::event::{Culprit, ServiceState};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::collections::{HashMap, HashSet};

/// A failure follows from an earlier one only if it happens in at least this share of the cells in which it could.
const SHARE: f64 = 0.8;
/// And if chance alone would give that at most this often.
const ALPHA: f64 = 0.05;

/// In which cells steps ended well or badly, for the paths of all failures.
pub(super) struct Ran<'a> {
    good: HashMap<&'a str, Vec<usize>>,
    bad: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Ran<'a> {
    pub(super) fn of(view: &'a RunView, failures: &[Gathered]) -> Ran<'a> {
        let paths = failures.iter().flat_map(|failure| &failure.paths);
        let paths: HashSet<&str> = paths.map(String::as_str).collect();
        let mut ran = Ran {
            good: HashMap::new(),
            bad: HashMap::new(),
        };
        for (index, cell) in view.cells.iter().enumerate() {
            let steps = cell.newest().into_iter().flat_map(|attempt| &attempt.steps);
            for step in steps.filter(|step| paths.contains(step.path.as_str())) {
                let list = match step.outcome {
                    Some(Outcome::Passed | Outcome::Flaky) => &mut ran.good,
                    Some(Outcome::Failed | Outcome::Errored) => &mut ran.bad,
                    _ => continue,
                };
                list.entry(&step.path).or_default().push(index);
            }
        }
        ran
    }

    /// Returns the cells without a failure that tell something about it, in plan order: those in which the step passed;
    /// if there are none, those in which it failed in another way. For other causes, those that got past it.
    pub(super) fn without(&self, view: &RunView, failure: &Gathered) -> Vec<usize> {
        let with: HashSet<usize> = failure.cells.iter().copied().collect();
        let listed = |lists: &HashMap<&str, Vec<usize>>| -> Vec<usize> {
            let paths = failure.paths.iter();
            let cells = paths.filter_map(|path| lists.get(path.as_str())).flatten();
            let mut cells: Vec<usize> =
                cells.copied().filter(|cell| !with.contains(cell)).collect();
            cells.sort_unstable();
            cells.dedup();
            cells
        };
        let past = |got_past: &dyn Fn(&CellView) -> bool| -> Vec<usize> {
            let cells = view.cells.iter().enumerate();
            cells
                .filter(|(index, cell)| !with.contains(index) && got_past(cell))
                .map(|(index, _)| index)
                .collect()
        };
        match &failure.cause {
            Cause::Step { .. } => match listed(&self.good) {
                none if none.is_empty() => listed(&self.bad),
                good => good,
            },
            Cause::Service { service } => past(&|cell| is_green(cell) || was_ready(cell, service)),
            Cause::Agent { .. } | Cause::Cell => {
                past(&|cell| cell.newest().is_some_and(|attempt| !attempt.lost) && ended(cell))
            }
        }
    }
}

pub(super) fn is_green(cell: &CellView) -> bool {
    matches!(cell.outcome, Some(Outcome::Passed | Outcome::Flaky))
}

fn ended(cell: &CellView) -> bool {
    matches!(
        cell.outcome,
        Some(Outcome::Passed | Outcome::Flaky | Outcome::Failed | Outcome::Errored)
    )
}

fn was_ready(cell: &CellView, service: &str) -> bool {
    let services = cell
        .newest()
        .into_iter()
        .flat_map(|attempt| &attempt.services);
    services
        .filter(|known| known.name == service)
        .flat_map(|known| &known.history)
        .any(|stage| stage.state == ServiceState::Ready)
}

/// Returns for each failure the root that it follows from, if any, by position. `without` has the compared cells of each.
pub(super) fn follows(
    failures: &[Gathered],
    without: &[Vec<usize>],
    axes: &Axes,
) -> Vec<Option<Follows>> {
    let mut in_cell: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, failure) in failures.iter().enumerate() {
        for cell in &failure.cells {
            in_cell.entry(*cell).or_default().push(index);
        }
    }
    let mut direct: Vec<Option<Follows>> = Vec::with_capacity(failures.len());
    for (index, failure) in failures.iter().enumerate() {
        let beside = failure.cells.first().and_then(|cell| in_cell.get(cell));
        let earlier = beside.into_iter().flatten().copied();
        let compared = without.get(index).map(Vec::as_slice).unwrap_or_default();
        let cause = earlier
            .filter(|other| *other != index)
            .filter_map(|other| {
                let evidence = evidence(failures.get(other)?, failure, compared, axes)?;
                Some(Follows {
                    finding: other,
                    evidence,
                })
            })
            .min_by_key(|follows| {
                let cause = failures.get(follows.finding)?;
                cause.time_in(*failure.cells.first()?)
            });
        direct.push(cause);
    }
    (0..failures.len())
        .map(|index| root_of(index, &direct))
        .collect()
}

/// Follows the chain of causes to its root. Causes are strictly earlier in the first cell, so that a chain ends.
fn root_of(index: usize, direct: &[Option<Follows>]) -> Option<Follows> {
    let mut found: Option<Follows> = None;
    let mut next = direct.get(index).copied().flatten();
    for _ in 0..direct.len() {
        let Some(follows) = next else { break };
        let evidence = match found {
            Some(before) => before.evidence.max(follows.evidence),
            None => follows.evidence,
        };
        found = Some(Follows {
            evidence,
            ..follows
        });
        next = direct.get(follows.finding).copied().flatten();
    }
    found
}

/// Returns how well the run shows that a failure follows from an earlier one; `None` if it doesn't.
fn evidence(
    earlier: &Gathered,
    later: &Gathered,
    compared: &[usize],
    axes: &Axes,
) -> Option<Evidence> {
    let mut theirs = earlier.cells.iter().zip(&earlier.times);
    for (cell, at) in later.cells.iter().zip(&later.times) {
        let (_, before) = theirs
            .find(|(other, _)| *other >= cell)
            .filter(|(other, _)| *other == cell)?;
        if before >= at {
            return None;
        }
    }
    if compared.is_empty() {
        return Some(Evidence::Order);
    }
    let both = later.cells.len();
    let passed_there = compared
        .iter()
        .filter(|cell| earlier.cells.binary_search(cell).is_ok())
        .count();
    if (both as f64) < SHARE * (both + passed_there) as f64 {
        return None;
    }
    let p = axes.fisher(both + compared.len(), both, both + passed_there, both);
    (p <= ALPHA).then_some(Evidence::Cells)
}

/// Returns what each failure kept from running. A step that was not reached counts for the root that failed first in its
/// cell.
pub(super) fn stopped(
    view: &RunView,
    failures: &[Gathered],
    follows: &[Option<Follows>],
) -> Vec<Stopped> {
    let mut stopped = vec![Stopped::default(); failures.len()];
    let mut first: HashMap<usize, (Timestamp, usize)> = HashMap::new();
    let mut later: HashMap<(usize, usize), usize> = HashMap::new();
    for (index, failure) in failures.iter().enumerate() {
        let root = follows.get(index).copied().flatten();
        for (cell, at) in failure.cells.iter().zip(&failure.times) {
            match root {
                Some(root) => *later.entry((*cell, root.finding)).or_default() += 1,
                None => {
                    let this = (*at, index);
                    let known = first.entry(*cell).or_insert(this);
                    *known = (*known).min(this);
                }
            }
        }
    }
    for (cell, (_, index)) in first {
        let Some(view) = view.cells.get(cell) else {
            continue;
        };
        let lost = view.steps().filter(|step| was_stopped(step)).count();
        *later.entry((cell, index)).or_default() += lost;
    }
    for ((_, index), steps) in later {
        if let Some(stopped) = stopped.get_mut(index)
            && steps > 0
        {
            stopped.steps += steps;
            stopped.cells += 1;
        }
    }
    stopped
}

/// Returns whether a step didn't run because of a failure: it wasn't reached, or needed a step that failed.
fn was_stopped(step: &StepView) -> bool {
    if step.unreached {
        return true;
    }
    let skipped = step.outcome == Some(Outcome::Skipped);
    let needed = match &step.culprit {
        Some(Culprit::Step { outcome, .. }) => super::gather::is_red(*outcome),
        Some(Culprit::Service { .. }) => true,
        None => old_text_needs_a_failed_step(step.reason.as_deref().unwrap_or_default()),
    };
    skipped && needed
}

/// Returns whether a reason says that a step needed one that failed: only for journals of versions that recorded no
/// culprit.
fn old_text_needs_a_failed_step(reason: &str) -> bool {
    reason.starts_with("needs ")
        && (reason.contains(", failed: ") || reason.contains(", errored: "))
}
