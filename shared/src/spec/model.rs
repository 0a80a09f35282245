//! What a spec means, after decoding and before any evaluation.
//!
//! Names, structure and expressions are checked when this exists. What may depend on a cell stays a [`Node`],
//! a [`Template`] or an [`Expr`] and is evaluated when it is used. It travels to agents as JSON, so it is plain data.

mod action;
mod http;
mod service;
mod step;

pub use action::{Action, Command, ContainerAction, ContainerVerb, Cp, Exec, Run, Use, Wait};
pub use http::{Body, Http, Method, Session, SessionRef, Sse, Tls};
pub use service::{Probe, Ready, Service};
pub use step::{Capture, ForEach, Poll, Retry, SkipIf, Step};

use super::node::{Expr, Node, Template, Text};
use crate::diagnostic::Span;
use serde::{Deserialize, Serialize};

/// A whole spec, its included files merged in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The name that reports show.
    pub name: String,
    /// Declared inputs, in the order written.
    pub inputs: Vec<InputDecl>,
    /// What must hold over the inputs.
    pub require: Vec<Require>,
    /// The matrix and how its cells are run together.
    pub strategy: Strategy,
    /// What every cell has.
    pub cell: CellSettings,
    /// Rows of the table "what each cell verifies", in order.
    pub coverage: Vec<CoverageRow>,
    /// Names of secrets.
    pub secrets: Vec<Text>,
    /// Planned variables; may see each other in any order.
    pub vars: Vec<(Text, Node)>,
    /// Globs of the files that travel to the agent.
    pub workspace: Vec<Text>,
    /// The cell network's settings (`ipv6: bool-ish`), or null.
    pub network: Option<Node>,
    /// `stack: { compose: FILE }`.
    pub compose: Option<Text>,
    /// Values of the Compose file's variables; what uses them holds them already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compose_variables: Vec<(Text, Node)>,
    /// The stack's services, in the order written.
    pub services: Vec<Service>,
    /// Named HTTP clients.
    pub sessions: Vec<Session>,
    /// `defaults.http.session`.
    pub default_session: Option<Text>,
    /// Step groups and functions by name.
    pub define: Vec<Define>,
    /// Ordered sections.
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
    /// A list (an inputs file or a JSON text gives it; one scalar is a list of one).
    List,
}

/// A declared input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputDecl {
    /// Its name.
    pub name: Text,
    /// Its type.
    pub kind: InputType,
    /// The allowed values of a choice.
    pub options: Vec<Node>,
    /// The value when the caller passes none; without one the input is required.
    pub default: Option<Node>,
    /// For people.
    pub description: Option<String>,
}

/// A condition over the inputs with its message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Require {
    /// What must hold.
    pub that: Expr,
    /// What is said if it doesn't.
    pub message: Template,
}

/// GitHub's `strategy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strategy {
    /// Whether `matrix` is written and isn't null: one that comes out empty is a mistake, none is one cell.
    #[serde(default)]
    pub matrix: bool,
    /// Axes in the order written; each value is a list or an expression that gives one.
    pub axes: Vec<(Text, Node)>,
    /// A list of partial cells.
    pub include: Option<Node>,
    /// A list of partial cells.
    pub exclude: Option<Node>,
    /// Off unless asked for.
    pub fail_fast: Option<Node>,
    /// Unlimited unless set.
    pub max_parallel: Option<Node>,
    /// How long a cell may wait for its first start.
    #[serde(default)]
    pub queue_timeout: Option<Node>,
    /// Where `matrix` stands, for messages.
    pub span: Span,
}

/// What every cell has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellSettings {
    /// The cell's name; the axis values joined by ` / ` without one.
    pub name: Option<Template>,
    /// Labels that an agent must offer.
    pub runs_on: Option<Node>,
    /// Reserved CPUs.
    pub cpus: Option<Node>,
    /// Reserved memory.
    pub memory: Option<Node>,
    /// Limit of the whole cell (60m).
    pub timeout: Option<Node>,
    /// Tries after `errored` (1).
    pub attempts: Option<Node>,
    /// Further tries of a failed cell (0).
    pub retries: Option<Node>,
    /// A mark beside the outcome.
    pub experimental: Option<Node>,
}

/// A row of the coverage table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// What `verifies` names.
    pub key: Text,
    /// What the table shows.
    pub title: String,
}

/// A parameter of a define.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: Text,
    /// Its value when `with` doesn't give one; without one it is required.
    pub default: Option<Node>,
}

/// A group of steps, or a function for expressions, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Define {
    /// Its name.
    pub name: Text,
    /// Its parameters in order.
    pub params: Vec<Param>,
    /// What it is.
    pub body: DefineBody,
}

/// What a define is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefineBody {
    /// A function: an expression over its parameters.
    Value(Expr),
    /// Steps, and what the `use` offers of them.
    Steps {
        steps: Vec<Step>,
        capture: Vec<Capture>,
    },
}

/// An ordered section. Its settings apply to the whole of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name, the key under `phases`.
    pub name: Text,
    /// Asked once, before its first step.
    pub when: Option<Expr>,
    /// Why it is skipped when `when` is false.
    pub reason: Option<Template>,
    /// Limit of the whole phase.
    pub timeout: Option<Node>,
    /// Whether it runs after a failure or a cancel.
    pub always: bool,
    /// Whether later phases run after a failure in it.
    pub continue_on_failure: bool,
    /// A row of the coverage table.
    pub verifies: Option<Template>,
    /// Its steps.
    pub steps: Vec<Step>,
}
