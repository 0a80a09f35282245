//! OpenTelemetry's semantic conventions for CI/CD and tests: their names and values for what Phalanx knows.
//!
//! From `docs/cicd/cicd-spans.md` and `docs/registry/attributes/test.md` of the conventions. A run is a pipeline run; a
//! cell, an attempt, a phase, a group and a step are tasks; a cell is a test suite, a step a test case. The convention
//! also wants `cicd.pipeline.task.run.url.full`, and a run has no address that is known everywhere.

use super::Span;
use super::span::{Attributes, judge, text};
use crate::event::StepResult;
use crate::id::{AgentId, RunId};
use crate::outcome::Outcome;

/// State of a run in which a span's time falls, as `cicd.pipeline.run.state` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunState {
    Pending,
    Executing,
    Finalizing,
}

/// Class of an error: the closed set of `error.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorType {
    /// A check did not hold or could not be evaluated.
    Check,
    /// A time limit ended it.
    Timeout,
    /// The agent was lost.
    AgentLost,
    /// Anything else: the class is the outcome.
    Outcome,
}

/// Returns the attributes of everything that belongs to a pipeline's run.
pub(super) fn pipeline(spec: &str, run: &RunId) -> Attributes {
    vec![
        text("cicd.pipeline.name", spec),
        text("cicd.pipeline.run.id", run.as_str()),
    ]
}

/// Returns the attributes of the agent that works.
pub(super) fn worker(agent: &AgentId, name: &str) -> Attributes {
    vec![
        text("cicd.worker.id", agent.as_str()),
        text("cicd.worker.name", name),
    ]
}

/// Returns the attributes of a task. `id` is unique within the run.
pub(super) fn task(name: &str, id: &str) -> Attributes {
    vec![
        text("cicd.pipeline.task.name", name),
        text("cicd.pipeline.task.run.id", id),
        text("cicd.pipeline.task.type", "test"),
    ]
}

pub(super) fn state(state: RunState) -> (String, super::Value) {
    let word = match state {
        RunState::Pending => "pending",
        RunState::Executing => "executing",
        RunState::Finalizing => "finalizing",
    };
    text("cicd.pipeline.run.state", word)
}

/// Returns the convention's word for a result. It has no word for a flaky success.
pub fn result(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed | Outcome::Flaky => "success",
        Outcome::Failed => "failure",
        Outcome::Errored => "error",
        Outcome::Cancelled => "cancellation",
        Outcome::Skipped => "skip",
    }
}

/// Sets the result of a run's span, with outcome, reason and status.
pub(super) fn judge_pipeline(span: &mut Span, outcome: Outcome) {
    judge(span, outcome, None);
    span.attributes
        .push(text("cicd.pipeline.result", result(outcome)));
    set_error_type(span, outcome, ErrorType::Outcome);
}

/// Sets the result of a task's span, with outcome, reason and status.
pub(super) fn judge_task(
    span: &mut Span,
    outcome: Outcome,
    reason: Option<&str>,
    error: ErrorType,
) {
    judge(span, outcome, reason);
    let result = match (outcome, error) {
        (Outcome::Failed | Outcome::Errored, ErrorType::Timeout) => "timeout",
        (outcome, _) => result(outcome),
    };
    let key = "cicd.pipeline.task.run.result";
    span.attributes.push(text(key, result));
    set_error_type(span, outcome, error);
}

fn set_error_type(span: &mut Span, outcome: Outcome, error: ErrorType) {
    if !matches!(outcome, Outcome::Failed | Outcome::Errored) {
        return;
    }
    let class = match error {
        ErrorType::Check => "check",
        ErrorType::Timeout => "timeout",
        ErrorType::AgentLost => "agent_lost",
        ErrorType::Outcome => outcome.as_str(),
    };
    span.attributes.push(text("error.type", class));
}

/// Returns the class of a step's error.
pub(super) fn error_of(result: &StepResult) -> ErrorType {
    let by_check = |reason: &String| result.checks.iter().any(|check| check.is_reason(reason));
    if result.timed_out {
        ErrorType::Timeout
    } else if result.reason.as_ref().is_some_and(by_check) {
        ErrorType::Check
    } else {
        ErrorType::Outcome
    }
}

/// Sets the attributes of a test suite: a cell.
pub(super) fn suite(span: &mut Span, name: &str, outcome: Outcome) {
    let status = match outcome {
        Outcome::Passed | Outcome::Flaky => "success",
        Outcome::Failed => "failure",
        Outcome::Skipped => "skipped",
        Outcome::Errored | Outcome::Cancelled => "aborted",
    };
    span.attributes.push(text("test.suite.name", name));
    span.attributes.push(text("test.suite.run.status", status));
}

/// Sets the attributes of a test case: a step. The convention knows no other results than pass and fail.
pub(super) fn case(span: &mut Span, phase: &str, name: &str, outcome: Outcome) {
    let full = format!("{phase} / {name}");
    span.attributes.push(text("test.case.name", &full));
    let status = match outcome {
        Outcome::Passed | Outcome::Flaky => "pass",
        Outcome::Failed => "fail",
        Outcome::Errored | Outcome::Skipped | Outcome::Cancelled => return,
    };
    span.attributes
        .push(text("test.case.result.status", status));
}
