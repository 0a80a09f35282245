//! Checks everything that is evaluated before a cell runs: requirements, matrix, cell settings, variables, functions.

use super::position::{Level, Position};
use super::reference::{Checker, suggest};
use crate::diagnostic::{Diagnostic, Span};
use crate::expr::TemplateProgram;
use crate::language::model::{DefineBody, Spec};
use crate::node::{Node, Template};
use indexmap::IndexMap;

impl<'s> Checker<'s, '_> {
    /// Checks everything that is evaluated at planning.
    pub fn planned(&mut self) {
        let spec = self.names.spec;
        let at = Position::at(Level::Requirement);
        for require in &spec.require {
            self.expr(&require.that, &at);
            self.template(&require.message, &at);
        }
        self.strategy();
        self.maybe_template(spec.cell.name.as_ref(), &Position::at(Level::CellName));
        let at = Position::at(Level::Planned);
        let cell = &spec.cell;
        let settings = [
            &cell.runs_on,
            &cell.cpus,
            &cell.memory,
            &cell.timeout,
            &cell.attempts,
            &cell.retries,
            &cell.experimental,
            &spec.network,
        ];
        for node in settings {
            self.maybe_node(node.as_ref(), &at);
        }
        for (_, value) in &spec.vars {
            self.node(value, &at);
        }
        let at = Position::at(Level::Definition);
        self.artifacts(&cell.artifacts, None, &at);
        circles(spec, self.diagnostics);
        for define in &spec.define {
            if let DefineBody::Value(value) = &define.body {
                let params = define.params.iter().map(|param| param.name.text.as_str());
                self.expr(value, &Position::at(Level::Function).with(params));
            }
            for param in &define.params {
                self.maybe_node(param.default.as_ref(), &Position::at(Level::Planned));
            }
        }
    }

    fn strategy(&mut self) {
        let strategy = &self.names.spec.strategy;
        let at = Position::at(Level::Strategy);
        for (_, values) in &strategy.axes {
            self.node(values, &at);
        }
        for node in [
            &strategy.include,
            &strategy.exclude,
            &strategy.fail_fast,
            &strategy.max_parallel,
            &strategy.queue_timeout,
            &strategy.max_skips,
        ] {
            self.maybe_node(node.as_ref(), &at);
        }
        let axes = || strategy.axes.iter().map(|(axis, _)| axis.text.as_str());
        for (at, (axis, _)) in strategy.axes.iter().enumerate() {
            let mut earlier = strategy.axes.iter().take(at);
            if let Some((first, _)) =
                earlier.find(|(first, _)| first.text.eq_ignore_ascii_case(&axis.text))
            {
                let message = format!(
                    "the axes `{}` and `{}` differ in case only",
                    first.text, axis.text
                );
                let problem = Diagnostic::error(axis.span, message)
                    .with_related(first.span, "first written here");
                self.diagnostics.push(problem.with_help(
                    "keys of `matrix` are read without regard to case, as in GitHub: rename one",
                ));
            }
        }
        for entry in strategy
            .exclude
            .iter()
            .flat_map(Node::items)
            .flat_map(Node::entries)
        {
            if !axes().any(|axis| axis.eq_ignore_ascii_case(&entry.key.text)) {
                let help = suggest(&entry.key.text, axes(), "axis");
                self.report(
                    entry.key.span,
                    format!("there is no axis `{}` to exclude", entry.key.text),
                    help,
                );
            }
        }
    }
}

/// Reports variables, including `cell.name`, that need each other in a cycle.
fn circles(spec: &Spec, diagnostics: &mut Vec<Diagnostic>) {
    let mut needs: IndexMap<&str, Vec<(String, Span)>> = IndexMap::new();
    for (name, value) in &spec.vars {
        let mut found = Vec::new();
        needs_of(value, &mut found);
        needs.insert(&name.text, found);
    }
    if let Some(name) = &spec.cell.name {
        let mut found = Vec::new();
        needs_of_template(name, &mut found);
        needs.insert("cell.name", found);
    }
    super::circle::each(&needs, |path, span, back| {
        let names = path.join(" → ");
        let message = format!("variables need each other in a circle: {names} → {back}");
        diagnostics.push(
            Diagnostic::error(span, message).with_help("one of them has to stand on its own"),
        );
    });
}

fn needs_of(node: &Node, found: &mut Vec<(String, Span)>) {
    if let Some(text) = node.as_text().filter(|text| text.contains("${{")) {
        let template = Template {
            text: text.to_owned(),
            span: node.span,
        };
        needs_of_template(&template, found);
    }
    node.items().iter().for_each(|item| needs_of(item, found));
    node.entries()
        .iter()
        .for_each(|entry| needs_of(&entry.value, found));
}

fn needs_of_template(template: &Template, found: &mut Vec<(String, Span)>) {
    let Ok(program) = TemplateProgram::parse(template) else {
        return;
    };
    for reference in program.references() {
        match (reference.root.as_str(), reference.path.first()) {
            ("vars", Some(first)) => found.push((first.key.to_string(), reference.span)),
            ("cell", _) => found.push(("cell.name".to_owned(), reference.span)),
            _ => {}
        }
    }
}
