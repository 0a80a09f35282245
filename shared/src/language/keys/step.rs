//! Keys of phases and steps.

use super::action::{CONTAINER, CP, EXEC, HTTP, RUN, SSE, WAIT};
use super::artifact::ARTIFACTS;
use super::*;
use crate::language::model::ResultFormat;
use crate::language::shape::name::NameRule;
use crate::language::shape::{Key, Rule, Table, key, needed};
use strum::VariantNames;

/// A list of steps.
pub const STEPS: Kind = Kind::List(&Kind::Table(|| &STEP));

/// Named values: each an expression, or `{ secret: expression }`.
pub const CAPTURES: Kind = Kind::Named(
    NameRule::Capture,
    &Kind::ByType {
        scalar: Some(&EXPR),
        list: None,
        map: Some(&Kind::Table(|| &SECRET_CAPTURE)),
    },
);

/// Keys of the actions; a step has one of them.
pub const ACTIONS: [&str; 10] = [
    "http",
    "sse",
    "exec",
    "run",
    "container",
    "wait",
    "cp",
    "use",
    "steps",
    "parallel",
];

/// A phase written as a map.
pub static PHASE: Table = Table {
    name: "a phase",
    doc: "An ordered section; its settings apply to the whole of it.",
    keys: &[&[
        key(
            "when",
            EXPR,
            "whether it runs; evaluated once, before its first step",
        ),
        key("reason", TEMPLATE, "why it is skipped when `when` is false"),
        key(
            "until",
            DATE,
            "last day (UTC) on which `when` may skip it; in a run submitted later it fails instead",
        ),
        key("timeout", DURATION, "timeout of the whole phase"),
        key(
            "always",
            FLAG,
            "also runs after a failure, a timeout or a cancel",
        ),
        key(
            "continue-on-failure",
            FLAG,
            "later phases run even if it fails",
        ),
        key("verifies", TEMPLATE, "a key of `coverage`"),
        needed("steps", STEPS, "its steps"),
    ]],
    rest: None,
    rules: &[
        Rule::Needs {
            key: "reason",
            any: &["when"],
        },
        Rule::Needs {
            key: "until",
            any: &["when"],
        },
    ],
    hints: &[
        ("if", "it is called `when`"),
        ("name", "a phase's name is its key"),
    ],
};

/// A step.
pub static STEP: Table = Table {
    name: "a step",
    doc: "One action with what surrounds it. Order: `foreach`, `when`, wait for the services it names, action (with `poll`), `skip`, secret captures, checks and captures, `retry`.",
    keys: &[AROUND, ACTION],
    rest: None,
    rules: &[
        Rule::OneOf {
            keys: &ACTIONS,
            or: &["expect", "capture"],
        },
        Rule::Needs {
            key: "with",
            any: &["use"],
        },
        Rule::Needs {
            key: "else",
            any: &["when"],
        },
        Rule::Needs {
            key: "reason",
            any: &["when"],
        },
        Rule::Needs {
            key: "until",
            any: &["when"],
        },
        Rule::AtMostOne(&["poll", "steps"]),
        Rule::AtMostOne(&["poll", "parallel"]),
        Rule::AtMostOne(&["poll", "results"]),
        Rule::AtMostOne(&["artifacts", "steps"]),
        Rule::AtMostOne(&["artifacts", "parallel"]),
        Rule::AtMostOne(&["artifacts", "use"]),
        Rule::Needs {
            key: "snapshot",
            any: &["steps", "use"],
        },
        Rule::AtMostOne(&["snapshot", "foreach"]),
        Rule::AtMostOne(&["snapshot", "else"]),
        Rule::AtMostOne(&["snapshot", "always"]),
        Rule::AtMostOne(&["snapshot", "skip"]),
        Rule::AtMostOne(&["snapshot", "retry"]),
        Rule::Needs {
            key: "results",
            any: &["exec", "run", "container"],
        },
    ],
    hints: &[
        ("if", "it is called `when`"),
        ("uses", "it is called `use`"),
        ("continue-on-error", "it is called `continue-on-failure`"),
        ("timeout-minutes", "it is called `timeout`: `timeout: 5m`"),
        (
            "shell",
            "`run` and `exec` use `sh -eu`; `command: [bash, -c, …]` names another",
        ),
        ("env", "it belongs under `run` or `exec`"),
        ("json", "it belongs under `http`"),
        ("session", "it belongs under `http` or `sse`"),
        ("headers", "it belongs under `http` or `sse`"),
        ("command", "it belongs under `exec` or `run`"),
        ("script", "it belongs under `exec` or `run`"),
        ("service", "it belongs under `exec` or `wait`"),
        ("assert", "it is called `expect`"),
        ("asserts", "it is called `expect`"),
        ("captures", "it is called `capture`"),
        (
            "sleep",
            "use `wait: { service: X, until: ready }` or `poll`",
        ),
    ],
};

