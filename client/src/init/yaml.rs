//! Writes YAML with comments. A library that writes YAML has no place for comments, which are half of a first spec.
//!
//! What is written here is read back as the same value by [`phalanx_shared::language::parse`]; a property test checks
//! this.

use phalanx_shared::node::{Node, NodeValue};
use std::fmt::Write;

/// Lists and maps that fit into this many columns are written on one line.
const WIDTH: usize = 100;

/// A value to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml {
    /// A number, a bool or null, as YAML spells it.
    Plain(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Item>),
    /// A map in the order written.
    Map(Vec<Entry>),
    /// A value with an anchor, so that `*NAME` repeats it.
    Anchored(&'static str, Box<Yaml>),
}

/// Item of a list, with comments above it. Without a value, only the comments are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Lines of comment.
    pub above: Vec<String>,
    /// The item.
    pub value: Option<Yaml>,
}

/// Entry of a map, with comments above it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Lines of comment.
    pub above: Vec<String>,
    /// Key of the entry.
    pub key: String,
    /// Value of the entry.
    pub value: Yaml,
}

impl Yaml {
    /// Returns a text.
    pub fn text(text: impl Into<String>) -> Yaml {
        Yaml::Text(text.into())
    }

    /// Returns a list without comments.
    pub fn list(items: impl IntoIterator<Item = Yaml>) -> Yaml {
        let item = |value| Item {
            above: Vec::new(),
            value: Some(value),
        };
        Yaml::List(items.into_iter().map(item).collect())
    }

    /// Returns a map without comments.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Yaml)>) -> Yaml {
        let entries = entries.into_iter();
        Yaml::Map(entries.map(|(key, value)| entry(key, value)).collect())
    }

    /// Returns the value of a parsed node.
    pub fn of(node: &Node) -> Yaml {
        match &node.value {
            NodeValue::Null => Yaml::Plain("null".to_owned()),
            NodeValue::Bool(value) => Yaml::Plain(value.to_string()),
            NodeValue::Int(value) => Yaml::Plain(value.to_string()),
            NodeValue::Float(value) => Yaml::Plain(value.to_string()),
            NodeValue::Text(text) => Yaml::text(text),
            NodeValue::List(items) => Yaml::list(items.iter().map(Yaml::of)),
            NodeValue::Map(entries) => Yaml::map(
                entries
                    .iter()
                    .map(|entry| (entry.key.text.clone(), Yaml::of(&entry.value))),
            ),
        }
    }
}

/// Returns an entry without comments.
pub fn entry(key: impl Into<String>, value: Yaml) -> Entry {
    Entry {
        above: Vec::new(),
        key: key.into(),
        value,
    }
}

/// Returns an entry with comments above it.
pub fn remarked(above: Vec<String>, key: impl Into<String>, value: Yaml) -> Entry {
    Entry {
        above,
        ..entry(key, value)
    }
}

/// Returns the entries of a map, one below the other.
pub fn write(entries: &[Entry]) -> String {
    let mut out = String::new();
    block(&mut out, 0, entries);
    out
}

/// Returns lines as a comment; an empty text is an empty line. A line is never more than a comment, whatever it holds.
pub fn comment(indent: usize, lines: &[String]) -> String {
    let mut out = String::new();
    let blank = |line: &str| line.is_empty().then_some("");
    for line in lines
        .iter()
        .flat_map(|line| line.lines().chain(blank(line)))
    {
        if line.is_empty() {
            out.push('\n');
            continue;
        }
        let visible: String = line.chars().filter(|c| is_printable(*c)).collect();
        let text = format!("# {}", visible.trim_end());
        let _ = writeln!(out, "{:indent$}{}", "", text.trim_end());
    }
    out
}

fn block(out: &mut String, indent: usize, entries: &[Entry]) {
    for entry in entries {
        out.push_str(&comment(indent, &entry.above));
        let _ = write!(out, "{:indent$}{}:", "", scalar(&entry.key));
        let column = indent + entry.key.len() + 2;
        value(out, indent, column, &entry.value);
    }
}

/// Writes what follows a key.
fn value(out: &mut String, indent: usize, column: usize, yaml: &Yaml) {
    if let Yaml::Text(text) = yaml
        && let Some(lines) = block_scalar(text, indent + 2)
    {
        out.push_str(&lines);
        return;
    }
    let is_map = |item: &Item| matches!(item.value, Some(Yaml::Map(_)));
    let nested = match yaml {
        Yaml::Map(entries) => !entries.is_empty(),
        Yaml::List(items) => items.iter().any(is_map),
        _ => false,
    };
    if let Some(line) = flow(yaml).filter(|line| !nested && column + line.len() <= WIDTH) {
        let _ = writeln!(out, " {line}");
        return;
    }
    match yaml {
        Yaml::Map(entries) => {
            out.push('\n');
            block(out, indent + 2, entries);
        }
        Yaml::List(items) => {
            out.push('\n');
            items.iter().for_each(|item| dash(out, indent + 2, item));
        }
        Yaml::Plain(text) => {
            let _ = writeln!(out, " {text}");
        }
        Yaml::Text(text) => {
            let _ = writeln!(out, " {}", scalar(text));
        }
        Yaml::Anchored(name, inner) => {
            let _ = write!(out, " &{name}");
            value(out, indent, column + name.len() + 2, inner);
        }
    }
}

