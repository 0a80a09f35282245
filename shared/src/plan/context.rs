//! The contexts that are known when a cell is planned, and the compiled expressions that use them.

use super::vars::{Needs, Order, Survey, Var};
use crate::diagnostic::Diagnostic;
use crate::expr::{
    Cache, EvalError, Functions, Layer, MatrixKeys, Program, ReadFile, Scope, charge, eval_node,
    weight,
};
use crate::language::model::{DefineBody, Spec};
use crate::matrix::Combination;
use crate::node::{Node, Template};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A compiled spec with its inputs. It is made once and used for every cell.
pub(super) struct Planner {
    pub spec: Arc<Spec>,
    pub inputs: Map<String, Value>,
    pub cache: Cache,
    functions: Arc<Functions>,
    /// `inputs` and `workspace`, and the reason why the contexts of a running cell have no value.
    base: Scope,
    order: Order,
    /// Values of the variables that are the same in every cell.
    shared: Map<String, Value>,
    /// Size of `shared` in bytes, as the meter counts it.
    shared_weight: u64,
    /// `base` with `shared` as `vars`.
    shared_scope: Scope,
}

/// Maximum bytes that the variables of a cell hold.
const MAX_VARS: u64 = 16 << 20;

/// Maximum length of a cell's name, in bytes.
const MAX_NAME: usize = 4 << 10;

/// Contexts that are known only while a cell runs.
const RUNNING: [&str; 5] = ["secrets", "run", "services", "steps", "params"];

impl Planner {
    pub(super) fn new(
        spec: Arc<Spec>,
        inputs: Map<String, Value>,
        workspace: Map<String, Value>,
        files: ReadFile,
        keys: &MatrixKeys,
    ) -> Result<Self, Vec<Diagnostic>> {
        let cache = Cache::knowing(keys.clone());
        let functions = Arc::new(functions(&spec)?.read_files(files));
        let mut layer = Layer::new()
            .value("inputs", Value::Object(inputs.clone()))
            .value("workspace", Value::Object(workspace))
            .missing("matrix", "is known only where a cell is planned")
            .missing("vars", "are known only after the inputs")
            .missing("cell", "is known only where a cell is planned")
            .functions(functions.clone());
        for name in RUNNING {
            layer = layer.missing(name, "is known only while a cell runs");
        }
        let survey = Survey {
            spec: &spec,
            cache: &cache,
            functions: &functions,
        };
        let order = Order::of(&spec, &survey)?;
        let base = Scope::new(layer);
        Ok(Planner {
            spec,
            inputs,
            shared_scope: base.with_value("vars", Value::Object(Map::new())),
            shared_weight: 0,
            base,
            cache,
            functions,
            order,
            shared: Map::new(),
        })
    }

    /// Returns the scope of `require`, without variables.
    pub(super) fn base(&self) -> &Scope {
        &self.base
    }

