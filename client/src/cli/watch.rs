//! `phalanx watch`: follows a run from its beginning to its end.

use super::error::CliError;
use super::follow::{OnInterrupt, follow};
use super::interrupt::Interrupts;
use super::reports::Report;
use super::{Context, connect, reports};

/// Watch a run; Ctrl-C stops watching, not the run
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Id of the run, or its beginning or end [default: the newest]
    run: Option<String>,
    /// Write a report at the end: junit, json or markdown; `-` for standard output
    #[arg(long = "report", value_name = "KIND=FILE")]
    reports: Vec<Report>,
}

/// Runs the command. Returns the exit code of the run.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    reports::check(&args.reports)?;
    let (connection, run) = connect::to_run(context, args.run.as_deref()).await?;
    let mut interrupts = Interrupts::listen()?;
    let followed = follow(
        connection.client(),
        run,
        OnInterrupt::Leave,
        &mut interrupts,
        context.voice,
    )
    .await;
    connection.close().await;
    super::run::conclude(followed, &args.reports, context)
}
