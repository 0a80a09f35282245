//! The distinct failures of a run: the same failure in many cells is one finding with many cells.

use super::view::{CellView, RunView, StepView};
use indexmap::IndexMap;
use phalanx_shared::outcome::Outcome;

/// A failed step, or a cell that failed without one, with the cells in which it ended the same way.
pub struct Finding<'a> {
    /// The step in the first of the cells; `None` if the cell failed outside its steps.
    pub step: Option<&'a StepView>,
    /// Cells in plan order, at least one.
    pub cells: Vec<&'a CellView>,
}

/// Returns the findings in the order of their first cells.
pub fn findings(view: &RunView) -> Vec<Finding<'_>> {
    let mut findings: IndexMap<String, Finding<'_>> = IndexMap::new();
    let mut add = |key: String, step, cell| {
        let finding = findings.entry(key).or_insert(Finding {
            step,
            cells: Vec::new(),
        });
        finding.cells.push(cell);
    };
    for cell in &view.cells {
        let mut named = false;
        for step in cell.steps().filter(|step| is_bad(step.outcome)) {
            named = true;
            add(sameness(step), Some(step), cell);
        }
        if !named && is_bad(cell.outcome) {
            add(
                format!("cell {:?} {:?}", cell.outcome, cell.reason),
                None,
                cell,
            );
        }
    }
    findings.into_values().collect()
}

fn is_bad(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Failed | Outcome::Errored))
}

/// Returns a key that is equal for failures that look alike to a reader: step, reason, and the failed checks with their
/// parts.
fn sameness(step: &StepView) -> String {
    let failed: Vec<_> = step.checks.iter().filter(|check| !check.passed).collect();
    format!(
        "{} {} {:?} {:?} {failed:?}",
        step.path, step.name, step.outcome, step.reason
    )
}
