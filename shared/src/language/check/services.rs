//! Checks services (definitions, readiness, dependencies) and sessions.

use super::circle;
use super::position::{Level, Position};
use super::reference::{Checker, suggest};
use crate::diagnostic::Diagnostic;
use crate::expr::{Reference, TemplateProgram};
use crate::language::model::{
    Action, ContainerVerb, DefineBody, Http, Probe, Service, Session, SessionRef, Spec, Step,
};
use crate::language::service::{self, may_have_replica};
use crate::node::{Node, Template, Text};
use indexmap::IndexMap;
use std::collections::HashSet;

/// Results of an HTTP request.
pub const HTTP_RESULTS: [&str; 6] = ["status", "headers", "body", "json", "cookies", "elapsed"];

impl<'s> Checker<'s, '_> {
    /// Checks all sessions, then all services.
    pub fn services(&mut self) {
        let spec = self.names.spec;
        for session in &spec.sessions {
            self.session(session);
        }
        if let Some(name) = &spec.default_session {
            self.session_name(name);
        }
        for (_, value) in &spec.compose_variables {
            self.node(value, &Position::at(Level::Definition));
        }
        for service in &spec.services {
            self.service_definition(service);
        }
        self.names_of_replicas();
        self.dependencies();
        self.images_of_builds();
        self.never_started();
    }

    /// Reports services that have the name of another one's replica.
    fn names_of_replicas(&mut self) {
        for service in &self.names.spec.services {
            let Some(other) = self.names.replica(&service.name.text) else {
                continue;
            };
            let (name, other) = (&service.name, &other.name);
            let message = format!("a replica of `{}` has the name `{}`", other.text, name.text);
            let problem = Diagnostic::error(name.span, message)
                .with_related(other.span, "the service with several replicas")
                .with_help("give one of the services another name");
            self.diagnostics.push(problem);
        }
    }

    fn service_definition(&mut self, service: &'s Service) {
        service::check_service(&service.name.text, &service.definition, self.diagnostics);
        service::lint(&service.definition, self.diagnostics);
        let mut at = Position::at(Level::Definition);
        if service.process {
            at.ports = Some(port_names(&service.definition));
        }
        self.node(&service.definition, &at);
        self.exposed_by_service(&service.definition);
        let definition = Position::at(Level::Definition);
        self.artifacts(&service.artifacts, Some(service), &definition);
        let Some(ready) = &service.ready else { return };
        let at = Position::at(Level::Running);
        self.maybe_node(ready.timeout.as_ref(), &at);
        match &ready.probe {
            Probe::Http { request, expect } => {
                self.request(request, &at);
                let at = at.with(HTTP_RESULTS);
                for expr in expect {
                    self.expr(expr, &at);
                }
                if let SessionRef::Named(name) = &request.session {
                    self.session_of_ready(service, name);
                }
            }
            Probe::Tcp { port } => self.node(port, &at),
            Probe::Exec { command } => {
                self.node(command, &at);
                self.exposed_in(command);
            }
            Probe::Log { pattern } => {
                self.template(pattern, &at);
                if !pattern.text.contains("${{")
                    && let Err(problem) = regex::Regex::new(&pattern.text)
                {
                    let message = problem.to_string();
                    let reason = message.lines().last().unwrap_or_default();
                    let reason = reason.trim_start_matches("error: ").to_owned();
                    self.report(
                        pattern.span,
                        format!("this is no regular expression: {reason}"),
                        None,
                    );
                }
            }
        }
    }

    /// Reports a session that reads steps if a service uses it to become ready, because no step has run by then.
    fn session_of_ready(&mut self, service: &Service, name: &Text) {
        let reads = self
            .sessions
            .get(name.text.as_str())
            .and_then(|found| found.first());
        if let (false, Some(reads)) = (service.manual, reads) {
            let message = format!(
                "the session `{}` reads a step, and no step runs before this service is ready",
                name.text
            );
            let problem = Diagnostic::error(name.span, message)
                .with_related(reads.span, "read here")
                .with_help("use another session, or `session: none` and a whole URL");
            self.diagnostics.push(problem);
        }
    }

    /// Checks the parts of a request, including the name of its session.
    pub fn request(&mut self, request: &Http, at: &Position<'s>) {
        self.template(&request.url, at);
        match &request.body {
            crate::language::model::Body::None => {}
            crate::language::model::Body::Json(node) | crate::language::model::Body::Form(node) => {
                self.node(node, at)
            }
            crate::language::model::Body::Text(text) => self.template(text, at),
        }
        for node in [&request.query, &request.headers, &request.follow_redirects] {
            self.maybe_node(node.as_ref(), at);
        }
        if let Some(tls) = &request.tls {
            self.maybe_node(tls.verify.as_ref(), at);
            self.maybe_template(tls.ca.as_ref(), at);
        }
        if let SessionRef::Named(name) = &request.session {
            self.session_name(name);
        }
    }

    fn session_name(&mut self, name: &Text) {
        if !self.names.sessions.contains(name.text.as_str()) {
            let help = suggest(&name.text, self.names.sessions.iter().copied(), "session");
            self.report(
                name.span,
                format!("there is no session `{}`", name.text),
                help,
            );
        }
    }

    fn session(&mut self, session: &'s Session) {
        let at = Position::at(Level::Running);
        let mut reads = Vec::new();
        if let Some(base) = &session.base {
            self.template(base, &at);
            steps_in_template(base, &mut reads);
        }
        for node in session
            .headers
            .iter()
            .chain(session.tls.iter().flat_map(|tls| &tls.verify))
        {
            self.node(node, &at);
            steps_in(node, &mut reads);
        }
        if let Some(ca) = session.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
            self.template(ca, &at);
        }
        self.sessions.insert(&session.name.text, reads);
    }

    fn dependencies(&mut self) {
        let spec = self.names.spec;
        let needs: IndexMap<&str, Vec<_>> = spec
            .services
            .iter()
            .map(|service| {
                let needs = service::dependencies(&service.definition).into_iter();
                let needs = needs.map(|name| (name.text, name.span)).collect();
                (service.name.text.as_str(), needs)
            })
            .collect();
        for (name, span) in needs.values().flatten() {
            if !needs.contains_key(name.as_str()) {
                let help = suggest(name, needs.keys().copied(), "other service");
                self.report(
                    *span,
                    format!("there is no service `{name}` to depend on"),
                    help,
                );
            }
        }
        circle::each(&needs, |path, span, back| {
            let names = path.join(" → ");
            let message = format!("services wait for each other in a circle: {names} → {back}");
            let help =
                "take out one `depends_on`, or let a step start one of them (`start: manual`)";
            self.diagnostics
                .push(Diagnostic::error(span, message).with_help(help));
        });
    }
}

