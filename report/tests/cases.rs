//! Test cases that a step's program ran: counted with their step, reported on their own, and rows of the coverage table.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod sample;

use phalanx_report::view::coverage::CoverageState;
use phalanx_report::view::{Counts, RunView, StepKind};
use phalanx_report::{json, junit, text};
use phalanx_shared::event::{CASE, StepResult};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, StepState};
use serde_json::Value;

const ALL: i64 = i64::MAX / 4;
const SUITE: &str = "suite";

/// Ends a step of the suite, or the suite itself, in an attempt.
fn end(attempt: &mut AttemptState, path: &str, action: &str, outcome: Outcome, verifies: &[&str]) {
    let began = attempt.steps.values().next().unwrap().began;
    let result = StepResult {
        path: path.into(),
        name: path.replace("suite/", "test_"),
        id: None,
        action: action.into(),
        outcome,
        reason: (outcome != Outcome::Passed).then(|| format!("{path} wasn't passed")),
        unreached: false,
        timed_out: false,
        culprit: None,
        tries: 1,
        polls: 0,
        began,
        elapsed_us: 1_000,
        waits: vec![],
        verifies: verifies.iter().map(|row| (*row).to_owned()).collect(),
        checks: vec![],
        output: None,
        captured: vec![],
        failure: None,
        restored: None,
    };
    let step = StepState {
        name: result.name.clone(),
        action: action.into(),
        began,
        result: Some(result),
    };
    attempt.steps.insert(path.into(), step);
}

/// A run whose first cell has one more step: a suite with these cases. The row `ready` is verified by the case of each number.
fn view(cases: &[Outcome], of_row: &[usize]) -> RunView {
    let (mut state, now) = sample::state(&sample::events(27, 9), ALL);
    let attempt = state.cells[0].attempts.last_mut().unwrap();
    attempt.steps.values_mut().for_each(|step| {
        if let Some(result) = &mut step.result {
            result.verifies.clear();
        }
    });
    let worst = match cases.iter().any(|outcome| !outcome.is_ok()) {
        true => Outcome::Failed,
        false => Outcome::Passed,
    };
    let phase = attempt.steps.keys().next().unwrap().clone();
    let suite = format!("{phase}/{SUITE}");
    end(attempt, &suite, "exec", worst, &[]);
    for (index, outcome) in cases.iter().enumerate() {
        let rows: &[&str] = match of_row.contains(&index) {
            true => &["ready"],
            false => &[],
        };
        end(attempt, &format!("{suite}/{index}"), CASE, *outcome, rows);
    }
    RunView::of(&state, now, Some("cell"))
}

/// The state of the row `ready` in the first cell.
fn row(view: &RunView) -> CoverageState {
    let coverage = view.coverage.as_ref().unwrap();
    let row = coverage.rows.iter().find(|row| row.key == "ready").unwrap();
    row.entries[0].state
}

#[test]
fn a_step_counts_its_cases_by_outcome_and_each_is_reported() {
    let outcomes = [
        Outcome::Passed,
        Outcome::Failed,
        Outcome::Skipped,
        Outcome::Flaky,
    ];
    let view = view(&outcomes, &[]);
    let all = &view.cells[0].newest().unwrap().steps;
    let suite = all.iter().find(|step| step.path.ends_with(SUITE)).unwrap();
    let counts = Counts {
        total: 4,
        passed: 1,
        failed: 1,
        skipped: 1,
        flaky: 1,
        ..Counts::default()
    };
    assert_eq!(suite.cases, Some(counts));
    // Its failure is that of a case, which is reported itself.
    assert!(suite.kind == StepKind::Group && !suite.reported);
    let cases: Vec<_> = view.cells[0]
        .steps()
        .filter(|step| step.is_case())
        .collect();
    assert!(
        cases.len() == 4
            && cases
                .iter()
                .all(|case| case.reported && case.cases.is_none())
    );

    let xml = junit::render(&view).unwrap();
    for index in 0..4 {
        assert!(xml.contains(&format!("{SUITE}/{index}")), "{xml}");
    }
    let document: Value = serde_json::from_str(&json::render(&view).unwrap()).unwrap();
    assert!(document.to_string().contains(r#""cases":{"#));
    assert_eq!(
        text::cases_text(&counts),
        "4 cases: 1 passed, 1 flaky, 1 failed, 1 skipped"
    );
}

#[test]
fn a_row_has_the_worst_state_of_its_cases_and_of_no_others() {
    let outcomes = [Outcome::Passed, Outcome::Failed, Outcome::Skipped];
    for (of_row, state) in [
        (&[0][..], CoverageState::Passed),
        (&[0, 1], CoverageState::Failed),
        (&[0, 2], CoverageState::Skipped),
        // A suite that ran no case of the row verified nothing.
        (&[], CoverageState::NotRun),
    ] {
        assert_eq!(row(&view(&outcomes, of_row)), state, "{of_row:?}");
    }
}
