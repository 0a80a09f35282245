//! `vars`: how variables refer to each other, the order in which they are evaluated, and which of them differ between
//! cells.
//!
//! Variables may refer to each other in any order; a cycle is an error. The cell's name takes part: variables may use
//! it, and it may use variables.

use crate::diagnostic::{Diagnostic, Span};
use crate::expr::{Cache, Functions, Key, Program, Reference};
use crate::language::model::Spec;
use crate::node::{Node, NodeValue, Template};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Dependencies of a value: other variables, and contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Names of variables.
    pub vars: BTreeSet<String>,
    /// Whether the value, or a variable it needs, reads `matrix`.
    pub matrix: bool,
    /// Whether the value, or a variable it needs, reads `cell.name`.
    pub name: bool,
    /// Whether it reads contexts that are known only while a cell runs.
    pub running: bool,
}

impl Needs {
    pub(super) fn per_cell(&self) -> bool {
        self.matrix || self.name
    }

    fn add(&mut self, other: &Needs) {
        self.vars.extend(other.vars.iter().cloned());
        self.matrix |= other.matrix;
        self.name |= other.name;
        self.running |= other.running;
    }
}

/// Finds what expressions need.
pub(super) struct Survey<'s> {
    pub spec: &'s Spec,
    pub cache: &'s Cache,
    pub functions: &'s Functions,
}

impl Survey<'_> {
    /// Returns what a tree needs. Expressions that don't parse need nothing; their evaluation reports the error.
    pub(super) fn node(&self, node: &Node) -> Needs {
        let mut needs = Needs::default();
        self.visit(node, &mut needs);
        needs
    }

    pub(super) fn template(&self, template: &Template) -> Needs {
        let mut needs = Needs::default();
        if let Ok(compiled) = self.cache.template(template) {
            compiled
                .programs()
                .for_each(|program| self.program(program, &[], &mut needs, &mut HashSet::new()));
        }
        needs
    }

    fn visit(&self, node: &Node, needs: &mut Needs) {
        match &node.value {
            NodeValue::Text(text) if text.contains("${{") => {
                let template = Template {
                    text: text.clone(),
                    span: node.span,
                };
                needs.add(&self.template(&template));
            }
            NodeValue::List(items) => items.iter().for_each(|item| self.visit(item, needs)),
            NodeValue::Map(entries) => entries
                .iter()
                .for_each(|entry| self.visit(&entry.value, needs)),
            _ => {}
        }
    }

    /// Adds the needs of a program and of the functions that it calls. Each function is visited once, because functions
    /// that call functions multiply.
    fn program<'a>(
        &'a self,
        program: &'a Program,
        params: &[String],
        needs: &mut Needs,
        seen: &mut HashSet<&'a str>,
    ) {
        for reference in program
            .references()
            .iter()
            .filter(|r| !params.contains(&r.root))
        {
            self.reference(reference, needs);
        }
        for call in program.calls() {
            if let Some(function) = self.functions.get(&call.name)
                && seen.insert(&call.name)
            {
                self.program(&function.body, &function.params, needs, seen);
            }
        }
    }

    fn reference(&self, reference: &Reference, needs: &mut Needs) {
        match reference.root.as_str() {
            "inputs" | "workspace" => {}
            "matrix" => needs.matrix = true,
            "cell" => match reference.path.first().map(|segment| &segment.key) {
                Some(Key::Name(field)) if field == "name" => needs.name = true,
                _ => needs.running = true,
            },
            "vars" => match reference.path.first().map(|segment| &segment.key) {
                Some(Key::Name(name)) => {
                    needs.vars.insert(name.clone());
                }
                // `vars` is used as a whole or with a computed name, so every variable is needed.
                _ => needs
                    .vars
                    .extend(self.spec.vars.iter().map(|(name, _)| name.text.clone())),
            },
            _ => needs.running = true,
        }
    }
}

