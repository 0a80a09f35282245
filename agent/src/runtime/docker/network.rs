//! Networks of cells: created in Phalanx's own subnets, a few kept ready, each used once.
//!
//! Creating one costs the engine about 70 ms, and network calls queue up inside it, so a ready one saves that time at
//! the start of a cell. A ready network only carries the labels of the agent and of the pool (labels can't change
//! afterwards). This process knows which cell took it, and the reaper removes every network that no process knows.

use super::client::Engine;
use super::error::{Said, Unusable, runtime, said, status};
use super::govern::{Governor, Work};
use super::labels::Labels;
use super::lock::lock;
use super::subnet::{self, core::Allocator, core::Claim, core::Net4, core::Subnets};
use crate::runtime::contract::{Fault, RuntimeError};
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// How often a fixed subnet is asked for that another cell of this process has.
const FIXED_AGAIN: Duration = Duration::from_millis(100);

/// A network that this process created. While it is held, the reaper leaves it alone and its subnet is taken.
pub(super) struct Network {
    /// Name in the engine; unique.
    pub name: String,
    /// IPv4 subnet of the network.
    pub subnet: Net4,
    owner: Weak<Networks>,
    /// How long its creation waited for its turn at the engine.
    queued: Duration,
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.forget(self);
        }
    }
}

impl Network {
    /// Returns how long its creation waited for its turn at the engine.
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// Returns the engine's own address in the network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }
}

/// How a network is made.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Whether it has IPv6 as well.
    pub ipv6: bool,
    /// Its IPv6 subnet, if the user fixed it.
    pub fixed_v6: Option<String>,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Options for its driver.
    pub options: HashMap<String, String>,
    /// Its IPv4 subnet, if the user fixed it.
    pub fixed: Option<Fixed>,
}

/// An IPv4 subnet that the user fixed.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub net: Net4,
    pub gateway: Option<String>,
    pub range: Option<String>,
}

/// All networks of one engine that this process created.
pub(super) struct Networks {
    engine: Engine,
    governor: Arc<Governor>,
    /// Labels of ready networks.
    of_pool: Labels,
    allocator: Mutex<Allocator>,
    ready: Mutex<Vec<Arc<Network>>>,
    /// Names of all networks that this process has created or is about to create; the reaper leaves them alone.
    known: Mutex<HashSet<String>>,
    target: usize,
    wanted: Notify,
    stopping: AtomicBool,
}

impl Networks {
    /// Creates the registry and reads which subnets are already taken.
    pub async fn new(
        engine: Engine,
        governor: Arc<Governor>,
        of_pool: Labels,
        allocator: Allocator,
        target: usize,
    ) -> Result<Arc<Networks>, Unusable> {
        let networks = Arc::new(Networks {
            engine,
            governor,
            of_pool,
            allocator: Mutex::new(allocator),
            ready: Mutex::default(),
            known: Mutex::default(),
            target,
            wanted: Notify::new(),
            stopping: AtomicBool::new(false),
        });
        networks
            .look()
            .await
            .map_err(|error| Unusable::Networks(said(&error)))?;
        Ok(networks)
    }

    /// Takes a ready network, if there is one. Another one is created in its place.
    pub fn take_ready(&self) -> Option<Arc<Network>> {
        let taken = lock(&self.ready).pop();
        self.wanted.notify_one();
        taken
    }

    /// Returns whether this process created the network.
    pub fn knows(&self, name: &str) -> bool {
        lock(&self.known).contains(name)
    }

    /// Returns how many networks can exist at the same time.
    pub fn capacity(&self) -> u32 {
        lock(&self.allocator).total()
    }

    /// Returns how many networks could be created now, as far as is known.
    pub fn free(&self) -> u32 {
        lock(&self.allocator).free()
    }

