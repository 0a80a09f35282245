//! Checks `results`, and the rows that test cases verify.

use super::position::Position;
use super::reference::Checker;
use crate::diagnostic::Span;
use crate::language::model::{Action, ContainerVerb, Step, TestResults};
use crate::node::{Node, Template, holds_interpolation};

impl<'s> Checker<'s, '_> {
    /// Checks where a step's test results are, and the rows that its test cases verify.
    pub fn results(&mut self, step: &'s Step, at: &Position<'s>) {
        for row in &step.case_rows {
            self.row(&row.row.text, row.row.span);
            if row.patterns.is_empty() {
                let message = format!("`{}` has no pattern of test cases", row.row.text);
                let help = "write `\"*\"` if every case of the step verifies the row";
                self.report(row.row.span, message, Some(help.to_owned()));
            }
        }
        let Some(results) = &step.results else {
            if let Some(first) = step.case_rows.first() {
                let message = "only a step with `results` has test cases".to_owned();
                let help = format!(
                    "add `results: {{ junit: PATH }}`, or write `verifies: {}` for the whole step",
                    first.row.text
                );
                self.report(first.row.span, message, Some(help));
            }
            return;
        };
        self.node(&results.files, at);
        if let Action::Container(change) = &step.action
            && change.verb != ContainerVerb::Run
        {
            let message = format!("`container: {{ {} }}` runs no tests", change.verb.as_str());
            let help = "`results` belong to `exec`, `run` or `container: { run: SERVICE }`";
            self.report(results.files.span, message, Some(help.to_owned()));
        }
        let files = match results.files.items() {
            [] => std::slice::from_ref(&results.files),
            items => items,
        };
        if files
            .iter()
            .any(|file| file.as_text().is_some_and(str::is_empty))
            || matches!(&results.files.value, crate::node::NodeValue::List(items) if items.is_empty())
        {
            let message = format!("`{}` names no file", results.format.as_str());
            self.report(results.files.span, message, None);
        }
        if let Some(from) = &results.from
            && from.text != TestResults::WORKSPACE
        {
            self.service_name(from, at);
        }
        self.result_paths(results, files, service_of(step));
    }

    /// Checks that a path can be below the place that holds it.
    fn result_paths(&mut self, results: &TestResults, files: &[Node], ran_in: Option<&Template>) {
        let place = results.from.as_ref().or(ran_in);
        let known = place.is_none_or(|place| !holds_interpolation(&place.text));
        let workspace = place.is_none_or(|place| place.text == TestResults::WORKSPACE);
        let service = place.map_or("", |place| place.text.as_str());
        let is_process =
            self.names.spec.services.iter().any(|known| {
                known.name.text == service && known.definition.get("process").is_some()
            });
        for file in files {
            let Some(path) = file.as_text().filter(|path| !holds_interpolation(path)) else {
                continue;
            };
            if path == TestResults::OUTPUT || path.is_empty() || !known {
                continue;
            }
            let problem = match workspace {
                true if leaves(path) => {
                    "a path in the workspace doesn't begin with `/` and has no `..`"
                }
                false if !is_process && !path.starts_with('/') => {
                    "a path in a container begins with `/`"
                }
                _ => continue,
            };
            self.report_path(file.span, path, problem);
        }
    }

    fn report_path(&mut self, span: Span, path: &str, problem: &str) {
        let help = "`from` says where the files are: a service, or `workspace`";
        self.report(span, format!("`{path}`: {problem}"), Some(help.to_owned()));
    }
}

/// Returns the service in which a step's program runs; `None` for the agent's host.
fn service_of(step: &Step) -> Option<&Template> {
    match &step.action {
        Action::Exec(exec) => Some(&exec.service),
        Action::Container(change) => Some(&change.service),
        _ => None,
    }
}

fn leaves(path: &str) -> bool {
    path.starts_with('/') || path.split('/').any(|part| part == "..")
}
