//! Steps and their actions. They are one file because they contain each other: an action may hold steps.

use super::http::{Http, Sse};
use crate::diagnostic::Span;
use crate::node::{Expr, Node, Template, Text};
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
    /// Whether the step runs even after a failure, a timeout or a cancellation.
    pub always: bool,
    /// Whether later steps run even if this one fails.
    pub continue_on_failure: bool,
    /// Action of the step.
    pub action: Action,
    /// Place where the step starts.
    pub span: Span,
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

/// Setting `skip: { if, reason }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipIf {
    /// Condition for the skip.
    pub condition: Expr,
    /// Reason for the skip, shown in reports.
    pub reason: Template,
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
