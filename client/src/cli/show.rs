//! `phalanx show`: shows the summary of a run, all steps of a cell, or a report.

use super::error::CliError;
use super::reports::Kind;
use super::{Context, connect, exit, follow, say};
use crate::config::Flag;
use crate::config::output::COVERAGE_AXIS;
use phalanx_report::style::Style;
use phalanx_report::terminal::{self, Detail};
use phalanx_report::tree;
use phalanx_report::view::{CellView, RunView};

/// Show a run: failures, skips, coverage and times; with --cell every step and its commands' output
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx show                             the newest run
  phalanx show 0193 --cell 'mysql / v2.0'  every step of all attempts of a cell
  phalanx show --format junit > junit.xml  a report of a finished run")]
pub struct Args {
    /// Id of the run, or its beginning or end [default: the newest]
    run: Option<String>,
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
    Markdown,
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
    let (connection, run) = connect::to_run(context, args.run.as_deref()).await?;
    let (state, now) = follow::fetch(connection.client(), run).await?;
    let mut view = super::view(context, &state, now)?;
    if let Some(cell) = &args.cell {
        let id = pick_cell(&view, cell)?.id.clone();
        view.cells.retain(|cell| cell.id == id);
    }
    let text = match args.format {
        Format::Text => text(&view, args.cell.is_some(), context),
        Format::Json => Kind::Json.render(&view)?,
        Format::Junit => Kind::Junit.render(&view)?,
        Format::Markdown => Kind::Markdown.render(&view)?,
    };
    connection.close().await;
    say::to_stdout(text)?;
    Ok(exit::OK)
}

fn text(view: &RunView, whole_cell: bool, context: &Context) -> String {
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
    terminal::render(view, detail)
}

/// Finds the cell that the user means: an id, the beginning of one, or a name.
pub(super) fn pick_cell<'a>(view: &'a RunView, text: &str) -> Result<&'a CellView, CliError> {
    let by_name = view
        .cells
        .iter()
        .find(|cell| cell.name == text || cell.id.as_str() == text);
    if let Some(cell) = by_name {
        return Ok(cell);
    }
    let matching: Vec<&CellView> = view
        .cells
        .iter()
        .filter(|cell| cell.id.as_str().starts_with(text))
        .collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => {
            let near = view
                .cells
                .iter()
                .map(|cell| (strsim::damerau_levenshtein(&cell.name, text), &cell.name));
            let error = CliError::usage(format!("the run has no cell `{text}`"));
            Err(match near.min() {
                Some((_, name)) => error.with_help(format!("did you mean `{name}`?")),
                None => error,
            })
        }
        many => Err(CliError::usage(format!(
            "`{text}` means {} cells: write more of the id",
            many.len()
        ))),
    }
}
