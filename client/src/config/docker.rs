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

/// Which of the engine's builders builds images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    /// BuildKit if the engine has it, else the classic builder.
    Auto,
    /// BuildKit.
    Buildkit,
    /// The classic builder.
    Classic,
}

impl Choice for Builder {
    const WORDS: &'static [(&'static str, Builder)] = &[
        ("auto", Builder::Auto),
        ("buildkit", Builder::Buildkit),
        ("classic", Builder::Classic),
    ];
}

impl SettingType for Builder {
    fn parse(value: &Value) -> Result<Builder, String> {
        Builder::read(value)
    }

    fn show(&self) -> String {
        self.word().to_owned()
    }
}

/// Address of the engine.
pub const HOST: Setting<String> = Setting {
    key: "docker.host",
    unit: "",
    doc: "address of the engine (unix:///…, tcp://…); empty for DOCKER_HOST, then Docker's context, then the usual sockets",
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
    doc: "IPv4 ranges for the networks of cells, in order of preference; a range that clashes with another network is skipped",
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
    doc: "prefix length of a cell's IPv4 network: 27 for up to 29 containers, 28 for up to 13",
    default: |_| 27,
};

/// IPv6 range for dual-stack networks.
pub const SUBNETS_V6: Setting<String> = Setting {
    key: "docker.subnets_v6",
    unit: "",
    doc: "IPv6 range; each dual-stack network gets a /64 of it",
    default: |_| "fd8c:50a1:a0c7::/48".to_owned(),
};

/// Number of networks created in advance.
pub const READY_NETWORKS: Setting<u32> = Setting {
    key: "docker.ready_networks",
    unit: "networks",
    doc: "number of networks to create in advance",
    default: |_| 2,
};

/// Maximum number of objects that the engine creates, starts and removes at once.
pub const CONCURRENT_STARTS: Setting<u32> = Setting {
    key: "docker.concurrent_starts",
    unit: "calls",
    doc: "maximum concurrent requests to an engine that create, start or remove; 0 for three per CPU",
    default: |_| 0,
};

/// How long to wait for an engine that went away.
pub const RECONNECT_S: Setting<u64> = Setting {
    key: "docker.reconnect_s",
    unit: "seconds",
    doc: "time to wait for an engine that doesn't answer",
    default: |_| 30,
};

/// Timeout of a pull, including retries.
pub const PULL_TIMEOUT_S: Setting<u64> = Setting {
    key: "docker.pull_timeout_s",
    unit: "seconds",
    doc: "timeout of pulling one image, including retries",
    default: |_| 900,
};

/// Maximum number of tries of a pull.
pub const PULL_TRIES: Setting<u32> = Setting {
    key: "docker.pull_tries",
    unit: "tries",
    doc: "maximum attempts to pull an image when the network or the registry fails",
    default: |_| 5,
};

/// Which of the engine's builders builds images.
pub const BUILDER: Setting<Builder> = Setting {
    key: "docker.builder",
    unit: "",
    doc: "which of the engine's builders builds images: auto (BuildKit if the engine has it), buildkit or classic",
    default: |_| Builder::Auto,
};

/// Timeout of a build.
pub const BUILD_TIMEOUT_S: Setting<u64> = Setting {
    key: "docker.build_timeout_s",
    unit: "seconds",
    doc: "timeout of building one image",
    default: |_| 1800,
};

/// Maximum number of images prepared ahead at the same time.
pub const PREFETCH: Setting<u32> = Setting {
    key: "docker.prefetch",
    unit: "images",
    doc: "maximum images pulled and built at the same time for cells that have no slot yet; 0 for none",
    default: |_| 2,
};

/// Timeout of the clean-up after one attempt.
pub const CLOSE_TIMEOUT_S: Setting<u64> = Setting {
    key: "docker.close_timeout_s",
    unit: "seconds",
    doc: "timeout of the clean-up after one attempt",
    default: |_| 60,
};

/// Limit of the engine's own log file per container.
pub const ENGINE_LOG_MIB: Setting<u64> = Setting {
    key: "docker.engine_log_mib",
    unit: "MiB",
    doc: "maximum size of the engine's log file of one container; Phalanx's own copy has no such limit",
    default: |_| 1024,
};