/// The variables, each after those it needs; those that need the cell's name come last.
pub(super) struct Order {
    pub vars: Vec<Var>,
}

/// A variable and what it needs.
pub(super) struct Var {
    pub name: String,
    /// Position in the spec.
    pub index: usize,
    /// Variables that its own expressions name.
    pub direct: BTreeSet<String>,
    /// Needs, including those of the variables it needs.
    pub needs: Needs,
}

/// Maximum number of variables in a spec, because the needs of each are followed through all others.
const MAX_VARS: usize = 1_000;

const CELL_NAME: &str = "cell.name";

impl Order {
    pub(super) fn of(spec: &Spec, survey: &Survey<'_>) -> Result<Order, Vec<Diagnostic>> {
        if let Some((name, _)) = spec.vars.get(MAX_VARS) {
            let message = format!(
                "there are {} variables, and at most {MAX_VARS} are possible",
                spec.vars.len()
            );
            return Err(vec![
                Diagnostic::error(name.span, message)
                    .with_help("a variable can be a list or a map"),
            ]);
        }
        let mut direct: BTreeMap<&str, (Needs, Span)> = BTreeMap::new();
        for (name, node) in &spec.vars {
            direct.insert(&name.text, (survey.node(node), name.span));
        }
        if let Some(name) = &spec.cell.name {
            direct.insert(CELL_NAME, (survey.template(name), name.span));
        }
        let mut walk = Walk {
            direct: &direct,
            done: BTreeMap::new(),
            order: Vec::new(),
            path: Vec::new(),
        };
        for name in direct.keys() {
            walk.visit(name)?;
        }
        let Walk { done, order, .. } = walk;
        let vars = order
            .into_iter()
            .filter_map(|name| {
                let index = spec.vars.iter().position(|(known, _)| known.text == name)?;
                Some(Var {
                    name: name.to_owned(),
                    index,
                    direct: direct
                        .get(name)
                        .map(|(needs, _)| needs.vars.clone())
                        .unwrap_or_default(),
                    needs: done.get(name).cloned().unwrap_or_default(),
                })
            })
            .collect();
        Ok(Order { vars })
    }

    /// Adds the needs of the variables that `needs` names.
    pub(super) fn completed(&self, mut needs: Needs) -> Needs {
        let named: Vec<&Var> = self
            .vars
            .iter()
            .filter(|var| needs.vars.contains(&var.name))
            .collect();
        for var in named {
            needs.add(&var.needs);
        }
        needs
    }
}

/// Depth-first walk over the needs; a name that is already on the path reveals a cycle.
struct Walk<'a, 'd> {
    direct: &'d BTreeMap<&'a str, (Needs, Span)>,
    done: BTreeMap<&'a str, Needs>,
    order: Vec<&'a str>,
    path: Vec<&'a str>,
}

impl<'a> Walk<'a, '_> {
    fn visit(&mut self, name: &'a str) -> Result<(), Vec<Diagnostic>> {
        if self.done.contains_key(name) {
            return Ok(());
        }
        let Some((needs, span)) = self.direct.get(name) else {
            return Ok(());
        };
        if let Some(begin) = self.path.iter().position(|known| *known == name) {
            let circle = self.path[begin..]
                .iter()
                .chain([&name])
                .copied()
                .collect::<Vec<_>>();
            return Err(vec![Diagnostic::error(
                *span,
                format!("`{name}` depends on itself: {}", circle.join(" → ")),
            )]);
        }
        self.path.push(name);
        let mut all = needs.clone();
        let next = needs
            .vars
            .iter()
            .map(String::as_str)
            .chain(needs.name.then_some(CELL_NAME));
        for next in next {
            let Some((key, _)) = self.direct.get_key_value(next) else {
                continue;
            };
            self.visit(key)?;
            if let Some(inner) = self.done.get(next) {
                all.add(inner);
            }
        }
        self.path.pop();
        self.done.insert(name, all);
        self.order.push(name);
        Ok(())
    }
}
