//! What changed from one run to another: new failures first, then what may have caused them, in the order in which to
//! look: inputs, image digests, spec, agents, times outside their noise band, and the critical path.
//!
//! Cells are matched by id, and those left by the values of the axes that both runs have. Failures are matched by the
//! fingerprints of findings, so that a failure with other numbers is no new one. Times are judged by the noise band of
//! earlier runs of the spec ([`crate::history::band`]); without enough of them, nothing is said about times.

mod changes;
pub mod text;
mod times;

pub use changes::{Change, ChangeKind};
pub use times::{OnPath, PathChange, TimeChange, Times};

use crate::finding::{Finding, Findings, findings, sentence};
use crate::history::History;
use crate::text::{step_title, too_many_skips};
use crate::view::coverage::axis_text;
use crate::view::{CellView, RunView, StepView};
use indexmap::IndexMap;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Plan;
use phalanx_shared::time::Timestamp;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// One of two runs to compare.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// View of the run.
    pub view: &'a RunView,
    /// Plan of the run.
    pub plan: Option<&'a Plan>,
    /// Spec files by name; empty if unknown.
    pub files: &'a [(String, String)],
}

/// What changed from one run to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The earlier run.
    pub before: Head,
    /// The later run.
    pub after: Head,
    /// Failures that only the later run has, those first that others follow from.
    pub new: Vec<NewFailure>,
    /// Failures that only the earlier run has, in cells that are ok now.
    pub gone: Vec<Gone>,
    /// Number of failures that both runs have.
    pub still: usize,
    /// Steps that passed and are skipped now.
    pub no_longer: Vec<NoLonger>,
    /// How the cells were matched.
    pub cells: Matched,
    /// What differs, in the order inputs, images, spec, agents.
    pub changes: Vec<Change>,
    /// Times outside their noise band.
    pub times: Times,
    /// What came onto the critical path of the slowest cell, left it, or changed on it.
    pub critical_path: Vec<PathChange>,
}

/// One of the two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Head {
    /// Id of the run.
    pub run: RunId,
    /// Name of the spec.
    pub spec: String,
    /// Time of submission.
    #[serde(serialize_with = "crate::view::rfc3339")]
    pub submitted: Option<Timestamp>,
    /// Outcome; `null` while it runs.
    pub outcome: Option<Outcome>,
    /// Why it was cancelled, or failed although none of its cells did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of cells, and of those that were ok.
    pub cells: usize,
    /// Number of cells that were ok.
    pub ok: usize,
}

/// A failure that the earlier run doesn't have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NewFailure {
    /// Fingerprint of the finding.
    pub id: String,
    /// `failed` or `errored`.
    pub outcome: Outcome,
    /// What went wrong first.
    pub cause: String,
    /// Why, in one line.
    pub reason: String,
    /// Which cells of the later run have it, in words.
    pub explained: String,
    /// Names of the cells that have it now and didn't before.
    pub cells: Vec<String>,
    /// How many of them the earlier run doesn't have at all.
    pub new_cells: usize,
    /// Whether it follows from another failure.
    pub follows: bool,
}

/// A failure that is gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gone {
    /// Fingerprint of the finding.
    pub id: String,
    /// What went wrong.
    pub cause: String,
    /// Names of the cells that had it and are ok now.
    pub cells: Vec<String>,
}

/// A step that passed and is skipped now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoLonger {
    /// Title of the step.
    pub step: String,
    /// Why it is skipped.
    pub reason: String,
    /// Number of cells.
    pub cells: usize,
}

/// How the cells of two runs were matched.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Matched {
    /// Pairs with the same id.
    pub by_id: usize,
    /// Further pairs with the same values of the axes that both runs have.
    pub by_values: usize,
    /// Names of cells that only the earlier run has.
    pub only_before: Vec<String>,
    /// Names of cells that only the later run has.
    pub only_after: Vec<String>,
}

impl Comparison {
    /// Returns the worst outcome of the new failures. If there are none and the earlier run was ok, returns that of the
    /// later run if it isn't ok; `errored` stands for one that isn't finished. `None` if there is no regression.
    pub fn regression(&self) -> Option<Outcome> {
        let failed = self.new.iter().any(|new| new.outcome == Outcome::Failed);
        let worst = match failed {
            true => Some(Outcome::Failed),
            false => self.new.iter().map(|new| new.outcome).max(),
        };
        let later = match self.after.outcome {
            Some(outcome) => Some(outcome).filter(|outcome| !outcome.is_ok()),
            None => Some(Outcome::Errored),
        };
        worst.or(later.filter(|_| self.before_was_ok()))
    }