    /// Creates a network. Its name is recorded before the engine is asked, so that closing removes it.
    pub async fn make(
        self: &Arc<Self>,
        name: &str,
        labels: Labels,
        wanted: &Wanted,
        stop: &AtomicBool,
    ) -> Result<Arc<Network>, RuntimeError> {
        if let Some(fixed) = &wanted.fixed {
            self.until_free(fixed.net, stop).await?;
        }
        let turn = self.governor.turn(Work::Network).await;
        let made = self.make_now(name, labels, wanted, turn.waited()).await;
        if let (Err(_), Some(fixed)) = (&made, &wanted.fixed) {
            lock(&self.allocator).give_back(fixed.net);
        }
        made
    }

    /// Takes a subnet that the user fixed, as soon as no other cell of this process has it.
    async fn until_free(&self, net: Net4, stop: &AtomicBool) -> Result<(), RuntimeError> {
        let what = "making the cell's network";
        let failed = |why: String| RuntimeError::new(Fault::Machine, format!("{what}: {why}"));
        let mut looked = false;
        loop {
            let claimed = lock(&self.allocator).claim(net);
            match claimed {
                Claim::Taken => return Ok(()),
                Claim::Ours if stop.load(Ordering::Acquire) => {
                    return Err(failed(format!("the cell ended while {net} was in use")));
                }
                Claim::Ours => tokio::time::sleep(FIXED_AGAIN).await,
                Claim::Foreign if looked => {
                    return Err(failed(format!(
                        "the subnet {net}, which the Compose file fixes, is in use on this machine (`docker network ls`, `ip route`): choose another one, or leave the fixed addresses out"
                    )));
                }
                Claim::Foreign => {
                    looked = true;
                    self.look().await.map_err(|error| runtime(what, &error))?;
                }
            }
        }
    }

    async fn make_now(
        self: &Arc<Self>,
        name: &str,
        labels: Labels,
        wanted: &Wanted,
        queued: Duration,
    ) -> Result<Arc<Network>, RuntimeError> {
        lock(&self.known).insert(name.to_owned());
        let made = self.try_subnets(name, &labels, wanted, queued).await;
        if made.is_err() {
            lock(&self.known).remove(name);
        }
        made
    }

    async fn try_subnets(
        self: &Arc<Self>,
        name: &str,
        labels: &Labels,
        wanted: &Wanted,
        queued: Duration,
    ) -> Result<Arc<Network>, RuntimeError> {
        let what = "making the cell's network";
        let mut looked = false;
        loop {
            let taken = match &wanted.fixed {
                Some(fixed) => Some(lock(&self.allocator).subnets_of(fixed.net)),
                None => lock(&self.allocator).take(),
            };
            let Some(subnets) = taken else {
                if looked {
                    let reason = format!(
                        "{what}: all {} subnets of the agent's pool are in use; add ranges to `subnets` in its Docker settings, or free networks (`phalanx gc`, `docker network ls`)",
                        self.capacity()
                    );
                    return Err(RuntimeError::new(Fault::Machine, reason));
                }
                looked = true;
                self.look().await.map_err(|error| runtime(what, &error))?;
                continue;
            };
            match self.create(name, labels, &subnets, wanted).await {
                Ok(()) => {
                    return Ok(Arc::new(Network {
                        name: name.to_owned(),
                        subnet: subnets.v4,
                        owner: Arc::downgrade(self),
                        queued,
                    }));
                }
                Err(error) if Said::SubnetTaken.is_in(&error) && wanted.fixed.is_none() => {
                    // Another program on this machine has it: try the next one.
                    lock(&self.allocator).refuse(subnets.v4);
                }
                Err(error) => {
                    lock(&self.allocator).give_back(subnets.v4);
                    return Err(runtime(what, &error));
                }
            }
        }
    }

    async fn create(
        &self,
        name: &str,
        labels: &Labels,
        subnets: &Subnets,
        wanted: &Wanted,
    ) -> Result<(), bollard::errors::Error> {
        let docker = &self.engine.docker;
        let mut again = false;
        self.engine
            .ask(|| {
                let request = request(name, labels, subnets, wanted);
                let second = std::mem::replace(&mut again, true);
                async move {
                    // The engine allows two networks with the same name: after a broken connection, check before asking
                    // again.
                    if second && docker.inspect_network(name, None).await.is_ok() {
                        return Ok(());
                    }
                    docker.create_network(request).await.map(drop)
                }
            })
            .await
    }

