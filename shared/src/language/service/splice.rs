//! Performs the merges that `extends` deferred: lists in lists, maps in lists, and `NAME=value` together with
//! `NAME: value`.

use crate::node::{Entry, Node, NodeValue, Text};

/// Keys that take lists of `NAME=value` or maps. `extra_hosts` also takes `NAME:address`.
const PAIRS: [&str; 8] = [
    "environment",
    "labels",
    "extra_hosts",
    "args",
    "additional_contexts",
    "sysctls",
    "annotations",
    "storage_opt",
];

/// Keys that take lists.
const LISTS: [&str; 22] = [
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
    "group_add",
    "dns_opt",
    "dns_search",
    "device_cgroup_rules",
    "volumes_from",
    "label_file",
    "post_start",
    "pre_stop",
];

/// Returns the definition with each of these keys in one form. Values that are not evaluated yet stay unchanged.
pub fn settle(definition: &Node) -> Node {
    let mut settled = settle_keys(definition);
    let implied = implied(definition);
    if !implied.is_empty()
        && let NodeValue::Map(keys) = &mut settled.value
    {
        let on = depends_on(definition);
        keys.retain(|key| key.key.text != "depends_on");
        let key = Text {
            text: "depends_on".to_owned(),
            span: definition.span,
        };
        keys.push(Entry { key, value: on });
    }
    settled
}

fn settle_keys(definition: &Node) -> Node {
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

/// Returns the services that a definition needs without `depends_on`: those whose network, processes, shared memory or
/// volumes it uses.
fn implied(definition: &Node) -> Vec<Text> {
    let mut names = Vec::new();
    let of = |key: &str| definition.get(key);
    for node in ["network_mode", "pid", "ipc"].into_iter().filter_map(of) {
        let name = node
            .as_text()
            .and_then(|text| text.strip_prefix("service:"));
        names.extend(name.map(|name| (name.to_owned(), node.span)));
    }
    for node in definition.get("volumes_from").map_or(&[][..], Node::items) {
        let name = node
            .as_text()
            .filter(|text| !text.starts_with("container:"));
        let name = name.and_then(|text| text.split(':').next());
        names.extend(name.map(|name| (name.to_owned(), node.span)));
    }
    let names = names.into_iter();
    names
        .filter(|(name, _)| !name.contains("${{"))
        .map(|(text, span)| Text { text, span })
        .collect()
}

/// Returns `depends_on` as a map, with the services that are needed without it. As in Compose, a step that restarts
/// one of those restarts this service, too.
fn depends_on(definition: &Node) -> Node {
    let written = definition.get("depends_on").filter(|node| !node.is_null());
    let mut all = written.map_or_else(
        || Node {
            value: NodeValue::Map(Vec::new()),
            span: definition.span,
        },
        |node| settle_value("depends_on", node),
    );
    let NodeValue::Map(entries) = &mut all.value else {
        return all;
    };
    for key in implied(definition) {
        if entries.iter().all(|entry| entry.key.text != key.text) {
            let span = key.span;
            let restart = Entry {
                key: Text {
                    text: "restart".to_owned(),
                    span,
                },
                value: Node {
                    value: NodeValue::Bool(true),
                    span,
                },
            };
            let value = Node {
                value: NodeValue::Map(vec![restart]),
                span,
            };
            entries.push(Entry { key, value });
        }
    }
    all
}

fn settle_value(key: &str, node: &Node) -> Node {
    match (&node.value, key) {
        (NodeValue::Map(_), "build") => settle(node),
        (NodeValue::List(_), "depends_on") => one_map_of_names(node),
        (NodeValue::List(_), "ulimits") => merged_maps(node),
        (_, "networks") => networks_map(node),
        (NodeValue::List(_), "post_start" | "pre_stop") => Node {
            value: NodeValue::List(flat(node).iter().map(hook).collect()),
            span: node.span,
        },
        (NodeValue::List(_), _) if PAIRS.contains(&key) => pairs(key, node),
        (NodeValue::List(_), _) if LISTS.contains(&key) => Node {
            value: NodeValue::List(flat(node)),
            span: node.span,
        },
        _ => node.clone(),
    }
}

/// Returns a hook with each of its keys in one form.
fn hook(hook: &Node) -> Node {
    match hook.value {
        NodeValue::Map(_) => settle_keys(hook),
        _ => hook.clone(),
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
    let settled = depends_on(definition);
    settled
        .entries()
        .iter()
        .map(|entry| entry.key.clone())
        .collect()
}

/// Returns the services whose images the build of a service needs (`additional_contexts: { NAME: "service:X" }`).
pub fn services_of_build(definition: &Node) -> Vec<Text> {
    let settled = settle_keys(definition);
    let contexts = settled
        .get("build")
        .and_then(|build| build.get("additional_contexts"));
    let contexts = contexts.map_or(&[][..], Node::entries).iter();
    let names = contexts.filter_map(|entry| {
        let name = entry.value.as_text()?.strip_prefix("service:")?;
        let span = entry.value.span;
        let text = name.to_owned();
        (!name.contains("${{")).then_some(Text { text, span })
    });
    names.collect()
}

/// Returns the names under `depends_on` that are required as written: `required` is absent or `true`.
pub fn required_dependencies(definition: &Node) -> Vec<Text> {
    let settled = depends_on(definition);
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

/// Returns `networks` as a map: names become entries without settings, and settings of one network from several places
/// are merged. Returns the node unchanged if a part is not evaluated yet, or is no network.
pub fn networks_map(node: &Node) -> Node {
    let mut entries: Vec<Entry> = Vec::new();
    let items = match &node.value {
        NodeValue::List(_) => flat(node),
        _ => vec![node.clone()],
    };
    for item in items {
        match item.value {
            NodeValue::Map(more) => {
                for entry in more {
                    let known = entries.iter_mut().find(|e| e.key.text == entry.key.text);
                    match known {
                        Some(known) => with_settings(known, entry),
                        None => entries.push(entry),
                    }
                }
            }
            NodeValue::Text(name) if !name.contains("${{") => {
                if entries.iter().all(|known| known.key.text != name) {
                    let (span, value) = (item.span, NodeValue::Null);
                    let key = Text { text: name, span };
                    let value = Node { value, span };
                    entries.push(Entry { key, value });
                }
            }
            _ => return node.clone(),
        }
    }
    Node {
        value: NodeValue::Map(entries),
        span: node.span,
    }
}

/// Adds settings to those of an entry; the added ones win.
fn with_settings(known: &mut Entry, more: Entry) {
    match (&mut known.value.value, more.value.value) {
        (NodeValue::Map(settings), NodeValue::Map(added)) => {
            added.into_iter().for_each(|entry| set(settings, entry));
        }
        (_, NodeValue::Null) => {}
        (_, value) => known.value.value = value,
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
