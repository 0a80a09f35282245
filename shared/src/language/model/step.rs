//! Steps: one action each, with settings that apply to any action.

use super::action::Action;
use crate::diagnostic::Span;
use crate::node::{Expr, Node, Template, Text};
use serde::{Deserialize, Serialize};

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
