//! Narrows a plan: `--only` by axis values, `--cell` by id or name.

use super::PlannedCell;
use crate::diagnostic::{Diagnostic, Span};
use crate::expr::{closest, suggestion, to_text};
use globset::{GlobBuilder, GlobMatcher};
use indexmap::IndexMap;
use serde_json::Value;

/// Selects cells of a plan; without any condition it selects all cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Conditions `axis=glob`; an entry may hold several, separated by commas. Conditions on different axes must all
    /// hold; conditions on the same axis are alternatives.
    pub only: Vec<String>,
    /// Alternatives: each is a cell's id, a unique prefix of an id, or a cell's name.
    pub cells: Vec<String>,
}

/// Maximum number of entries, because each is compared with every cell.
const MAX_ENTRIES: usize = 1_000;

impl Selection {
    /// Returns the selected cells in order, or the reasons why there are none.
    pub fn narrow(&self, cells: Vec<PlannedCell>) -> Result<Vec<PlannedCell>, Vec<Diagnostic>> {
        if self.only.len() + self.cells.len() > MAX_ENTRIES {
            let message = format!("more than {MAX_ENTRIES} conditions and cells are selected");
            return Err(vec![problem(message, None)]);
        }
        let mut problems = Vec::new();
        let only = only(&self.only, &cells, &mut problems);
        let mut named_cells = vec![self.cells.is_empty(); cells.len()];
        for entry in &self.cells {
            match named(entry, &cells) {
                Ok(at) => named_cells
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|wanted| *wanted = true),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let narrowed: Vec<PlannedCell> = cells
            .into_iter()
            .zip(only.into_iter().zip(named_cells))
            .filter(|(_, (only, named))| *only && *named)
            .map(|(cell, _)| cell)
            .collect();
        match narrowed.is_empty() {
            true => Err(vec![problem(
                "no cell matches both --only and --cell".to_owned(),
                None,
            )]),
            false => Ok(narrowed),
        }
    }
}

fn problem(message: String, help: Option<String>) -> Diagnostic {
    Diagnostic {
        span: None,
        help,
        ..Diagnostic::error(Span::default(), message)
    }
}

/// Returns for each cell whether it meets the conditions. Reports conditions that no cell meets.
fn only(entries: &[String], cells: &[PlannedCell], problems: &mut Vec<Diagnostic>) -> Vec<bool> {
    let mut by_axis: IndexMap<&str, Vec<bool>> = IndexMap::new();
    for entry in entries {
        let found = conditions(entry).and_then(|conditions| {
            let hold = |(axis, pattern)| Ok((axis, holding(entry, axis, pattern, cells)?));
            conditions
                .into_iter()
                .map(hold)
                .collect::<Result<Vec<_>, _>>()
        });
        match found {
            Err(problem) => problems.push(problem),
            Ok(conditions) => {
                for (axis, holding) in conditions {
                    let alternatives = by_axis
                        .entry(axis)
                        .or_insert_with(|| vec![false; cells.len()]);
                    alternatives
                        .iter_mut()
                        .zip(holding)
                        .for_each(|(any, holds)| *any |= holds);
                }
            }
        }
    }
    let all = |at: usize| {
        by_axis
            .values()
            .all(|holding| holding.get(at).copied().unwrap_or(false))
    };
    let wanted: Vec<bool> = (0..cells.len()).map(all).collect();
    if problems.is_empty() && !wanted.contains(&true) {
        let help = "each condition alone is fulfilled by some cell";
        let message = format!("--only '{}': no cell fulfils all of it", entries.join(","));
        problems.push(problem(message, Some(help.to_owned())));
    }
    wanted
}

/// Returns for each cell whether it meets one condition.
fn holding(
    entry: &str,
    axis: &str,
    pattern: &str,
    cells: &[PlannedCell],
) -> Result<Vec<bool>, Diagnostic> {
    let glob = glob(pattern)?;
    let value = |cell| value_of(cell, axis);
    let values = || cells.iter().map(value);
    if values().all(|value| value.is_none()) {
        let axes = cells
            .iter()
            .flat_map(|cell| cell.matrix.keys().map(String::as_str));
        return Err(problem(
            format!("--only '{entry}': the matrix has no `{axis}`"),
            suggestion(axis, axes, "it has"),
        ));
    }
    let holding: Vec<bool> = values()
        .map(|value| value.is_some_and(|value| glob.is_match(to_text(value))))
        .collect();
    match holding.contains(&true) {
        true => Ok(holding),
        false => Err(problem(
            format!("--only '{entry}': no cell has {axis} = {pattern}"),
            values_of(axis, pattern, cells),
        )),
    }
}

/// Returns a cell's value for an axis; the axis's case doesn't matter.
fn value_of<'c>(cell: &'c PlannedCell, axis: &str) -> Option<&'c Value> {
    cell.matrix.get(axis).or_else(|| {
        let mut alike = cell.matrix.iter();
        alike
            .find(|(key, _)| key.eq_ignore_ascii_case(axis))
            .map(|(_, value)| value)
    })
}

