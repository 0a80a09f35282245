//! The pivot grid: one mark per cell, by two axes of the matrix.
//!
//! The first table is made here, along axes that explain the failures; the page's script arranges the same
//! marks along other axes. `data-v` of a mark holds the positions of its values in `data-axes` of the table, `-1` for a
//! cell without that axis.

use super::mark::{Links, Mark, icon};
use crate::text::{clean, duration, plural};
use crate::view::CellView;
use crate::view::coverage::axis_text;
use indexmap::IndexSet;
use maud::{Markup, html};
use phalanx_shared::id::CellId;
use serde_json::json;
use std::collections::HashMap;

/// Text of a cell without a value on an axis.
const NO_VALUE: &str = "–";
/// An axis with more values isn't chosen for the columns of the first table.
const WIDE: usize = 16;

/// Maximum number of marks. Cells that failed come first, then those in plan order.
const MARKS: usize = 20_000;
/// An axis with more values can't be chosen: a browser takes minutes for a table of twenty thousand rows.
const VALUES: usize = 1_000;
/// Maximum number of fields of the table. Two axes that would give more are not crossed.
const FIELDS: usize = 100_000;

/// One axis with its values as text, in the order in which cells use them first.
struct Axis<'a> {
    name: &'a str,
    values: IndexSet<String>,
}

impl Axis<'_> {
    /// Returns whether rows or columns can be made of its values.
    fn is_small(&self) -> bool {
        self.values.len() <= VALUES
    }
}

/// The cells' values as positions: `of_cell[cell][axis]`.
struct Pivot<'a> {
    axes: Vec<Axis<'a>>,
    of_cell: Vec<Vec<Option<usize>>>,
}

/// Returns the section with the grid and the choice of its axes. The first table has the first two of the `preferred`
/// axes; if there are fewer, those that explain the failures best.
pub fn section(cells: &[CellView], preferred: &[&str], links: &Links) -> Markup {
    let pivot = Pivot::of(cells);
    let (rows, columns) = pivot.telling(cells, preferred);
    let shown = shown(cells);
    let more = cells.len() - shown.len();
    html! {
        section id="grid" aria-labelledby="grid-title" {
            div class="head" {
                h2 id="grid-title" { "Cells" }
                @if pivot.axes.len() > 1 { (choice(&pivot, rows, columns)) }
            }
            div class="scroll" { (pivot.table(cells, &shown, links, rows, columns)) }
            @if more > 0 { p class="quiet" { (plural(more, "more cell")) " not shown here: " code { "phalanx show" } " counts all of them." } }
            p class="hint js" hidden {
                kbd { "←↑↓→" } " move  " kbd { "Enter" } " opens  " kbd { "n" } " next failing  " kbd { "?" } " keys"
            }
        }
    }
}

/// Returns the positions of the cells that get a mark, in plan order.
fn shown(cells: &[CellView]) -> Vec<usize> {
    let bad = |index: &usize| {
        cells
            .get(*index)
            .is_some_and(|cell| Mark::of_cell(cell).is_bad())
    };
    let (first, then): (Vec<usize>, Vec<usize>) = (0..cells.len()).partition(bad);
    let mut shown: Vec<usize> = first.into_iter().chain(then).take(MARKS).collect();
    shown.sort_unstable();
    shown
}

/// The two selects; the script shows them.
fn choice(pivot: &Pivot<'_>, rows: Option<usize>, columns: Option<usize>) -> Markup {
    let select = |id: &str, title: &str, chosen: Option<usize>| {
        html! {
            label { (title) " "
                select id=(id) {
                    @for (index, axis) in pivot.axes.iter().enumerate().filter(|(_, axis)| axis.is_small()) {
                        option value=(index) selected[chosen == Some(index)] { (clean(axis.name)) }
                    }
                    option value="" selected[chosen.is_none()] { "(none)" }
                }
            }
        }
    };
    html! {
        div class="axes js" hidden {
            (select("rows", "rows", rows))
            (select("columns", "columns", columns))
            button type="button" id="swap" title="Swap rows and columns" aria-label="Swap rows and columns" { "⇄" }
        }
    }
}

