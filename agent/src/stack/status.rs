//! The state of one service or replica, and its value in expressions.

use crate::context::services::Down;
use crate::runtime::contract::{Addresses, Exit, Member};
use phalanx_shared::expr::int_key;
use phalanx_shared::language::service::Port;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

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
    /// Names of the dependencies that it is restarted with (`depends_on.NAME.restart`).
    pub restarts_with: Vec<String>,
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
    /// Names of its replicas, if it has several; its state then follows from theirs.
    pub replicas: Vec<String>,
    /// The service of which it is a replica.
    pub of: Option<String>,
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
            restarts_with: Vec::new(),
            starts: 0,
            addresses: None,
            ports: Vec::new(),
            member: None,
            exit: None,
            down: None,
            replicas: Vec::new(),
            of: None,
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

    /// Returns the `.internal_url` with another host.
    pub fn shared_url(&self, host: &str) -> Option<String> {
        let (_, address) = self.addresses.as_ref()?.ports.first()?;
        Some(self.internal_url(host, *address))
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
