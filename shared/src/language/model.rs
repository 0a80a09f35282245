//! The decoded spec, before any evaluation.
//!
//! When a [`Spec`] exists, its names, structure and expressions have been checked. Values that may depend on a cell
//! stay a [`Node`], a [`Template`] or an [`Expr`] and are evaluated when they are used. A spec travels to agents as
//! JSON, so it is plain data.

mod artifact;
mod http;
mod service;
mod step;

pub use artifact::{Artifact, ArtifactWhen, FileNames, IfMissing};
pub use http::{Body, Http, Method, Session, SessionRef, Sse, Tls};
pub use service::{Probe, Ready, Service};
pub use step::{
    Action, Capture, CaseRow, Command, ContainerAction, ContainerVerb, Cp, Exec, ForEach, Poll,
    ResultFormat, Retry, Run, SkipIf, Snapshot, Step, TestResults, Until, Use, Wait,
};

use crate::diagnostic::Span;
use crate::node::{Expr, Node, Template, Text};
use serde::{Deserialize, Serialize};

/// A whole spec, with its included files merged in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name that reports show.
    pub name: String,
    /// Declared inputs, in the order written.
    pub inputs: Vec<InputDecl>,
    /// Conditions that the inputs must meet.
    pub require: Vec<Require>,
    /// Matrix, and how its cells run together.
    pub strategy: Strategy,
    /// Settings of every cell.
    pub cell: CellSettings,
    /// Rows of the coverage table ("what each cell verifies"), in order.
    pub coverage: Vec<CoverageRow>,
    /// Names of the declared secrets.
    pub secrets: Vec<Text>,
    /// Planned variables. They may refer to each other in any order.
    pub vars: Vec<(Text, Node)>,
    /// Globs of the files to send to the agent.
    pub workspace: Vec<Text>,
    /// Settings of the cell's network (`ipv6`: a bool or an expression for one), or null.
    pub network: Option<Node>,
    /// Path of the Compose file (`stack: { compose: FILE }`).
    pub compose: Option<Text>,
    /// Values of the Compose file's variables, already substituted where they are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compose_variables: Vec<(Text, Node)>,
    /// Services of the stack, in the order written.
    pub services: Vec<Service>,
    /// Named HTTP clients.
    pub sessions: Vec<Session>,
    /// Session of requests that name none (`defaults.http.session`).
    pub default_session: Option<Text>,
    /// Groups of steps, and functions, by name.
    pub define: Vec<Define>,
    /// Phases, in order.
    pub phases: Vec<Phase>,
}

/// The type of an input, as in GitHub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// Any text.
    String,
    /// `true` or `false`.
    Boolean,
    /// An integer or a decimal.
    Number,
    /// One of `options`.
    Choice,
    /// A list. An inputs file or a JSON text gives one; a single scalar becomes a list of one.
    List,
}

/// A declared input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputDecl {
    /// Name of the input.
    pub name: Text,
    /// Declared type.
    pub kind: InputType,
    /// Allowed values of a choice.
    pub options: Vec<Node>,
    /// Value if the caller passes none; without a default, the input is required.
    pub default: Option<Node>,
    /// Description for people.
    pub description: Option<String>,
}

/// A condition on the inputs, with its message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Require {
    /// Condition that must hold.
    pub that: Expr,
    /// Message if the condition does not hold.
    pub message: Template,
}

/// `strategy`, as in GitHub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strategy {
    /// Whether `matrix` is written and not null. A written matrix without cells is an error; no matrix gives one cell.
    #[serde(default)]
    pub matrix: bool,
    /// Axes in the order written; each value is a list, or an expression for one.
    pub axes: Vec<(Text, Node)>,
    /// List of partial cells to add.
    pub include: Option<Node>,
    /// List of partial cells to leave out.
    pub exclude: Option<Node>,
    /// Whether a failed cell cancels the others (default: false).
    pub fail_fast: Option<Node>,
    /// Maximum number of concurrent cells (default: unlimited).
    pub max_parallel: Option<Node>,
    /// How long a cell may wait for its first start (default: unlimited).
    #[serde(default)]
    pub queue_timeout: Option<Node>,
    /// Maximum number of steps of a run that may be skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_skips: Option<Node>,
    /// Place of `matrix`, for messages.
    pub span: Span,
}

/// Settings of every cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellSettings {
    /// Name of the cell (default: the axis values, joined by ` / `).
    pub name: Option<Template>,
    /// Labels that an agent must offer.
    pub runs_on: Option<Node>,
    /// CPUs to reserve.
    pub cpus: Option<Node>,
    /// Memory to reserve.
    pub memory: Option<Node>,
    /// Time limit of the whole cell (default: 60m).
    pub timeout: Option<Node>,
    /// Maximum tries of a cell that ends `errored` (default: 1).
    pub attempts: Option<Node>,
    /// Further tries of a failed cell (default: 0).
    pub retries: Option<Node>,
    /// Whether the run passes even if this cell fails.
    pub experimental: Option<Node>,
    /// Files that are kept when the cell's last step is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// Row of the coverage table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// Key that `verifies` names.
    pub key: Text,
    /// Title that the table shows.
    pub title: String,
}

/// Parameter of a define.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Name of the parameter.
    pub name: Text,
    /// Value if `with` gives none; without a default, the parameter is required.
    pub default: Option<Node>,
}

/// A named group of steps, or a named function for expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Define {
    /// Name of the define.
    pub name: Text,
    /// Parameters, in order.
    pub params: Vec<Param>,
    /// Steps or expression.
    pub body: DefineBody,
}

/// Body of a define.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefineBody {
    /// A function: an expression over its parameters.
    Value(Expr),
    /// Steps, and the captures that a `use` of them offers.
    Steps {
        steps: Vec<Step>,
        capture: Vec<Capture>,
    },
}

/// An ordered section. Its settings apply to the phase as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Name of the phase, its key under `phases`.
    pub name: Text,
    /// Condition for running the phase, evaluated once before its first step.
    pub when: Option<Expr>,
    /// Reason for the skip if `when` is false.
    pub reason: Option<Template>,
    /// Last day on which the phase may be skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// Time limit of the whole phase.
    pub timeout: Option<Node>,
    /// Whether the phase runs even after a failure or a cancellation.
    pub always: bool,
    /// Whether later phases run even if this one fails.
    pub continue_on_failure: bool,
    /// Row of the coverage table that the phase verifies.
    pub verifies: Option<Template>,
    /// Steps of the phase, in order.
    pub steps: Vec<Step>,
}
