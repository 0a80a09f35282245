//! Earlier runs of a spec in short: outcomes and times of cells and steps, and the coverage rows that each cell verified.
//!
//! Made from the states of runs, so a reader fetches and folds each run once and then drops its events. Names are stored
//! once. The number of steps is bounded; beyond it, further runs are kept with their cells only.

pub mod band;
pub mod detail;
pub mod expected;
pub mod ledger;
pub mod overview;
#[cfg(test)]
pub(crate) mod planted;
pub mod series;
pub mod text;

use crate::text::step_title;
use crate::timing::wall_us;
use crate::view::coverage::{CoverageState, axis_text, states_of_rows};
use crate::view::{CellView, RunView};
use indexmap::{IndexMap, IndexSet};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;

/// Maximum number of steps over all runs: about 50 MB.
const STEPS: usize = 1_000_000;

/// Runs of one spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Titles of steps; [`PastStep::title`] is an index.
    titles: IndexSet<String>,
    /// Coverage rows; [`PastCell::verified`] holds indices.
    rows: IndexSet<String>,
    /// Cells of all runs, with their newest names; [`PastCell::cell`] is an index.
    cells: IndexMap<CellId, CellName>,
    /// Runs, the oldest first.
    runs: Vec<PastRun>,
    /// Number of steps kept.
    steps: usize,
}

/// How a cell is called.
#[derive(Clone, Debug, PartialEq)]
pub struct CellName {
    /// Display name.
    pub name: String,
    /// Axes and their values as text.
    pub matrix: Vec<(String, String)>,
}

/// A run in short.
#[derive(Clone, Debug, PartialEq)]
pub struct PastRun {
    /// Id of the run.
    pub run: RunId,
    /// Time of submission.
    pub submitted: Timestamp,
    /// Time at which the last cell got its outcome; `None` if the run is unfinished.
    pub finished: Option<Timestamp>,
    /// Outcome; `None` if the run is unfinished.
    pub outcome: Option<Outcome>,
    /// Digest of the plan.
    pub digest: String,
    /// Time from submission to finish, in microseconds.
    pub wall_us: u64,
    /// Largest number of cells that ran at the same time.
    pub abreast: usize,
    /// Cells in plan order.
    pub cells: Vec<PastCell>,
    /// Whether the steps are left out because the history has too many.
    pub without_steps: bool,
}

/// A cell in short. Only its newest attempt counts.
#[derive(Clone, Debug, PartialEq)]
pub struct PastCell {
    /// Which cell; see [`History::cell`].
    pub cell: usize,
    /// Outcome of the cell.
    pub outcome: Option<Outcome>,
    /// First line of the reason, if the outcome isn't ok.
    pub reason: Option<String>,
    /// Time from the start of its first attempt to the end of its newest attempt's steps, in microseconds.
    pub elapsed_us: Option<u64>,
    /// Time that the clean-up took, in microseconds.
    pub clean_up_us: u64,
    /// Steps in the order in which they began: leaves, and groups with a verdict of their own.
    pub steps: Vec<PastStep>,
    /// Coverage rows that passed; see [`History::row`].
    pub verified: Vec<usize>,
}

/// A step in short.
#[derive(Clone, Debug, PartialEq)]
pub struct PastStep {
    /// Which step; see [`History::title`].
    pub title: usize,
    /// Outcome; `None` if it was never reached.
    pub outcome: Option<Outcome>,
    /// Duration in microseconds.
    pub elapsed_us: u64,
}

/// A finished run before it is part of a history: only what a history keeps of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Short {
    run: RunId,
    submitted: Timestamp,
    finished: Option<Timestamp>,
    outcome: Option<Outcome>,
    digest: String,
    wall_us: u64,
    abreast: usize,
    cells: Vec<ShortCell>,
}

#[derive(Clone, Debug, PartialEq)]
struct ShortCell {
    id: CellId,
    name: CellName,
    outcome: Option<Outcome>,
    reason: Option<String>,
    elapsed_us: Option<u64>,
    clean_up_us: u64,
    /// Title, outcome and duration of each step.
    steps: Vec<(String, Option<Outcome>, u64)>,
    /// Coverage rows that passed.
    verified: Vec<String>,
}

impl Short {
    /// Returns a run as it was at a time. Looks at one cell after the other, and computes no times but those that it
    /// keeps.
    pub fn of(state: &RunState, now: Timestamp) -> Short {
        let (mut cells, mut spans) = (Vec::new(), Vec::new());
        let views = state.cells.keys();
        for cell in views.filter_map(|id| CellView::of(state, id, now)) {
            spans.extend(busy(&cell));
            cells.push(ShortCell::of(&cell));
        }
        let plan = state.plan.as_ref();
        Short {
            run: state.run.clone(),
            submitted: state.submitted.unwrap_or_default(),
            finished: state.finished,
            outcome: state.outcome,
            digest: plan.map(|plan| plan.digest.clone()).unwrap_or_default(),
            wall_us: wall_us(state, now),
            abreast: most_at_once(spans.into_iter()),
            cells,
        }
    }
}

impl From<&RunView> for Short {
    fn from(view: &RunView) -> Short {
        Short {
            run: view.run.clone(),
            submitted: view.submitted.unwrap_or_default(),
            finished: view.finished,
            outcome: view.outcome,
            digest: view.digest.clone(),
            wall_us: view.timing.wall_us,
            abreast: most_at_once(view.cells.iter().flat_map(busy)),
            cells: view.cells.iter().map(ShortCell::of).collect(),
        }
    }
}