const AROUND: &[Key] = &[
    key(
        "id",
        Kind::Leaf(Leaf::Name(NameRule::Dotted)),
        "id for later steps, which read its captures as `steps.ID.NAME`",
    ),
    key("name", TEMPLATE, "name shown in reports"),
    key(
        "when",
        EXPR,
        "whether it runs; evaluated once, unless it names the `foreach` variable",
    ),
    key("reason", TEMPLATE, "why it is skipped when `when` is false"),
    key(
        "until",
        DATE,
        "last day (UTC) on which `when` may skip it; in a run submitted later it fails instead",
    ),
    key(
        "else",
        STEPS,
        "the other branch: runs when `when` is false, and then nothing is skipped",
    ),
    key(
        "foreach",
        Kind::Single(NameRule::Bare, &Kind::Varies(&Kind::List(&Kind::Any))),
        "`{ variable: list }`: repeats the step for each value, in order",
    ),
    key(
        "timeout",
        DURATION,
        "timeout of one try of one action (http and exec 30s, others 5m), or of a whole group",
    ),
    key(
        "retry",
        Kind::Table(|| &RETRY),
        "repeats a failed step, checks included; passing then is `flaky`",
    ),
    key(
        "poll",
        Kind::Table(|| &POLL),
        "repeats the action until a condition holds",
    ),
    key(
        "skip",
        Kind::Table(|| &SKIP),
        "evaluated after the action: skips the step and the rest of the group or define around it",
    ),
    key(
        "capture",
        CAPTURES,
        "named values of the result, read later as `steps.ID.NAME`",
    ),
    key(
        "expect",
        EXPECTATIONS,
        "checks: expressions that must be true, each an outcome",
    ),
    key(
        "verifies",
        Kind::ByType {
            scalar: Some(&TEMPLATE),
            list: None,
            map: Some(&Kind::Map(&PATTERNS)),
        },
        "a key of `coverage`; with `results`, also `{ row: PATTERN }`: the test cases that verify each row",
    ),
    key(
        "results",
        Kind::Table(|| &RESULTS),
        "test results that the program of `exec`, `run` or `container: { run: X }` writes; each test case is reported like a step",
    ),
    key(
        "always",
        FLAG,
        "also runs after a failure, a timeout or a cancel",
    ),
    key(
        "continue-on-failure",
        FLAG,
        "later steps run even if it fails; the cell still fails",
    ),
    key(
        "snapshot",
        Kind::Table(|| &SNAPSHOT),
        "saves what the group's steps made of services, and restores it in later cells instead of running them",
    ),
    key(
        "artifacts",
        ARTIFACTS,
        "files that are kept with the run when a try of the step is over",
    ),
];

const ACTION: &[Key] = &[
    key("http", Kind::Table(|| &HTTP), "one HTTP request"),
    key("sse", Kind::Table(|| &SSE), "one event stream"),
    key("exec", Kind::Table(|| &EXEC), "a command in a service"),
    key(
        "run",
        Kind::ByType {
            scalar: Some(&TEMPLATE),
            list: None,
            map: Some(&Kind::Table(|| &RUN)),
        },
        "a command on the agent's host, by `sh -eu`: a text, or a map",
    ),
    key(
        "container",
        Kind::Table(|| &CONTAINER),
        "starts, stops or otherwise changes a service",
    ),
    key("wait", Kind::Table(|| &WAIT), "waits for a service"),
    key(
        "cp",
        Kind::Table(|| &CP),
        "copies files into or out of a service; one side is `SERVICE:/path`",
    ),
    key(
        "use",
        Kind::Leaf(Leaf::Name(NameRule::Dotted)),
        "runs a define's steps",
    ),
    key(
        "with",
        Kind::Named(NameRule::Dotted, &Kind::Any),
        "the arguments of `use`",
    ),
    key("steps", STEPS, "a group: its steps run in order"),
    key(
        "parallel",
        STEPS,
        "a group: its steps run concurrently, each to its end",
    ),
];

