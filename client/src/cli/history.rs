//! `phalanx history`: shows outcomes and times of a spec, a cell or a step over runs.

use super::error::CliError;
use super::{Context, connect, exit, now, past, say};
use crate::spec_file;
use phalanx_proto::v1::RunSummary;
use phalanx_report::history::History;
use phalanx_report::history::detail::{Pick, cell_history, step_history};
use phalanx_report::history::overview::overview;
use phalanx_report::history::text;
use serde::Serialize;
use std::path::Path;

/// Show a spec, a cell or a step over its last runs: broken since when, flaky where, slower, not verified
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx history shop                    the last runs of a spec
  phalanx history shop 'mysql / v2.0'     one cell in these runs
  phalanx history shop 'order a book'     one step in all cells")]
pub struct Args {
    /// Name of the spec, or the path of its file
    spec: String,
    /// Cell (id, beginning of an id, or name) or step (name, `phase > name`, or a part of it)
    #[arg(value_name = "CELL|STEP")]
    of: Option<String>,
    /// Maximum number of runs to read, the newest ones
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=200))]
    last: u32,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Output format of a history.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let runs = connect::list(context, connect::PICK_AMONG, false).await?;
    let spec = spec_name(&args.spec, &runs)?;
    let most = usize::try_from(args.last).unwrap_or(usize::MAX);
    let newest = past::of_spec(&runs, &spec, most);
    let (history, unreadable) = past::read(&context.settings, newest).await?;
    for (run, why) in unreadable {
        context.voice.note(&format!("run {run} is left out: {why}"));
    }
    if history.runs().is_empty() {
        return Err(
            CliError::usage(format!("no run of {spec} has finished yet"))
                .with_help("phalanx runs lists the runs"),
        );
    }
    say::to_stdout(shown(&args, &spec, &history, context)?)?;
    Ok(exit::OK)
}

fn shown(
    args: &Args,
    spec: &str,
    history: &History,
    context: &Context,
) -> Result<String, CliError> {
    let style = context.voice.stdout_style();
    let as_json = args.format == Format::Json;
    let Some(of) = &args.of else {
        let found = overview(spec, history, now());
        return match as_json {
            true => json(&found),
            false => Ok(text::overview(&found, style)),
        };
    };
    match history.pick(of) {
        Pick::Cell(cell) => {
            let Some(found) = cell_history(history, cell) else {
                return Err(nothing(of, spec));
            };
            match as_json {
                true => json(&found),
                false => Ok(text::cell(&found, style)),
            }
        }
        Pick::Step(step) => {
            let found = step_history(history, step);
            match as_json {
                true => json(&found),
                false => Ok(text::step(&found, style)),
            }
        }
        Pick::Several(names) => Err(CliError::usage(format!("`{of}` means several"))
            .with_help(format!("write one of: {}", names.join("; ")))),
        Pick::Nothing => Err(nothing(of, spec)),
    }
}

fn nothing(of: &str, spec: &str) -> CliError {
    CliError::usage(format!(
        "the last runs of {spec} have no cell and no step `{of}`"
    ))
    .with_help("phalanx show lists the cells and steps of a run; --last reads more runs")
}

fn json(value: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value);
    let text = text
        .map_err(|error| CliError::errored(format!("can't write the history as JSON: {error}")))?;
    Ok(text + "\n")
}

/// Returns the name of the spec that the user means: a name that runs have, or that of the spec in a file.
fn spec_name(text: &str, runs: &[RunSummary]) -> Result<String, CliError> {
    if runs.iter().any(|run| run.spec == text) {
        return Ok(text.to_owned());
    }
    if Path::new(text).is_file() {
        let loaded = spec_file::load(text);
        let Some(spec) = loaded.spec else {
            return Err(CliError::usage(format!("{text} is not a valid spec"))
                .with_help(format!("phalanx validate {text}")));
        };
        return Ok(spec.name.clone());
    }
    let error = CliError::usage(format!("there is no run of a spec `{text}`"));
    let near = runs
        .iter()
        .map(|run| (strsim::damerau_levenshtein(&run.spec, text), &run.spec));
    Err(match near.min() {
        Some((_, name)) => error.with_help(format!("did you mean `{name}`?")),
        None => error.with_help("phalanx run SPEC makes one"),
    })
}
