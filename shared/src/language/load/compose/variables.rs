//! Variables of a Compose file. They come from `variables` and `env-file` of `stack`, never from the machine's
//! environment.

use super::Stack;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::decode::within;
use crate::language::env_file;
use crate::language::interpolation::{self, Problem, Value};
use crate::language::load::files::Files;
use crate::language::quantity;
use crate::language::shape::check::closest;
use crate::node::{Node, NodeValue, Text, written_anew};
use indexmap::{IndexMap, IndexSet};
use std::ops::Range;

/// Maximum size of all texts of a file together after expansion, in bytes.
const MAX_BYTES: usize = 16 << 20;

const HOW: &str = "give it one by `stack: { compose: …, variables: { NAME: … } }` or `env-file`, or a default in the file (`${NAME:-…}`); the machine's environment is not read";

/// Values by name, and the names that were looked up.
#[derive(Default)]
pub struct Variables {
    values: IndexMap<String, Value>,
    /// Entries of `variables`, as written.
    written: IndexMap<String, Node>,
    names: Vec<Text>,
    asked: IndexSet<String>,
    bytes: usize,
}

impl Variables {
    /// Reads `variables` and the files; `variables` take precedence.
    pub fn read(
        files: &mut Files<'_>,
        stack: &Stack<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut own = Variables::default();
        for (name, node) in stack.variables {
            if !interpolation::is_name(&name.text) {
                diagnostics.push(
                    Diagnostic::error(
                        name.span,
                        format!("`{}` is no name of a variable", name.text),
                    )
                    .with_help("it is letters, digits and `_`"),
                );
            }
            own.names.push(name.clone());
            let spelt = quantity::spelling(node);
            if let Some(value) = spelt.and_then(|text| Value::of_template(&text)) {
                own.values.insert(name.text.clone(), value);
                own.written.insert(name.text.clone(), node.clone());
            }
        }
        let mut from_files: IndexMap<String, Value> = IndexMap::new();
        for path in stack.env_files {
            let Some((_, text)) = files.read(path, diagnostics) else {
                continue;
            };
            let known = |name: &str| {
                let known = own.values.get(name).or_else(|| from_files.get(name));
                known.cloned()
            };
            match env_file::parse(&text, &known) {
                Ok(read) => {
                    let values = read.set.into_iter();
                    from_files.extend(values.filter(|(name, _)| !own.values.contains_key(name)));
                }
                Err(flaw) => diagnostics.push(
                    Diagnostic::error(path.span, format!("`{}`, {flaw}", path.text))
                        .with_help("an env file holds NAME=value lines"),
                ),
            }
        }
        own.values.extend(from_files);
        own
    }

    /// Returns the value of a variable.
    pub fn get(&mut self, name: &str) -> Option<Value> {
        if !self.asked.contains(name) {
            self.asked.insert(name.to_owned());
        }
        self.values.get(name).cloned()
    }

    /// Expands all texts of the file. Reports images without a value separately, because the spec may replace them.
    pub fn expand(
        &mut self,
        node: &mut Node,
        images: &mut Vec<Diagnostic>,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let NodeValue::Map(entries) = &mut node.value else {
            return;
        };
        for entry in entries {
            if entry.key.text != "services" {
                self.tree(&mut entry.value, diagnostics);
                continue;
            }
            let NodeValue::Map(services) = &mut entry.value.value else {
                continue;
            };
            for service in services {
                let name = service.key.text.clone();
                let NodeValue::Map(keys) = &mut service.value.value else {
                    self.tree(&mut service.value, diagnostics);
                    continue;
                };
                for key in keys {
                    if key.key.text == "image" {
                        self.image(&name, &mut key.value, images, diagnostics);
                    } else {
                        self.tree(&mut key.value, diagnostics);
                    }
                }
            }
        }
    }

