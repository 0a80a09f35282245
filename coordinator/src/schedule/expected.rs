//! Predicts how long a cell will take, from earlier runs of the same cell or of similar cells.
//!
//! Similar cells are cells of the same spec (by name). The closest ones share all axis values but one. Without any of
//! these, the prediction is the overall average, plus the deviation from it for each of the cell's axis values. Pure;
//! the journal keeps the history.

use crate::journal::Past;
use phalanx_shared::id::CellId;
use phalanx_shared::plan::PlannedCell;
use serde_json::Value;
use std::collections::HashMap;

#[derive(Clone, Copy, Default)]
struct Mean {
    sum: u64,
    n: u64,
}

impl Mean {
    fn add(&mut self, value: u64) {
        self.sum = self.sum.saturating_add(value);
        self.n += 1;
    }
    fn get(self) -> Option<u64> {
        self.sum.checked_div(self.n)
    }
}

/// Known durations of the cells of one spec.
#[derive(Default)]
pub struct History {
    same: HashMap<CellId, u64>,
    /// Mean by the axis left out and the values of all others.
    siblings: HashMap<(String, String), Mean>,
    /// Mean by one axis and its value.
    values: HashMap<(String, String), Mean>,
    all: Mean,
}

impl History {
    /// Builds the history from earlier executions, newest last.
    pub fn learn(past: impl IntoIterator<Item = Past>) -> Self {
        let mut history = History::default();
        for past in past {
            let elapsed = past.elapsed_ms;
            history.all.add(elapsed);
            let axes: Vec<(&str, &Value)> =
                past.matrix.iter().map(|(k, v)| (k.as_str(), v)).collect();
            for (axis, value) in &axes {
                let one = ((*axis).to_owned(), value.to_string());
                history.values.entry(one).or_default().add(elapsed);
                let others = all_but(&axes, axis);
                history.siblings.entry(others).or_default().add(elapsed);
            }
            history.same.insert(past.cell, elapsed);
        }
        history
    }

    /// Returns the expected duration in milliseconds; 0 if no similar cell ever ran.
    pub fn expected_ms(&self, cell: &PlannedCell) -> u64 {
        if let Some(same) = self.same.get(&cell.id) {
            return *same;
        }
        let Some(all) = self.all.get() else { return 0 };
        let axes: Vec<(&str, &Value)> = cell.matrix.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let mut nearest = Mean::default();
        for (axis, _) in &axes {
            if let Some(mean) = self.siblings.get(&all_but(&axes, axis)) {
                nearest.sum = nearest.sum.saturating_add(mean.sum);
                nearest.n += mean.n;
            }
        }
        nearest
            .get()
            .unwrap_or_else(|| self.by_single_values(&axes, all))
    }

    fn by_single_values(&self, axes: &[(&str, &Value)], all: u64) -> u64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let mut expected = signed(all);
        for (axis, value) in axes {
            let key = ((*axis).to_owned(), value.to_string());
            if let Some(mean) = self.values.get(&key).and_then(|mean| mean.get()) {
                expected = expected.saturating_add(signed(mean).saturating_sub(signed(all)));
            }
        }
        u64::try_from(expected.max(1)).unwrap_or(1)
    }
}

/// Returns a key of all axis values but one.
fn all_but(axes: &[(&str, &Value)], left_out: &str) -> (String, String) {
    let mut rest: Vec<String> = axes
        .iter()
        .filter(|(axis, _)| *axis != left_out)
        .map(|(axis, value)| format!("{axis}={value}"))
        .collect();
    rest.sort_unstable();
    (left_out.to_owned(), rest.join("\u{1}"))
}
