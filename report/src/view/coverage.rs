//! The coverage table: rows that the spec's `verifies` keys name, by the values of one axis of the matrix.
//!
//! A row's state in a cell is the worst of the steps and groups that name it; a group's verdict takes precedence over
//! steps inside it that only inherit the row. An entry of the table is the worst state of the column's cells, with the
//! number of cells in each state.

use super::{CellView, StepView, ancestors};
use indexmap::IndexSet;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Plan;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use strum::IntoStaticStr;

/// Value of `--coverage-axis` for one column per cell.
pub const CELL_AXIS: &str = "cell";

/// The coverage table of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// Axis of the columns; `cell` for one column per cell, empty if the matrix has no axis.
    pub axis: String,
    /// Whether the caller chose the axis.
    pub chosen: bool,
    /// Columns: the axis's values as text.
    pub columns: Vec<String>,
    /// Rows in the spec's order.
    pub rows: Vec<CoverageRow>,
}

/// One row of the table: something that the spec promises to verify.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoverageRow {
    /// Key that `verifies` names.
    pub key: String,
    /// Title shown in the table.
    pub title: String,
    /// Entries, one for each column.
    pub entries: Vec<CoverageEntry>,
}

/// One entry of the table: a row in one column.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CoverageEntry {
    /// Worst state of the column's cells.
    pub state: CoverageState,
    /// The column's cells grouped by state, worst first.
    pub parts: Vec<CoveragePart>,
}

/// The cells of a column in which the row has the same state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoveragePart {
    /// State of the row in these cells.
    pub state: CoverageState,
    /// Number of cells.
    pub cells: usize,
    /// Number of those in which every step of the row was restored from a snapshot.
    #[serde(skip_serializing_if = "super::none")]
    pub restored: usize,
    /// Reason for a state other than passed or flaky, from the first cell that has one.
    pub reason: Option<String>,
}

/// State of a row in one cell.
///
/// Variants are ordered by severity, best first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs)]
pub enum CoverageState {
    /// The column has no cell (an excluded combination).
    #[default]
    #[strum(serialize = "")]
    Absent,
    Passed,
    Flaky,
    Skipped,
    /// The cell didn't get to the row: no step that names it has ended, or none was reached.
    #[strum(serialize = "not run")]
    NotRun,
    Cancelled,
    Failed,
    Errored,
}

impl CoverageState {
    /// Returns the text shown in tables.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<Outcome> for CoverageState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed => CoverageState::Passed,
            Outcome::Flaky => CoverageState::Flaky,
            Outcome::Skipped => CoverageState::Skipped,
            Outcome::Cancelled => CoverageState::Cancelled,
            Outcome::Failed => CoverageState::Failed,
            Outcome::Errored => CoverageState::Errored,
        }
    }
}

impl Coverage {
    /// Returns the reasons to which the table refers, in the order of their first use; only the first line of each.
    pub fn reasons(&self) -> IndexSet<&str> {
        let parts = self
            .rows
            .iter()
            .flat_map(|row| &row.entries)
            .flat_map(|entry| &entry.parts);
        parts.filter_map(CoveragePart::short_reason).collect()
    }
}

impl CoveragePart {
    /// Returns the first line of the reason.
    pub fn short_reason(&self) -> Option<&str> {
        self.reason.as_deref()?.lines().next()
    }
}

/// State of a row in one cell, with its reason.
#[derive(Clone, Copy)]
struct RowState<'a> {
    state: CoverageState,
    reason: Option<&'a str>,
    /// Every step of the row was restored from a snapshot.
    restored: bool,
}

/// Returns the table of a plan's cells; `None` if the spec has no rows. An unknown `axis` is ignored.
pub fn coverage(plan: &Plan, cells: &[CellView], axis: Option<&str>) -> Option<Coverage> {
    if plan.coverage.is_empty() {
        return None;
    }
    let states: Vec<HashMap<&str, RowState<'_>>> = cells.iter().map(rows_of_cell).collect();
    let chosen = axis.filter(|axis| *axis == CELL_AXIS || plan.axes.iter().any(|a| a == axis));
    let axis = match chosen {
        Some(axis) => axis.to_owned(),
        None => telling_axis(plan, cells, &states).unwrap_or_default(),
    };
    let mut columns: Vec<String> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let label = column_of(cell, &axis);
        let at = columns.iter().position(|column| *column == label);
        let at = at.unwrap_or_else(|| {
            columns.push(label);
            members.push(Vec::new());
            columns.len() - 1
        });
        if let Some(of_column) = members.get_mut(at) {
            of_column.push(index);
        }
    }
    let rows = plan
        .coverage
        .iter()
        .map(|(key, title)| CoverageRow {
            key: key.clone(),
            title: title.clone(),
            entries: members
                .iter()
                .map(|of_column| {
                    let members = of_column
                        .iter()
                        .filter_map(|i| Some((cells.get(*i)?, states.get(*i)?)));
                    entry(members, key)
                })
                .collect(),
        })
        .collect();
    Some(Coverage {
        axis,
        chosen: chosen.is_some(),
        columns,
        rows,
    })
}

