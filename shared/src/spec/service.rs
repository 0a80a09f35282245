//! A service's definition after evaluation: Compose's keys with Compose's meaning, typed.
//!
//! The same decoder checks the unevaluated definition (`validate`) and makes this from the evaluated one.

mod decode;
mod image;
mod lint;
mod mount;
mod port;
mod reader;
mod splice;
mod words;

pub use decode::{check_service, decode_service};
pub use lint::{expansions, lint};
pub use splice::{dependencies, required_dependencies};

use crate::diagnostic::Span;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// What a runtime needs to make a service. Absent options are Docker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceConfig {
    /// The service's name.
    pub name: String,
    /// Where its definition stands.
    pub span: Span,
    /// A host process: its command words. Then only `environment`, `env_file`, `working_dir`, `ports`, `depends_on`, `stop_*` and `healthcheck` apply.
    pub process: Option<Vec<String>>,
    /// Image reference; with `build` the tag given to what is built.
    pub image: Option<String>,
    /// How the image is built.
    pub build: Option<Build>,
    /// Overrides the image's command.
    pub command: Option<Vec<String>>,
    /// Overrides the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Variables, already merged over those of `env_file`; `None` as value takes nothing (unset).
    pub environment: IndexMap<String, Option<String>>,
    /// Files of variables, relative to the workspace, read when the service is created.
    pub env_file: Vec<EnvFile>,
    /// Mounts.
    pub volumes: Vec<Mount>,
    /// Files of their own: secrets and configs of a Compose file.
    pub files: Vec<PlacedFile>,
    /// Paths of in-memory file systems, `PATH[:options]`.
    pub tmpfs: Vec<String>,
    /// Ports that steps may reach.
    pub ports: Vec<Port>,
    /// Ports that other containers may reach (documentation to Docker).
    pub expose: Vec<String>,
    /// How the engine judges health; overrides the image's.
    pub healthcheck: Option<Healthcheck>,
    /// What must have happened before it starts.
    pub depends_on: IndexMap<String, Dependency>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// `HOST:ADDRESS` lines.
    pub extra_hosts: Vec<String>,
    /// DNS servers.
    pub dns: Vec<String>,
    /// The host name; the service's name without one.
    pub hostname: Option<String>,
    /// Further names in the cell's network.
    pub aliases: Vec<String>,
    /// Whether an init process reaps zombies.
    pub init: Option<bool>,
    /// Extended privileges.
    pub privileged: bool,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    pub cap_drop: Vec<String>,
    /// `HOST[:CONTAINER[:rwm]]`.
    pub devices: Vec<String>,
    /// Security options.
    pub security_opt: Vec<String>,
    /// Limits by name.
    pub ulimits: IndexMap<String, Ulimit>,
    /// Bytes of /dev/shm.
    pub shm_size: Option<u64>,
    /// Limit in bytes.
    pub mem_limit: Option<u64>,
    /// Limit in billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// Limit of processes.
    pub pids_limit: Option<i64>,
    /// Read-only root file system.
    pub read_only: bool,
    /// Signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// Between that signal and SIGKILL, in milliseconds (10 s).
    pub stop_grace_ms: Option<u64>,
    /// Labels of the user's own.
    pub labels: IndexMap<String, String>,
    /// `os/arch`.
    pub platform: Option<String>,
    /// When to pull.
    pub pull_policy: PullPolicy,
    /// Whether it may end by itself.
    pub restart: Restart,
}

/// What `restart` says. Nothing is restarted; it tells whether an end is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Nothing.
    #[default]
    Unsaid,
    /// `no`: a job, if it ends with exit code 0.
    No,
    /// `on-failure`: likewise.
    OnFailure,
    /// `always`, `unless-stopped`: it stays.
    Always,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PullPolicy {
    /// When the engine hasn't got it.
    #[default]
    Missing,
    Always,
    Never,
    /// Build it rather than pull.
    Build,
}

/// How an image is built.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// A directory in the workspace, or a URL (git or tarball) that the engine fetches; `.` without one.
    pub context: String,
    /// Path in the context (`Dockerfile`).
    pub dockerfile: Option<String>,
    /// The Dockerfile itself.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: IndexMap<String, Option<String>>,
    /// Stage.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: IndexMap<String, String>,
    /// Network mode of the build's RUN steps.
    pub network: Option<String>,
    /// Whether the cache is not used.
    pub no_cache: bool,
    /// Whether bases are always pulled.
    pub pull: bool,
}

/// A file of variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    /// Path in the workspace.
    pub path: String,
    /// Whether its absence is an error.
    pub required: bool,
    /// `format: raw`: values are taken as they stand.
    #[serde(default)]
    pub raw: bool,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute path in the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Bytes, of a tmpfs.
    pub tmpfs_size: Option<u64>,
    /// Permission bits of a tmpfs.
    #[serde(default)]
    pub tmpfs_mode: Option<u32>,
    /// A new volume stays empty instead of taking over what the image has there.
    #[serde(default)]
    pub no_copy: bool,
}

/// A file in a container that is no part of its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// How it is called in the Compose file.
    pub name: String,
    /// Absolute path in the container.
    pub target: String,
    /// Where its text comes from.
    pub source: FileSource,
    /// Its text is a secret.
    pub secret: bool,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
    /// Its permission bits.
    pub mode: Option<u32>,
}

/// Where a file's text comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileSource {
    /// A file: relative to the workspace, or absolute on the agent's host.
    Path(String),
    /// The text itself.
    Text(String),
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or directory: relative to the workspace, or absolute on the agent's host.
    Bind(String),
    /// A volume of the cell, by name.
    Named(String),
    /// A volume without a name.
    Anonymous,
    /// Memory.
    Tmpfs,
}

/// A port that steps may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// In the container; `None` of a process (a free host port is chosen).
    pub target: Option<u16>,
    /// The name, of a process's port (`port.NAME`) or as Compose's `name`.
    pub name: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `http` unless set; the first port's decides the scheme of `.url`.
    pub app_protocol: Option<String>,
    /// A host port that the user fixed; remapped to a free one on 127.0.0.1.
    pub published: Option<String>,
}

/// How health is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", text]` or `["NONE"]`; empty takes the image's.
    pub test: Vec<String>,
    /// Milliseconds.
    pub interval_ms: Option<u64>,
    /// Milliseconds.
    pub timeout_ms: Option<u64>,
    /// Milliseconds.
    pub start_period_ms: Option<u64>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// What must have happened to another service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// What.
    pub condition: Condition,
    /// Whether its absence is an error.
    pub required: bool,
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

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Soft.
    pub soft: i64,
    /// Hard.
    pub hard: i64,
}
