//! Performs the merges that `extends` deferred: lists in lists, maps in lists, and `NAME=value` together with
//! `NAME: value`.

use crate::node::{Entry, Node, NodeValue, Text};

/// Keys that take lists of `NAME=value` or maps. `extra_hosts` also takes `NAME:address`.
const PAIRS: [&str; 4] = ["environment", "labels", "extra_hosts", "args"];

/// Keys that take lists.
const LISTS: [&str; 14] = [
    "volumes",
    "ports",
    "expose",
    "dns",
    "tmpfs",
    "env_file",
    "cap_add",
    "cap_drop",
    "devices",
    "security_opt",
    "aliases",
    "depends_on",
    "secrets",
    "configs",
];

/// Returns the definition with each of these keys in one form. Values that are not evaluated yet stay unchanged.
pub fn settle(definition: &Node) -> Node {
    let entries = definition.entries().iter();
    Node {
        value: NodeValue::Map(
            entries
                .filter(|entry| !entry.value.is_null())
                .map(|entry| Entry {
                    key: entry.key.clone(),
                    value: settle_value(&entry.key.text, &entry.value),
                })
                .collect(),
        ),
        span: definition.span,
    }
}

fn settle_value(key: &str, node: &Node) -> Node {
    match (&node.value, key) {
        (NodeValue::Map(_), "build") => settle(node),
        (NodeValue::List(_), "depends_on") => one_map_of_names(node),
        (NodeValue::List(_), "ulimits" | "networks") => merged_maps(node),
        (NodeValue::List(_), _) if PAIRS.contains(&key) => pairs(key, node),
        (NodeValue::List(_), _) if LISTS.contains(&key) => Node {
            value: NodeValue::List(flat(node)),
            span: node.span,
        },
        _ => node.clone(),
    }
}

/// Returns the items of a list and of the lists in it, without nulls.
fn flat(node: &Node) -> Vec<Node> {
    let mut items = Vec::new();
    for item in node.items() {
        match &item.value {
            NodeValue::List(_) => items.extend(flat(item)),
            NodeValue::Null => {}
            _ => items.push(item.clone()),
        }
    }
    items
}

/// Merges a list of `NAME=value` texts and maps into one map, where later entries win. Returns the list unchanged if a
/// part is not evaluated yet.
fn pairs(key: &str, node: &Node) -> Node {
    let mut entries: Vec<Entry> = Vec::new();
    let mut put = |entry: Entry| match entries
        .iter_mut()
        .find(|known| known.key.text == entry.key.text)
    {
        // A host may have several addresses.
        Some(known) if key != "extra_hosts" => *known = entry,
        _ => entries.push(entry),
    };
    for item in flat(node) {
        match &item.value {
            NodeValue::Map(more) => more.iter().cloned().for_each(&mut put),
            NodeValue::Text(text) => {
                let split = match key {
                    "extra_hosts" => text.find(['=', ':']),
                    _ => text.find('='),
                };
                let (name, value) = match split {
                    Some(at) => (text.get(..at), text.get(at + 1..)),
                    None => (Some(text.as_str()), None),
                };
                let name = name.unwrap_or_default();
                if name.contains("${{") {
                    return node.clone();
                }
                put(Entry {
                    key: Text {
                        text: name.to_owned(),
                        span: item.span,
                    },
                    value: Node {
                        value: value
                            .map_or(NodeValue::Null, |value| NodeValue::Text(value.to_owned())),
                        span: item.span,
                    },
                });
            }
            _ => return node.clone(),
        }
    }
    Node {
        value: NodeValue::Map(entries),
        span: node.span,
    }
}

/// Returns the names under `depends_on`, with their places.
pub fn dependencies(definition: &Node) -> Vec<Text> {
    let Some(node) = definition.get("depends_on") else {
        return Vec::new();
    };
    let settled = settle_value("depends_on", node);
    settled
        .entries()
        .iter()
        .map(|entry| entry.key.clone())
        .collect()
}

/// Returns the names under `depends_on` that are required as written: `required` is absent or `true`.
pub fn required_dependencies(definition: &Node) -> Vec<Text> {
    let Some(node) = definition.get("depends_on") else {
        return Vec::new();
    };
    let settled = settle_value("depends_on", node);
    let optional = |settings: &Node| {
        settings
            .get("required")
            .is_some_and(|required| !matches!(&required.value, NodeValue::Bool(true)))
    };
    settled
        .entries()
        .iter()
        .filter(|entry| !optional(&entry.value))
        .map(|entry| entry.key.clone())
        .collect()
}

/// Merges a list of names and maps into one map.
fn one_map_of_names(node: &Node) -> Node {
    let mut entries: Vec<Entry> = Vec::new();
    for item in flat(node) {
        let more = match &item.value {
            NodeValue::Map(more) => more.clone(),
            NodeValue::Text(name) => vec![Entry {
                key: Text {
                    text: name.clone(),
                    span: item.span,
                },
                value: Node {
                    value: NodeValue::Map(Vec::new()),
                    span: item.span,
                },
            }],
            _ => continue,
        };
        more.into_iter().for_each(|entry| set(&mut entries, entry));
    }
    Node {
        value: NodeValue::Map(entries),
        span: node.span,
    }
}

/// Sets an entry, replacing an earlier one with the same key.
fn set(entries: &mut Vec<Entry>, entry: Entry) {
    let known = entries.iter_mut().find(|e| e.key.text == entry.key.text);
    match known {
        Some(known) => *known = entry,
        None => entries.push(entry),
    }
}

/// Merges a list of maps into one map, where later entries win. Returns the list unchanged if a part is not a map.
fn merged_maps(node: &Node) -> Node {
    let mut entries: Vec<Entry> = Vec::new();
    for item in flat(node) {
        let NodeValue::Map(more) = item.value else {
            return node.clone();
        };
        more.into_iter().for_each(|entry| set(&mut entries, entry));
    }
    Node {
        value: NodeValue::Map(entries),
        span: node.span,
    }
}