    /// Returns what is wrong with the later run beside its failures, in words; `None` if nothing is.
    pub fn unwell(&self) -> Option<String> {
        let reason = self.after.reason.as_deref();
        let because = reason.map(|reason| format!(": {reason}"));
        let because = because.unwrap_or_default();
        let what = match self.after.outcome {
            None => "isn't finished",
            Some(Outcome::Cancelled) => "was cancelled",
            Some(Outcome::Failed) if reason.is_some() || self.before_was_ok() => "failed",
            Some(Outcome::Errored) if self.before_was_ok() => "errored",
            Some(_) => return None,
        };
        Some(format!("the later run {what}{because}"))
    }

    fn before_was_ok(&self) -> bool {
        self.before.outcome.is_some_and(Outcome::is_ok)
    }
}

/// Compares two runs. `history` holds earlier runs of the spec, which may include the earlier of the two.
pub fn compare(before: &Side<'_>, after: &Side<'_>, history: &History) -> Comparison {
    let pairs = Pairs::of(before.view, after.view);
    let (old, new) = (findings(before.view, None), findings(after.view, None));
    let new_failures = new_failures(after.view, &pairs, &old, &new);
    let known: HashSet<&str> = old.findings.iter().map(|one| one.id.as_str()).collect();
    Comparison {
        before: head(before.view),
        after: head(after.view),
        gone: gone(before.view, after.view, &pairs, &old, &new),
        still: new
            .findings
            .iter()
            .filter(|one| known.contains(one.id.as_str()))
            .count(),
        new: new_failures,
        no_longer: no_longer(before.view, after.view, &pairs),
        changes: changes::changes(before, after, &pairs),
        times: times::times(before.view, after.view, &pairs, history),
        critical_path: times::critical_path(before.view, after.view),
        cells: pairs.matched(before.view, after.view),
    }
}

fn head(view: &RunView) -> Head {
    let ok = |cell: &&CellView| cell.outcome.is_some_and(Outcome::is_ok);
    Head {
        run: view.run.clone(),
        spec: view.spec.clone(),
        submitted: view.submitted,
        outcome: view.outcome,
        reason: too_many_skips(view).or_else(|| view.cancelled.clone()),
        cells: view.cells.len(),
        ok: view.cells.iter().filter(ok).count(),
    }
}

/// The cells of two runs that are the same, as positions in their views.
#[derive(Debug, Default)]
struct Pairs {
    /// Position in the earlier run, by position in the later one.
    before: HashMap<usize, usize>,
    by_values: usize,
}

impl Pairs {
    fn of(before: &RunView, after: &RunView) -> Pairs {
        let ids: HashMap<&CellId, usize> = before
            .cells
            .iter()
            .enumerate()
            .map(|(at, cell)| (&cell.id, at))
            .collect();
        let mut pairs = Pairs::default();
        for (at, cell) in after.cells.iter().enumerate() {
            if let Some(old) = ids.get(&cell.id) {
                pairs.before.insert(at, *old);
            }
        }
        let taken: HashSet<usize> = pairs.before.values().copied().collect();
        let left_before = before
            .cells
            .iter()
            .enumerate()
            .filter(|(at, _)| !taken.contains(at));
        let left_after = after
            .cells
            .iter()
            .enumerate()
            .filter(|(at, _)| !pairs.before.contains_key(at));
        let axes = common_axes(before, after);
        if axes.is_empty() {
            return pairs;
        }
        let old = unique(left_before, &axes);
        let new = unique(left_after, &axes);
        for (values, at) in new {
            if let Some(old) = old.get(&values) {
                pairs.before.insert(at, *old);
                pairs.by_values += 1;
            }
        }
        pairs
    }

    /// Returns the pairs in the order of the later run.
    fn each<'a>(
        &'a self,
        before: &'a RunView,
        after: &'a RunView,
    ) -> impl Iterator<Item = (&'a CellView, &'a CellView)> {
        after.cells.iter().enumerate().filter_map(|(at, new)| {
            let old = before.cells.get(*self.before.get(&at)?)?;
            Some((old, new))
        })
    }

    fn matched(&self, before: &RunView, after: &RunView) -> Matched {
        let taken: HashSet<usize> = self.before.values().copied().collect();
        let names = |view: &RunView, known: &dyn Fn(usize) -> bool| -> Vec<String> {
            let left = view.cells.iter().enumerate().filter(|(at, _)| !known(*at));
            left.map(|(_, cell)| cell.name.clone()).collect()
        };
        Matched {
            by_id: self.before.len() - self.by_values,
            by_values: self.by_values,
            only_before: names(before, &|at| taken.contains(&at)),
            only_after: names(after, &|at| self.before.contains_key(&at)),
        }
    }
}

/// Returns the axes that all cells of both runs have.
fn common_axes(before: &RunView, after: &RunView) -> Vec<String> {
    let Some(first) = after.cells.first() else {
        return Vec::new();
    };
    let cells = || before.cells.iter().chain(&after.cells);
    let axes = first
        .matrix
        .keys()
        .filter(|axis| cells().all(|cell| cell.matrix.contains_key(*axis)));
    axes.cloned().collect()
}