    /// Removes a network. Succeeds if it is already gone.
    pub async fn remove(&self, network: &Network) -> Result<(), bollard::errors::Error> {
        let docker = &self.engine.docker;
        match self
            .engine
            .ask(|| docker.remove_network(&network.name))
            .await
        {
            Err(error) if status(&error) == Some(404) => Ok(()),
            removed => removed,
        }
    }

    /// Gives the subnet back, once. If the network still exists, the reaper removes it later, and the engine refuses
    /// the subnet until then.
    pub fn forget(&self, network: &Network) {
        if lock(&self.known).remove(&network.name) {
            lock(&self.allocator).give_back(network.subnet);
        }
    }

    /// Reads which subnets others use: the engine's networks and the host's routes.
    async fn look(&self) -> Result<(), bollard::errors::Error> {
        let docker = &self.engine.docker;
        let list = self.engine.ask(|| docker.list_networks(None)).await?;
        let mut taken: Vec<Net4> = list
            .into_iter()
            .filter_map(|network| network.ipam?.config)
            .flatten()
            .filter_map(|config| Net4::parse(&config.subnet?))
            .collect();
        taken.extend(subnet::host_routes());
        lock(&self.allocator).set_foreign(taken);
        Ok(())
    }

    /// Keeps networks ready until stopped. Work that cells wait for goes first.
    pub async fn keep_ready(self: Arc<Self>) {
        while !self.stopping.load(Ordering::Acquire) {
            let missing = self.target.saturating_sub(lock(&self.ready).len());
            if missing == 0 {
                self.wanted.notified().await;
                continue;
            }
            // When stopped, don't wait for the turn.
            let turn = tokio::select! {
                turn = self.governor.turn(Work::Spare) => turn,
                () = self.wanted.notified() => continue,
            };
            let name = format!(
                "phalanx-ready-{}",
                uuid::Uuid::new_v4().simple().to_string().split_at(12).0
            );
            let labels = self.of_pool.clone();
            // No attempt waited for it.
            let queued = Duration::ZERO;
            let made = self
                .make_now(&name, labels, &Wanted::default(), queued)
                .await;
            drop(turn);
            match made {
                Ok(network) => lock(&self.ready).push(network),
                Err(error) => {
                    tracing::debug!(%error, "no network kept ready");
                    self.wanted.notified().await;
                }
            }
        }
    }

    /// Lets `keep_ready` end once the network it is creating exists.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wanted.notify_one();
    }

    /// Removes the ready networks.
    pub async fn drain(&self) {
        let ready = std::mem::take(&mut *lock(&self.ready));
        for network in ready {
            if let Err(error) = self.remove(&network).await {
                let error = said(&error);
                tracing::warn!(network = %network.name, error, "ready network left behind");
            }
        }
    }
}

fn request(
    name: &str,
    labels: &Labels,
    subnets: &Subnets,
    wanted: &Wanted,
) -> NetworkCreateRequest {
    let fixed = wanted.fixed.as_ref();
    let gateway = fixed.and_then(|fixed| fixed.gateway.clone());
    let mut config = vec![IpamConfig {
        subnet: Some(subnets.v4.to_string()),
        gateway: Some(gateway.unwrap_or_else(|| subnets.v4.gateway().to_string())),
        ip_range: fixed.and_then(|fixed| fixed.range.clone()),
        ..IpamConfig::default()
    }];
    if wanted.ipv6 {
        config.push(IpamConfig {
            subnet: Some(
                wanted
                    .fixed_v6
                    .clone()
                    .unwrap_or_else(|| subnets.v6.clone()),
            ),
            ..IpamConfig::default()
        });
    }
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        internal: wanted.internal.then_some(true),
        options: (!wanted.options.is_empty()).then(|| wanted.options.clone()),
        enable_ipv6: Some(wanted.ipv6),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(config),
            options: None,
        }),
        labels: Some(labels.clone()),
        ..NetworkCreateRequest::default()
    }
}
