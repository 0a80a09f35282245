//! `--report KIND=FILE`, and the output for GitHub Actions.

use super::error::CliError;
use super::exit;
use super::say::to_stdout;
use phalanx_report::view::RunView;
use phalanx_report::{github, json, junit, markdown};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// GitHub refuses summaries above 1 MiB.
const SUMMARY_MAX: usize = 1_000_000;

/// Format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// JUnit XML: a suite per cell, a case per step.
    Junit,
    /// The whole view of the run (docs/reports.md).
    Json,
    /// A Markdown page for people.
    Markdown,
}

impl Kind {
    /// Renders the report.
    pub fn render(self, view: &RunView) -> Result<String, CliError> {
        let failed = |error: String| CliError::errored(format!("can't make the report: {error}"));
        match self {
            Kind::Junit => junit::render(view).map_err(|error| failed(error.to_string())),
            Kind::Json => json::render(view).map_err(|error| failed(error.to_string())),
            Kind::Markdown => Ok(markdown::render(view)),
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
            "json" => Kind::Json,
            "markdown" | "md" => Kind::Markdown,
            other => {
                return Err(format!(
                    "unknown kind of report `{other}`: expected junit, json or markdown"
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
            return Err(
                CliError::usage(message).with_help(format!("mkdir -p {}", folder.display()))
            );
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

/// Writes all reports and the output for GitHub Actions. An error in one doesn't prevent the others.
pub fn write(reports: &[Report], view: &RunView) -> Result<(), CliError> {
    let mut first_error = Ok(());
    for report in reports {
        let written = report
            .kind
            .render(view)
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
        first_error = first_error.and(summarize(view));
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

fn summarize(view: &RunView) -> Result<(), CliError> {
    let Some(file) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|file| !file.is_empty()) else {
        return Ok(());
    };
    let mut text = markdown::render(view);
    if text.len() > SUMMARY_MAX {
        let end = text.floor_char_boundary(SUMMARY_MAX);
        text.truncate(end);
        text += "\n\n(cut: GitHub takes 1 MiB)\n";
    }
    let file = PathBuf::from(file);
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
            "html=x"
                .parse::<Report>()
                .unwrap_err()
                .contains("junit, json or markdown")
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
