//! Expands a spec and its inputs to a plan.
//!
//! Expressions are compiled once, and values that are the same in every cell are evaluated once. Files are read through
//! a closure, and the texts that were read stay in the plan. The machine's environment is not read (I5).
//!
//! stage: a `PlannedCell`: name, id, labels, reservations; the digest

use super::cells::{cell_id, combinations, keys, matrix, written_keys};
use super::context::{Cell, Planner};
use super::probe::{self, Probe};
use super::settings::{Evaluate, Settings};
use super::vars::Needs;
use super::{Plan, PlannedCell, Resources, Selection, networks};
use crate::diagnostic::{Diagnostic, Sources};
use crate::expr::{Allowance, EvalError, MatrixKeys, ReadFile, Scope, canonical_json};
use crate::id::CellId;
use crate::input::{self, Given};
use crate::language::model::Spec;
use crate::matrix::{Combination, Matrix, sizes};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything from which a plan is made.
pub struct Request<'r> {
    /// The spec with its included files merged.
    pub spec: Arc<Spec>,
    /// Source texts of the spec.
    pub sources: &'r Sources,
    /// Input values that the caller passes.
    pub given: &'r Given,
    /// Reads a file of the workspace.
    pub files: ReadFile,
    /// Digest of the workspace, if there is one.
    pub workspace: Option<String>,
    /// Cells to select.
    pub selection: &'r Selection,
    /// Maximum number of cells, if one is configured.
    pub max_cells: Option<usize>,
}

/// Maximum steps of all evaluations of a plan, or of a job: about ten seconds.
pub(super) const MAX_STEPS: u64 = 30_000_000;

/// Maximum bytes of all cells' names and labels.
const MAX_TEXTS: usize = 256 << 20;

/// Maximum number of reported problems of cells; more would add no information.
const MAX_PROBLEMS: usize = 20;

/// Expands a spec to its plan, or returns every problem found.
pub fn expand(request: &Request<'_>) -> Result<Plan, Vec<Diagnostic>> {
    let _bounded = Allowance::of(MAX_STEPS);
    let spec = request.spec.clone();
    let inputs = input::resolve(&spec.inputs, request.given)?;
    let read = Arc::new(Mutex::new(BTreeMap::new()));
    let files = recording(request.files.clone(), read.clone());
    let workspace = workspace_context(request.workspace.as_deref());
    let mut required = false;
    let (planner, matrix) = prepared(&spec, |keys| {
        let (spec, inputs) = (spec.clone(), inputs.clone());
        let planner = Planner::new(spec, inputs, workspace.clone(), files.clone(), keys)?;
        if !std::mem::replace(&mut required, true) {
            require(&planner)?;
        }
        Ok(planner)
    })?;
    let scope = planner.strategy_scope();
    if matrix.exclude.is_empty() {
        // Without `exclude` the product is the final size, so it is checked before the combinations are made.
        check_size(request, &matrix, matrix.product())?;
    }
    let combinations = combinations(&planner, &matrix).map_err(|problem| vec![problem])?;
    check_size(request, &matrix, combinations.len())?;
    let cells = Expansion::new(&planner, &matrix, &scope)?.cells(&combinations)?;
    check_ids(&planner, &cells)?;
    let cells = request.selection.narrow(cells)?;
    probe_cells(&planner, &matrix, &cells)?;
    let evaluate = Evaluate {
        scope: &scope,
        cache: &planner.cache,
    };
    let problem = |error: EvalError| vec![error.into()];
    let max_parallel = evaluate
        .count(spec.strategy.max_parallel.as_ref(), "`max-parallel`", 1)
        .map_err(problem)?;
    let fail_fast = evaluate
        .switch(spec.strategy.fail_fast.as_ref(), "`fail-fast`")
        .map_err(problem)?;
    let queue_timeout = evaluate
        .duration(spec.strategy.queue_timeout.as_ref(), "`queue-timeout`")
        .map_err(problem)?;
    let max_skips = evaluate
        .count(spec.strategy.max_skips.as_ref(), "`max-skips`", 0)
        .map_err(problem)?;
    let files = read.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut plan = Plan {
        digest: String::new(),
        spec: spec.name.clone(),
        inputs: planner.inputs,
        axes: spec
            .strategy
            .axes
            .iter()
            .map(|(axis, _)| axis.text.clone())
            .collect(),
        coverage: spec
            .coverage
            .iter()
            .map(|row| (row.key.text.clone(), row.title.clone()))
            .collect(),
        cells,
        max_parallel,
        fail_fast,
        queue_timeout_ms: queue_timeout.map(|limit| limit.as_millis() as u64),
        max_skips,
        workspace: request.workspace.clone(),
        files,
    };
    plan.digest = digest(&plan, request.sources);
    Ok(plan)
}

