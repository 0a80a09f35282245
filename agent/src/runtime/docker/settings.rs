//! How the Docker runtime is set up. Read by the configuration package; every field has a default.

use super::labels;
use crate::identity::Home;
use phalanx_shared::id::AgentId;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The Docker runtime's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerSettings {
    /// Whose objects these are; set by the agent, not by the configuration.
    #[serde(skip, default = "nobody")]
    pub agent: AgentId,
    /// Where that agent's lock is; set by the agent.
    #[serde(skip)]
    pub home: Option<Home>,
    /// The engine (`unix:///…`, `tcp://…`); without it `DOCKER_HOST`, then Docker's context, then the usual sockets.
    pub host: Option<String>,
    /// Docker's configuration directory, for registry credentials; without it `DOCKER_CONFIG`, then `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// How steps reach containers.
    pub reach: Reach,
    /// IPv4 ranges that cells' networks are cut from; the first without a clash is used first.
    pub subnets: Vec<String>,
    /// Prefix length of a cell's IPv4 network; 28 has room for 13 containers, 27 for 29.
    pub subnet_prefix: u8,
    /// IPv6 range (ULA) that dual-stack networks get a /64 of.
    pub subnets_v6: String,
    /// Networks kept ready.
    pub ready_networks: usize,
    /// Networks and containers that are made, started and removed at once on this engine; 0 chooses by the number of CPUs.
    pub concurrent_starts: usize,
    /// How long a lost engine is waited for, in seconds.
    pub reconnect_s: u64,
    /// Limit of one image's pull, retries included, in seconds.
    pub pull_timeout_s: u64,
    /// Tries of a pull that fails for want of network or registry.
    pub pull_tries: u32,
    /// Limit of one image's build, in seconds.
    pub build_timeout_s: u64,
    /// Limit of clean-up after one attempt, in seconds.
    pub close_timeout_s: u64,
    /// The engine's log file of one container is cut at so many MiB (our own copy isn't).
    pub engine_log_mib: u64,
}

/// How steps reach containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// `direct` where the engine's networks are this machine's, else `join` for an agent in a container of the same engine, else `published`.
    #[default]
    Auto,
    /// By container address.
    Direct,
    /// By ports published on the engine's host.
    Published,
    /// By container address, the agent's own container joining each cell's network.
    Join,
}

fn nobody() -> AgentId {
    AgentId(String::new())
}

impl Default for DockerSettings {
    fn default() -> Self {
        DockerSettings {
            agent: nobody(),
            home: None,
            host: None,
            docker_config: None,
            reach: Reach::Auto,
            subnets: vec![
                "10.213.0.0/16".into(),
                "10.87.0.0/16".into(),
                "172.29.0.0/16".into(),
            ],
            subnet_prefix: 27,
            subnets_v6: "fd8c:50a1:a0c7::/48".into(),
            ready_networks: 2,
            concurrent_starts: 0,
            reconnect_s: 30,
            pull_timeout_s: 900,
            pull_tries: 5,
            build_timeout_s: 1800,
            close_timeout_s: 60,
            engine_log_mib: 1024,
        }
    }
}

impl DockerSettings {
    /// The settings of an agent, all else by default.
    pub fn of(agent: AgentId) -> Self {
        DockerSettings {
            agent,
            ..DockerSettings::default()
        }
    }

    /// How much is asked of the engine at once: beyond a few per core it only slows down.
    pub fn starts(&self) -> usize {
        match self.concurrent_starts {
            0 => 3 * std::thread::available_parallelism().map_or(2, usize::from),
            n => n,
        }
    }

    pub(super) fn docker_config(&self) -> Option<PathBuf> {
        self.docker_config
            .clone()
            .or_else(super::endpoint::config_dir)
    }
    /// What everything bears that is made under these settings, beside whose it is.
    pub(super) fn home_label(&self) -> Option<(String, String)> {
        let home = self.home.as_ref()?;
        Some((labels::HOME.to_owned(), home.to_label()))
    }
    pub(super) fn reconnect(&self) -> Duration {
        Duration::from_secs(self.reconnect_s)
    }
    pub(super) fn close_timeout(&self) -> Duration {
        Duration::from_secs(self.close_timeout_s)
    }
}
