//! A stack's services as written.

use super::http::Http;
use crate::diagnostic::Span;
use crate::spec::node::{Expr, Node, Template, Text};
use serde::{Deserialize, Serialize};

/// A service as written. Its definition is evaluated as a whole when it is started, then decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: Text,
    /// Compose's keys and `process`, `extends` already merged, without `ready` and `start`.
    pub definition: Node,
    /// Whether `process` is among the keys: a host process instead of a container.
    pub process: bool,
    /// When it counts as ready.
    pub ready: Option<Ready>,
    /// `start: manual`: a step starts it.
    pub manual: bool,
}

/// A readiness predicate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// What is asked.
    pub probe: Probe,
    /// How long it may take (5m).
    pub timeout: Option<Node>,
    /// Where it stands.
    pub span: Span,
}

/// What a readiness predicate asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A request and checks of the answer (`status is 2xx` if none mentions status).
    Http {
        request: Box<Http>,
        expect: Vec<Expr>,
    },
    /// A TCP connection to a port of the service.
    Tcp { port: Node },
    /// A command in the service that exits 0.
    Exec { command: Node },
    /// A line of the service's output that matches the regular expression.
    Log { pattern: Template },
}
