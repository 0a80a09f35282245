//! `--report ctrf=FILE`: the Common Test Report Format (<https://ctrf.io>), a test for each step.
//!
//! Cells and phases are the suite, the axes are labels, and an earlier attempt at the cell is a retry attempt. If a cell
//! isn't ok although no step failed, it gets a test of its own, as in JUnit, so that it doesn't look green. So does a run
//! that fails only because more steps were skipped than the spec allows.
//!
//! Errored and cancelled tests count as failed: many readers take only that for red. `rawStatus` has Phalanx's own word.

use super::artifacts::{Attachment, Attachments};
use super::style::Style;
use super::text::{failure, lines_text, too_many_skips};
use super::view::{AttemptView, CellView, RunView, StepView};
use indexmap::IndexMap;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Version of the format that is written. The schema that tests check it against is a copy of this version's
/// (`report/tests/ctrf/`).
const VERSION: &str = "0.0.0";

/// Name of the test of a run that fails although all of its cells are ok.
const RUN: &str = "(run)";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    report_format: &'static str,
    spec_version: &'static str,
    run_id: &'a str,
    generated_by: String,
    results: Results<'a>,
}

#[derive(Serialize)]
struct Results<'a> {
    tool: Value,
    summary: Summary,
    tests: Vec<Test<'a>>,
    environment: Value,
}

/// Numbers of tests by status; times in milliseconds.
#[derive(Default, Serialize)]
struct Summary {
    tests: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
    pending: usize,
    other: usize,
    flaky: usize,
    suites: usize,
    start: i64,
    stop: i64,
    duration: u64,
    extra: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Passed,
    Failed,
    Skipped,
    Pending,
}

/// One test: a step, or a cell without a step that says why it isn't ok. Times in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Test<'a> {
    test_id: String,
    execution_id: String,
    name: &'a str,
    status: Status,
    raw_status: &'a str,
    duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<i64>,
    suite: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'static str>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    labels: &'a IndexMap<String, Value>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retry_attempts: Vec<Value>,
    flaky: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stdout: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stderr: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Value>,
    extra: Value,
}

/// Returns the report, with a line break at its end.
pub fn render(view: &RunView) -> Result<String, serde_json::Error> {
    render_with(view, &Attachments::default())
}

/// Returns the report with the files of its tests.
pub fn render_with(view: &RunView, files: &Attachments) -> Result<String, serde_json::Error> {
    let files: Vec<_> = view.cells.iter().map(|cell| files.by_step(cell)).collect();
    let labels: Vec<IndexMap<String, Value>> = view.cells.iter().map(labels).collect();
    let cells = view.cells.iter().zip(&labels).zip(&files);
    let skips = too_many_skips(view);
    let none = IndexMap::new();
    let tests: Vec<Test<'_>> = cells
        .flat_map(|((cell, labels), files)| {
            let suite = Suite {
                view,
                cell,
                labels,
                files,
            };
            suite.tests()
        })
        .chain(skips.as_deref().map(|why| whole_run(view, why, &none)))
        .collect();
    let document = Document {
        report_format: "CTRF",
        spec_version: VERSION,
        run_id: view.run.as_str(),
        generated_by: format!("phalanx {}", env!("CARGO_PKG_VERSION")),
        results: Results {
            tool: json!({ "name": "phalanx", "version": env!("CARGO_PKG_VERSION") }),
            summary: summary(view, &tests),
            environment: json!({ "reportName": view.spec }),
            tests,
        },
    };
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

fn summary(view: &RunView, tests: &[Test<'_>]) -> Summary {
    let start = view.submitted.map_or(0, millis);
    let duration = view.timing.wall_us / 1_000;
    let mut summary = Summary {
        tests: tests.len(),
        suites: view.cells.len(),
        start,
        stop: start.saturating_add(i64::try_from(duration).unwrap_or(i64::MAX)),
        duration,
        ..Summary::default()
    };
    for test in tests {
        *match test.status {
            Status::Passed => &mut summary.passed,
            Status::Failed => &mut summary.failed,
            Status::Skipped => &mut summary.skipped,
            Status::Pending => &mut summary.pending,
        } += 1;
        summary.flaky += usize::from(test.flaky);
    }
    let outcome = view.outcome.map_or("running", Outcome::as_str);
    summary.extra.insert("outcome".to_owned(), outcome.into());
    summary
}

/// Returns the axes of a cell as labels. A label has a scalar or a list of scalars; anything else becomes text.
fn labels(cell: &CellView) -> IndexMap<String, Value> {
    let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    let label = |value: &Value| match value {
        Value::Array(items) if !items.is_empty() && items.iter().all(scalar) => value.clone(),
        value if scalar(value) => value.clone(),
        other => other.to_string().into(),
    };
    let axes = cell.matrix.iter();
    axes.map(|(axis, value)| (axis.clone(), label(value)))
        .collect()
}

/// Returns the test of a run that fails although all of its cells are ok.
fn whole_run<'a>(view: &'a RunView, why: &'a str, none: &'a IndexMap<String, Value>) -> Test<'a> {
    Test {
        message: Some(why),
        file_path: Some(view.path.as_str()).filter(|path| !path.is_empty()),
        raw_status: Outcome::Failed.as_str(),
        ..Test::new(
            RUN.to_owned(),
            format!("{}/{RUN}", view.run),
            RUN,
            vec![&view.spec, RUN],
            none,
            Some(Outcome::Failed),
        )
    }
}

