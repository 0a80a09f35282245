//! Settings of the Docker runtime for agents on this machine.

use super::Setting;
use super::setting::{Choice, SettingType};
use config::Value;

/// How steps reach containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The best way: directly if the engine's networks are on this machine, else by joining them, else through
    /// published ports.
    Auto,
    /// By container address.
    Direct,
    /// Through ports published on the engine's host.
    Published,
    /// By container address; the agent's own container joins each cell's network.
    Join,
}

impl Choice for Reach {
    const WORDS: &'static [(&'static str, Reach)] = &[
        ("auto", Reach::Auto),
        ("direct", Reach::Direct),
        ("published", Reach::Published),
        ("join", Reach::Join),
    ];
}

impl SettingType for Reach {
    fn parse(value: &Value) -> Result<Reach, String> {
        Reach::read(value)
    }

    fn show(&self) -> String {
        self.word().to_owned()
    }
}

/// Address of the engine.
pub const HOST: Setting<String> = Setting {
    key: "docker.host",
    unit: "",
    doc: "the engine (unix:///…, tcp://…); empty for DOCKER_HOST, then Docker's context, then the usual sockets",
    default: |_| String::new(),
};

/// Directory of registry credentials.
pub const CONFIG_DIR: Setting<String> = Setting {
    key: "docker.config_dir",
    unit: "",
    doc: "Docker's configuration directory, for registry credentials; empty for DOCKER_CONFIG, then ~/.docker",
    default: |_| String::new(),
};

/// How steps reach containers.
pub const REACH: Setting<Reach> = Setting {
    key: "docker.reach",
    unit: "",
    doc: "how steps reach containers: auto, direct, published or join",
    default: |_| Reach::Auto,
};

/// IPv4 ranges for the networks of cells.
pub const SUBNETS: Setting<Vec<String>> = Setting {
    key: "docker.subnets",
    unit: "",
    doc: "IPv4 ranges that cells' networks are cut from; the first without a clash is used first",
    default: |_| {
        ["10.213.0.0/16", "10.87.0.0/16", "172.29.0.0/16"]
            .map(str::to_owned)
            .to_vec()
    },
};

/// Prefix length of a cell's IPv4 network.
pub const SUBNET_PREFIX: Setting<u32> = Setting {
    key: "docker.subnet_prefix",
    unit: "bits",
    doc: "prefix length of a cell's IPv4 network; 27 has room for 29 containers, 28 for 13",
    default: |_| 27,
};

/// IPv6 range for dual-stack networks.
pub const SUBNETS_V6: Setting<String> = Setting {
    key: "docker.subnets_v6",
    unit: "",
    doc: "IPv6 range that dual-stack networks get a /64 of",
    default: |_| "fd8c:50a1:a0c7::/48".to_owned(),
};

/// Number of networks created in advance.
pub const READY_NETWORKS: Setting<u32> = Setting {
    key: "docker.ready_networks",
    unit: "networks",
    doc: "networks kept ready, each used once",
    default: |_| 2,
};

/// Maximum number of objects that the engine creates, starts and removes at once.
pub const CONCURRENT_STARTS: Setting<u32> = Setting {
    key: "docker.concurrent_starts",
    unit: "calls",
    doc: "networks and containers made, started and removed at once on an engine; 0 takes three for each CPU",
    default: |_| 0,
};

/// How long to wait for an engine that went away.
pub const RECONNECT_S: Setting<u64> = Setting {
    key: "docker.reconnect_s",
    unit: "seconds",
    doc: "how long a lost engine is waited for",
    default: |_| 30,
};

/// Timeout of a pull, including retries.
pub const PULL_TIMEOUT_S: Setting<u64> = Setting {
    key: "docker.pull_timeout_s",
    unit: "seconds",
    doc: "limit of one image's pull, retries included",
    default: |_| 900,
};

/// Maximum number of tries of a pull.
pub const PULL_TRIES: Setting<u32> = Setting {
    key: "docker.pull_tries",
    unit: "tries",
    doc: "tries of a pull that fails for want of network or registry",
    default: |_| 5,
};

/// Timeout of a build.
pub const BUILD_TIMEOUT_S: Setting<u64> = Setting {
    key: "docker.build_timeout_s",
    unit: "seconds",
    doc: "limit of one image's build",
    default: |_| 1800,
};

/// Timeout of the clean-up after one attempt.
pub const CLOSE_TIMEOUT_S: Setting<u64> = Setting {
    key: "docker.close_timeout_s",
    unit: "seconds",
    doc: "limit of clean-up after one attempt",
    default: |_| 60,
};

/// Limit of the engine's own log file per container.
pub const ENGINE_LOG_MIB: Setting<u64> = Setting {
    key: "docker.engine_log_mib",
    unit: "MiB",
    doc: "where the engine's log file of one container is cut; our own copy isn't",
    default: |_| 1024,
};
