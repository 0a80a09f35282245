//! Checks a tree against its shape and reports every mismatch: unknown keys, wrong types, missing keys, keys that
//! exclude each other, invalid names, and `${{ }}` where nothing is evaluated.

use super::name::is_extension;
use super::{Kind, Leaf, Rule, Table};
use crate::diagnostic::{Diagnostic, Span};
use crate::language::quantity;
use crate::node::{Entry, Node, NodeValue, Text, holds_interpolation};
use crate::time::Date;

/// Checks `node` against `kind`. `what` is its name in messages, such as "`timeout`" or "an item of `ports`".
pub fn check(kind: &Kind, node: &Node, what: &str, diagnostics: &mut Vec<Diagnostic>) {
    Checker { diagnostics }.value(kind, node, what, false);
}

/// Checks the keys of a map against a table. Null counts as an empty map.
pub fn check_table(
    table: &'static Table,
    node: &Node,
    what: &str,
    diagnostics: &mut Vec<Diagnostic>,
) {
    Checker { diagnostics }.table(table, node, what, false);
}

/// Number of diagnostics after which unknown keys get no suggestion: finding one is slow, and no user reads that many.
const MOST_ADVISED: usize = 1000;

struct Checker<'d> {
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl Checker<'_> {
    fn report(&mut self, span: Span, message: String) -> &mut Diagnostic {
        self.diagnostics.push(Diagnostic::error(span, message));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    /// Checks one value. `varies`: whether a text with `${{ }}` may replace any value here.
    fn value(&mut self, kind: &Kind, node: &Node, what: &str, varies: bool) {
        if varies && node.is_template() && !matches!(kind, Kind::Unsupported(_)) {
            return;
        }
        match kind {
            Kind::Any => self.any(node),
            Kind::Varies(kind) => self.value(kind, node, what, true),
            Kind::Leaf(leaf) => self.leaf(*leaf, node, what),
            Kind::Later => {
                self.report(node.span, format!("{what} is not supported yet"))
                    .help = Some("it is reserved for a later version: leave it out".into());
            }
            Kind::Unsupported(why) => {
                let problem = unsupported(what, node.span, why);
                self.diagnostics.push(problem);
            }
            Kind::ByType { scalar, list, map } => {
                let fitting = match node.value {
                    NodeValue::List(_) => list,
                    NodeValue::Map(_) => map,
                    _ => scalar,
                };
                match fitting {
                    Some(kind) => self.value(kind, node, what, varies),
                    None => self.wrong(kind, node, what),
                }
            }
            Kind::List(item) => match &node.value {
                NodeValue::List(items) => {
                    let what = match item {
                        Kind::Table(table) => table().name.to_owned(),
                        _ => format!("an item of {what}"),
                    };
                    for node in items {
                        self.value(item, node, &what, varies);
                    }
                }
                _ => self.wrong(kind, node, what),
            },
            Kind::Map(item) => self.entries(kind, node, what, |checker, entry| {
                checker.plain_key(&entry.key);
                checker.value(item, &entry.value, &quoted(&entry.key), varies);
            }),
            Kind::Named(rule, item) => self.entries(kind, node, what, |checker, entry| {
                checker.name(*rule, &entry.key.text, entry.key.span);
                checker.named_value(item, entry, varies);
            }),
            Kind::Single(rule, item) => {
                self.entries(kind, node, what, |checker, entry| {
                    checker.name(*rule, &entry.key.text, entry.key.span);
                    checker.value(item, &entry.value, &quoted(&entry.key), varies);
                });
                let entries = node.entries();
                if matches!(node.value, NodeValue::Map(_)) && entries.len() != 1 {
                    let span = entries.get(1).map_or(node.span, |entry| entry.key.span);
                    self.report(span, format!("{what} takes exactly one name"));
                }
            }
            Kind::Table(table) => match node.value {
                NodeValue::Map(_) => self.table(table(), node, what, varies),
                _ => self.wrong(kind, node, what),
            },
        }
    }

    /// Checks a value of any kind, in which only keys can be wrong.
    fn any(&mut self, node: &Node) {
        for entry in node.entries() {
            self.plain_key(&entry.key);
            self.any(&entry.value);
        }
        for item in node.items() {
            self.any(item);
        }
    }

    /// Checks the value of a name. Null counts as an empty map if the name takes a map: `redis:` lacks a service's
    /// required keys.
    fn named_value(&mut self, kind: &Kind, entry: &Entry, varies: bool) {
        let what = quoted(&entry.key);
        match kind {
            Kind::Table(table) if entry.value.is_null() => {
                let node = Node {
                    value: NodeValue::Map(Vec::new()),
                    span: entry.key.span,
                };
                self.table(table(), &node, &what, varies);
            }
            _ => self.value(kind, &entry.value, &what, varies),
        }
    }

    fn entries(
        &mut self,
        kind: &Kind,
        node: &Node,
        what: &str,
        mut each: impl FnMut(&mut Self, &Entry),
    ) {
        match &node.value {
            NodeValue::Map(entries) => entries
                .iter()
                .filter(|entry| !is_extension(&entry.key.text) || matches!(kind, Kind::Map(_)))
                .for_each(|entry| each(self, entry)),
            _ => self.wrong(kind, node, what),
        }
    }

    fn table(&mut self, table: &'static Table, node: &Node, what: &str, varies: bool) {
        for entry in node.entries() {
            let Some(key) = table.key(&entry.key.text) else {
                match &table.rest {
                    _ if is_extension(&entry.key.text) => {}
                    Some((rule, kind)) => {
                        self.name(*rule, &entry.key.text, entry.key.span);
                        self.value(kind, &entry.value, &quoted(&entry.key), varies);
                    }
                    None => self.unknown(table, entry),
                }
                continue;
            };
            if !entry.value.is_null() || matches!(key.kind, Kind::Later) {
                self.value(&key.kind, &entry.value, &quoted(&entry.key), varies);
            } else if key.required || table.is_ruled(key.name) {
                let takes = key.kind.takes();
                self.report(entry.key.span, format!("`{}` has no value", key.name))
                    .help = Some(format!("it takes {takes}"));
            }
        }
        for key in table.all_keys().filter(|key| key.required) {
            if !node
                .entries()
                .iter()
                .any(|entry| entry.key.text == key.name)
            {
                self.report(first_line(node), format!("{what} lacks `{}`", key.name))
                    .help = Some(format!("`{}` is {}", key.name, key.doc));
            }
        }
        let misspelt = |entry: &Entry| table.key(&entry.key.text).is_none() && table.rest.is_none();
        let misspelt = node.entries().iter().any(misspelt);
        for rule in table.rules {
            self.rule(rule, node, what, misspelt);
        }
    }

    /// Checks one rule. `misspelt`: whether an unknown key was found, which is then probably the missing one.
    fn rule(&mut self, rule: &Rule, node: &Node, what: &str, misspelt: bool) {
        let written = |keys: &[&str]| -> Vec<Text> {
            let entries = node.entries().iter();
            entries
                .filter(|entry| !entry.value.is_null() && keys.contains(&entry.key.text.as_str()))
                .map(|entry| entry.key.clone())
                .collect()
        };
        match rule {
            Rule::OneOf { keys, or } => match written(keys).as_slice() {
                [_] => {}
                [] if misspelt || !written(or).is_empty() => {}
                [] => {
                    let alone = match or {
                        [] => String::new(),
                        _ => format!(", or {} alone", list(or, "or")),
                    };
                    let message = format!("{what} has none of {}{alone}", list(keys, "or"));
                    let advice = what == "a step";
                    self.report(first_line(node), message).help = advice.then(|| {
                        "a step does something, such as `run: \"echo hello\"`, `http: { get: /health }` or `expect: [\"1 < 2\"]`".into()
                    });
                }
                [first, second, ..] => self.exclusive(what, first, second),
            },
            Rule::AtMostOne(keys) => {
                if let [first, second, ..] = written(keys).as_slice() {
                    self.exclusive(what, first, second);
                }
            }
            Rule::Needs { key, any } => {
                if let ([key], []) = (written(&[key]).as_slice(), written(any).as_slice()) {
                    let message =
                        format!("`{}` does nothing without {}", key.text, list(any, "or"));
                    self.report(key.span, message);
                }
            }
        }
    }

    fn exclusive(&mut self, what: &str, first: &Text, second: &Text) {
        let message = format!("{what} has both `{}` and `{}`", first.text, second.text);
        let problem = Diagnostic::error(second.span, message)
            .with_related(first.span, format!("`{}` is here", first.text))
            .with_help("keep one of them");
        self.diagnostics.push(problem);
    }

    fn unknown(&mut self, table: &'static Table, entry: &Entry) {
        let key = &entry.key;
        let names: Vec<&str> = table
            .all_keys()
            .filter(|key| !matches!(key.kind, Kind::Later | Kind::Unsupported(_)))
            .map(|key| key.name)
            .collect();
        if self.diagnostics.len() >= MOST_ADVISED {
            let message = format!("unknown key `{}` in {}", shorten(&key.text), table.name);
            self.report(key.span, message);
            return;
        }
        let hint = table.hints.iter().find(|(tried, _)| *tried == key.text);
        let help = match (hint, closest(&key.text, names.iter().copied())) {
            (Some((_, advice)), _) => (*advice).to_owned(),
            (None, Some(meant)) => format!("did you mean `{meant}`?"),
            (None, None) if entry.value.is_null() => {
                "inside `{ }` a `,` ends a text: quote a text that holds one".to_owned()
            }
            (None, None) => format!("it has {}", list(&names, "and")),
        };
        let message = format!("unknown key `{}` in {}", shorten(&key.text), table.name);
        self.report(key.span, message).help = Some(help);
    }

    fn plain_key(&mut self, key: &Text) {
        if holds_interpolation(&key.text) {
            self.report(key.span, "keys are not interpolated".into())
                .help =
                Some("use an expression for the whole map: \"${{ {inputs.name: 1} }}\"".into());
        }
    }

    fn name(&mut self, rule: super::NameRule, name: &str, span: Span) {
        if let Some((problem, advice)) = rule.problem(name) {
            self.report(span, problem).help = Some(advice);
        }
    }

    fn leaf(&mut self, leaf: Leaf, node: &Node, what: &str) {
        let text = node.as_text();
        let fits = match leaf {
            Leaf::Str => text.is_some(),
            Leaf::Text => quantity::spelling(node).is_some(),
            Leaf::TextOrNull => node.is_null() || quantity::spelling(node).is_some(),
            Leaf::Expr => return self.expression(node, what),
            Leaf::Name(rule) => match text {
                Some(name) if !holds_interpolation(name) => {
                    return self.name(rule, name, node.span);
                }
                _ => text.is_some(),
            },
            Leaf::Bool => matches!(node.value, NodeValue::Bool(_)),
            Leaf::Int(min) => matches!(node.value, NodeValue::Int(value) if value >= min),
            Leaf::Number => match node.value {
                NodeValue::Int(value) => value >= 0,
                NodeValue::Float(value) => value >= 0.0,
                _ => false,
            },
            Leaf::Duration => quantity::duration_of(node).is_some() && !is_bool(node),
            Leaf::Bytes => quantity::bytes_of(node).is_some() && !is_bool(node),
            Leaf::Cpus => quantity::millicpus_of(node).is_some() && !is_bool(node),
            Leaf::Date => text.is_some_and(|text| Date::parse(text).is_some()),
            Leaf::Enum(words) => text.is_some_and(|text| words.contains(&text)),
        };
        if node.is_template() {
            let message = format!("`${{{{ }}}}` is not evaluated in {what}");
            self.report(node.span, message).help =
                Some(format!("write it out: {what} is the same in every cell"));
        } else if !fits {
            self.wrong(&Kind::Leaf(leaf), node, what);
        }
    }

    fn expression(&mut self, node: &Node, what: &str) {
        match &node.value {
            NodeValue::Text(_) | NodeValue::Bool(_) | NodeValue::Int(_) | NodeValue::Float(_) => {}
            NodeValue::Map(entries) => {
                let key = entries.first().map_or("a ? b", |entry| &entry.key.text);
                let help = format!("quote the expression: \"{}: …\"", shorten(key));
                self.report(
                    first_line(node),
                    format!("{what} is a map to YAML, not an expression"),
                )
                .help = Some(help);
            }
            NodeValue::List(_) | NodeValue::Null => {
                self.report(
                    node.span,
                    format!("{what} takes an expression, not {}", found(node)),
                )
                .help = Some("quote an expression that starts with `[`".into());
            }
        }
    }

    fn wrong(&mut self, kind: &Kind, node: &Node, what: &str) {
        let message = format!("{what} takes {}, not {}", kind.takes(), found(node));
        let help = advice(kind, node);
        self.report(first_line(node), message).help = help;
    }
}

