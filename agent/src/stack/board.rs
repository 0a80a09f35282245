//! The state of each service of an attempt. The services' actors write it; steps, probes and the stack's core read it.
//!
//! Steps wait on the board instead of asking an actor, so that no actor is blocked.

pub use super::status::{Stage, Status};

use super::replicas;
use crate::context::services::Unavailable;
use crate::runtime::contract::Exit;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// The state of all services of an attempt. Cheap to clone.
#[derive(Clone, Default)]
pub struct Board {
    services: Arc<watch::Sender<BTreeMap<String, Status>>>,
}

impl Board {
    /// Creates a board with the services of a spec.
    pub fn new(services: BTreeMap<String, Status>) -> Self {
        Board {
            services: Arc::new(watch::Sender::new(services)),
        }
    }

    /// Changes a service's state and wakes all waiters. The change of a replica also changes its service's state.
    pub fn update(&self, service: &str, change: impl FnOnce(&mut Status)) {
        self.services.send_modify(|services| {
            let Some(status) = services.get_mut(service) else {
                return;
            };
            change(status);
            if let Some(of) = status.of.clone() {
                sum_up(services, &of);
            }
        });
    }

    /// Adds the replicas of a service that has several.
    pub fn replicate(&self, service: &str, replicas: &[String]) {
        self.services.send_modify(|services| {
            let Some(status) = services.get_mut(service) else {
                return;
            };
            let one = Status {
                of: Some(service.to_owned()),
                ..status.clone()
            };
            status.replicas = replicas.to_vec();
            let all = replicas.iter().map(|name| (name.clone(), one.clone()));
            services.extend(all);
        });
    }

    /// Returns the names of a service's replicas, or its own if it has one container.
    pub fn replicas(&self, service: &str) -> Vec<String> {
        let services = self.services.borrow();
        let replicas = services.get(service).map(|status| status.replicas.clone());
        let replicas = replicas.filter(|replicas| !replicas.is_empty());
        replicas.unwrap_or_else(|| vec![service.to_owned()])
    }

    /// Returns a copy of a service's state.
    pub fn get(&self, service: &str) -> Option<Status> {
        self.services.borrow().get(service).cloned()
    }

    /// Returns a copy of the state of all services.
    pub fn all(&self) -> BTreeMap<String, Status> {
        self.services.borrow().clone()
    }

    /// Returns a receiver that sees every change.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Status>> {
        self.services.subscribe()
    }

    /// Returns the current value of `services` in expressions.
    pub fn contexts(&self) -> Value {
        let services = self.services.borrow();
        let contexts = services
            .iter()
            .filter(|(_, status)| status.of.is_none())
            .map(|(name, status)| (name.clone(), context(name, status, &services)));
        Value::Object(contexts.collect())
    }

    /// Returns the value of `services` for the readiness of a service: a replica sees its own addresses as its
    /// service's.
    pub fn contexts_for(&self, name: &str) -> Value {
        let mut all = self.contexts();
        let status = self.get(name);
        let of = status.as_ref().and_then(|status| status.of.as_ref());
        if let (Some(of), Value::Object(all)) = (of, &mut all)
            && let Some(Value::Object(service)) = all.get_mut(of)
            && let Some(Value::Object(own)) = status.as_ref().map(|status| status.context(name))
        {
            service.extend(own);
        }
        all
    }

    /// Returns why an automatic service will never start: it needs a `start: manual` service that no step has started.
    /// `None` if it may still start.
    pub fn blocked(&self, name: &str) -> Option<String> {
        blocked(name, &self.services.borrow())
    }

    /// Returns these services and all that they depend on, as far as their definitions are known.
    pub fn with_dependencies(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let services = self.services.borrow();
        let mut found = BTreeSet::new();
        let mut next: Vec<&String> = names.iter().collect();
        while let Some(name) = next.pop() {
            if found.insert(name.clone()) {
                next.extend(
                    services
                        .get(name)
                        .into_iter()
                        .flat_map(|status| &status.needs),
                );
            }
        }
        found
    }

    /// Waits until the service is ready. Returns an error as soon as it can't become ready.
    pub async fn ready(&self, name: &str) -> Result<(), Unavailable> {
        let mut changes = self.subscribe();
        loop {
            let verdict = readiness(name, &changes.borrow_and_update());
            match verdict {
                Some(verdict) => return verdict,
                None if changes.changed().await.is_err() => {
                    return Err(not_running(name, "the stack is gone".to_owned()));
                }
                None => {}
            }
        }
    }

    /// Waits until a service has stopped running, and returns its exit if known.
    pub async fn exited(&self, name: &str) -> Result<Option<Exit>, Unavailable> {
        let mut changes = self.subscribe();
        loop {
            let services = changes.borrow_and_update().clone();
            let verdict = match services.get(name) {
                None => Some(Err(Unavailable::Unknown(unknown(name)))),
                Some(status) => match status.stage {
                    Stage::Exited | Stage::Stopped => Some(Ok(status.exit.clone())),
                    Stage::Down => match (&status.exit, &status.down) {
                        (Some(exit), _) => Some(Ok(Some(exit.clone()))),
                        (None, Some(down)) => Some(Err(Unavailable::Down(Arc::clone(down)))),
                        (None, None) => Some(Ok(None)),
                    },
                    Stage::Idle if status.manual => Some(Err(not_running(name, not_started(name)))),
                    Stage::Idle => blocked(name, &services)
                        .map(|why| Err(not_running(name, never(name, &why)))),
                    Stage::Starting | Stage::Started | Stage::Ready => None,
                },
            };
            match verdict {
                Some(verdict) => return verdict,
                None if changes.changed().await.is_err() => return Ok(None),
                None => {}
            }
        }
    }
}