    fn tree(&mut self, node: &mut Node, diagnostics: &mut Vec<Diagnostic>) {
        match &mut node.value {
            NodeValue::List(items) => items
                .iter_mut()
                .for_each(|item| self.tree(item, diagnostics)),
            NodeValue::Map(entries) => entries
                .iter_mut()
                .for_each(|entry| self.tree(&mut entry.value, diagnostics)),
            NodeValue::Text(_) => {
                for (name, span) in self.text(node, diagnostics) {
                    diagnostics.push(
                        Diagnostic::warning(
                            span,
                            format!("the variable `{name}` has no value and is empty"),
                        )
                        .with_help(HOW),
                    );
                }
            }
            _ => {}
        }
    }

    fn image(
        &mut self,
        service: &str,
        node: &mut Node,
        images: &mut Vec<Diagnostic>,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let unset = self.text(node, diagnostics);
        let Some((name, _)) = unset.first() else {
            return;
        };
        images.push(
            Diagnostic::error(
                node.span,
                format!("the image of `{service}` lacks a value: the variable `{name}` has none"),
            )
            .with_help(HOW),
        );
        // Replace the image so that no further problem is reported for it.
        node.value = NodeValue::Text("unknown".to_owned());
    }

    /// Expands a text. Returns the variables in it that have no value.
    fn text(&mut self, node: &mut Node, diagnostics: &mut Vec<Diagnostic>) -> Vec<(String, Span)> {
        let Some(text) = node.as_text().filter(|text| text.contains('$')) else {
            return Vec::new();
        };
        let text = text.to_owned();
        let span = node.span;
        let place = |range: &Range<usize>| match span.len as usize == text.len() {
            true => within(span, &text, range.start, range.len()),
            false => span,
        };
        let expanded = interpolation::expand(&text, true, &mut |name| self.get(name));
        let expanded = match expanded {
            Ok(expanded) => expanded,
            // The evaluation of the expression reports this error.
            Err(Problem::Unclosed) => return Vec::new(),
            Err(problem) => {
                diagnostics.push(described(problem, place, span));
                return Vec::new();
            }
        };
        let made = expanded.value.to_template();
        self.bytes = self.bytes.saturating_add(made.len());
        if self.bytes > MAX_BYTES {
            let message = format!(
                "more than {} MiB once variables are expanded",
                MAX_BYTES >> 20
            );
            diagnostics.push(Diagnostic::error(span, message));
            self.values.clear();
            return Vec::new();
        }
        if made != text {
            // A text that is only a variable becomes the node of that variable's value, with its place.
            let mut written = self.written.values();
            let alone = written.find(|node| node.is_template() && node.as_text() == Some(&made));
            *node = match alone {
                Some(value) => value.clone(),
                None => written_anew(made, span),
            };
        }
        let unset = expanded.unset.into_iter();
        unset.map(|(name, range)| (name, place(&range))).collect()
    }

    /// Warns about values for variables that the file doesn't have.
    pub fn unused(&self, path: &Text, diagnostics: &mut Vec<Diagnostic>) {
        for name in self
            .names
            .iter()
            .filter(|name| !self.asked.contains(&name.text))
        {
            let help = closest(&name.text, self.asked.iter().map(String::as_str)).map_or_else(
                || "leave it out".to_owned(),
                |meant| format!("did you mean `{meant}`?"),
            );
            diagnostics.push(
                Diagnostic::warning(
                    name.span,
                    format!("`{}` has no variable `{}`", path.text, name.text),
                )
                .with_help(help),
            );
        }
    }
}

fn described(problem: Problem, place: impl Fn(&Range<usize>) -> Span, span: Span) -> Diagnostic {
    match problem {
        Problem::Required { says, range, .. } => {
            Diagnostic::error(place(&range), says).with_help(HOW)
        }
        Problem::Syntax(range) => Diagnostic::error(place(&range), "`${` begins no variable")
            .with_help("write `${NAME}`, `${NAME:-default}`, or `$$` for a plain `$`"),
        Problem::Deep(range) => {
            Diagnostic::error(place(&range), "variables stand in each other too deep")
        }
        Problem::Long | Problem::Unclosed => {
            let most = interpolation::MAX_BYTES >> 20;
            Diagnostic::error(span, format!("a value is longer than {most} MiB"))
        }
    }
}
