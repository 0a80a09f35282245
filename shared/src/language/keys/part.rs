//! Keys of the parts of a service: `build`, `ports`, `volumes`, `healthcheck`, `ready` …

use super::action::PROBE_HTTP;
use super::*;
use crate::language::shape::name::NameRule;
use crate::language::shape::{Rule, Table, key, needed, unused};

pub(super) static EXTENDS_MAP: Table = Table {
    name: "`extends`",
    doc: "Another service.",
    keys: &[&[needed(
        "service",
        Kind::Leaf(Leaf::Name(NameRule::Service)),
        "its name",
    )]],
    rest: None,
    rules: &[],
    hints: &[(
        "file",
        "`include` the file, or name it under `stack: { compose: FILE }`",
    )],
};

pub(super) static BUILD: Table = Table {
    name: "`build`",
    doc: "How the image is built, by BuildKit if the engine has it.",
    keys: &[&[
        key(
            "context",
            TEMPLATE,
            "a directory of the workspace, or a URL (`.`)",
        ),
        key(
            "dockerfile",
            TEMPLATE,
            "its path in the context (`Dockerfile`)",
        ),
        key("dockerfile_inline", TEMPLATE, "the Dockerfile itself"),
        key("args", MAP_OR_LIST, "build arguments"),
        key("target", TEMPLATE, "the stage"),
        key("labels", MAP_OR_LIST, "labels of the image"),
        key("network", TEMPLATE, "network mode of the build"),
        key("no_cache", BOOL, "whether the cache is not used"),
        key("pull", BOOL, "whether bases are always pulled"),
        key(
            "cache_from",
            TEXT_LIST,
            "images whose layers may be used as a cache",
        ),
        unused("cache_to", Kind::Any, "accepted and not used"),
        unused("tags", Kind::Any, "accepted and not used"),
        unused("platforms", Kind::Any, "accepted and not used"),
        key("shm_size", BYTES, "size of `/dev/shm` in the build"),
        key(
            "extra_hosts",
            MAP_OR_LIST,
            "additional hosts that the build sees",
        ),
        key(
            "secrets",
            BUILD_SECRETS,
            "secrets for `RUN --mount=type=secret`; needs BuildKit",
        ),
        key(
            "ssh",
            MAP_OR_LIST,
            "sockets of SSH agents for `RUN --mount=type=ssh`, as `ID=/path`; needs BuildKit",
        ),
        unused("ulimits", Kind::Any, "accepted and not used"),
        unused("isolation", TEMPLATE, "accepted and not used"),
        unused("provenance", Kind::Any, "accepted and not used"),
        unused("sbom", Kind::Any, "accepted and not used"),
        key(
            "additional_contexts",
            MAP_OR_LIST,
            "further contexts by name, which the Dockerfile uses like stages: a directory of the workspace, `docker-image://NAME`, or `service:NAME` for the image of another service",
        ),
        key(
            "privileged",
            Kind::Unsupported("a build has no extended privileges here"),
            "not supported",
        ),
        key(
            "entitlements",
            Kind::Unsupported("a build has no extended privileges here"),
            "not supported",
        ),
    ]],
    rest: None,
    rules: &[Rule::AtMostOne(&["dockerfile", "dockerfile_inline"])],
    hints: &[],
};

const BUILD_SECRETS: Kind = Kind::Varies(&Kind::List(&Kind::ByType {
    scalar: Some(&TEMPLATE),
    list: None,
    map: Some(&Kind::Table(|| &BUILD_SECRET)),
}));

static BUILD_SECRET: Table = Table {
    name: "a secret of a build",
    doc: "Its name in the Dockerfile, and its text.",
    keys: &[&[
        needed("source", TEXT, "its name"),
        key(
            "target",
            TEXT,
            "its id in the Dockerfile, if it differs from `source`",
        ),
        key("file", TEMPLATE, "its path in the workspace"),
        key("content", TEMPLATE, "its text"),
        unused("uid", TEXT, "accepted and not used: the Dockerfile says it"),
        unused("gid", TEXT, "accepted and not used: the Dockerfile says it"),
        unused(
            "mode",
            TEXT,
            "accepted and not used: the Dockerfile says it",
        ),
    ]],
    rest: None,
    rules: &[Rule::AtMostOne(&["file", "content"])],
    hints: &[],
};

