//! The ledger of coverage over runs: what the newest run didn't verify, and when an earlier one last did.
//!
//! A coverage row is verified in a cell by a run in which it passed there. Without coverage rows, a cell is verified by a
//! run in which it was ok. What no run of the history verified is only counted: it may be skipped for good.

use super::{History, PastRun};
use crate::text::{clean, plural};
use phalanx_shared::id::RunId;
use phalanx_shared::time::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Maximum number of cells that an entry names.
const NAMED: usize = 3;
/// A day in microseconds.
const DAY_US: u64 = 86_400_000_000;

/// What the newest run left unverified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// What was verified before, the longest ago first.
    pub stale: Vec<Stale>,
    /// Number of pairs of row and cell that no run of the history verified.
    pub never: usize,
    /// Number of runs of the history.
    pub runs: usize,
}

/// Rows and cells that were last verified by the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Coverage rows; empty if the spec has none.
    pub rows: Vec<String>,
    /// Where: an axis value if it covers exactly these cells, or the cells' axis values.
    pub place: String,
    /// Number of cells.
    pub cells: usize,
    /// The run that last verified them.
    pub run: RunId,
    /// When that run was submitted.
    #[serde(serialize_with = "crate::view::rfc3339_always")]
    pub at: Timestamp,
    /// Whole days since then.
    pub days: u64,
}

impl Stale {
    /// Formats the entry: `not verified for 23 days: mysql × v2.0 (pay)`.
    pub fn text(&self) -> String {
        let since = match self.days {
            0 => format!("since run {}", self.run),
            days => format!(
                "for {}",
                plural(usize::try_from(days).unwrap_or(usize::MAX), "day")
            ),
        };
        let rows = match self.rows.as_slice() {
            [] => String::new(),
            rows if rows.len() > NAMED => format!(" ({})", plural(rows.len(), "row")),
            rows => format!(" ({})", rows.join(", ")),
        };
        clean(&format!("not verified {since}: {}{rows}", self.place)).into_owned()
    }
}

/// Returns the ledger of the judged runs of a history.
pub fn ledger(history: &History, now: Timestamp) -> Ledger {
    let runs: Vec<&PastRun> = history.judged().collect();
    let Some(newest) = runs.len().checked_sub(1) else {
        return Ledger::default();
    };
    let cells: BTreeSet<usize> = runs
        .iter()
        .flat_map(|run| &run.cells)
        .map(|cell| cell.cell)
        .collect();
    let rows = history.row_count();
    // The newest run that verified a row in a cell; the row `rows` stands for the cell as a whole.
    let mut last: HashMap<(usize, usize), usize> = HashMap::new();
    for (at, run) in runs.iter().enumerate() {
        for cell in &run.cells {
            if rows == 0 && cell.outcome.is_some_and(|outcome| outcome.is_ok()) {
                last.insert((cell.cell, rows), at);
            }
            for row in &cell.verified {
                last.insert((cell.cell, *row), at);
            }
        }
    }
    let mut groups: BTreeMap<(usize, BTreeSet<usize>), BTreeSet<usize>> = BTreeMap::new();
    for cell in &cells {
        let mut by_run: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for row in 0..rows.max(1) {
            let row = if rows == 0 { rows } else { row };
            if let Some(at) = last.get(&(*cell, row)).filter(|at| **at < newest) {
                by_run.entry(*at).or_default().insert(row);
            }
        }
        for (at, of_cell) in by_run {
            groups.entry((at, of_cell)).or_default().insert(*cell);
        }
    }
    let stale = groups.into_iter().filter_map(|((at, of_group), members)| {
        let run = runs.get(at)?;
        let days = u64::try_from(now.since(run.submitted).as_micros()).unwrap_or(u64::MAX) / DAY_US;
        let names = of_group.iter().filter(|row| **row < rows);
        Some(Stale {
            rows: names.map(|row| history.row(*row).to_owned()).collect(),
            place: place(history, &cells, &members),
            cells: members.len(),
            run: run.run.clone(),
            at: run.submitted,
            days,
        })
    });
    Ledger {
        stale: stale.collect(),
        never: cells.len() * rows.max(1) - last.len(),
        runs: runs.len(),
    }
}

