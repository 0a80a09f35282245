//! The history of one cell or one step.

use super::band::{Band, median};
use super::overview::{Axis, flaky_axis, since};
use super::series::{Mark, Shift, Verdict, blocks, line, shift, verdict};
use super::{History, PastCell, PastRun};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// A cell; see [`History::cell`].
    Cell(usize),
    /// A step; see [`History::title`].
    Step(usize),
    /// Several cells or steps; some of their names.
    Several(Vec<String>),
    /// Nothing in these runs.
    Nothing,
}

/// The history of one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellHistory {
    /// Id of the cell.
    pub cell: CellId,
    /// Display name.
    pub name: String,
    /// Runs that had the cell, the oldest first.
    pub runs: Vec<CellRun>,
    /// The cell as a whole.
    #[serde(flatten)]
    pub series: Series,
    /// Its steps in the order of their first appearance.
    pub steps: Vec<Series>,
}

/// A cell in one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellRun {
    /// Id of the run.
    pub run: RunId,
    /// Time of submission.
    #[serde(serialize_with = "crate::view::rfc3339_always")]
    pub submitted: Timestamp,
    /// Outcome of the cell.
    pub outcome: Option<Outcome>,
    /// Time that it took, in microseconds.
    pub elapsed_us: Option<u64>,
    /// First step that failed or errored.
    pub step: Option<String>,
    /// First line of the reason, if the outcome isn't ok.
    pub reason: Option<String>,
}

/// Outcomes and times of a cell or step over runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Title of the step or name of the cell.
    pub title: String,
    /// What the outcomes say.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The run since which it is so.
    pub since: Option<RunId>,
    /// One character for each run.
    pub line: String,
    /// Times of passed ones as blocks, one for each run.
    pub times: String,
    /// Median of the times of passed ones, in microseconds.
    pub median_us: Option<u64>,
    /// Noise band of these times; `None` if there are too few.
    pub band: Option<Band>,
    /// Change of these times.
    pub shift: Option<Shift>,
}

/// The history of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepHistory {
    /// Title of the step: `phase > step`.
    pub step: String,
    /// Runs, the oldest first.
    pub runs: Vec<RunId>,
    /// Each cell that had the step: broken ones first, then new, always failing, flaky, fixed, steady.
    pub cells: Vec<Series>,
    /// The axis value to which its flakiness is limited, if it is.
    pub axis: Option<Axis>,
}

impl History {
    /// Finds the cell (id, beginning of an id, or name) or else the step (title, name, or part of a title) that a text
    /// names.
    pub fn pick(&self, text: &str) -> Pick {
        let exact = self
            .cells
            .iter()
            .position(|(id, cell)| id.as_str() == text || cell.name == text);
        if let Some(at) = exact {
            return Pick::Cell(at);
        }
        let named = |title: &str| {
            title == text
                || title
                    .split_once(" > ")
                    .is_some_and(|(_, step)| step == text)
        };
        let lower = text.to_lowercase();
        let cells = self
            .cells
            .iter()
            .enumerate()
            .filter(|(_, (id, _))| id.as_str().starts_with(text));
        let cells = cells.map(|(at, (_, cell))| (Pick::Cell(at), cell.name.clone()));
        let steps = |fits: &dyn Fn(&str) -> bool| -> Vec<(Pick, String)> {
            let titles = self
                .titles
                .iter()
                .enumerate()
                .filter(|(_, title)| fits(title));
            titles
                .map(|(at, title)| (Pick::Step(at), title.clone()))
                .collect()
        };
        let found = [
            cells.collect(),
            steps(&|title| named(title)),
            steps(&|title| title.to_lowercase().contains(&lower)),
        ];
        match found.into_iter().find(|found| !found.is_empty()) {
            None => Pick::Nothing,
            Some(mut one) if one.len() == 1 => one.pop().map_or(Pick::Nothing, |(pick, _)| pick),
            Some(many) => Pick::Several(many.into_iter().map(|(_, name)| name).take(5).collect()),
        }
    }
}

/// Returns the history of a cell over the judged runs.
pub fn cell_history(history: &History, cell: usize) -> Option<CellHistory> {
    let (id, name) = history.cell(cell)?;
    let runs: Vec<&PastRun> = history.judged().collect();
    let of_runs: Vec<Option<&PastCell>> = runs
        .iter()
        .map(|run| run.cells.iter().find(|known| known.cell == cell))
        .collect();
    let known = || {
        runs.iter()
            .zip(&of_runs)
            .filter_map(|(run, cell)| Some((*run, (*cell)?)))
    };
    let mut titles: Vec<usize> = Vec::new();
    let mut seen = BTreeSet::new();
    for step in known().flat_map(|(_, cell)| &cell.steps) {
        if seen.insert(step.title) {
            titles.push(step.title);
        }
    }
    let whole = of_runs.iter().map(|cell| match cell {
        Some(cell) => (Mark::of(cell.outcome), cell.elapsed_us),
        None => (Mark::Absent, None),
    });
    Some(CellHistory {
        cell: id.clone(),
        name: name.name.clone(),
        runs: known()
            .map(|(run, cell)| cell_run(history, run, cell))
            .collect(),
        series: series(&name.name, &runs, whole.collect()),
        steps: titles
            .into_iter()
            .map(|title| {
                let marks = of_runs.iter().map(|cell| of_step(*cell, title));
                series(history.title(title), &runs, marks.collect())
            })
            .collect(),
    })
}

