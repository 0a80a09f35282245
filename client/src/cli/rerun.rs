//! `phalanx rerun`: runs cells of an earlier run again, as a new run with the same spec and inputs.

use super::connect::Connection;
use super::error::CliError;
use super::interrupt::{Interrupts, unless};
use super::ready::patiently;
use super::run::{How, LocalArgs, attend};
use super::secrets::{self, Given};
use super::{Context, connect};
use crate::config::Flag;
use phalanx_proto::v1;
use phalanx_shared::id::RunId;
use std::collections::BTreeMap;

/// Rerun cells of a run, as a new run with the same spec and inputs
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Uses the spec and the files of the earlier run. `phalanx run SPEC --failed` uses the current ones.

Examples:
  phalanx rerun --failed                     cells that failed or errored in the newest run
  phalanx rerun 0193 --cell 'mysql / v2.0'   one cell of the given run")]
pub struct Args {
    /// Id of the run, or its beginning or end [default: the newest]
    run: Option<String>,
    /// Rerun only cells that failed, errored or were cancelled
    #[arg(long)]
    failed: bool,
    /// Rerun only this cell: id, beginning of an id, or name. May be repeated
    #[arg(long = "cell", value_name = "CELL")]
    cells: Vec<String>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    local: LocalArgs,
}

impl Args {
    /// Returns the settings that the flags give.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        self.local.flags().chain(self.how.flags())
    }
}

/// Returns the values of the secrets that the earlier run's spec names; if its journal doesn't name them, all values
/// from flags. The coordinator reports missing ones, because it may have them itself.
async fn of_earlier(
    connection: &Connection,
    run: &RunId,
    given: Given,
) -> Result<BTreeMap<String, String>, CliError> {
    let declared = secrets::of_run(connection.client(), run.clone()).await?;
    match declared {
        Some(declared) => given.of_spec(&declared),
        None => given.of_any_spec(),
    }
}

/// Runs the command. Returns the exit code of the new run.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    super::reports::check(args.how.reports())?;
    let options = args.how.options(context)?;
    let secrets = args.how.secrets()?;
    let mut interrupts = Interrupts::listen()?;
    let found = connect::for_rerun(context, args.run.as_deref());
    let (connection, run) = unless(&mut interrupts, found).await?;
    let secrets = match of_earlier(&connection, &run, secrets).await {
        Ok(secrets) => secrets,
        Err(error) => {
            connection.close().await;
            return Err(error);
        }
    };
    let request = v1::RerunRequest {
        run_id: run.to_string(),
        failed: args.failed,
        cells: args.cells.clone(),
        options: Some(options),
        secrets,
    };
    let client = connection.client();
    let rerunning = patiently(context.voice, &mut interrupts, || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.rerun(request).await }
    });
    let answer = match rerunning.await {
        Ok(answer) => answer,
        Err(error) => {
            connection.close().await;
            return Err(error);
        }
    };
    context.voice.note(&format!(
        "spec and files are those that run {run} was submitted with; `phalanx run SPEC --failed` takes them as they are now"
    ));
    attend(
        connection,
        RunId::from(answer.run_id),
        &args.how,
        &mut interrupts,
        context,
    )
    .await
}
