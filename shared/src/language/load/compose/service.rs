//! Rewrites a service of a Compose file with a spec's keys: profiles become `start: manual`, links become aliases, and
//! secrets and configs include the file's definitions of them.

use super::profiles::Profiles;
use super::top::is_external;
use super::variables::Variables;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::keys::compose::why_unsupported;
use crate::language::quantity;
use crate::language::shape::check::{closest, unsupported};
use crate::node::{Entry, Node, NodeValue, Text};
use indexmap::IndexMap;

/// Additional name of a service that another service links to.
pub struct Link {
    service: String,
    alias: Node,
}

/// Returns whether a key of Compose can't be ignored and isn't supported.
pub fn is_unsupported(key: &str) -> bool {
    why_unsupported(key).is_some()
}

/// What a service of a Compose file is rewritten with.
pub struct Words<'w> {
    /// The merged Compose files.
    pub file: &'w Node,
    pub variables: &'w mut Variables,
    pub profiles: &'w mut Profiles,
    /// Further names that services get.
    pub links: &'w mut Vec<Link>,
}

impl Words<'_> {
    /// Rewrites the keys that only a Compose file has.
    pub fn rewrite(&mut self, entry: &mut Entry, diagnostics: &mut Vec<Diagnostic>) {
        let NodeValue::Map(keys) = &mut entry.value.value else {
            return;
        };
        let mut more = Vec::new();
        keys.retain_mut(|key| match key.key.text.as_str() {
            "profiles" => {
                if !self.profiles.start(&key.value) {
                    more.push(manual(key.key.span));
                }
                false
            }
            "links" => {
                more.push(self.linked(key));
                false
            }
            kind @ ("secrets" | "configs") => {
                let kind = kind.to_owned();
                let items = key.value.items().iter();
                let placed = items
                    .filter_map(|item| placed(&kind, item, self.file, self.variables, diagnostics));
                key.value.value = NodeValue::List(placed.collect());
                true
            }
            "environment" => {
                self.variables.give(&mut key.value);
                true
            }
            "post_start" | "pre_stop" => {
                if let NodeValue::List(hooks) = &mut key.value.value {
                    for hook in hooks {
                        let keys = match &mut hook.value {
                            NodeValue::Map(keys) => keys.as_mut_slice(),
                            _ => &mut [],
                        };
                        let mut keys = keys.iter_mut();
                        if let Some(known) = keys.find(|key| key.key.text == "environment") {
                            self.variables.give(&mut known.value);
                        }
                    }
                }
                true
            }
            "build" => {
                if let NodeValue::Map(keys) = &mut key.value.value {
                    let args = keys.iter_mut().filter(|key| key.key.text == "args");
                    args.for_each(|args| self.variables.give(&mut args.value));
                    let mut secrets = keys.iter_mut().filter(|key| key.key.text == "secrets");
                    if let Some(NodeValue::List(items)) =
                        secrets.next().map(|key| &mut key.value.value)
                    {
                        items
                            .iter_mut()
                            .for_each(|item| self.secret_of_build(item, diagnostics));
                    }
                }
                true
            }
            _ => true,
        });
        for key in more {
            let known = keys.iter_mut().find(|known| known.key.text == key.key.text);
            match known {
                // Keep both values: the decoder reads lists within a list.
                Some(known) => {
                    let both = vec![key.value, known.value.clone()];
                    known.value.value = NodeValue::List(both);
                }
                None => keys.push(key),
            }
        }
    }

    /// Gives a secret of a build the text that the file's `secrets` have for it.
    fn secret_of_build(&mut self, item: &mut Node, diagnostics: &mut Vec<Diagnostic>) {
        let placed = placed("secrets", item, self.file, self.variables, diagnostics);
        let Some(NodeValue::Map(mut entries)) = placed.map(|placed| placed.value) else {
            return;
        };
        // In a build the target is an id, not a path.
        entries.retain(|entry| entry.key.text != "target");
        let target = item.get("target").cloned();
        entries.extend(target.map(|target| entry("target", target)));
        item.value = NodeValue::Map(entries);
    }

    /// Notes the aliases of `links`. Returns the dependencies that links are.
    fn linked(&mut self, key: &Entry) -> Entry {
        let linked = key.value.items().iter().filter_map(link);
        let linked: Vec<(Text, Option<Node>)> = linked.collect();
        for (service, alias) in &linked {
            self.links.extend(alias.clone().map(|alias| Link {
                service: service.text.clone(),
                alias,
            }));
        }
        depends_on(&key.key, linked)
    }
}

