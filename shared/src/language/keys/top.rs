//! Keys at the top level of a spec file.

use super::action::TLS;
use super::artifact::ARTIFACTS;
use super::service::SERVICE;
use super::step::{CAPTURES, PHASE, STEPS};
use super::*;
use crate::language::shape::name::NameRule;
use crate::language::shape::{Key, Rule, Table, key, needed};

/// A spec.
pub static SPEC: Table = Table {
    name: "a spec",
    doc: "An end-to-end test matrix: cells, the stack of each, and the phases that test it.",
    keys: &[MAIN, SHARED],
    rest: None,
    rules: &[],
    hints: &[
        ("matrix", "it belongs under `strategy`"),
        (
            "steps",
            "steps stand in `phases`, each phase a list of them",
        ),
        (
            "jobs",
            "a spec has no jobs: `cell` says what every cell has, `phases` what it does",
        ),
        (
            "on",
            "a spec has no triggers: the workflow that runs it has",
        ),
        (
            "env",
            "values go into `vars`, the environment of a service into its `environment`",
        ),
        (
            "volumes",
            "named volumes are made per cell: use the name in a service's `volumes`",
        ),
        ("networks", "each cell has its own network: leave it out"),
        ("version", "leave it out"),
        ("timeout", "it belongs under `cell`"),
        ("runs-on", "it belongs under `cell`"),
    ],
};

/// A file that a spec includes.
pub static INCLUDED: Table = Table {
    name: "an included file",
    doc: "Inputs, variables, services, sessions, defines and coverage rows that specs share.",
    keys: &[SHARED],
    rest: None,
    rules: &[],
    hints: &[
        (
            "phases",
            "phases stay in the main file: make it a `define` and `use` it there",
        ),
        ("strategy", "the matrix stays in the main file"),
        ("cell", "it stays in the main file"),
        ("name", "only the main file has a name"),
        ("secrets", "secrets are declared in the main file"),
    ],
};

const MAIN: &[Key] = &[
    key(
        "name",
        STR,
        "name shown in reports (default: the file's name)",
    ),
    key(
        "require",
        Kind::List(&Kind::Table(|| &REQUIRE)),
        "conditions over `inputs`, checked before anything is planned",
    ),
    key(
        "strategy",
        Kind::Table(|| &STRATEGY),
        "the matrix, and how its cells run together",
    ),
    key("cell", Kind::Table(|| &CELL), "settings of every cell"),
    key(
        "secrets",
        Kind::List(&Kind::Leaf(Leaf::Name(NameRule::Dotted))),
        "names of secrets; values come from the environment, a file or the coordinator's store, and are masked everywhere",
    ),
    key(
        "workspace",
        Kind::Table(|| &WORKSPACE),
        "the files that travel to the agent",
    ),
    key("network", Kind::Table(|| &NETWORK), "the cell's network"),
    key(
        "stack",
        Kind::Table(|| &STACK),
        "a whole Compose file as the stack",
    ),
    key("defaults", Kind::Table(|| &DEFAULTS), "defaults for steps"),
    needed(
        "phases",
        Kind::Named(
            NameRule::Phase,
            &Kind::ByType {
                scalar: None,
                list: Some(&STEPS),
                map: Some(&Kind::Table(|| &PHASE)),
            },
        ),
        "ordered sections of steps; each a list, or a map with `steps`",
    ),
];

const SHARED: &[Key] = &[
    key(
        "include",
        Kind::List(&STR),
        "files whose inputs, vars, services, sessions, defines and coverage rows are added; paths are relative to this file",
    ),
    key(
        "inputs",
        Kind::Named(NameRule::Dotted, &Kind::Table(|| &INPUT)),
        "values that the caller passes with `--input name=value`",
    ),
    key(
        "coverage",
        Kind::Named(NameRule::Phase, &STR),
        "rows of the table \"what each cell verifies\", in order: key and title",
    ),
    key(
        "vars",
        Kind::Named(NameRule::Dotted, &Kind::Any),
        "values computed when a cell is planned; they may see each other in any order",
    ),
    key(
        "services",
        Kind::Named(NameRule::Service, &Kind::Table(|| &SERVICE)),
        "the containers and processes of a cell",
    ),
    key(
        "sessions",
        Kind::Named(NameRule::Session, &Kind::Table(|| &SESSION)),
        "named HTTP clients, each with a cookie jar for the cell",
    ),
    key(
        "define",
        Kind::Named(NameRule::Define, &Kind::Table(|| &DEFINE)),
        "groups of steps for `use`, and functions for expressions",
    ),
];

