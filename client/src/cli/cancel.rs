//! `phalanx cancel`: ends a run. Clean-up always happens.

use super::error::CliError;
use super::{Context, connect, exit};
use phalanx_proto::v1;

/// Cancel a run; `always` steps and clean-up still run
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Id of the run, or its beginning or end; `last` is the newest
    run: String,
    /// Clean up without waiting for steps
    #[arg(long, short)]
    force: bool,
    /// Reason, shown in reports
    #[arg(long, value_name = "TEXT", default_value = "phalanx cancel")]
    reason: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) = connect::to_run(context, Some(&args.run)).await?;
    let request = v1::CancelRequest {
        run_id: run.to_string(),
        reason: args.reason,
        force: args.force,
    };
    let answer = connection.client().cancel(request).await?.into_inner();
    connection.close().await;
    if answer.finished {
        context.voice.note(&format!("run {run} was over already"));
    } else {
        context.voice.note(&format!(
            "run {run} is being cancelled: phalanx watch {run}"
        ));
    }
    Ok(exit::OK)
}
