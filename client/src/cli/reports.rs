//! `--report KIND=FILE`, and the output for GitHub Actions.

use super::artifacts::{content, fetch_run};
use super::connect::Connection;
use super::error::CliError;
use super::follow::{Followed, Left, fetch_logs, fetch_logs_of};
use super::interrupt::Interrupts;
use super::say::{self, to_stdout};
use super::{Context, exit};
use phalanx_report::artifacts::{Attachments, Contents, wanted};
use phalanx_report::finding::compared;
use phalanx_report::logs::{Limit, Logs};
use phalanx_report::view::RunView;
use phalanx_report::{ctrf, github, html, json, junit, markdown};
use phalanx_shared::error_code::ErrorCode;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// JUnit XML: a suite per cell, a case per step.
    Junit,
    /// The Common Test Report Format (ctrf.io): a test per step, axes as labels.
    Ctrf,
    /// The whole view of the run (docs/reports.md).
    Json,
    /// A Markdown page for people.
    Markdown,
    /// One HTML file for people, with every step and the logs.
    Html,
}

impl Kind {
    /// Returns whether the report shows logs.
    pub fn has_logs(self) -> bool {
        self == Kind::Html
    }

    /// Renders the report. Without logs and artifacts, a report that could show them has none.
    pub fn render(self, view: &RunView, evidence: &Evidence) -> Result<String, CliError> {
        let logs = evidence.logs.as_ref();
        let failed = |error: String| CliError::errored(format!("can't make the report: {error}"));
        match self {
            Kind::Junit => junit::render_with(view, &evidence.attachments)
                .map_err(|error| failed(error.to_string())),
            Kind::Ctrf => ctrf::render_with(view, &evidence.attachments)
                .map_err(|error| failed(error.to_string())),
            Kind::Json => json::render_with(view, logs).map_err(|error| failed(error.to_string())),
            Kind::Markdown => Ok(markdown::render_with(view, logs, markdown::GITHUB)),
            Kind::Html => Ok(html::render_with(view, logs, &evidence.artifacts)),
        }
    }
}

/// What reports show beside a run's state.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Logs, of all cells or of those that findings compare.
    pub logs: Option<Logs>,
    /// Contents of artifacts.
    pub artifacts: Contents,
    /// Paths of artifacts that were fetched.
    pub attachments: Attachments,
}

impl Evidence {
    /// Logs alone.
    pub fn of_logs(logs: Option<Logs>) -> Evidence {
        Evidence {
            logs,
            ..Evidence::default()
        }
    }
}

/// One `--report` option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Format of the report.
    pub kind: Kind,
    /// File to write; `None` is standard output.
    pub file: Option<PathBuf>,
}

impl FromStr for Report {
    type Err = String;

    fn from_str(text: &str) -> Result<Report, String> {
        let (kind, file) = text.split_once('=').unwrap_or((text, ""));
        let kind = match kind {
            "junit" => Kind::Junit,
            "ctrf" => Kind::Ctrf,
            "json" => Kind::Json,
            "markdown" | "md" => Kind::Markdown,
            "html" => Kind::Html,
            other => {
                return Err(format!(
                    "unknown kind of report `{other}`: expected junit, ctrf, json, markdown or html"
                ));
            }
        };
        match file {
            "" => Err(format!(
                "where to? Write `{text}=FILE`, or `{text}=-` for standard output"
            )),
            "-" => Ok(Report { kind, file: None }),
            file => Ok(Report {
                kind,
                file: Some(PathBuf::from(file)),
            }),
        }
    }
}

/// Checks before the run whether the reports can be written.
pub fn check(reports: &[Report]) -> Result<(), CliError> {
    if reports
        .iter()
        .filter(|report| report.file.is_none())
        .count()
        > 1
    {
        return Err(CliError::usage("only one report can go to standard output"));
    }
    for file in reports.iter().filter_map(|report| report.file.as_deref()) {
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let message = format!(
                "can't write the report {}: there is no directory {}",
                file.display(),
                folder.display()
            );
            return Err(CliError::usage(message)
                .with_help(format!("mkdir -p {}", folder.display()))
                .explained_by(ErrorCode::Report));
        }
        if file.is_dir() {
            return Err(CliError::usage(format!(
                "can't write the report {}: it is a directory",
                file.display()
            )));
        }
    }
    Ok(())
}

/// Logs of the cells that findings compare, at most.
const COMPARED: Limit = Limit {
    lines: 100_000,
    bytes: 16 << 20,
};
/// Time to wait for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns what reports show of a run that was followed, if the coordinator can still be asked: all of them if one of the reports
/// shows logs, else those of the cells that findings compare. Reports are written without them if they can't be read or a
/// signal comes first, and a message says so if a report should show them.
pub async fn evidence_for(
    reports: &[Report],
    files: Option<&Path>,
    connection: &Connection,
    followed: &Followed,
    context: &Context,
    interrupts: &mut Interrupts,
) -> Evidence {
    let logs = logs_for(reports, connection, followed, context, interrupts).await;
    let mut evidence = Evidence::of_logs(logs);
    if let Some(out) = files
        && !matches!(followed.left, Left::Lost(_))
        && let Ok(view) = super::view(context, &followed.state, super::now())
    {
        let fetched = tokio::select! {
            stop = interrupts.next() => Err(CliError::errored(format!("{} came first", stop.name()))),
            fetched = fetch_run(connection, &view, out) => fetched,
        };
        match fetched {
            Ok(attachments) => evidence.attachments = attachments,
            // The run's outcome decides the exit code.
            Err(error) => {
                let out = out.display();
                say::to_stderr(&format!("{out} lacks artifacts: {}\n", error.message));
            }
        }
    }
    let is_shown = reports.iter().any(|report| report.kind.has_logs());
    if is_shown
        && !matches!(followed.left, Left::Lost(_))
        && let Ok(view) = super::view(context, &followed.state, super::now())
    {
        evidence.artifacts = tokio::select! {
            _ = interrupts.next() => Contents::default(),
            contents = contents(connection, &view) => contents,
        };
    }
    evidence
}

