//! Judges the addresses of the agent's own requests by the policy. It is asked with the address that is connected to:
//! after names were resolved, and again for each redirect.

use super::core::{Around, Policy};
use nix::ifaddrs::getifaddrs;
use phalanx_shared::policy::{Refusal, Rule, Rules};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Judges addresses.
pub struct Guard {
    policy: Arc<Policy>,
    /// Host and port of the coordinator; `None` if it is a socket of this machine.
    coordinator: Option<(String, u16)>,
    known: Mutex<Vec<SocketAddr>>,
}

impl Guard {
    /// Creates the guard of an agent of the coordinator at `http://HOST:PORT` or `unix:PATH`.
    pub fn new(policy: Arc<Policy>, coordinator: &str) -> Guard {
        let url = url::Url::parse(coordinator).ok();
        let host = url.as_ref().and_then(|url| {
            let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
            Some((host, url.port_or_known_default()?))
        });
        Guard {
            policy,
            coordinator: host,
            known: Mutex::default(),
        }
    }

    /// Creates a guard that allows everything.
    pub fn open() -> Arc<Guard> {
        Arc::new(Guard::new(Arc::new(Policy::open()), "unix:"))
    }

    /// Returns a guard whose policy is narrowed by these rules.
    #[must_use]
    pub fn narrowed_by(&self, rules: Rules) -> Guard {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Guard {
            policy: Arc::new(Policy::clone(&self.policy).narrowed_by(rules)),
            coordinator: self.coordinator.clone(),
            known: Mutex::new(known.clone()),
        }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Returns whether every address is allowed.
    pub fn is_open(&self) -> bool {
        self.policy.is_open(Rule::Http)
    }

    /// Looks up the coordinator's addresses. Those that it had before stay refused.
    pub async fn look(&self) {
        let Some((host, port)) = &self.coordinator else {
            return;
        };
        if self.is_open() {
            return;
        }
        let Ok(found) = tokio::net::lookup_host((host.as_str(), *port)).await else {
            return;
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for address in found {
            if !known.contains(&address) && known.len() < MAX_KNOWN {
                known.push(address);
            }
        }
    }

    /// Judges an address. Makes system calls, no requests.
    pub fn judge(&self, address: SocketAddr) -> Result<(), Refusal> {
        if self.is_open() {
            return Ok(());
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let around = Around {
            machine: own_addresses(),
            coordinator: known.clone(),
        };
        drop(known);
        self.policy.address(address, &around)
    }
}

/// The guard of what begins now: the agent's own, or one that the coordinator has narrowed.
pub struct InForce {
    own: Arc<Guard>,
    now: Mutex<Arc<Guard>>,
}

impl InForce {
    /// Begins with the agent's own guard.
    pub fn new(own: Arc<Guard>) -> InForce {
        InForce {
            now: Mutex::new(Arc::clone(&own)),
            own,
        }
    }

    /// Returns the guard.
    pub fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Narrows the agent's own guard by these rules, and by none that were there before.
    pub fn narrow(&self, rules: Option<Rules>) {
        let guard = match rules {
            None => Arc::clone(&self.own),
            Some(rules) => Arc::new(self.own.narrowed_by(rules)),
        };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = guard;
    }
}

/// Maximum number of addresses kept of the coordinator.
const MAX_KNOWN: usize = 64;

/// Returns the addresses of the machine's interfaces. Networks of cells come and go, so they are read each time.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_machines_own_addresses_and_the_coordinator_by_its_name_are_refused() {
        let guard = Guard::new(Arc::new(Policy::closed()), "http://localhost:7180");
        guard.look().await;
        for own in own_addresses() {
            assert!(guard.judge(SocketAddr::new(own, 80)).is_err(), "{own}");
        }
        assert!(own_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
        let refused = guard.judge("127.0.0.1:7180".parse().unwrap()).unwrap_err();
        assert_eq!(refused.need.rule, Rule::Http);
        assert!(!guard.known.lock().unwrap().is_empty());
        assert!(guard.judge("192.0.2.1:80".parse().unwrap()).is_ok());
    }
}
