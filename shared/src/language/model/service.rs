//! Services of a stack, as written.

use super::artifact::Artifact;
use super::http::Http;
use crate::diagnostic::Span;
use crate::node::{Expr, Node, Template, Text};
use serde::{Deserialize, Serialize};

/// A service as written. Its definition is evaluated as a whole when the service starts, and then decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Name of the service.
    pub name: Text,
    /// Compose's keys and `process`, with `extends` already merged, without `ready`, `start` and
    /// `artifacts`.
    pub definition: Node,
    /// Whether the service is a host process (has `process`) instead of a container.
    pub process: bool,
    /// Condition for being ready.
    pub ready: Option<Ready>,
    /// Whether it waits for a step to start it (`start: manual`).
    pub manual: bool,
    /// Files that are kept when the cell's last step is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// A readiness predicate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Probe to repeat until it succeeds.
    pub probe: Probe,
    /// Time limit for becoming ready (default: 5m).
    pub timeout: Option<Node>,
    /// Place of the predicate.
    pub span: Span,
}

/// Probe of a readiness predicate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A request, and checks of its response (plus `status is 2xx` if no check mentions the status).
    Http {
        request: Box<Http>,
        expect: Vec<Expr>,
    },
    /// A TCP connection to a port of the service.
    Tcp { port: Node },
    /// A command in the service that must exit with 0.
    Exec { command: Node },
    /// A regular expression that must match a line of the service's output.
    Log { pattern: Template },
}