pub(super) const ENV_FILE: Kind = Kind::ByType {
    scalar: Some(&TEXT),
    list: None,
    map: Some(&Kind::Table(|| &ENV_FILE_MAP)),
};

pub(super) static ENV_FILE_MAP: Table = Table {
    name: "an item of `env_file`",
    doc: "A file of variables.",
    keys: &[&[
        needed("path", TEMPLATE, "its path in the workspace"),
        key("required", BOOL, "whether its absence is an error (true)"),
        key(
            "format",
            Kind::Varies(&Kind::Leaf(Leaf::Enum(&["raw"]))),
            "`raw`: values are taken as they stand, quotes and `$` included",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

pub(super) static VOLUME: Table = Table {
    name: "a volume",
    doc: "A mount.",
    keys: &[&[
        needed(
            "type",
            Kind::Leaf(Leaf::Enum(&["bind", "volume", "tmpfs"])),
            "what is mounted",
        ),
        key(
            "source",
            TEMPLATE,
            "a path of the workspace, or a volume's name",
        ),
        needed("target", TEMPLATE, "an absolute path in the container"),
        key("read_only", BOOL, "whether it is read-only"),
        key(
            "tmpfs",
            Kind::Table(|| &VOLUME_TMPFS),
            "settings of a tmpfs",
        ),
        key(
            "bind",
            Kind::Table(|| &VOLUME_BIND),
            "settings of a bind mount",
        ),
        key(
            "volume",
            Kind::Table(|| &VOLUME_VOLUME),
            "settings of a volume",
        ),
        unused("consistency", TEMPLATE, "accepted and not used"),
        key(
            "image",
            Kind::Unsupported("images aren't mounted: copy their files into a volume by a service"),
            "not supported",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static VOLUME_BIND: Table = Table {
    name: "`bind`",
    doc: "Settings of a bind mount.",
    keys: &[&[
        key(
            "propagation",
            Kind::Varies(&Kind::Leaf(Leaf::Enum(&[
                "private", "rprivate", "slave", "rslave", "shared", "rshared",
            ]))),
            "whether later mounts below it are seen on the other side (`rprivate`); `shared` and `rshared` for absolute paths only",
        ),
        unused(
            "create_host_path",
            BOOL,
            "accepted and not used: what is mounted has to be there",
        ),
        unused("selinux", TEMPLATE, "accepted and not used"),
        unused("recursive", TEMPLATE, "accepted and not used"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static VOLUME_VOLUME: Table = Table {
    name: "`volume`",
    doc: "Settings of a volume.",
    keys: &[&[
        key(
            "nocopy",
            BOOL,
            "a new volume stays empty instead of taking over what the image has there",
        ),
        unused("labels", MAP_OR_LIST, "accepted and not used"),
        key(
            "subpath",
            TEMPLATE,
            "a path in the volume that is mounted instead of the whole (engines from API 1.45)",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

pub(super) static VOLUME_TMPFS: Table = Table {
    name: "`tmpfs`",
    doc: "Settings of a tmpfs.",
    keys: &[&[
        key("size", BYTES, "its size"),
        key("mode", TEMPLATE, "its permission bits, in octal"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

pub(super) static PORT: Table = Table {
    name: "a port",
    doc: "A port that steps reach.",
    keys: &[&[
        key("target", TEMPLATE, "the container port"),
        key("name", TEMPLATE, "its name; the port of a process"),
        key(
            "app_protocol",
            TEMPLATE,
            "`http` (the default), `https`, …: the scheme of `.url`",
        ),
        key(
            "protocol",
            Kind::Varies(&Kind::Leaf(Leaf::Enum(&["tcp", "udp"]))),
            "`tcp` or `udp`",
        ),
        key(
            "published",
            TEMPLATE,
            "accepted; a free host port on 127.0.0.1 is chosen instead",
        ),
        unused("host_ip", TEMPLATE, "accepted and not used"),
        unused("mode", TEMPLATE, "accepted and not used"),
    ]],
    rest: None,
    rules: &[Rule::OneOf {
        keys: &["target"],
        or: &["name"],
    }],
    hints: &[],
};

pub(super) static HEALTHCHECK: Table = Table {
    name: "`healthcheck`",
    doc: "How the engine judges health.",
    keys: &[&[
        key(
            "test",
            TEXT_OR_LIST,
            "`[CMD, …]`, `[CMD-SHELL, text]`, `[NONE]`, or a text for the shell",
        ),
        key("interval", DURATION, "between probes"),
        key("timeout", DURATION, "of one probe"),
        key(
            "retries",
            Kind::Varies(&Kind::Leaf(Leaf::Int(0))),
            "failures in a row that make it unhealthy",
        ),
        key("start_period", DURATION, "failures in it don't count"),
        key(
            "start_interval",
            DURATION,
            "between probes in `start_period` (engines from API 1.44)",
        ),
        key("disable", BOOL, "turns the image's off"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

pub(super) static DEPENDENCY: Table = Table {
    name: "a dependency",
    doc: "What must have happened to another service.",
    keys: &[&[
        key(
            "condition",
            Kind::Leaf(Leaf::Enum(&[
                "service_started",
                "service_healthy",
                "service_completed_successfully",
            ])),
            "what (`service_started`)",
        ),
        key("required", FLAG, "whether the service has to exist (true)"),
        key(
            "restart",
            FLAG,
            "whether a step that restarts it restarts this service, too (false)",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

pub(super) const HOOKS: Kind = Kind::Varies(&Kind::List(&Kind::Table(|| &HOOK)));

static HOOK: Table = Table {
    name: "a hook",
    doc: "A command that is run in the container.",
    keys: &[&[
        needed(
            "command",
            TEXT_OR_LIST,
            "the command, a list of words or a text that is split as a shell does",
        ),
        key("user", TEMPLATE, "the user to run as"),
        key("privileged", BOOL, "extended privileges"),
        key("working_dir", TEMPLATE, "the working directory"),
        key("environment", MAP_OR_LIST, "further variables"),
    ]],
    rest: None,
    rules: &[],
    hints: &[("env", "it is called `environment`")],
};

pub(super) static ULIMIT: Table = Table {
    name: "a limit",
    doc: "A soft and a hard limit.",
    keys: &[&[
        needed("soft", Kind::Varies(&Kind::Leaf(Leaf::Int(-1))), "soft"),
        needed("hard", Kind::Varies(&Kind::Leaf(Leaf::Int(-1))), "hard"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

pub(super) static READY: Table = Table {
    name: "`ready`",
    doc: "When a service counts as ready; asked after each start, from milliseconds up.",
    keys: &[&[
        key(
            "http",
            Kind::Table(|| &PROBE_HTTP),
            "a request whose checks hold",
        ),
        key(
            "tcp",
            TEMPLATE,
            "a port that accepts connections: a container port, or a process port's name",
        ),
        key(
            "exec",
            Kind::Varies(&Kind::List(&TEXT)),
            "a command in the service that exits 0: a list of words",
        ),
        key(
            "log",
            TEMPLATE,
            "a line of its output that matches the regular expression",
        ),
        key("timeout", DURATION, "how long it may take (5m)"),
    ]],
    rest: None,
    rules: &[Rule::OneOf {
        keys: &["http", "tcp", "exec", "log"],
        or: &[],
    }],
    hints: &[(
        "healthcheck",
        "`healthcheck` stands beside `ready`: leave `ready` out",
    )],
};
