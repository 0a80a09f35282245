//! Reads reports in the Common Test Report Format (<https://ctrf.io>).

use super::{Case, Suite, append, place, seconds, some};
use phalanx_shared::outcome::Outcome;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Document {
    results: Results,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    summary: Option<Summary>,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(default)]
    tests: Option<u64>,
    #[serde(default)]
    failed: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Test {
    name: String,
    status: String,
    /// In milliseconds.
    duration: Option<f64>,
    /// A text, or a list from the outermost to the innermost.
    suite: Option<Value>,
    message: Option<String>,
    trace: Option<String>,
    file_path: Option<String>,
    line: Option<Value>,
    retries: Option<u64>,
    flaky: Option<bool>,
    stdout: Option<Value>,
    stderr: Option<Value>,
}

/// Reads a document.
pub(super) fn read(text: &str) -> Suite {
    let mut suite = Suite::default();
    let results = match serde_json::from_str::<Document>(text) {
        Ok(document) => document.results,
        Err(error) => {
            let problem = match text.trim().is_empty() {
                true => "the file is empty".to_owned(),
                false => format!("broken CTRF: {error}"),
            };
            suite.problems.push(problem);
            return suite;
        }
    };
    let found = results.tests.len() as u64;
    let failed = |test: &&Test| outcome(test) == Outcome::Failed;
    let bad = results.tests.iter().filter(failed).count() as u64;
    if let Some(summary) = results.summary {
        if let Some(tests) = summary.tests.filter(|tests| *tests > found) {
            suite.problems.push(format!(
                "the summary says that there are {tests} tests, but {found} are there"
            ));
        }
        if let Some(failed) = summary.failed.filter(|failed| *failed > bad) {
            suite.problems.push(format!(
                "the summary counts {failed} failed tests, but {bad} failed"
            ));
        }
    }
    for test in results.tests {
        if !suite.push(case(test)) {
            break;
        }
    }
    suite
}

fn outcome(test: &Test) -> Outcome {
    let retried = test.flaky == Some(true) || test.retries.is_some_and(|retries| retries > 0);
    match test.status.as_str() {
        "passed" if retried => Outcome::Flaky,
        "passed" => Outcome::Passed,
        "skipped" | "pending" => Outcome::Skipped,
        // `other` says that the runner came to no verdict, which is no pass.
        _ => Outcome::Failed,
    }
}

fn case(test: Test) -> Case {
    let mut case = Case::new(&suite_name(test.suite.as_ref()), &test.name);
    case.outcome = outcome(&test);
    case.message = test.message.as_deref().and_then(some);
    if !matches!(test.status.as_str(), "passed" | "failed" | "skipped") && case.message.is_none() {
        case.message = Some(format!("status {}", super::line(&test.status)));
    }
    append(&mut case.details, test.trace.as_deref().unwrap_or_default());
    case.stdout = lines(test.stdout.as_ref());
    case.stderr = lines(test.stderr.as_ref());
    case.elapsed = test.duration.and_then(|millis| seconds(millis / 1_000.0));
    case.retries = u32::try_from(test.retries.unwrap_or(0)).unwrap_or(u32::MAX);
    let line = test.line.filter(|line| !line.is_null());
    let line = line.map(|line| line.to_string());
    case.place = place(test.file_path.as_deref(), line.as_deref());
    case
}

fn suite_name(suite: Option<&Value>) -> String {
    match suite {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let names: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            names.join(" > ")
        }
        _ => String::new(),
    }
}

fn lines(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let lines: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            lines.join("\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_report_is_read() {
        let suite = read(
            r#"{"reportFormat":"CTRF","specVersion":"0.0.0","results":{"tool":{"name":"t"},"summary":{"tests":6,"passed":2,"failed":2,"skipped":1,"pending":0,"other":1,"start":1,"stop":2},
            "tests":[{"name":"pays","status":"passed","duration":12.5,"suite":["orders.spec.ts","orders"]},
            {"name":"bills","status":"passed","duration":1,"retries":2,"suite":"s"},
            {"name":"x","status":"failed","duration":3,"message":"no","trace":"at x","filePath":"x.ts","line":7,"stdout":["a","b"],"retries":1},
            {"name":"y","status":"skipped","duration":0,"message":"later"},
            {"name":"z","status":"other","duration":0},
            {"name":"w","status":"passed","duration":0,"flaky":true,"unknown":[1]}]}}"#,
        );
        assert_eq!(suite.problems, Vec::<String>::new());
        let cases: Vec<_> = suite
            .cases
            .iter()
            .map(|case| (case.name.as_str(), case.outcome, case.retries))
            .collect();
        assert_eq!(
            cases,
            [
                ("orders.spec.ts > orders::pays", Outcome::Passed, 0),
                ("s::bills", Outcome::Flaky, 2),
                ("x", Outcome::Failed, 1),
                ("y", Outcome::Skipped, 0),
                ("z", Outcome::Failed, 0),
                ("w", Outcome::Flaky, 0),
            ]
        );
        assert_eq!(suite.cases[0].elapsed, Some(Duration::from_micros(12_500)));
        let x = &suite.cases[2];
        assert_eq!(
            (x.place.as_deref(), x.stdout.as_str()),
            (Some("x.ts:7"), "a\nb")
        );
        assert_eq!(suite.cases[4].message.as_deref(), Some("status other"));
    }

    #[test]
    fn a_report_that_is_broken_or_promises_more_has_a_problem() {
        for (text, problem) in [
            ("", "empty"),
            ("{", "broken CTRF"),
            (r#"{"results":{}}"#, "missing field `tests`"),
            (
                r#"{"results":{"summary":{"tests":2},"tests":[]}}"#,
                "says that there are 2",
            ),
            (
                r#"{"results":{"summary":{"tests":1,"failed":1},"tests":[{"name":"a","status":"passed"}]}}"#,
                "counts 1 failed",
            ),
        ] {
            let problems = read(text).problems.concat();
            assert!(problems.contains(problem), "{text}: {problems}");
        }
        let deep = format!("{{\"results\":{{\"tests\":{}", "[".repeat(1_000_000));
        assert!(read(&deep).problems.concat().contains("broken CTRF"));
    }
}
