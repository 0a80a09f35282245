//! Derives from a spec which of its services are jobs, and which are needed.
//!
//! The result depends on the spec's text alone. A service whose end the spec doesn't mention may still end by itself
//! with exit code 0, unless something indicates that it stays: another service or a step needs it, or it has ports, a
//! health check, a `ready` predicate or a `restart` policy that says so.

use crate::action::references::Collector;
use phalanx_shared::expr::Cache;
use phalanx_shared::language::model::{
    Action, ContainerVerb, DefineBody, Service, Spec, Step, Wait,
};
use phalanx_shared::language::service::{Restart, ServiceConfig};
use phalanx_shared::node::Node;
use std::collections::BTreeSet;

/// The expected ends of all services.
#[derive(Debug, Default)]
pub struct Expected {
    jobs: BTreeSet<String>,
    needed: BTreeSet<String>,
    /// Whether a step computes the names of the services that it needs.
    any_needed: bool,
}

impl Expected {
    /// Derives the expectations from a spec.
    pub fn of(spec: &Spec, cache: &Cache) -> Self {
        let mut expected = Expected::default();
        for service in &spec.services {
            expected.service(service, spec, cache);
        }
        let phases = spec.phases.iter().flat_map(|phase| &phase.steps);
        let defines = spec.define.iter().flat_map(|define| match &define.body {
            DefineBody::Steps { steps, .. } => steps.as_slice(),
            DefineBody::Value(_) => &[],
        });
        for step in phases.chain(defines) {
            expected.step(step, spec, cache);
        }
        expected
    }

    /// Returns whether other services wait for its completion or a step waits for its end.
    pub fn is_job(&self, service: &str) -> bool {
        self.jobs.contains(service)
    }

    /// Returns whether a step refers to it, or another service depends on it or refers to it.
    pub fn is_needed(&self, service: &str) -> bool {
        self.any_needed || self.needed.contains(service)
    }

    fn service(&mut self, service: &Service, spec: &Spec, cache: &Cache) {
        completed_by(&service.definition, &mut self.jobs);
        let on = phalanx_shared::language::service::dependencies(&service.definition);
        self.needed.extend(on.into_iter().map(|name| name.text));
        let mut found = Collector::new(spec, cache).node(&service.definition);
        if let Some(ready) = &service.ready {
            found = found.probe(&ready.probe);
        }
        self.add(found, Some(&service.name.text));
    }

    fn step(&mut self, step: &Step, spec: &Spec, cache: &Cache) {
        waited_for(step, &mut self.jobs);
        let found = Collector::new(spec, cache);
        self.add(found.opening(step).asking(step).acting(step), None);
        let name = match &step.action {
            Action::Container(action) if action.verb != ContainerVerb::Run => Some(&action.service),
            Action::Wait(Wait::Ready(service)) => Some(service),
            _ => None,
        };
        if let Some(name) = name {
            self.needed.insert(name.text.trim().to_owned());
        }
        let inner = match &step.action {
            Action::Steps(steps) | Action::Parallel(steps) => steps.as_slice(),
            _ => &[],
        };
        for step in inner.iter().chain(step.otherwise.iter()) {
            self.step(step, spec, cache);
        }
    }

    /// Adds the services that were found, without `but`: a service that refers to itself doesn't make itself needed.
    fn add(&mut self, found: Collector<'_>, but: Option<&str>) {
        let found = found.done();
        self.any_needed |= found.computed_service;
        let services = found.services.into_iter();
        self.needed
            .extend(services.filter(|name| Some(name.as_str()) != but));
    }
}

/// Returns whether exit code 0 is a normal end of the service. `needed`: a step or another service needs it;
/// `healthcheck`: it has a health check, possibly from its image; `ready`: it has a `ready` predicate.
pub fn may_end(config: &ServiceConfig, needed: bool, healthcheck: bool, ready: bool) -> bool {
    match config.restart {
        Restart::No | Restart::OnFailure => true,
        Restart::Always => false,
        Restart::Unsaid => !needed && !healthcheck && !ready && config.ports.is_empty(),
    }
}

