//! Finds the references in a step's expressions: the services that it waits for and the earlier steps that it reads.
//!
//! The result depends on the text alone, before anything is evaluated. A computed name (`services[x]`) is unknown at
//! this point.

use phalanx_shared::expr::{Cache, Key, Reference};
use phalanx_shared::language::model::{
    Action, Body, Command, Http, Phase, Probe, Session, SessionRef, Spec, Step, Tls, Wait,
};
use phalanx_shared::node::{Expr, Node, NodeValue, Template};
use std::collections::BTreeSet;

/// The references in some expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Names of services.
    pub services: BTreeSet<String>,
    /// Whether a service's name is computed.
    pub computed_service: bool,
    /// Ids of steps.
    pub steps: BTreeSet<String>,
    /// Whether a step's id is computed.
    pub computed_step: bool,
}

/// Collects references.
pub struct Collector<'a> {
    spec: &'a Spec,
    cache: &'a Cache,
    found: References,
}

impl<'a> Collector<'a> {
    /// Creates an empty collector.
    pub fn new(spec: &'a Spec, cache: &'a Cache) -> Self {
        Collector {
            spec,
            cache,
            found: References::default(),
        }
    }

    /// Returns the collected references.
    pub fn done(self) -> References {
        self.found
    }

    fn add(&mut self, reference: &Reference) {
        let key = reference.path.first().map(|segment| &segment.key);
        match (reference.root.as_str(), key) {
            ("services", Some(Key::Name(name))) => {
                self.found.services.insert(name.clone());
            }
            ("services", _) => self.found.computed_service = true,
            ("steps", Some(Key::Name(name))) => {
                self.found.steps.insert(name.clone());
            }
            ("steps", _) => self.found.computed_step = true,
            _ => {}
        }
    }

