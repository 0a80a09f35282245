//! Judges what a spec asks for. Pure: what it needs to know of the machine comes in as values.

use phalanx_shared::policy::address::{self, COORDINATOR, LOOPBACK, Range};
use phalanx_shared::policy::rules::{CLOSED, OPEN};
use phalanx_shared::policy::{Need, Refusal, Rule, Rules};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The policy in force: the agent's own rules and, above them, those that narrow them. Something is allowed if all of
/// them allow it, so nothing that comes from elsewhere can allow more than the agent's own rules do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    own: Rules,
    narrowed: Vec<Rules>,
}

impl Policy {
    /// Creates a policy of the agent's own rules.
    pub fn of(own: Rules) -> Policy {
        Policy {
            own,
            narrowed: Vec::new(),
        }
    }

    /// Creates a policy that allows everything.
    pub fn open() -> Policy {
        Policy::of(Rules::open(OPEN))
    }

    /// Creates the policy of an agent that is told nothing.
    pub fn closed() -> Policy {
        Policy::of(Rules::closed(CLOSED))
    }

    /// Adds rules that allow less.
    #[must_use]
    pub fn narrowed_by(mut self, rules: Rules) -> Policy {
        self.narrowed.push(rules);
        self
    }

    /// Returns the agent's own rules.
    pub fn own(&self) -> &Rules {
        &self.own
    }

    fn all(&self) -> impl Iterator<Item = &Rules> {
        std::iter::once(&self.own).chain(&self.narrowed)
    }

    /// Returns whether a rule allows everything.
    pub fn is_open(&self, rule: Rule) -> bool {
        self.all().all(|rules| rules.items(rule).is_none())
    }

    /// Returns why a need is refused, or `None` if it is allowed.
    pub fn refuses(&self, need: &Need) -> Option<Refusal> {
        self.all().find_map(|rules| rules.refuses(need))
    }