/// Collects the services whose completion a definition's `depends_on` requires, as written.
fn completed_by(definition: &Node, jobs: &mut BTreeSet<String>) {
    if let Some(on) = definition.get("depends_on") {
        completed_in(on, jobs);
    }
}

/// `on` is a map, or a list of maps if several were merged.
fn completed_in(on: &Node, jobs: &mut BTreeSet<String>) {
    on.items().iter().for_each(|item| completed_in(item, jobs));
    for entry in on.entries() {
        let condition = entry.value.get("condition").and_then(Node::as_text);
        if condition == Some("service_completed_successfully") {
            jobs.insert(entry.key.text.clone());
        }
    }
}

fn waited_for(step: &Step, jobs: &mut BTreeSet<String>) {
    match &step.action {
        Action::Wait(Wait::Exited(service)) => {
            jobs.insert(service.text.trim().to_owned());
        }
        Action::Container(action) if action.verb == ContainerVerb::Run => {
            jobs.insert(action.service.text.trim().to_owned());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::diagnostic::Source;
    use phalanx_shared::language::load;
    use phalanx_shared::language::service::Port;

    fn expected(text: &str) -> Expected {
        let main = Source {
            name: "spec.yaml".into(),
            text: text.into(),
        };
        let loaded = load(main, &mut |path| Err(format!("no {path}")));
        let spec = loaded
            .spec
            .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        Expected::of(&spec, &Cache::new())
    }

    #[test]
    fn whoever_is_named_is_needed_and_whoever_is_waited_for_is_a_job() {
        let expected = expected(
            r#"
services:
  seed: { image: x, depends_on: [db] }
  db: { image: x, environment: { OWN: "${{ services.db.host }}" } }
  migrate: { image: x }
  app: { image: x, depends_on: { migrate: { condition: service_completed_successfully } }, environment: { C: "${{ services.cache.host }}" } }
  cache: { image: x }
  lone: { image: x, environment: { OWN: "${{ services.lone.host }}" } }
  once: { image: x, start: manual }
  late: { image: x }
  stopped: { image: x }
  asked: { image: x }
phases:
  p:
    - exec: { service: app, command: [x] }
    - container: { run: once }
    - wait: { service: late, until: exited }
    - steps: [{ container: { stop: stopped } }, { http: { get: "${{ services.asked.url }}" } }]
"#,
        );
        let which = |is: &dyn Fn(&str) -> bool| -> Vec<&str> {
            let all = [
                "seed", "db", "migrate", "app", "cache", "lone", "once", "late", "stopped", "asked",
            ];
            all.into_iter().filter(|name| is(name)).collect()
        };
        assert_eq!(
            which(&|name| expected.is_job(name)),
            ["migrate", "once", "late"]
        );
        assert_eq!(
            which(&|name| expected.is_needed(name)),
            ["db", "migrate", "app", "cache", "stopped", "asked"]
        );
    }

    #[test]
    fn a_computed_name_may_be_any_service() {
        let expected = expected(
            "services: { a: { image: x } }\nphases: { p: [{ expect: \"services[vars.n].url != ''\" }] }\nvars: { n: a }\n",
        );
        assert!(expected.is_needed("a"));
    }

    #[test]
    fn who_may_end_says_so_or_has_nothing_that_stays() {
        let with = |restart| ServiceConfig {
            restart,
            ..ServiceConfig::default()
        };
        let lone = with(Restart::Unsaid);
        assert!(may_end(&lone, false, false, false));
        for (needed, healthcheck, ready) in [
            (true, false, false),
            (false, true, false),
            (false, false, true),
        ] {
            assert!(!may_end(&lone, needed, healthcheck, ready));
            assert!(may_end(&with(Restart::No), needed, healthcheck, ready));
            assert!(may_end(
                &with(Restart::OnFailure),
                needed,
                healthcheck,
                ready
            ));
        }
        assert!(!may_end(&with(Restart::Always), false, false, false));
        let port = Port {
            target: Some(80),
            name: None,
            protocol: "tcp".into(),
            app_protocol: None,
            published: None,
        };
        let serving = ServiceConfig {
            ports: vec![port],
            ..ServiceConfig::default()
        };
        assert!(!may_end(&serving, false, false, false));
    }
}
