//! `--report json=FILE`: the view as it is, and the findings. `docs/reports.md` describes its fields, [`SCHEMA`] their
//! types.

use super::finding::{Findings, findings};
use super::logs::Logs;
use super::view::RunView;
use serde::Serialize;

/// The JSON report: the fields of the view, and the findings beside them.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    view: &'a RunView,
    findings: Findings,
}

/// JSON Schema of the report. It is kept by hand beside the view: a test fails if the report has a field that the schema
/// doesn't name. It allows further fields, because fields may be added within a version of the report.
pub const SCHEMA: &str = include_str!("json/report.schema.json");

/// Returns the report, with a line break at its end.
pub fn render(view: &RunView) -> Result<String, serde_json::Error> {
    render_with(view, None)
}

/// Returns the report with differences in the logs of [`compared`](crate::finding::compared) cells.
pub fn render_with(view: &RunView, logs: Option<&Logs>) -> Result<String, serde_json::Error> {
    let report = Report {
        view,
        findings: findings(view, logs),
    };
    serde_json::to_string_pretty(&report).map(|text| text + "\n")
}