    /// Evaluates the variables that are the same in every cell.
    pub(super) fn evaluate_shared(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let mut shared = Map::new();
        for var in self.order.vars.iter().filter(|var| !var.needs.per_cell()) {
            let needed = var
                .direct
                .iter()
                .filter_map(|name| shared.get_key_value(name));
            let needed: Map<String, Value> = needed
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            let scope = self.base.with_value("vars", Value::Object(needed));
            let mut held = self.shared_weight;
            match self.var(var, &scope, &mut held) {
                Ok(value) => {
                    self.shared_weight = held;
                    shared.insert(var.name.clone(), value);
                }
                // A variable that needs one without a value fails only because of that, so it isn't reported again.
                Err(_) if var.needs.vars.iter().any(|name| !self.has(&shared, name)) => {}
                Err(error) => problems.push(error.into()),
            }
        }
        self.shared_scope = self.base.with_value("vars", Value::Object(shared.clone()));
        self.shared = shared;
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems),
        }
    }

    /// Returns a variable's value in a scope, and adds its size to `held`. Returns an error if the variables become too
    /// large.
    fn var(&self, var: &Var, scope: &Scope, held: &mut u64) -> Result<Value, EvalError> {
        let Some((_, node)) = self.spec.vars.get(var.index) else {
            return Ok(Value::Null);
        };
        let value = eval_node(node, scope, &self.cache)?;
        *held += weight(&value);
        match *held > MAX_VARS {
            true => Err(EvalError::new(
                node.span,
                format!(
                    "the variables of a cell hold more than {} MiB with `{}`",
                    MAX_VARS >> 20,
                    var.name
                ),
            )
            .with_help("put large data into files of the workspace, and read them in steps")),
            false => Ok(value),
        }
    }

    fn has(&self, shared: &Map<String, Value>, name: &str) -> bool {
        shared.contains_key(name) || self.order.vars.iter().all(|var| var.name != name)
    }

    /// Returns the scope of the strategy: inputs, and the variables that are the same in every cell.
    pub(super) fn strategy_scope(&self) -> Scope {
        self.shared_scope.clone()
    }

    /// Returns what a tree needs, including the needs of its variables.
    pub(super) fn needs(&self, node: &Node) -> Needs {
        self.order.completed(self.survey().node(node))
    }

    pub(super) fn template_needs(&self, template: &Template) -> Needs {
        self.order.completed(self.survey().template(template))
    }

    fn survey(&self) -> Survey<'_> {
        Survey {
            spec: &self.spec,
            cache: &self.cache,
            functions: &self.functions,
        }
    }

    /// Returns a cell's scope with its variables: those in `wanted`, or all.
    pub(super) fn cell(
        &self,
        matrix: Map<String, Value>,
        combination: &Combination,
        wanted: Option<&Needs>,
    ) -> Result<Cell, EvalError> {
        let mut cell = Cell {
            scope: self
                .shared_scope
                .with_value("matrix", Value::Object(matrix)),
            own: Map::new(),
            held: self.shared_weight,
            name: String::new(),
        };
        self.evaluate(&mut cell, wanted, false)?;
        cell.name = match &self.spec.cell.name {
            Some(template) => {
                let needs = self.survey().template(template);
                let scope = self.seeing(&cell, Some(&needs.vars))?;
                self.cache.template(template)?.eval_text(&scope)?
            }
            None => self.default_name(combination),
        };
        if cell.name.len() > MAX_NAME {
            let span = self.spec.cell.name.as_ref().map(|name| name.span);
            let message = format!(
                "the cell's name has {} bytes, and at most {MAX_NAME} are possible",
                cell.name.len()
            );
            return Err(EvalError::new(span.unwrap_or_default(), message));
        }
        cell.scope = cell.scope.with_value("cell", json!({ "name": cell.name }));
        self.evaluate(&mut cell, wanted, true)?;
        cell.scope = self.seeing(&cell, wanted.map(|needs| &needs.vars))?;
        Ok(cell)
    }

    /// Returns the cell's scope with the named variables (or all). Variables that aren't needed aren't copied: copies
    /// for every variable or cell would use memory quadratic in their number.
    fn seeing(&self, cell: &Cell, names: Option<&BTreeSet<String>>) -> Result<Scope, EvalError> {
        let wanted = |name: &String| names.is_none_or(|names| names.contains(name));
        if !cell.own.keys().any(wanted) {
            return Ok(cell.scope.clone());
        }
        let all = self.shared.iter().chain(&cell.own);
        let vars: Map<String, Value> = all
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let vars = Value::Object(vars);
        charge(weight(&vars))
            .map_err(|message| EvalError::new(self.spec.strategy.span, message))?;
        Ok(cell.scope.with_value("vars", vars))
    }

    /// Returns all variables of a cell.
    pub(super) fn vars(&self, cell: Cell) -> Map<String, Value> {
        let mut vars = self.shared.clone();
        vars.extend(cell.own);
        vars
    }

    /// Evaluates the variables that differ between cells: those that don't need the cell's name, or those that do
    /// (`named`).
    fn evaluate(
        &self,
        cell: &mut Cell,
        wanted: Option<&Needs>,
        named: bool,
    ) -> Result<(), EvalError> {
        let differing = self
            .order
            .vars
            .iter()
            .filter(|var| var.needs.per_cell() && var.needs.name == named);
        for var in differing.filter(|var| wanted.is_none_or(|needs| needs.vars.contains(&var.name)))
        {
            let scope = self.seeing(cell, Some(&var.direct))?;
            let value = self.var(var, &scope, &mut cell.held)?;
            cell.own.insert(var.name.clone(), value);
        }
        Ok(())
    }

    fn default_name(&self, combination: &Combination) -> String {
        let axes = &self.spec.strategy.axes;
        let of_axes: Vec<&Value> = axes
            .iter()
            .filter_map(|(axis, _)| combination.get(&axis.text))
            .collect();
        let values = match of_axes.is_empty() {
            true => combination.values().collect(),
            false => of_axes,
        };
        match values.is_empty() {
            true => self.spec.name.clone(),
            false => values
                .into_iter()
                .map(crate::expr::to_text)
                .collect::<Vec<_>>()
                .join(" / "),
        }
    }
}

/// Contexts of one cell.
pub(super) struct Cell {
    pub scope: Scope,
    pub name: String,
    /// Variables that differ between cells.
    own: Map<String, Value>,
    /// Bytes that the cell's variables hold.
    held: u64,
}

/// Returns the functions that the spec defines.
fn functions(spec: &Spec) -> Result<Functions, Vec<Diagnostic>> {
    let mut functions = Functions::default();
    let mut problems = Vec::new();
    for define in &spec.define {
        let DefineBody::Value(body) = &define.body else {
            continue;
        };
        let params = define
            .params
            .iter()
            .map(|param| param.name.text.clone())
            .collect();
        match Program::parse(body) {
            Ok(body) => functions = functions.define(&define.name.text, params, body),
            Err(problem) => problems.push(problem),
        }
    }
    match problems.is_empty() {
        true => Ok(functions),
        false => Err(problems),
    }
}
