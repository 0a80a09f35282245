//! `phalanx show`: shows the summary of a run, all steps of a cell, or a report.

use super::error::CliError;
use super::interrupt::guarded;
use super::pick::pick_cell;
use super::reports::{Evidence, Kind, compared_logs, contents};
use super::source::RunOrFile;
use super::{Context, exit, follow, say};
use crate::config::Flag;
use crate::config::output::COVERAGE_AXIS;
use phalanx_report::logs::{Limit, Logs};
use phalanx_report::style::Style;
use phalanx_report::terminal::{self, Detail};
use phalanx_report::tree;
use phalanx_report::view::RunView;

/// Show a run: failures, skips, coverage and times; with --cell every step and its commands' output
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx show                             the newest run
  phalanx show 0193 --cell 'mysql / v2.0'  every step of all attempts of a cell
  phalanx show --format junit > junit.xml  a report of a finished run
  phalanx show --format html > run.html    one page with every step and the logs
  phalanx show --file r.phx                a run that `phalanx export` wrote, on any machine")]
pub struct Args {
    #[command(flatten)]
    source: RunOrFile,
    /// Show only this cell: id, beginning of an id, or name
    #[arg(long, value_name = "CELL")]
    cell: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Axis for the columns of the coverage table; `cell` for one column per cell
    #[arg(long, value_name = "AXIS")]
    coverage_axis: Option<String>,
}

/// Output format of a run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Junit,
    Ctrf,
    Markdown,
    Html,
}

impl Args {
    /// Returns the setting that the flags give.
    pub fn flags(&self) -> Option<Flag> {
        coverage_axis_flag(self.coverage_axis.as_deref())
    }
}

/// Converts `--coverage-axis` to a setting.
pub(super) fn coverage_axis_flag(axis: Option<&str>) -> Option<Flag> {
    axis.map(|axis| Flag {
        key: COVERAGE_AXIS.key,
        name: "--coverage-axis",
        value: axis.to_owned(),
    })
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    guarded(args.source.is_file(), shown(args, context)).await
}

async fn shown(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) = args.source.open(context).await?;
    let (state, now) = follow::fetch(connection.client(), run.clone()).await?;
    let mut view = super::view(context, &state, now)?;
    if let Some(cell) = &args.cell {
        let id = pick_cell(&view, cell)?.id.clone();
        view.cells.retain(|cell| cell.id == id);
    }
    let compares = matches!(args.format, Format::Text | Format::Json | Format::Markdown);
    let logs = match compares && args.cell.is_none() {
        true => compared_logs(&connection, &view).await,
        false => None,
    };
    let mut evidence = Evidence::of_logs(logs);
    let text = match args.format {
        Format::Text => text(&view, evidence.logs.as_ref(), args.cell.is_some(), context),
        Format::Json => Kind::Json.render(&view, &evidence)?,
        Format::Ctrf => Kind::Ctrf.render(&view, &evidence)?,
        Format::Junit => Kind::Junit.render(&view, &evidence)?,
        Format::Markdown => Kind::Markdown.render(&view, &evidence)?,
        Format::Html => {
            let logs = follow::fetch_logs(connection.client(), run, Limit::default()).await?;
            evidence.logs = Some(logs);
            evidence.artifacts = contents(&connection, &view).await;
            Kind::Html.render(&view, &evidence)?
        }
    };
    connection.close().await;
    say::to_stdout(text)?;
    Ok(exit::OK)
}

fn text(view: &RunView, logs: Option<&Logs>, whole_cell: bool, context: &Context) -> String {
    let style: Style = context.voice.stdout_style();
    if whole_cell {
        return view
            .cells
            .iter()
            .map(|cell| tree::render(cell, style, context.voice.verbose))
            .collect();
    }
    let detail = Detail {
        width: context.voice.stdout_width(),
        style,
        verbose: context.voice.verbose,
    };
    terminal::render_with(view, logs, detail)
}
