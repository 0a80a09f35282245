//! Keys of the actions of a step.

use super::*;
use crate::language::model::ContainerVerb;
use crate::language::shape::{Key, Rule, Table, key, needed};
use strum::VariantNames;

const SERVICE_NAME: Kind = TEMPLATE;

const METHODS: &[Key] = &[
    key(
        "get",
        TEMPLATE,
        "GET: a path that is appended to the session's base, or a URL",
    ),
    key("post", TEMPLATE, "POST, as `get`"),
    key("put", TEMPLATE, "PUT, as `get`"),
    key("patch", TEMPLATE, "PATCH, as `get`"),
    key("delete", TEMPLATE, "DELETE, as `get`"),
    key("head", TEMPLATE, "HEAD, as `get`"),
];

const REQUEST: &[Key] = &[
    key("json", Kind::Any, "a JSON body"),
    key("form", QUERY, "a URL-encoded form as the body"),
    key("body", TEMPLATE, "a text as the body"),
    key(
        "query",
        QUERY,
        "a map added to the URL's query; a list repeats its name",
    ),
    key("headers", TEXTS, "headers"),
    key(
        "session",
        Kind::Leaf(Leaf::Str),
        "a session's name, or `none`",
    ),
    key(
        "follow-redirects",
        BOOL,
        "whether redirects are followed (false)",
    ),
    key(
        "tls",
        Kind::Table(|| &TLS),
        "TLS settings that override the session's",
    ),
];