static INPUT: Table = Table {
    name: "an input",
    doc: "A declared input.",
    keys: &[&[
        key(
            "type",
            Kind::Leaf(Leaf::Enum(&[
                "string", "boolean", "number", "choice", "list",
            ])),
            "the type; `string`, or `choice` if there are options",
        ),
        key("options", Kind::List(&TEXT), "the allowed values"),
        key(
            "default",
            Kind::ByType {
                scalar: Some(&TEXT),
                list: Some(&Kind::List(&TEXT)),
                map: None,
            },
            "default value; without one, the input is required",
        ),
        key("description", STR, "description for users"),
    ]],
    rest: None,
    rules: &[],
    hints: &[("required", "an input without a `default` is required")],
};

static REQUIRE: Table = Table {
    name: "a requirement",
    doc: "A condition over `inputs`.",
    keys: &[&[
        needed("that", EXPR, "what must hold"),
        needed("message", TEMPLATE, "what is said if it doesn't"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static STRATEGY: Table = Table {
    name: "`strategy`",
    doc: "As in GitHub Actions.",
    keys: &[&[
        key(
            "matrix",
            Kind::Table(|| &MATRIX),
            "axes by name, `exclude` and `include`",
        ),
        key(
            "fail-fast",
            BOOL,
            "whether a failed cell cancels the others (false)",
        ),
        key(
            "max-parallel",
            Kind::Varies(&Kind::Leaf(Leaf::Int(1))),
            "maximum number of cells that run concurrently; no limit by default",
        ),
        key(
            "max-skips",
            Kind::Varies(&Kind::Leaf(Leaf::Int(0))),
            "maximum number of steps that the spec may skip in one run; a run with more fails. No limit by default",
        ),
        key(
            "queue-timeout",
            DURATION,
            "time that a cell may wait for its first start, counted from the submission; after it the cell is `errored`, with what it waited for. No limit by default",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static MATRIX: Table = Table {
    name: "`matrix`",
    doc: "The product of all axes in the order written, after `exclude` and `include`. Any other key is an axis: a list, or an expression that gives one.",
    keys: &[&[
        key(
            "include",
            PARTIAL_CELLS,
            "keys added to the cells that they match; an entry that matches none becomes a cell",
        ),
        key(
            "exclude",
            PARTIAL_CELLS,
            "partial cells; each removes all cells that match it",
        ),
    ]],
    rest: Some((NameRule::Axis, Kind::Varies(&Kind::List(&Kind::Any)))),
    rules: &[],
    hints: &[],
};

const PARTIAL_CELLS: Kind = Kind::Varies(&Kind::List(&Kind::Named(NameRule::Axis, &Kind::Any)));

static CELL: Table = Table {
    name: "`cell`",
    doc: "Settings of every cell.",
    keys: &[&[
        key(
            "name",
            TEMPLATE,
            "the cell's name (default: its axis values)",
        ),
        key(
            "runs-on",
            Kind::Varies(&Kind::ByType {
                scalar: Some(&TEXT),
                list: Some(&Kind::List(&TEXT)),
                map: None,
            }),
            "labels that an agent must offer",
        ),
        key(
            "resources",
            Kind::Table(|| &RESOURCES),
            "resources that the scheduler reserves",
        ),
        key("timeout", DURATION, "timeout of the whole cell (60m)"),
        key(
            "attempts",
            Kind::Varies(&Kind::Leaf(Leaf::Int(1))),
            "tries at a cell that couldn't be judged (1): a lost agent, a failed pull",
        ),
        key(
            "retries",
            Kind::Varies(&Kind::Leaf(Leaf::Int(0))),
            "additional tries of a failed cell (0); passing then is `flaky`",
        ),
        key(
            "experimental",
            BOOL,
            "a mark that reports show; it doesn't change the outcome",
        ),
        key(
            "artifacts",
            ARTIFACTS,
            "files that are kept with the run when the cell's last step is over",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[
        ("cpus", "it belongs under `resources`"),
        ("memory", "it belongs under `resources`"),
        ("continue-on-error", "use `experimental`"),
    ],
};

static RESOURCES: Table = Table {
    name: "`resources`",
    doc: "Reservations for scheduling; limits are the services' `mem_limit` and `cpus`.",
    keys: &[&[key("cpus", CPUS, "CPUs"), key("memory", BYTES, "memory")]],
    rest: None,
    rules: &[],
    hints: &[],
};

static WORKSPACE: Table = Table {
    name: "`workspace`",
    doc: "The files that travel to the agent.",
    keys: &[&[needed(
        "include",
        Kind::List(&STR),
        "globs of files, relative to the spec's directory; `.gitignore` is respected",
    )]],
    rest: None,
    rules: &[],
    hints: &[("exclude", "write `!` before a pattern in `include`")],
};

static NETWORK: Table = Table {
    name: "`network`",
    doc: "The cell's network.",
    keys: &[&[key("ipv6", BOOL, "whether it has IPv6 in addition to IPv4")]],
    rest: None,
    rules: &[],
    hints: &[],
};

const STR_OR_LIST: Kind = Kind::ByType {
    scalar: Some(&STR),
    list: Some(&Kind::List(&STR)),
    map: None,
};

static STACK: Table = Table {
    name: "`stack`",
    doc: "Services from other files than the spec.",
    keys: &[&[
        needed(
            "compose",
            STR_OR_LIST,
            "a Compose file, or several, of which a later one is merged over the earlier ones; `services` adds to them and overrides",
        ),
        key(
            "profiles",
            STR_OR_LIST,
            "active profiles of the Compose files (`*`: all); a service with other profiles only starts when a step starts it; without it COMPOSE_PROFILES of `variables` and `env-file`",
        ),
        key(
            "variables",
            Kind::Map(&Kind::Varies(&SCALAR_OR_NULL)),
            "values of the Compose file's variables, such as `TAG: \"${{ matrix.tag }}\"`; the machine's environment is not read",
        ),
        key(
            "env-file",
            STR_OR_LIST,
            "files with more values, like Compose's `.env`; relative to the spec",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[
        ("env_file", "it is called `env-file`"),
        ("profile", "it is called `profiles`"),
        ("files", "they are the list `compose: [a.yml, b.yml]`"),
        (
            "env",
            "values of the Compose file's variables are its `variables`",
        ),
        (
            "environment",
            "values of the Compose file's variables are its `variables`",
        ),
    ],
};

static DEFAULTS: Table = Table {
    name: "`defaults`",
    doc: "Defaults for steps.",
    keys: &[&[key(
        "http",
        Kind::Table(|| &DEFAULT_HTTP),
        "defaults of requests and event streams",
    )]],
    rest: None,
    rules: &[],
    hints: &[],
};

static DEFAULT_HTTP: Table = Table {
    name: "`defaults.http`",
    doc: "Defaults of requests and event streams.",
    keys: &[&[key(
        "session",
        Kind::Leaf(Leaf::Name(NameRule::Session)),
        "session of steps that name none",
    )]],
    rest: None,
    rules: &[],
    hints: &[],
};

static SESSION: Table = Table {
    name: "a session",
    doc: "A named HTTP client; read at each request.",
    keys: &[&[
        key("base", TEMPLATE, "the URL that paths are appended to"),
        key("headers", TEXTS, "headers of every request"),
        key("tls", Kind::Table(|| &TLS), "TLS settings"),
    ]],
    rest: None,
    rules: &[],
    hints: &[
        ("url", "it is called `base`"),
        ("base_url", "it is called `base`"),
    ],
};

static DEFINE: Table = Table {
    name: "a define",
    doc: "A group of steps for `use`, or with `value` a function for expressions.",
    keys: &[&[
        key(
            "params",
            Kind::ByType {
                scalar: None,
                list: Some(&Kind::List(&Kind::Leaf(Leaf::Name(NameRule::Dotted)))),
                map: Some(&Kind::Named(NameRule::Dotted, &Kind::Table(|| &PARAM))),
            },
            "its parameters: a list of names, or a map from names to `{ default: … }`",
        ),
        key("value", EXPR, "the function's value over its parameters"),
        key(
            "steps",
            STEPS,
            "the steps; they see the parameters as `params.NAME`",
        ),
        key("capture", CAPTURES, "what `steps.ID` of the `use` offers"),
    ]],
    rest: None,
    rules: &[
        Rule::OneOf {
            keys: &["value", "steps"],
            or: &[],
        },
        Rule::AtMostOne(&["value", "capture"]),
    ],
    hints: &[
        ("outputs", "it is called `capture`"),
        ("inputs", "it is called `params`"),
    ],
};

static PARAM: Table = Table {
    name: "a parameter",
    doc: "A parameter of a define.",
    keys: &[&[key(
        "default",
        Kind::Any,
        "its value when `with` doesn't give one; without it the parameter is required",
    )]],
    rest: None,
    rules: &[],
    hints: &[],
};