/// Takes the comments out that would come between a dash and what shares its line.
fn hoisted(yaml: &mut Yaml, above: &mut Vec<String>) {
    match yaml {
        Yaml::Map(entries) => {
            if let Some(first) = entries.first_mut() {
                above.append(&mut first.above);
            }
        }
        Yaml::List(items) => {
            while let Some(first) = items.first_mut() {
                above.append(&mut first.above);
                match &mut first.value {
                    Some(value) => return hoisted(value, above),
                    None => drop(items.remove(0)),
                }
            }
        }
        Yaml::Plain(_) | Yaml::Text(_) | Yaml::Anchored(..) => {}
    }
}

fn dash(out: &mut String, indent: usize, item: &Item) {
    out.push_str(&comment(indent, &item.above));
    let Some(mut yaml) = item.value.clone() else {
        return;
    };
    let mut above = Vec::new();
    hoisted(&mut yaml, &mut above);
    out.push_str(&comment(indent, &above));
    let short = flow(&yaml).filter(|line| indent + 2 + line.len() <= WIDTH);
    match (&yaml, short) {
        (Yaml::Text(text), short) => {
            let _ = write!(out, "{:indent$}-", "");
            match (block_scalar(text, indent + 2), short) {
                (Some(lines), _) => out.push_str(&lines),
                (None, _) => {
                    let _ = writeln!(out, " {}", scalar(text));
                }
            }
        }
        (_, Some(line)) => {
            let _ = writeln!(out, "{:indent$}- {line}", "");
        }
        (Yaml::Map(entries), None) => {
            let mut inner = String::new();
            block(&mut inner, indent + 2, entries);
            let rest = inner.get(indent + 2..).unwrap_or_default();
            let _ = write!(out, "{:indent$}- {rest}", "");
        }
        (Yaml::List(items), None) => {
            let mut inner = String::new();
            items
                .iter()
                .for_each(|item| dash(&mut inner, indent + 2, item));
            let rest = inner.get(indent + 2..).unwrap_or_default();
            let _ = write!(out, "{:indent$}- {rest}", "");
        }
        (Yaml::Plain(text), None) => {
            let _ = writeln!(out, "{:indent$}- {text}", "");
        }
        (Yaml::Anchored(name, inner), None) => {
            let _ = write!(out, "{:indent$}- &{name}", "");
            value(out, indent, indent, inner);
        }
    }
}

/// Returns a value on one line; `None` if it holds comments or a text of several lines.
fn flow(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::Anchored(..) => None,
        Yaml::Plain(text) => Some(text.clone()),
        Yaml::Text(text) => (!text.trim_end_matches('\n').contains('\n')).then(|| scalar(text)),
        Yaml::List(items) => {
            let parts = items.iter().map(|item| match (&item.value, &*item.above) {
                (Some(value), []) => flow(value),
                _ => None,
            });
            Some(format!(
                "[{}]",
                parts.collect::<Option<Vec<_>>>()?.join(", ")
            ))
        }
        Yaml::Map(entries) if entries.is_empty() => Some("{}".to_owned()),
        Yaml::Map(entries) => {
            let parts = entries.iter().map(|entry| match &*entry.above {
                [] => Some(format!("{}: {}", scalar(&entry.key), flow(&entry.value)?)),
                _ => None,
            });
            Some(format!(
                "{{ {} }}",
                parts.collect::<Option<Vec<_>>>()?.join(", ")
            ))
        }
    }
}

/// Returns a text of several lines as a block scalar, if it can be one.
fn block_scalar(text: &str, indent: usize) -> Option<String> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let chomp = if body.len() == text.len() { "-" } else { "" };
    let first = body.chars().next()?;
    let fits = body.contains('\n')
        && !first.is_whitespace()
        && !body.ends_with('\n')
        && body.chars().all(|c| c == '\n' || is_printable(c));
    if !fits {
        return None;
    }
    let mut out = format!(" |{chomp}\n");
    for line in body.split('\n') {
        match line {
            "" => out.push('\n'),
            line => {
                let _ = writeln!(out, "{:indent$}{line}", "");
            }
        }
    }
    Some(out)
}

