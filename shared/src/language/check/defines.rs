//! Checks defines and `use`: parameters, scopes, and the earlier steps that a body refers to.

use super::circle;
use super::position::{Level, Position};
use super::reference::{Checker, Outward, suggest};
use crate::diagnostic::{Diagnostic, Span};
use crate::language::model::{Action, Define, DefineBody, Step, Use};
use indexmap::IndexMap;

impl<'s> Checker<'s, '_> {
    /// Checks the bodies of all groups. A group is checked after the groups that it uses.
    pub fn defines(&mut self) {
        let uses: IndexMap<&str, Vec<(String, Span)>> = self
            .names
            .groups
            .iter()
            .map(|(name, define)| (*name, uses_of(define)))
            .collect();
        circle::each(&uses, |path, span, back| {
            let names = path.join(" → ");
            let message = format!("defines use each other in a circle: {names} → {back}");
            self.diagnostics.push(
                Diagnostic::error(span, message)
                    .with_help("steps can't run themselves; repeat with `poll` or `foreach`"),
            );
        });
        let names: Vec<&'s str> = self.names.groups.keys().copied().collect();
        let mut waiting: Vec<&'s str> = names.into_iter().rev().collect();
        let mut begun: Vec<&str> = Vec::new();
        while let Some(name) = waiting.pop() {
            if self.outward_of.contains_key(name) {
                continue;
            }
            let needed: Vec<&'s str> = uses
                .get(name)
                .into_iter()
                .flatten()
                .filter_map(|(used, _)| {
                    self.names
                        .groups
                        .get_key_value(used.as_str())
                        .map(|(name, _)| *name)
                })
                .filter(|used| !self.outward_of.contains_key(used) && !begun.contains(used))
                .collect();
            if needed.is_empty() || begun.contains(&name) {
                self.body(name);
            } else {
                begun.push(name);
                waiting.push(name);
                waiting.extend(needed);
            }
        }
    }

    fn body(&mut self, name: &'s str) {
        let Some(&define) = self.names.groups.get(name) else {
            return;
        };
        let DefineBody::Steps { steps, capture } = &define.body else {
            return;
        };
        let outer = std::mem::take(&mut self.scope);
        self.outward = Some(Outward::default());
        let mut at = Position::at(Level::Step);
        at.params = Some(&define.params);
        self.steps(steps, &at);
        for capture in capture {
            self.expr(&capture.value, &at);
        }
        let outward = self.outward.take().unwrap_or_default().references;
        self.scope = outer;
        let own = own_ids(steps);
        let (late, outward): (Vec<_>, Vec<_>) = outward.into_iter().partition(|reference| {
            let id = reference.path.first().map(|first| first.key.to_string());
            id.is_some_and(|id| own.contains(&id))
        });
        for reference in late {
            let first = reference.path.first();
            let id = first.map(|first| first.key.to_string()).unwrap_or_default();
            let span = first.map_or(reference.span, |first| first.span);
            let help = "a step sees those before it; steps of a `parallel` don't see each other, and the body of a `foreach` is seen from inside only";
            self.report(
                span,
                format!("step `{id}` has not run yet at this point"),
                Some(help.into()),
            );
        }
        self.outward_of.insert(name, outward);
    }

    /// Returns the captures that a `use` of a define offers.
    pub fn captures_of(&self, define: &str) -> Vec<&'s str> {
        match self.names.groups.get(define).map(|define| &define.body) {
            Some(DefineBody::Steps { capture, .. }) => capture
                .iter()
                .map(|capture| capture.name.text.as_str())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Checks a `use`: the define, its parameters, and the steps that must run before it.
    pub fn use_define(&mut self, call: &'s Use, at: &Position<'s>) {
        for (_, value) in &call.with {
            self.node(value, at);
        }
        let name = call.define.text.as_str();
        let Some(&define) = self.names.groups.get(name) else {
            let (message, help) = if self.names.functions.contains_key(name) {
                (
                    format!("`{name}` is a function, not a group of steps"),
                    Some(format!("call it in an expression: `{name}(…)`")),
                )
            } else {
                let help = suggest(name, self.names.groups.keys().copied(), "define");
                (format!("there is no define `{name}`"), help)
            };
            return self.report(call.define.span, message, help);
        };
        self.arguments(call, define);
        let needs = self.outward_of.get(name).cloned().unwrap_or_default();
        for reference in needs {
            match self.scope.check(&reference.path) {
                Ok(()) => {}
                Err(super::scope::Unseen::Part(span, message, help)) => {
                    self.report(span, message, Some(help))
                }
                Err(super::scope::Unseen::Unknown) => match &mut self.outward {
                    Some(outward) => outward.add(reference),
                    None => {
                        let label = format!("`{name}` is used here");
                        let problem = self
                            .unseen_step(&reference)
                            .with_related(call.define.span, label);
                        self.diagnostics.push(problem);
                    }
                },
            }
        }
    }

    fn arguments(&mut self, call: &Use, define: &Define) {
        let params = || define.params.iter().map(|param| param.name.text.as_str());
        for (name, _) in &call.with {
            if !params().any(|param| param == name.text) {
                let help = match params().next() {
                    None => Some(format!("`{}` has no parameters", define.name.text)),
                    Some(_) => suggest(&name.text, params(), "parameter"),
                };
                self.report(
                    name.span,
                    format!("`{}` has no parameter `{}`", define.name.text, name.text),
                    help,
                );
            }
        }
        let missing: Vec<&str> = define
            .params
            .iter()
            .filter(|param| param.default.is_none())
            .map(|param| param.name.text.as_str())
            .filter(|param| !call.with.iter().any(|(name, _)| name.text == *param))
            .collect();
        if !missing.is_empty() {
            let names = crate::language::shape::check::list(&missing, "and");
            let example = missing
                .iter()
                .map(|name| format!("{name}: …"))
                .collect::<Vec<_>>()
                .join(", ");
            let problem = Diagnostic::error(
                call.define.span,
                format!("`{}` lacks {names}", define.name.text),
            )
            .with_related(define.name.span, "defined here")
            .with_help(format!("pass it: `with: {{ {example} }}`"));
            self.diagnostics.push(problem);
        }
    }
}

/// Returns the defines that a define's steps use.
fn uses_of(define: &Define) -> Vec<(String, Span)> {
    let DefineBody::Steps { steps, .. } = &define.body else {
        return Vec::new();
    };
    let mut found = Vec::new();
    each_step(steps, &mut |step| {
        if let Action::Use(call) = &step.action {
            found.push((call.define.text.clone(), call.define.span));
        }
    });
    found
}

fn own_ids(steps: &[Step]) -> Vec<String> {
    let mut found = Vec::new();
    each_step(steps, &mut |step| {
        found.extend(step.id.as_ref().map(|id| id.text.clone()))
    });
    found
}

fn each_step<'a>(steps: &'a [Step], visit: &mut impl FnMut(&'a Step)) {
    for step in steps {
        visit(step);
        each_step(super::inner_steps(step), visit);
        each_step(&step.otherwise, visit);
    }
}
