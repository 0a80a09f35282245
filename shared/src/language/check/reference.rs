//! Checks that expressions parse, and that every name in them is known at their place.

use super::names::Names;
use super::position::{Level, Position};
use super::scope::{Scope, Unseen};
use crate::diagnostic::{Diagnostic, Span};
use crate::expr::{
    Call, Comparison, Other, Program, Reference, TemplateProgram, builtin_functions, foreign,
};
use crate::language::quantity;
use crate::language::shape::check::{closest, list};
use crate::language::shape::name::{CONTEXTS, RESULTS};
use crate::node::{Expr, Node, NodeValue, Template};
use std::collections::{HashMap, HashSet};

/// Fields of an event of a stream.
pub const OF_EVENT: [&str; 4] = ["event", "id", "data", "json"];

/// Fields of a service that steps can read.
pub const OF_SERVICE: [&str; 7] = [
    "host",
    "ip",
    "ipv6",
    "url",
    "internal_url",
    "port",
    "replicas",
];

/// Returns the fields of a context, if they are the same for every spec.
fn fields(context: &str, level: Level) -> Option<&'static [&'static str]> {
    match context {
        "workspace" => Some(&["digest"]),
        "run" => Some(&["id", "attempt"]),
        "phalanx" => Some(&["demo_server"]),
        // The id is computed from planned values, so it is not known yet.
        "cell" if level == Level::Planned => Some(&["name"]),
        "cell" => Some(&["name", "id"]),
        _ => None,
    }
}

/// Checks the expressions of a spec, and its steps in order.
pub struct Checker<'s, 'd> {
    pub names: Names<'s>,
    pub diagnostics: &'d mut Vec<Diagnostic>,
    /// Steps seen so far.
    pub scope: Scope,
    /// Inside a define: references to steps that must run before a `use` of it.
    pub outward: Option<Outward>,
    /// References to outer steps of each define that has been checked.
    pub outward_of: HashMap<&'s str, Vec<Reference>>,
    /// References to steps in each session.
    pub sessions: HashMap<&'s str, Vec<Reference>>,
    /// Keys of `coverage` that are verified.
    pub verified: HashSet<String>,
    /// Beginnings and ends of verified keys that depend on the cell.
    pub verified_like: Vec<(String, String)>,
}

/// References of a define's body to steps outside it. Each is kept once, because defines may use each other several
/// times.
#[derive(Debug, Default)]
pub struct Outward {
    pub references: Vec<Reference>,
    seen: HashSet<Span>,
}

impl Outward {
    pub fn add(&mut self, reference: Reference) {
        if self.seen.insert(reference.span) {
            self.references.push(reference);
        }
    }
}

