//! Chooses the subnet of a cell's network. Pure: the input is what is taken, the output a subnet.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net4 {
    base: u32,
    prefix: u8,
}

impl Net4 {
    /// Returns the network of length `prefix` that contains `address`. `None` if the prefix is longer than 32.
    pub fn of(address: Ipv4Addr, prefix: u8) -> Option<Net4> {
        (prefix <= 32).then(|| Net4 {
            base: u32::from(address) & mask(prefix),
            prefix,
        })
    }

    /// Parses a network such as `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Net4> {
        let (address, prefix) = text.trim().split_once('/')?;
        Net4::of(address.parse().ok()?, prefix.parse().ok()?)
    }

    /// Returns whether the networks share an address.
    pub fn overlaps(&self, other: &Net4) -> bool {
        let wider = mask(self.prefix.min(other.prefix));
        self.base & wider == other.base & wider
    }

    /// Returns the gateway: the first address after the network's own.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base.wrapping_add(1))
    }

    /// Returns how many networks of length `prefix` fit into this one.
    fn parts(&self, prefix: u8) -> u32 {
        match prefix.checked_sub(self.prefix) {
            Some(bits) => 1u32.checked_shl(u32::from(bits)).unwrap_or(u32::MAX),
            None => 0,
        }
    }

    fn part(&self, prefix: u8, index: u32) -> Net4 {
        let size = 1u32
            .checked_shl(u32::from(32 - prefix.min(32)))
            .unwrap_or(0);
        Net4 {
            base: self.base.wrapping_add(index.wrapping_mul(size)),
            prefix,
        }
    }
}

impl fmt::Display for Net4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(u32::from(32 - prefix.min(32)))
        .unwrap_or(0)
}

/// The subnets of one cell: an IPv4 subnet, and the IPv6 subnet with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subnets {
    /// IPv4 subnet.
    pub v4: Net4,
    /// IPv6 subnet, as `PREFIX/64`.
    pub v6: String,
}

/// Answer to the wish for a certain subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is taken for the caller.
    Taken,
    /// Another network of this process overlaps it.
    Ours,
    /// Something else on this machine overlaps it.
    Foreign,
}

/// Settings that describe no pool of subnets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPool {
    /// The length of a subnet's prefix.
    #[error("subnet_prefix {0} isn't in 8..29 (a /30 has room for one container)")]
    Prefix(u8),
    /// A text that is no IPv4 range.
    #[error("subnets: {0:?} isn't an IPv4 range like 10.213.0.0/16")]
    NoRange(String),
    /// A range, and the length of the prefix of the subnets that it can't hold.
    #[error("subnets: {0} is smaller than one /{1}")]
    TooSmall(String, u8),
    /// There is no range.
    #[error("subnets: the list is empty; give a range like 10.213.0.0/16")]
    Empty,
    /// A text that is no IPv6 range.
    #[error("subnets_v6: {0:?} isn't an IPv6 range of /48 like fd8c:50a1:a0c7::/48")]
    NoRangeV6(String),
}

/// Allocates subnets; each one is used once until it is given back.
#[derive(Debug)]
pub struct Allocator {
    pools: Vec<Net4>,
    prefix: u8,
    v6: [u16; 3],
    /// Allocated by this process.
    ours: HashSet<Net4>,
    /// Taken by others: existing networks and routes, and subnets that the engine refused.
    foreign: Vec<Net4>,
    next: u32,
}

impl Allocator {
    /// Creates an allocator over `pools`, divided into networks of length `prefix`. `start` spreads processes over the
    /// pool, so that they rarely collide.
    pub fn new(
        pools: &[String],
        prefix: u8,
        v6: &str,
        start: u32,
    ) -> Result<Allocator, InvalidPool> {
        if !(8..=29).contains(&prefix) {
            return Err(InvalidPool::Prefix(prefix));
        }
        let mut parsed = Vec::new();
        for text in pools {
            let pool = Net4::parse(text).ok_or_else(|| InvalidPool::NoRange(text.clone()))?;
            if pool.parts(prefix) == 0 {
                return Err(InvalidPool::TooSmall(text.clone(), prefix));
            }
            parsed.push(pool);
        }
        if parsed.is_empty() {
            return Err(InvalidPool::Empty);
        }
        Ok(Allocator {
            pools: parsed,
            prefix,
            v6: parse_v6(v6)?,
            ours: HashSet::new(),
            foreign: Vec::new(),
            next: start,
        })
    }