/// One cell of the report.
struct Suite<'a> {
    view: &'a RunView,
    cell: &'a CellView,
    labels: &'a IndexMap<String, Value>,
    /// Files by the path of their step.
    files: &'a HashMap<&'a str, Vec<Attachment<'a>>>,
}

impl<'a> Suite<'a> {
    fn tests(&self) -> Vec<Test<'a>> {
        let cell = self.cell;
        let earlier = Earlier::of(cell);
        let steps = cell.steps().map(|step| self.step(step, &earlier));
        let mut tests: Vec<Test<'a>> = steps.collect();
        let bad = |outcome: Option<Outcome>| outcome.is_some_and(|outcome| !outcome.is_ok());
        if bad(cell.outcome) && !cell.steps().any(|step| bad(step.outcome)) {
            tests.push(self.whole());
        }
        tests
    }

    fn step(&self, step: &'a StepView, earlier: &Earlier<'a>) -> Test<'a> {
        let is_bad = step.outcome.is_some_and(|outcome| !outcome.is_ok());
        let detail = is_bad.then(|| lines_text(&failure(step), Style::PLAIN));
        let output = step.output.as_ref();
        let lines = |text: Option<&'a String>| text.map_or_else(Vec::new, |t| t.lines().collect());
        let retries = step.tries.saturating_sub(1);
        Test {
            trace: detail.filter(|text| !text.is_empty()),
            message: step.reason.as_deref(),
            line: line(step, &self.view.path),
            retries: (retries > 0).then_some(retries.into()),
            retry_attempts: earlier.attempts(step, self.cell),
            flaky: step.outcome == Some(Outcome::Flaky),
            stdout: lines(output.map(|output| &output.stdout)),
            stderr: lines(output.map(|output| &output.stderr)),
            attachments: self.attachments(&step.path),
            start: Some(millis(step.began)),
            stop: Some(millis(step.began).saturating_add(as_millis(step.elapsed_us))),
            extra: self.extra(step),
            ..self.test(&step.path, &step.name, &step.phase, step.outcome)
        }
        .timed(step.word(), step.elapsed_us)
    }

    fn attachments(&self, path: &str) -> Vec<Value> {
        let files = self.files.get(path).into_iter().flatten();
        let attachment = |file: &Attachment<'_>| {
            json!({
                "name": file.artifact.name,
                "contentType": file.artifact.media_type,
                "path": file.path,
            })
        };
        files.map(attachment).collect()
    }

    fn extra(&self, step: &StepView) -> Value {
        let mut extra = json!({
            "cell": self.cell.id,
            "path": step.path,
            "action": step.action,
            "verifies": step.verifies,
        });
        if let (Some(of), Some(fields)) = (&step.restored, extra.as_object_mut()) {
            let restored = json!({ "snapshot": of.key, "run": of.run });
            fields.insert("restored".to_owned(), restored);
        }
        extra
    }

    /// Returns the test of a cell that isn't ok although none of its steps says so.
    fn whole(&self) -> Test<'a> {
        let cell = self.cell;
        let word = cell.outcome.map_or("running", Outcome::as_str);
        Test {
            message: cell.reason.as_deref(),
            ..self.test("", "(cell)", "(cell)", cell.outcome)
        }
        .timed(word, cell.elapsed_us.unwrap_or(0))
    }

    fn test(
        &self,
        path: &str,
        name: &'a str,
        phase: &'a str,
        outcome: Option<Outcome>,
    ) -> Test<'a> {
        let (cell, newest) = (self.cell, self.cell.newest());
        let attempt = newest.map_or(0, |attempt| attempt.attempt);
        Test {
            file_path: Some(self.view.path.as_str()).filter(|path| !path.is_empty()),
            tags: if cell.experimental {
                vec!["experimental"]
            } else {
                Vec::new()
            },
            thread_id: newest.map(|attempt| attempt.agent.as_str()),
            extra: json!({ "cell": cell.id }),
            ..Test::new(
                format!("{}/{path}", cell.id),
                format!("{}/{}/{attempt}/{path}", self.view.run, cell.id),
                name,
                vec![&self.view.spec, &cell.name, phase],
                self.labels,
                outcome,
            )
        }
    }
}

