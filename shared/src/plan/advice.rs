//! Finds parts of a spec that no cell reaches, which only a plan shows. `validate` uses it, with the plan made from the
//! default inputs.

use super::context::Planner;
use super::expand::{MAX_STEPS, matrix_context, prepared};
use super::{Plan, cells};
use crate::diagnostic::Diagnostic;
use crate::expr::{Allowance, Program, abbreviate};
use crate::language::model::{Action, DefineBody, Spec, Step};
use crate::matrix::{self, Matrix};
use crate::node::{Expr, Node};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Maximum number of cells; larger plans are not checked.
const MAX_CELLS: usize = 2_000;

/// Returns warnings about a plan of this spec.
pub fn advice(spec: &Spec, plan: &Plan) -> Vec<Diagnostic> {
    let _bounded = Allowance::of(MAX_STEPS);
    if plan.cells.len() > MAX_CELLS {
        return Vec::new();
    }
    let spec = Arc::new(spec.clone());
    let made = prepared(&spec, |keys| {
        let files = super::job::files_of(plan);
        let (spec, inputs) = (spec.clone(), plan.inputs.clone());
        Planner::new(spec, inputs, Map::new(), files, keys)
    });
    let Ok((planner, matrix)) = made else {
        return Vec::new();
    };
    let mut found = unmatched(&spec, &matrix);
    let advisor = Advisor {
        planner: &planner,
        keys: cells::keys(&matrix),
        plan,
    };
    for phase in &spec.phases {
        advisor.condition(phase.when.as_ref(), &mut found);
        advisor.steps(&phase.steps, &mut found);
    }
    for define in &spec.define {
        if let DefineBody::Steps { steps, .. } = &define.body {
            advisor.steps(steps, &mut found);
        }
    }
    found
}

/// Warns about entries of `exclude` that no combination matches. Entries that come from expressions depend on inputs
/// and are not checked.
fn unmatched(spec: &Spec, matrix: &Matrix) -> Vec<Diagnostic> {
    let entries = spec.strategy.exclude.iter().flat_map(Node::items);
    let written: Vec<&Node> = entries.collect();
    let missed = matrix::unmatched_excludes(matrix);
    let missed = missed.into_iter().filter_map(|(entry, key)| {
        let node = written.get(entry)?;
        let place = node
            .entries()
            .iter()
            .find(|entry| entry.key.text.eq_ignore_ascii_case(&key));
        let span = place.map_or(node.span, |entry| entry.value.span);
        let written_out = !place.is_some_and(|entry| entry.value.is_template());
        let axis_given = spec
            .strategy
            .axes
            .iter()
            .any(|(axis, values)| axis.text == key && values.is_template());
        if !written_out || axis_given {
            return None;
        }
        let problem = Diagnostic::warning(span, "this entry of `exclude` matches no cell");
        Some(problem.with_help(values_of(&key, matrix)))
    });
    missed.collect()
}

/// Lists an axis's values: "the values of `ver` are "v1", "v2"".
fn values_of(axis: &str, matrix: &Matrix) -> String {
    const SHOWN: usize = 12;
    let values = matrix.axes.get(axis).map_or(&[][..], Vec::as_slice);
    let shown: Vec<String> = values
        .iter()
        .take(SHOWN)
        .map(|value| abbreviate(value, 40))
        .collect();
    let more = if values.len() > SHOWN { ", …" } else { "" };
    format!("the values of `{axis}` are {}{more}", shown.join(", "))
}

struct Advisor<'a> {
    planner: &'a Planner,
    keys: Vec<String>,
    plan: &'a Plan,
}

impl Advisor<'_> {
    fn steps(&self, steps: &[Step], found: &mut Vec<Diagnostic>) {
        for step in steps {
            self.condition(step.when.as_ref(), found);
            if let Action::Steps(inner) | Action::Parallel(inner) = &step.action {
                self.steps(inner, found);
            }
            self.steps(&step.otherwise, found);
        }
    }

    /// Warns about a condition that uses only the matrix and holds in no cell: it usually contains a misspelt value.
    fn condition(&self, when: Option<&Expr>, found: &mut Vec<Diagnostic>) {
        let Some((when, program)) = when.and_then(|when| Some((when, self.over_matrix(when)?)))
        else {
            return;
        };
        let holds = |cell: &super::PlannedCell| {
            let matrix = Value::Object(matrix_context(&self.keys, &cell.matrix));
            let scope = self.planner.base().with_value("matrix", matrix);
            // A condition that can't be evaluated is reported as an error when the cell runs.
            program.eval_bool(&scope).unwrap_or(true)
        };
        if self.plan.cells.iter().any(holds) {
            return;
        }
        let axes = program
            .references()
            .iter()
            .filter_map(|reference| reference.path.first()?.key.name());
        let values = axes.map(|axis| {
            let mut values: Vec<String> = Vec::new();
            for value in self
                .plan
                .cells
                .iter()
                .filter_map(|cell| cell.matrix.get(axis))
            {
                let shown = abbreviate(value, 40);
                if !values.contains(&shown) && values.len() < 12 {
                    values.push(shown);
                }
            }
            format!("`matrix.{axis}` is {}", values.join(", "))
        });
        let values: Vec<String> = values.collect();
        found.push(
            Diagnostic::warning(when.span, "`when` holds in no cell, so this never runs")
                .with_help(values.join("; ")),
        );
    }

    fn over_matrix(&self, when: &Expr) -> Option<Arc<Program>> {
        let program = self.planner.cache.program(when).ok()?;
        let mut references = program.references().iter();
        let alone = !program.references().is_empty()
            && references.all(|reference| reference.root == "matrix");
        (alone && program.calls().is_empty()).then_some(program)
    }
}