impl<'a> Pivot<'a> {
    fn of(cells: &'a [CellView]) -> Pivot<'a> {
        let mut positions: HashMap<&str, usize> = HashMap::new();
        let mut axes: Vec<Axis<'a>> = Vec::new();
        for name in cells.iter().flat_map(|cell| cell.matrix.keys()) {
            positions.entry(name).or_insert_with(|| {
                let values = IndexSet::new();
                axes.push(Axis { name, values });
                axes.len() - 1
            });
        }
        let of_cell = cells
            .iter()
            .map(|cell| {
                let place = |axis: &mut Axis<'_>| {
                    let value = cell.matrix.get(axis.name)?;
                    Some(axis.values.insert_full(axis_text(value)).0)
                };
                axes.iter_mut().map(place).collect()
            })
            .collect();
        Pivot { axes, of_cell }
    }

    /// Returns the axes for rows and columns: the preferred ones, then those that leave the least uncertainty about which cells fail, relative
    /// to the uncertainty of the axis itself. Axes with one value are no choice.
    fn telling(&self, cells: &[CellView], preferred: &[&str]) -> (Option<usize>, Option<usize>) {
        let varying = |index: &usize| {
            let axis = self.axes.get(*index);
            axis.is_some_and(|axis| axis.values.len() > 1 && axis.is_small())
        };
        let mut ranked: Vec<(usize, f64)> = (0..self.axes.len())
            .filter(varying)
            .map(|index| (index, self.gain_ratio(cells, index)))
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let preference = |index: usize| {
            let name = self.axes.get(index).map_or("", |axis| axis.name);
            let place = preferred.iter().position(|axis| *axis == name);
            place.unwrap_or(usize::MAX)
        };
        ranked.sort_by_key(|(index, _)| preference(*index));
        let values = |index: usize| self.axes.get(index).map_or(0, |axis| axis.values.len());
        let crosses = |one: usize, two: usize| values(one).saturating_mul(values(two)) <= FIELDS;
        match ranked.as_slice() {
            [(one, _), (two, _), ..] if !crosses(*one, *two) => (Some(*one), None),
            [] => (None, self.axes.iter().position(Axis::is_small)),
            [(one, _)] if values(*one) > WIDE => (Some(*one), None),
            [(one, _)] => (None, Some(*one)),
            [(one, _), (two, _), ..] if values(*one) > values(*two) => (Some(*one), Some(*two)),
            [(one, _), (two, _), ..] => (Some(*two), Some(*one)),
        }
    }

    fn gain_ratio(&self, cells: &[CellView], axis: usize) -> f64 {
        let mut by_value: HashMap<Option<usize>, (f64, f64)> = HashMap::new();
        let mut all = (0.0_f64, 0.0_f64);
        for (cell, values) in cells.iter().zip(&self.of_cell) {
            let of_value = by_value
                .entry(values.get(axis).copied().flatten())
                .or_default();
            if Mark::of_cell(cell).is_bad() {
                (of_value.0, all.0) = (of_value.0 + 1.0, all.0 + 1.0);
            } else {
                (of_value.1, all.1) = (of_value.1 + 1.0, all.1 + 1.0);
            }
        }
        let total = (all.0 + all.1).max(1.0);
        let mut gain = entropy(&[all.0, all.1]);
        let mut sizes = Vec::with_capacity(by_value.len());
        for (bad, good) in by_value.into_values() {
            gain -= (bad + good) / total * entropy(&[bad, good]);
            sizes.push(bad + good);
        }
        // Summed in an order of its own, so that equal runs give equal pages.
        sizes.sort_by(f64::total_cmp);
        (gain / entropy(&sizes).max(f64::EPSILON) * 1e6).round()
    }

