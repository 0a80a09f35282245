//! Merges services by Compose's rules: for `extends`, and for a service of a spec over one of a Compose file.
//!
//! Scalars, `command`, `entrypoint` and `healthcheck.test` are replaced, maps are merged by key, and lists are
//! appended. If one side is an expression or has another form (a list over a map), the merge is deferred: the value
//! becomes a list of both, which [`crate::language::service`] merges once it is evaluated.

use crate::diagnostic::Diagnostic;
use crate::language::shape::check::closest;
use crate::language::shape::name::is_extension;
use crate::node::{Entry, Node, NodeValue, Text};
use indexmap::IndexMap;

/// Keys whose values are combined with those of the base.
const ADDED: [&str; 29] = [
    "environment",
    "labels",
    "extra_hosts",
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
    "args",
    "ulimits",
    "networks",
    "secrets",
    "configs",
    "sysctls",
    "annotations",
    "storage_opt",
    "group_add",
    "dns_opt",
    "dns_search",
    "device_cgroup_rules",
    "volumes_from",
    "label_file",
];

/// Keys that are maps of settings, merged key by key.
const MERGED: [&str; 8] = [
    "build",
    "healthcheck",
    "logging",
    "deploy",
    "resources",
    "limits",
    "reservations",
    "restart_policy",
];

/// Keys that belong to one service only, so `extends` doesn't inherit them.
const OWN: [&str; 4] = ["extends", "ready", "start", "artifacts"];

/// Merges `over` onto `base`.
pub(crate) fn merge_service(base: &Node, over: &Node) -> Node {
    let mut entries: Vec<Entry> = base.entries().to_vec();
    for entry in over.entries().iter().filter(|entry| !entry.value.is_null()) {
        match entries
            .iter_mut()
            .find(|known| known.key.text == entry.key.text)
        {
            None => entries.push(entry.clone()),
            Some(known) => {
                known.value = merge_value(&entry.key.text, &known.value, &entry.value);
                known.key = entry.key.clone();
            }
        }
    }
    Node {
        value: NodeValue::Map(entries),
        span: over.span,
    }
}

fn merge_value(key: &str, base: &Node, over: &Node) -> Node {
    let both_maps = matches!(
        (&base.value, &over.value),
        (NodeValue::Map(_), NodeValue::Map(_))
    );
    if MERGED.contains(&key) {
        return match (context_of(key, base), context_of(key, over)) {
            (Some(base), Some(over)) => merge_service(&base, &over),
            _ => over.clone(),
        };
    }
    if !ADDED.contains(&key) || base.is_null() {
        return over.clone();
    }
    if both_maps {
        return merge_by_key(base, over);
    }
    Node {
        value: NodeValue::List(vec![base.clone(), over.clone()]),
        span: over.span,
    }
}

/// Returns the value as a map; `build: DIR` becomes `build: { context: DIR }`.
fn context_of(key: &str, node: &Node) -> Option<Node> {
    match &node.value {
        NodeValue::Map(_) => Some(node.clone()),
        NodeValue::Text(_) if key == "build" && !node.is_template() => Some(Node {
            value: NodeValue::Map(vec![Entry {
                key: Text {
                    text: "context".into(),
                    span: node.span,
                },
                value: node.clone(),
            }]),
            span: node.span,
        }),
        _ => None,
    }
}

fn merge_by_key(base: &Node, over: &Node) -> Node {
    let mut entries: Vec<Entry> = base.entries().to_vec();
    for entry in over.entries() {
        match entries
            .iter_mut()
            .find(|known| known.key.text == entry.key.text)
        {
            Some(known) => *known = entry.clone(),
            None => entries.push(entry.clone()),
        }
    }
    Node {
        value: NodeValue::Map(entries),
        span: over.span,
    }
}

/// Returns a service's definition without the keys that are its own. `env` of a process becomes `environment`.
fn definition(node: &Node) -> Node {
    let entries = node.entries().iter();
    let entries = entries
        .filter(|entry| !OWN.contains(&entry.key.text.as_str()) && !is_extension(&entry.key.text))
        .map(|entry| {
            let mut entry = entry.clone();
            if entry.key.text == "env" {
                entry.key.text = "environment".into();
            }
            entry
        });
    Node {
        value: NodeValue::Map(entries.collect()),
        span: node.span,
    }
}

/// Adds an image to a definition whose base is missing, so that no further error is reported for the missing parts.
fn with_some_image(mut definition: Node) -> Node {
    let known = |key: &str| definition.get(key).is_some();
    if !known("image") && !known("build") && !known("process") {
        let text = |text: &str| Text {
            text: text.to_owned(),
            span: definition.span,
        };
        let image = Entry {
            key: text("image"),
            value: Node {
                value: NodeValue::Text("unknown".into()),
                span: definition.span,
            },
        };
        if let NodeValue::Map(entries) = &mut definition.value {
            entries.push(image);
        }
    }
    definition
}

/// Returns the name of the service that another one extends.
fn base_of(node: &Node) -> Option<Text> {
    let extends = node.get("extends")?;
    super::fields::text_of(extends.get("service").unwrap_or(extends))
}

/// Returns the definitions of all services by name, with `extends` resolved.
pub fn resolve(
    services: &IndexMap<String, Entry>,
    diagnostics: &mut Vec<Diagnostic>,
) -> IndexMap<String, Node> {
    let mut resolved: IndexMap<String, Node> = IndexMap::new();
    for name in services.keys() {
        resolve_one(name, services, &mut resolved, diagnostics);
    }
    resolved.sort_by(|a, _, b, _| services.get_index_of(a).cmp(&services.get_index_of(b)));
    resolved
}

/// Follows a service's bases to the first one that is resolved or extends nothing, then merges on the way back.
fn resolve_one(
    name: &str,
    services: &IndexMap<String, Entry>,
    resolved: &mut IndexMap<String, Node>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut chain: Vec<&Entry> = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(current) = next.take() {
        let Some(entry) = services.get(&current) else {
            break;
        };
        if resolved.contains_key(&current) {
            break;
        }
        chain.push(entry);
        let Some(base) = base_of(&entry.value) else {
            break;
        };
        if chain.iter().any(|seen| seen.key.text == base.text) {
            let path: Vec<&str> = chain.iter().map(|entry| entry.key.text.as_str()).collect();
            diagnostics.push(
                Diagnostic::error(
                    base.span,
                    format!(
                        "services extend each other in a circle: {} → {}",
                        path.join(" → "),
                        base.text
                    ),
                )
                .with_help("one of them has to stand on its own"),
            );
        } else if services.contains_key(&base.text) {
            next = Some(base.text);
        } else {
            let help = match closest(&base.text, services.keys().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "a service extends one of the same spec".into(),
            };
            diagnostics.push(
                Diagnostic::error(
                    base.span,
                    format!("there is no service `{}` to extend", base.text),
                )
                .with_help(help),
            );
        }
    }
    for entry in chain.into_iter().rev() {
        let own = definition(&entry.value);
        let merged = match base_of(&entry.value).and_then(|base| resolved.get(&base.text).cloned())
        {
            Some(base) => merge_service(&base, &own),
            None if base_of(&entry.value).is_some() => with_some_image(own),
            None => own,
        };
        resolved.insert(entry.key.text.clone(), merged);
    }
}
