//! Merges the trees of Compose files by the rules of the specification, as docker compose does.
//!
//! Maps are merged by key, lists are appended, scalars are replaced, and null keeps what is there. The exceptions are
//! in [`rule`]. What must be unique in the result is handled by [`super::unique`]. Texts may hold expressions: a map
//! with a name that only a cell knows becomes a list.

use super::forms;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::quantity::spelling;
use crate::language::shape::check::found;
use crate::node::{Entry, Node, NodeValue, Text};
use std::collections::{HashMap, HashSet};

/// Merges the tree of a later Compose file over that of the earlier ones.
pub fn files(base: Node, over: Node, diagnostics: &mut Vec<Diagnostic>) -> Node {
    let mut path = Vec::new();
    Merge { diagnostics }.value(&mut path, base, over)
}

/// Merges a service over the one that it extends.
pub fn service(base: Node, over: Node, diagnostics: &mut Vec<Diagnostic>) -> Node {
    let mut path = vec!["services".to_owned(), "x".to_owned()];
    Merge { diagnostics }.value(&mut path, base, over)
}

/// How two values are merged.
enum Rule {
    /// By their types.
    Plain,
    /// The later value replaces the earlier one.
    Replace,
    /// Maps or lists of `NAME=value`: by name.
    Pairs,
    /// Maps or lists of host names: all different ones.
    Hosts,
    /// Texts or lists: one after the other.
    Sequence,
    /// Maps or lists of names: by name, where a name in a list has these settings.
    Names(fn(&Node) -> NodeValue),
    /// A directory or a map.
    Build,
    /// Options are merged only if both sides have the same driver.
    Logging,
    /// Address ranges, by subnet.
    Ranges,
}

/// Returns the rule for the values at a path.
fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let ["services", _, rest @ ..] = path.as_slice() else {
        return match path.as_slice() {
            ["networks" | "volumes", _, "labels"] => Rule::Pairs,
            ["networks", _, "ipam", "config"] => Rule::Ranges,
            _ => Rule::Plain,
        };
    };
    match rest {
        ["command" | "entrypoint"] | ["healthcheck", "test"] | ["ulimits", _] => Rule::Replace,
        ["environment" | "labels" | "annotations" | "sysctls"]
        | ["build", "args" | "labels" | "additional_contexts"]
        | ["deploy", "labels"] => Rule::Pairs,
        ["extra_hosts"] | ["build", "extra_hosts"] => Rule::Hosts,
        ["dns" | "dns_opt" | "dns_search" | "env_file" | "label_file" | "tmpfs"] => Rule::Sequence,
        ["depends_on"] => Rule::Names(started),
        ["networks" | "models"] => Rule::Names(|_| NodeValue::Null),
        ["build"] => Rule::Build,
        ["logging"] => Rule::Logging,
        _ => Rule::Plain,
    }
}

/// Returns the settings of a dependency that is only named.
fn started(name: &Node) -> NodeValue {
    let entry = |key: &str, value: NodeValue| Entry {
        key: Text {
            text: key.to_owned(),
            span: name.span,
        },
        value: Node {
            value,
            span: name.span,
        },
    };
    NodeValue::Map(vec![
        entry("condition", NodeValue::Text("service_started".to_owned())),
        entry("required", NodeValue::Bool(true)),
    ])
}

