//! Removes what a service has twice: of two variables with one name, or two mounts on one path, the later one holds, at
//! the place of the earlier one.

use super::forms;
use crate::language::quantity;
use crate::node::{Entry, Node, NodeValue};
use std::collections::HashMap;

/// Removes duplicates from all services of a Compose file's tree.
pub fn enforce(file: &mut Node) {
    for section in entries(file) {
        let part: fn(&mut Entry) = match section.key.text.as_str() {
            "services" => service,
            "networks" => network,
            _ => continue,
        };
        entries(&mut section.value).iter_mut().for_each(part);
    }
}

fn entries(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        NodeValue::Map(entries) => entries,
        _ => &mut [],
    }
}

fn network(network: &mut Entry) {
    for entry in entries(&mut network.value) {
        if entry.key.text == "labels" {
            dedup(&mut entry.value, name);
        }
    }
}

fn service(service: &mut Entry) {
    for entry in entries(&mut service.value) {
        let node = &mut entry.value;
        match entry.key.text.as_str() {
            "environment" | "labels" | "annotations" | "sysctls" | "cap_add" | "cap_drop"
            | "dns" | "dns_opt" | "dns_search" | "links" | "profiles" | "tmpfs" => {
                dedup(node, name)
            }
            "expose" => dedup(node, quantity::spelling),
            "volumes" => dedup(node, mount),
            "devices" => dedup(node, device),
            "secrets" => dedup(node, |item| placed("/run/secrets", item)),
            "configs" => dedup(node, |item| placed("", item)),
            "env_file" => dedup(node, |item| {
                quantity::spelling(item.get("path").unwrap_or(item))
            }),
            "ports" => dedup(node, port),
            "networks" => {
                for network in entries(node) {
                    within(&mut network.value, &["aliases", "link_local_ips"]);
                }
            }
            "build" => within(node, &["args", "additional_contexts", "tags", "labels"]),
            "deploy" => within(node, &["labels"]),
            _ => {}
        }
    }
}

fn within(node: &mut Node, keys: &[&str]) {
    let entries = entries(node).iter_mut();
    entries
        .filter(|entry| keys.contains(&entry.key.text.as_str()))
        .for_each(|entry| dedup(&mut entry.value, name));
}

/// Removes duplicates by a key. Items without one stay.
fn dedup(node: &mut Node, key: impl Fn(&Node) -> Option<String>) {
    let NodeValue::List(items) = &mut node.value else {
        return;
    };
    let mut at: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Node> = Vec::new();
    for item in items.drain(..) {
        let Some(key) = key(&item) else {
            kept.push(item);
            continue;
        };
        match at.get(&key).and_then(|at| kept.get_mut(*at)) {
            Some(slot) => *slot = item,
            None => {
                at.insert(key, kept.len());
                kept.push(item);
            }
        }
    }
    *items = kept;
}

/// Returns what is before the first `=`.
fn name(item: &Node) -> Option<String> {
    let text = quantity::spelling(item)?;
    let parts = forms::split(&text, '=');
    parts.first().map(|name| (*name).to_owned())
}

/// Returns the path in the container that a volume has.
fn mount(item: &Node) -> Option<String> {
    let target = match item.get("target") {
        Some(target) => target.as_text()?.to_owned(),
        None => {
            let text = item.as_text()?;
            let parts = forms::split(text, ':');
            let target = match parts.as_slice() {
                [_, target, ..] if target.starts_with('/') || target.contains("${{") => target,
                [target, ..] => target,
                [] => return None,
            };
            (*target).to_owned()
        }
    };
    let short = target.trim_end_matches('/');
    Some(if short.is_empty() {
        target
    } else {
        short.to_owned()
    })
}

/// Returns the path in the container that a device has.
fn device(item: &Node) -> Option<String> {
    if let Some(target) = item.get("target").or(item.get("source")) {
        return quantity::spelling(target);
    }
    let text = item.as_text()?;
    let parts = forms::split(text, ':');
    let target = parts.get(1).or(parts.first())?;
    Some((*target).to_owned())
}

/// Returns where a secret or config is mounted, as far as it says so.
fn placed(folder: &str, item: &Node) -> Option<String> {
    if let Some(target) = item.get("target") {
        return quantity::spelling(target);
    }
    let source = quantity::spelling(item.get("source").unwrap_or(item))?;
    Some(format!("{folder}/{source}"))
}

/// Returns address, host port, container port and protocol of a port.
fn port(item: &Node) -> Option<String> {
    let key = |ip: &str, published: &str, target: &str, protocol: &str| {
        let ip = if ip.is_empty() { "0.0.0.0" } else { ip };
        format!("{ip}:{published}:{target}/{protocol}")
    };
    if let Some(target) = item.get("target") {
        let get = |name: &str| item.get(name).and_then(quantity::spelling);
        let protocol = get("protocol").unwrap_or_else(|| "tcp".to_owned());
        let (ip, published) = (get("host_ip"), get("published"));
        return Some(key(
            &ip.unwrap_or_default(),
            &published.unwrap_or_default(),
            &quantity::spelling(target)?,
            &protocol,
        ));
    }
    let text = quantity::spelling(item)?;
    let parts = forms::split(&text, '/');
    let (addresses, protocol) = match parts.as_slice() {
        [addresses, protocol] => (*addresses, *protocol),
        [addresses] => (*addresses, "tcp"),
        _ => return Some(text),
    };
    let parts = forms::split(addresses, ':');
    Some(match parts.as_slice() {
        [target] => key("", "", target, protocol),
        [published, target] => key("", published, target, protocol),
        [ip @ .., published, target] => key(&ip.join(":"), published, target, protocol),
        [] => text,
    })
}