/// Returns the value of `services.NAME`, with its replicas.
fn context(name: &str, status: &Status, all: &BTreeMap<String, Status>) -> Value {
    let mut context = status.context(name);
    let own = context.clone();
    if let Value::Object(context) = &mut context {
        let replicas = status.replicas.iter();
        let replicas = replicas.filter_map(|name| Some(all.get(name)?.context(name)));
        let mut replicas: Vec<Value> = replicas.collect();
        if replicas.is_empty() {
            replicas.push(own);
        } else {
            // All replicas answer to the service's name.
            context.insert("host".to_owned(), json!(name));
            if let Some(url) = status.shared_url(name) {
                context.insert("internal_url".to_owned(), json!(url));
            }
        }
        context.insert("replicas".to_owned(), Value::Array(replicas));
    }
    context
}

fn sum_up(services: &mut BTreeMap<String, Status>, service: &str) {
    let Some(mut status) = services.get(service).cloned() else {
        return;
    };
    let replicas = status.replicas.iter();
    let replicas: Vec<&Status> = replicas.filter_map(|name| services.get(name)).collect();
    replicas::sum_up(&mut status, &replicas);
    services.insert(service.to_owned(), status);
}

fn never(name: &str, why: &str) -> String {
    format!("service {name} can't start: {why}")
}

/// Follows the dependencies whose start has not begun.
fn blocked(name: &str, services: &BTreeMap<String, Status>) -> Option<String> {
    let idle = |name: &str| services.get(name).filter(|s| s.stage == Stage::Idle);
    let mut next = vec![name];
    let mut seen = BTreeSet::new();
    while let Some(name) = next.pop() {
        let Some(status) = idle(name).filter(|status| !status.manual) else {
            continue;
        };
        if !seen.insert(name) {
            continue;
        }
        for needed in &status.needs {
            match idle(needed) {
                Some(status) if status.manual && !status.concurrent => {
                    return Some(format!(
                        "{needed} is `start: manual` and no step has started it (container: {{ start: {needed} }})"
                    ));
                }
                Some(_) => next.push(needed),
                None => {}
            }
        }
    }
    None
}

fn readiness(name: &str, services: &BTreeMap<String, Status>) -> Option<Result<(), Unavailable>> {
    let Some(status) = services.get(name) else {
        return Some(Err(Unavailable::Unknown(unknown(name))));
    };
    match status.stage {
        Stage::Ready => Some(Ok(())),
        Stage::Starting | Stage::Started => None,
        Stage::Idle if !status.manual => {
            blocked(name, services).map(|why| Err(not_running(name, never(name, &why))))
        }
        Stage::Idle => Some(Err(not_running(name, not_started(name)))),
        Stage::Stopped => Some(Err(not_running(
            name,
            format!("service {name} isn't running: a step stopped it"),
        ))),
        Stage::Exited => Some(Err(not_running(
            name,
            format!(
                "service {name} isn't running: it ended as a job does{}; a step can't use it any more (a step that waits for its end: `wait: {{ service: {name}, until: exited }}`)",
                status
                    .exit
                    .as_ref()
                    .map_or(String::new(), |exit| format!(", with code {}", exit.code))
            ),
        ))),
        Stage::Down => Some(Err(match &status.down {
            Some(down) => Unavailable::Down(Arc::clone(down)),
            None => not_running(name, format!("service {name} is down")),
        })),
    }
}

fn not_running(service: &str, reason: String) -> Unavailable {
    Unavailable::NotRunning {
        service: service.to_owned(),
        reason,
    }
}

fn unknown(name: &str) -> String {
    format!("there is no service {name}")
}

fn not_started(name: &str) -> String {
    format!(
        "service {name} isn't running: it is `start: manual` and no step has started it (container: {{ start: {name} }})"
    )
}