    /// Adds an expression. If it can't be parsed, it has no references; its evaluation reports the error.
    #[must_use]
    pub fn expr(mut self, expr: &Expr) -> Self {
        if let Ok(program) = self.cache.program(expr) {
            program.references().iter().for_each(|r| self.add(r));
        }
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn template(mut self, template: &Template) -> Self {
        if template.text.contains("${{")
            && let Ok(program) = self.cache.template(template)
        {
            program.references().for_each(|r| self.add(r));
        }
        self
    }

    /// Adds a tree.
    #[must_use]
    pub fn node(self, node: &Node) -> Self {
        match &node.value {
            NodeValue::Text(text) => self.template(&Template {
                text: text.clone(),
                span: node.span,
            }),
            NodeValue::List(items) => items.iter().fold(self, Self::node),
            NodeValue::Map(entries) => entries
                .iter()
                .fold(self, |found, entry| found.node(&entry.value)),
            _ => self,
        }
    }

    fn option<T>(self, item: Option<&T>, add: impl FnOnce(Self, &T) -> Self) -> Self {
        match item {
            Some(item) => add(self, item),
            None => self,
        }
    }

    /// Adds a phase's own settings.
    #[must_use]
    pub fn phase(self, phase: &Phase) -> Self {
        self.option(phase.when.as_ref(), Self::expr)
            .option(phase.reason.as_ref(), Self::template)
            .option(phase.timeout.as_ref(), Self::node)
    }

    /// Adds the expressions evaluated before the action: name, limits and arguments.
    #[must_use]
    pub fn opening(self, step: &Step) -> Self {
        let found = self
            .option(step.name.as_ref(), Self::template)
            .option(step.timeout.as_ref(), Self::node)
            .option(step.verifies.as_ref(), Self::template);
        match &step.action {
            Action::Use(used) => used
                .with
                .iter()
                .fold(found, |found, (_, value)| found.node(value)),
            _ => found,
        }
    }

    /// Adds `when` and its reason.
    #[must_use]
    pub fn asking(self, step: &Step) -> Self {
        self.option(step.when.as_ref(), Self::expr)
            .option(step.reason.as_ref(), Self::template)
    }

    /// Adds the action and the expressions evaluated after it.
    #[must_use]
    pub fn acting(self, step: &Step) -> Self {
        let mut found = self.action(&step.action).concluding(step);
        found = found.option(step.timeout.as_ref(), Self::node);
        found = found.option(step.results.as_deref(), |found, results| {
            found
                .node(&results.files)
                .option(results.from.as_ref(), Self::template)
        });
        found.option(step.poll.as_ref(), |found, poll| {
            found
                .expr(&poll.until)
                .option(poll.timeout.as_ref(), Self::node)
                .option(poll.interval.as_ref(), Self::node)
        })
    }

    /// Adds the expressions evaluated after the action: `skip`, captures and checks.
    #[must_use]
    pub fn concluding(self, step: &Step) -> Self {
        let found = self.option(step.skip.as_ref(), |found, skip| {
            found.expr(&skip.condition).template(&skip.reason)
        });
        let found = step
            .capture
            .iter()
            .fold(found, |found, capture| found.expr(&capture.value));
        step.expect.iter().fold(found, Self::expr)
    }

    fn action(self, action: &Action) -> Self {
        match action {
            Action::Http(http) => self.http(http),
            Action::Sse(sse) => self
                .http(&sse.request)
                .option(sse.until.as_ref(), Self::expr)
                .option(sse.timeout.as_ref(), Self::node),
            Action::Exec(exec) => self
                .template(&exec.service)
                .service(&exec.service)
                .command(&exec.command)
                .option(exec.stdin.as_ref(), Self::template)
                .option(exec.env.as_ref(), Self::node)
                .option(exec.user.as_ref(), Self::template)
                .option(exec.workdir.as_ref(), Self::template),
            Action::Run(run) => self
                .command(&run.command)
                .option(run.env.as_ref(), Self::node)
                .option(run.workdir.as_ref(), Self::template),
            Action::Container(container) => self.template(&container.service),
            Action::Wait(Wait::Ready(service) | Wait::Exited(service)) => self.template(service),
            Action::Wait(Wait::For(time)) => self.node(time),
            Action::Cp(cp) => self.template(&cp.from).template(&cp.to),
            Action::Use(_) | Action::Steps(_) | Action::Parallel(_) | Action::Check => self,
        }
    }

    /// Adds a service that is named by a text of its own, as in `exec.service`.
    fn service(mut self, name: &Template) -> Self {
        if !name.text.contains("${{") {
            self.found.services.insert(name.text.trim().to_owned());
        }
        self
    }

    fn command(self, command: &Command) -> Self {
        match command {
            Command::Words(words) => self.node(words),
            Command::Script(script) => self.template(script),
        }
    }

    /// Adds a readiness predicate.
    #[must_use]
    pub fn probe(self, probe: &Probe) -> Self {
        match probe {
            Probe::Http { request, expect } => expect.iter().fold(self.http(request), Self::expr),
            Probe::Tcp { port: node } | Probe::Exec { command: node } => self.node(node),
            Probe::Log { pattern } => self.template(pattern),
        }
    }

    fn http(self, http: &Http) -> Self {
        let found = self.template(&http.url);
        let found = match &http.body {
            Body::None => found,
            Body::Json(node) | Body::Form(node) => found.node(node),
            Body::Text(text) => found.template(text),
        };
        let found = found
            .option(http.query.as_ref(), Self::node)
            .option(http.headers.as_ref(), Self::node)
            .option(http.follow_redirects.as_ref(), Self::node)
            .option(http.tls.as_ref(), Self::tls);
        let session = session(found.spec, &http.session);
        found.option(session, |found, session| {
            // An absolute URL doesn't need the session's base.
            let base = session
                .base
                .as_ref()
                .filter(|_| !is_whole_url(&http.url.text));
            found
                .option(base, Self::template)
                .option(session.headers.as_ref(), Self::node)
                .option(session.tls.as_ref(), Self::tls)
        })
    }

    fn tls(self, tls: &Tls) -> Self {
        self.option(tls.verify.as_ref(), Self::node)
            .option(tls.ca.as_ref(), Self::template)
    }
}

/// Returns the session that a request uses.
pub fn session<'a>(spec: &'a Spec, named: &SessionRef) -> Option<&'a Session> {
    let name = match named {
        SessionRef::None => return None,
        SessionRef::Default => &spec.default_session.as_ref()?.text,
        SessionRef::Named(name) => &name.text,
    };
    spec.sessions
        .iter()
        .find(|session| session.name.text == *name)
}

/// Returns whether a URL is absolute, so that it needs no base.
pub fn is_whole_url(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}
