//! Checks that `coverage` and `verifies` name each other.

use super::position::{Level, Position};
use super::reference::{Checker, suggest};
use super::steps::{is_static, refers_only_to};
use crate::diagnostic::{Diagnostic, Span};
use crate::expr::{Layer, Scope, TemplateProgram};
use crate::node::Template;

impl<'s> Checker<'s, '_> {
    /// Checks the row that a step or phase verifies, and remembers it as verified.
    pub fn verifies(&mut self, verifies: &Template, at: &Position<'s>) {
        if !verifies.text.contains("${{") {
            return self.row(&verifies.text, verifies.span);
        }
        let program = match TemplateProgram::parse_knowing(verifies, &self.names.keys) {
            Ok(program) => program,
            Err(problem) => return self.diagnostics.push(problem),
        };
        // Rows are planned, so only names known at planning may select them.
        let mut planned = Position::at(Level::Planned);
        planned.variables = at.variables.clone();
        planned.bare = vec!["params"];
        self.template(verifies, &planned);
        for variable in &at.variables {
            let used = program
                .references()
                .any(|reference| reference.root == variable.name);
            if !used {
                continue;
            }
            if is_static(variable.items) && refers_only_to(&program, &[variable.name]) {
                for value in variable.items.items() {
                    let scope = Scope::new(Layer::new().value(variable.name, value.to_json()));
                    match program.eval_text(&scope) {
                        Ok(key) => self.row(&key, verifies.span),
                        Err(problem) => self.report(verifies.span, problem.to_string(), None),
                    }
                }
                return;
            }
            self.node(variable.items, &Position::at(Level::Planned));
        }
        let before = verifies.text.split("${{").next().unwrap_or_default();
        let after = verifies.text.rsplit("}}").next().unwrap_or_default();
        self.verified_like
            .push((before.to_owned(), after.to_owned()));
        if !self
            .names
            .coverage
            .iter()
            .any(|key| like(key, before, after))
        {
            let message = "no row of `coverage` can be meant by this".to_owned();
            self.report(verifies.span, message, None);
        }
    }

    /// Checks that a row exists, and remembers it as verified.
    pub fn row(&mut self, key: &str, span: Span) {
        if self.names.coverage.contains(key) {
            self.verified.insert(key.to_owned());
            return;
        }
        let help = suggest(key, self.names.coverage.iter().copied(), "coverage row");
        self.report(span, format!("there is no row `{key}` in `coverage`"), help);
    }

    /// Reports rows that no step or phase verifies.
    pub fn coverage(&mut self) {
        for row in &self.names.spec.coverage {
            let key = row.key.text.as_str();
            let named = self.verified.contains(key)
                || self
                    .verified_like
                    .iter()
                    .any(|(before, after)| like(key, before, after));
            if !named {
                self.diagnostics.push(
                    Diagnostic::error(row.key.span, format!("nothing verifies the row `{key}`"))
                        .with_help(format!(
                            "add `verifies: {key}` to a step, or take the row out"
                        )),
                );
            }
        }
    }
}

fn like(key: &str, before: &str, after: &str) -> bool {
    key.len() >= before.len() + after.len() && key.starts_with(before) && key.ends_with(after)
}
