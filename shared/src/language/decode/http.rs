//! Decodes requests of `http` and `sse` steps and of readiness predicates, and their TLS settings.

use super::fields::Fields;
use crate::language::model::{Body, Http, Method, SessionRef, Tls};
use crate::node::Node;

const METHODS: [(&str, Method); 6] = [
    ("get", Method::Get),
    ("post", Method::Post),
    ("put", Method::Put),
    ("patch", Method::Patch),
    ("delete", Method::Delete),
    ("head", Method::Head),
];

/// Decodes the request in a map. Returns `None` if it has no method.
pub fn request(node: &Node) -> Option<Http> {
    let fields = Fields::of(node);
    let (method, url) = METHODS
        .iter()
        .find_map(|(key, method)| Some((*method, fields.template(key)?)))?;
    let body = if let Some(json) = fields.node("json") {
        Body::Json(json)
    } else if let Some(form) = fields.node("form") {
        Body::Form(form)
    } else if let Some(text) = fields.template("body") {
        Body::Text(text)
    } else {
        Body::None
    };
    let session = match fields.text("session") {
        None => SessionRef::Default,
        Some(name) if name.text == "none" => SessionRef::None,
        Some(name) => SessionRef::Named(name),
    };
    Some(Http {
        method,
        url,
        body,
        query: fields.node("query"),
        headers: fields.node("headers"),
        session,
        follow_redirects: fields.node("follow-redirects"),
        tls: fields.get("tls").map(tls),
        span: fields.span,
    })
}

/// Decodes TLS settings.
pub fn tls(node: &Node) -> Tls {
    let fields = Fields::of(node);
    Tls {
        verify: fields.node("verify"),
        ca: fields.template("ca"),
    }
}
