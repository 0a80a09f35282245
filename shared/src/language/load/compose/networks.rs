//! Writes the definition of each network into the services that join it, so that a service is complete by itself.

use super::top::is_external;
use crate::diagnostic::Diagnostic;
use crate::language::service::networks_map;
use crate::language::shape::check::closest;
use crate::language::shape::name::is_extension;
use crate::node::{Entry, Node, NodeValue, Text};
use indexmap::IndexMap;
use std::collections::BTreeSet;

/// The network of a service that names none.
const DEFAULT: &str = "default";

/// Settings of a network that its services take over.
const SETTINGS: [&str; 4] = ["internal", "enable_ipv6", "driver_opts", "labels"];

/// Settings that make no difference to a cell of its own.
const UNUSED: [&str; 5] = ["name", "driver", "attachable", "enable_ipv4", "external"];

/// Returns a file's networks, and reports what is wrong with them.
pub fn of(file: &Node, diagnostics: &mut Vec<Diagnostic>) -> Node {
    let networks = file.get("networks").cloned().unwrap_or(Node {
        value: NodeValue::Map(Vec::new()),
        span: file.span,
    });
    check(&networks, diagnostics);
    networks
}

fn check(networks: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for network in networks.entries() {
        let name = &network.key.text;
        for setting in network.value.entries() {
            let key = setting.key.text.as_str();
            let known = SETTINGS.contains(&key) || UNUSED.contains(&key) || key == "ipam";
            if !known && !is_extension(key) {
                let all = SETTINGS.into_iter().chain(UNUSED).chain(["ipam"]);
                let help = closest(key, all).map_or_else(
                    || "it has `driver driver_opts enable_ipv6 internal ipam labels`".to_owned(),
                    |meant| format!("did you mean `{meant}`?"),
                );
                let message = format!("unknown key `{key}` of the network `{name}`");
                diagnostics.push(Diagnostic::error(setting.key.span, message).with_help(help));
            }
        }
        unused(network, diagnostics);
        let driver = network.value.get("driver").and_then(Node::as_text);
        if let Some(driver) = driver
            && !matches!(driver, "" | "bridge" | "default")
            && !is_external(&network.value)
        {
            let message = format!("the network `{name}` has the driver `{driver}`");
            diagnostics.push(Diagnostic::error(network.key.span, message).with_help(
                "networks are made per cell, as bridges: leave `driver` out; for the host's network or none, write `network_mode`",
            ));
        }
    }
}

/// Warns about settings of a network that have no effect.
fn unused(network: &Entry, diagnostics: &mut Vec<Diagnostic>) {
    let ipam = network.value.get("ipam");
    let ranges = ipam.and_then(|ipam| ipam.get("config"));
    let ranges = ranges.map_or(&[][..], Node::items);
    let places = std::iter::once(&network.value).chain(ipam).chain(ranges);
    for setting in places.flat_map(Node::entries) {
        let key = setting.key.text.as_str();
        let advice = match key {
            "name" => "networks are named per cell",
            "attachable" => "nothing else joins a cell's networks",
            "enable_ipv4" => "each network has IPv4",
            "aux_addresses" => "nothing else has addresses in a cell's networks",
            "options" => "the engine's own address management is used",
            _ => continue,
        };
        if !setting.value.is_null() {
            let message = format!("`{key}` of the network `{}` is not used", network.key.text);
            diagnostics.push(Diagnostic::warning(setting.key.span, message).with_help(advice));
        }
    }
}

/// Writes the definitions into the services, which have been merged with those of the spec.
pub fn place(
    services: &mut IndexMap<String, Entry>,
    networks: &Node,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let fixed = with_addresses(services);
    for network in networks.entries() {
        let name = network.key.text.as_str();
        if let Some(ipam) = network.value.get("ipam").filter(|node| !node.is_null())
            && !fixed.contains(name)
        {
            let message = format!("`ipam` of the network `{name}` is not used");
            diagnostics.push(Diagnostic::warning(ipam.span, message).with_help(
                "no service has an address in it, and each cell gets subnets of its own, so that cells can run at once",
            ));
        }
    }
    for service in services.values_mut() {
        join(service, networks, &fixed, diagnostics);
    }
}

/// Returns the networks in which a service has a fixed address.
fn with_addresses(services: &IndexMap<String, Entry>) -> BTreeSet<String> {
    let mut fixed = BTreeSet::new();
    for service in services.values() {
        let Some(networks) = service.value.get("networks") else {
            continue;
        };
        for network in networks_map(networks).entries() {
            let has = |key: &str| network.value.get(key).is_some_and(|node| !node.is_null());
            if has("ipv4_address") || has("ipv6_address") {
                fixed.insert(network.key.text.clone());
            }
        }
    }
    fixed
}

fn join(
    service: &mut Entry,
    networks: &Node,
    fixed: &BTreeSet<String>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let written = |key: &str| {
        let found = service.value.get(key).filter(|node| !node.is_null());
        found.cloned()
    };
    let span = service.key.span;
    let mut joined = match (written("networks"), written("network_mode")) {
        (Some(networks), _) => networks_map(&networks),
        (None, Some(_)) => return,
        (None, None) if networks.get(DEFAULT).is_some() => networks_map(&Node {
            value: NodeValue::List(vec![Node {
                value: NodeValue::Text(DEFAULT.to_owned()),
                span,
            }]),
            span,
        }),
        (None, None) => return,
    };
    // Not evaluated yet, or a mistake that the decoder reports.
    let NodeValue::Map(entries) = &mut joined.value else {
        return;
    };
    for entry in entries {
        let name = entry.key.text.as_str();
        match networks
            .entries()
            .iter()
            .find(|known| known.key.text == name)
        {
            Some(known) => define(entry, &known.value, fixed.contains(name)),
            None if name == DEFAULT => {}
            None => {
                let names = networks.entries().iter();
                let help = closest(name, names.map(|known| known.key.text.as_str())).map_or_else(
                    || "define it under `networks` at the top of the Compose file".to_owned(),
                    |meant| format!("did you mean `{meant}`?"),
                );
                let message = format!("there is no network `{name}`");
                diagnostics.push(Diagnostic::error(entry.key.span, message).with_help(help));
            }
        }
    }
    let NodeValue::Map(keys) = &mut service.value.value else {
        return;
    };
    match keys.iter_mut().find(|key| key.key.text == "networks") {
        Some(known) => known.value = joined,
        None => keys.push(Entry {
            key: Text {
                text: "networks".to_owned(),
                span,
            },
            value: joined,
        }),
    }
}

/// Adds a network's definition to what a service says about it. Its subnet counts only if a service has an address in
/// it.
fn define(joined: &mut Entry, network: &Node, fixed: bool) {
    let settings = network.entries().iter();
    let settings = settings.filter(|setting| {
        let key = setting.key.text.as_str();
        SETTINGS.contains(&key) || (fixed && key == "ipam")
    });
    let definition = Node {
        value: NodeValue::Map(settings.cloned().collect()),
        span: joined.key.span,
    };
    let mut keys = joined.value.entries().to_vec();
    keys.push(Entry {
        key: Text {
            text: "definition".to_owned(),
            span: joined.key.span,
        },
        value: definition,
    });
    joined.value = Node {
        value: NodeValue::Map(keys),
        span: joined.value.span,
    };
}
