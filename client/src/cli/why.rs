//! `phalanx why`: shows what a waiting cell waits for.

use super::error::CliError;
use super::{Context, ahead, connect, exit, say};
use phalanx_proto::v1;
use phalanx_report::text::clean;

/// Show why a cell waits: label, slot, memory, subnet, max-parallel …; and which images are prepared for it meanwhile
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Id of the run, or its beginning or end; `last` is the newest
    run: String,
    /// Cell: id, beginning of an id, or name
    cell: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) = connect::to_run(context, Some(&args.run)).await?;
    let request = v1::WhyRequest {
        run_id: run.to_string(),
        cell: args.cell,
    };
    let answer = connection.client().why(request).await?.into_inner();
    connection.close().await;
    let mut text = format!("{}\n", clean(&answer.status));
    for reason in &answer.reasons {
        text += &format!("  {}\n", clean(reason));
    }
    if !answer.ahead.is_empty() {
        text += "prepared ahead:\n";
    }
    for line in &answer.ahead {
        text += &format!("  {}\n", clean(&ahead::text(line)));
    }
    say::to_stdout(text)?;
    Ok(exit::OK)
}
