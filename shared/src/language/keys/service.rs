//! Keys of a service: Compose's keys, and `process`, `env`, `ready`, `start`, `artifacts`.

use super::artifact::ARTIFACTS;
use super::compose::{DEPLOY, NOTED, ONLY_COMPOSE, PLACED, RESET, UNSUPPORTED};
use super::engine::ENGINE;
use super::part::{
    BUILD, DEPENDENCY, ENV_FILE, EXTENDS_MAP, HEALTHCHECK, HOOKS, PORT, READY, ULIMIT, VOLUME,
};
use super::*;
use crate::language::shape::name::NameRule;
use crate::language::shape::{Key, Rule, Table, key, unused};

/// A service of a spec.
pub static SERVICE: Table = Table {
    name: "a service",
    doc: "A container or a host process of a cell's stack. Compose's keys with Compose's meaning, and `process`, `ready`, `start`, `artifacts`.",
    keys: &[OWN, COMPOSE, ENGINE, IGNORED, NOTED, UNSUPPORTED, RESET],
    rest: None,
    rules: RULES,
    hints: HINTS,
};

/// A service of a Compose file.
pub static COMPOSE_SERVICE: Table = Table {
    name: "a service of a Compose file",
    doc: "As in Compose.",
    keys: &[EXTENDS, COMPOSE, ENGINE, ONLY_COMPOSE, IGNORED, NOTED],
    rest: None,
    rules: &[],
    hints: HINTS,
};

/// Definition of a service: its keys without `ready`, `start`, `artifacts` and `extends`.
pub static DEFINITION: Table = Table {
    name: "a service",
    doc: "As in Compose, or a process.",
    keys: &[PROCESS, COMPOSE, ENGINE, PLACED, IGNORED, NOTED],
    rest: None,
    rules: RULES,
    hints: HINTS,
};

const RULES: &[Rule] = &[
    Rule::AtMostOne(&["process", "image"]),
    Rule::AtMostOne(&["process", "build"]),
    Rule::AtMostOne(&["env", "environment"]),
    Rule::Needs {
        key: "env",
        any: &["process"],
    },
];

const HINTS: &[(&str, &str)] = &[
    ("memory", "it is called `mem_limit`"),
    ("workdir", "it is called `working_dir`"),
    ("args", "it belongs under `build`, or is called `command`"),
    ("wait", "it is called `ready`"),
];

const PROCESS: &[Key] = &[PROCESS_KEY, ENV_KEY];
const EXTENDS: &[Key] = &[EXTENDS_KEY];

const OWN: &[Key] = &[
    PROCESS_KEY,
    ENV_KEY,
    EXTENDS_KEY,
    key(
        "ready",
        Kind::Table(|| &READY),
        "when it counts as ready; by default: healthy if it has a healthcheck, else started",
    ),
    key(
        "start",
        Kind::Leaf(Leaf::Enum(&["auto", "manual"])),
        "`manual`: a step starts it",
    ),
    key(
        "artifacts",
        ARTIFACTS,
        "files in it that are kept with the run when the cell's last step is over",
    ),
];