    /// Returns the maximum number of subnets.
    pub fn total(&self) -> u32 {
        self.pools.iter().fold(0u32, |sum, pool| {
            sum.saturating_add(pool.parts(self.prefix))
        })
    }

    /// Returns the number of subnets that are not known to be in use.
    pub fn free(&self) -> u32 {
        let free = |net: &Net4| {
            !self.ours.contains(net) && !self.foreign.iter().any(|taken| taken.overlaps(net))
        };
        let nets = self.pools.iter().flat_map(|pool| {
            (0..pool.parts(self.prefix)).map(|index| pool.part(self.prefix, index))
        });
        u32::try_from(nets.filter(free).count()).unwrap_or(u32::MAX)
    }

    /// Replaces the list of subnets that others use.
    pub fn set_foreign(&mut self, taken: Vec<Net4>) {
        self.foreign = taken
            .into_iter()
            .filter(|net| !self.ours.contains(net))
            .collect();
    }

    /// Marks a subnet that the engine refused.
    pub fn refuse(&mut self, net: Net4) {
        self.ours.remove(&net);
        self.foreign.push(net);
    }

    /// Takes a subnet that is not known to be in use; `None` if there is none left.
    pub fn take(&mut self) -> Option<Subnets> {
        // Pools in order: the second is used only when the first is full or taken.
        for (rank, pool) in self.pools.iter().enumerate() {
            let parts = pool.parts(self.prefix);
            for step in 0..parts {
                let index = self.next.wrapping_add(step) % parts;
                let net = pool.part(self.prefix, index);
                if self.ours.iter().any(|ours| ours.overlaps(&net))
                    || self.foreign.iter().any(|f| f.overlaps(&net))
                {
                    continue;
                }
                self.next = index.wrapping_add(1);
                self.ours.insert(net);
                let number = u32::try_from(rank).unwrap_or(0) << 14 | index & 0x3fff;
                return Some(Subnets {
                    v4: net,
                    v6: self.six(number),
                });
            }
        }
        None
    }

    /// Takes a certain subnet, which may be outside of the pools.
    pub fn claim(&mut self, net: Net4) -> Claim {
        if self.ours.iter().any(|ours| ours.overlaps(&net)) {
            return Claim::Ours;
        }
        if self.foreign.iter().any(|foreign| foreign.overlaps(&net)) {
            return Claim::Foreign;
        }
        self.ours.insert(net);
        Claim::Taken
    }

    /// Returns the subnets of a network whose IPv4 subnet is fixed.
    pub fn subnets_of(&self, net: Net4) -> Subnets {
        // Numbers that the pools don't use: they have at most three ranges of 2^14 subnets.
        let number = 0xc000 | (net.base >> 8) & 0x3fff;
        Subnets {
            v4: net,
            v6: self.six(number),
        }
    }

    /// Gives a subnet back.
    pub fn give_back(&mut self, net: Net4) {
        self.ours.remove(&net);
    }

    fn six(&self, number: u32) -> String {
        let [a, b, c] = self.v6;
        let low = u16::try_from(number & 0xffff).unwrap_or(0);
        format!("{}/64", Ipv6Addr::new(a, b, c, low, 0, 0, 0, 0))
    }
}

fn parse_v6(text: &str) -> Result<[u16; 3], InvalidPool> {
    let wrong = || InvalidPool::NoRangeV6(text.to_owned());
    let (address, prefix) = text.trim().split_once('/').ok_or_else(wrong)?;
    let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
    if prefix != "48" {
        return Err(wrong());
    }
    let [a, b, c, ..] = address.segments();
    Ok([a, b, c])
}