/// Rewrites `devices` in the long form as `SOURCE:TARGET:PERMISSIONS`. Leaves a map with any other key to the check.
pub fn shorten_devices(service: &mut Node) {
    let NodeValue::Map(keys) = &mut service.value else {
        return;
    };
    for key in keys.iter_mut().filter(|key| key.key.text == "devices") {
        let NodeValue::List(items) = &mut key.value.value else {
            continue;
        };
        for item in items {
            let known = |entry: &Entry| DEVICE.contains(&entry.key.text.as_str());
            let get = |key: &str| item.get(key).and_then(quantity::spelling);
            let Some(source) = get("source").filter(|_| item.entries().iter().all(known)) else {
                continue;
            };
            let target = get("target").unwrap_or_else(|| source.clone());
            let text = match get("permissions") {
                Some(permissions) => format!("{source}:{target}:{permissions}"),
                None => format!("{source}:{target}"),
            };
            *item = crate::node::written_anew(text, item.span);
        }
    }
}

const DEVICE: [&str; 3] = ["source", "target", "permissions"];

fn text_node(text: &str, span: Span) -> Node {
    Node {
        value: NodeValue::Text(text.to_owned()),
        span,
    }
}

fn entry(key: &str, value: Node) -> Entry {
    Entry {
        key: Text {
            text: key.to_owned(),
            span: value.span,
        },
        value,
    }
}

/// Returns `start: manual`, with the span of the key that implies it.
fn manual(span: Span) -> Entry {
    entry("start", text_node("manual", span))
}

/// Parses `SERVICE` or `SERVICE:ALIAS`.
fn link(item: &Node) -> Option<(Text, Option<Node>)> {
    let text = item.as_text()?;
    let (service, alias) = match text.split_once(':') {
        Some((service, alias)) => (service, Some(alias)),
        None => (text, None),
    };
    let service = Text {
        text: service.to_owned(),
        span: item.span,
    };
    let alias = alias.filter(|alias| *alias != service.text);
    Some((service, alias.map(|alias| text_node(alias, item.span))))
}

/// Returns `depends_on` for linked services, because a link is also a dependency.
fn depends_on(key: &Text, linked: Vec<(Text, Option<Node>)>) -> Entry {
    let names = linked.into_iter();
    let names = names.map(|(service, _)| text_node(&service.text, service.span));
    entry(
        "depends_on",
        Node {
            value: NodeValue::List(names.collect()),
            span: key.span,
        },
    )
}

/// Adds the aliases under which other services link to each service.
pub fn add_aliases(services: &mut IndexMap<String, Entry>, links: Vec<Link>) {
    for Link { service, alias } in links {
        let Some(NodeValue::Map(keys)) = services
            .get_mut(&service)
            .map(|entry| &mut entry.value.value)
        else {
            continue;
        };
        match keys.iter_mut().find(|key| key.key.text == "aliases") {
            Some(known) => {
                if let NodeValue::List(names) = &mut known.value.value {
                    names.push(alias);
                }
            }
            None => {
                let span = alias.span;
                let value = NodeValue::List(vec![alias]);
                keys.push(entry("aliases", Node { value, span }));
            }
        }
    }
}