    /// Returns the first refusal of several needs.
    pub fn refuses_one<'n>(&self, needs: impl IntoIterator<Item = &'n Need>) -> Option<Refusal> {
        needs.into_iter().find_map(|need| self.refuses(need))
    }

    /// Returns the directory below which an absolute path of the host may be used, and the rest of the path. Links that
    /// lead out of the directory must not be followed.
    pub fn place(&self, path: &str) -> Result<(PathBuf, PathBuf), Refusal> {
        let Some(need) = Need::path(path) else {
            return Ok((PathBuf::new(), PathBuf::from(path)));
        };
        if let Some(refusal) = self.refuses(&need) {
            return Err(refusal);
        }
        let plain = Path::new(&need.what);
        let items = self.all().filter_map(|rules| rules.items(Rule::Paths));
        let above = items.flatten().map(Path::new);
        let above = above.filter(|item| plain.starts_with(item));
        let above = above.max_by_key(|item| item.components().count());
        let above = above.unwrap_or(Path::new("/"));
        let below = plain.strip_prefix(above).unwrap_or(plain);
        Ok((above.to_owned(), below.to_owned()))
    }

    /// Returns whether commands on the host inherit a variable of the agent.
    pub fn inherits(&self, name: &str) -> bool {
        self.refuses(&Need::new(Rule::Environment, name)).is_none()
    }

    /// Judges the address that a request of the agent connects to.
    pub fn address(&self, address: SocketAddr, around: &Around) -> Result<(), Refusal> {
        for rules in self.all() {
            let Some(items) = rules.items(Rule::Http) else {
                continue;
            };
            let named = |item: &String| Range::parse(item).is_some_and(|of| of.contains(address));
            if items.iter().any(named) {
                continue;
            }
            for class in around.classes(address) {
                if let Some(refusal) = rules.refuses(&Need::new(Rule::Http, class)) {
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }
}

/// What addresses mean on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Addresses of the machine's interfaces.
    pub machine: Vec<IpAddr>,
    /// Addresses of the coordinator.
    pub coordinator: Vec<SocketAddr>,
}

impl Around {
    /// Returns the classes of an address. A coordinator on another machine is that whole machine; one on this machine is
    /// its port, and everything else of this machine is `loopback`.
    fn classes(&self, address: SocketAddr) -> Vec<&'static str> {
        let ip = address::embedded(address.ip());
        let here = |ip: IpAddr| {
            address::class(ip) == Some(LOOPBACK) || self.machine.contains(&address::embedded(ip))
        };
        let mut classes: Vec<&'static str> = address::class(ip).into_iter().collect();
        if here(ip) && !classes.contains(&LOOPBACK) {
            classes.push(LOOPBACK);
        }
        let coordinator = self.coordinator.iter().any(|known| match here(known.ip()) {
            true => here(ip) && known.port() == address.port(),
            false => address::embedded(known.ip()) == ip,
        });
        if coordinator {
            classes.push(COORDINATOR);
        }
        classes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::policy::Allow;
    use proptest::prelude::*;

    fn only(rule: Rule, items: &[&str]) -> Policy {
        let mut rules = Rules::closed(CLOSED);
        let items = items.iter().map(ToString::to_string).collect();
        rules.set(rule, Allow::Only(items), "p.toml:1");
        Policy::of(rules)
    }

    fn around() -> Around {
        Around {
            machine: vec!["10.1.0.5".parse().unwrap()],
            coordinator: vec!["10.9.0.1:7180".parse().unwrap()],
        }
    }

    fn refused(policy: &Policy, around: &Around, address: &str) -> Option<String> {
        let judged = policy.address(address.parse().unwrap(), around);
        judged.err().map(|refusal| refusal.need.what)
    }

    #[test]
    fn a_closed_agent_requests_nothing_of_its_machine_of_a_cloud_or_of_its_coordinator() {
        let policy = Policy::closed();
        for (address, class) in [
            ("127.0.0.1:80", Some("loopback")),
            ("[::ffff:127.0.0.1]:80", Some("loopback")),
            ("10.1.0.5:2375", Some("loopback")),
            ("[::ffff:10.1.0.5]:2375", Some("loopback")),
            ("169.254.169.254:80", Some("link_local")),
            ("10.9.0.1:7180", Some("coordinator")),
            ("10.9.0.1:7181", Some("coordinator")),
            ("10.9.0.2:7180", None),
            ("93.184.215.14:80", None),
        ] {
            assert_eq!(
                refused(&policy, &around(), address).as_deref(),
                class,
                "{address}"
            );
            assert_eq!(refused(&Policy::open(), &around(), address), None);
        }
    }

    #[test]
    fn a_coordinator_on_this_machine_is_only_its_port() {
        let around = Around {
            coordinator: vec!["127.0.0.1:7180".parse().unwrap()],
            ..around()
        };
        let policy = only(Rule::Http, &["loopback"]);
        assert_eq!(refused(&policy, &around, "127.0.0.1:8080"), None);
        for coordinator in ["127.0.0.1:7180", "10.1.0.5:7180", "[::1]:7180"] {
            let class = refused(&policy, &around, coordinator);
            assert_eq!(class.as_deref(), Some("coordinator"), "{coordinator}");
        }
    }

    #[test]
    fn a_single_address_can_be_allowed() {
        let policy = only(Rule::Http, &["127.0.0.1:8080", "10.9.0.0/24"]);
        assert_eq!(refused(&policy, &around(), "127.0.0.1:8080"), None);
        assert!(refused(&policy, &around(), "127.0.0.1:8081").is_some());
        assert_eq!(refused(&policy, &around(), "10.9.0.1:7180"), None);
    }

    #[test]
    fn a_path_is_used_below_the_item_that_allows_it() {
        let policy = only(Rule::Paths, &["/srv", "/srv/deep"]);
        let place = |path: &str| policy.place(path).ok();
        let of = |above: &str, below: &str| Some((PathBuf::from(above), PathBuf::from(below)));
        assert_eq!(place("/srv/x/y"), of("/srv", "x/y"));
        assert_eq!(place("/srv/deep/x"), of("/srv/deep", "x"));
        assert_eq!(place("/srv/../etc/shadow"), None);
        assert_eq!(place("/srv-other"), None);
        assert_eq!(Policy::open().place("/etc/x").ok(), of("/", "etc/x"));
        let narrow = only(Rule::Paths, &["/srv"]).narrowed_by(policy.own().clone());
        assert_eq!(narrow.place("/srv/deep/x").ok(), of("/srv/deep", "x"));
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let items = [
            "/srv",
            "/srv/a",
            "NET_ADMIN",
            "docker.io",
            "*",
            "loopback",
            "10.0.0.0/8",
            "PATH",
        ];
        let allow = prop_oneof![
            Just(Allow::All),
            proptest::sample::subsequence(items.to_vec(), 0..=items.len())
                .prop_map(|items| Allow::Only(items.into_iter().map(str::to_owned).collect())),
        ];
        use strum_rules::all;
        proptest::collection::vec(allow, all().len()).prop_map(|allows| {
            let mut rules = Rules::closed("t");
            for (rule, allow) in all().into_iter().zip(allows) {
                rules.set(rule, allow, "t");
            }
            rules
        })
    }

    mod strum_rules {
        use phalanx_shared::policy::{Rule, Rules};
        /// Returns all rules.
        pub fn all() -> Vec<Rule> {
            Rules::closed("t").all().map(|(rule, _)| rule).collect()
        }
    }

    proptest! {
        #[test]
        fn narrowing_never_allows_more(own in rules(), by in rules(), at in 0usize..64, what in 0usize..7) {
            let all = strum_rules::all();
            let whats = ["/srv/a/b", "/etc", "NET_ADMIN", "ghcr.io", "loopback", "PATH", ""];
            let need = Need::new(all[at % all.len()], whats[what]);
            let policy = Policy::of(own);
            let narrow = policy.clone().narrowed_by(by);
            prop_assert!(policy.refuses(&need).is_none() || narrow.refuses(&need).is_some());
            for address in ["127.0.0.1:1", "10.9.0.1:2", "169.254.169.254:80", "8.8.8.8:1"] {
                let address = address.parse().unwrap();
                prop_assert!(policy.address(address, &around()).is_ok() || narrow.address(address, &around()).is_err());
            }
        }
    }
}