/// Returns the matrix, and a planner that knows the matrix's keys. If expressions add keys that aren't known before
/// evaluation, the planner is made once more.
pub(super) fn prepared(
    spec: &Spec,
    mut make: impl FnMut(&MatrixKeys) -> Result<Planner, Vec<Diagnostic>>,
) -> Result<(Planner, Matrix), Vec<Diagnostic>> {
    let mut known = MatrixKeys::of(written_keys(spec));
    loop {
        let mut planner = make(&known)?;
        planner.evaluate_shared()?;
        let matrix = matrix(&planner, &planner.strategy_scope())?;
        let keys = MatrixKeys::of(keys(&matrix));
        if keys == known {
            return Ok((planner, matrix));
        }
        known = keys;
    }
}

/// Returns the `workspace` context: the digest, if there is one.
pub(super) fn workspace_context(digest: Option<&str>) -> Map<String, Value> {
    digest
        .map(|digest| ("digest".to_owned(), Value::from(digest)))
        .into_iter()
        .collect()
}

/// Wraps `files` so that every text that was read is recorded in `read`.
fn recording(files: ReadFile, read: Arc<Mutex<BTreeMap<String, String>>>) -> ReadFile {
    Arc::new(move |path: &str| {
        let text = files(path)?;
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(path.to_owned(), text.clone());
        Ok(text)
    })
}

fn require(planner: &Planner) -> Result<(), Vec<Diagnostic>> {
    let mut problems = Vec::new();
    for require in &planner.spec.require {
        let outcome = planner
            .cache
            .program(&require.that)
            .map_err(EvalError::from)
            .and_then(|that| match that.eval_bool(planner.base())? {
                true => Ok(None),
                false => Ok(Some(
                    planner
                        .cache
                        .template(&require.message)?
                        .eval_text(planner.base())?,
                )),
            });
        match outcome {
            Ok(None) => {}
            Ok(Some(message)) => problems.push(Diagnostic::error(require.that.span, message)),
            Err(error) => problems.push(error.into()),
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems),
    }
}

fn check_size(request: &Request<'_>, matrix: &Matrix, count: usize) -> Result<(), Vec<Diagnostic>> {
    match request.max_cells {
        Some(most) if count > most => {
            let message = format!("the matrix has {count} cells, `max_cells` allows {most}");
            let help = format!(
                "{}; the setting max_cells (PHALANX_MAX_CELLS) allows more, 0 any number",
                sizes(matrix)
            );
            Err(vec![
                Diagnostic::error(request.spec.strategy.span, message).with_help(help),
            ])
        }
        _ => Ok(()),
    }
}

/// Data that the expansion of all cells shares.
struct Expansion<'p> {
    planner: &'p Planner,
    keys: Vec<String>,
    /// Variables that the name and the settings need; no others are evaluated.
    needs: Needs,
    /// Settings, if they are the same in every cell.
    shared: Option<Settings>,
}

impl<'p> Expansion<'p> {
    fn new(planner: &'p Planner, matrix: &Matrix, scope: &Scope) -> Result<Self, Vec<Diagnostic>> {
        let cell = &planner.spec.cell;
        let nodes = [
            &cell.runs_on,
            &cell.cpus,
            &cell.memory,
            &cell.timeout,
            &cell.attempts,
            &cell.retries,
            &cell.experimental,
        ];
        let settings = nodes.into_iter().flatten().map(|node| planner.needs(node));
        let (mut needs, mut differ) = (Needs::default(), false);
        for setting in settings {
            differ |= setting.per_cell();
            needs.vars.extend(setting.vars);
        }
        if let Some(name) = &cell.name {
            needs.vars.extend(planner.template_needs(name).vars);
        }
        let shared = match differ {
            true => None,
            false => {
                let evaluate = Evaluate {
                    scope,
                    cache: &planner.cache,
                };
                Some(
                    evaluate
                        .settings(cell)
                        .map_err(|error| vec![error.into()])?,
                )
            }
        };
        Ok(Expansion {
            planner,
            keys: keys(matrix),
            needs,
            shared,
        })
    }

    fn cells(&self, combinations: &[Combination]) -> Result<Vec<PlannedCell>, Vec<Diagnostic>> {
        let mut cells = Vec::with_capacity(combinations.len());
        let mut problems = Problems::default();
        let mut bytes = 0;
        for combination in combinations {
            match self.cell(combination) {
                Ok(cell) => {
                    bytes += cell.name.len() + cell.runs_on.iter().map(String::len).sum::<usize>();
                    if bytes > MAX_TEXTS {
                        let message = format!(
                            "names and labels of the cells have more than {} MiB",
                            MAX_TEXTS >> 20
                        );
                        return Err(vec![Diagnostic::error(
                            self.planner.spec.strategy.span,
                            message,
                        )]);
                    }
                    cells.push(cell);
                }
                Err(error) => {
                    if !problems.add(error, combination) {
                        break;
                    }
                }
            }
        }
        problems.none()?;
        Ok(cells)
    }

