//! A service's definition after evaluation: Compose's keys with Compose's meaning, typed.
//!
//! One decoder both checks the definition before evaluation (`validate`) and returns the configuration after it.

mod decode;
mod engine;
pub mod image;
mod lint;
mod mount;
mod network;
mod paths;
mod port;
mod reader;
mod replica;
mod splice;
mod words;

pub use decode::{check_service, decode_service};
pub use engine::{Blkio, DeviceRequest, EngineOptions};
pub use lint::{expansions, lint};
pub use paths::{Need, Needed, WrittenMount, mounts_as_written, needed};
pub use replica::{
    MAX_REPLICAS, has_several, may_have_replica, replica_name, replicas, replicas_of,
};
pub use splice::{dependencies, networks_map, required_dependencies, services_of_build};

use crate::diagnostic::Span;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Everything that a runtime needs to create a service. Options that are absent have Docker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceConfig {
    /// Name of the service, or of one of its replicas.
    pub name: String,
    /// The service of which it is a replica, if that has several.
    pub replica_of: Option<String>,
    /// Number of containers, if the definition says it.
    pub replicas: Option<u32>,
    /// Place of its definition.
    pub span: Span,
    /// Command of a host process, as words. With it, only `environment`, `env_file`, `working_dir`, `ports`,
    /// `depends_on`, `stop_*` and `healthcheck` apply.
    pub process: Option<Vec<String>>,
    /// Image reference; with `build`, the tag to give to the image that is built.
    pub image: Option<String>,
    /// Settings for building the image.
    pub build: Option<Build>,
    /// Command that overrides the image's.
    pub command: Option<Vec<String>>,
    /// Entrypoint that overrides the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables, which take precedence over those of `env_file`. A variable whose value is `None` is
    /// unset.
    pub environment: IndexMap<String, Option<String>>,
    /// Files of variables, relative to the workspace, read when the service is created.
    pub env_file: Vec<EnvFile>,
    /// Mounts of the container.
    pub volumes: Vec<Mount>,
    /// Files to place in the container: secrets and configs of a Compose file.
    pub files: Vec<PlacedFile>,
    /// Paths of in-memory file systems, as `PATH[:options]`.
    pub tmpfs: Vec<String>,
    /// Ports that steps may reach.
    pub ports: Vec<Port>,
    /// Ports that other containers may reach (only documentation for Docker).
    pub expose: Vec<String>,
    /// Health check that overrides the image's.
    pub healthcheck: Option<Healthcheck>,
    /// Conditions on other services that must hold before it starts, by service name.
    pub depends_on: IndexMap<String, Dependency>,
    /// User, as `USER[:GROUP]`.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Lines of the hosts file, as `HOST:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Addresses of DNS servers.
    pub dns: Vec<String>,
    /// Host name (default: the service's name).
    pub hostname: Option<String>,
    /// Additional names in all its networks.
    pub aliases: Vec<String>,
    /// Networks that it joins, by name; empty for the cell's default network.
    pub networks: IndexMap<String, NetworkUse>,
    /// Whether it has networks of its own.
    pub network_mode: NetworkMode,
    /// Settings that are passed to the engine as they are.
    pub engine: EngineOptions,
    /// Whether an init process reaps zombies.
    pub init: Option<bool>,
    /// Whether the container has extended privileges.
    pub privileged: bool,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Devices, as `HOST[:CONTAINER[:rwm]]`.
    pub devices: Vec<String>,
    /// Security options, as Docker takes them.
    pub security_opt: Vec<String>,
    /// Resource limits (ulimits) by name.
    pub ulimits: IndexMap<String, Ulimit>,
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Memory limit in bytes.
    pub mem_limit: Option<u64>,
    /// CPU limit in billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// Maximum number of processes.
    pub pids_limit: Option<i64>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Signal that asks the service to stop.
    pub stop_signal: Option<String>,
    /// Milliseconds between that signal and SIGKILL (default: 10,000).
    pub stop_grace_ms: Option<u64>,
    /// Commands to run in it after a start.
    pub post_start: Vec<Hook>,
    /// Commands to run in it before it is stopped.
    pub pre_stop: Vec<Hook>,
    /// Labels that the user sets.
    pub labels: IndexMap<String, String>,
    /// Platform, as `os/arch`.
    pub platform: Option<String>,
    /// When to pull the image.
    pub pull_policy: PullPolicy,
    /// Restart policy.
    pub restart: Restart,
    /// Maximum number of restarts (`on-failure:N`, `deploy.restart_policy.max_attempts`).
    pub restart_attempts: Option<u32>,
    /// Milliseconds before each restart (`deploy.restart_policy.delay`); pauses grow if it is absent.
    pub restart_delay_ms: Option<u64>,
}

