//! Keys that only a Compose file has, keys that make no difference to a test, and keys that can't be ignored.

use super::*;
use crate::language::shape::{Key, Table, key, needed, unused};

/// Keys of `deploy`. Limits are used; settings for clusters are not.
pub(super) static DEPLOY: Table = Table {
    name: "`deploy`",
    doc: "Limits of resources and restarts; what is for clusters is not used.",
    keys: &[&[
        key("resources", Kind::Table(|| &RESOURCES), "limits"),
        key(
            "replicas",
            Kind::Varies(&Kind::Leaf(Leaf::Int(0))),
            "number of its containers, as `scale`",
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
            "which exits are followed by another start; it goes before `restart`",
        ),
        unused("labels", MAP_OR_LIST, "accepted and not used"),
        unused("update_config", Kind::Any, "accepted and not used"),
        unused("rollback_config", Kind::Any, "accepted and not used"),
        unused("placement", Kind::Any, "accepted and not used"),
        unused("endpoint_mode", TEMPLATE, "accepted and not used"),
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
            "`devices`; a cell reserves the rest by `cell.resources`",
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
    doc: "Devices that a driver of the engine provides.",
    keys: &[&[
        unused(
            "memory",
            BYTES,
            "accepted and not used: a cell reserves by `cell.resources`",
        ),
        unused(
            "cpus",
            CPUS,
            "accepted and not used: a cell reserves by `cell.resources`",
        ),
        key(
            "devices",
            Kind::Varies(&Kind::List(&Kind::Table(|| &super::engine::DEVICE))),
            "devices that a driver of the engine provides, as in `gpus`",
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
    doc: "When a service that exited is started again.",
    keys: &[&[
        key(
            "condition",
            Kind::Varies(&Kind::Leaf(Leaf::Enum(&["none", "on-failure", "any"]))),
            "`none`, `on-failure` or `any` (the default): as `restart: no`, `on-failure`, `always`",
        ),
        key(
            "delay",
            DURATION,
            "pause before each start (growing, from 100ms)",
        ),
        key(
            "max_attempts",
            TEMPLATE,
            "how often it is started again (no limit)",
        ),
        unused("window", DURATION, "accepted and not used"),
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
    noted("attach"),
    noted("develop"),
    noted("cpu_percent"),
    noted("isolation"),
    noted("pull_refresh_after"),
];

const fn noted(name: &'static str) -> Key {
    unused(name, Kind::Any, "accepted and not used")
}

/// Keys that can't be ignored without changing the meaning.
pub(super) const UNSUPPORTED: &[Key] = &[
    unsupported(
        "external_links",
        "containers of other projects aren't reached",
    ),
    unsupported("credential_spec", "there are no Windows containers"),
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

/// A volume at the top of a Compose file.
pub(crate) static TOP_VOLUME: Table = Table {
    name: "a volume of a Compose file",
    doc: "A volume of the cell.",
    keys: &[&[
        unused(
            "name",
            TEMPLATE,
            "accepted and not used: volumes are named per cell",
        ),
        key("driver", TEMPLATE, "`local`"),
        key("driver_opts", Kind::Any, "none, or those of a tmpfs"),
        key("external", Kind::Any, "`false`"),
        unused("labels", MAP_OR_LIST, "accepted and not used"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

/// A secret or config at the top of a Compose file.
pub(crate) static TOP_FILE: Table = Table {
    name: "a secret or config of a Compose file",
    doc: "A text that services get as a file.",
    keys: &[&[
        key("file", TEMPLATE, "its path in the workspace"),
        key("content", TEMPLATE, "the text of a config"),
        key("environment", TEMPLATE, "a variable of `stack`"),
        key("external", Kind::Any, "`false`"),
        unused(
            "name",
            TEMPLATE,
            "accepted and not used: it is the name in a cluster",
        ),
        unused("labels", MAP_OR_LIST, "accepted and not used"),
        key(
            "driver",
            Kind::Unsupported("there is no store of a cluster here"),
            "not supported",
        ),
        key(
            "driver_opts",
            Kind::Unsupported("there is no store of a cluster here"),
            "not supported",
        ),
        key(
            "template_driver",
            Kind::Unsupported("the text is mounted as it stands"),
            "not supported",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};
