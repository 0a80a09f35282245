//! Makes the job that an agent gets for one cell. It depends only on the spec and the plan, so it can be made again
//! after a restart.

use super::cells::keys;
use super::context::{Cell, Planner};
use super::expand::{MAX_STEPS, matrix_context, prepared, workspace_context};
use super::{CellJob, Keep, Plan, PlannedCell, SpecSource};
use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::expr::{Allowance, ReadFile, eval_node};
use crate::id::CellId;
use crate::language::model::Spec;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Makes the jobs of one plan; expressions are compiled once.
pub struct Jobs {
    planner: Planner,
    source: Arc<SpecSource>,
    plan: Plan,
    cells: HashMap<CellId, usize>,
    keys: Vec<String>,
}

impl Jobs {
    /// Prepares to make the jobs of a plan of this spec.
    pub fn new(spec: Arc<Spec>, sources: Sources, plan: Plan) -> Result<Self, Vec<Diagnostic>> {
        let _bounded = Allowance::of(MAX_STEPS);
        let workspace = workspace_context(plan.workspace.as_deref());
        let (planner, matrix) = prepared(&spec, |keys| {
            let (spec, inputs) = (spec.clone(), plan.inputs.clone());
            Planner::new(spec, inputs, workspace.clone(), files_of(&plan), keys)
        })?;
        let keys = keys(&matrix);
        let cells = plan
            .cells
            .iter()
            .enumerate()
            .map(|(at, cell)| (cell.id.clone(), at))
            .collect();
        Ok(Jobs {
            source: Arc::new(SpecSource::new(Arc::clone(&planner.spec), sources)),
            planner,
            plan,
            cells,
            keys,
        })
    }

    /// Returns the job of a cell.
    pub fn job(&self, cell: &CellId, keep: Keep) -> Result<CellJob, Vec<Diagnostic>> {
        let _bounded = Allowance::of(MAX_STEPS);
        let planned = self.planned(cell)?;
        let context = self.context(planned)?;
        Ok(CellJob {
            source: Arc::clone(&self.source),
            cell: planned.clone(),
            inputs: self.plan.inputs.clone(),
            matrix: matrix_context(&self.keys, &planned.matrix),
            vars: self.planner.vars(context),
            workspace: workspace_context(self.plan.workspace.as_deref()),
            keep,
        })
    }

    /// Returns whether making a job evaluates expressions of the spec.
    pub fn evaluates(&self) -> bool {
        let spec = &self.planner.spec;
        !spec.vars.is_empty() || spec.cell.name.is_some()
    }

    /// Returns the images that a cell's services name, as far as they are known before it runs. They can be pulled
    /// while the cell waits. Services that are built from source need no pull and are left out.
    pub fn images(&self, cell: &CellId) -> Vec<String> {
        let _bounded = Allowance::of(MAX_STEPS);
        let Ok(context) = self.planned(cell).and_then(|planned| self.context(planned)) else {
            return Vec::new();
        };
        let cache = &self.planner.cache;
        let value = |service: &crate::language::model::Service, key: &str| {
            let node = service.definition.get(key)?;
            eval_node(node, &context.scope, cache)
                .ok()
                .filter(|value| !value.is_null())
        };
        let services = self.planner.spec.services.iter();
        let images: BTreeSet<String> = services
            .filter(|service| value(service, "build").is_none())
            .filter_map(|service| match value(service, "image")? {
                Value::String(image) if !image.is_empty() => Some(image),
                _ => None,
            })
            .collect();
        images.into_iter().collect()
    }

    /// Returns the names of the spec's secrets.
    pub fn secrets(&self) -> Vec<String> {
        self.planner
            .spec
            .secrets
            .iter()
            .map(|secret| secret.text.clone())
            .collect()
    }

    fn planned(&self, cell: &CellId) -> Result<&PlannedCell, Vec<Diagnostic>> {
        let found = self.cells.get(cell).and_then(|at| self.plan.cells.get(*at));
        found.ok_or_else(|| {
            vec![Diagnostic {
                span: None,
                ..Diagnostic::error(Span::default(), format!("the plan has no cell {cell}"))
            }]
        })
    }

    fn context(&self, planned: &PlannedCell) -> Result<Cell, Vec<Diagnostic>> {
        let matrix = matrix_context(&self.keys, &planned.matrix);
        let context = self.planner.cell(matrix, &planned.matrix, None);
        context.map_err(|error| vec![error.into()])
    }
}

/// Returns a reader of the files that were read when the plan was made.
pub(super) fn files_of(plan: &Plan) -> ReadFile {
    let files = plan.files.clone();
    Arc::new(move |path: &str| {
        files
            .get(path)
            .cloned()
            .ok_or_else(|| format!("{path} was not read when the plan was made"))
    })
}