/// Returns each row that a step or group of the cell names, with its state, sorted by the row's key.
pub(crate) fn states_of_rows(cell: &CellView) -> Vec<(&str, CoverageState)> {
    let mut rows: Vec<(&str, CoverageState)> = rows_of_cell(cell)
        .into_iter()
        .map(|(row, known)| (row, known.state))
        .collect();
    rows.sort_unstable();
    rows
}

/// Returns each row that a step or group of the cell names, with the worst state of those.
fn rows_of_cell(cell: &CellView) -> HashMap<&str, RowState<'_>> {
    let mut rows: HashMap<&str, RowState<'_>> = HashMap::new();
    let Some(attempt) = cell.newest() else {
        return rows;
    };
    let by_path: HashMap<&str, &StepView> = attempt
        .steps
        .iter()
        .map(|step| (step.path.as_str(), step))
        .collect();
    for step in &attempt.steps {
        let Some(outcome) = step.outcome else {
            continue;
        };
        for key in &step.verifies {
            let around = ancestors(&step.path, |prefix| by_path.get(prefix).copied());
            if around.iter().any(|group| group.verifies.contains(key)) {
                continue;
            }
            let state = match outcome {
                Outcome::Skipped if step.unreached => CoverageState::NotRun,
                outcome => CoverageState::from(outcome),
            };
            let known = rows.entry(key).or_insert(RowState {
                state: CoverageState::Absent,
                reason: None,
                restored: true,
            });
            known.restored &= step.is_restored();
            if state > known.state {
                known.state = state;
                known.reason = step.reason.as_deref();
            }
        }
    }
    rows
}

fn entry<'a>(
    cells: impl Iterator<Item = (&'a CellView, &'a HashMap<&'a str, RowState<'a>>)>,
    key: &str,
) -> CoverageEntry {
    let mut parts: Vec<CoveragePart> = Vec::new();
    for (cell, rows) in cells {
        let known = rows.get(key).copied().unwrap_or(RowState {
            state: CoverageState::NotRun,
            reason: cell.reason.as_deref(),
            restored: false,
        });
        let RowState {
            state,
            reason,
            restored,
        } = known;
        let restored = usize::from(restored && state == CoverageState::Passed);
        let reason = reason
            .filter(|_| state > CoverageState::Flaky)
            .map(str::to_owned);
        match parts.iter_mut().find(|part| part.state == state) {
            Some(part) => {
                part.cells += 1;
                part.restored += restored;
                part.reason = part.reason.take().or(reason);
            }
            None => parts.push(CoveragePart {
                state,
                cells: 1,
                restored,
                reason,
            }),
        }
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.state));
    CoverageEntry {
        state: parts.first().map(|part| part.state).unwrap_or_default(),
        parts,
    }
}

fn column_of(cell: &CellView, axis: &str) -> String {
    match axis {
        "" => "all cells".to_owned(),
        CELL_AXIS => cell.name.clone(),
        axis => cell
            .matrix
            .get(axis)
            .map_or_else(|| "–".to_owned(), axis_text),
    }
}

/// Returns an axis value as text.
pub(crate) fn axis_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns the axis that explains the rows best: the one whose value leaves the least uncertainty about their states
/// (information gain, summed over the rows). If no axis makes a difference, returns the first axis with more than one
/// value.
fn telling_axis(
    plan: &Plan,
    cells: &[CellView],
    states: &[HashMap<&str, RowState<'_>>],
) -> Option<String> {
    let mut best: Option<(f64, usize, &String)> = None;
    for axis in &plan.axes {
        let columns: Vec<String> = cells.iter().map(|cell| column_of(cell, axis)).collect();
        let distinct = columns
            .iter()
            .collect::<std::collections::HashSet<_>>()
            .len();
        let gain: f64 = plan
            .coverage
            .iter()
            .map(|(key, _)| {
                let row = states.iter().map(|rows| {
                    rows.get(key.as_str())
                        .map_or(CoverageState::NotRun, |known| known.state)
                });
                information_gain(columns.iter().map(String::as_str).zip(row))
            })
            .sum();
        let better = match best {
            None => true,
            Some((gained, values, _)) => {
                gain > gained + 1e-9 || (gain > gained - 1e-9 && values < 2 && distinct > 1)
            }
        };
        if better {
            best = Some((gain, distinct, axis));
        }
    }
    best.map(|(_, _, axis)| axis.clone())
}

/// Returns H(state) − H(state | column), in bits.
fn information_gain<'a>(pairs: impl Iterator<Item = (&'a str, CoverageState)>) -> f64 {
    let mut all: HashMap<CoverageState, usize> = HashMap::new();
    let mut by_column: HashMap<&str, HashMap<CoverageState, usize>> = HashMap::new();
    for (column, state) in pairs {
        *all.entry(state).or_default() += 1;
        *by_column
            .entry(column)
            .or_default()
            .entry(state)
            .or_default() += 1;
    }
    let total: usize = all.values().sum();
    let rest: f64 = by_column
        .values()
        .map(|states| {
            let share = states.values().sum::<usize>() as f64 / total.max(1) as f64;
            share * entropy(states)
        })
        .sum();
    entropy(&all) - rest
}

fn entropy(counts: &HashMap<CoverageState, usize>) -> f64 {
    let total = counts.values().sum::<usize>().max(1) as f64;
    counts
        .values()
        .map(|count| {
            let share = *count as f64 / total;
            -share * share.log2()
        })
        .sum()
}
