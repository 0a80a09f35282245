//! Reads the values of a service's definition. The shape check has already checked their types. Before evaluation, the
//! value of a text with `${{ }}` is unknown.

use super::words;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::quantity;
use crate::node::{Node, NodeValue};
use indexmap::IndexMap;

/// A reader, with the diagnostics that it adds to.
pub struct Reader<'d> {
    diagnostics: &'d mut Vec<Diagnostic>,
    evaluated: bool,
}

impl<'d> Reader<'d> {
    pub fn new(diagnostics: &'d mut Vec<Diagnostic>, evaluated: bool) -> Self {
        Reader {
            diagnostics,
            evaluated,
        }
    }

    /// Returns whether the value is known, as opposed to an expression for it.
    pub fn is_known(&self, node: &Node) -> bool {
        self.evaluated || !node.is_template()
    }

    pub fn report(&mut self, span: Span, message: String) -> &mut Diagnostic {
        self.diagnostics.push(Diagnostic::error(span, message));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    /// Returns a scalar as text.
    pub fn text(&self, node: &Node) -> Option<String> {
        self.is_known(node)
            .then(|| quantity::spelling(node))
            .flatten()
    }

    /// Returns a scalar as text, and reports an empty one.
    pub fn filled(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if text.trim().is_empty() {
            self.report(node.span, "the value is empty".into()).help =
                Some("a key whose value is null is as if it weren't written".into());
            return None;
        }
        Some(text)
    }

    /// Returns a list of scalars, or a single scalar, as texts.
    pub fn texts(&self, node: &Node) -> Vec<String> {
        match &node.value {
            NodeValue::List(items) => items.iter().filter_map(|item| self.text(item)).collect(),
            _ => self.text(node).into_iter().collect(),
        }
    }

    /// Returns the words of a command: a list, or a text that is split as a shell does.
    pub fn words(&mut self, node: &Node) -> Vec<String> {
        if matches!(node.value, NodeValue::List(_)) {
            return self.texts(node);
        }
        let Some(text) = self.text(node) else {
            return Vec::new();
        };
        words::split(&text).unwrap_or_else(|problem| {
            self.report(node.span, format!("this is no command: {problem}"))
                .help = Some("write a list of words: `[sh, -c, \"…\"]`".into());
            Vec::new()
        })
    }

    /// Returns a map of texts. An entry without a value is left out.
    pub fn variables(&mut self, node: &Node, key: &str) -> IndexMap<String, Option<String>> {
        let mut variables = IndexMap::new();
        for entry in node.entries() {
            let name = &entry.key.text;
            if name.is_empty()
                || name.contains('\0')
                || (key == "environment" && name.contains('='))
            {
                self.report(entry.key.span, format!("`{name}` is no name of a variable"));
                continue;
            }
            if let Some(text) = self.text(&entry.value) {
                variables.insert(name.clone(), Some(text));
            }
        }
        variables
    }

    pub fn flag(&self, node: &Node) -> Option<bool> {
        match node.value {
            NodeValue::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn integer(&self, node: &Node) -> Option<i64> {
        match node.value {
            NodeValue::Int(value) => Some(value),
            _ => None,
        }
    }

    pub fn bytes(&self, node: &Node) -> Option<u64> {
        quantity::bytes_of(node)
    }

    pub fn nanocpus(&self, node: &Node) -> Option<u64> {
        quantity::millicpus_of(node).map(|millicpus| millicpus.saturating_mul(1_000_000))
    }

    pub fn milliseconds(&self, node: &Node) -> Option<u64> {
        let duration = quantity::duration_of(node)?;
        u64::try_from(duration.as_millis()).ok()
    }
}
