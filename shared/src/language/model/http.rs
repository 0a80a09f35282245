//! HTTP requests, and the sessions that send them.

use crate::diagnostic::Span;
use crate::node::{Expr, Node, Template, Text};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// A named HTTP client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Name of the session.
    pub name: Text,
    /// Base URL of its requests.
    pub base: Option<Template>,
    /// Map of headers that every request sends.
    pub headers: Option<Node>,
    /// TLS settings of its requests.
    pub tls: Option<Tls>,
}

/// TLS settings of a session or a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    /// Whether certificates are verified (default: true).
    pub verify: Option<Node>,
    /// Path of a trusted PEM bundle in the workspace.
    pub ca: Option<Template>,
}

/// Method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Head,
}

impl Method {
    /// Returns the method as HTTP spells it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Body of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// No body.
    None,
    /// A JSON value.
    Json(Node),
    /// A URL-encoded form.
    Form(Node),
    /// Text, sent unchanged.
    Text(Template),
}

/// Which session a request uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionRef {
    /// `defaults.http.session`, or no session if that is not set.
    Default,
    /// No session (`session: none`).
    None,
    /// A session by name.
    Named(Text),
}

/// One HTTP request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// Method of the request.
    pub method: Method,
    /// Path (appended to the session's base URL) or whole URL.
    pub url: Template,
    /// Body of the request.
    pub body: Body,
    /// Map to add to the URL's query.
    pub query: Option<Node>,
    /// Map of headers.
    pub headers: Option<Node>,
    /// Session that sends the request.
    pub session: SessionRef,
    /// Whether to follow redirects (default: false).
    pub follow_redirects: Option<Node>,
    /// TLS settings that override the session's.
    pub tls: Option<Tls>,
    /// Place of the request.
    pub span: Span,
}

/// One event stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sse {
    /// Request that opens the stream; its `span` is the place of the stream.
    pub request: Http,
    /// Condition that ends the collection. Without one, the collection ends with the stream.
    pub until: Option<Expr>,
    /// Time limit of the whole stream (default: 5m); the step's `timeout` takes precedence.
    pub timeout: Option<Node>,
}