fn cell_run(history: &History, run: &PastRun, cell: &PastCell) -> CellRun {
    let bad =
        |outcome: Option<Outcome>| matches!(outcome, Some(Outcome::Failed | Outcome::Errored));
    let step = cell.steps.iter().find(|step| bad(step.outcome));
    CellRun {
        run: run.run.clone(),
        submitted: run.submitted,
        outcome: cell.outcome,
        elapsed_us: cell.elapsed_us,
        step: step.map(|step| history.title(step.title).to_owned()),
        reason: cell.reason.clone(),
    }
}

/// Returns the worst mark of a step in a cell, and its time if it passed.
fn of_step(cell: Option<&PastCell>, title: usize) -> (Mark, Option<u64>) {
    let steps = cell
        .into_iter()
        .flat_map(|cell| &cell.steps)
        .filter(|step| step.title == title);
    steps.fold((Mark::Absent, None), |(mark, time), step| {
        let time = time.unwrap_or(0).saturating_add(step.elapsed_us);
        (mark.worse(Mark::of(step.outcome)), Some(time))
    })
}

fn series(title: &str, runs: &[&PastRun], marks: Vec<(Mark, Option<u64>)>) -> Series {
    let (marks, times): (Vec<Mark>, Vec<Option<u64>>) = marks
        .into_iter()
        .map(|(mark, time)| (mark, time.filter(|_| mark == Mark::Passed)))
        .unzip();
    let said = verdict(&marks);
    let known: Vec<u64> = times.iter().flatten().copied().collect();
    Series {
        title: title.to_owned(),
        verdict: said,
        since: since(said)
            .and_then(|at| runs.get(at))
            .map(|run| run.run.clone()),
        line: line(&marks),
        times: blocks(&times),
        median_us: median(&known),
        band: Band::of(&known),
        shift: shift(&times),
    }
}

/// Returns the history of a step over the judged runs.
pub fn step_history(history: &History, title: usize) -> StepHistory {
    let runs: Vec<&PastRun> = history.judged().collect();
    let mut marks: BTreeMap<usize, Vec<(Mark, Option<u64>)>> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        for cell in &run.cells {
            let found = of_step(Some(cell), title);
            if found.1.is_some() {
                let of_cell = marks
                    .entry(cell.cell)
                    .or_insert_with(|| vec![(Mark::Absent, None); runs.len()]);
                if let Some(known) = of_cell.get_mut(at) {
                    *known = found;
                }
            }
        }
    }
    let mut flaky = BTreeSet::new();
    let mut cells: Vec<Series> = Vec::new();
    for (cell, marks) in marks {
        let name = history
            .cell(cell)
            .map_or("", |(_, name)| name.name.as_str());
        let one = series(name, &runs, marks);
        if matches!(one.verdict, Verdict::Flaky { .. }) {
            flaky.insert(cell);
        }
        cells.push(one);
    }
    cells.sort_by_key(|one| super::overview::rank(one.verdict).unwrap_or(u8::MAX));
    StepHistory {
        step: history.title(title).to_owned(),
        runs: runs.iter().map(|run| run.run.clone()).collect(),
        cells,
        axis: flaky_axis(history, &runs, Some(title), &flaky).filter(|_| !flaky.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::planted::{Cell, Run, history};
    use super::*;
    use phalanx_shared::outcome::Outcome::{Failed, Passed};

    fn planted() -> History {
        let run = |number: usize| {
            let outcome = if number >= 4 { Failed } else { Passed };
            let cells = vec![
                Cell::of(&[("db", "pg")], outcome, 3.0),
                Cell::of(&[("db", "mysql")], Passed, 2.0),
            ];
            Run::of(number, cells)
        };
        history(&(0..6).map(run).collect::<Vec<_>>())
    }

    #[test]
    fn a_cell_is_named_by_id_or_name_and_a_step_by_title_or_part_of_it() {
        let history = planted();
        assert_eq!(history.pick("pg"), Pick::Cell(0));
        assert_eq!(history.pick("my"), Pick::Cell(1));
        for text in ["test > check", "check", "CHE"] {
            assert_eq!(history.pick(text), Pick::Step(0), "{text}");
        }
        assert_eq!(history.pick("nothing"), Pick::Nothing);
    }

    #[test]
    fn a_cell_tells_each_run_and_the_step_that_broke() {
        let found = cell_history(&planted(), 0).unwrap();
        assert_eq!(found.runs.len(), 6);
        assert_eq!(found.runs[5].step.as_deref(), Some("test > check"));
        assert_eq!(found.series.verdict, Verdict::Broken { since: 4 });
        assert_eq!(found.steps[0].since.as_ref().unwrap().as_str(), "run-004");
        assert_eq!(
            (found.steps[0].line.as_str(), found.steps[0].times.as_str()),
            ("····FF", "▁▁▁▁  ")
        );
    }

    #[test]
    fn a_step_tells_each_cell_the_broken_one_first() {
        let found = step_history(&planted(), 0);
        let cells: Vec<&str> = found.cells.iter().map(|cell| cell.title.as_str()).collect();
        assert_eq!(cells, ["pg", "mysql"]);
        assert_eq!(found.axis, None);
    }
}
