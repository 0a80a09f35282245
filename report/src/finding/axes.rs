//! The axes of a run as columns: each value once, in order where values have one, and each cell's value as a number.

use super::order;
use crate::odds::Odds;
use crate::view::{CellView, RunView};
use indexmap::IndexMap;
use serde_json::Value;

/// Axes beyond this number are left out: a rule with so many to choose from says nothing.
const MOST_AXES: usize = 32;

/// Name of the axis that agents are, where the axes of the matrix explain nothing.
pub(super) const AGENT: &str = "agent";

/// The axes of a run, also those that only some cells have.
pub(super) struct Axes {
    pub(super) columns: Vec<Column>,
    odds: Odds,
}

/// One axis, or another property of cells that may explain something.
pub(super) struct Column {
    /// Name of the axis.
    pub(super) name: String,
    /// Distinct values; `None` stands for cells without a value, and comes last.
    pub(super) values: Vec<Option<Value>>,
    /// Whether the values but `None` are ascending numbers or versions.
    pub(super) ordered: bool,
    /// Position in `values` for each cell.
    pub(super) of_cell: Vec<usize>,
}

impl Axes {
    /// Returns the axes of a view.
    pub(super) fn of(view: &RunView) -> Axes {
        let mut names: IndexMap<&str, ()> = IndexMap::new();
        for cell in &view.cells {
            for name in cell.matrix.keys() {
                if names.len() < MOST_AXES || names.contains_key(name.as_str()) {
                    names.insert(name, ());
                }
            }
        }
        let columns = names
            .keys()
            .map(|name| Column::new(name, view.cells.iter().map(|cell| cell.matrix.get(*name))));
        Axes::new(columns.collect(), view.cells.len())
    }

    /// Returns the agents of the cells as their only axis, named [`AGENT`].
    pub(super) fn of_agents(view: &RunView, agent: fn(&CellView) -> Option<&str>) -> Axes {
        let agents = view.cells.iter().map(|cell| agent(cell).map(Value::from));
        let agents: Vec<Option<Value>> = agents.collect();
        let column = Column::new(AGENT, agents.iter().map(Option::as_ref));
        Axes::new(vec![column], view.cells.len())
    }

    /// Returns axes of these columns, for a number of cells.
    pub(super) fn new(columns: Vec<Column>, cells: usize) -> Axes {
        Axes {
            columns,
            odds: Odds::up_to(cells + 1),
        }
    }

    /// Returns the natural logarithm of the binomial coefficient "`n` choose `k`".
    pub(super) fn ln_choose(&self, n: usize, k: usize) -> f64 {
        self.odds.ln_choose(n, k)
    }

    /// Returns the p value of Fisher's exact test ([`Odds::fisher`]) for cells of which `bad` have a finding.
    pub(super) fn fisher(&self, all: usize, bad: usize, matching: usize, hits: usize) -> f64 {
        self.odds.fisher(all, bad, matching, hits)
    }
}

impl Column {
    /// Makes a column of the cells' values.
    pub(super) fn new<'a>(name: &str, of_cells: impl Iterator<Item = Option<&'a Value>>) -> Column {
        let mut distinct: IndexMap<Option<String>, Option<&Value>> = IndexMap::new();
        let first: Vec<usize> = of_cells
            .map(|value| {
                let entry = distinct.entry(value.map(Value::to_string));
                let index = entry.index();
                entry.or_insert(value);
                index
            })
            .collect();
        let values: Vec<Option<&Value>> = distinct.into_values().collect();
        let (order, ordered) = order::sorted(&values);
        let mut place = vec![0; values.len()];
        for (new, old) in order.iter().enumerate() {
            if let Some(place) = place.get_mut(*old) {
                *place = new;
            }
        }
        Column {
            name: name.to_owned(),
            values: order
                .iter()
                .filter_map(|old| values.get(*old).copied())
                .map(Option::<&Value>::cloned)
                .collect(),
            ordered,
            of_cell: first
                .iter()
                .map(|old| place.get(*old).copied().unwrap_or_default())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_sorted_and_a_missing_value_comes_last() {
        let values = ["v4.10", "v4.9", "v4.10"].map(Value::from);
        let cells = [Some(&values[0]), None, Some(&values[1]), Some(&values[2])];
        let column = Column::new("image", cells.into_iter());
        let shown: Vec<_> = column
            .values
            .iter()
            .map(|value| value.as_ref().and_then(Value::as_str))
            .collect();
        assert_eq!(shown, [Some("v4.9"), Some("v4.10"), None]);
        assert_eq!(column.of_cell, [1, 2, 0, 1]);
        assert!(column.ordered);
    }
}
