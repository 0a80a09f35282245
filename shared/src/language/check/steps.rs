//! Checks phases and steps, in the order in which they run.

use super::position::{Level, Position, Variable};
use super::reference::{Checker, suggest};
use super::services::HTTP_RESULTS;
use crate::diagnostic::{Diagnostic, Span};
use crate::expr::TemplateProgram;
use crate::language::model::{
    Action, Command, ContainerVerb, Cp, Exec, Http, Run, SessionRef, Step, Wait,
};
use crate::node::{Node, Template};

/// Results of an event stream.
pub const SSE_RESULTS: [&str; 5] = ["status", "headers", "event", "events", "elapsed"];
/// Results of a command.
pub const COMMAND_RESULTS: [&str; 4] = ["exit_code", "stdout", "stderr", "elapsed"];

impl<'s> Checker<'s, '_> {
    /// Checks all phases.
    pub fn phases(&mut self) {
        let at = Position::at(Level::Step);
        for phase in &self.names.spec.phases {
            if let Some(when) = &phase.when {
                self.expr(when, &at);
            }
            self.maybe_template(phase.reason.as_ref(), &at);
            self.maybe_node(phase.timeout.as_ref(), &at);
            if let Some(verifies) = &phase.verifies {
                self.verifies(verifies, &at);
            }
            self.steps(&phase.steps, &at);
        }
    }

    /// Checks steps in order.
    pub fn steps(&mut self, steps: &'s [Step], at: &Position<'s>) {
        for step in steps {
            self.step(step, at);
        }
    }

    fn step(&mut self, step: &'s Step, outer: &Position<'s>) {
        let mut at = outer.clone();
        if let Some(foreach) = &step.foreach {
            self.node(&foreach.items, outer);
            self.hides(&foreach.variable, outer);
            at.variables.push(Variable {
                name: &foreach.variable.text,
                items: &foreach.items,
            });
        }
        self.around(step, &at);
        let mark = self.scope.mark();
        self.action(&step.action, &at, step.span);
        if step.foreach.is_some() {
            self.scope.forget_since(mark);
        }
        self.after(step, &at);
        let mark = self.scope.mark();
        self.steps(&step.otherwise, &at);
        if step.foreach.is_some() {
            self.scope.forget_since(mark);
        }
        self.remember(step);
    }

    /// Checks everything that is evaluated before the action.
    fn around(&mut self, step: &'s Step, at: &Position<'s>) {
        if let Some(when) = &step.when {
            self.expr(when, at);
        }
        for template in [&step.name, &step.reason] {
            self.maybe_template(template.as_ref(), at);
        }
        let retry = step.retry.as_ref();
        let poll = step.poll.as_ref();
        let settings = [
            step.timeout.as_ref(),
            retry.map(|retry| &retry.times),
            retry.and_then(|retry| retry.delay.as_ref()),
            poll.and_then(|poll| poll.timeout.as_ref()),
            poll.and_then(|poll| poll.interval.as_ref()),
        ];
        for node in settings {
            self.maybe_node(node, at);
        }
        if let Some(verifies) = &step.verifies {
            self.verifies(verifies, at);
        }
        self.results(step, at);
        self.artifacts(&step.artifacts, None, at);
    }

    /// Checks everything that is evaluated after the action.
    fn after(&mut self, step: &'s Step, at: &Position<'s>) {
        let (action, results) = self.results_of(&step.action);
        let mut at = at.with(results);
        at.action = action;
        if let Some(poll) = &step.poll {
            self.expr(&poll.until, &at);
        }
        if let Some(skip) = &step.skip {
            self.expr(&skip.condition, &at);
            self.template(&skip.reason, &at);
        }
        let captures = step
            .capture
            .iter()
            .map(|capture| capture.name.text.as_str());
        let at = at.with(captures);
        for capture in &step.capture {
            self.expr(&capture.value, &at);
        }
        for expect in &step.expect {
            self.expr(expect, &at);
        }
    }

    /// Returns the name of an action, and its results, which are read without a context.
    fn results_of(&self, action: &'s Action) -> (&'static str, Vec<&'s str>) {
        match action {
            Action::Http(_) => ("http", HTTP_RESULTS.to_vec()),
            Action::Sse(_) => ("sse", SSE_RESULTS.to_vec()),
            Action::Exec(_) => ("exec", COMMAND_RESULTS.to_vec()),
            Action::Run(_) => ("run", COMMAND_RESULTS.to_vec()),
            Action::Container(change) if change.verb == ContainerVerb::Run => {
                ("container", COMMAND_RESULTS.to_vec())
            }
            Action::Container(_) => ("container", Vec::new()),
            Action::Wait(_) => ("wait", Vec::new()),
            Action::Cp(_) => ("cp", Vec::new()),
            Action::Use(call) => ("use", self.captures_of(&call.define.text)),
            Action::Steps(_) => ("steps", Vec::new()),
            Action::Parallel(_) => ("parallel", Vec::new()),
            Action::Check => ("expect", Vec::new()),
        }
    }

    fn remember(&mut self, step: &'s Step) {
        let Some(id) = &step.id else { return };
        let mut captures: Vec<String> = step
            .capture
            .iter()
            .map(|capture| capture.name.text.clone())
            .collect();
        if let Action::Use(call) = &step.action {
            captures.extend(
                self.captures_of(&call.define.text)
                    .into_iter()
                    .map(str::to_owned),
            );
        }
        let earlier = self
            .scope
            .add(&id.text, id.span, captures, step.foreach.is_some());
        if let Some(earlier) = earlier {
            let problem = Diagnostic::error(id.span, format!("duplicate step id `{}`", id.text))
                .with_related(earlier, "first written here")
                .with_help("ids are unique in a cell: phases and groups don't separate them");
            self.diagnostics.push(problem);
        }
    }

    fn hides(&mut self, variable: &crate::node::Text, at: &Position<'s>) {
        if at.knows(&variable.text) {
            let message = format!(
                "`{}` hides the `foreach` variable of that name around it",
                variable.text
            );
            self.report(variable.span, message, Some("give it another name".into()));
        }
    }

    fn action(&mut self, action: &'s Action, at: &Position<'s>, span: Span) {
        match action {
            Action::Http(request) => self.step_request(request, at),
            Action::Sse(stream) => {
                self.step_request(&stream.request, at);
                self.maybe_node(stream.timeout.as_ref(), at);
                if let Some(until) = &stream.until {
                    let mut at = at.with(SSE_RESULTS);
                    at.action = "sse";
                    self.expr(until, &at);
                }
            }
            Action::Exec(exec) => self.exec(exec, at),
            Action::Run(run) => self.run(run, at),
            Action::Container(change) => self.service_name(&change.service, at),
            Action::Wait(Wait::Ready(service) | Wait::Exited(service)) => {
                self.service_name(service, at)
            }
            Action::Wait(Wait::For(time)) => {
                self.node(time, at);
                let problem = Diagnostic::warning(time.span, "fixed sleeps are slow or flaky");
                self.diagnostics.push(problem.with_help("wait for what you need: `poll`, `wait: { service: X, until: ready }`, or `ready` of the service"));
            }
            Action::Cp(cp) => self.cp(cp, at, span),
            Action::Use(call) => self.use_define(call, at),
            Action::Steps(steps) => self.steps(steps, at),
            Action::Parallel(steps) => {
                let before = self.scope.mark();
                for step in steps {
                    let mark = self.scope.mark();
                    self.step(step, at);
                    self.scope.show_since(mark, false);
                }
                self.scope.show_since(before, true);
            }
            Action::Check => {}
        }
    }

    fn command(&mut self, command: &Command, at: &Position<'s>) {
        match command {
            Command::Words(words) => {
                if matches!(&words.value, crate::node::NodeValue::List(items) if items.is_empty()) {
                    self.report(words.span, "the command is empty".into(), None);
                }
                self.node(words, at);
                self.exposed_in(words);
            }
            Command::Script(script) => {
                self.template(script, at);
                self.exposed(script);
            }
        }
    }

    fn exec(&mut self, exec: &Exec, at: &Position<'s>) {
        self.service_name(&exec.service, at);
        self.command(&exec.command, at);
        for template in [&exec.stdin, &exec.user, &exec.workdir] {
            self.maybe_template(template.as_ref(), at);
        }
        self.maybe_node(exec.env.as_ref(), at);
    }

    fn run(&mut self, run: &Run, at: &Position<'s>) {
        self.command(&run.command, at);
        self.maybe_node(run.env.as_ref(), at);
        self.maybe_template(run.workdir.as_ref(), at);
    }

    /// Checks the name of a service that a step uses: it must be known, or an expression.
    pub fn service_name(&mut self, name: &Template, at: &Position<'s>) {
        if name.text.contains("${{") {
            return self.template(name, at);
        }
        if !self.names.is_service(name.text.as_str()) {
            let help = suggest(&name.text, self.names.services.iter().copied(), "service");
            self.report(
                name.span,
                format!("there is no service `{}`", name.text),
                help,
            );
        }
    }

    fn cp(&mut self, cp: &Cp, at: &Position<'s>, span: Span) {
        self.template(&cp.from, at);
        self.template(&cp.to, at);
        let services = [&cp.from, &cp.to].map(|side| {
            let (name, path) = side.text.split_once(':')?;
            // Also accept `SERVICE:path` if a service has that name. A path in the workspace may hold a colon.
            let is_one = path.starts_with('/') || self.names.is_service(name);
            let name = is_one.then_some(name);
            name.filter(|name| !name.contains('/') && !name.contains('.'))
        });
        let varies = [&cp.from, &cp.to]
            .iter()
            .any(|side| side.text.contains("${{"));
        match services {
            _ if varies => {}
            [Some(name), None] => self.service_name(&part(&cp.from, name), at),
            [None, Some(name)] => self.service_name(&part(&cp.to, name), at),
            _ => {
                let help = "one side is `SERVICE:/path`, the other a path of the workspace";
                self.report(
                    span,
                    "`cp` copies between a service and the workspace".into(),
                    Some(help.into()),
                );
            }
        }
    }

    /// Checks a step's request: it needs a whole URL or a session with a base, and the steps that the session reads
    /// must have run.
    fn step_request(&mut self, request: &Http, at: &Position<'s>) {
        self.request(request, at);
        let spec = self.names.spec;
        let name = match &request.session {
            SessionRef::None => None,
            SessionRef::Default => spec.default_session.as_ref(),
            SessionRef::Named(name) => Some(name),
        };
        let session = name.and_then(|name| spec.sessions.iter().find(|s| s.name.text == name.text));
        let base = session.is_some_and(|session| session.base.is_some());
        let known = name.is_none() || session.is_some();
        if known && !base && request.url.text.starts_with('/') {
            let help = "write a whole URL such as \"${{ services.X.url }}/path\", or use a session with `base`";
            self.report(
                request.url.span,
                "a path without a session that has a `base`".into(),
                Some(help.into()),
            );
        }
        let Some(session) = session else { return };
        let reads = self
            .sessions
            .get(session.name.text.as_str())
            .cloned()
            .unwrap_or_default();
        for reference in reads {
            let Err(super::scope::Unseen::Unknown) = self.scope.check(&reference.path) else {
                if at.level == Level::Step {
                    self.step_reference(&reference, at);
                }
                continue;
            };
            match &mut self.outward {
                Some(outward) => outward.add(reference),
                None => {
                    let label = format!("the session `{}` is used here", session.name.text);
                    let problem = self
                        .unseen_step(&reference)
                        .with_related(request.span, label);
                    self.diagnostics.push(problem);
                }
            }
        }
    }
}

/// Returns the beginning of a text, with its place.
fn part(whole: &Template, text: &str) -> Template {
    let exact = whole.span.len as usize == whole.text.len();
    Template {
        text: text.to_owned(),
        span: Span {
            len: if exact {
                text.len() as u32
            } else {
                whole.span.len
            },
            ..whole.span
        },
    }
}

/// Returns whether nothing in a tree is interpolated.
pub fn is_static(node: &Node) -> bool {
    !node.is_template()
        && node.items().iter().all(is_static)
        && node.entries().iter().all(|entry| is_static(&entry.value))
}

/// Returns whether a template refers only to the given names.
pub fn refers_only_to(program: &TemplateProgram, names: &[&str]) -> bool {
    program
        .references()
        .all(|reference| names.contains(&reference.root.as_str()))
}