impl<'s> Checker<'s, '_> {
    pub fn report(&mut self, span: Span, message: String, help: Option<String>) {
        let problem = Diagnostic::error(span, message);
        self.diagnostics.push(Diagnostic { help, ..problem });
    }

    /// Checks an expression field.
    pub fn expr(&mut self, expr: &Expr, at: &Position<'s>) {
        match Program::parse_knowing(expr, &self.names.keys) {
            Ok(program) => self.program(&program, at),
            Err(problem) => self.diagnostics.push(problem),
        }
    }

    /// Checks the expressions in a text.
    pub fn template(&mut self, template: &Template, at: &Position<'s>) {
        if !template.text.contains("${{") {
            return;
        }
        match TemplateProgram::parse_knowing(template, &self.names.keys) {
            Ok(template) => {
                for program in template.programs() {
                    self.program(program, at);
                }
            }
            Err(problem) => self.diagnostics.push(problem),
        }
    }

    /// Checks all texts of a tree.
    pub fn node(&mut self, node: &Node, at: &Position<'s>) {
        match &node.value {
            NodeValue::Text(text) => {
                let span = node.span;
                let text = text.clone();
                self.template(&Template { text, span }, at);
            }
            NodeValue::List(items) => items.iter().for_each(|item| self.node(item, at)),
            NodeValue::Map(entries) => entries.iter().for_each(|entry| self.node(&entry.value, at)),
            _ => {}
        }
    }

    pub fn maybe_node(&mut self, node: Option<&Node>, at: &Position<'s>) {
        if let Some(node) = node {
            self.node(node, at);
        }
    }

    pub fn maybe_template(&mut self, template: Option<&Template>, at: &Position<'s>) {
        if let Some(template) = template {
            self.template(template, at);
        }
    }

    fn program(&mut self, program: &Program, at: &Position<'s>) {
        for reference in program.references() {
            self.reference(reference, at);
        }
        for call in program.calls() {
            self.call(call, at);
        }
        for comparison in program.comparisons() {
            self.comparison(comparison, at);
        }
    }

    /// Reports a comparison of a numeric result with something that is not a number.
    fn comparison(&mut self, comparison: &Comparison, at: &Position<'s>) {
        let name = comparison.name.as_str();
        let number = matches!(name, "status" | "exit_code" | "elapsed");
        if !number || !at.knows(name) || at.action.is_empty() {
            return;
        }
        let (what, written) = match &comparison.other {
            Other::Text(text) => ("a text", text.as_str()),
            Other::Duration(text) => ("a duration", text.as_str()),
        };
        let in_seconds = || {
            let seconds = quantity::duration(written)?.as_secs_f64();
            Some(format!("write it in seconds: {name} < {seconds}"))
        };
        let help = match name {
            "elapsed" => {
                in_seconds().unwrap_or_else(|| "write it in seconds: elapsed < 2".to_owned())
            }
            _ if written.parse::<u32>().is_ok() => {
                format!("write it without quotes: {name} == {written}")
            }
            _ => format!("write a number: {name} == 0"),
        };
        let unit = if name == "elapsed" {
            "a number of seconds"
        } else {
            "a number"
        };
        let message = format!("`{name}` is {unit}, and {what} is compared with it");
        self.report(comparison.span, message, Some(help));
    }

    /// Reports a reference to a part that a result of the step itself doesn't have.
    fn result(&mut self, reference: &Reference, at: &Position<'s>) {
        let root = reference.root.as_str();
        if at.action.is_empty() || !RESULTS.contains(&root) {
            return;
        }
        let path: Vec<_> = match (root, reference.path.as_slice()) {
            ("events", [_, inner @ ..]) => inner.iter().collect(),
            (_, path) => path.iter().collect(),
        };
        let name = |at: usize| path.get(at).and_then(|segment| segment.key.name());
        let (at, message, help) = match (root, name(0), name(1)) {
            ("event" | "events", Some("data"), Some(field)) => (
                1,
                format!("`data` of an event is a text, which has no field `{field}`"),
                format!("`json` is what the text holds: {root}.json.{field}")
                    .replace("events.", "events[0]."),
            ),
            ("event" | "events", Some(field), _) if !OF_EVENT.contains(&field) => (
                0,
                format!("an event has no `{field}`"),
                format!(
                    "it has {}: {root}.json.{field} reads its data",
                    list(&OF_EVENT, "and")
                )
                .replace("events.", "events[0]."),
            ),
            ("body", Some(field), _) => (
                0,
                format!("`body` is a text, which has no field `{field}`"),
                format!("`json` is what the text holds: json.{field}"),
            ),
            ("stdout" | "stderr", Some(field), _) => (
                0,
                format!("`{root}` is a text, which has no field `{field}`"),
                format!("read it as JSON: fromJSON({root}).{field}"),
            ),
            ("headers", Some(field), _) if field.chars().any(|c| c.is_ascii_uppercase()) => (
                0,
                format!("`headers` has no `{field}`: names of headers are lower case"),
                format!("write headers['{}']", field.to_lowercase()),
            ),
            _ => return,
        };
        let span = path.get(at).map_or(reference.span, |segment| segment.span);
        self.report(span, message, Some(help));
    }

    fn call(&mut self, call: &Call, at: &Position<'s>) {
        let name = call.name.as_str();
        if name == "file" {
            if !at.level.reads_files() {
                let help = "put it into `vars`, which are computed when a cell is planned";
                self.report(
                    call.span,
                    format!("`file` is not known {}", at.level.place()),
                    Some(help.into()),
                );
            }
            return;
        }
        if let Some(&arity) = self.names.functions.get(name) {
            if arity != call.arity {
                let plural = if arity == 1 { "" } else { "s" };
                let message = format!(
                    "`{name}` takes {arity} argument{plural}, not {}",
                    call.arity
                );
                self.report(call.span, message, None);
            }
            return;
        }
        if self.names.groups.contains_key(name) {
            let message = format!("`{name}` is a group of steps, not a function");
            let help = "a define with `value` is a function; steps are run by a step with `use`";
            return self.report(call.span, message, Some(help.into()));
        }
        let mut known: Vec<&str> = builtin_functions().collect();
        known.extend(self.names.functions.keys().copied());
        let help = foreign::function(name)
            .map(str::to_owned)
            .or_else(|| closest(name, known).map(|meant| format!("did you mean `{meant}`?")))
            .or_else(|| {
                Some("docs/language.md has every function; `define` makes your own".to_owned())
            });
        self.report(call.span, format!("there is no function `{name}`"), help);
    }

    fn reference(&mut self, reference: &Reference, at: &Position<'s>) {
        let root = reference.root.as_str();
        if at.knows(root) {
            return self.result(reference, at);
        }
        if !at.level.contexts().contains(&root) {
            return self.unknown_root(reference, at);
        }
        match root {
            "inputs" => self.member(reference, "input", |names| Some(&names.inputs)),
            "vars" => self.member(reference, "variable", |names| Some(&names.vars)),
            "secrets" => self.member(reference, "secret", |names| Some(&names.secrets)),
            "matrix" => self.member(reference, "key of the matrix", |names| {
                names.matrix.as_ref()
            }),
            "services" => self.service(reference, at),
            "steps" => self.step_reference(reference, at),
            "params" => self.param(reference, at),
            "port" => self.port(reference, at),
            context => {
                if let Some(known) = fields(context, at.level) {
                    self.field(reference, context, known);
                }
            }
        }
    }

    /// Checks that a context such as `cell` has the field.
    fn field(&mut self, reference: &Reference, context: &str, known: &[&str]) {
        let Some(first) = reference.path.first().filter(|segment| !segment.optional) else {
            return;
        };
        let Some(name) = first.key.name().filter(|name| !known.contains(name)) else {
            return;
        };
        let help = suggest(name, known.iter().copied(), "field");
        self.report(first.span, format!("`{context}` has no `{name}`"), help);
    }

    /// Checks that a name after a context such as `inputs` is declared.
    fn member(
        &mut self,
        reference: &Reference,
        what: &str,
        known: impl for<'n> Fn(&'n Names<'s>) -> Option<&'n HashSet<&'s str>>,
    ) {
        let Some(first) = reference.path.first().filter(|segment| !segment.optional) else {
            return;
        };
        let (Some(name), Some(known)) = (first.key.name(), known(&self.names)) else {
            return;
        };
        if known.contains(name) {
            return;
        }
        let help = suggest(name, known.iter().copied(), what);
        self.report(first.span, format!("there is no {what} `{name}`"), help);
    }

    fn service(&mut self, reference: &Reference, at: &Position<'s>) {
        let mut path = reference.path.iter();
        let Some(name) = path.next() else { return };
        self.member(reference, "service", |names| Some(&names.services));
        let part = path.next();
        let part_name = part.and_then(|part| part.key.name());
        if at.level == Level::Definition && part_name != Some("host") {
            let help = format!(
                "write `services.{}.host`; the rest is known in `ready`, sessions and steps (a process finds its own free ports in `port.NAME`)",
                name.key
            );
            let message = "only `.host` of a service is known before it starts".to_owned();
            return self.report(part.unwrap_or(name).span, message, Some(help));
        }
        if let (Some(part), Some(part_name)) = (part, part_name)
            && !OF_SERVICE.contains(&part_name)
        {
            let help = suggest(part_name, OF_SERVICE, "part");
            self.report(part.span, format!("a service has no `{part_name}`"), help);
        }
    }

    /// Checks `steps.ID…`: the step must run before this one and capture the name.
    pub fn step_reference(&mut self, reference: &Reference, at: &Position<'s>) {
        if at.level != Level::Step {
            // The steps of a session are checked where it is used.
            return;
        }
        match self.scope.check(&reference.path) {
            Ok(()) => {}
            Err(Unseen::Part(span, message, help)) => self.report(span, message, Some(help)),
            Err(Unseen::Unknown) => match &mut self.outward {
                Some(outward) => outward.add(reference.clone()),
                None => {
                    let problem = self.unseen_step(reference);
                    self.diagnostics.push(problem);
                }
            },
        }
    }

    /// Returns the error for a step that can't be seen from here.
    pub fn unseen_step(&self, reference: &Reference) -> Diagnostic {
        let first = reference.path.first();
        let id = first
            .map(|segment| segment.key.to_string())
            .unwrap_or_default();
        let span = first.map_or(reference.span, |segment| segment.span);
        let (message, help) = if self.names.ids.contains(id.as_str()) {
            (
                format!("step `{id}` has not run yet at this point"),
                Some(
                    "a step sees those before it; steps of a `parallel` don't see each other"
                        .to_owned(),
                ),
            )
        } else if self.names.inner_ids.contains(id.as_str()) {
            (
                format!("the step `{id}` is seen only from inside its define or `foreach`"),
                Some("a define offers values by `capture`".to_owned()),
            )
        } else {
            (
                format!("there is no step `{id}`"),
                suggest(&id, self.scope.ids(), "step before this one"),
            )
        };
        Diagnostic {
            help,
            ..Diagnostic::error(span, message)
        }
    }

    fn param(&mut self, reference: &Reference, at: &Position<'s>) {
        let Some(params) = at.params else {
            let help = "`params` are those of the define around a step; a value of the spec is in `vars` or `inputs`";
            return self.report(
                reference.root_span,
                "there are no `params` outside of a define".into(),
                Some(help.into()),
            );
        };
        let Some(first) = reference.path.first().filter(|segment| !segment.optional) else {
            return;
        };
        let Some(name) = first.key.name() else { return };
        if !params.iter().any(|param| param.name.text == name) {
            let known = params.iter().map(|param| param.name.text.as_str());
            let help = suggest(name, known, "parameter");
            self.report(first.span, format!("there is no parameter `{name}`"), help);
        }
    }

    fn port(&mut self, reference: &Reference, at: &Position<'s>) {
        let Some(ports) = &at.ports else {
            let help = "in a container the port is the image's; steps use `services.X.port[8080]`";
            return self.report(
                reference.root_span,
                "`port` is known only in a process".into(),
                Some(help.into()),
            );
        };
        let Some(first) = reference.path.first() else {
            return;
        };
        let name = first.key.to_string();
        if !ports.contains(&name) {
            let message = format!("the process has no port `{name}`");
            let help = format!("declare it: `ports: [{name}]`");
            self.report(first.span, message, Some(help));
        }
    }

    fn unknown_root(&mut self, reference: &Reference, at: &Position<'s>) {
        let root = reference.root.as_str();
        let contexts = at.level.contexts();
        if RESULTS.contains(&root) {
            let (message, help) = match at.action {
                "" => (
                    format!("`{root}` is a result, and there is none here"),
                    "results are known in `until`, `skip`, `capture` and `expect` of the step itself",
                ),
                action => (
                    format!("`{root}` is no result of `{action}`"),
                    "http: status headers body json cookies elapsed; sse: status headers event events elapsed; exec, run: exit_code stdout stderr elapsed",
                ),
            };
            return self.report(reference.root_span, message, Some(help.into()));
        }
        if CONTEXTS.contains(&root) || root == "port" {
            let message = format!("`{root}` is not known {}", at.level.place());
            let help = match contexts {
                [] => None,
                _ => Some(format!("known are {}", list(contexts, "and"))),
            };
            return self.report(reference.root_span, message, help);
        }
        let help = self.meant(root, at);
        self.report(reference.root_span, format!("unknown name `{root}`"), help);
    }

    /// Returns advice on what an unknown name probably means.
    fn meant(&self, root: &str, at: &Position<'s>) -> Option<String> {
        let contexts = at.level.contexts();
        let declared = [
            ("matrix", self.names.matrix.as_ref()),
            ("vars", Some(&self.names.vars)),
            ("inputs", Some(&self.names.inputs)),
            ("secrets", Some(&self.names.secrets)),
            ("services", Some(&self.names.services)),
        ];
        for (context, names) in declared {
            if contexts.contains(&context) && names.is_some_and(|names| names.contains(root)) {
                return Some(format!("write `{context}.{root}`"));
            }
        }
        if at
            .params
            .is_some_and(|params| params.iter().any(|param| param.name.text == root))
        {
            return Some(format!("write `params.{root}`"));
        }
        if let Some(id) = self
            .names
            .captures
            .get(root)
            .filter(|_| contexts.contains(&"steps"))
        {
            return Some(format!(
                "a capture of another step: write `steps.{id}.{root}`"
            ));
        }
        let bare = at
            .bare
            .iter()
            .copied()
            .chain(at.variables.iter().map(|variable| variable.name));
        let known = contexts.iter().copied().chain(bare);
        if let Some(help) = foreign::name(root) {
            return Some(help.to_owned());
        }
        closest(root, known)
            .map(|meant| format!("did you mean `{meant}`?"))
            .or_else(|| Some(format!("a text is quoted: '{root}'")))
    }
}

/// Returns "did you mean …", or a list of the known names.
pub fn suggest<'n>(
    name: &str,
    known: impl IntoIterator<Item = &'n str>,
    what: &str,
) -> Option<String> {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    match closest(name, known.iter().copied()) {
        Some(meant) => Some(format!("did you mean `{meant}`?")),
        None if known.is_empty() => Some(format!("there is no {what} at all")),
        None if known.len() > 12 => None,
        None => Some(format!("there is {}", list(&known, "and"))),
    }
}