/// Returns the error for a key of Compose that can't be ignored without changing the meaning.
pub(crate) fn unsupported(what: &str, span: Span, why: &str) -> Diagnostic {
    Diagnostic::error(span, format!("{what} is not supported: {why}")).with_help(TAKE_OUT)
}

/// Advice for keys that a spec can remove from a Compose file's service.
pub(crate) const TAKE_OUT: &str =
    "leave it out; in a spec's `services`, `KEY: null` takes a key out of a Compose file's service";

/// Returns advice for a value of the wrong kind.
fn advice(kind: &Kind, node: &Node) -> Option<String> {
    match (kind, &node.value) {
        (Kind::Leaf(Leaf::Bool), NodeValue::Text(text)) => match text.to_ascii_lowercase().as_str()
        {
            "yes" | "on" | "y" | "true" => {
                Some("YAML 1.2 knows only `true` and `false`: write `true`".into())
            }
            "no" | "off" | "n" | "false" => {
                Some("YAML 1.2 knows only `true` and `false`: write `false`".into())
            }
            _ => None,
        },
        (Kind::Leaf(Leaf::Enum(words)), NodeValue::Text(text)) => {
            closest(text, words.iter().copied()).map(|meant| format!("did you mean `{meant}`?"))
        }
        (Kind::Leaf(Leaf::Date), NodeValue::Text(_)) => Some(
            "it is the last day (UTC) on which this may be skipped; the condition of a repetition belongs under `poll` or `sse`".into(),
        ),
        (Kind::Single(..), _) => {
            Some("name the variable: `foreach: { item: [a, b] }`, read as `${{ item }}`".into())
        }
        (Kind::List(_), NodeValue::Text(_) | NodeValue::Int(_) | NodeValue::Map(_)) => {
            Some("write `- ` before each item, or `[a, b]`".into())
        }
        (Kind::Leaf(Leaf::Str), NodeValue::Int(_) | NodeValue::Float(_) | NodeValue::Bool(_)) => {
            Some("quote it".into())
        }
        (Kind::Leaf(Leaf::Text | Leaf::Str), NodeValue::Map(_)) => {
            Some("quote a text that holds `: `".into())
        }
        _ => None,
    }
}