/// Fetches the artifacts that a page shows. A page names those that can't be fetched.
pub async fn contents(connection: &Connection, view: &RunView) -> Contents {
    let mut contents = Contents::default();
    for artifact in wanted(view) {
        let Ok(mut pieces) = content(connection, &view.run, &artifact.digest).await else {
            continue;
        };
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = pieces.message().await
            && bytes.len() as u64 <= artifact.size
        {
            bytes.extend(piece.data);
        }
        if bytes.len() as u64 == artifact.size {
            contents.insert(artifact.digest.clone(), bytes);
        }
    }
    contents
}

async fn logs_for(
    reports: &[Report],
    connection: &Connection,
    followed: &Followed,
    context: &Context,
    interrupts: &mut Interrupts,
) -> Option<Logs> {
    if matches!(followed.left, Left::Lost(_)) {
        return None;
    }
    let run = followed.state.run.clone();
    if !reports.iter().any(|report| report.kind.has_logs()) {
        let view = super::view(context, &followed.state, super::now()).ok()?;
        let fetched = tokio::select! {
            _ = interrupts.next() => None,
            fetched = compared_logs(connection, &view) => fetched,
        };
        return fetched;
    }
    let fetched = tokio::select! {
        stop = interrupts.next() => Err(CliError::errored(format!("{} came first", stop.name()))),
        fetched = fetch_logs(connection.client(), run, Limit::default()) => fetched,
    };
    match fetched {
        Ok(logs) => Some(logs),
        Err(error) => {
            say::to_stderr(&format!("the report has no logs: {}\n", error.message));
            None
        }
    }
}

/// Returns the logs of the cells that findings compare. They only add lines to the findings, so reports do without them
/// if they can't be read in time.
pub async fn compared_logs(connection: &Connection, view: &RunView) -> Option<Logs> {
    let cells = compared(view);
    if cells.is_empty() {
        return None;
    }
    let fetched = fetch_logs_of(connection.client(), &view.run, &cells, COMPARED);
    tokio::time::timeout(PATIENCE, fetched).await.ok()?.ok()
}

/// Writes all reports and the output for GitHub Actions. An error in one doesn't prevent the others.
pub fn write(reports: &[Report], view: &RunView, evidence: &Evidence) -> Result<(), CliError> {
    let mut first_error = Ok(());
    for report in reports {
        let written = report
            .kind
            .render(view, evidence)
            .and_then(|text| match &report.file {
                // The reader closed the pipe; the run's outcome decides the exit code.
                None => to_stdout(text).or_else(|error| match error.code {
                    exit::OK => Ok(()),
                    _ => Err(error),
                }),
                Some(file) => std::fs::write(file, text).map_err(|error| {
                    CliError::errored(format!(
                        "can't write the report {}: {error}",
                        file.display()
                    ))
                }),
            });
        first_error = first_error.and(written);
    }
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
        let data_on_stdout = reports.iter().any(|report| report.file.is_none());
        annotate(view, data_on_stdout);
        first_error = first_error.and(summarize(view, evidence.logs.as_ref()));
    }
    first_error
}

/// GitHub reads workflow commands from both outputs; they must not get into a report.
fn annotate(view: &RunView, data_on_stdout: bool) {
    let text = github::annotations(view);
    if data_on_stdout {
        super::say::to_stderr(&text);
    } else {
        let _ = to_stdout(text);
    }
}

fn summarize(view: &RunView, logs: Option<&Logs>) -> Result<(), CliError> {
    let Some(file) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|file| !file.is_empty()) else {
        return Ok(());
    };
    let file = PathBuf::from(file);
    // Earlier commands of the same step may have written there.
    let taken = std::fs::metadata(&file).map_or(0, |file| file.len());
    let taken = usize::try_from(taken).unwrap_or(usize::MAX);
    let text = markdown::render_with(view, logs, markdown::GITHUB.saturating_sub(taken));
    let mut options = std::fs::OpenOptions::new();
    let written = options
        .create(true)
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        CliError::errored(format!(
            "can't write GITHUB_STEP_SUMMARY {}: {error}",
            file.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_report_names_its_kind_and_its_file() {
        let report: Report = "junit=out/a=b.xml".parse().unwrap();
        assert_eq!(report.file, Some(PathBuf::from("out/a=b.xml")));
        assert_eq!("json=-".parse::<Report>().unwrap().file, None);
        assert!(
            "pdf=x"
                .parse::<Report>()
                .unwrap_err()
                .contains("junit, ctrf, json, markdown or html")
        );
        assert!("json".parse::<Report>().unwrap_err().contains("json=FILE"));
    }

    #[test]
    fn a_missing_directory_is_told_before_anything_runs() {
        let report: Report = "json=/no/such/place/x.json".parse().unwrap();
        let error = check(&[report]).unwrap_err();
        assert_eq!(error.code, crate::cli::exit::USAGE);
        assert!(error.message.contains("/no/such/place"));
    }
}
