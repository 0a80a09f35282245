//! Makes the job that an agent gets for one cell. It depends only on the spec and the plan, so it can be made again
//! after a restart.

use super::cells::keys;
use super::context::{Cell, Planner};
use super::expand::{MAX_STEPS, matrix_context, prepared, workspace_context};
use super::kin::Common;
use super::wanted::{Anew, KEYS};
use super::{CellJob, Keep, Plan, PlannedCell, SnapshotUse, SpecSource, WantedImage};
use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::expr::{Allowance, ReadFile, eval_node, eval_to_node};
use crate::id::{CellId, RunId};
use crate::language::model::{Service, Spec};
use crate::language::service::decode_service;
use crate::node::{Entry, Node, NodeValue};
use crate::policy::{Need, of_service, of_spec};
use serde_json::Map;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

/// Makes the jobs of one plan; expressions are compiled once.
pub struct Jobs {
    pub(super) planner: Planner,
    source: Arc<SpecSource>,
    pub(super) plan: Plan,
    cells: HashMap<CellId, usize>,
    pub(super) keys: Vec<String>,
    /// What services need whose definitions hold no expression, by service; `None` for all others.
    fixed: OnceLock<Vec<Option<Vec<Need>>>>,
    /// What the families of all snapshots have in common; `None` without snapshots.
    pub(super) family: OnceLock<Option<Common>>,
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
            fixed: OnceLock::new(),
            family: OnceLock::new(),
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
            submitted: None,
            images: BTreeMap::new(),
            snapshots: SnapshotUse::default(),
            snapshot_family: None,
        })
    }

    /// Returns whether making a job evaluates expressions of the spec.
    pub fn evaluates(&self) -> bool {
        let spec = &self.planner.spec;
        !spec.vars.is_empty() || spec.cell.name.is_some()
    }

    /// Returns the images that a cell's services need in a run, as far as they are known before it runs: those whose
    /// definition reads neither secrets nor what only a running cell has. They can be pulled and built while the cell
    /// waits.
    pub fn images(&self, cell: &CellId, run: &RunId) -> Vec<WantedImage> {
        let _bounded = Allowance::of(MAX_STEPS);
        let Ok(context) = self.planned(cell).and_then(|planned| self.context(planned)) else {
            return Vec::new();
        };
        let services = self.planner.spec.services.iter();
        let images: BTreeSet<WantedImage> = services
            .filter(|service| !service.process)
            .filter_map(|service| self.image(service, &context))
            .map(|image| image.of_run(run))
            .collect();
        images.into_iter().collect()
    }

    /// Returns what a cell needs of its agent's machine, as far as that is known before it runs: of the services that
    /// start by themselves, and of steps that surely run.
    pub fn needs(&self, cell: &CellId) -> Vec<Need> {
        let _bounded = Allowance::of(MAX_STEPS);
        let spec = &self.planner.spec;
        let mut needs: BTreeSet<Need> = of_spec(spec).into_iter().collect();
        let fixed = self.fixed.get_or_init(|| {
            let services = spec.services.iter();
            services.map(fixed_needs).collect()
        });
        let known = fixed.iter().flatten().flatten().cloned();
        needs.extend(known);
        let open = spec.services.iter().zip(fixed);
        let open: Vec<&Service> = open
            .filter(|(service, fixed)| !service.manual && fixed.is_none())
            .map(|(service, _)| service)
            .collect();
        if open.is_empty() {
            return needs.into_iter().collect();
        }
        let Ok(context) = self.planned(cell).and_then(|planned| self.context(planned)) else {
            return needs.into_iter().collect();
        };
        for service in open {
            if service.process {
                needs.insert(Need::run());
            }
            // Each key by itself: one that only the running cell knows must not hide the others.
            let known = service.definition.entries().iter().filter_map(|entry| {
                let value = eval_to_node(&entry.value, &context.scope, &self.planner.cache).ok()?;
                let key = entry.key.clone();
                Some(Entry { key, value })
            });
            let definition = Node {
                value: NodeValue::Map(known.collect()),
                span: service.definition.span,
            };
            // Problems are reported where the definition is known as a whole.
            let config = decode_service(&service.name.text, &definition, &mut Vec::new());
            needs.extend(of_service(&config));
        }
        needs.into_iter().collect()
    }

    fn image(&self, service: &Service, context: &Cell) -> Option<Anew> {
        let mut definition = Map::new();
        for key in KEYS {
            if let Some(node) = service.definition.get(key) {
                let value = eval_node(node, &context.scope, &self.planner.cache).ok()?;
                if !value.is_null() {
                    definition.insert(key.to_owned(), value);
                }
            }
        }
        let workspace = self.plan.workspace.as_deref();
        WantedImage::of(&service.name.text, definition, workspace)
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

    pub(super) fn planned(&self, cell: &CellId) -> Result<&PlannedCell, Vec<Diagnostic>> {
        let found = self.cells.get(cell).and_then(|at| self.plan.cells.get(*at));
        found.ok_or_else(|| {
            vec![Diagnostic {
                span: None,
                ..Diagnostic::error(Span::default(), format!("the plan has no cell {cell}"))
            }]
        })
    }

    pub(super) fn context(&self, planned: &PlannedCell) -> Result<Cell, Vec<Diagnostic>> {
        let matrix = matrix_context(&self.keys, &planned.matrix);
        let context = self.planner.cell(matrix, &planned.matrix, None);
        context.map_err(|error| vec![error.into()])
    }
}

/// Returns what a service needs that starts by itself and whose definition holds no expression.
fn fixed_needs(service: &Service) -> Option<Vec<Need>> {
    if service.manual {
        return Some(Vec::new());
    }
    if has_expressions(&service.definition) {
        return None;
    }
    let config = decode_service(&service.name.text, &service.definition, &mut Vec::new());
    Some(of_service(&config))
}

fn has_expressions(node: &Node) -> bool {
    node.is_template()
        || node.items().iter().any(has_expressions)
        || node
            .entries()
            .iter()
            .any(|entry| has_expressions(&entry.value))
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
