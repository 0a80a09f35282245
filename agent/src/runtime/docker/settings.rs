//! Settings of the Docker runtime, filled from the `docker.*` settings of the client. Every field has a default.

use super::labels;
use crate::identity::Home;
use phalanx_shared::id::AgentId;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the Docker runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerSettings {
    /// Agent that owns the objects; set by the agent, not by the configuration.
    #[serde(skip, default = "nobody")]
    pub agent: AgentId,
    /// Location of that agent's lock; set by the agent.
    #[serde(skip)]
    pub home: Option<Home>,
    /// Engine address (`unix:///…`, `tcp://…`) [default: `DOCKER_HOST`, then Docker's context, then the usual sockets].
    pub host: Option<String>,
    /// Docker's configuration directory, for registry credentials [default: `DOCKER_CONFIG`, then `~/.docker`].
    pub docker_config: Option<PathBuf>,
    /// How steps reach containers.
    pub reach: Reach,
    /// IPv4 ranges for the networks of cells, in order of preference; subnets that others use are skipped.
    pub subnets: Vec<String>,
    /// Prefix length of a cell's IPv4 network; 28 has room for 13 containers, 27 for 29.
    pub subnet_prefix: u8,
    /// IPv6 range (ULA, /48); each dual-stack network gets a /64 of it.
    pub subnets_v6: String,
    /// Number of networks kept ready.
    pub ready_networks: usize,
    /// Maximum number of networks and containers created, started or removed concurrently on this engine; 0 chooses by
    /// the number of CPUs.
    pub concurrent_starts: usize,
    /// How long to wait for a lost engine, in seconds.
    pub reconnect_s: u64,
    /// Time limit for pulling one image, including retries, in seconds.
    pub pull_timeout_s: u64,
    /// Maximum number of tries of a pull that fails because of the network or the registry.
    pub pull_tries: u32,
    /// Which of the engine's builders builds images.
    pub builder: Builder,
    /// Time limit for building one image, in seconds.
    pub build_timeout_s: u64,
    /// Maximum number of images pulled and built ahead of the cells at the same time; 0 for none.
    pub prefetch: u32,
    /// Time limit for the clean-up after one attempt, in seconds.
    pub close_timeout_s: u64,
    /// Size in MiB at which the engine's log file of a container is truncated (the agent's own copy isn't).
    pub engine_log_mib: u64,
}

/// How steps reach containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// `direct` if the engine's networks are on this machine, else `join` if the agent runs in a container of the same
    /// engine, else `published`.
    #[default]
    Auto,
    /// At the container's address.
    Direct,
    /// Through ports published on the engine's host.
    Published,
    /// At the container's address; the agent's own container joins each cell's network.
    Join,
}

/// Which of the engine's builders builds images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Builder {
    /// BuildKit if the engine has it, else its classic builder.
    #[default]
    Auto,
    /// BuildKit.
    Buildkit,
    /// The classic builder.
    Classic,
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
            builder: Builder::Auto,
            build_timeout_s: 1800,
            prefetch: 2,
            close_timeout_s: 60,
            engine_log_mib: 1024,
        }
    }
}

impl DockerSettings {
    /// Returns the settings of an agent, everything else by default.
    pub fn of(agent: AgentId) -> Self {
        DockerSettings {
            agent,
            ..DockerSettings::default()
        }
    }

    /// Returns how many operations may run on the engine concurrently: more than a few per core only slow it down.
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
    /// Returns the label with the location of the agent's lock. All objects carry it, in addition to the agent's label.
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
