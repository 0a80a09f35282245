//! Reports for other programs against the schemas of their formats.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod checker;
mod sample;

use checker::Checker;
use phalanx_report::artifacts::Attachments;
use phalanx_report::view::RunView;
use phalanx_report::{ctrf, json};
use phalanx_shared::event::Artifact;
use phalanx_shared::outcome::Outcome;
use serde_json::Value;
use std::collections::HashSet;

const CTRF: &str = include_str!("ctrf/ctrf.schema.json");
const ALL: i64 = i64::MAX / 4;

fn view(cells: usize, until_us: i64) -> RunView {
    let (state, now) = sample::state(&sample::events(cells, 9), until_us);
    RunView::of(&state, now, None)
}

fn ctrf_of(view: &RunView) -> Value {
    let document: Value = serde_json::from_str(&ctrf::render(view).unwrap()).unwrap();
    let schema: Value = serde_json::from_str(CTRF).unwrap();
    let checker = Checker {
        root: &schema,
        closed: false,
    };
    assert_eq!(checker.problems(&document), [""; 0]);
    document
}

#[test]
fn ctrf_holds_to_its_schema_at_every_time_of_a_run() {
    for until_us in [0, 100_000, 4_000_000, 20_000_000, ALL] {
        ctrf_of(&view(27, until_us));
    }
}

