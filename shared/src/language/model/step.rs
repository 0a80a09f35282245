//! Steps and their actions. They are one file because they contain each other: an action may hold steps.

use super::artifact::Artifact;
use super::http::{Http, Sse};
use crate::diagnostic::Span;
use crate::node::{Expr, Node, Template, Text};
use crate::time::{Date, Timestamp};
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray, VariantNames};

/// One action, with its conditions, repetitions, captures and checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Id under which later steps read its captures.
    pub id: Option<Text>,
    /// Name that reports show (default: a text made from the action).
    pub name: Option<Template>,
    /// Condition for running the step.
    pub when: Option<Expr>,
    /// Reason for the skip if `when` is false.
    pub reason: Option<Template>,
    /// Last day on which `when` may skip the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// Steps to run instead if `when` is false. With them the step is not reported as skipped.
    pub otherwise: Vec<Step>,
    /// List to repeat the step over.
    pub foreach: Option<ForEach>,
    /// Time limit of one attempt of an action, or of a whole group.
    pub timeout: Option<Node>,
    /// Retries of the step after a failure.
    pub retry: Option<Retry>,
    /// Repetition of the action until a condition holds.
    pub poll: Option<Poll>,
    /// Condition, evaluated after the action, for reporting the step as skipped.
    pub skip: Option<SkipIf>,
    /// Named values of the result.
    pub capture: Vec<Capture>,
    /// Expectations; each is a check.
    pub expect: Vec<Expr>,
    /// Row of the coverage table that the step verifies.
    pub verifies: Option<Template>,
    /// Rows of the coverage table that test cases of the step verify (`verifies: { row: PATTERN }`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub case_rows: Vec<CaseRow>,
    /// Test results that the step's program writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Box<TestResults>>,
    /// Files that are kept when a try of the step is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Whether the step runs even after a failure, a timeout or a cancellation.
    pub always: bool,
    /// Whether later steps run even if this one fails.
    pub continue_on_failure: bool,
    /// How what a group of setup steps has made is saved and restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Box<Snapshot>>,
    /// Action of the step.
    pub action: Action,
    /// Place where the step starts.
    pub span: Span,
}

/// Setting `snapshot: { services, key, max-age, max-size }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Services whose files are saved.
    pub services: Vec<Text>,
    /// Expressions whose values are part of the key.
    pub key: Vec<Expr>,
    /// Age at which it is made again (default: unlimited).
    pub max_age: Option<Node>,
    /// Size of the files above which it isn't kept (default: 4GiB).
    pub max_size: Option<Node>,
    /// Place of the setting.
    pub span: Span,
}

/// Setting `results: { junit | ctrf | tap: FILES, from }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResults {
    /// Format of the files.
    pub format: ResultFormat,
    /// A path, a glob, or a list of them; `-` for the program's standard output.
    pub files: Node,
    /// Service that holds the files, or `workspace`.
    pub from: Option<Template>,
}

impl TestResults {
    /// Value of a path that means the program's standard output.
    pub const OUTPUT: &str = "-";
    /// Value of `from` that means the workspace.
    pub const WORKSPACE: &str = "workspace";
}

/// Format of test results.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs)]
pub enum ResultFormat {
    Junit,
    Ctrf,
    Tap,
}

impl ResultFormat {
    /// Returns the format as a spec spells it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A row of the coverage table, with patterns of the test cases that verify it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseRow {
    /// Key of the row.
    pub row: Text,
    /// Patterns of names; `*` stands for any text.
    pub patterns: Vec<Text>,
}

/// Repetition `foreach: { variable: list }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForEach {
    /// Name of the variable.
    pub variable: Text,
    /// List of the values.
    pub items: Node,
}

/// Setting `retry: { times, delay }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Number of further tries after the first.
    pub times: Node,
    /// Pause between tries (default: 0s).
    pub delay: Option<Node>,
}

/// Setting `poll: { until, timeout, interval }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    /// Condition that ends the polling.
    pub until: Expr,
    /// Time limit of all polling (default: 1m).
    pub timeout: Option<Node>,
    /// Longest pause (default: 2s); pauses double from 50ms.
    pub interval: Option<Node>,
}

/// Setting `skip: { if, reason, until }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipIf {
    /// Condition for the skip.
    pub condition: Expr,
    /// Reason for the skip, shown in reports.
    pub reason: Template,
    /// Last day on which the step may be skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

/// The last day on which something may be skipped, in UTC. In a run that was submitted later, it fails instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Until {
    /// The day.
    pub date: Date,
    /// Place of the date.
    pub span: Span,
}

impl Until {
    /// Returns whether the day is over in a run that was submitted at a time.
    pub fn is_over(&self, submitted: Timestamp) -> bool {
        Date::of(submitted).is_some_and(|day| day > self.date)
    }
}

/// A named value of a step's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Name of the value.
    pub name: Text,
    /// Expression that gives the value.
    pub value: Expr,
    /// Whether the value is masked once captured (`{ secret: expr }`).
    pub secret: bool,
}

/// The action of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// Sends one HTTP request.
    Http(Box<Http>),
    /// Reads one event stream.
    Sse(Box<Sse>),
    /// Runs a command inside a service.
    Exec(Exec),
    /// Runs a command on the agent's host.
    Run(Run),
    /// Starts, stops or otherwise changes a container.
    Container(ContainerAction),
    /// Waits for a service or for a time.
    Wait(Wait),
    /// Copies files into or out of a service.
    Cp(Cp),
    /// Runs the steps of a define.
    Use(Use),
    /// Runs a group of steps in order.
    Steps(Vec<Step>),
    /// Runs steps concurrently.
    Parallel(Vec<Step>),
    /// Does nothing; the step has only `expect` (and `capture`).
    #[strum(serialize = "expect")]
    Check,
}

impl Action {
    /// Returns the keyword of the action in a spec.
    pub fn keyword(&self) -> &'static str {
        self.into()
    }
}

/// A command: a list of words or a shell script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// List of words, or an expression for one.
    Words(Node),
    /// Script that `sh -eu` runs.
    Script(Template),
}

/// A command inside a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Service to run the command in.
    pub service: Template,
    /// Command to run.
    pub command: Command,
    /// Text for the command's standard input.
    pub stdin: Option<Template>,
    /// Map of environment variables.
    pub env: Option<Node>,
    /// User to run the command as.
    pub user: Option<Template>,
    /// Working directory in the service.
    pub workdir: Option<Template>,
}

/// A command on the agent's host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Command to run.
    pub command: Command,
    /// Map of environment variables.
    pub env: Option<Node>,
    /// Working directory (default: the workspace).
    pub workdir: Option<Template>,
}

/// Verbs of `container:`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs)]
pub enum ContainerVerb {
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
    Disconnect,
    Connect,
    /// Starts the container and waits for its exit.
    Run,
}

impl ContainerVerb {
    /// Returns the verb as a spec spells it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Action `container: { verb: service }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerAction {
    /// Change to make.
    pub verb: ContainerVerb,
    /// Service to change.
    pub service: Template,
}

/// Action `wait:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Waits until a service is ready.
    Ready(Template),
    /// Waits until a service has exited.
    Exited(Template),
    /// Waits for a fixed time; discouraged, and reported as a warning.
    For(Node),
}

/// Action `cp: { from, to }`. One side is `SERVICE:/path`, as with `docker cp`; the other is a path in the workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cp {
    /// Source path.
    pub from: Template,
    /// Destination path.
    pub to: Template,
}

/// Action `use: NAME`, with its arguments in `with`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// Name of the define.
    pub define: Text,
    /// Arguments by parameter name.
    pub with: Vec<(Text, Node)>,
}