impl<'a> Test<'a> {
    fn new(
        test_id: String,
        execution_id: String,
        name: &'a str,
        suite: Vec<&'a str>,
        labels: &'a IndexMap<String, Value>,
        outcome: Option<Outcome>,
    ) -> Test<'a> {
        Test {
            test_id,
            execution_id,
            // The format forbids an empty name.
            name: if name.is_empty() { "(step)" } else { name },
            status: status(outcome),
            raw_status: "",
            duration: 0,
            start: None,
            stop: None,
            suite,
            message: None,
            trace: None,
            file_path: None,
            line: None,
            tags: Vec::new(),
            labels,
            kind: "e2e",
            retries: None,
            retry_attempts: Vec::new(),
            flaky: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
            thread_id: None,
            attachments: Vec::new(),
            extra: json!({}),
        }
    }

    fn timed(self, word: &'a str, elapsed_us: u64) -> Test<'a> {
        Test {
            raw_status: word,
            duration: elapsed_us / 1_000,
            ..self
        }
    }
}

/// The steps of a cell's attempts before the newest, by path.
struct Earlier<'a>(Vec<(&'a AttemptView, HashMap<&'a str, &'a StepView>)>);

impl<'a> Earlier<'a> {
    fn of(cell: &'a CellView) -> Earlier<'a> {
        let before = cell.attempts.split_last().map_or(&[][..], |(_, rest)| rest);
        let by_path = |attempt: &'a AttemptView| {
            let steps = attempt.steps.iter();
            let steps = steps.map(|step| (step.path.as_str(), step)).collect();
            (attempt, steps)
        };
        Earlier(before.iter().map(by_path).collect())
    }

    /// Returns the attempts at a step, the newest last; none if the cell had one attempt only.
    fn attempts(&self, step: &StepView, cell: &CellView) -> Vec<Value> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let entry = |attempt: u32, step: &StepView| {
            let mut entry = json!({
                "attempt": attempt.max(1),
                "status": status(step.outcome),
                "duration": step.elapsed_us / 1_000,
            });
            if let (Some(reason), Some(entry)) = (&step.reason, entry.as_object_mut()) {
                entry.insert("message".to_owned(), reason.as_str().into());
            }
            entry
        };
        let before = self.0.iter().filter_map(|(attempt, steps)| {
            let known = steps.get(step.path.as_str())?;
            Some(entry(attempt.attempt, known))
        });
        let newest = cell.newest().map_or(1, |attempt| attempt.attempt);
        before.chain([entry(newest, step)]).collect()
    }
}

fn status(outcome: Option<Outcome>) -> Status {
    match outcome {
        None => Status::Pending,
        Some(Outcome::Passed | Outcome::Flaky) => Status::Passed,
        Some(Outcome::Failed | Outcome::Errored | Outcome::Cancelled) => Status::Failed,
        Some(Outcome::Skipped) => Status::Skipped,
    }
}

/// Returns the line of a failed step in the spec, if its place is in the spec's own file (`file:line:column`).
fn line(step: &StepView, path: &str) -> Option<u64> {
    let place = step.failure.as_ref()?.place.as_ref()?;
    let mut parts = place.rsplitn(3, ':');
    let (_column, line, file) = (parts.next()?, parts.next()?, parts.next()?);
    (file == path).then(|| line.parse().ok())?
}

fn millis(at: Timestamp) -> i64 {
    at.0 / 1_000
}

fn as_millis(micros: u64) -> i64 {
    i64::try_from(micros / 1_000).unwrap_or(i64::MAX)
}