const COMPOSE: &[Key] = &[
    key(
        "image",
        TEMPLATE,
        "the image; with `build` the name given to what is built",
    ),
    key(
        "build",
        Kind::Varies(&Kind::ByType {
            scalar: Some(&TEXT),
            list: None,
            map: Some(&Kind::Table(|| &BUILD)),
        }),
        "how the image is built: a directory of the workspace, or a map",
    ),
    key(
        "command",
        TEXT_OR_LIST,
        "the command, a list of words or a text that is split as a shell does",
    ),
    key("entrypoint", TEXT_OR_LIST, "the entrypoint"),
    key(
        "environment",
        MAP_OR_LIST,
        "variables, as a map or a list of `NAME=value`",
    ),
    key(
        "env_file",
        Kind::Varies(&Kind::ByType {
            scalar: Some(&TEXT),
            list: Some(&Kind::List(&ENV_FILE)),
            map: None,
        }),
        "files of variables in the workspace",
    ),
    key(
        "volumes",
        Kind::Varies(&Kind::List(&Kind::ByType {
            scalar: Some(&TEXT),
            list: None,
            map: Some(&Kind::Table(|| &VOLUME)),
        })),
        "mounts: `./path:/target[:ro]` of the workspace, `name:/target` of the cell, `/target`, or a map",
    ),
    key("tmpfs", TEXT_OR_LIST, "in-memory file systems"),
    key(
        "ports",
        Kind::Varies(&Kind::List(&Kind::ByType {
            scalar: Some(&TEXT),
            list: None,
            map: Some(&Kind::Table(|| &PORT)),
        })),
        "ports that steps reach: container ports, or names for a process; the first one is `.url`'s",
    ),
    key(
        "expose",
        TEXT_LIST,
        "ports for other containers (they reach all anyway)",
    ),
    key(
        "healthcheck",
        Kind::Varies(&Kind::Table(|| &HEALTHCHECK)),
        "how the engine judges health",
    ),
    key(
        "depends_on",
        Kind::ByType {
            scalar: None,
            list: Some(&Kind::List(&Kind::Leaf(Leaf::Name(NameRule::Service)))),
            map: Some(&Kind::Named(
                NameRule::Service,
                &Kind::Table(|| &DEPENDENCY),
            )),
        },
        "conditions of other services that must hold before it starts",
    ),
    key("user", TEMPLATE, "user, or `user:group`"),
    key("working_dir", TEMPLATE, "the working directory"),
    key("extra_hosts", MAP_OR_LIST, "additional host names"),
    key("dns", TEXT_OR_LIST, "DNS servers"),
    key("hostname", TEMPLATE, "the host name"),
    key(
        "aliases",
        TEXT_LIST,
        "additional names in the cell's network",
    ),
    key(
        "networks",
        Kind::Any,
        "networks of the cell that it joins, as a list of names or a map; services without a common network don't reach each other",
    ),
    key(
        "network_mode",
        TEMPLATE,
        "`none`, `service:NAME` (the network of another service) or `host` (if the agent allows it), instead of `networks`",
    ),
    key("init", BOOL, "whether an init process reaps zombies"),
    key("privileged", BOOL, "extended privileges"),
    key("cap_add", TEXT_LIST, "capabilities added"),
    key("cap_drop", TEXT_LIST, "capabilities dropped"),
    key("devices", TEXT_LIST, "devices: `host[:container[:rwm]]`"),
    key("security_opt", TEXT_LIST, "security options"),
    key(
        "ulimits",
        Kind::Varies(&Kind::Map(&Kind::ByType {
            scalar: Some(&Kind::Leaf(Leaf::Int(-1))),
            list: None,
            map: Some(&Kind::Table(|| &ULIMIT)),
        })),
        "limits by name",
    ),
    key("shm_size", BYTES, "size of /dev/shm"),
    key("mem_limit", BYTES, "limit of memory"),
    key("cpus", CPUS, "limit of CPUs"),
    key(
        "pids_limit",
        Kind::Varies(&Kind::Leaf(Leaf::Int(-1))),
        "limit of processes",
    ),
    key("read_only", BOOL, "a read-only root file system"),
    key("stop_signal", TEMPLATE, "the signal that asks it to stop"),
    key(
        "stop_grace_period",
        DURATION,
        "time between that signal and SIGKILL (10s)",
    ),
    key(
        "post_start",
        HOOKS,
        "commands that run in it after the stack or a step has started it; one that fails, fails the start",
    ),
    key(
        "pre_stop",
        HOOKS,
        "commands that run in it before a step or the clean-up stops it",
    ),
    key("labels", MAP_OR_LIST, "labels"),
    key(
        "deploy",
        Kind::Table(|| &DEPLOY),
        "its `resources.limits` are `mem_limit`, `cpus` and `pids_limit`",
    ),
    key(
        "restart",
        TEMPLATE,
        "`always`, `unless-stopped`, `on-failure[:N]`: it is started again when it exits, and only `ready`'s timeout makes that a failure; `\"no\"`: it may end by itself with exit code 0; without it an unexpected exit fails the step in progress",
    ),
    key(
        "scale",
        Kind::Varies(&Kind::Leaf(Leaf::Int(0))),
        "number of its containers, its replicas (up to 20; 0: none until a step starts one): `services.X.replicas[0]`, and `X-1`, `X-2` as names in steps",
    ),
    key("platform", TEMPLATE, "`os/arch`"),
    key(
        "pull_policy",
        Kind::Varies(&Kind::Leaf(Leaf::Enum(&[
            "missing",
            "if_not_present",
            "always",
            "never",
            "build",
        ]))),
        "when the image is pulled",
    ),
];

const IGNORED: &[Key] = &[
    unused(
        "container_name",
        TEMPLATE,
        "accepted and not used: names are made per cell",
    ),
    unused(
        "logging",
        Kind::Any,
        "accepted and not used: logs are collected",
    ),
];

const PROCESS_KEY: Key = key(
    "process",
    WORDS,
    "makes it a process on the agent's host instead of a container: its command words; `${{ port.NAME }}` is a free port for a name in `ports`",
);
const ENV_KEY: Key = key("env", TEXTS, "`environment` of a process");
const EXTENDS_KEY: Key = key(
    "extends",
    Kind::ByType {
        scalar: Some(&Kind::Leaf(Leaf::Name(NameRule::Service))),
        list: None,
        map: Some(&Kind::Table(|| &EXTENDS_MAP)),
    },
    "another service whose keys it takes over, merged as in Compose; `ready`, `start` and `artifacts` are not inherited",
);
