//! How steps reach containers: at their address, or through ports published on the engine's host.

use super::client::Engine;
use super::network::Network;
use super::settings::Reach;
use bollard::errors::Error;
use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};

/// The way chosen for this engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// At the container's address.
    Direct,
    /// At the container's address, once the agent's own container (with this id) has joined the network.
    Join(String),
    /// Through ports published at `address`; `publish` is the address that the engine binds.
    Published { address: IpAddr, publish: String },
}

/// Chooses the way, given a network that exists: testing a real network is better than guessing from the platform.
pub(super) async fn decide(setting: Reach, engine: &Engine, network: &Network) -> Way {
    match setting {
        Reach::Direct => Way::Direct,
        Reach::Published => published(&engine.host),
        Reach::Join => match own_container(engine).await {
            Some(id) => Way::Join(id),
            None => published(&engine.host),
        },
        Reach::Auto if is_ours(network.gateway()) => Way::Direct,
        Reach::Auto => match own_container(engine).await {
            Some(id) => Way::Join(id),
            None => published(&engine.host),
        },
    }
}

/// Returns whether the engine's side of the network is an address of this machine and network namespace.
fn is_ours(gateway: Ipv4Addr) -> bool {
    UdpSocket::bind((gateway, 0)).is_ok()
}

/// Returns the id of the container that this process runs in, if the same engine runs it.
async fn own_container(engine: &Engine) -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let plausible = name.len() == 12 && name.chars().all(|c| c.is_ascii_hexdigit());
    if !plausible {
        return None;
    }
    let docker = &engine.docker;
    let found = engine.ask(|| docker.inspect_container(name, None)).await;
    found.ok()?.id
}

fn published(host: &str) -> Way {
    let loopback = Way::Published {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        publish: "127.0.0.1".to_owned(),
    };
    let Some(remote) = host
        .strip_prefix("tcp://")
        .or_else(|| host.strip_prefix("http://"))
    else {
        return loopback;
    };
    let address = remote
        .trim_end_matches('/')
        .to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .map(|address| address.ip());
    match address {
        Some(address) if !address.is_loopback() => Way::Published {
            address,
            publish: "0.0.0.0".to_owned(),
        },
        _ => loopback,
    }
}

/// Connects the agent's own container to the cell's network.
pub(super) async fn join(engine: &Engine, own: &str, network: &Network) -> Result<(), Error> {
    let docker = &engine.docker;
    engine
        .ask(|| {
            docker.connect_network(
                &network.name,
                NetworkConnectRequest {
                    container: own.to_owned(),
                    endpoint_config: None,
                },
            )
        })
        .await
}

/// Disconnects the agent's own container from the cell's network.
pub(super) async fn leave(engine: &Engine, own: &str, network: &Network) {
    let docker = &engine.docker;
    let left = engine
        .ask(|| {
            docker.disconnect_network(
                &network.name,
                NetworkDisconnectRequest {
                    container: own.to_owned(),
                    force: Some(true),
                },
            )
        })
        .await;
    if let Err(error) = left {
        tracing::debug!(error = %super::error::said(&error), "leaving a cell's network");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_engine_publishes_on_all_its_addresses() {
        assert_eq!(
            published("tcp://192.0.2.7:2375"),
            Way::Published {
                address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
                publish: "0.0.0.0".to_owned()
            }
        );
    }

    #[test]
    fn a_local_engine_publishes_on_loopback() {
        for host in ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375"] {
            assert!(
                matches!(published(host), Way::Published { address, publish } if address.is_loopback() && publish == "127.0.0.1")
            );
        }
    }
}
