//! The contexts that are known when a cell is planned, and the compiled expressions over them.

use super::vars::{Needs, Order, Survey, Var};
use crate::diagnostic::Diagnostic;
use crate::expr::{Cache, EvalError, Functions, Layer, Program, ReadFile, Scope, eval_node};
use crate::matrix::Combination;
use crate::spec::model::{DefineBody, Spec};
use crate::spec::node::{Node, Template};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A spec with its inputs, compiled: made once, asked for each cell.
pub(super) struct Planner {
    pub spec: Arc<Spec>,
    pub inputs: Map<String, Value>,
    pub cache: Cache,
    functions: Arc<Functions>,
    /// `inputs` and `workspace`, and why the running contexts have no value.
    base: Scope,
    order: Order,
    /// Values of the variables that are the same in every cell.
    shared: Map<String, Value>,
}

/// What is known only while a cell runs.
const RUNNING: [&str; 5] = ["secrets", "run", "services", "steps", "params"];

impl Planner {
    pub(super) fn new(
        spec: Arc<Spec>,
        inputs: Map<String, Value>,
        workspace: Map<String, Value>,
        files: ReadFile,
    ) -> Result<Self, Vec<Diagnostic>> {
        let cache = Cache::new();
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
        Ok(Planner {
            spec,
            inputs,
            base: Scope::new(layer),
            cache,
            functions,
            order,
            shared: Map::new(),
        })
    }

    /// The scope of `require`: inputs only.
    pub(super) fn base(&self) -> &Scope {
        &self.base
    }

    /// Evaluates the variables that are the same in every cell.
    pub(super) fn evaluate_shared(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let mut shared = Map::new();
        for var in self.order.vars.iter().filter(|var| !var.needs.per_cell()) {
            let scope = self.base.with_value("vars", Value::Object(shared.clone()));
            match self.var(var, &scope) {
                Ok(value) => {
                    shared.insert(var.name.clone(), value);
                }
                // What needs a variable without a value fails for that reason only.
                Err(_) if var.needs.vars.iter().any(|name| !self.has(&shared, name)) => {}
                Err(error) => problems.push(error.into()),
            }
        }
        self.shared = shared;
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems),
        }
    }

    /// A variable's value in a scope.
    fn var(&self, var: &Var, scope: &Scope) -> Result<Value, EvalError> {
        match self.spec.vars.get(var.index) {
            Some((_, node)) => eval_node(node, scope, &self.cache),
            None => Ok(Value::Null),
        }
    }

    fn has(&self, shared: &Map<String, Value>, name: &str) -> bool {
        shared.contains_key(name) || self.order.vars.iter().all(|var| var.name != name)
    }

    /// The scope of the strategy: inputs, and the variables that are the same in every cell.
    pub(super) fn strategy_scope(&self) -> Scope {
        self.base
            .with_value("vars", Value::Object(self.shared.clone()))
    }

    /// What a tree needs, variables followed.
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

    /// The scope of a cell, and its variables: those of `wanted`, or all.
    pub(super) fn cell(
        &self,
        matrix: Map<String, Value>,
        combination: &Combination,
        wanted: Option<&Needs>,
    ) -> Result<Cell, EvalError> {
        let scope = self.base.with_value("matrix", Value::Object(matrix));
        let mut cell = Cell {
            scope,
            vars: self.shared.clone(),
            name: String::new(),
        };
        cell.share_vars();
        self.evaluate(&mut cell, wanted, false)?;
        cell.name = match &self.spec.cell.name {
            Some(template) => self.cache.template(template)?.eval_text(&cell.scope)?,
            None => self.default_name(combination),
        };
        cell.scope = cell.scope.with_value("cell", json!({ "name": cell.name }));
        self.evaluate(&mut cell, wanted, true)?;
        Ok(cell)
    }

    /// Evaluates the variables that differ between cells, before or after the cell's name is known.
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
            let value = self.var(var, &cell.scope)?;
            cell.vars.insert(var.name.clone(), value);
            cell.share_vars();
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

/// A cell's contexts.
pub(super) struct Cell {
    pub scope: Scope,
    pub vars: Map<String, Value>,
    pub name: String,
}

impl Cell {
    fn share_vars(&mut self) {
        self.scope = self
            .scope
            .with_value("vars", Value::Object(self.vars.clone()));
    }
}

/// The functions that the spec defines.
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
