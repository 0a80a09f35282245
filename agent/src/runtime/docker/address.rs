//! Reads the addresses of a running container from the engine's inspect response. Pure.

use super::convert;
use super::reach::Way;
use crate::runtime::contract::Addresses;
use bollard::models::{ContainerInspectResponse, EndpointSettings};
use phalanx_shared::language::service::ServiceConfig;
use std::net::{IpAddr, SocketAddr};

/// Returns the addresses of a container: those in the first of these networks in which it has one.
pub(super) fn of(
    config: &ServiceConfig,
    inspected: &ContainerInspectResponse,
    networks: &[&str],
    way: Option<&Way>,
) -> Addresses {
    let settings = inspected.network_settings.as_ref();
    let all = settings.and_then(|s| s.networks.as_ref());
    let has = |endpoint: &&EndpointSettings| {
        let known =
            |address: &Option<String>| address.as_ref().is_some_and(|text| !text.is_empty());
        known(&endpoint.ip_address) || known(&endpoint.global_ipv6_address)
    };
    let mut joined = networks.iter().filter_map(|network| all?.get(*network));
    let endpoint = joined.find(has);
    let address = |pick: fn(&EndpointSettings) -> Option<&String>| -> Option<IpAddr> {
        endpoint.and_then(pick)?.parse().ok()
    };
    let ip = address(|e| e.ip_address.as_ref());
    let ipv6 = address(|e| e.global_ipv6_address.as_ref());
    let published = |key: &str| -> Option<u16> {
        let bindings = settings?.ports.as_ref()?.get(key)?.as_ref()?;
        bindings
            .iter()
            .find_map(|b| b.host_port.as_ref()?.parse().ok())
    };
    let ports = config
        .ports
        .iter()
        .filter_map(|port| {
            let target = port.target?;
            let socket = match way {
                Some(Way::Published { address, .. }) => {
                    SocketAddr::new(*address, published(&convert::port_key(port)?)?)
                }
                _ => SocketAddr::new(ip.or(ipv6)?, target),
            };
            Some((target.to_string(), socket))
        })
        .collect();
    Addresses {
        host: config.name.clone(),
        ip,
        ipv6,
        ports,
    }
}

/// Returns the addresses of a container that has the network of the engine's host.
pub(super) fn of_host(config: &ServiceConfig, way: Option<&Way>) -> Addresses {
    let ip = match way {
        Some(Way::Published { address, .. }) => *address,
        _ => IpAddr::from([127, 0, 0, 1]),
    };
    let ports = config.ports.iter().filter_map(|port| port.target);
    Addresses {
        host: ip.to_string(),
        ip: Some(ip),
        ipv6: None,
        ports: ports
            .map(|port| (port.to_string(), SocketAddr::new(ip, port)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bollard::models::{NetworkSettings, PortBinding};
    use phalanx_shared::language::service::Port;
    use std::collections::HashMap;

    fn inspected(ip: &str) -> ContainerInspectResponse {
        let endpoint = EndpointSettings {
            ip_address: Some(ip.to_owned()),
            global_ipv6_address: Some("fd00::2".to_owned()),
            ..EndpointSettings::default()
        };
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some("49153".to_owned()),
        };
        ContainerInspectResponse {
            network_settings: Some(NetworkSettings {
                networks: Some(HashMap::from([("net".to_owned(), endpoint)])),
                ports: Some(HashMap::from([("80/tcp".to_owned(), Some(vec![binding]))])),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    fn config() -> ServiceConfig {
        let port = |target| Port {
            target: Some(target),
            name: None,
            protocol: "tcp".to_owned(),
            app_protocol: None,
            published: None,
        };
        ServiceConfig {
            name: "web".to_owned(),
            ports: vec![port(80), port(443)],
            ..ServiceConfig::default()
        }
    }

    #[test]
    fn a_direct_way_leads_to_the_containers_own_ports() {
        let found = of(
            &config(),
            &inspected("10.0.0.2"),
            &["net"],
            Some(&Way::Direct),
        );
        assert_eq!(found.host, "web");
        assert_eq!(found.ipv6.unwrap().to_string(), "fd00::2");
        let ports: Vec<String> = found
            .ports
            .iter()
            .map(|(n, a)| format!("{n} {a}"))
            .collect();
        assert_eq!(ports, ["80 10.0.0.2:80", "443 10.0.0.2:443"]);
    }

    #[test]
    fn a_published_way_leads_to_the_ports_that_were_published() {
        let way = Way::Published {
            address: IpAddr::from([127, 0, 0, 1]),
            publish: "127.0.0.1".to_owned(),
        };
        let found = of(&config(), &inspected("10.0.0.2"), &["net"], Some(&way));
        assert_eq!(
            found.ports,
            [("80".to_owned(), "127.0.0.1:49153".parse().unwrap())]
        );
    }

    #[test]
    fn without_ipv4_the_ipv6_address_is_used() {
        let found = of(&config(), &inspected(""), &["none", "net"], None);
        assert_eq!(found.ip, None);
        assert_eq!(found.ports[0].1.to_string(), "[fd00::2]:80");
    }
}
