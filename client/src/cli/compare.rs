//! `phalanx compare`: shows what changed from one run to another.

use super::connect::Connection;
use super::error::CliError;
use super::interrupt::guarded;
use super::{Context, connect, exit, follow, past, say, source};
use phalanx_proto::v1::GetSubmissionRequest;
use phalanx_report::compare::{Comparison, Side, compare, text};
use phalanx_report::history::History;
use phalanx_report::view::RunView;
use phalanx_shared::id::RunId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use std::path::Path;

/// Number of earlier runs of the spec from which noise bands are made.
const HISTORY: usize = 20;

/// Ending of files with exported runs.
const EXPORTED: &str = "phx";

/// Compare two runs: new failures first, then inputs, images, spec, agents, times and the critical path
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Exit codes: 0 no new failure; 1 a new failure, or the later run failed and the earlier one didn't; 3 no new failure, but
cells that can't be judged any more, or a later run that errored, was cancelled or isn't finished (the earlier one was ok).

Examples:
  phalanx compare 0193-aaaa last            the newest run against an earlier one
  phalanx compare 0193-aaaa --format json   for programs
  phalanx compare 0193-aaaa ci.phx          against a run that CI exported")]
pub struct Args {
    /// Id of the earlier run, or its beginning or end, or a file that `phalanx export` wrote (*.phx)
    before: String,
    /// Id of the later run, or its beginning or end, or a file that `phalanx export` wrote (*.phx)
    #[arg(default_value = "last")]
    after: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Output format of a comparison.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Markdown,
}

/// A run with what is needed to compare it.
struct Fetched {
    state: RunState,
    view: RunView,
    files: Vec<(String, String)>,
}

impl Fetched {
    fn side(&self) -> Side<'_> {
        Side {
            view: &self.view,
            plan: self.state.plan.as_ref(),
            files: &self.files,
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let unpacks = exported(&args.before).or(exported(&args.after)).is_some();
    guarded(unpacks, shown(args, context)).await
}

async fn shown(args: Args, context: &Context) -> Result<u8, CliError> {
    let before = fetched(context, &args.before).await?;
    let after = fetched(context, &args.after).await?;
    // Two files need no coordinator; without one the noise bands of earlier runs are missing.
    let files = exported(&args.before).and(exported(&args.after)).is_some();
    let comparison = compared(&before, &after, files, context).await?;
    let shown = match args.format {
        Format::Text => text::terminal(&comparison, context.voice.stdout_style()),
        Format::Markdown => text::markdown(&comparison),
        Format::Json => {
            let json = serde_json::to_string_pretty(&comparison);
            let json = json.map_err(|error| {
                CliError::errored(format!("can't write the comparison as JSON: {error}"))
            })?;
            json + "\n"
        }
    };
    say::to_stdout(shown)?;
    Ok(match comparison.regression() {
        None => exit::OK,
        Some(Outcome::Errored | Outcome::Cancelled) => exit::ERRORED,
        Some(_) => exit::FAILED,
    })
}

async fn compared(
    before: &Fetched,
    after: &Fetched,
    files: bool,
    context: &Context,
) -> Result<Comparison, CliError> {
    let runs = match connect::list(context, connect::PICK_AMONG, false).await {
        Err(error) if files => {
            let why = error.message;
            context
                .voice
                .note(&format!("no earlier runs for the noise bands: {why}"));
            return Ok(compare(&before.side(), &after.side(), &History::default()));
        }
        listed => listed?,
    };
    let submitted = after.state.submitted.unwrap_or_default();
    let earlier = past::of_spec(&runs, &after.view.spec, usize::MAX)
        .filter(|run| run.submitted_us < submitted.0)
        .take(HISTORY);
    let (history, unreadable) = past::read(&context.settings, earlier).await?;
    for (run, why) in unreadable {
        context
            .voice
            .note(&format!("run {run} is left out of the noise bands: {why}"));
    }
    Ok(compare(&before.side(), &after.side(), &history))
}

/// Returns the path if the text names a file with an exported run.
fn exported(text: &str) -> Option<&Path> {
    let file = Path::new(text);
    let exported = file.extension().is_some_and(|ending| ending == EXPORTED);
    exported.then_some(file)
}

async fn fetched(context: &Context, text: &str) -> Result<Fetched, CliError> {
    let (connection, run) = source::open(context, Some(text), exported(text)).await?;
    let files = spec_files(&connection, &run).await;
    let (state, now) = follow::fetch(connection.client(), run).await?;
    connection.close().await;
    let view = RunView::of(&state, now, None);
    Ok(Fetched { state, view, files })
}

/// Returns the files of a run's spec; none if the coordinator can't tell them.
async fn spec_files(connection: &Connection, run: &RunId) -> Vec<(String, String)> {
    let request = GetSubmissionRequest {
        run_id: run.to_string(),
    };
    let answer = connection.client().get_submission(request).await;
    let submission = answer
        .ok()
        .and_then(|answer| answer.into_inner().submission);
    let files = submission
        .into_iter()
        .flat_map(|submission| submission.files);
    files.map(|file| (file.name, file.text)).collect()
}
