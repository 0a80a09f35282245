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
use crate::node::{Entry, Node, NodeValue, Text, written_anew};
use indexmap::{IndexMap, IndexSet};
use std::ops::Range;

/// Maximum size of all texts of a file together after expansion, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// Variable with the name of the project.
const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

const HOW: &str = "give it one by `stack: { compose: …, variables: { NAME: … } }` or `env-file`, or a default in the file (`${NAME:-…}`); the machine's environment is not read";

/// Values by name, and the names that were looked up.
#[derive(Default)]
pub struct Variables {
    values: IndexMap<String, Value>,
    /// Entries of `variables`, as written.
    written: IndexMap<String, Node>,
    names: Vec<Text>,
    /// Values that env files of included projects add, the outermost first.
    layers: Vec<IndexMap<String, Value>>,
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
        let mut texts = Vec::new();
        for path in stack.env_files {
            if let Some((_, text)) = files.read(path, diagnostics) {
                texts.push((path, text));
            }
        }
        let from_files = own.of_env_files(&texts, diagnostics);
        own.values.extend(from_files);
        own
    }

    /// Reads env files. Leaves out what has a value already.
    fn of_env_files(
        &self,
        texts: &[(&Text, String)],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> IndexMap<String, Value> {
        let mut found: IndexMap<String, Value> = IndexMap::new();
        for (path, text) in texts {
            let known = |name: &str| self.known(name).or_else(|| found.get(name)).cloned();
            match env_file::parse(text, &known) {
                Ok(read) => {
                    let values = read.set.into_iter();
                    found.extend(values.filter(|(name, _)| self.known(name).is_none()));
                }
                Err(flaw) => diagnostics.push(
                    Diagnostic::error(path.span, format!("`{}`, {flaw}", path.text))
                        .with_help("an env file holds NAME=value lines"),
                ),
            }
        }
        found
    }

    /// Adds the env files of an included project, until [`Self::leave`].
    pub fn enter(
        &mut self,
        files: &mut Files<'_>,
        env_files: &[(Text, String)],
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let mut texts = Vec::new();
        for (path, joined) in env_files {
            if let Some((_, text)) = files.read_at(joined, path, diagnostics) {
                texts.push((path, text));
            }
        }
        let layer = self.of_env_files(&texts, diagnostics);
        self.layers.push(layer);
    }

    /// Forgets the env files of the included project.
    pub fn leave(&mut self) {
        self.layers.pop();
    }

    fn known(&self, name: &str) -> Option<&Value> {
        let layers = self.layers.iter();
        std::iter::once(&self.values)
            .chain(layers)
            .find_map(|values| values.get(name))
    }

    /// Returns the value of a variable.
    pub fn get(&mut self, name: &str) -> Option<Value> {
        if !self.asked.contains(name) {
            self.asked.insert(name.to_owned());
        }
        self.known(name).cloned()
    }

    /// Returns a value of `variables` as it is written.
    pub fn written(&self, name: &str) -> Option<&Node> {
        self.written.get(name)
    }

    /// Sets COMPOSE_PROJECT_NAME to the name of a project, in the form that Compose gives it.
    pub fn name_project(&mut self, name: &str) {
        let fits = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
        let name: String = name.to_lowercase().chars().filter(fits).collect();
        let name = name.trim_start_matches(['_', '-']);
        if !name.is_empty() && !self.values.contains_key(PROJECT_NAME) {
            let value = Value::text(name);
            self.values.insert(PROJECT_NAME.to_owned(), value);
        }
    }

    /// Gives variables in `environment` that have only a name the value of that name, as Compose does, and secrets and
    /// configs that are a variable its text.
    pub fn give_environment(&mut self, file: &mut Node) {
        let NodeValue::Map(sections) = &mut file.value else {
            return;
        };
        for section in sections {
            let kind = section.key.text.as_str();
            let is_text = matches!(kind, "secrets" | "configs");
            if !is_text && kind != "services" {
                continue;
            }
            let NodeValue::Map(entries) = &mut section.value.value else {
                continue;
            };
            for entry in entries {
                let NodeValue::Map(keys) = &mut entry.value.value else {
                    continue;
                };
                for key in keys.iter_mut().filter(|key| key.key.text == "environment") {
                    match is_text {
                        true => self.give_text(key),
                        false => self.give(&mut key.value),
                    }
                }
            }
        }
    }

    /// Replaces `environment: NAME` of a secret or config by the text of that variable, if it has one.
    fn give_text(&mut self, key: &mut Entry) {
        let name = key.value.as_text().map(str::to_owned);
        if let Some(name) = name
            && let Some(value) = self.get(&name)
        {
            key.key.text = "content".to_owned();
            key.value = written_anew(value.to_template(), key.value.span);
        }
    }

    /// Replaces `[NAME]` and `{ NAME: null }` by the variable of that name.
    pub fn give(&mut self, node: &mut Node) {
        match &mut node.value {
            NodeValue::Map(entries) => {
                for entry in entries.iter_mut().filter(|entry| entry.value.is_null()) {
                    if let Some(value) = self.get(&entry.key.text) {
                        entry.value = written_anew(value.to_template(), node.span);
                    }
                }
            }
            NodeValue::List(items) => {
                for item in items {
                    let name = item.as_text().filter(|text| !text.contains('='));
                    let name = name.filter(|_| !item.is_template()).map(str::to_owned);
                    if let Some(name) = name
                        && let Some(value) = self.get(&name)
                    {
                        let text = format!("{name}={}", value.to_template());
                        *item = written_anew(text, item.span);
                    }
                }
            }
            _ => {}
        }
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
            self.layers.iter_mut().for_each(IndexMap::clear);
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

    /// Warns about values for variables that the files don't have.
    pub fn unused(&self, paths: &[Text], diagnostics: &mut Vec<Diagnostic>) {
        let whose = match paths {
            [path] => format!("`{}` has", path.text),
            _ => "the Compose files have".to_owned(),
        };
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
                Diagnostic::warning(name.span, format!("{whose} no variable `{}`", name.text))
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
