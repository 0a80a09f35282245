//! `phalanx runs`: lists the runs.

use super::error::CliError;
use super::{Context, connect, exit, say};
use phalanx_proto::convert::outcome_from_wire;
use phalanx_proto::v1::RunSummary;
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_report::text::duration;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use serde_json::json;

/// List runs, newest first
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Maximum number of runs to list
    #[arg(long, short = 'n', default_value_t = 20, value_name = "COUNT")]
    limit: u32,
    /// List only unfinished runs
    #[arg(long)]
    open: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Output format of lists.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let runs = connect::list(context, args.limit, args.open).await?;
    match args.format {
        Format::Table => {
            say::to_stdout(context.voice.table(&table(&runs, super::now())))?;
        }
        Format::Json => {
            let runs: Vec<_> = runs.iter().map(json).collect();
            say::to_stdout(format!("{:#}\n", json!({ "runs": runs })))?;
        }
    }
    Ok(exit::OK)
}

fn outcome(run: &RunSummary) -> Option<Outcome> {
    outcome_from_wire(run.outcome).ok().flatten()
}

fn table(runs: &[RunSummary], now: Timestamp) -> Table {
    let mut table = Table::new(["RUN", "SPEC", "OUTCOME", "CELLS", "TIME", "SUBMITTED"]);
    for run in runs {
        let outcome = outcome(run);
        let state = match (outcome, &run.cancel) {
            _ if !run.problem.is_empty() => format!("damaged: {}", run.problem),
            (Some(outcome), _) => outcome.as_str().to_owned(),
            (None, Some(_)) => "cancelling".to_owned(),
            (None, None) => format!("{} running, {} queued", run.running, run.queued),
        };
        let tone = match run.problem.is_empty() {
            true => outcome.map_or(Tone::Busy, Tone::from),
            false => Tone::Bad,
        };
        let ended = run.finished_us.unwrap_or(now.0);
        let elapsed = Timestamp(ended).since(Timestamp(run.submitted_us));
        table.row([
            (Tone::Plain, run.run_id.clone()),
            (Tone::Plain, run.spec.clone()),
            (tone, state),
            (Tone::Plain, cells(run)),
            (
                Tone::Plain,
                duration(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)),
            ),
            (Tone::Dim, Timestamp(run.submitted_us).to_rfc3339()),
        ]);
    }
    table
}

/// Formats the number of cells: `27 (2 failed, 1 errored)`.
fn cells(run: &RunSummary) -> String {
    let bad = run.counts.iter().filter_map(|count| {
        let outcome = outcome_from_wire(count.outcome).ok().flatten()?;
        (!outcome.is_ok() && count.cells > 0).then(|| format!("{} {outcome}", count.cells))
    });
    let bad: Vec<String> = bad.collect();
    match bad.as_slice() {
        [] => run.cells.to_string(),
        bad => format!("{} ({})", run.cells, bad.join(", ")),
    }
}

fn json(run: &RunSummary) -> serde_json::Value {
    let counts = run.counts.iter().filter_map(|count| {
        let outcome = outcome_from_wire(count.outcome).ok().flatten()?;
        Some((outcome.as_str().to_owned(), json!(count.cells)))
    });
    let counts: serde_json::Map<String, serde_json::Value> = counts.collect();
    json!({
        "run": run.run_id,
        "namespace": run.namespace,
        "spec": run.spec,
        "outcome": outcome(run).map(Outcome::as_str),
        "cancelled": run.cancel,
        "submitted": Timestamp(run.submitted_us).to_rfc3339(),
        "finished": run.finished_us.map(|at| Timestamp(at).to_rfc3339()),
        "cells": run.cells,
        "cells_by_outcome": counts,
        "running": run.running,
        "queued": run.queued,
        "digest": run.plan_digest,
        "problem": (!run.problem.is_empty()).then_some(&run.problem),
    })
}
