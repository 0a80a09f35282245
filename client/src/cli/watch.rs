//! `phalanx watch`: follows a run from its beginning to its end.

use super::error::CliError;
use super::follow::{OnInterrupt, Shown, follow};
use super::interrupt::Interrupts;
use super::reports::Report;
use super::{Context, connect, past, reports};
use phalanx_report::history::expected::RUNS;
use std::path::PathBuf;

/// Watch a run; Ctrl-C stops watching, not the run
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Id of the run, or its beginning or end [default: the newest]
    run: Option<String>,
    /// Write a report at the end: junit, ctrf, json, markdown or html; `-` for standard output
    #[arg(long = "report", value_name = "KIND=FILE")]
    reports: Vec<Report>,
    /// Fetch the run's artifacts to this directory at the end: DIR/CELL/NAME
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    artifacts: Option<PathBuf>,
    /// Show the run on the full screen: grid, findings, steps and logs; `?` lists the keys
    #[arg(long)]
    tui: bool,
}

/// Runs the command. Returns the exit code of the run.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    reports::check(&args.reports)?;
    let (connection, run) = connect::to_run(context, args.run.as_deref()).await?;
    let mut interrupts = Interrupts::listen()?;
    let shown = Shown::new(context.voice, args.tui)?;
    let earlier = past::before(context.settings.clone(), run.clone(), RUNS);
    let followed = follow(
        connection.client(),
        run,
        OnInterrupt::Leave,
        &mut interrupts,
        shown,
        earlier,
    )
    .await;
    let evidence = reports::evidence_for(
        &args.reports,
        args.artifacts.as_deref(),
        &connection,
        &followed,
        context,
        &mut interrupts,
    )
    .await;
    connection.close().await;
    super::run::conclude(followed, &args.reports, &evidence, context)
}
