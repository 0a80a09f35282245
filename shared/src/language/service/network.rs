//! Decodes the networks of a service: which it joins and how, and how each is made.

use super::reader::Reader;
use super::splice::networks_map;
use super::{NetworkDefinition, NetworkMode, NetworkUse, Subnet};
use crate::diagnostic::Span;
use crate::node::{Node, NodeValue};
use core::net::{Ipv4Addr, Ipv6Addr};
use indexmap::IndexMap;

/// Keys of a network of a service. `definition` is added by the loader.
const OF_SERVICE: [&str; 10] = [
    "aliases",
    "ipv4_address",
    "ipv6_address",
    "link_local_ips",
    "mac_address",
    "priority",
    "gw_priority",
    "driver_opts",
    "interface_name",
    "definition",
];

/// Returns the networks that a service joins, by name.
pub fn networks(node: &Node, read: &mut Reader<'_>) -> IndexMap<String, NetworkUse> {
    let map = networks_map(node);
    if !matches!(map.value, NodeValue::Map(_)) {
        if read.is_known(node) {
            read.report(node.span, "these are no networks".into()).help =
                Some("write `[name, …]` or `{ name: { aliases: […] } }`".into());
        }
        return IndexMap::new();
    }
    let entries = map.entries().iter();
    entries
        .map(|entry| {
            let name = entry.key.text.clone();
            let used = one(&name, entry.key.span, &entry.value, read);
            (name, used)
        })
        .collect()
}

fn one(name: &str, span: Span, node: &Node, read: &mut Reader<'_>) -> NetworkUse {
    for entry in node.entries() {
        let key = entry.key.text.as_str();
        if !OF_SERVICE.contains(&key) && !key.starts_with("x-") {
            read.report(
                entry.key.span,
                format!("unknown key `{key}` of the network `{name}`"),
            )
            .help = Some("it has `aliases ipv4_address ipv6_address priority driver_opts`".into());
        }
    }
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let network = get("definition").map_or_else(Default::default, |node| definition(node, read));
    let used = NetworkUse {
        aliases: get("aliases").map_or_else(Vec::new, |node| read.texts(node)),
        ipv4_address: get("ipv4_address")
            .and_then(|node| address::<Ipv4Addr>(node, "an IPv4 address", read)),
        ipv6_address: get("ipv6_address")
            .and_then(|node| address::<Ipv6Addr>(node, "an IPv6 address", read)),
        mac_address: get("mac_address").and_then(|node| read.text(node)),
        link_local_ips: get("link_local_ips").map_or_else(Vec::new, |node| read.texts(node)),
        priority: get("priority")
            .and_then(|node| read.integer(node))
            .unwrap_or(0),
        gw_priority: get("gw_priority").and_then(|node| read.integer(node)),
        driver_opts: get("driver_opts")
            .map_or_else(Default::default, |node| options(node, "driver_opts", read)),
        network,
    };
    let without_subnet = |v6: bool| {
        let mut subnets = used.network.subnets.iter();
        !subnets.any(|subnet| subnet.subnet.contains(':') == v6)
    };
    let lacks = (used.ipv4_address.is_some() && without_subnet(false))
        || (used.ipv6_address.is_some() && without_subnet(true));
    if lacks {
        read.report(
            span,
            format!("an address in the network `{name}` needs a subnet"),
        )
        .help = Some(
            "give the network one in the Compose file: `ipam: { config: [{ subnet: 172.30.1.0/24 }] }`; or leave the address out, services reach each other by name".into(),
        );
    }
    used
}

fn address<A: std::str::FromStr>(node: &Node, what: &str, read: &mut Reader<'_>) -> Option<String> {
    let text = read.text(node)?;
    if text.parse::<A>().is_err() {
        read.report(node.span, format!("`{text}` isn't {what}"));
        return None;
    }
    Some(text)
}

fn options(node: &Node, key: &str, read: &mut Reader<'_>) -> IndexMap<String, String> {
    let all = read.variables(node, key).into_iter();
    all.map(|(key, value)| (key, value.unwrap_or_default()))
        .collect()
}

fn definition(node: &Node, read: &mut Reader<'_>) -> NetworkDefinition {
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let ranges = get("ipam").and_then(|ipam| ipam.get("config"));
    let ranges = ranges.map_or(&[][..], Node::items);
    NetworkDefinition {
        internal: get("internal").is_some_and(|node| is_true(node, read)),
        ipv6: get("enable_ipv6").is_some_and(|node| is_true(node, read)),
        driver_opts: get("driver_opts")
            .map_or_else(Default::default, |node| options(node, "driver_opts", read)),
        labels: get("labels").map_or_else(Default::default, |node| options(node, "labels", read)),
        subnets: ranges
            .iter()
            .filter_map(|range| subnet(range, read))
            .collect(),
    }
}

/// Reads a flag, also one that a variable of the file gives as a text.
fn is_true(node: &Node, read: &Reader<'_>) -> bool {
    read.text(node).as_deref() == Some("true")
}

fn subnet(node: &Node, read: &mut Reader<'_>) -> Option<Subnet> {
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let place = get("subnet")?;
    let subnet = read.text(place)?;
    let valid = subnet.split_once('/').is_some_and(|(address, prefix)| {
        let most = if address.contains(':') { 128 } else { 32 };
        address.parse::<core::net::IpAddr>().is_ok()
            && prefix.parse::<u8>().is_ok_and(|prefix| prefix <= most)
    });
    if !valid {
        read.report(place.span, format!("`{subnet}` is no subnet"))
            .help = Some("write `address/prefix`, for example `172.30.1.0/24`".into());
        return None;
    }
    Some(Subnet {
        subnet,
        gateway: get("gateway").and_then(|node| read.text(node)),
        ip_range: get("ip_range").and_then(|node| read.text(node)),
    })
}

/// Returns the value of `network_mode`.
pub fn mode(node: &Node, joins: bool, read: &mut Reader<'_>) -> NetworkMode {
    let Some(text) = read.text(node) else {
        return NetworkMode::Networks;
    };
    let mode = match text.split_once(':') {
        None if text == "none" => NetworkMode::None,
        None if text == "host" => NetworkMode::Host,
        None if matches!(text.as_str(), "" | "bridge" | "default") => return NetworkMode::Networks,
        Some(("service", name)) if !name.is_empty() => NetworkMode::Service(name.to_owned()),
        _ => {
            read.report(node.span, format!("`{text}` is no network mode here"))
                .help = Some(
                "it is `none`, `host`, `bridge` or `service:NAME`; containers of other projects aren't reached".into(),
            );
            return NetworkMode::Networks;
        }
    };
    if joins {
        read.report(
            node.span,
            format!("`network_mode: {text}` and `networks` exclude each other"),
        )
        .help = Some("leave one of them out".into());
    }
    mode
}