/// Returns a service's secret or config with the source of its text and its mount point.
fn placed(
    kind: &str,
    item: &Node,
    file: &Node,
    variables: &mut Variables,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Node> {
    let what = kind.trim_end_matches('s');
    let source = item.get("source").unwrap_or(item);
    let name = quantity::spelling(source)?;
    let known = file.get(kind).map_or(&[][..], Node::entries);
    let Some(definition) = known.iter().find(|entry| entry.key.text == name) else {
        let names = known.iter().map(|entry| entry.key.text.as_str());
        let help = closest(&name, names).map_or_else(
            || format!("define it under `{kind}` at the top of the Compose file"),
            |meant| format!("did you mean `{meant}`?"),
        );
        diagnostics.push(
            Diagnostic::error(source.span, format!("there is no {what} `{name}`")).with_help(help),
        );
        return None;
    };
    let text = text_of(what, definition, variables, diagnostics)?;
    let target = item.get("target").and_then(quantity::spelling);
    let target = target.unwrap_or_else(|| name.clone());
    let target = match kind {
        _ if target.starts_with('/') => target,
        "secrets" => format!("/run/secrets/{target}"),
        _ => format!("/{target}"),
    };
    let place = item.get("target").unwrap_or(source).span;
    let mut entries = vec![
        entry("source", text_node(&name, source.span)),
        entry("target", crate::node::written_anew(target, place)),
        text,
    ];
    let settings = item.entries().iter();
    entries.extend(
        settings
            .filter(|entry| matches!(entry.key.text.as_str(), "uid" | "gid" | "mode"))
            .cloned(),
    );
    Some(Node {
        value: NodeValue::Map(entries),
        span: item.span,
    })
}

/// Returns `file` or `content` of a secret or config.
fn text_of(
    what: &str,
    definition: &Entry,
    variables: &mut Variables,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Entry> {
    let name = &definition.key.text;
    let node = &definition.value;
    let mut refuse = |span: Span, message: String, help: &str| {
        diagnostics.push(Diagnostic::error(span, message).with_help(help));
        None
    };
    if is_external(node) {
        let span = node.get("external").map_or(definition.key.span, |n| n.span);
        return refuse(
            span,
            format!("the {what} `{name}` is external"),
            "there is no store of a cluster here: give it a `file`",
        );
    }
    let get = |key: &str| node.entries().iter().find(|entry| entry.key.text == key);
    if let Some(file) = get("file").filter(|entry| quantity::spelling(&entry.value).is_some()) {
        return Some(file.clone());
    }
    if let Some(content) = get("content") {
        return Some(content.clone());
    }
    if let Some(from) = get("environment") {
        let variable = quantity::spelling(&from.value).unwrap_or_default();
        let Some(value) = variables.get(&variable) else {
            return refuse(
                from.value.span,
                format!("the variable `{variable}` of the {what} `{name}` has no value"),
                "give it one by `stack: { compose: …, variables: { NAME: \"${{ secrets.NAME }}\" } }`; the machine's environment is not read",
            );
        };
        let text = crate::node::written_anew(value.to_template(), from.value.span);
        return Some(entry("content", text));
    }
    refuse(
        definition.key.span,
        format!("the {what} `{name}` has no text"),
        match what {
            "config" => "give it a `file` or `content`",
            _ => "give it a `file`",
        },
    )
}

/// Returns whether a service is in a network. A service that names no network is in the default one.
pub fn is_in(service: &Node, network: &str) -> bool {
    let Some(networks) = service.get("networks").filter(|node| !node.is_null()) else {
        return network == "default";
    };
    names_in(networks, network)
}

fn names_in(networks: &Node, network: &str) -> bool {
    let items = networks.items().iter();
    let mut items = items.map(|item| item.as_text() == Some(network) || names_in(item, network));
    items.any(|found| found) || networks.get(network).is_some()
}

/// Reports unsupported keys that the spec did not remove, and turns zero replicas into `start: manual`.
/// With `by_choice`, the spec says which profiles are active.
pub fn settle(entry: &mut Entry, by_choice: bool, diagnostics: &mut Vec<Diagnostic>) {
    let name = entry.key.text.clone();
    let NodeValue::Map(keys) = &mut entry.value.value else {
        return;
    };
    let mut none = None;
    keys.retain(|key| {
        let (text, span) = (key.key.text.as_str(), key.key.span);
        if key.value.is_null() {
            return !is_unsupported(text);
        }
        if text == "scale" {
            none = none.or(no_container(&key.value));
        }
        if text == "deploy" {
            none = none.or(key.value.get("replicas").and_then(no_container));
        }
        let Some(why) = why_unsupported(text) else {
            return true;
        };
        let same = matches!(
            (text, key.value.as_text().unwrap_or_default()),
            ("network_mode", "bridge" | "default")
                | ("ipc", "private" | "shareable")
                | ("cgroup", "private")
        );
        diagnostics.push(match same {
            true => Diagnostic::warning(span, format!("`{text}` is not used")).with_help(why),
            false => unsupported(&format!("`{text}`"), key.value.span, why),
        });
        false
    });
    let start = keys.iter().find(|key| key.key.text == "start");
    let by_profile = start.filter(|start| !by_choice && start.value.span == start.key.span);
    if let Some(start) = by_profile {
        diagnostics.push(
            Diagnostic::warning(
                start.key.span,
                format!("`{name}` isn't started by itself: it has profiles"),
            )
            .with_help(format!(
                "choose profiles by `stack: {{ compose: …, profiles: [NAME] }}`, let a step start it (`container: {{ start: {name} }}`), or write `start: auto` in the spec's `services`"
            )),
        );
    }
    if let (Some(span), None) = (none, start) {
        keys.push(manual(span));
    }
}

/// Returns the place where a service is set to no containers.
fn no_container(replicas: &Node) -> Option<Span> {
    let none = replicas.value == NodeValue::Int(0);
    none.then_some(replicas.span)
}