impl Checker<'_, '_> {
    /// Checks the services whose images builds need.
    fn images_of_builds(&mut self) {
        let services = self.names.spec.services.iter();
        let needs: IndexMap<&str, Vec<_>> = services
            .map(|service| {
                let needs = service::services_of_build(&service.definition).into_iter();
                let needs = needs.map(|name| (name.text, name.span)).collect();
                (service.name.text.as_str(), needs)
            })
            .collect();
        for (name, span) in needs.values().flatten() {
            if !needs.contains_key(name.as_str()) {
                let help = suggest(name, needs.keys().copied(), "other service");
                let message = format!("there is no service `{name}` whose image a build could use");
                self.report(*span, message, help);
            }
        }
        circle::each(&needs, |path, span, back| {
            let names = path.join(" → ");
            let message = format!("images are built of each other in a circle: {names} → {back}");
            let help = "take one of them out of `additional_contexts`";
            self.diagnostics
                .push(Diagnostic::error(span, message).with_help(help));
        });
    }

    /// Reports an automatic service that would wait forever for a manual service that no step starts.
    fn never_started(&mut self) {
        let spec = self.names.spec;
        let Some(started) = started_by_steps(spec) else {
            return;
        };
        let service = |name: &str| spec.services.iter().find(|s| s.name.text == name);
        for automatic in spec.services.iter().filter(|service| !service.manual) {
            for needed in service::required_dependencies(&automatic.definition) {
                let manual = service(&needed.text).is_some_and(|service| service.manual);
                if !manual || started.contains(needed.text.as_str()) {
                    continue;
                }
                let (name, needs) = (&automatic.name.text, &needed.text);
                let message = format!(
                    "service `{name}` waits for `{needs}`, which is `start: manual`, and no step starts it"
                );
                let help = format!(
                    "take out `start: manual`, or start it in a step: container: {{ start: {needs} }}"
                );
                self.diagnostics
                    .push(Diagnostic::error(needed.span, message).with_help(help));
            }
        }
    }
}

/// Returns the services that steps start, and their dependencies. Returns `None` if a step computes the name.
fn started_by_steps(spec: &Spec) -> Option<HashSet<&str>> {
    let mut next = Vec::new();
    let phases = spec.phases.iter().flat_map(|phase| &phase.steps);
    let defines = spec.define.iter().flat_map(|define| match &define.body {
        DefineBody::Steps { steps, .. } => steps.as_slice(),
        DefineBody::Value(_) => &[],
    });
    for step in phases.chain(defines) {
        starts(step, &mut next);
    }
    if next.iter().any(|name| name.contains("${{")) {
        return None;
    }
    let mut started = HashSet::new();
    while let Some(name) = next.pop() {
        let known = spec.services.iter().find(|s| {
            let service = &s.name.text;
            *service == name || may_have_replica(service, &s.definition, &name)
        });
        let Some(service) = known.filter(|s| started.insert(s.name.text.as_str())) else {
            continue;
        };
        let needed = service::dependencies(&service.definition).into_iter();
        next.extend(needed.map(|name| name.text));
    }
    Some(started)
}

fn starts(step: &Step, names: &mut Vec<String>) {
    match &step.action {
        Action::Container(action)
            if matches!(action.verb, ContainerVerb::Start | ContainerVerb::Run) =>
        {
            names.push(action.service.text.trim().to_owned());
        }
        Action::Steps(steps) | Action::Parallel(steps) => {
            steps.iter().for_each(|step| starts(step, names));
        }
        _ => {}
    }
    step.otherwise.iter().for_each(|step| starts(step, names));
}

/// Returns the names under `ports` of a process.
fn port_names(definition: &Node) -> Vec<String> {
    let ports = definition.get("ports").map_or(&[][..], Node::items).iter();
    ports
        .filter_map(|port| {
            port.get("name")
                .or(port.get("target"))
                .unwrap_or(port)
                .as_text()
        })
        .map(str::to_owned)
        .collect()
}

fn steps_in(node: &Node, found: &mut Vec<Reference>) {
    if let Some(text) = node.as_text() {
        let template = Template {
            text: text.to_owned(),
            span: node.span,
        };
        steps_in_template(&template, found);
    }
    node.items().iter().for_each(|item| steps_in(item, found));
    node.entries()
        .iter()
        .for_each(|entry| steps_in(&entry.value, found));
}

fn steps_in_template(template: &Template, found: &mut Vec<Reference>) {
    if let Ok(program) = TemplateProgram::parse(template) {
        found.extend(program.references().filter(|r| r.root == "steps").cloned());
    }
}
