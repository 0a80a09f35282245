//! The state of each service of an attempt. The services' actors write it; steps, probes and the stack's core read it.
//!
//! Steps wait on the board instead of asking an actor, so that no actor is blocked.

use crate::context::services::{Down, Unavailable};
use crate::runtime::contract::{Addresses, Exit, Member};
use phalanx_shared::expr::int_key;
use phalanx_shared::language::service::Port;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// The stages in a service's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its start has not begun.
    Idle,
    /// It is being pulled, built, created or started.
    Starting,
    /// It runs but isn't ready yet.
    Started,
    /// It is ready.
    Ready,
    /// It ended as the spec expects: it is a job, or it may end by itself (`super::expected`).
    Exited,
    /// A step stopped it.
    Stopped,
    /// It exited unexpectedly or can't become ready.
    Down,
}

/// The current state of a service.
#[derive(Clone)]
pub struct Status {
    /// Current stage.
    pub stage: Stage,
    /// Whether it is `start: manual`, so that only a step starts it.
    pub manual: bool,
    /// Whether a step may start it while other steps wait: a `parallel` group names it.
    pub concurrent: bool,
    /// Whether it is a host process.
    pub process: bool,
    /// Names of its required dependencies, once its definition has been evaluated.
    pub needs: Vec<String>,
    /// Number of starts so far.
    pub starts: u32,
    /// Its addresses, once it has started.
    pub addresses: Option<Addresses>,
    /// The ports in its definition.
    pub ports: Vec<Port>,
    /// Handle of its container or process, once created.
    pub member: Option<Arc<dyn Member>>,
    /// Its last exit.
    pub exit: Option<Exit>,
    /// The reason why it is down.
    pub down: Option<Arc<Down>>,
}

impl Status {
    /// Returns the state of a service whose start has not begun.
    pub fn idle(process: bool, manual: bool) -> Self {
        Status {
            stage: Stage::Idle,
            manual,
            concurrent: false,
            process,
            needs: Vec::new(),
            starts: 0,
            addresses: None,
            ports: Vec::new(),
            member: None,
            exit: None,
            down: None,
        }
    }

    /// Returns the value of `services.NAME`: always with `.host`; the other fields are present once the service has
    /// started.
    pub fn context(&self, name: &str) -> Value {
        let mut context = Map::new();
        let host = self.addresses.as_ref().map(|known| known.host.clone());
        let usual = if self.process { "127.0.0.1" } else { name };
        let host = host
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| usual.to_owned());
        context.insert("host".to_owned(), json!(host));
        if let Some(addresses) = &self.addresses {
            context.insert("ip".to_owned(), json!(addresses.ip));
            context.insert("ipv6".to_owned(), json!(addresses.ipv6));
            let ports: Map<String, Value> = addresses
                .ports
                .iter()
                .map(|(port, address)| {
                    let key = port.parse().map_or_else(|_| port.clone(), int_key);
                    (key, json!(address.port()))
                })
                .collect();
            context.insert("port".to_owned(), Value::Object(ports));
            if let Some((_, address)) = addresses.ports.first() {
                let url = format!("{}://{address}", self.scheme());
                let internal = self.internal_url(&host, *address);
                context.insert("url".to_owned(), json!(url));
                context.insert("internal_url".to_owned(), json!(internal));
            }
        }
        Value::Object(context)
    }

    /// Returns the `app_protocol` of the first port, or `http`.
    fn scheme(&self) -> &str {
        let first = self.ports.first();
        let protocol = first.and_then(|port| port.app_protocol.as_deref());
        protocol.filter(|text| !text.is_empty()).unwrap_or("http")
    }

    fn internal_url(&self, host: &str, address: SocketAddr) -> String {
        let target = self.ports.first().and_then(|port| port.target);
        match target.filter(|_| !self.process) {
            Some(port) if host.contains(':') => format!("{}://[{host}]:{port}", self.scheme()),
            Some(port) => format!("{}://{host}:{port}", self.scheme()),
            None => format!("{}://{address}", self.scheme()),
        }
    }
}

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

    /// Changes a service's state and wakes all waiters.
    pub fn update(&self, service: &str, change: impl FnOnce(&mut Status)) {
        self.services.send_modify(|services| {
            if let Some(status) = services.get_mut(service) {
                change(status);
            }
        });
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
            .map(|(name, status)| (name.clone(), status.context(name)));
        Value::Object(contexts.collect())
    }

    /// Returns why an automatic service will never start: it needs a `start: manual` service that no step has started.
    /// `None` if it may still start.
    pub fn blocked(&self, name: &str) -> Option<String> {
        blocked(name, &self.services.borrow())
    }

    /// Waits until the service is ready. Returns an error as soon as it can't become ready.
    pub async fn ready(&self, name: &str) -> Result<(), Unavailable> {
        let mut changes = self.subscribe();
        loop {
            let verdict = readiness(name, &changes.borrow_and_update());
            match verdict {
                Some(verdict) => return verdict,
                None if changes.changed().await.is_err() => {
                    return Err(Unavailable::NotRunning("the stack is gone".to_owned()));
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
                    Stage::Idle if status.manual => {
                        Some(Err(Unavailable::NotRunning(not_started(name))))
                    }
                    Stage::Idle => blocked(name, &services)
                        .map(|why| Err(Unavailable::NotRunning(never(name, &why)))),
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
            blocked(name, services).map(|why| Err(Unavailable::NotRunning(never(name, &why))))
        }
        Stage::Idle => Some(Err(Unavailable::NotRunning(not_started(name)))),
        Stage::Stopped => Some(Err(Unavailable::NotRunning(format!(
            "service {name} isn't running: a step stopped it"
        )))),
        Stage::Exited => Some(Err(Unavailable::NotRunning(format!(
            "service {name} isn't running: it ended as a job does{}; a step can't use it any more (a step that waits for its end: `wait: {{ service: {name}, until: exited }}`)",
            status
                .exit
                .as_ref()
                .map_or(String::new(), |exit| format!(", with code {}", exit.code))
        )))),
        Stage::Down => Some(Err(match &status.down {
            Some(down) => Unavailable::Down(Arc::clone(down)),
            None => Unavailable::NotRunning(format!("service {name} is down")),
        })),
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
