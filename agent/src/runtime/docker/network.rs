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
use super::subnet::{self, core::Allocator, core::Net4, core::Subnets};
use crate::runtime::contract::{Fault, RuntimeError};
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::Notify;

/// A network that this process created. While it is held, the reaper leaves it alone and its subnet is taken.
pub(super) struct Network {
    /// Name in the engine; unique.
    pub name: String,
    /// IPv4 subnet of the network.
    pub subnet: Net4,
    owner: Weak<Networks>,
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.forget(self);
        }
    }
}

impl Network {
    /// Returns the engine's own address in the network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }
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

    /// Creates a network. Its name is recorded before the engine is asked, so that closing removes it.
    pub async fn make(
        self: &Arc<Self>,
        name: &str,
        labels: Labels,
        ipv6: bool,
    ) -> Result<Arc<Network>, RuntimeError> {
        let _turn = self.governor.turn(Work::Network).await;
        self.make_now(name, labels, ipv6).await
    }

    async fn make_now(
        self: &Arc<Self>,
        name: &str,
        labels: Labels,
        ipv6: bool,
    ) -> Result<Arc<Network>, RuntimeError> {
        lock(&self.known).insert(name.to_owned());
        let made = self.try_subnets(name, &labels, ipv6).await;
        if made.is_err() {
            lock(&self.known).remove(name);
        }
        made
    }

    async fn try_subnets(
        self: &Arc<Self>,
        name: &str,
        labels: &Labels,
        ipv6: bool,
    ) -> Result<Arc<Network>, RuntimeError> {
        let what = "making the cell's network";
        let mut looked = false;
        loop {
            let taken = lock(&self.allocator).take();
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
            match self.create(name, labels, &subnets, ipv6).await {
                Ok(()) => {
                    return Ok(Arc::new(Network {
                        name: name.to_owned(),
                        subnet: subnets.v4,
                        owner: Arc::downgrade(self),
                    }));
                }
                Err(error) if Said::SubnetTaken.is_in(&error) => {
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
        ipv6: bool,
    ) -> Result<(), bollard::errors::Error> {
        let docker = &self.engine.docker;
        let mut again = false;
        self.engine
            .ask(|| {
                let request = request(name, labels, subnets, ipv6);
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
            let made = self.make_now(&name, labels, false).await;
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

fn request(name: &str, labels: &Labels, subnets: &Subnets, ipv6: bool) -> NetworkCreateRequest {
    let mut config = vec![IpamConfig {
        subnet: Some(subnets.v4.to_string()),
        gateway: Some(subnets.v4.gateway().to_string()),
        ..IpamConfig::default()
    }];
    if ipv6 {
        config.push(IpamConfig {
            subnet: Some(subnets.v6.clone()),
            ..IpamConfig::default()
        });
    }
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        enable_ipv6: Some(ipv6),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(config),
            options: None,
        }),
        labels: Some(labels.clone()),
        ..NetworkCreateRequest::default()
    }
}
