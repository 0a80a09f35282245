//! The networks of a cell: the one that each cell has, and those that services name, made when the first needs them.

use super::Shared;
use super::convert::Attached;
use super::error::said;
use super::labels::{self, Labels};
use super::lock::lock;
use super::network::{Fixed, Network, Wanted};
use super::reach::{self, Way};
use super::subnet::core::Net4;
use crate::runtime::contract::{AttemptScope, Fault, RuntimeError};
use phalanx_shared::language::service::{
    NetworkDefinition, NetworkMode, NetworkUse, ServiceConfig,
};
use phalanx_shared::policy::{Need, Rule};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Name of the network that the cell always has.
const DEFAULT: &str = "default";

/// The networks of one cell.
pub(super) struct CellNetworks {
    shared: Arc<Shared>,
    /// The network that every cell has.
    pub first: Arc<Network>,
    /// Those that services name besides it, by their names in the Compose file.
    further: Mutex<Vec<(String, Arc<Network>)>>,
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
}

/// A network that a service joins, and how.
#[derive(Clone)]
pub(super) struct Joined {
    pub network: Arc<Network>,
    pub used: NetworkUse,
}

/// Where a container's network interfaces come from.
#[derive(Clone)]
pub(super) enum Interfaces {
    /// Networks, those joined first in front. Never empty.
    Networks(Vec<Joined>),
    /// Only loopback.
    None,
    /// Those of the host.
    Host,
    /// Those of the container with this id.
    Of { id: String, own: Box<Interfaces> },
}

impl Interfaces {
    /// Returns what the create request says about them.
    pub fn attached(&self) -> Attached<'_> {
        match self {
            Interfaces::Networks(joined) => match joined.first() {
                Some(first) => Attached::Network(&first.network.name, &first.used),
                None => Attached::None,
            },
            Interfaces::None => Attached::None,
            Interfaces::Host => Attached::Host,
            Interfaces::Of { id, .. } => Attached::Container(id),
        }
    }

    /// Returns the networks that it joins.
    pub fn networks(&self) -> &[Joined] {
        match self {
            Interfaces::Networks(joined) => joined,
            _ => &[],
        }
    }
}

impl CellNetworks {
    pub fn new(shared: Arc<Shared>, first: Arc<Network>) -> CellNetworks {
        CellNetworks {
            shared,
            first,
            further: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// Returns all networks of the cell.
    pub fn all(&self) -> Vec<Arc<Network>> {
        let further = lock(&self.further);
        let further = further.iter().map(|(_, network)| network.clone());
        std::iter::once(self.first.clone()).chain(further).collect()
    }

    /// Returns the interfaces of a service that has none of another service. Makes the networks that don't exist yet.
    pub async fn interfaces(
        &self,
        config: &ServiceConfig,
        (scope, labels): (&AttemptScope, &Labels),
        closing: &AtomicBool,
    ) -> Result<Interfaces, RuntimeError> {
        match &config.network_mode {
            NetworkMode::None | NetworkMode::Service(_) => return Ok(Interfaces::None),
            NetworkMode::Host => {
                let refusal = scope
                    .policy
                    .refuses(&Need::new(Rule::Namespaces, "network"));
                return match refusal {
                    None => Ok(Interfaces::Host),
                    Some(refusal) => Err(RuntimeError::refused(&refusal)),
                };
            }
            NetworkMode::Networks => {}
        }
        if config.networks.is_empty() {
            return Ok(Interfaces::Networks(vec![Joined {
                network: self.first.clone(),
                used: NetworkUse::default(),
            }]));
        }
        let mut joined = Vec::new();
        for (name, used) in &config.networks {
            let of = (scope, labels);
            joined.push(Joined {
                network: self.named(name, &used.network, of, closing).await?,
                used: used.clone(),
            });
        }
        // As in Compose: by priority, and in the order written among equals.
        joined.sort_by_key(|joined| std::cmp::Reverse(joined.used.priority));
        Ok(Interfaces::Networks(joined))
    }

    /// Returns a network of the cell by its name in the Compose file. Only one is made at a time.
    async fn named(
        &self,
        name: &str,
        definition: &NetworkDefinition,
        (scope, ours): (&AttemptScope, &Labels),
        closing: &AtomicBool,
    ) -> Result<Arc<Network>, RuntimeError> {
        if name == DEFAULT && *definition == NetworkDefinition::default() {
            return Ok(self.first.clone());
        }
        let _turn = self.making.lock().await;
        let known = |further: &&(String, Arc<Network>)| further.0 == name;
        if let Some((_, network)) = lock(&self.further).iter().find(known) {
            return Ok(network.clone());
        }
        let wanted = wanted(name, definition, scope.ipv6)?;
        let mut labels = Labels::from_iter(definition.labels.clone());
        labels.extend(ours.clone());
        let object = labels::object(&scope.token, &format!("net-{name}"));
        let networks = &self.shared.networks;
        let network = networks.make(&object, labels, &wanted, closing).await?;
        lock(&self.further).push((name.to_owned(), network.clone()));
        if let Some(Way::Join(own)) = self.shared.way() {
            let joined = reach::join(&self.shared.engine, own, &network).await;
            joined.map_err(|error| {
                let why = said(&error);
                let reason =
                    format!("the agent's container could not join the network {name}: {why}");
                RuntimeError::new(Fault::Engine, reason)
            })?;
        }
        Ok(network)
    }
}

fn wanted(name: &str, definition: &NetworkDefinition, ipv6: bool) -> Result<Wanted, RuntimeError> {
    let v4 = definition
        .subnets
        .iter()
        .find(|subnet| !subnet.subnet.contains(':'));
    let v6 = definition
        .subnets
        .iter()
        .find(|subnet| subnet.subnet.contains(':'));
    let fixed = match v4 {
        Some(subnet) => {
            let net = Net4::parse(&subnet.subnet).ok_or_else(|| {
                let reason = format!("network {name}: `{}` is no IPv4 subnet", subnet.subnet);
                RuntimeError::new(Fault::Definition, reason)
            })?;
            Some(Fixed {
                net,
                gateway: subnet.gateway.clone(),
                range: subnet.ip_range.clone(),
            })
        }
        None => None,
    };
    Ok(Wanted {
        ipv6: ipv6 || definition.ipv6 || v6.is_some(),
        fixed_v6: v6.map(|subnet| subnet.subnet.clone()),
        internal: definition.internal,
        options: definition.driver_opts.clone().into_iter().collect(),
        fixed,
    })
}