    fn table(
        &self,
        cells: &[CellView],
        shown: &[usize],
        links: &Links,
        rows: Option<usize>,
        columns: Option<usize>,
    ) -> Markup {
        let labels = self.labels();
        let row_labels = self.values_of(rows);
        let column_labels = self.values_of(columns);
        let mut entries = vec![vec![Vec::new(); column_labels.len()]; row_labels.len()];
        for index in shown.iter().copied() {
            let Some(values) = self.of_cell.get(index) else {
                continue;
            };
            let place = |axis: Option<usize>, labels: &[&str]| match axis {
                None => 0,
                Some(axis) => values
                    .get(axis)
                    .copied()
                    .flatten()
                    .unwrap_or(labels.len().saturating_sub(1)),
            };
            let entry = entries
                .get_mut(place(rows, &row_labels))
                .and_then(|row| row.get_mut(place(columns, &column_labels)));
            if let Some(entry) = entry {
                entry.push(index);
            }
        }
        // A row of cells that aren't shown is left out.
        let all = shown.len() == cells.len();
        let name = |axis: Option<usize>| axis.and_then(|axis| self.axes.get(axis)).map(|a| a.name);
        html! {
            table class="pivot" data-axes=(labels) {
                caption class="sr" { "Cells by " (corner(name(rows), name(columns))) }
                thead { tr {
                    th scope="col" class="corner" { (corner(name(rows), name(columns))) }
                    @for label in &column_labels { th scope="col" { (clean(label)) } }
                } }
                tbody {
                    @for (label, row) in row_labels.iter().zip(&entries).filter(|(_, row)| all || row.iter().any(|entry| !entry.is_empty())) {
                        tr {
                            th scope="row" { (clean(label)) }
                            @for entry in row { td { @for index in entry { (self.mark(cells, links, *index)) } } }
                        }
                    }
                }
            }
        }
    }

    /// Returns the labels along an axis, with one for cells without a value if there are any; one empty label if there
    /// is no axis.
    fn values_of(&self, axis: Option<usize>) -> Vec<&str> {
        let Some((index, axis)) = axis.and_then(|index| Some((index, self.axes.get(index)?)))
        else {
            return vec![""];
        };
        let mut labels: Vec<&str> = axis.values.iter().map(String::as_str).collect();
        let lacks = |values: &Vec<Option<usize>>| values.get(index).copied().flatten().is_none();
        if self.of_cell.iter().any(lacks) {
            labels.push(NO_VALUE);
        }
        labels
    }

    fn labels(&self) -> String {
        let axes: Vec<_> = self
            .axes
            .iter()
            .map(|axis| {
                let values: Vec<_> = axis.values.iter().map(|value| clean(value)).collect();
                json!({ "name": clean(axis.name), "values": values })
            })
            .collect();
        json!(axes).to_string()
    }

    fn mark(&self, cells: &[CellView], links: &Links, index: usize) -> Markup {
        let Some((cell, values)) = cells.get(index).zip(self.of_cell.get(index)) else {
            return html! {};
        };
        let values: Vec<String> = values
            .iter()
            .map(|value| value.map_or_else(|| "-1".to_owned(), |value| value.to_string()))
            .collect();
        cell_mark(cell, links, index, &values.join(" "))
    }
}

/// Returns the mark of a cell: a link with the cell's name, outcome and time as its title.
///
/// `number` is the cell's place in the plan, `values` are the positions of its values (see above).
pub fn cell_mark(cell: &CellView, links: &Links, number: usize, values: &str) -> Markup {
    let mark = Mark::of_cell(cell);
    // The time of a cell that runs changes with each of its events, and a live page would replace the mark each time.
    let time = cell
        .elapsed_us
        .filter(|_| cell.outcome.is_some())
        .map_or_else(String::new, |elapsed| format!(", {}", duration(elapsed)));
    let title = format!("{}: {}{time}", clean(&cell.name), mark.word());
    html! {
        a class="c" id=(mark_id(&cell.id)) href=(links.cell(&cell.id)) data-n=(number) data-v=(values) data-o=(mark.class()) title=(title) { (icon(mark)) }
    }
}

/// Returns the id of a cell's mark.
pub fn mark_id(cell: &CellId) -> String {
    format!("c-{cell}")
}

fn corner(rows: Option<&str>, columns: Option<&str>) -> String {
    match (rows, columns) {
        (Some(rows), Some(columns)) => format!("{} × {}", clean(rows), clean(columns)),
        (Some(axis), None) | (None, Some(axis)) => clean(axis).into_owned(),
        (None, None) => "cell".to_owned(),
    }
}

fn entropy(counts: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    let share = |count: &&f64| **count > 0.0;
    counts
        .iter()
        .filter(share)
        .map(|count| -(count / total) * (count / total).log2())
        .sum()
}