struct Merge<'d> {
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl Merge<'_> {
    fn value(&mut self, path: &mut Vec<String>, base: Node, over: Node) -> Node {
        let rule = rule(path);
        match rule {
            Rule::Replace => over,
            _ if over.is_null() => base,
            _ if base.is_null() => over,
            Rule::Plain => self.plain(path, base, over),
            Rule::Pairs => match (forms::pairs(&base), forms::pairs(&over)) {
                (Some(known), Some(more)) => map(over.span, replaced(known, more)),
                _ => self.appended(path, base, over),
            },
            Rule::Hosts => match (forms::sequence(&base), forms::sequence(&over)) {
                (Some(mut known), Some(more)) => {
                    let there: HashSet<String> = known.iter().filter_map(spelling).collect();
                    let is_new =
                        |item: &Node| !spelling(item).is_some_and(|it| there.contains(&it));
                    known.extend(more.into_iter().filter(is_new));
                    list(over.span, known)
                }
                _ => self.unlike(path, &base, over),
            },
            Rule::Sequence => self.appended(path, base, over),
            Rule::Names(settings) => {
                match (forms::names(&base, settings), forms::names(&over, settings)) {
                    (Some(known), Some(more)) => {
                        let entries = self.entries(path, known, more);
                        map(over.span, entries)
                    }
                    _ => self.unlike(path, &base, over),
                }
            }
            Rule::Build => {
                let (base, over) = (with_context(base), with_context(over));
                self.plain(path, base, over)
            }
            Rule::Logging => match (base.get("driver"), over.get("driver")) {
                (Some(one), Some(other)) if one.value != other.value => over,
                _ => self.plain(path, base, over),
            },
            Rule::Ranges => self.ranges(path, base, over),
        }
    }

    fn plain(&mut self, path: &mut Vec<String>, base: Node, over: Node) -> Node {
        let span = over.span;
        match (base, over) {
            (
                Node {
                    value: NodeValue::Map(known),
                    ..
                },
                Node {
                    value: NodeValue::Map(more),
                    ..
                },
            ) => map(span, self.entries(path, known, more)),
            (
                Node {
                    value: NodeValue::List(mut known),
                    ..
                },
                Node {
                    value: NodeValue::List(more),
                    ..
                },
            ) => {
                known.extend(more);
                list(span, known)
            }
            (base, over) if is_scalar(&base) => over,
            (base, over) => self.unlike(path, &base, over),
        }
    }

    fn entries(
        &mut self,
        path: &mut Vec<String>,
        known: Vec<Entry>,
        more: Vec<Entry>,
    ) -> Vec<Entry> {
        let mut at = index(&known);
        let mut known: Vec<Option<Entry>> = known.into_iter().map(Some).collect();
        for entry in more {
            let place = at.get(&entry.key.text).copied();
            match place.and_then(|place| known.get_mut(place)) {
                None => {
                    at.insert(entry.key.text.clone(), known.len());
                    known.push(Some(entry));
                }
                Some(slot) => {
                    let Some(base) = slot.take() else { continue };
                    path.push(entry.key.text.clone());
                    let value = self.value(path, base.value, entry.value);
                    path.pop();
                    // A merged map keeps the place where its name was written first.
                    let key = match value.value {
                        NodeValue::Map(_) => base.key,
                        _ => entry.key,
                    };
                    *slot = Some(Entry { key, value });
                }
            }
        }
        known.into_iter().flatten().collect()
    }

    fn appended(&mut self, path: &[String], base: Node, over: Node) -> Node {
        match (forms::sequence(&base), forms::sequence(&over)) {
            (Some(mut known), Some(more)) => {
                known.extend(more);
                list(over.span, known)
            }
            _ => self.unlike(path, &base, over),
        }
    }

    fn ranges(&mut self, path: &mut Vec<String>, base: Node, over: Node) -> Node {
        let (
            Node {
                value: NodeValue::List(known),
                ..
            },
            NodeValue::List(_),
        ) = (&base, &over.value)
        else {
            return self.unlike(path, &base, over);
        };
        let mut items = known.clone();
        let subnet = |item: &Node| item.get("subnet").and_then(spelling);
        let places = items.iter().enumerate();
        let mut at: HashMap<Option<String>, usize> =
            places.map(|(at, item)| (subnet(item), at)).collect();
        for item in over.items() {
            match at.get(&subnet(item)).and_then(|at| items.get_mut(*at)) {
                Some(known) => *known = self.plain(path, known.clone(), item.clone()),
                None => {
                    at.insert(subnet(item), items.len());
                    items.push(item.clone());
                }
            }
        }
        list(over.span, items)
    }

    /// Reports two values of which neither can be merged over the other.
    fn unlike(&mut self, path: &[String], base: &Node, over: Node) -> Node {
        let name = path.last().map_or("the file", String::as_str);
        let message = format!(
            "`{name}` is {}, and {} in the file that it overrides",
            found(&over),
            found(base)
        );
        self.diagnostics.push(
            Diagnostic::error(over.span, message)
                .with_related(base.span, "written here")
                .with_help("write it in the same form, or replace it: `!override`"),
        );
        over
    }
}

fn is_scalar(node: &Node) -> bool {
    !matches!(node.value, NodeValue::Map(_) | NodeValue::List(_))
}

fn map(span: Span, entries: Vec<Entry>) -> Node {
    Node {
        value: NodeValue::Map(entries),
        span,
    }
}

fn list(span: Span, items: Vec<Node>) -> Node {
    Node {
        value: NodeValue::List(items),
        span,
    }
}

fn index(entries: &[Entry]) -> HashMap<String, usize> {
    let pairs = entries.iter().enumerate();
    pairs
        .map(|(at, entry)| (entry.key.text.clone(), at))
        .collect()
}

/// Adds entries; one with a known name takes the place of the earlier one.
fn replaced(known: Vec<Entry>, more: Vec<Entry>) -> Vec<Entry> {
    let mut result: Vec<Entry> = Vec::new();
    let mut at: HashMap<String, usize> = HashMap::new();
    for entry in known.into_iter().chain(more) {
        match at.get(&entry.key.text).and_then(|at| result.get_mut(*at)) {
            Some(slot) => *slot = entry,
            None => {
                at.insert(entry.key.text.clone(), result.len());
                result.push(entry);
            }
        }
    }
    result
}

/// Returns `build: DIR` as `build: { context: DIR }`.
fn with_context(node: Node) -> Node {
    match &node.value {
        NodeValue::Text(_) => {
            let span = node.span;
            let key = Text {
                text: "context".to_owned(),
                span,
            };
            map(span, vec![Entry { key, value: node }])
        }
        _ => node,
    }
}
