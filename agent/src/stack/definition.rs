//! Evaluates and decodes a service's definition when it is started.

use crate::context::CellContext;
use crate::runtime::contract::{Fault, RuntimeError, Stack};
use phalanx_shared::diagnostic::{Diagnostic, Severity};
use phalanx_shared::expr::{EvalError, Scope, eval_to_node};
use phalanx_shared::language::model::Service;
use phalanx_shared::language::service::{
    ContextSource, ServiceConfig, decode_service, replicas_of,
};
use phalanx_shared::node::{Node, NodeValue};
use serde_json::{Map, Value, json};

/// Returns the configuration from which a runtime creates the service. Reserves the free ports of a host process first,
/// because its definition may refer to them.
pub async fn config(
    context: &CellContext,
    service: &Service,
    stack: &dyn Stack,
    within: Option<&Scope>,
) -> Result<ServiceConfig, RuntimeError> {
    let mut ports = None;
    if service.process {
        let names = port_names(&service.definition);
        let reserved = stack.reserve_ports(&service.name.text, &names).await?;
        let reserved: Map<String, Value> = reserved
            .into_iter()
            .map(|(name, port)| (name, json!(port)))
            .collect();
        ports = Some(Value::Object(reserved));
    }
    let scope = match within {
        Some(scope) => scope.with_value("port", ports.clone().unwrap_or(Value::Null)),
        None => context.definition_scope(ports.clone()),
    };
    let mut config = decoded(context, service, &scope)?;
    add_images_of_builds(context, service, &scope, &mut config, 0)?;
    Ok(config)
}

fn decoded(
    context: &CellContext,
    service: &Service,
    scope: &Scope,
) -> Result<ServiceConfig, RuntimeError> {
    let node = eval_to_node(&service.definition, scope, &context.cache)
        .map_err(|error| invalid(context, service, &error))?;
    let mut findings = Vec::new();
    let config = decode_service(&service.name.text, &spliced(node), &mut findings);
    findings.retain(|finding| finding.severity == Severity::Error);
    if !findings.is_empty() {
        return Err(undecodable(context, service, &findings));
    }
    Ok(config)
}

/// Most images that a build may need one after the other.
const LONGEST_CHAIN: usize = 16;

/// Adds the configurations of the services whose images a build needs.
fn add_images_of_builds(
    context: &CellContext,
    service: &Service,
    scope: &Scope,
    config: &mut ServiceConfig,
    depth: usize,
) -> Result<(), RuntimeError> {
    let contexts = config
        .build
        .iter_mut()
        .flat_map(|build| &mut build.contexts);
    for one in contexts {
        let ContextSource::Service { name, of } = &mut one.source else {
            continue;
        };
        let refused = |why: String| RuntimeError::of(&service.name.text, Fault::Definition, why);
        let services = context.spec.services.iter();
        let mut services = services.filter(|service| service.name.text == *name);
        let needed = services.next().filter(|service| !service.process);
        let Some(needed) = needed else {
            return Err(refused(format!(
                "`additional_contexts`: there is no service {name} with an image"
            )));
        };
        if depth >= LONGEST_CHAIN {
            return Err(refused(format!(
                "`additional_contexts`: more than {LONGEST_CHAIN} images are built of each other, or they are in a circle"
            )));
        }
        let mut found = decoded(context, needed, scope)?;
        add_images_of_builds(context, needed, scope, &mut found, depth + 1)?;
        *of = Some(Box::new(found));
    }
    Ok(())
}

/// Returns how many containers a service has. It is known before the rest of the definition, which may depend on steps
/// if the service is `start: manual`. A number that can't be evaluated counts as 1; evaluating the definition reports it.
pub fn replicas(context: &CellContext, service: &Service) -> u32 {
    let Some(part) = replicas_of(&service.definition) else {
        return 1;
    };
    let scope = context.definition_scope(None);
    let node = eval_to_node(&part, &scope, &context.cache);
    node.map_or(1, |node| phalanx_shared::language::service::replicas(&node))
}

/// Returns the names in `ports: [http, …]` of a process.
fn port_names(definition: &Node) -> Vec<String> {
    let Some(NodeValue::List(ports)) = entry(definition, "ports").map(|node| &node.value) else {
        return Vec::new();
    };
    let names = ports.iter().filter_map(|port| match &port.value {
        NodeValue::Text(name) => Some(name.clone()),
        NodeValue::Map(_) => match &entry(port, "name")?.value {
            NodeValue::Text(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    });
    names.collect()
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let NodeValue::Map(entries) = &node.value else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key.text == key)?;
    Some(&entry.value)
}

/// Flattens lists inside a command's list into its words: `["${{ phalanx.demo_server }}", --port, …]`.
fn spliced(mut node: Node) -> Node {
    if let NodeValue::Map(entries) = &mut node.value {
        for entry in entries {
            let command = matches!(
                entry.key.text.as_str(),
                "process" | "command" | "entrypoint"
            );
            if let NodeValue::List(words) = &mut entry.value.value
                && command
            {
                *words = std::mem::take(words).into_iter().flat_map(inner).collect();
            }
        }
    }
    node
}

fn inner(word: Node) -> Vec<Node> {
    match word.value {
        NodeValue::List(words) => words,
        _ => vec![word],
    }
}

fn invalid(context: &CellContext, service: &Service, error: &EvalError) -> RuntimeError {
    let place = context.place(error.span).unwrap_or_default();
    let why = format!("{place}: {}", error.message);
    RuntimeError::of(&service.name.text, Fault::Definition, why)
}

fn undecodable(context: &CellContext, service: &Service, errors: &[Diagnostic]) -> RuntimeError {
    let lines: Vec<String> = errors
        .iter()
        .map(|error| {
            let place = error
                .span
                .and_then(|span| context.place(span))
                .unwrap_or_default();
            let help = error
                .help
                .as_ref()
                .map_or(String::new(), |help| format!(" ({help})"));
            format!("{place}: {}{help}", error.message)
        })
        .collect();
    RuntimeError::of(&service.name.text, Fault::Definition, lines.join("; "))
}
