//! How many networks a cell needs, so that it reserves as many subnets.

use crate::language::model::Spec;
use crate::language::service::networks_map;
use crate::node::Node;
use std::collections::BTreeSet;

/// Returns the number of networks of a spec's cells if that is more than the one that each cell has; else 0. An agent
/// has room for many more networks than for cells, so only cells with several of them reserve any.
pub fn reserved(spec: &Spec) -> u32 {
    let containers = spec.services.iter().filter(|service| !service.process);
    let mut names = BTreeSet::from(["default".to_owned()]);
    for service in containers {
        let networks = service
            .definition
            .get("networks")
            .filter(|node| !node.is_null());
        let networks = networks.map(networks_map);
        let entries = networks.as_ref().map_or(&[][..], Node::entries);
        names.extend(entries.iter().map(|entry| entry.key.text.clone()));
    }
    match names.len() {
        1 => 0,
        several => u32::try_from(several).unwrap_or(u32::MAX),
    }
}
