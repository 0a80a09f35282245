//! The rules of a policy: what each is about, and what it allows if nothing is said.

use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr};

/// A rule of a policy. Each covers one way out of the cell's own containers and workspace.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Rule {
    /// Commands on the agent's host.
    Run,
    /// Variables of the agent that commands on its host inherit.
    Environment,
    /// The container engine's socket. It comes before the paths, so that a refusal names it first.
    EngineSocket,
    /// Paths of the host beside the workspace.
    Paths,
    /// Mounts below a directory that another container may write to.
    NestedMounts,
    /// Containers with extended privileges.
    Privileged,
    /// Capabilities beyond those that engines give every container.
    Capabilities,
    /// Devices of the host.
    Devices,
    /// Security options of containers.
    SecurityOpt,
    /// Namespaces of the host.
    Namespaces,
    /// Parents of containers' cgroups.
    CgroupParent,
    /// Runtimes of the engine other than its default.
    Runtimes,
    /// Options of network drivers.
    NetworkOptions,
    /// Settings by which a container escapes the limits of others.
    EngineOptions,
    /// Registries of images.
    Registries,
    /// Hosts from which the engine fetches for builds.
    BuildUrls,
    /// Addresses of requests that the agent itself sends.
    Http,
}

impl Rule {
    /// Returns its key in a policy file.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns whether it can only be allowed or refused as a whole.
    pub fn is_switch(self) -> bool {
        matches!(
            self,
            Rule::Run | Rule::EngineSocket | Rule::NestedMounts | Rule::Privileged
        )
    }

    /// Returns the items that a closed policy allows.
    pub fn when_closed(self) -> &'static [&'static str] {
        match self {
            Rule::Registries => &["docker.io"],
            Rule::Environment => &[
                "HOME", "LANG", "LANGUAGE", "LC_*", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR",
                "TZ", "USER",
            ],
            _ => &[],
        }
    }

    /// Returns a description for tables.
    pub fn doc(self) -> &'static str {
        match self {
            Rule::Run => "`run` steps and `process` services: commands on the agent's host",
            Rule::Environment => {
                "variables of the agent that these commands inherit; `*` at the end stands for any rest"
            }
            Rule::Paths => {
                "absolute paths of the host, with everything below: mounts, env files, build contexts, secrets, certificates, working directories"
            }
            Rule::EngineSocket => {
                "mounts of the container engine's socket, which is the whole host"
            }
            Rule::NestedMounts => {
                "mounts below a directory that another container of the cell may write to: the engine opens them by name, so a link that is put there in time leads it to the host"
            }
            Rule::Privileged => "`privileged: true`",
            Rule::Capabilities => "`cap_add` beyond the engine's usual capabilities",
            Rule::Devices => "`devices`, `device_cgroup_rules`, and `gpus` as `gpu`",
            Rule::SecurityOpt => "`security_opt` other than `no-new-privileges`",
            Rule::Namespaces => {
                "the host's namespaces: `network` (`network_mode: host`), `pid`, `ipc`, `uts`, `userns`, `cgroup`, `mount` (`propagation: shared`)"
            }
            Rule::CgroupParent => "`cgroup_parent`",
            Rule::Runtimes => "`runtime`",
            Rule::NetworkOptions => "`driver_opts` of networks",
            Rule::EngineOptions => {
                "settings that take from other containers: `oom_score_adj`, `oom_kill_disable`, `cpu_rt_period`, `cpu_rt_runtime`, `storage_opt`, `annotations`"
            }
            Rule::Registries => "registries of images, also of the base images of builds",
            Rule::BuildUrls => {
                "hosts from which the engine fetches for builds: contexts, and URLs of `ADD`"
            }
            Rule::Http => {
                "`http` and `sse` to `loopback` (the agent's machine), `link_local` (cloud metadata), `coordinator`, or an address or range"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strum::IntoEnumIterator;

    #[test]
    fn names_are_those_of_serde() {
        for rule in Rule::iter() {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.name());
            assert_eq!(rule.name().parse::<Rule>().unwrap(), rule);
        }
    }
}
