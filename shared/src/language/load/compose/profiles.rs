//! Profiles of a Compose file: which are active, and which of its services that leaves to the steps.

use super::variables::Variables;
use crate::diagnostic::Diagnostic;
use crate::language::quantity;
use crate::language::shape::check::{closest, list};
use crate::node::{Node, NodeValue, Text};
use indexmap::IndexSet;

/// Variable that names the active profiles, if the spec names none.
const VARIABLE: &str = "COMPOSE_PROFILES";

/// The active profiles.
pub struct Profiles {
    active: Vec<Text>,
    /// Whether the spec or an env file names profiles, so that a service without an active one is meant.
    pub chosen: bool,
    known: IndexSet<String>,
}

impl Profiles {
    /// Reads the profiles of `stack`, or those of the variable COMPOSE_PROFILES.
    pub fn read(
        named: Option<&[Text]>,
        variables: &mut Variables,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Profiles {
        let given = variables.get(VARIABLE);
        let mut active = Vec::new();
        match (named, given) {
            (Some(named), _) => active.extend_from_slice(named),
            (None, Some(value)) => match value.as_text() {
                Some(text) => active.extend(
                    text.split(',')
                        .map(str::trim)
                        .filter(|name| !name.is_empty())
                        .map(|name| Text {
                            text: name.to_owned(),
                            span: Default::default(),
                        }),
                ),
                None => {
                    let span = variables.written(VARIABLE).map(|node| node.span);
                    diagnostics.push(
                        Diagnostic::error(
                            span.unwrap_or_default(),
                            format!("`{VARIABLE}` is known only when a cell runs"),
                        )
                        .with_help(
                            "profiles are the same in all cells: write them out, and leave services to steps with `start: manual`",
                        ),
                    );
                }
            },
            (None, None) => {}
        }
        let chosen = named.is_some() || !active.is_empty();
        Profiles {
            active,
            chosen,
            known: IndexSet::new(),
        }
    }

    /// Returns whether a service with these profiles is part of the stack from the start.
    pub fn start(&mut self, profiles: &Node) -> bool {
        let names: Vec<String> = match &profiles.value {
            NodeValue::List(items) => items.iter().filter_map(quantity::spelling).collect(),
            _ => quantity::spelling(profiles).into_iter().collect(),
        };
        let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let is_active = |name: &String| {
            let mut active = self.active.iter();
            active.any(|active| active.text == "*" || active.text == *name)
        };
        let start = names.is_empty() || names.iter().any(is_active);
        self.known.extend(names);
        start
    }

    /// Warns about profiles of the spec that no service has.
    pub fn unused(&self, diagnostics: &mut Vec<Diagnostic>) {
        let of_spec = self.active.iter().filter(|name| name.span.len > 0);
        for name in of_spec.filter(|name| name.text != "*" && !self.known.contains(&name.text)) {
            let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
            let help = match closest(&name.text, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if known.is_empty() => "no service has profiles: leave it out".to_owned(),
                None => format!("there are {}", list(&known, "and")),
            };
            let message = format!("no service has the profile `{}`", name.text);
            diagnostics.push(Diagnostic::warning(name.span, message).with_help(help));
        }
    }
}
