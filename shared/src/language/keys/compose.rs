//! Keys that only a Compose file has, keys that make no difference to a test, and keys that can't be ignored.

use super::*;
use crate::language::shape::{Key, Table, key, needed};

/// Keys of `deploy`. Limits are used; settings for clusters are not.
pub(super) static DEPLOY: Table = Table {
    name: "`deploy`",
    doc: "Limits of resources; what is for clusters is not used.",
    keys: &[&[
        key("resources", Kind::Table(|| &RESOURCES), "limits"),
        key(
            "replicas",
            Kind::Varies(&Kind::Leaf(Leaf::Int(0))),
            "1: a service is one container here",
        ),
        key(
            "mode",
            Kind::Varies(&Kind::Leaf(Leaf::Enum(&[
                "replicated",
                "global",
                "replicated-job",
                "global-job",
            ]))),
            "a job may end by itself with exit code 0",
        ),
        key(
            "restart_policy",
            Kind::Table(|| &RESTART_POLICY),
            "whether it may end by itself, as `restart`",
        ),
        key("labels", MAP_OR_LIST, "accepted and not used"),
        key("update_config", Kind::Any, "accepted and not used"),
        key("rollback_config", Kind::Any, "accepted and not used"),
        key("placement", Kind::Any, "accepted and not used"),
        key("endpoint_mode", TEMPLATE, "accepted and not used"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static RESOURCES: Table = Table {
    name: "`resources`",
    doc: "Limits of a service.",
    keys: &[&[
        key(
            "limits",
            Kind::Table(|| &LIMITS),
            "`mem_limit`, `cpus` and `pids_limit`, which go before it",
        ),
        key(
            "reservations",
            Kind::Table(|| &RESERVATIONS),
            "accepted and not used: a cell reserves by `cell.resources`",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static LIMITS: Table = Table {
    name: "`limits`",
    doc: "Limits of a service.",
    keys: &[&[
        key("memory", BYTES, "limit of memory"),
        key("cpus", CPUS, "limit of CPUs"),
        key(
            "pids",
            Kind::Varies(&Kind::Leaf(Leaf::Int(-1))),
            "limit of processes",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static RESERVATIONS: Table = Table {
    name: "`reservations`",
    doc: "Not used.",
    keys: &[&[
        key("memory", BYTES, "accepted and not used"),
        key("cpus", CPUS, "accepted and not used"),
        key(
            "devices",
            Kind::Unsupported("devices of the host are given by `devices`"),
            "not supported",
        ),
        key(
            "generic_resources",
            Kind::Unsupported("there is no cluster that would offer them"),
            "not supported",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static RESTART_POLICY: Table = Table {
    name: "`restart_policy`",
    doc: "As `restart`.",
    keys: &[&[
        key(
            "condition",
            Kind::Varies(&Kind::Leaf(Leaf::Enum(&["none", "on-failure", "any"]))),
            "`none`, `on-failure`: it may end by itself",
        ),
        key("delay", DURATION, "accepted and not used"),
        key("max_attempts", TEMPLATE, "accepted and not used"),
        key("window", DURATION, "accepted and not used"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

/// Keys that a service of a Compose file has beyond a spec's.
pub(super) const ONLY_COMPOSE: &[Key] = &[
    key(
        "profiles",
        TEXT_OR_LIST,
        "a service with profiles isn't started by itself",
    ),
    key(
        "scale",
        Kind::Varies(&Kind::Leaf(Leaf::Int(0))),
        "1: a service is one container here",
    ),
    key(
        "links",
        TEXT_LIST,
        "dependencies, and further names for them",
    ),
    key(
        "secrets",
        REFERENCES,
        "files of the file's `secrets`, mounted below /run/secrets",
    ),
    key("configs", REFERENCES, "files of the file's `configs`"),
];

const REFERENCES: Kind = Kind::List(&Kind::ByType {
    scalar: Some(&TEXT),
    list: None,
    map: Some(&Kind::Table(|| &REFERENCE)),
});

static REFERENCE: Table = Table {
    name: "a secret or config",
    doc: "Which one, and where it is mounted.",
    keys: &[&[
        needed("source", TEXT, "its name"),
        key("target", TEXT, "its path in the container"),
        key("uid", TEXT, "its owner"),
        key("gid", TEXT, "its group"),
        key("mode", TEXT, "its permission bits, in octal"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

/// `secrets` and `configs` within a definition, with the settings that the Compose file gives for them.
pub(super) const PLACED: &[Key] = &[
    key("secrets", PLACED_FILES, "files whose text is masked"),
    key("configs", PLACED_FILES, "files"),
];

const PLACED_FILES: Kind = Kind::Varies(&Kind::List(&Kind::Table(|| &PLACED_FILE)));

static PLACED_FILE: Table = Table {
    name: "a secret or config",
    doc: "A file of a container.",
    keys: &[&[
        needed("source", TEXT, "its name"),
        needed("target", TEMPLATE, "its path in the container"),
        key("file", TEMPLATE, "its path in the workspace"),
        key("content", TEMPLATE, "its text"),
        key("uid", TEMPLATE, "its owner"),
        key("gid", TEMPLATE, "its group"),
        key("mode", TEMPLATE, "its permission bits"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

/// Keys that make no difference to a test.
pub(super) const NOTED: &[Key] = &[
    noted("tty"),
    noted("stdin_open"),
    noted("attach"),
    noted("develop"),
    noted("annotations"),
    noted("label_file"),
    noted("mem_reservation"),
    noted("memswap_limit"),
    noted("mem_swappiness"),
    noted("oom_kill_disable"),
    noted("oom_score_adj"),
    noted("cpu_count"),
    noted("cpu_percent"),
    noted("cpu_period"),
    noted("cpu_quota"),
    noted("cpu_rt_period"),
    noted("cpu_rt_runtime"),
    noted("cpu_shares"),
    noted("cpuset"),
    noted("blkio_config"),
    noted("cgroup_parent"),
    noted("storage_opt"),
    noted("isolation"),
    noted("pull_refresh_after"),
];

const fn noted(name: &'static str) -> Key {
    key(name, Kind::Any, "accepted and not used")
}

/// Keys that can't be ignored without changing the meaning.
pub(super) const UNSUPPORTED: &[Key] = &[
    unsupported("network_mode", "each cell has a network of its own"),
    unsupported("pid", "a service has processes of its own"),
    unsupported("ipc", "a service has shared memory of its own"),
    unsupported("uts", "a service has a host name of its own"),
    unsupported("userns_mode", "the engine's user namespace is used"),
    unsupported("cgroup", "a service has a cgroup of its own"),
    unsupported("volumes_from", "name the volumes under `volumes`"),
    unsupported(
        "external_links",
        "containers of other projects aren't reached",
    ),
    unsupported("sysctls", "kernel settings aren't passed on"),
    unsupported("runtime", "the engine's default runtime is used"),
    unsupported("gpus", "devices of the host are given by `devices`"),
    unsupported(
        "device_cgroup_rules",
        "devices of the host are given by `devices`",
    ),
    unsupported("group_add", "write the group under `user`"),
    unsupported("mac_address", "the engine gives addresses"),
    unsupported("dns_opt", "the resolver's options aren't passed on"),
    unsupported("dns_search", "write whole names"),
    unsupported("domainname", "write the whole name under `hostname`"),
    unsupported("credential_spec", "there are no Windows containers"),
    unsupported("post_start", "run it in a step, by `exec`"),
    unsupported("pre_stop", "run it in a step, by `exec`"),
    unsupported(
        "use_api_socket",
        "mount the engine's socket if that is meant",
    ),
    unsupported("provider", "a service is a container"),
    unsupported("models", "a service is a container"),
];

const fn unsupported(name: &'static str, why: &'static str) -> Key {
    key(name, Kind::Unsupported(why), "not supported")
}

/// Keys that a spec's service may remove from a Compose file's service by null, and why it can't have them itself.
pub(super) const RESET: &[Key] = &[
    unsupported(
        "profiles",
        "a service that a step starts has `start: manual`",
    ),
    unsupported(
        "scale",
        "write a service for each container, with `extends`",
    ),
    unsupported("links", "services reach each other by name"),
    unsupported(
        "secrets",
        "declare `secrets` at the top and use `${{ secrets.NAME }}` in `environment`",
    ),
    unsupported("configs", "mount a file of the workspace with `volumes`"),
];

/// Returns the reason why a key is not supported, or `None` if it is.
pub(crate) fn why_unsupported(name: &str) -> Option<&'static str> {
    let found = UNSUPPORTED.iter().find(|key| key.name == name)?;
    match found.kind {
        Kind::Unsupported(why) => Some(why),
        _ => None,
    }
}