#[test]
fn ctrf_has_a_test_for_each_step_and_its_numbers_add_up() {
    let view = view(27, ALL);
    let document = ctrf_of(&view);
    let tests = document["results"]["tests"].as_array().unwrap();
    let summary = &document["results"]["summary"];
    let number = |key: &str| summary[key].as_u64().unwrap();
    let parts = ["passed", "failed", "skipped", "pending", "other"];
    assert_eq!(number("tests"), parts.map(number).iter().sum::<u64>());
    assert_eq!(number("tests"), tests.len() as u64);
    assert_eq!(number("suites"), 27);
    assert_eq!(number("flaky"), view.steps_by_outcome.flaky as u64);
    let skipped = view.steps_by_outcome.skipped + view.steps_by_outcome.not_run;
    assert_eq!(number("skipped"), skipped as u64);
    let ids: HashSet<&str> = tests
        .iter()
        .map(|test| test["testId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), tests.len());
}

#[test]
fn ctrf_tells_axes_attempts_and_why_a_step_failed() {
    let view = view(27, ALL);
    let document = ctrf_of(&view);
    let tests = document["results"]["tests"].as_array().unwrap();
    for (cell, test) in view.cells.iter().flat_map(|cell| {
        let of = tests
            .iter()
            .filter(|test| test["extra"]["cell"] == serde_json::json!(cell.id));
        of.map(move |test| (cell, test))
    }) {
        for (axis, value) in &cell.matrix {
            assert_eq!(&test["labels"][axis], value);
        }
        assert_eq!(test["suite"][1], serde_json::json!(cell.name));
    }
    let failed = tests
        .iter()
        .find(|test| test["rawStatus"] == "failed")
        .unwrap();
    assert!(failed["message"].is_string() && failed["trace"].is_string());
    assert!(
        tests
            .iter()
            .any(|test| test["rawStatus"] == "not run" && test["status"] == "skipped")
    );
}

#[test]
fn ctrf_lists_how_a_step_ended_in_each_attempt_at_its_cell() {
    let mut view = view(27, ALL);
    let cell = &mut view.cells[0];
    let mut before = cell.attempts[0].clone();
    before.attempt = 1;
    before.steps[0].outcome = Some(Outcome::Failed);
    cell.attempts[0].attempt = 2;
    cell.attempts.insert(0, before);
    let document = ctrf_of(&view);
    let tests = document["results"]["tests"].as_array().unwrap();
    let attempts = tests[0]["retryAttempts"].as_array().unwrap();
    let numbers: Vec<u64> = attempts
        .iter()
        .map(|of| of["attempt"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(
        tests[0]["executionId"]
            .as_str()
            .unwrap()
            .matches("/2/")
            .count(),
        1
    );
}

#[test]
fn no_red_cell_is_green_in_ctrf() {
    let view = view(27, ALL);
    let document = ctrf_of(&view);
    let tests = document["results"]["tests"].as_array().unwrap();
    let red = |outcome: Option<Outcome>| {
        outcome.is_some_and(|outcome| !outcome.is_ok() && outcome != Outcome::Skipped)
    };
    let cells = view.cells.iter().filter(|cell| red(cell.outcome));
    let mut seen = 0;
    for cell in cells {
        seen += 1;
        let told = tests.iter().any(|test| {
            test["extra"]["cell"] == serde_json::json!(cell.id) && test["status"] == "failed"
        });
        assert!(told, "{}", cell.name);
    }
    assert!(seen > 0);
}

#[test]
fn an_axis_value_that_is_no_scalar_is_a_label_all_the_same() {
    let mut view = view(27, ALL);
    for (number, cell) in view.cells.iter_mut().enumerate() {
        let odd = [
            serde_json::json!(null),
            serde_json::json!({ "a": [1] }),
            serde_json::json!([]),
            serde_json::json!([1, "a"]),
            serde_json::json!(1.5),
        ];
        cell.matrix
            .insert("odd".to_owned(), odd[number % 5].clone());
    }
    ctrf_of(&view);
}

/// Returns what is wrong with a JSON report. `closed` also refuses fields that the schema doesn't name.
fn problems_of_report(view: &RunView, closed: bool) -> Vec<String> {
    let report: Value = serde_json::from_str(&json::render(view).unwrap()).unwrap();
    let schema: Value = serde_json::from_str(json::SCHEMA).unwrap();
    let checker = Checker {
        root: &schema,
        closed,
    };
    checker.problems(&report)
}

#[test]
fn the_json_report_holds_to_its_schema_which_names_every_field() {
    for until_us in [0, 100_000, 4_000_000, 20_000_000, ALL] {
        let problems = problems_of_report(&view(27, until_us), true);
        assert_eq!(
            problems, [""; 0],
            "a field of the view changed: change report/src/json/report.schema.json and docs/reports.md too"
        );
    }
}

#[test]
fn a_schema_without_a_field_of_the_view_is_noticed() {
    let view = view(27, ALL);
    let report: Value = serde_json::from_str(&json::render(&view).unwrap()).unwrap();
    let mut schema: Value = serde_json::from_str(json::SCHEMA).unwrap();
    let step = &mut schema["$defs"]["StepView"]["properties"];
    step.as_object_mut().unwrap().remove("polls").unwrap();
    let problems = |closed| {
        let checker = Checker {
            root: &schema,
            closed,
        };
        checker.problems(&report)
    };
    assert!(problems(true)[0].ends_with("polls: the schema doesn't name it"));
    // Readers of an older schema accept newer reports.
    assert!(problems(false).is_empty());
}

#[test]
fn ctrf_has_a_failed_test_for_a_run_that_failed_by_its_skips_alone() {
    let mut view = view(27, ALL);
    (view.outcome, view.max_skips) = (Some(Outcome::Failed), Some(1));
    view.cells
        .retain(|cell| cell.outcome.is_some_and(Outcome::is_ok));
    view.cells_by_outcome = Default::default();
    let document = ctrf_of(&view);
    assert_eq!(document["results"]["summary"]["failed"], 1);
    let tests = document["results"]["tests"].as_array().unwrap();
    let last = tests.last().unwrap();
    assert_eq!(
        (&last["name"], &last["status"]),
        (&"(run)".into(), &"failed".into())
    );
}

#[test]
fn files_are_attached_to_the_step_or_to_the_case_that_they_are_called_by() {
    let mut view = view(27, ALL);
    let cell = view
        .cells
        .iter_mut()
        .find(|cell| cell.outcome == Some(Outcome::Failed))
        .unwrap();
    let (id, paths): (_, Vec<String>) = (
        cell.id.clone(),
        cell.steps().map(|step| step.path.clone()).collect(),
    );
    let attempt = cell.attempts.last_mut().unwrap();
    let number = attempt.attempt;
    let of = |id: u32, name: &str, step: Option<&str>| Artifact {
        id,
        name: name.to_owned(),
        step: step.map(str::to_owned),
        digest: "00".to_owned(),
        media_type: "text/plain".to_owned(),
        ..Artifact::default()
    };
    attempt.artifacts = vec![
        of(1, "own.log", Some(&paths[0])),
        of(2, "of-cell.log", None),
        of(3, "not-fetched.log", None),
    ];
    let mut files = Attachments::default();
    for file in [1, 2] {
        files.insert(id.clone(), number, file, format!("/kept/{file}"));
    }
    let document: Value = serde_json::from_str(&ctrf::render_with(&view, &files).unwrap()).unwrap();
    let schema: Value = serde_json::from_str(CTRF).unwrap();
    let checker = Checker {
        root: &schema,
        closed: false,
    };
    assert_eq!(checker.problems(&document), [""; 0]);
    let tests = document["results"]["tests"].as_array().unwrap();
    let attached: Vec<(&str, &str)> = tests
        .iter()
        .filter(|test| test["attachments"].is_array())
        .flat_map(|test| {
            let files = test["attachments"].as_array().unwrap().iter();
            files.map(|file| {
                (
                    test["status"].as_str().unwrap(),
                    file["path"].as_str().unwrap(),
                )
            })
        })
        .collect();
    assert_eq!(attached.len(), 2, "{attached:?}");
    assert!(attached.contains(&("failed", "/kept/2")), "{attached:?}");
    let xml = phalanx_report::junit::render_with(&view, &files).unwrap();
    for path in ["/kept/1", "/kept/2"] {
        assert_eq!(xml.matches(&format!("[[ATTACHMENT|{path}]]")).count(), 1);
    }
}