/// Returns the cells that no other cell shares its values with, by these values.
fn unique<'a>(
    cells: impl Iterator<Item = (usize, &'a CellView)>,
    axes: &[String],
) -> IndexMap<Vec<String>, usize> {
    let mut found: IndexMap<Vec<String>, Option<usize>> = IndexMap::new();
    for (at, cell) in cells {
        let values = axes
            .iter()
            .filter_map(|axis| cell.matrix.get(axis))
            .map(axis_text)
            .collect();
        found
            .entry(values)
            .and_modify(|known| *known = None)
            .or_insert(Some(at));
    }
    found
        .into_iter()
        .filter_map(|(values, at)| Some((values, at?)))
        .collect()
}

/// Returns the cells of each finding by its fingerprint.
fn by_id(findings: &Findings) -> HashMap<&str, HashSet<usize>> {
    let mut cells: HashMap<&str, HashSet<usize>> = HashMap::new();
    for finding in &findings.findings {
        cells.entry(&finding.id).or_default().extend(&finding.cells);
    }
    cells
}

fn new_failures(after: &RunView, pairs: &Pairs, old: &Findings, new: &Findings) -> Vec<NewFailure> {
    let known = by_id(old);
    let is_new = |finding: &Finding, at: usize| match pairs.before.get(&at) {
        Some(before) => !known
            .get(finding.id.as_str())
            .is_some_and(|cells| cells.contains(before)),
        None => true,
    };
    let of_finding = |finding: &Finding| {
        let cells: Vec<usize> = finding
            .cells
            .iter()
            .copied()
            .filter(|at| is_new(finding, *at))
            .collect();
        let names = cells
            .iter()
            .filter_map(|at| Some(after.cells.get(*at)?.name.clone()));
        (!cells.is_empty()).then(|| NewFailure {
            id: finding.id.clone(),
            outcome: finding.outcome,
            cause: sentence::cause(finding),
            reason: finding.reason.clone(),
            explained: sentence::explained(finding),
            cells: names.collect(),
            new_cells: cells
                .iter()
                .filter(|at| !pairs.before.contains_key(at))
                .count(),
            follows: finding.follows.is_some(),
        })
    };
    let mut found: Vec<NewFailure> = new.findings.iter().filter_map(of_finding).collect();
    found.sort_by_key(|one| (one.follows, one.outcome != Outcome::Failed));
    found
}

fn gone(
    before: &RunView,
    after: &RunView,
    pairs: &Pairs,
    old: &Findings,
    new: &Findings,
) -> Vec<Gone> {
    let now = by_id(new);
    let later: HashMap<usize, usize> = pairs.before.iter().map(|(new, old)| (*old, *new)).collect();
    let is_ok = |at: &usize| {
        let cell = later.get(at).and_then(|at| after.cells.get(*at));
        cell.is_some_and(|cell| cell.outcome.is_some_and(Outcome::is_ok))
    };
    let of_finding = |finding: &Finding| {
        let still = now.get(finding.id.as_str());
        let cells = finding.cells.iter().filter(|at| {
            let same = later
                .get(at)
                .is_some_and(|new| still.is_some_and(|cells| cells.contains(new)));
            is_ok(at) && !same
        });
        let cells: Vec<String> = cells
            .filter_map(|at| Some(before.cells.get(*at)?.name.clone()))
            .collect();
        (!cells.is_empty()).then(|| Gone {
            id: finding.id.clone(),
            cause: sentence::cause(finding),
            cells,
        })
    };
    old.findings.iter().filter_map(of_finding).collect()
}

/// Returns the steps that passed and are skipped now, the most frequent first.
fn no_longer(before: &RunView, after: &RunView, pairs: &Pairs) -> Vec<NoLonger> {
    let mut found: IndexMap<String, (String, usize)> = IndexMap::new();
    let title = |step: &StepView| step_title(&step.phase, &step.name);
    for (old, new) in pairs.each(before, after) {
        let passed: HashSet<String> = old
            .steps()
            .filter(|step| matches!(step.outcome, Some(Outcome::Passed | Outcome::Flaky)))
            .map(title)
            .collect();
        let skipped = new
            .steps()
            .filter(|step| step.outcome == Some(Outcome::Skipped) && !step.unreached);
        let mut counted = HashSet::new();
        for step in skipped {
            let title = title(step);
            if passed.contains(&title) && counted.insert(title.clone()) {
                let reason = step.reason.clone().unwrap_or_default();
                found.entry(title).or_insert((reason, 0)).1 += 1;
            }
        }
    }
    let mut found: Vec<NoLonger> = found
        .into_iter()
        .map(|(step, (reason, cells))| NoLonger {
            step,
            reason,
            cells,
        })
        .collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.cells));
    found
}

#[cfg(test)]
mod tests;