static SECRET_CAPTURE: Table = Table {
    name: "a capture",
    doc: "A value that is masked from then on.",
    keys: &[&[needed("secret", EXPR, "its expression")]],
    rest: None,
    rules: &[],
    hints: &[],
};

/// One pattern of names of test cases, or several.
const PATTERNS: Kind = Kind::ByType {
    scalar: Some(&TEXT),
    list: Some(&Kind::List(&TEXT)),
    map: None,
};

/// Formats of test results; a step names one of them.
pub const RESULT_FORMATS: &[&str] = ResultFormat::VARIANTS;

static RESULTS: Table = Table {
    name: "`results`",
    doc: "Files with test results: a path, a glob, or a list of them; `-` is the program's standard output. A file that the program didn't write doesn't count.",
    keys: &[&[
        key("junit", TEXT_OR_LIST, "JUnit XML"),
        key("ctrf", TEXT_OR_LIST, "Common Test Report Format (JSON)"),
        key(
            "tap",
            TEXT_OR_LIST,
            "Test Anything Protocol, version 13 or 14",
        ),
        key(
            "from",
            TEMPLATE,
            "where the files are: a service, or `workspace`; by default the service in which the program runs, and the workspace for `run`",
        ),
    ]],
    rest: None,
    rules: &[Rule::OneOf {
        keys: RESULT_FORMATS,
        or: &[],
    }],
    hints: &[
        ("path", "write the format with the path: `junit: PATH`"),
        ("format", "write the format with the path: `junit: PATH`"),
        ("xunit", "it is called `junit`"),
    ],
};

static SNAPSHOT: Table = Table {
    name: "`snapshot`",
    doc: "Saves the named services' files after the group has passed: their containers' own files and their volumes. A later cell with the same key starts with them, and the group's steps are reported as restored. docs/snapshots.md says what is saved, what isn't, and when a key changes.",
    keys: &[&[
        needed(
            "services",
            Kind::List(&Kind::Leaf(Leaf::Name(NameRule::Service))),
            "the services to save; each must be a container that runs when the group ends",
        ),
        key(
            "key",
            EXPECTATIONS,
            "expressions whose values become part of the key: what the steps depend on and Phalanx can't see",
        ),
        key(
            "max-age",
            DURATION,
            "age at which it is made again (unlimited)",
        ),
        key(
            "max-size",
            BYTES,
            "size of all its files above which it isn't kept (4GiB)",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[
        ("service", "it is called `services`, a list"),
        ("max_age", "it is called `max-age`"),
        ("max_size", "it is called `max-size`"),
        ("keys", "it is called `key`"),
        (
            "volumes",
            "all volumes of the services are saved, named ones and others",
        ),
    ],
};

static RETRY: Table = Table {
    name: "`retry`",
    doc: "Repeats a failed step.",
    keys: &[&[
        needed(
            "times",
            Kind::Varies(&Kind::Leaf(Leaf::Int(1))),
            "additional tries after the first",
        ),
        key("delay", DURATION, "the pause between tries (0s)"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static POLL: Table = Table {
    name: "`poll`",
    doc: "Repeats the action, 50ms doubling to `interval`. A transport error, or an error in `until`, is \"not yet\".",
    keys: &[&[
        needed("until", EXPR, "condition that ends the polling"),
        key("timeout", DURATION, "timeout of all polling (1m)"),
        key("interval", DURATION, "the longest pause (2s)"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static SKIP: Table = Table {
    name: "`skip`",
    doc: "Skips after the action.",
    keys: &[&[
        needed("if", EXPR, "when"),
        needed("reason", TEMPLATE, "why"),
        key(
            "until",
            DATE,
            "last day (UTC) on which it may skip; in a run submitted later the step fails instead",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[("when", "it is called `if` here")],
};