impl ServiceConfig {
    /// Returns the name of the service, also for one of its replicas.
    pub fn service(&self) -> &str {
        self.replica_of.as_deref().unwrap_or(&self.name)
    }
}

/// Where a container's network interfaces come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// It joins networks of the cell.
    #[default]
    Networks,
    /// It has only a loopback interface.
    None,
    /// Those of the engine's host.
    Host,
    /// Those of another service.
    Service(String),
}

/// How a service joins a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkUse {
    /// Additional names in this network.
    pub aliases: Vec<String>,
    /// Fixed IPv4 address.
    pub ipv4_address: Option<String>,
    /// Fixed IPv6 address.
    pub ipv6_address: Option<String>,
    /// Fixed MAC address.
    pub mac_address: Option<String>,
    /// Link-local addresses.
    pub link_local_ips: Vec<String>,
    /// Networks with a higher priority are joined first.
    pub priority: i64,
    /// The default gateway is that of the network with the highest one.
    pub gw_priority: Option<i64>,
    /// Options for the network's driver.
    pub driver_opts: IndexMap<String, String>,
    /// How the network is made.
    pub network: NetworkDefinition,
}

/// How a network of a cell is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkDefinition {
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether it has IPv6 as well.
    pub ipv6: bool,
    /// Options for its driver.
    pub driver_opts: IndexMap<String, String>,
    /// Labels that the user sets.
    pub labels: IndexMap<String, String>,
    /// Subnets that it must have; empty: any.
    pub subnets: Vec<Subnet>,
}

/// A subnet that a network must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnet {
    /// Range, as `address/prefix`.
    pub subnet: String,
    /// Address of the gateway.
    pub gateway: Option<String>,
    /// Part of the range from which addresses are taken.
    pub ip_range: Option<String>,
}

/// Which exits are followed by a restart, and which are expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// No policy is set.
    #[default]
    Unsaid,
    /// `no`: an exit with code 0 is expected.
    No,
    /// `on-failure`: an exit with code 0 is expected, any other is followed by a restart.
    OnFailure,
    /// `always` or `unless-stopped`: each exit is followed by a restart.
    Always,
}

/// When to pull an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PullPolicy {
    /// Pull if the engine doesn't have the image.
    #[default]
    Missing,
    Always,
    Never,
    /// Build the image instead of pulling it.
    Build,
}

/// Settings for building an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// Directory in the workspace, or URL (git or tarball) that the engine fetches (default: `.`).
    pub context: String,
    /// Path of the Dockerfile in the context (default: `Dockerfile`).
    pub dockerfile: Option<String>,
    /// Text of the Dockerfile.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: IndexMap<String, Option<String>>,
    /// Stage to build.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: IndexMap<String, String>,
    /// Network mode of the build's RUN steps.
    pub network: Option<String>,
    /// Whether to build without the cache.
    pub no_cache: bool,
    /// Whether to always pull base images.
    pub pull: bool,
    /// Secrets for `RUN --mount=type=secret`.
    pub secrets: Vec<BuildSecret>,
    /// SSH agents for `RUN --mount=type=ssh`.
    pub ssh: Vec<SshAgent>,
    /// Additional hosts of RUN steps, as `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Size of `/dev/shm` of RUN steps, in bytes.
    pub shm_size: Option<u64>,
    /// Images whose layers may be used as a cache.
    pub cache_from: Vec<String>,
    /// Further contexts, which the Dockerfile names like stages.
    pub contexts: Vec<NamedContext>,
}

impl Build {
    /// Returns whether the context is a URL, which the engine fetches itself.
    pub fn is_remote(&self) -> bool {
        let context = self.context.as_str();
        context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
    }

    /// Returns the first setting that only BuildKit has.
    pub fn needs_buildkit(&self) -> Option<&'static str> {
        match (self.secrets.is_empty(), self.ssh.is_empty()) {
            (false, _) => Some("secrets"),
            (_, false) => Some("ssh"),
            _ => None,
        }
    }
}

/// A further context of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedContext {
    /// Name in the Dockerfile (`FROM NAME`, `COPY --from=NAME`).
    pub name: String,
    /// What it holds.
    pub source: ContextSource,
}

impl NamedContext {
    /// Returns whether it is the image of another service.
    pub fn is_service(&self) -> bool {
        matches!(self.source, ContextSource::Service { .. })
    }
}

/// What a further context of a build holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextSource {
    /// A directory of the workspace, or an absolute path on the agent's host.
    Directory(String),
    /// The files of an image.
    Image(String),
    /// The files of the image of another service.
    Service {
        /// Name of the service.
        name: String,
        /// Its configuration, once it is known.
        of: Option<Box<ServiceConfig>>,
    },
}

