//! What a group of steps reads and does, as far as the spec's text says it: which values, services, sessions and defines,
//! and whether it acts outside of the services.
//!
//! Follows `use` into the bodies of defines. Nothing is evaluated; a computed name is unknown.

use super::model::{
    Action, Body, Command, Cp, DefineBody, Exec, Http, SessionRef, Spec, Step, TestResults, Tls,
    Wait,
};
use crate::diagnostic::Span;
use crate::expr::{MatrixKeys, Program, Reference, TemplateProgram};
use crate::node::{Expr, Node, NodeValue, Template};
use std::collections::{BTreeMap, BTreeSet};

/// What some steps read and do.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// Every use of a context (`inputs.x`, `steps.a.b`).
    pub references: Vec<Reference>,
    /// Names of called functions that aren't built in.
    pub functions: BTreeSet<String>,
    /// Names of services, each with the first place that names it.
    pub services: BTreeMap<String, Span>,
    /// Place of a computed service name.
    pub computed_service: Option<Span>,
    /// Defines that are used, directly or by other ones.
    pub defines: BTreeSet<String>,
    /// Sessions of requests, each with the first request.
    pub sessions: BTreeMap<String, Span>,
    /// Ids of the steps.
    pub ids: BTreeSet<String>,
    /// Commands on the agent's host.
    pub host: Vec<Span>,
    /// Paths of the workspace that are copied into services, as written.
    pub copied_in: Vec<Template>,
    /// Copies out of services, and test results: they reach the workspace or the report.
    pub copied_out: Vec<Span>,
    /// Paths of certificates in the workspace.
    pub certificates: Vec<Template>,
}

impl Reads {
    /// Collects what these steps read and do.
    pub fn of<'s>(spec: &Spec, steps: impl IntoIterator<Item = &'s Step>) -> Reads {
        let keys = spec
            .strategy
            .axes
            .iter()
            .map(|(axis, _)| axis.text.as_str());
        let mut walk = Walk {
            spec,
            keys: MatrixKeys::of(keys).open(),
            found: Reads::default(),
        };
        for step in steps {
            walk.step(step);
        }
        walk.functions();
        walk.found
    }

    /// Collects what a tree reads.
    pub fn of_node(spec: &Spec, node: &Node) -> Reads {
        let keys = spec
            .strategy
            .axes
            .iter()
            .map(|(axis, _)| axis.text.as_str());
        let mut walk = Walk {
            spec,
            keys: MatrixKeys::of(keys).open(),
            found: Reads::default(),
        };
        walk.node(node);
        walk.functions();
        walk.found
    }

    /// Returns the names after a context, such as those of `inputs`. `None` if one of them is computed, or if the whole
    /// context is read.
    pub fn names(&self, context: &str) -> Option<BTreeSet<&str>> {
        let of = self.references.iter().filter(|read| read.root == context);
        of.map(|read| read.path.first().and_then(|first| first.key.name()))
            .collect()
    }
}

struct Walk<'s> {
    spec: &'s Spec,
    keys: MatrixKeys,
    found: Reads,
}