fn is_printable(c: char) -> bool {
    let breaks = matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    (!c.is_control() && !breaks && !matches!(c, '\u{fffe}' | '\u{ffff}')) || c == '\t'
}

/// Returns a text as a scalar: plain if nothing could mistake it, else in double quotes.
pub fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// Words that some version of YAML doesn't read as a text.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

fn is_plain(text: &str) -> bool {
    // The key that merges a map.
    if text == "<<" || is_duration(text) {
        return true;
    }
    let inner =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | ' ' | '+');
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/');
    let option = text.strip_prefix('-').unwrap_or(text);
    option.starts_with(first)
        && text.chars().all(inner)
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether a text is a number with a unit of time, such as `20m`.
fn is_duration(text: &str) -> bool {
    let number = text.strip_suffix(['s', 'm', 'h']).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::language::parse::parse;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(text: &str) -> Value {
        let mut found = Vec::new();
        let node = parse(0, text, &mut found);
        let problems: Vec<_> = found
            .iter()
            .filter(|found| found.severity == phalanx_shared::diagnostic::Severity::Error)
            .collect();
        assert!(problems.is_empty(), "{problems:?} in:\n{text}");
        node.unwrap().to_json()
    }

    fn any_yaml() -> impl Strategy<Value = Yaml> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Yaml::Text),
            "[ \\n:#a-z'\"$\\-]{0,30}".prop_map(Yaml::Text),
            any::<i64>().prop_map(|n| Yaml::Plain(n.to_string())),
            any::<bool>().prop_map(|b| Yaml::Plain(b.to_string())),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let above = proptest::collection::vec(".{0,12}", 0..2);
            let item = (above.clone(), inner.clone()).prop_map(|(above, value)| Item {
                above,
                value: Some(value),
            });
            let map = proptest::collection::btree_map(
                "[a-z$: ]{1,40}",
                (above.clone(), inner.clone()),
                0..4,
            );
            prop_oneof![
                proptest::collection::vec(item, 0..4).prop_map(Yaml::List),
                map.prop_map(|map| {
                    let entries = map.into_iter();
                    Yaml::Map(
                        entries
                            .map(|(key, (above, value))| remarked(above, key, value))
                            .collect(),
                    )
                }),
                inner.prop_map(|inner| match inner {
                    // A value has one anchor.
                    Yaml::Anchored(..) => inner,
                    inner => Yaml::Anchored("a", Box::new(inner)),
                }),
            ]
        })
    }

    fn json_of(yaml: &Yaml) -> Value {
        match yaml {
            Yaml::Plain(text) => serde_json::from_str(text).unwrap(),
            Yaml::Text(text) => Value::String(text.clone()),
            Yaml::Anchored(_, inner) => json_of(inner),
            Yaml::List(items) => {
                let values = items.iter().filter_map(|item| item.value.as_ref());
                values.map(json_of).collect()
            }
            Yaml::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), json_of(&entry.value)))
                    .collect(),
            ),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(yaml in any_yaml()) {
            let text = write(&[entry("root", yaml.clone())]);
            prop_assert_eq!(read(&text), json!({ "root": json_of(&yaml) }), "{}", text);
        }
    }

    #[test]
    fn comments_of_an_items_first_part_stand_above_its_dash() {
        let first = |above: &str| remarked(vec![above.to_owned()], " ", Yaml::text(""));
        let map = |above| Yaml::list([Yaml::Map(vec![first(above), entry("$", Yaml::text("x"))])]);
        let item = |above: &str, value| Item {
            above: vec![above.to_owned()],
            value,
        };
        let lists = Yaml::list([Yaml::List(vec![
            item("one", None),
            item("", Some(map("two"))),
            item("three", Some(Yaml::text("y"))),
        ])]);
        for yaml in [map(""), map("one"), lists] {
            let text = write(&[entry("root", yaml.clone())]);
            assert_eq!(read(&text), json!({ "root": json_of(&yaml) }), "{text}");
        }
    }

    #[test]
    fn short_values_share_a_line_and_scripts_are_blocks() {
        let text = write(&[
            entry("name", Yaml::text("on")),
            remarked(
                vec!["what varies".to_owned()],
                "axes",
                Yaml::map([("db", Yaml::list(["a", "1"].map(Yaml::text)))]),
            ),
            entry(
                "steps",
                Yaml::List(vec![
                    Item {
                        above: Vec::new(),
                        value: Some(Yaml::map([("run", Yaml::text("a\n\nb\n"))])),
                    },
                    Item {
                        above: vec!["not this".to_owned()],
                        value: None,
                    },
                ]),
            ),
        ]);
        assert_eq!(
            text,
            "\
name: \"on\"
# what varies
axes:
  db: [a, \"1\"]
steps:
  - run: |
      a

      b
  # not this
"
        );
    }
}
