//! Reads values of a service's definition. Types were checked by shape; before evaluation a text with `${{ }}`
//! is a value that isn't known.

use super::words;
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::node::{Node, NodeValue};
use crate::spec::quantity;
use indexmap::IndexMap;

/// A reader, and where it reports to.
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

    /// Whether the value is there, rather than an expression for it.
    pub fn is_known(&self, node: &Node) -> bool {
        self.evaluated || !node.is_template()
    }

    pub fn report(&mut self, span: Span, message: String) -> &mut Diagnostic {
        self.diagnostics.push(Diagnostic::error(span, message));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    /// A scalar as text.
    pub fn text(&self, node: &Node) -> Option<String> {
        self.is_known(node)
            .then(|| quantity::spelling(node))
            .flatten()
    }

    /// A scalar as text that isn't empty.
    pub fn filled(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if text.trim().is_empty() {
            self.report(node.span, "the value is empty".into()).help =
                Some("a key whose value is null is as if it weren't written".into());
            return None;
        }
        Some(text)
    }

    /// A list of scalars, or one.
    pub fn texts(&self, node: &Node) -> Vec<String> {
        match &node.value {
            NodeValue::List(items) => items.iter().filter_map(|item| self.text(item)).collect(),
            _ => self.text(node).into_iter().collect(),
        }
    }

    /// The words of a command: a list, or a text that is split as a shell does.
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

    /// A map of texts. An entry without a value is as if it weren't written.
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
