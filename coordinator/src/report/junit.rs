//! `--report junit=FILE`: a test suite for each cell, a test case for each step.
//!
//! Failed steps carry their failure in full and the log tails as `system-out`; skipped ones their reason. A cell without
//! an outcome of any step (errored before the first, lost, cancelled in the queue) gets a test case for itself, so that no
//! reader mistakes it for a cell without tests.

use super::style::Style;
use super::text::{failure, lines_text};
use super::view::{CellView, RunView, StepView};
use phalanx_shared::outcome::Outcome;
use quick_junit::{
    NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite,
};
use std::time::Duration;

/// The report.
pub fn render(view: &RunView) -> Result<String, SerializeError> {
    let mut report = Report::new(view.spec.as_str());
    report.set_time(Duration::from_micros(view.timing.wall_us));
    report.add_test_suites(view.cells.iter().map(|cell| suite(view, cell)));
    report.to_string()
}

fn suite(view: &RunView, cell: &CellView) -> TestSuite {
    let mut suite = TestSuite::new(cell.name.as_str());
    suite.set_time(Duration::from_micros(cell.elapsed_us.unwrap_or(0)));
    if let Some(started) = cell.attempts.iter().find_map(|attempt| attempt.started) {
        suite
            .extra
            .insert("timestamp".into(), started.to_rfc3339().into());
    }
    suite.add_property(Property::new("run", view.run.as_str()));
    suite.add_property(Property::new("cell", cell.id.as_str()));
    if let Some(outcome) = cell.outcome {
        suite.add_property(Property::new("outcome", outcome.as_str()));
    }
    if cell.experimental {
        suite.add_property(Property::new("experimental", "true"));
    }
    if cell.attempts.len() > 1 {
        suite.add_property(Property::new("attempts", cell.attempts.len().to_string()));
    }
    for (axis, value) in &cell.matrix {
        let value = super::coverage::axis_text(value);
        suite.add_property(Property::new(format!("matrix.{axis}"), value));
    }
    let mut bad_step = false;
    for step in cell.steps().filter(|step| step.outcome.is_some()) {
        bad_step |= step.outcome.is_some_and(|outcome| !outcome.is_ok());
        suite.add_test_case(case(cell, step));
    }
    if cell.outcome.is_some_and(|outcome| !outcome.is_ok()) && !bad_step {
        suite.add_test_case(whole_cell(cell));
    }
    suite
}

fn case(cell: &CellView, step: &StepView) -> TestCase {
    let outcome = step.outcome.unwrap_or(Outcome::Cancelled);
    let reason = step.reason.as_deref().unwrap_or_default();
    let reason = match step.unreached {
        // JUnit knows no other word for it than skipped.
        true => format!("not run: {reason}"),
        false => reason.to_owned(),
    };
    let mut case = TestCase::new(step.name.as_str(), status(outcome, &reason, &step.action));
    case.set_classname(format!("{}.{}", cell.name, step.phase));
    case.set_time(Duration::from_micros(step.elapsed_us));
    case.assertions = Some(step.checks.len());
    case.add_property(Property::new("path", step.path.as_str()));
    if step.tries > 1 {
        case.add_property(Property::new("tries", step.tries.to_string()));
    }
    for row in &step.verifies {
        case.add_property(Property::new("verifies", row.as_str()));
    }
    if !outcome.is_ok() {
        case.status
            .set_description(lines_text(&failure(step), Style::PLAIN));
        let logs = step.failure.iter().flat_map(|failure| &failure.logs);
        let out: String = logs
            .map(|tail| format!("== {}\n{}\n", tail.service, tail.lines.join("\n")))
            .collect();
        if !out.is_empty() {
            case.set_system_out(out);
        }
    }
    case
}

fn whole_cell(cell: &CellView) -> TestCase {
    let outcome = cell.outcome.unwrap_or(Outcome::Cancelled);
    let reason = cell.reason.as_deref().unwrap_or("no reason given");
    let mut case = TestCase::new("(cell)", status(outcome, reason, "cell"));
    case.set_classname(cell.name.as_str());
    case.set_time(Duration::from_micros(cell.elapsed_us.unwrap_or(0)));
    case
}

/// JUnit knows no flaky and no cancelled: the first is a success (its `tries` property tells), the second an error,
/// so that a cancelled run isn't green.
fn status(outcome: Outcome, reason: &str, action: &str) -> TestCaseStatus {
    let mut status = match outcome {
        Outcome::Passed | Outcome::Flaky => return TestCaseStatus::success(),
        Outcome::Skipped => TestCaseStatus::skipped(),
        Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::Errored | Outcome::Cancelled => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if !reason.is_empty() {
        status.set_message(reason.lines().next().unwrap_or_default());
    }
    if outcome != Outcome::Skipped {
        status.set_type(format!("{outcome}.{action}"));
    }
    status
}
