//! A step: one action, and what surrounds it whatever the action is.

use super::action::Action;
use crate::diagnostic::Span;
use crate::spec::node::{Expr, Node, Template, Text};
use serde::{Deserialize, Serialize};

/// One action with what surrounds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Under which later steps read its captures.
    pub id: Option<Text>,
    /// What reports show; a text made from the action without one.
    pub name: Option<Template>,
    /// Whether it runs.
    pub when: Option<Expr>,
    /// Why it is skipped when `when` is false.
    pub reason: Option<Template>,
    /// The other branch: runs instead when `when` is false; then nothing is skipped.
    pub otherwise: Vec<Step>,
    /// The list it is repeated over.
    pub foreach: Option<ForEach>,
    /// Limit of one attempt of one action; of a group, of the whole.
    pub timeout: Option<Node>,
    /// Repeats a failed step.
    pub retry: Option<Retry>,
    /// Repeats the action until a condition holds.
    pub poll: Option<Poll>,
    /// Asked after the action.
    pub skip: Option<SkipIf>,
    /// Named values of the result.
    pub capture: Vec<Capture>,
    /// Expectations, each a check.
    pub expect: Vec<Expr>,
    /// A row of the coverage table.
    pub verifies: Option<Template>,
    /// Runs also after a failure, a timeout or a cancel.
    pub always: bool,
    /// Lets what follows run after a failure of it.
    pub continue_on_failure: bool,
    /// What it does.
    pub action: Action,
    /// Where the step starts.
    pub span: Span,
}

/// `foreach: { variable: list }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForEach {
    /// The variable.
    pub variable: Text,
    /// The list.
    pub items: Node,
}

/// `retry: { times, delay }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Further tries after the first.
    pub times: Node,
    /// Between tries (0s).
    pub delay: Option<Node>,
}

/// `poll: { until, timeout, interval }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    /// When it ends.
    pub until: Expr,
    /// Of all polling (1m).
    pub timeout: Option<Node>,
    /// The longest pause (2s); pauses double from 50ms.
    pub interval: Option<Node>,
}

/// `skip: { if, reason }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipIf {
    /// When it is skipped.
    pub condition: Expr,
    /// Why.
    pub reason: Template,
}

/// A named value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Its name.
    pub name: Text,
    /// Its expression.
    pub value: Expr,
    /// Written `{ secret: expr }`: masked from then on.
    pub secret: bool,
}