impl Walk<'_> {
    fn step(&mut self, step: &Step) {
        self.found
            .ids
            .extend(step.id.iter().map(|id| id.text.clone()));
        for expr in step.when.iter().chain(&step.expect) {
            self.expr(expr);
        }
        for template in [&step.name, &step.reason, &step.verifies] {
            self.maybe(template.as_ref());
        }
        if let Some(each) = &step.foreach {
            self.node(&each.items);
        }
        let retry = step.retry.as_ref();
        let poll = step.poll.as_ref();
        let nodes = [
            step.timeout.as_ref(),
            retry.map(|retry| &retry.times),
            retry.and_then(|retry| retry.delay.as_ref()),
            poll.and_then(|poll| poll.timeout.as_ref()),
            poll.and_then(|poll| poll.interval.as_ref()),
        ];
        for node in nodes.into_iter().flatten() {
            self.node(node);
        }
        if let Some(poll) = poll {
            self.expr(&poll.until);
        }
        if let Some(skip) = &step.skip {
            self.expr(&skip.condition);
            self.template(&skip.reason);
        }
        for capture in &step.capture {
            self.expr(&capture.value);
        }
        if let Some(results) = step.results.as_deref() {
            let TestResults { files, from, .. } = results;
            self.node(files);
            self.maybe(from.as_ref());
            self.found.copied_out.push(step.span);
        }
        for artifact in &step.artifacts {
            self.template(&artifact.from);
            self.maybe(artifact.name.as_ref());
            artifact.max.iter().for_each(|node| self.node(node));
        }
        self.action(&step.action, step.span);
        step.otherwise.iter().for_each(|step| self.step(step));
    }

    fn action(&mut self, action: &Action, span: Span) {
        match action {
            Action::Http(request) => self.request(request),
            Action::Sse(stream) => {
                self.request(&stream.request);
                stream.until.iter().for_each(|until| self.expr(until));
                stream.timeout.iter().for_each(|node| self.node(node));
            }
            Action::Exec(exec) => self.exec(exec),
            Action::Run(run) => {
                self.found.host.push(span);
                self.command(&run.command);
                run.env.iter().for_each(|node| self.node(node));
                self.maybe(run.workdir.as_ref());
            }
            Action::Container(action) => self.service(&action.service),
            Action::Wait(Wait::Ready(service) | Wait::Exited(service)) => self.service(service),
            Action::Wait(Wait::For(time)) => self.node(time),
            Action::Cp(cp) => self.copy(cp, span),
            Action::Use(used) => {
                for (_, value) in &used.with {
                    self.node(value);
                }
                self.define(&used.define.text);
            }
            Action::Steps(steps) | Action::Parallel(steps) => {
                steps.iter().for_each(|step| self.step(step));
            }
            Action::Check => {}
        }
    }

    fn define(&mut self, name: &str) {
        if !self.found.defines.insert(name.to_owned()) {
            return;
        }
        let define = self.spec.define.iter().find(|one| one.name.text == name);
        let Some(define) = define else { return };
        for param in &define.params {
            param.default.iter().for_each(|node| self.node(node));
        }
        if let DefineBody::Steps { steps, capture } = &define.body {
            steps.iter().for_each(|step| self.step(step));
            for capture in capture {
                self.expr(&capture.value);
            }
        }
    }

    /// Follows the called functions into their bodies.
    fn functions(&mut self) {
        let mut done = BTreeSet::new();
        loop {
            let next: Vec<String> = self.found.functions.difference(&done).cloned().collect();
            if next.is_empty() {
                return;
            }
            for name in next {
                let define = self.spec.define.iter().find(|one| one.name.text == name);
                if let Some(DefineBody::Value(expr)) = define.map(|define| &define.body) {
                    self.expr(expr);
                }
                done.insert(name);
            }
        }
    }

    fn exec(&mut self, exec: &Exec) {
        self.service(&exec.service);
        self.command(&exec.command);
        for template in [&exec.stdin, &exec.user, &exec.workdir] {
            self.maybe(template.as_ref());
        }
        exec.env.iter().for_each(|node| self.node(node));
    }

    fn copy(&mut self, cp: &Cp, span: Span) {
        self.template(&cp.from);
        self.template(&cp.to);
        let service = |side: &Template| {
            let (name, path) = side.text.split_once(':')?;
            let known = self.spec.services.iter().any(|one| one.name.text == name);
            (known || path.starts_with('/')).then(|| name.to_owned())
        };
        match (service(&cp.from), service(&cp.to)) {
            (None, Some(name)) => {
                self.found.copied_in.push(cp.from.clone());
                self.found.services.entry(name).or_insert(cp.to.span);
            }
            (Some(name), None) => {
                self.found.copied_out.push(span);
                self.found.services.entry(name).or_insert(cp.from.span);
            }
            // A computed side: it may be either.
            _ => {
                self.found.copied_in.push(cp.from.clone());
                self.found.copied_out.push(span);
                self.found.computed_service.get_or_insert(span);
            }
        }
    }

    fn service(&mut self, name: &Template) {
        self.template(name);
        if name.text.contains("${{") {
            self.found.computed_service.get_or_insert(name.span);
        } else {
            let name_text = name.text.trim().to_owned();
            self.found.services.entry(name_text).or_insert(name.span);
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Words(words) => self.node(words),
            Command::Script(script) => self.template(script),
        }
    }

    fn request(&mut self, request: &Http) {
        self.template(&request.url);
        match &request.body {
            Body::None => {}
            Body::Json(node) | Body::Form(node) => self.node(node),
            Body::Text(text) => self.template(text),
        }
        for node in [&request.query, &request.headers, &request.follow_redirects] {
            node.iter().for_each(|node| self.node(node));
        }
        self.tls(request.tls.as_ref());
        let name = match &request.session {
            SessionRef::None => None,
            SessionRef::Default => self.spec.default_session.as_ref(),
            SessionRef::Named(name) => Some(name),
        };
        let Some(name) = name else { return };
        let known = self.found.sessions.contains_key(&name.text);
        self.found
            .sessions
            .entry(name.text.clone())
            .or_insert(request.span);
        let session = self
            .spec
            .sessions
            .iter()
            .find(|one| one.name.text == name.text);
        if let (false, Some(session)) = (known, session) {
            self.maybe(session.base.as_ref());
            session.headers.iter().for_each(|node| self.node(node));
            self.tls(session.tls.as_ref());
        }
    }

    fn tls(&mut self, tls: Option<&Tls>) {
        let Some(tls) = tls else { return };
        tls.verify.iter().for_each(|node| self.node(node));
        if let Some(ca) = &tls.ca {
            self.template(ca);
            self.found.certificates.push(ca.clone());
        }
    }

    fn maybe(&mut self, template: Option<&Template>) {
        if let Some(template) = template {
            self.template(template);
        }
    }

    fn template(&mut self, template: &Template) {
        if template.text.contains("${{")
            && let Ok(parsed) = TemplateProgram::parse_knowing(template, &self.keys)
        {
            for program in parsed.programs() {
                self.program(program);
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        if let Ok(program) = Program::parse_knowing(expr, &self.keys) {
            self.program(&program);
        }
    }

    fn program(&mut self, program: &Program) {
        for read in program.references() {
            if read.root == "services" {
                match read.path.first().and_then(|first| first.key.name()) {
                    Some(name) => {
                        let place = self.found.services.entry(name.to_owned());
                        place.or_insert(read.span);
                    }
                    None => {
                        self.found.computed_service.get_or_insert(read.span);
                    }
                }
            }
            self.found.references.push(read.clone());
        }
        let called = program.calls().iter().map(|call| call.name.clone());
        self.found.functions.extend(called);
    }

    fn node(&mut self, node: &Node) {
        match &node.value {
            NodeValue::Text(text) => self.template(&Template {
                text: text.clone(),
                span: node.span,
            }),
            NodeValue::List(items) => items.iter().for_each(|item| self.node(item)),
            NodeValue::Map(entries) => entries.iter().for_each(|entry| self.node(&entry.value)),
            _ => {}
        }
    }
}
