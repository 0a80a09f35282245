//! Phalanx's own subnets, since the engine's address pools are exhausted after about 31 networks. `core` decides; this
//! file reads what the host uses.

pub(super) mod core;

use self::core::Net4;

/// Returns the IPv4 networks that this host has routes to. Empty if there is no `/proc`.
pub(super) fn host_routes() -> Vec<Net4> {
    std::fs::read_to_string("/proc/net/route")
        .map(|text| core::routes(&text))
        .unwrap_or_default()
}
