//! Reads the keys of a map whose shape has been checked. A value that doesn't fit is treated as absent.

use crate::diagnostic::{Diagnostic, Span};
use crate::language::model::Until;
use crate::language::quantity;
use crate::node::{Entry, Expr, Node, NodeValue, Template, Text, holds_interpolation};
use crate::time::Date;

/// Keys of a map; any other value has none.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    entries: &'a [Entry],
    /// Place of the map.
    pub span: Span,
}

impl<'a> Fields<'a> {
    pub fn of(node: &'a Node) -> Self {
        Fields {
            entries: node.entries(),
            span: node.entries().first().map_or(node.span, |entry| Span {
                len: entry.key.span.len,
                ..entry.key.span
            }),
        }
    }

    /// Returns the key's entry, if it is present and not null.
    pub fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key.text == key && !entry.value.is_null())
    }

    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Returns the value unchanged, for later evaluation.
    pub fn node(&self, key: &str) -> Option<Node> {
        self.get(key).cloned()
    }

    pub fn template(&self, key: &str) -> Option<Template> {
        self.get(key).and_then(template)
    }

    /// Returns the value of a key that takes a plain text.
    pub fn text(&self, key: &str) -> Option<Text> {
        self.get(key).and_then(text_of)
    }

    pub fn string(&self, key: &str) -> Option<String> {
        self.text(key).map(|text| text.text)
    }

    pub fn until(&self, key: &str) -> Option<Until> {
        let text = self.text(key)?;
        let date = Date::parse(&text.text)?;
        let span = text.span;
        Some(Until { date, span })
    }

    pub fn flag(&self, key: &str) -> bool {
        matches!(
            self.get(key).map(|node| &node.value),
            Some(NodeValue::Bool(true))
        )
    }

    pub fn expr(&self, key: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Expr> {
        self.get(key).and_then(|node| expression(node, diagnostics))
    }

    pub fn items(&self, key: &str) -> &'a [Node] {
        self.get(key).map_or(&[], Node::items)
    }

    pub fn entries(&self, key: &str) -> &'a [Entry] {
        self.get(key).map_or(&[], Node::entries)
    }
}

/// Returns a scalar as a template.
pub(crate) fn template(node: &Node) -> Option<Template> {
    Some(Template {
        text: quantity::spelling(node)?,
        span: node.span,
    })
}

/// Returns a text that is not a template.
pub(crate) fn text_of(node: &Node) -> Option<Text> {
    Some(Text {
        text: node.as_text()?.to_owned(),
        span: node.span,
    })
}

/// Returns a scalar as an expression, without the optional `${{ }}` around the whole.
pub(crate) fn expression(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Expr> {
    let whole = quantity::spelling(node)?;
    let exact = node.span.len as usize == whole.len();
    let mut expr = trimmed(&whole, 0, whole.len(), node.span, exact);
    if let Some(inner) = expr
        .text
        .strip_prefix("${{")
        .and_then(|rest| rest.strip_suffix("}}"))
    {
        let start = whole.find("${{").unwrap_or(0) + 3;
        expr = trimmed(&whole, start, start + inner.len(), node.span, exact);
    }
    if expr.text.is_empty() {
        diagnostics.push(Diagnostic::error(node.span, "the expression is empty"));
        return None;
    }
    if holds_interpolation(&expr.text) {
        diagnostics.push(
            Diagnostic::error(node.span, "`${{ }}` inside an expression")
                .with_help("this is an expression already: write the names as they are, such as `matrix.version`"),
        );
        return None;
    }
    Some(expr)
}

/// Returns part of a text without surrounding white space, with its place.
fn trimmed(whole: &str, start: usize, end: usize, span: Span, exact: bool) -> Expr {
    let part = whole.get(start..end).unwrap_or_default();
    let text = part.trim();
    let before = start + (part.len() - part.trim_start().len());
    let span = if exact {
        within(span, whole, before, text.len())
    } else {
        span
    };
    Expr {
        text: text.to_owned(),
        span,
    }
}

/// Returns the span of `len` bytes from byte `start` of a text. The source must hold the text at `span` character by
/// character.
pub(crate) fn within(span: Span, text: &str, start: usize, len: usize) -> Span {
    let before = text.get(..start).unwrap_or_default();
    let (lines, column) = match before.rfind('\n') {
        Some(at) => (
            before.matches('\n').count(),
            before[at + 1..].chars().count() + 1,
        ),
        None => (0, span.column as usize + before.chars().count()),
    };
    Span {
        file: span.file,
        line: span.line + lines as u32,
        column: column as u32,
        offset: span.offset + start as u32,
        len: len as u32,
    }
}
