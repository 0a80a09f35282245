//! Own subnets, since the engine's address pools end at about 31 networks. `core` decides; this reads what the host uses.

pub(super) mod core;

use self::core::Net4;

/// The IPv4 networks that this host routes to. Empty where there is no `/proc`.
pub(super) fn host_routes() -> Vec<Net4> {
    std::fs::read_to_string("/proc/net/route")
        .map(|text| core::routes(&text))
        .unwrap_or_default()
}
