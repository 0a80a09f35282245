//! `phalanx timing`: shows where the time of a run went, and what it would take with other figures.

use super::error::CliError;
use super::interrupt::guarded;
use super::pick::pick_cell;
use super::source::RunOrFile;
use super::{Context, exit, follow, say};
use phalanx_coordinator::schedule::replay::{Figures, Forecast, NoForecast, forecast};
use phalanx_report::profile::text::{self, Layout};
use phalanx_report::profile::{csv, trace};
use phalanx_report::text::{duration as shown, plural};
use phalanx_report::timing::{
    Change, Lane, Segment, Timing, Waterfall, cell_path, lanes, timing, waterfall,
};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::language::quantity::duration;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::WaitCause;
use serde::Serialize;

/// Show where the time of a run went: critical path, waits, slots; and predict it with other figures
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx timing                                   the newest run
  phalanx timing 0193 --cell 'mysql / v2.0'        the waterfall of a cell
  phalanx timing --format trace > run.json         a trace for https://ui.perfetto.dev
  phalanx timing --slots 16 --without image_pull   what if
  phalanx timing --faster db=10s                   what if db were ready 10 s sooner")]
pub struct Args {
    #[command(flatten)]
    source: RunOrFile,
    /// Show only this cell: id, beginning of an id, or name
    #[arg(long, value_name = "CELL", conflicts_with_all = ["slots", "without", "faster"])]
    cell: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Predict the wall time with this many slots, shared among the run's agents as theirs are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "What if")]
    slots: Option<u32>,
    /// Predict the wall time without waits of this cause: slot, readiness, image_pull …; repeatable
    #[arg(long, value_name = "WAIT", value_parser = parse_wait, help_heading = "What if")]
    without: Vec<WaitCause>,
    /// Predict the wall time with a service that is ready sooner by this time, at most at once; repeatable
    #[arg(long, value_name = "SERVICE=TIME", value_parser = parse_faster, help_heading = "What if")]
    faster: Vec<Change>,
}

/// Output format of a run's timing.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Tables and bars
    Text,
    /// All figures
    Json,
    /// One line per activity of each cell
    Csv,
    /// Chrome's trace format, for Perfetto
    Trace,
}

/// The JSON of a run.
#[derive(Serialize)]
struct OfRun<'a> {
    run: &'a RunId,
    #[serde(flatten)]
    timing: &'a Timing,
    lanes: Vec<Lane>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what_if: Option<WhatIf>,
}

/// The JSON of a cell.
#[derive(Serialize)]
struct OfCell<'a> {
    run: &'a RunId,
    waterfall: &'a Waterfall,
    critical_path: &'a [Segment],
}

/// The JSON of a prediction.
#[derive(Clone, Copy, Serialize)]
struct WhatIf {
    #[serde(flatten)]
    forecast: Forecast,
    /// Error of the replay of the run as it was, as a share of its wall time.
    error: f64,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    guarded(args.source.is_file(), told(args, context)).await
}

async fn told(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) = args.source.open(context).await?;
    let (state, now) = follow::fetch(connection.client(), run).await?;
    connection.close().await;
    let cell = match &args.cell {
        Some(text) => Some(
            pick_cell(&super::view(context, &state, now)?, text)?
                .id
                .clone(),
        ),
        None => None,
    };
    let what_if = what_if(&args, &state)?;
    let layout = Layout {
        width: context.voice.stdout_width(),
        style: context.voice.stdout_style(),
        verbose: context.voice.verbose,
    };
    let text = match (args.format, &cell) {
        (Format::Csv, cell) => csv::render(&state, cell.as_ref(), now),
        (Format::Trace, cell) => {
            let trace = trace::render(&state, cell.as_ref(), now);
            trace.map_err(|error| unmakable(&error))?
        }
        (format, Some(cell)) => of_cell(&state, cell, now, format, layout)?,
        (format, None) => of_run(&state, now, format, what_if, layout)?,
    };
    say::to_stdout(text)?;
    Ok(exit::OK)
}

fn of_run(
    state: &RunState,
    now: Timestamp,
    format: Format,
    what_if: Option<WhatIf>,
    layout: Layout,
) -> Result<String, CliError> {
    let timing = timing(state, now);
    if format == Format::Json {
        return json(&OfRun {
            run: &state.run,
            timing: &timing,
            lanes: lanes(state, now),
            what_if,
        });
    }
    let name = |cell: &CellId| {
        let planned = state.planned(cell);
        planned.map_or_else(|| cell.to_string(), |planned| planned.name.clone())
    };
    Ok(match what_if {
        Some(what_if) => predicted(&what_if),
        None => text::run(&timing, name, layout),
    })
}