/// A secret of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSecret {
    /// Name in the Dockerfile (`RUN --mount=type=secret,id=…`).
    pub id: String,
    /// Source of its text.
    pub source: FileSource,
}

/// An SSH agent that a build may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshAgent {
    /// Name in the Dockerfile (`RUN --mount=type=ssh,id=…`; without one `default`).
    pub id: String,
    /// Absolute path of its socket on the agent's host.
    pub socket: String,
}

/// A command that is run in a container after a start or before a stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Program and arguments.
    pub command: Vec<String>,
    /// User to run as (default: that of the container).
    pub user: Option<String>,
    /// Whether it has extended privileges.
    pub privileged: bool,
    /// Working directory (default: that of the container).
    pub working_dir: Option<String>,
    /// Variables in addition to those of the container.
    pub environment: IndexMap<String, String>,
}

/// A file of variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    /// Path in the workspace.
    pub path: String,
    /// Whether a missing file is an error.
    pub required: bool,
    /// Whether values are taken unchanged (`format: raw`).
    #[serde(default)]
    pub raw: bool,
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Source of the mount.
    pub kind: MountKind,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// Size of a tmpfs in bytes.
    pub tmpfs_size: Option<u64>,
    /// Permission bits of a tmpfs.
    #[serde(default)]
    pub tmpfs_mode: Option<u32>,
    /// Whether a new volume stays empty instead of receiving the image's files at that path.
    #[serde(default)]
    pub no_copy: bool,
    /// Path in a volume that is mounted instead of the whole.
    #[serde(default)]
    pub subpath: Option<String>,
    /// Whether later mounts below a path of the host are seen on the other side.
    #[serde(default)]
    pub propagation: Option<Propagation>,
}

/// Which later mounts below a bind mount are seen on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs)]
pub enum Propagation {
    Private,
    Rprivate,
    /// Those of the host are seen in the container.
    Slave,
    Rslave,
    /// Those of both are seen on the other side.
    Shared,
    Rshared,
}

impl Propagation {
    /// Returns whether the host sees mounts of the container.
    pub fn reaches_host(self) -> bool {
        matches!(self, Propagation::Shared | Propagation::Rshared)
    }
}

/// A file in a container that is not part of its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Name in the Compose file.
    pub name: String,
    /// Absolute path in the container.
    pub target: String,
    /// Source of the file's text.
    pub source: FileSource,
    /// Whether the text is a secret.
    pub secret: bool,
    /// User id of the owner.
    pub uid: Option<u32>,
    /// Group id of the owner.
    pub gid: Option<u32>,
    /// Permission bits of the file.
    pub mode: Option<u32>,
}

/// Source of a file's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileSource {
    /// File at a path relative to the workspace, or absolute on the agent's host.
    Path(String),
    /// The text itself.
    Text(String),
}

/// Source of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// File or directory at a path relative to the workspace, or absolute on the agent's host.
    Bind(String),
    /// Volume of the cell, by name.
    Named(String),
    /// Volume without a name.
    Anonymous,
    /// In-memory file system.
    Tmpfs,
}

/// A port that steps may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Port in the container; `None` for a process, which gets a free host port.
    pub target: Option<u16>,
    /// Name of a process's port (`port.NAME`), or Compose's `name`.
    pub name: Option<String>,
    /// Protocol: `tcp` or `udp`.
    pub protocol: String,
    /// Application protocol (default: `http`). That of the first port is the scheme of `.url`.
    pub app_protocol: Option<String>,
    /// Host port that the user fixed. It is replaced by a free one on 127.0.0.1.
    pub published: Option<String>,
}

/// Health check of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// Test: `["CMD", …]`, `["CMD-SHELL", text]` or `["NONE"]`; empty for the image's test.
    pub test: Vec<String>,
    /// Time between tests, in milliseconds.
    pub interval_ms: Option<u64>,
    /// Time limit of one test, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Time after the start during which failures don't count, in milliseconds.
    pub start_period_ms: Option<u64>,
    /// Time between tests during the start period, in milliseconds.
    pub start_interval_ms: Option<u64>,
    /// Number of consecutive failures that make the service unhealthy.
    pub retries: Option<u32>,
}

/// Condition on another service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// State that the other service must reach.
    pub condition: Condition,
    /// Whether it is an error if the other service doesn't exist.
    pub required: bool,
    /// Whether a step that restarts the other service restarts this one, too.
    #[serde(default)]
    pub restart: bool,
}

/// Compose's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Condition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

/// Limits of one resource (ulimit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}