impl ShortCell {
    fn of(cell: &CellView) -> ShortCell {
        let matrix = cell.matrix.iter();
        let verified =
            |state: &CoverageState| matches!(state, CoverageState::Passed | CoverageState::Flaky);
        let steps = cell.steps().map(|step| {
            (
                step_title(&step.phase, &step.name),
                // A restored step says nothing new.
                step.outcome
                    .filter(|_| !step.unreached && !step.is_restored()),
                step.elapsed_us,
            )
        });
        let clean_up = cell.newest().and_then(|attempt| attempt.clean_up.as_ref());
        ShortCell {
            id: cell.id.clone(),
            name: CellName {
                name: cell.name.clone(),
                matrix: matrix
                    .map(|(axis, value)| (axis.clone(), axis_text(value)))
                    .collect(),
            },
            outcome: cell.outcome,
            reason: cell.reason.as_deref().and_then(first_line),
            elapsed_us: cell.elapsed_us,
            clean_up_us: clean_up.map_or(0, |clean_up| clean_up.elapsed_us),
            steps: steps.collect(),
            verified: states_of_rows(cell)
                .into_iter()
                .filter(|(_, state)| verified(state))
                .map(|(row, _)| row.to_owned())
                .collect(),
        }
    }
}

impl History {
    /// Adds a run, in any order. A run that is already known is replaced.
    pub fn add(&mut self, short: Short) {
        let Short {
            run,
            submitted,
            finished,
            outcome,
            digest,
            wall_us,
            abreast,
            cells,
        } = short;
        self.runs.retain(|known| known.run != run);
        let count: usize = cells.iter().map(|cell| cell.steps.len()).sum();
        let without_steps = self.steps + count > STEPS;
        if !without_steps {
            self.steps += count;
        }
        let cells = cells
            .into_iter()
            .map(|cell| self.past_cell(cell, without_steps))
            .collect();
        let run = PastRun {
            run,
            submitted,
            finished,
            outcome,
            digest,
            wall_us,
            abreast,
            cells,
            without_steps,
        };
        let at = self
            .runs
            .partition_point(|known| known.submitted <= run.submitted);
        self.runs.insert(at, run);
    }

    fn past_cell(&mut self, cell: ShortCell, without_steps: bool) -> PastCell {
        let ShortCell {
            id,
            name,
            outcome,
            reason,
            elapsed_us,
            clean_up_us,
            steps,
            verified,
        } = cell;
        let (index, _) = self.cells.insert_full(id, name);
        let verified = verified.into_iter().map(|row| self.rows.insert_full(row).0);
        let verified = verified.collect();
        let steps = steps.into_iter().filter(|_| !without_steps);
        let steps = steps.map(|(title, outcome, elapsed_us)| PastStep {
            title: self.titles.insert_full(title).0,
            outcome,
            elapsed_us,
        });
        PastCell {
            cell: index,
            outcome,
            reason,
            elapsed_us,
            clean_up_us,
            steps: steps.collect(),
            verified,
        }
    }

    /// Returns the runs, the oldest first.
    pub fn runs(&self) -> &[PastRun] {
        &self.runs
    }

    /// Returns the finished runs that weren't cancelled, the oldest first.
    pub fn judged(&self) -> impl DoubleEndedIterator<Item = &PastRun> {
        let judged = |outcome: Outcome| outcome != Outcome::Cancelled;
        self.runs
            .iter()
            .filter(move |run| run.outcome.is_some_and(judged))
    }

    /// Returns the id and the name of a past cell.
    pub fn cell(&self, index: usize) -> Option<(&CellId, &CellName)> {
        self.cells.get_index(index)
    }

    /// Returns all cells with their names, in the order of their first appearance.
    pub fn cells(&self) -> &IndexMap<CellId, CellName> {
        &self.cells
    }

    /// Returns the title of a step: `phase > step`.
    pub fn title(&self, index: usize) -> &str {
        self.titles.get_index(index).map_or("", String::as_str)
    }

    /// Returns the number of coverage rows that any cell verified.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Returns the key of a coverage row.
    pub fn row(&self, index: usize) -> &str {
        self.rows.get_index(index).map_or("", String::as_str)
    }
}

fn first_line(text: &str) -> Option<String> {
    text.lines().next().map(str::to_owned)
}

/// Returns when the attempts at a cell held an agent.
fn busy(cell: &CellView) -> impl Iterator<Item = (Timestamp, Timestamp)> {
    cell.attempts.iter().filter_map(|attempt| {
        let began = attempt.started?;
        let clean_up = attempt.clean_up.as_ref().map_or(0, |c| c.elapsed_us);
        let took = attempt.elapsed_us?.saturating_add(clean_up);
        Some((began, later(began, took)))
    })
}

/// Returns the largest number of intervals that overlap; an interval that ends as another begins doesn't.
pub(crate) fn most_at_once(spans: impl Iterator<Item = (Timestamp, Timestamp)>) -> usize {
    let mut changes: Vec<(Timestamp, bool)> = spans
        .flat_map(|(began, ended)| [(began, true), (ended, false)])
        .collect();
    changes.sort_unstable();
    let (mut now, mut most) = (0usize, 0usize);
    for (_, begins) in changes {
        now = if begins {
            now + 1
        } else {
            now.saturating_sub(1)
        };
        most = most.max(now);
    }
    most
}

/// Returns the time some microseconds later.
pub(crate) fn later(at: Timestamp, micros: u64) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(micros).unwrap_or(i64::MAX)))
}