fn of_cell(
    state: &RunState,
    cell: &CellId,
    now: Timestamp,
    format: Format,
    layout: Layout,
) -> Result<String, CliError> {
    let path = cell_path(state, cell, now);
    let waterfall = waterfall(state, cell, now)
        .ok_or_else(|| CliError::usage(format!("the run has no cell `{cell}`")))?;
    if format == Format::Json {
        return json(&OfCell {
            run: &state.run,
            waterfall: &waterfall,
            critical_path: &path,
        });
    }
    Ok(text::cell(&waterfall, &path, layout))
}

fn json(value: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| unmakable(&error))?;
    Ok(text + "\n")
}

fn unmakable(error: &serde_json::Error) -> CliError {
    CliError::errored(format!("can't make the report: {error}"))
}

fn what_if(args: &Args, state: &RunState) -> Result<Option<WhatIf>, CliError> {
    let without = args.without.iter().map(|cause| Change::Without(*cause));
    let figures = Figures {
        slots: args.slots,
        changes: without.chain(args.faster.iter().cloned()).collect(),
    };
    if figures == Figures::default() {
        return Ok(None);
    }
    if matches!(args.format, Format::Csv | Format::Trace) {
        let error = CliError::usage("a prediction has no CSV and no trace");
        return Err(error.with_help("use --format text or json"));
    }
    check_services(&args.faster, state)?;
    let forecast = forecast(state, &figures).map_err(|why| match why {
        NoForecast::Unfinished => {
            CliError::usage("the run can't be replayed: it isn't finished, or no cell started")
                .with_help("`phalanx watch` waits for its end")
        }
        NoForecast::Stranded(cells) => CliError::usage(format!(
            "the run can't be replayed so: no agent could run {}",
            plural(cells, "cell")
        ))
        .with_help("with few --slots some agents have none, and others may lack the cells' labels"),
    })?;
    let error = forecast.error();
    Ok(Some(WhatIf { forecast, error }))
}

/// Refuses services that no cell of the run had.
fn check_services(faster: &[Change], state: &RunState) -> Result<(), CliError> {
    let attempts = || state.cells.values().flat_map(|cell| &cell.attempts);
    for change in faster {
        let Change::Faster { service, .. } = change else {
            continue;
        };
        if attempts().any(|attempt| attempt.services.contains_key(service)) {
            continue;
        }
        let known = attempts().flat_map(|attempt| attempt.services.keys());
        let near = known.min_by_key(|name| strsim::damerau_levenshtein(name, service));
        let error = CliError::usage(format!("no cell of the run has a service `{service}`"));
        return Err(match near {
            Some(near) => error.with_help(format!("did you mean `{near}`?")),
            None => error,
        });
    }
    Ok(())
}

fn predicted(what_if: &WhatIf) -> String {
    let Forecast {
        wall_us,
        replayed_us,
        changed_us,
    } = what_if.forecast;
    let (word, by) = match changed_us.cmp(&replayed_us) {
        std::cmp::Ordering::Greater => ("longer", changed_us - replayed_us),
        _ => ("shorter", replayed_us - changed_us),
    };
    let percent = what_if.error * 100.0;
    format!(
        "as it was   {}\nwhat if     {}, {} {word}\nmodel error {percent:+.1} % (a replay of the run as it was takes {})\n",
        shown(wall_us),
        shown(changed_us),
        shown(by),
        shown(replayed_us)
    )
}

fn parse_wait(text: &str) -> Result<WaitCause, String> {
    let name = text.replace('-', "_");
    let mut known = WaitCause::ALL
        .iter()
        .filter(|cause| **cause != WaitCause::Other);
    known
        .find(|cause| cause.as_str() == name)
        .copied()
        .ok_or_else(|| {
            let known = WaitCause::ALL
                .iter()
                .filter(|cause| **cause != WaitCause::Other);
            let known: Vec<&str> = known.map(|cause| cause.as_str()).collect();
            format!("expected one of {}", known.join(", "))
        })
}

fn parse_faster(text: &str) -> Result<Change, String> {
    let parsed = text.split_once('=').and_then(|(service, by)| {
        let by_us = u64::try_from(duration(by)?.as_micros()).ok()?;
        let service = (!service.is_empty()).then(|| service.to_owned())?;
        Some(Change::Faster { service, by_us })
    });
    parsed.ok_or_else(|| "expected SERVICE=TIME, such as db=10s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_named_with_dashes_or_underscores() {
        assert_eq!(parse_wait("image-pull"), Ok(WaitCause::ImagePull));
        assert_eq!(parse_wait("slot"), Ok(WaitCause::Slot));
        assert!(parse_wait("coffee").is_err_and(|error| error.contains("label_limit")));
        assert!(parse_wait("other").is_err());
    }

    #[test]
    fn a_faster_service_needs_a_name_and_a_time() {
        let faster = Change::Faster {
            service: "db".to_owned(),
            by_us: 1_500_000,
        };
        assert_eq!(parse_faster("db=1.5s"), Ok(faster));
        assert!(parse_faster("db").is_err() && parse_faster("=1s").is_err());
    }
}
