//! Requests and the sessions that send them.

use crate::diagnostic::Span;
use crate::spec::node::{Expr, Node, Template, Text};
use serde::{Deserialize, Serialize};

/// A named HTTP client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub name: Text,
    /// The base URL.
    pub base: Option<Template>,
    /// A map of headers.
    pub headers: Option<Node>,
    /// TLS settings.
    pub tls: Option<Tls>,
}

/// TLS settings of a session or a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    /// Whether certificates are verified (true).
    pub verify: Option<Node>,
    /// A PEM bundle to trust, as a path in the workspace.
    pub ca: Option<Template>,
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// The method as HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Head => "HEAD",
        }
    }
}

/// A request's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Nothing.
    None,
    /// A JSON value.
    Json(Node),
    /// A URL-encoded form.
    Form(Node),
    /// Text as it is.
    Text(Template),
}

/// Which session a request uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionRef {
    /// `defaults.http.session`, or none.
    Default,
    /// `session: none`.
    None,
    /// By name.
    Named(Text),
}

/// One HTTP request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// The method.
    pub method: Method,
    /// A path (appended to the session's base) or a whole URL.
    pub url: Template,
    /// The body.
    pub body: Body,
    /// A map added to the URL's query.
    pub query: Option<Node>,
    /// A map of headers.
    pub headers: Option<Node>,
    /// The client.
    pub session: SessionRef,
    /// Off unless asked for.
    pub follow_redirects: Option<Node>,
    /// Overrides the session's.
    pub tls: Option<Tls>,
    /// Where it stands.
    pub span: Span,
}

/// One event stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sse {
    /// The request (its `span` included).
    pub request: Http,
    /// Ends the collection; without it the end of the stream does.
    pub until: Option<Expr>,
    /// Limit of the whole stream (5m); the step's `timeout` outranks it.
    pub timeout: Option<Node>,
}