    fn cell(&self, combination: &Combination) -> Result<PlannedCell, EvalError> {
        let matrix = matrix_context(&self.keys, combination);
        let cell = self.planner.cell(matrix, combination, Some(&self.needs))?;
        let settings = match &self.shared {
            Some(settings) => settings.clone(),
            None => {
                let evaluate = Evaluate {
                    scope: &cell.scope,
                    cache: &self.planner.cache,
                };
                evaluate.settings(&self.planner.spec.cell)?
            }
        };
        Ok(PlannedCell {
            id: cell_id(combination),
            name: cell.name,
            matrix: combination.clone(),
            runs_on: settings.runs_on,
            experimental: settings.experimental,
            resources: Resources {
                subnets: networks::reserved(&self.planner.spec),
                ..settings.resources
            },
            timeout_ms: settings.timeout_ms,
            attempts: settings.attempts,
            retries: settings.retries,
        })
    }
}

/// Returns the `matrix` context of a cell: keys that only other cells have are null.
pub(super) fn matrix_context(keys: &[String], combination: &Combination) -> Map<String, Value> {
    keys.iter()
        .map(|key| {
            (
                key.clone(),
                combination.get(key).cloned().unwrap_or_default(),
            )
        })
        .collect()
}

/// Problems of cells, each once, with the number of cells that have it and the values of one of them.
#[derive(Default)]
struct Problems(Vec<(Diagnostic, usize, String)>);

impl Problems {
    /// Adds a problem; returns `false` once there are enough.
    fn add(&mut self, error: EvalError, combination: &Combination) -> bool {
        let problem: Diagnostic = error.into();
        let known = self
            .0
            .iter_mut()
            .find(|(known, ..)| known.span == problem.span && known.message == problem.message);
        match known {
            Some((_, cells, _)) => *cells += 1,
            None => {
                // The message is for a person, so large values are cut.
                let short = |value| {
                    crate::expr::to_text(value)
                        .chars()
                        .take(80)
                        .collect::<String>()
                };
                let values = combination
                    .iter()
                    .map(|(key, value)| format!("{key}: {}", short(value)));
                self.0
                    .push((problem, 1, values.collect::<Vec<_>>().join(", ")));
            }
        }
        self.0.len() < MAX_PROBLEMS
    }

    fn none(self) -> Result<(), Vec<Diagnostic>> {
        let told = |(mut problem, cells, first): (Diagnostic, usize, String)| {
            let others = match cells {
                1 => String::new(),
                2 => " and in another one".to_owned(),
                more => format!(" and in {} others", more - 1),
            };
            if !first.is_empty() {
                problem.message = format!("{} (in cell {{{first}}}{others})", problem.message);
            }
            problem
        };
        let problems: Vec<Diagnostic> = self.0.into_iter().map(told).collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems),
        }
    }
}

fn check_ids(planner: &Planner, cells: &[PlannedCell]) -> Result<(), Vec<Diagnostic>> {
    let mut seen: HashMap<&CellId, &PlannedCell> = HashMap::with_capacity(cells.len());
    for cell in cells {
        let Some(first) = seen.insert(&cell.id, cell) else {
            continue;
        };
        let (message, help) = match first.matrix == cell.matrix {
            true => (
                format!("two cells have the same values: {}", cell.name),
                "an axis or `include` has a value twice",
            ),
            false => (
                format!(
                    "the cells `{}` and `{}` have the same id {}",
                    first.name, cell.name, cell.id
                ),
                "change a value of one of them",
            ),
        };
        return Err(vec![
            Diagnostic::error(planner.spec.strategy.span, message).with_help(help),
        ]);
    }
    Ok(())
}

fn probe_cells(
    planner: &Planner,
    matrix: &Matrix,
    cells: &[PlannedCell],
) -> Result<(), Vec<Diagnostic>> {
    if cells.len() > probe::MAX_CELLS {
        return Ok(());
    }
    let probe = Probe::of(planner);
    let keys = keys(matrix);
    let mut problems = Problems::default();
    for (index, planned) in cells.iter().enumerate() {
        let context: Result<Cell, EvalError> = planner.cell(
            matrix_context(&keys, &planned.matrix),
            &planned.matrix,
            None,
        );
        let mistakes = match context {
            Ok(cell) => probe.mistakes(&cell, index == 0),
            Err(error) => vec![error],
        };
        let enough = !mistakes
            .into_iter()
            .all(|mistake| problems.add(mistake, &planned.matrix));
        if enough {
            break;
        }
    }
    problems.none()
}

/// Returns the SHA-256 over everything from which a plan is made. File names are not included: the same spec has the
/// same digest in every directory.
fn digest(plan: &Plan, sources: &Sources) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    part("phalanx plan 1");
    sources.files.iter().for_each(|file| part(&file.text));
    part(&canonical_json(&Value::Object(plan.inputs.clone())));
    part(plan.workspace.as_deref().unwrap_or_default());
    plan.files.iter().for_each(|(path, text)| {
        part(path);
        part(text);
    });
    part(&json!([plan.max_parallel, plan.fail_fast]).to_string());
    if let Some(limit) = plan.queue_timeout_ms {
        part(&json!({ "queue-timeout": limit }).to_string());
    }
    if let Some(limit) = plan.max_skips {
        part(&json!({ "max-skips": limit }).to_string());
    }
    for cell in &plan.cells {
        part(cell.id.as_str());
        part(&cell.name);
        part(&serde_json::to_string(cell).unwrap_or_default());
    }
    hex::encode(hash.finalize())
}
