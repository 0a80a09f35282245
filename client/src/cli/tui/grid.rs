//! The grid of cells: one axis gives the columns, the other axes give the rows.

use phalanx_shared::id::CellId;
use phalanx_shared::run_state::RunState;
use serde_json::Value;
use std::collections::HashMap;

/// Cells by row and column, in plan order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grid {
    /// Name of the column axis; `None` if the run has no axes.
    pub axis: Option<String>,
    /// Values of the column axis.
    pub columns: Vec<String>,
    /// Each row: its label, and the cells by column.
    pub rows: Vec<Row>,
}

/// One row of the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Values of the other axes.
    pub label: String,
    /// The cell in each column; `None` where the matrix has none.
    pub cells: Vec<Option<CellId>>,
}

impl Grid {
    /// Lays the run's cells out with the axis at this position as columns; counts on from the first after the last.
    pub(super) fn of(state: &RunState, axis: usize) -> Grid {
        let Some(plan) = &state.plan else {
            return Grid::default();
        };
        let axis = match plan.axes.len() {
            0 => None,
            axes => plan.axes.get(axis % axes),
        };
        let mut grid = Grid {
            axis: axis.cloned(),
            ..Grid::default()
        };
        let mut columns: HashMap<String, usize> = HashMap::new();
        let mut rows: HashMap<String, usize> = HashMap::new();
        for cell in &plan.cells {
            let column = axis.map_or_else(String::new, |axis| {
                cell.matrix.get(axis).map(text).unwrap_or_default()
            });
            let others = cell.matrix.iter().filter(|(name, _)| Some(*name) != axis);
            let others: Vec<String> = others.map(|(_, value)| text(value)).collect();
            let label = match (axis, others.is_empty()) {
                (None, _) => cell.name.clone(),
                (Some(_), true) => String::new(),
                (Some(_), false) => others.join(" / "),
            };
            let column = *columns.entry(column).or_insert_with_key(|name| {
                grid.columns.push(name.clone());
                grid.columns.len() - 1
            });
            let row = *rows.entry(label).or_insert_with_key(|label| {
                grid.rows.push(Row {
                    label: label.clone(),
                    cells: Vec::new(),
                });
                grid.rows.len() - 1
            });
            if let Some(row) = grid.rows.get_mut(row) {
                if row.cells.len() <= column {
                    row.cells.resize(column + 1, None);
                }
                if let Some(place) = row.cells.get_mut(column) {
                    *place = Some(cell.id.clone());
                }
            }
        }
        grid
    }

    /// Returns row and column of a cell.
    pub(super) fn place(&self, cell: &CellId) -> Option<(usize, usize)> {
        self.rows.iter().enumerate().find_map(|(row, cells)| {
            let column = cells.cells.iter().position(|at| at.as_ref() == Some(cell));
            Some((row, column?))
        })
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