/// Returns the name of a set of cells: `all cells`, an axis value that only they have, or their values.
pub(super) fn place(history: &History, all: &BTreeSet<usize>, members: &BTreeSet<usize>) -> String {
    if members == all && all.len() > 1 {
        return "all cells".to_owned();
    }
    let mut by_value: BTreeMap<(&str, &str), HashSet<usize>> = BTreeMap::new();
    for cell in all {
        let Some((_, name)) = history.cell(*cell) else {
            continue;
        };
        for (axis, value) in &name.matrix {
            by_value.entry((axis, value)).or_default().insert(*cell);
        }
    }
    let same = |cells: &HashSet<usize>| {
        cells.len() == members.len() && members.iter().all(|cell| cells.contains(cell))
    };
    if members.len() > 1
        && let Some(((axis, value), _)) = by_value.iter().find(|(_, cells)| same(cells))
    {
        return format!("{axis}={value}");
    }
    let names = members.iter().filter_map(|cell| {
        let (_, name) = history.cell(*cell)?;
        let values: Vec<&str> = name
            .matrix
            .iter()
            .map(|(_, value)| value.as_str())
            .collect();
        Some(match values.as_slice() {
            [] => name.name.clone(),
            values => values.join(" × "),
        })
    });
    let mut shown: Vec<String> = names.take(NAMED).collect();
    if members.len() > NAMED {
        shown.push(format!("{} more", plural(members.len() - NAMED, "cell")));
    }
    shown.join(", ")
}

/// Returns lines for a summary: what wasn't verified for at least a day.
pub fn lines(ledger: &Ledger, most: usize) -> Vec<String> {
    let old: Vec<&Stale> = ledger.stale.iter().filter(|stale| stale.days > 0).collect();
    let mut lines: Vec<String> = old.iter().take(most).map(|stale| stale.text()).collect();
    if old.len() > most {
        lines.push(format!("… ({} more)", old.len() - most));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::planted::{Cell, Run, history};
    use super::*;
    use phalanx_shared::outcome::Outcome::{Failed, Passed, Skipped};

    fn cell(
        db: &'static str,
        image: &'static str,
        outcome: phalanx_shared::outcome::Outcome,
    ) -> Cell {
        Cell::of(&[("db", db), ("image", image)], outcome, 1.0)
    }

    #[test]
    fn what_was_verified_before_is_told_with_its_age_and_the_axis_value_that_it_shares() {
        let first = Run::of(
            1,
            vec![
                cell("mysql", "v2.0", Passed),
                cell("mysql", "v1.0", Passed),
                cell("pg", "v2.0", Passed),
                cell("pg", "v1.0", Skipped),
            ],
        );
        let second = Run::of(
            20,
            vec![
                cell("mysql", "v2.0", Failed),
                cell("mysql", "v1.0", Skipped),
                cell("pg", "v2.0", Passed),
                cell("pg", "v1.0", Skipped),
            ],
        );
        let newest = Run::of(24, vec![cell("pg", "v2.0", Passed)]);
        let ledger = ledger(
            &history(&[second, newest.clone(), first]),
            newest.at(3_600.0),
        );
        let texts: Vec<String> = ledger.stale.iter().map(Stale::text).collect();
        assert_eq!(texts, ["not verified for 23 days: db=mysql (pay)"]);
        assert_eq!((ledger.never, ledger.runs), (1, 3));
        assert_eq!(lines(&ledger, 5), texts);
    }

    #[test]
    fn a_single_cell_is_named_by_its_values_and_cut_lists_say_so() {
        let first = Run::of(
            1,
            vec![cell("mysql", "v2.0", Passed), cell("pg", "v2.0", Passed)],
        );
        let newest = Run::of(
            2,
            vec![cell("mysql", "v2.0", Failed), cell("pg", "v2.0", Passed)],
        );
        let found = ledger(&history(&[first, newest.clone()]), newest.at(1.0));
        let texts: Vec<String> = found.stale.iter().map(Stale::text).collect();
        assert_eq!(texts, ["not verified for 1 day: mysql × v2.0 (pay)"]);
        let many = Ledger {
            stale: vec![found.stale[0].clone(); 9],
            ..found
        };
        assert_eq!(
            lines(&many, 5).last().map(String::as_str),
            Some("… (4 more)")
        );
    }

    #[test]
    fn without_runs_there_is_nothing_to_tell() {
        assert_eq!(ledger(&History::default(), Timestamp(0)), Ledger::default());
    }
}
