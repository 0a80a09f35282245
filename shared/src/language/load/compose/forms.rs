//! The forms that Compose allows for one thing: a map, a list of `NAME=value`, a list of names, or a text.

use crate::language::quantity;
use crate::node::{Entry, Node, NodeValue, Text, written_anew};

/// Returns a map or list of `NAME=value` as the entries of a map. Returns `None` if a name is known only later.
pub fn pairs(node: &Node) -> Option<Vec<Entry>> {
    match &node.value {
        NodeValue::Map(entries) => Some(entries.clone()),
        NodeValue::Null => Some(Vec::new()),
        NodeValue::List(items) => items.iter().map(pair).collect(),
        _ => None,
    }
}

fn pair(item: &Node) -> Option<Entry> {
    let text = quantity::spelling(item)?;
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text.as_str(), None),
    };
    if name.contains("${{") {
        return None;
    }
    let value = match value {
        Some(value) => written_anew(value.to_owned(), item.span),
        None => Node {
            value: NodeValue::Null,
            span: item.span,
        },
    };
    Some(Entry {
        key: Text {
            text: name.to_owned(),
            span: item.span,
        },
        value,
    })
}

/// Returns a text, list or map as a list; entries of a map become `NAME=value`, several if the value is a list.
pub fn sequence(node: &Node) -> Option<Vec<Node>> {
    let written = |entry: &Entry, value: &Node| {
        let name = &entry.key.text;
        let text = match quantity::spelling(value) {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        };
        written_anew(text, value.span)
    };
    match &node.value {
        NodeValue::Null => Some(Vec::new()),
        NodeValue::List(items) => Some(items.clone()),
        NodeValue::Map(entries) => {
            let mut items = Vec::new();
            for entry in entries {
                match &entry.value.value {
                    NodeValue::List(values) => {
                        items.extend(values.iter().map(|value| written(entry, value)));
                    }
                    _ => items.push(written(entry, &entry.value)),
                }
            }
            Some(items)
        }
        _ => Some(vec![node.clone()]),
    }
}

/// Returns a map, or a list of names as a map in which each has the given settings.
pub fn names(node: &Node, settings: fn(&Node) -> NodeValue) -> Option<Vec<Entry>> {
    match &node.value {
        NodeValue::Null => Some(Vec::new()),
        NodeValue::Map(entries) => Some(entries.clone()),
        NodeValue::List(items) => items
            .iter()
            .map(|item| {
                let key = Text {
                    text: quantity::spelling(item)?,
                    span: item.span,
                };
                let value = Node {
                    value: settings(item),
                    span: item.span,
                };
                Some(Entry { key, value })
            })
            .collect(),
        _ => None,
    }
}

/// Splits a text, but not within `${{ }}`.
pub fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("${{") {
            at = crate::expr::interpolation_end(text, at + 3).map_or(text.len(), |end| end + 2);
            continue;
        }
        let Some(c) = rest.chars().next() else { break };
        if c == separator {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + c.len_utf8();
        }
        at += c.len_utf8();
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_not_split() {
        assert_eq!(split("a:b:c", ':'), ["a", "b", "c"]);
        assert_eq!(
            split("${{ x ? 'a:b' : c }}:/d:ro", ':'),
            ["${{ x ? 'a:b' : c }}", "/d", "ro"]
        );
        assert_eq!(split("${{ open:", ':'), ["${{ open:"]);
        assert_eq!(split("", ':'), [""]);
        assert_eq!(split("ä:ö", ':'), ["ä", "ö"]);
    }
}
