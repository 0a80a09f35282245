//! Finds the keys of a tree that are accepted and have no effect.

use super::{Kind, Table};
use crate::diagnostic::Diagnostic;
use crate::node::{Entry, Node, NodeValue};

/// Help for a key whose description gives no advice.
const HARMLESS: &str = "it makes no difference to a test";

/// Warns about each key of a map that has no effect by its table.
pub fn warn(table: &'static Table, node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in node.entries().iter().filter(|entry| !entry.value.is_null()) {
        let Some(key) = table.key(&entry.key.text) else {
            continue;
        };
        if key.unused {
            diagnostics.push(warning(entry, key.doc));
        } else {
            value(&key.kind, &entry.value, diagnostics);
        }
    }
}

fn warning(entry: &Entry, doc: &str) -> Diagnostic {
    let advice = doc.split_once(": ").map_or(HARMLESS, |(_, advice)| advice);
    let message = format!("`{}` is not used", entry.key.text);
    Diagnostic::warning(entry.key.span, message).with_help(advice)
}

fn value(kind: &Kind, node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    match kind {
        Kind::Varies(kind) => value(kind, node, diagnostics),
        Kind::Table(table) => warn(table(), node, diagnostics),
        Kind::Map(item) | Kind::Named(_, item) | Kind::Single(_, item) => {
            let entries = node.entries().iter();
            entries.for_each(|entry| value(item, &entry.value, diagnostics));
        }
        Kind::List(item) => {
            for node in node.items() {
                match node.value {
                    // A merge that waits for values leaves lists within a list.
                    NodeValue::List(_) => value(kind, node, diagnostics),
                    _ => value(item, node, diagnostics),
                }
            }
        }
        Kind::ByType {
            scalar: _,
            list,
            map,
        } => {
            let fitting = match node.value {
                NodeValue::List(_) => list,
                NodeValue::Map(_) => map,
                _ => return,
            };
            if let Some(kind) = fitting {
                value(kind, node, diagnostics);
            }
        }
        Kind::Any | Kind::Leaf(_) | Kind::Later | Kind::Unsupported(_) => {}
    }
}
