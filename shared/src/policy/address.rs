//! Addresses of requests: which are this machine's or a cloud's, and the items of the rule `http`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Items of the rule `http` that stand for a class of addresses.
pub const LOOPBACK: &str = "loopback";
/// Link-local addresses, and those at which clouds serve a machine's identity.
pub const LINK_LOCAL: &str = "link_local";
/// The coordinator.
pub const COORDINATOR: &str = "coordinator";

/// Addresses outside the link-local ranges at which clouds serve metadata (Alibaba, Azure, Oracle).
const METADATA: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same in AWS's private IPv6 range.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Returns the class of an address that every machine has. An IPv6 address that stands for an IPv4 address has the class
/// of that.
pub fn class(address: IpAddr) -> Option<&'static str> {
    match embedded(address) {
        IpAddr::V4(v4) => {
            // Connecting to 0.0.0.0 connects to this machine.
            if v4.is_loopback() || v4.octets()[0] == 0 {
                return Some(LOOPBACK);
            }
            (v4.is_link_local() || METADATA.contains(&v4)).then_some(LINK_LOCAL)
        }
        IpAddr::V6(v6) => {
            if v6.is_loopback() || v6.is_unspecified() {
                return Some(LOOPBACK);
            }
            let link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            (link_local || v6 == METADATA_V6).then_some(LINK_LOCAL)
        }
    }
}

/// Returns the IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 or 6to4.
pub fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        // `::` and `::1` are IPv6's own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => of(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => address,
    }
}

/// Addresses that an item names: one or a range, with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    start: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

impl Range {
    /// Parses `ADDRESS`, `ADDRESS/PREFIX` or `ADDRESS:PORT`.
    pub fn parse(text: &str) -> Option<Range> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let all = bits(address.ip());
            return Some(Range {
                start: address.ip(),
                prefix: all,
                port: Some(address.port()),
            });
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let start: IpAddr = address.parse().ok()?;
        let prefix = prefix.unwrap_or_else(|| bits(start));
        (prefix <= bits(start)).then_some(Range {
            start,
            prefix,
            port: None,
        })
    }

    /// Returns whether it contains an address.
    pub fn contains(&self, address: SocketAddr) -> bool {
        if self.port.is_some_and(|port| port != address.port()) {
            return false;
        }
        let ip = embedded(address.ip());
        match (embedded(self.start), ip) {
            (IpAddr::V4(start), IpAddr::V4(ip)) => {
                let prefix = match self.start {
                    IpAddr::V4(_) => self.prefix,
                    // A range of the IPv6 addresses that stand for IPv4 addresses.
                    IpAddr::V6(_) => self.prefix.saturating_sub(96),
                };
                same(start.to_bits().into(), ip.to_bits().into(), prefix, 32)
            }
            (IpAddr::V6(start), IpAddr::V6(ip)) => {
                same(start.to_bits(), ip.to_bits(), self.prefix, 128)
            }
            _ => false,
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn same(one: u128, other: u128, prefix: u8, of: u32) -> bool {
    let rest = of.saturating_sub(u32::from(prefix));
    match one.checked_shr(rest) {
        // Nothing is left to compare.
        None => true,
        Some(one) => Some(one) == other.checked_shr(rest),
    }
}

/// Returns whether a text is an item of the rule `http`.
pub fn is_item(text: &str) -> bool {
    [LOOPBACK, LINK_LOCAL, COORDINATOR, "*"].contains(&text) || Range::parse(text).is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_spelling_of_this_machine_and_of_metadata_is_found() {
        for (text, right) in [
            ("127.0.0.1", Some(LOOPBACK)),
            ("127.255.1.2", Some(LOOPBACK)),
            ("0.0.0.0", Some(LOOPBACK)),
            ("::", Some(LOOPBACK)),
            ("::1", Some(LOOPBACK)),
            ("::ffff:127.0.0.1", Some(LOOPBACK)),
            ("::127.0.0.1", Some(LOOPBACK)),
            ("64:ff9b::7f00:1", Some(LOOPBACK)),
            ("2002:7f00:1::", Some(LOOPBACK)),
            ("169.254.169.254", Some(LINK_LOCAL)),
            ("::ffff:a9fe:a9fe", Some(LINK_LOCAL)),
            ("64:ff9b::169.254.169.254", Some(LINK_LOCAL)),
            ("fe80::1", Some(LINK_LOCAL)),
            ("febf::1", Some(LINK_LOCAL)),
            ("fd00:ec2::254", Some(LINK_LOCAL)),
            ("100.100.100.200", Some(LINK_LOCAL)),
            ("10.0.0.1", None),
            ("172.17.0.2", None),
            ("8.8.8.8", None),
            ("fd00::1", None),
            ("2001:db8::1", None),
            ("::ffff:10.0.0.1", None),
        ] {
            assert_eq!(class(text.parse().unwrap()), right, "{text}");
        }
    }

    #[test]
    fn ranges_contain_their_addresses_only() {
        for (range, address, contained) in [
            ("127.0.0.1", "127.0.0.1:80", true),
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("10.0.0.0/8", "10.255.0.1:1", true),
            ("10.0.0.0/8", "11.0.0.1:1", false),
            ("0.0.0.0/0", "11.0.0.1:1", true),
            ("0.0.0.0/0", "[2001:db8::1]:1", false),
            ("::/0", "[2001:db8::1]:1", true),
            ("[::1]:80", "[::1]:80", true),
            ("fd00::/8", "[fd12::1]:1", true),
            ("fd00::/8", "[fc12::1]:1", false),
            ("10.0.0.1", "[::ffff:10.0.0.1]:1", true),
            ("::ffff:10.0.0.0/104", "10.9.0.1:1", true),
            ("::ffff:10.0.0.0/104", "11.9.0.1:1", false),
        ] {
            let range = Range::parse(range).unwrap();
            assert_eq!(
                range.contains(address.parse().unwrap()),
                contained,
                "{range:?} {address}"
            );
        }
        for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0.1:x", "1.2.3"] {
            assert!(!is_item(wrong), "{wrong}");
        }
    }
}
