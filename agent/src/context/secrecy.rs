//! Which expressions read a secret, or a value that was made of one.
//!
//! Masks find a secret by its value, so they can't know what an expression makes of one: a part, a length, a digest. A
//! value that is shown on purpose (a capture) is hidden if its expression reads a secret, directly or by way of captures,
//! parameters and `foreach` variables. The decision depends on the text of expressions alone. A capture also counts if it
//! reads the very result, or a part of it, of which a secret capture of the step is made.

use super::CellContext;
use super::frame::{Entry, Handed, View};
use phalanx_shared::expr::{Key, Reference};
use phalanx_shared::node::{Expr, Node, NodeValue, Template};
use std::collections::BTreeSet;

/// The secrets that the expressions of a step can read.
pub struct Secrecy<'a> {
    context: &'a CellContext,
    view: &'a View,
    /// Names that are known without a context and are secret: captures of the step itself.
    own: BTreeSet<String>,
    /// What secret captures are made of.
    sources: Vec<Reference>,
}

impl<'a> Secrecy<'a> {
    /// Creates it for the names that a step sees.
    pub fn new(context: &'a CellContext, view: &'a View) -> Self {
        Secrecy {
            context,
            view,
            own: BTreeSet::new(),
            sources: Vec::new(),
        }
    }

    /// Declares that a name known without a context is secret.
    pub fn hide(&mut self, name: &str) {
        self.own.insert(name.to_owned());
    }

    /// Declares that a capture is secret, and so is what it is made of.
    pub fn hide_capture(&mut self, name: &str, of: &Expr) {
        self.hide(name);
        if let Ok(program) = self.context.cache.program(of) {
            self.sources.extend(program.references().iter().cloned());
        }
    }

    /// Returns whether an expression reads a secret. One that can't be parsed reads nothing.
    pub fn expr(&self, expr: &Expr) -> bool {
        let program = self.context.cache.program(expr);
        program.is_ok_and(|program| program.references().iter().any(|read| self.reads(read)))
    }

    /// Returns whether a tree reads a secret.
    pub fn node(&self, node: &Node) -> bool {
        match &node.value {
            NodeValue::Text(text) => {
                let template = Template {
                    text: text.clone(),
                    span: node.span,
                };
                let program = self.context.cache.template(&template);
                text.contains("${{")
                    && program
                        .is_ok_and(|program| program.references().any(|read| self.reads(read)))
            }
            NodeValue::List(items) => items.iter().any(|item| self.node(item)),
            NodeValue::Map(entries) => entries.iter().any(|entry| self.node(&entry.value)),
            _ => false,
        }
    }

    fn reads(&self, reference: &Reference) -> bool {
        let path: Vec<&Key> = reference.path.iter().map(|part| &part.key).collect();
        match reference.root.as_str() {
            "secrets" => true,
            "params" => self
                .view
                .params()
                .is_some_and(|params| of_handed(params, &path)),
            "steps" => self.of_steps(&path),
            name => {
                self.own.contains(name)
                    || self.view.is_secret_variable(name)
                    || self.sources.iter().any(|source| within(reference, source))
            }
        }
    }

    fn of_steps(&self, path: &[&Key]) -> bool {
        let any = |entry: &Entry| {
            entry
                .records()
                .any(|record| !record.handed.secret.is_empty())
        };
        let (Some(id), rest) = (path.first(), path.get(1..).unwrap_or_default()) else {
            return self
                .view
                .frames()
                .any(|frame| frame.steps.values().any(any));
        };
        let entry = id.name().and_then(|id| self.view.step(id));
        match entry {
            Some(Entry::One(record)) => of_handed(&record.handed, rest),
            // The key of an item comes first.
            Some(Entry::Keyed(records)) => records
                .values()
                .any(|record| of_handed(&record.handed, rest.get(1..).unwrap_or_default())),
            None => false,
        }
    }
}

/// Returns whether a path reads a secret among values that were handed on. Without a literal name it may read any.
fn of_handed(handed: &Handed, path: &[&Key]) -> bool {
    match path.first().and_then(|key| key.name()) {
        Some(name) => handed.secret.contains(name),
        None => !handed.secret.is_empty(),
    }
}

/// Returns whether a reference reads the same value as another one, or a part of it.
fn within(reference: &Reference, source: &Reference) -> bool {
    let parts = reference.path.iter().zip(&source.path);
    reference.root == source.root
        && reference.path.len() >= source.path.len()
        && parts.into_iter().all(|(part, of)| part.key == of.key)
}