/// Splits `a=x,b=y`. A comma belongs to a value if no `axis=` follows it.
fn conditions(entry: &str) -> Result<Vec<(&str, &str)>, Diagnostic> {
    let mut starts = vec![0];
    for (at, _) in entry.match_indices(',') {
        let next = entry.get(at + 1..).unwrap_or_default();
        let name = next.split('=').next().unwrap_or_default();
        let is_condition = next.contains('=')
            && name
                .trim()
                .chars()
                .all(|c| c.is_alphanumeric() || "_-".contains(c));
        if is_condition {
            starts.push(at + 1);
        }
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|start| start - 1)
        .chain([entry.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let condition = entry.get(*start..end).unwrap_or_default();
            let (axis, pattern) = condition.split_once('=').ok_or_else(|| {
                let help = "write axis=value, with * for any text; several are joined by commas";
                problem(
                    format!("--only '{entry}': `{condition}` has no `=`"),
                    Some(help.to_owned()),
                )
            })?;
            Ok((axis.trim(), pattern.trim()))
        })
        .collect()
}

fn glob(pattern: &str) -> Result<GlobMatcher, Diagnostic> {
    GlobBuilder::new(pattern)
        .literal_separator(false)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|e| {
            problem(
                format!("--only: `{pattern}` is not a pattern: {}", e.kind()),
                None,
            )
        })
}

/// Returns "its values: …", or the value that was probably meant.
fn values_of(axis: &str, pattern: &str, cells: &[PlannedCell]) -> Option<String> {
    let mut values: Vec<String> = cells
        .iter()
        .filter_map(|cell| value_of(cell, axis))
        .map(to_text)
        .collect();
    values.sort();
    values.dedup();
    suggestion(
        pattern,
        values.iter().map(String::as_str),
        &format!("the values of `{axis}`"),
    )
}

/// Returns the position of the cell that a `--cell` entry names.
fn named(entry: &str, cells: &[PlannedCell]) -> Result<usize, Diagnostic> {
    let by = |test: &dyn Fn(&PlannedCell) -> bool| -> Vec<usize> {
        cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| test(cell))
            .map(|(at, _)| at)
            .collect()
    };
    let by_id = by(&|cell| cell.id.as_str() == entry);
    let by_name = by(&|cell| cell.name == entry);
    let found = match (by_id.is_empty(), by_name.is_empty()) {
        (false, _) => by_id,
        (true, false) => by_name,
        (true, true) if entry.is_empty() => Vec::new(),
        (true, true) => by(&|cell| cell.id.as_str().starts_with(&entry.to_ascii_lowercase())),
    };
    match found.as_slice() {
        [at] => Ok(*at),
        [] => Err(problem(
            format!("no cell has the id or the name `{entry}`"),
            nearest(entry, cells),
        )),
        several => {
            let ids = several.iter().take(5).filter_map(|at| cells.get(*at));
            let ids = ids
                .map(|cell| format!("{} ({})", cell.id, cell.name))
                .collect::<Vec<_>>()
                .join(", ");
            Err(problem(
                format!(
                    "`{entry}` is the beginning or the name of {} cells",
                    several.len()
                ),
                Some(ids),
            ))
        }
    }
}

fn nearest(entry: &str, cells: &[PlannedCell]) -> Option<String> {
    // Comparing with more names would take longer than reading the output of `phalanx plan`.
    const COMPARED: usize = 5_000;
    let names = || cells.iter().take(COMPARED).map(|cell| cell.name.as_str());
    match closest(entry, names()) {
        Some(close) => Some(format!("did you mean `{close}`?")),
        None => Some("`phalanx plan` lists the cells".to_owned()),
    }
}