fn is_bool(node: &Node) -> bool {
    matches!(node.value, NodeValue::Bool(_))
}

/// Returns a span within the first line of a map or list, which is enough to show where it is.
fn first_line(node: &Node) -> Span {
    match node.entries().first() {
        Some(entry) => entry.key.span,
        None => node.span,
    }
}

fn quoted(key: &Text) -> String {
    format!("`{}`", shorten(&key.text))
}

/// Describes the value that was found, for messages.
pub fn found(node: &Node) -> String {
    match &node.value {
        NodeValue::Null => "nothing".into(),
        NodeValue::Bool(value) => format!("the bool `{value}`"),
        NodeValue::Int(value) => format!("the number {value}"),
        NodeValue::Float(value) => format!("the number {value}"),
        NodeValue::Text(text) => format!("the text \"{}\"", shorten(text)),
        NodeValue::List(_) => "a list".into(),
        NodeValue::Map(_) => "a map".into(),
    }
}

/// Returns the start of a text, on one line.
pub fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= 40 && line.len() == text.len() {
        return text.to_owned();
    }
    format!("{}…", line.chars().take(39).collect::<String>())
}

/// Returns a list such as "`a`, `b` or `c`", where `joint` is the last conjunction.
pub fn list(names: &[&str], joint: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {joint} {last}", rest.join(", ")),
        _ => quoted.join(", "),
    }
}

/// Returns the candidate that a misspelt name probably meant.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            let longer = name.chars().count().max(candidate.chars().count());
            *distance <= (longer / 3).max(1) && *distance < longer
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
