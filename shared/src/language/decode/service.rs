//! Decodes services: their definition, readiness and start.

use super::artifact::artifacts;
use super::extends;
use super::fields::Fields;
use super::{http, step};
use crate::diagnostic::Diagnostic;
use crate::language::model::{Probe, Ready, Service};
use crate::node::{Entry, Node};
use indexmap::IndexMap;

/// Decodes all services, with `extends` resolved.
pub(crate) fn services(
    written: &IndexMap<String, Entry>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Service> {
    let definitions = extends::resolve(written, diagnostics);
    let pairs = definitions.into_iter();
    pairs
        .filter_map(|(name, definition)| {
            let entry = written.get(&name)?;
            let fields = Fields::of(&entry.value);
            Some(Service {
                name: entry.key.clone(),
                process: definition
                    .get("process")
                    .is_some_and(|node| !node.is_null()),
                definition,
                ready: fields
                    .get("ready")
                    .and_then(|node| ready(node, diagnostics)),
                manual: fields.string("start").as_deref() == Some("manual"),
                artifacts: artifacts(&fields),
            })
        })
        .collect()
}

fn ready(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Ready> {
    let fields = Fields::of(node);
    let probe = if let Some(node) = fields.get("http") {
        Probe::Http {
            request: Box::new(http::request(node)?),
            expect: step::expectations(&Fields::of(node), diagnostics),
        }
    } else if let Some(port) = fields.node("tcp") {
        Probe::Tcp { port }
    } else if let Some(command) = fields.node("exec") {
        Probe::Exec { command }
    } else {
        Probe::Log {
            pattern: fields.template("log")?,
        }
    };
    Some(Ready {
        probe,
        timeout: fields.node("timeout"),
        span: fields.span,
    })
}