/// Returns the IPv4 networks of the host's routes, from the text of `/proc/net/route`, without default routes.
pub fn routes(proc_net_route: &str) -> Vec<Net4> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    proc_net_route
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let destination = hex(fields.next()?)?;
            let mask = hex(fields.nth(5)?)?;
            let prefix = u8::try_from(mask.count_ones()).ok()?;
            (prefix > 0).then(|| Net4::of(Ipv4Addr::from(destination), prefix))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn allocator(pools: &[&str], prefix: u8, start: u32) -> Allocator {
        let pools: Vec<String> = pools.iter().map(|p| (*p).to_owned()).collect();
        Allocator::new(&pools, prefix, "fd00:1:2::/48", start).unwrap()
    }

    #[test]
    fn what_others_use_is_not_free() {
        let pools = ["10.0.0.0/24".to_owned()];
        let mut allocator = Allocator::new(&pools, 28, "fd00:1:2::/48", 0).unwrap();
        assert_eq!(allocator.free(), 16);
        allocator.set_foreign(vec![Net4::parse("10.0.0.0/27").unwrap()]);
        assert_eq!(allocator.free(), 14);
        allocator.take().unwrap();
        assert_eq!(allocator.free(), 13);
    }

    #[test]
    fn every_subnet_is_given_once_and_again_after_it_came_back() {
        let mut all = allocator(&["10.0.0.0/26"], 28, 3);
        let given: Vec<_> = std::iter::from_fn(|| all.take()).collect();
        assert_eq!(given.len(), 4);
        assert_eq!(given.iter().map(|s| s.v4).collect::<HashSet<_>>().len(), 4);
        assert_eq!(given.iter().map(|s| &s.v6).collect::<HashSet<_>>().len(), 4);
        all.give_back(given[1].v4);
        assert_eq!(all.take().unwrap().v4, given[1].v4);
    }

    #[test]
    fn the_next_pool_serves_when_the_first_is_taken() {
        let mut all = allocator(&["10.0.0.0/16", "10.9.0.0/16"], 28, 0);
        all.set_foreign(vec![Net4::parse("10.0.0.0/8").unwrap()]);
        assert_eq!(all.take(), None);
        all.set_foreign(vec![Net4::parse("10.0.0.0/16").unwrap()]);
        let got = all.take().unwrap();
        assert_eq!(got.v4.to_string(), "10.9.0.0/28");
        assert_eq!(got.v4.gateway().to_string(), "10.9.0.1");
    }

    #[test]
    fn a_refused_subnet_is_not_offered_again() {
        let mut all = allocator(&["10.0.0.0/27"], 28, 0);
        let first = all.take().unwrap();
        all.refuse(first.v4);
        assert_ne!(all.take().unwrap().v4, first.v4);
        assert_eq!(all.take(), None);
    }

    #[test]
    fn a_fixed_subnet_is_given_to_one_at_a_time_and_pools_leave_it_out() {
        let mut all = allocator(&["10.0.0.0/27"], 28, 0);
        let fixed = Net4::parse("10.0.0.0/28").unwrap();
        assert_eq!(all.claim(fixed), Claim::Taken);
        assert_eq!(all.claim(Net4::parse("10.0.0.0/24").unwrap()), Claim::Ours);
        assert_eq!(all.take().unwrap().v4.to_string(), "10.0.0.16/28");
        assert_eq!(all.take(), None);
        all.give_back(fixed);
        assert_eq!(all.claim(fixed), Claim::Taken);
        all.set_foreign(vec![Net4::parse("192.168.0.0/16").unwrap()]);
        let taken = Net4::parse("192.168.7.0/24").unwrap();
        assert_eq!(all.claim(taken), Claim::Foreign);
    }

    #[test]
    fn routes_of_the_host_are_read() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(routes(text), vec![Net4::parse("172.17.0.0/16").unwrap()]);
    }

    #[test]
    fn bad_ranges_are_refused_with_an_example() {
        let said = |pool: &str, prefix| {
            let made = Allocator::new(&[pool.to_owned()], prefix, "fd00::/48", 0);
            made.unwrap_err().to_string()
        };
        assert!(said("10.0.0.0", 28).contains("10.213.0.0/16"));
        assert!(said("10.0.0.0/30", 28).contains("smaller"));
        assert!(said("10.0.0.0/8", 31).contains("subnet_prefix"));
        assert!(Allocator::new(&["10.0.0.0/8".into()], 28, "fd00::/64", 0).is_err());
    }

    proptest! {
        #[test]
        fn subnets_never_overlap_each_other_nor_what_is_taken(
            prefix in 24u8..=29, start in any::<u32>(),
            taken in proptest::collection::vec((any::<u16>(), 18u8..=32), 0..6),
        ) {
            let mut all = allocator(&["10.5.0.0/20", "10.6.0.0/22"], prefix, start);
            let taken: Vec<Net4> = taken.into_iter()
                .filter_map(|(low, p)| Net4::of(Ipv4Addr::from(0x0a05_0000 | u32::from(low & 0xfff)), p)).collect();
            all.set_foreign(taken.clone());
            let given: Vec<Net4> = std::iter::from_fn(|| all.take()).map(|s| s.v4).take(60).collect();
            for (i, net) in given.iter().enumerate() {
                prop_assert!(taken.iter().all(|t| !t.overlaps(net)));
                prop_assert!(given.iter().skip(i + 1).all(|other| !other.overlaps(net)));
            }
        }
    }
}