/// TLS settings of a session or a request.
pub(super) static TLS: Table = Table {
    name: "`tls`",
    doc: "TLS settings.",
    keys: &[&[
        key("verify", BOOL, "whether certificates are verified (true)"),
        key(
            "ca",
            TEMPLATE,
            "a PEM bundle to trust, as a path in the workspace",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[("insecure", "write `verify: false`")],
};

const QUERY: Kind = Kind::Varies(&Kind::Map(&Kind::ByType {
    scalar: Some(&SCALAR_OR_NULL),
    list: Some(&Kind::List(&TEXT)),
    map: None,
}));

const HTTP_RULES: &[Rule] = &[
    Rule::OneOf {
        keys: &["get", "post", "put", "patch", "delete", "head"],
        or: &[],
    },
    Rule::AtMostOne(&["json", "form", "body"]),
];

const HTTP_HINTS: &[(&str, &str)] = &[
    ("url", "write the method with the URL: `get: URL`"),
    ("method", "write the method with the URL: `get: URL`"),
    ("expect", "it belongs beside `http`, not under it"),
    ("capture", "it belongs beside `http`, not under it"),
    ("timeout", "it belongs beside `http`, not under it"),
    ("data", "the body is `json`, `form` or `body`"),
    ("params", "it is called `query`"),
    ("verify", "write `tls: { verify: false }`"),
];

pub(super) static HTTP: Table = Table {
    name: "`http`",
    doc: "One HTTP request. Results: `status headers body json cookies elapsed`.",
    keys: &[METHODS, REQUEST],
    rest: None,
    rules: HTTP_RULES,
    hints: HTTP_HINTS,
};

/// Request of a readiness predicate, with its checks.
pub static PROBE_HTTP: Table = Table {
    name: "`ready.http`",
    doc: "A request and checks of its answer; the status is to be 2xx if no check mentions it.",
    keys: &[
        METHODS,
        REQUEST,
        &[key("expect", EXPECTATIONS, "checks of the answer")],
    ],
    rest: None,
    rules: HTTP_RULES,
    hints: &[("timeout", "it belongs beside `http`, under `ready`")],
};

pub(super) static SSE: Table = Table {
    name: "`sse`",
    doc: "One event stream. Results: `status headers event events elapsed`.",
    keys: &[
        METHODS,
        REQUEST,
        &[
            key(
                "until",
                EXPR,
                "condition that ends the collection; without it, the stream's end does",
            ),
            key("timeout", DURATION, "timeout of the whole stream (5m)"),
        ],
    ],
    rest: None,
    rules: HTTP_RULES,
    hints: HTTP_HINTS,
};

const COMMAND_RULES: &[Rule] = &[Rule::OneOf {
    keys: &["command", "script"],
    or: &[],
}];

pub(super) static EXEC: Table = Table {
    name: "`exec`",
    doc: "A command in a service. Results: `exit_code stdout stderr elapsed`.",
    keys: &[&[
        needed("service", SERVICE_NAME, "the service"),
        key("command", WORDS, "a list of words"),
        key("script", TEMPLATE, "a script, run by `sh -eu`"),
        key("stdin", TEMPLATE, "standard input of the command"),
        key("env", TEXTS, "additional environment variables"),
        key("user", TEMPLATE, "user that runs the command"),
        key("workdir", TEMPLATE, "working directory"),
    ]],
    rest: None,
    rules: COMMAND_RULES,
    hints: &[
        ("environment", "it is called `env` here"),
        ("working_dir", "it is called `workdir` here"),
    ],
};

pub(super) static RUN: Table = Table {
    name: "`run`",
    doc: "A command on the agent's host. Results: `exit_code stdout stderr elapsed`.",
    keys: &[&[
        key("script", TEMPLATE, "a script, run by `sh -eu`"),
        key("command", WORDS, "a list of words"),
        key("env", TEXTS, "additional environment variables"),
        key(
            "workdir",
            TEMPLATE,
            "working directory; by default the workspace",
        ),
    ]],
    rest: None,
    rules: COMMAND_RULES,
    hints: &[
        ("environment", "it is called `env` here"),
        ("working_dir", "it is called `workdir` here"),
    ],
};

/// Verbs of `container`.
pub const VERBS: &[&str] = ContainerVerb::VARIANTS;

pub(super) static CONTAINER: Table = Table {
    name: "`container`",
    doc: "Starts, stops or otherwise changes a service.",
    keys: &[&[
        key(
            "start",
            SERVICE_NAME,
            "starts it and returns when it is ready",
        ),
        key("stop", SERVICE_NAME, "stops it with its grace period"),
        key(
            "restart",
            SERVICE_NAME,
            "stops and starts it and returns when it is ready",
        ),
        key("kill", SERVICE_NAME, "kills it at once"),
        key("pause", SERVICE_NAME, "freezes it"),
        key("unpause", SERVICE_NAME, "thaws it"),
        key("disconnect", SERVICE_NAME, "takes it off the network"),
        key("connect", SERVICE_NAME, "puts it on the network again"),
        key(
            "run",
            SERVICE_NAME,
            "starts it and returns when it exits; results: `exit_code stdout stderr elapsed`",
        ),
    ]],
    rest: None,
    rules: &[Rule::OneOf {
        keys: VERBS,
        or: &[],
    }],
    hints: &[],
};

pub(super) static WAIT: Table = Table {
    name: "`wait`",
    doc: "Waits for a service.",
    keys: &[&[
        key("service", SERVICE_NAME, "the service"),
        key(
            "until",
            Kind::Leaf(Leaf::Enum(&["ready", "exited"])),
            "state to wait for: ready (default) or exited",
        ),
        key(
            "for",
            DURATION,
            "a fixed time; waiting for a state is faster and more reliable",
        ),
    ]],
    rest: None,
    rules: &[
        Rule::OneOf {
            keys: &["service", "for"],
            or: &[],
        },
        Rule::Needs {
            key: "until",
            any: &["service"],
        },
    ],
    hints: &[],
};

pub(super) static CP: Table = Table {
    name: "`cp`",
    doc: "Copies files as `docker cp` does; one side is `SERVICE:/path`, the other is in the workspace.",
    keys: &[&[
        needed("from", TEMPLATE, "the source"),
        needed("to", TEMPLATE, "the destination"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};
