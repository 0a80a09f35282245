//! `phalanx submit`: submits a run to a coordinator and doesn't wait for it.

use super::error::CliError;
use super::interrupt::{Interrupts, unless};
use super::options::Options;
use super::ready::Ready;
use super::secrets::{self, SecretArgs};
use super::{Context, connect, exit, say};
use crate::config::server::COORDINATOR;

/// Submit a spec's matrix to a coordinator, print the run's id and exit
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The same as phalanx run --detach. Needs --coordinator, or PHALANX_COORDINATOR.

Examples:
  phalanx submit spec.yaml                           prints the run's id
  phalanx watch \"$(phalanx submit spec.yaml)\"        submit, then follow the run
  phalanx submit spec.yaml --priority -1             run after all others")]
pub struct Args {
    /// Path to the spec; `-` for standard input
    #[arg(value_hint = clap::ValueHint::FilePath, required_unless_present = "keep")]
    spec: Option<String>,
    #[command(flatten)]
    selection: super::selection::Selection,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    secrets: SecretArgs,
}

/// Runs the command. The exit code says whether the submission was accepted, not how the run ends.
pub async fn run(mut args: Args, context: &Context) -> Result<u8, CliError> {
    args.options.untangle(&mut args.spec);
    let Some(spec) = args.spec else {
        return Err(CliError::usage("which spec? phalanx submit SPEC"));
    };
    let options = args.options.to_wire(true, context)?;
    let secrets = args.secrets.read()?;
    let mut interrupts = Interrupts::listen()?;
    let preparing = Ready::prepare(&spec, &args.selection, context);
    let mut ready = unless(&mut interrupts, preparing).await?;
    ready.request.options = Some(options);
    ready.request.secrets = secrets.of_spec(&ready.secrets)?;
    if context.settings.get(&COORDINATOR).is_empty() {
        secrets::demand(&ready.secrets, &ready.request.secrets)?;
    }
    let connecting = connect::for_run(context, ready.containers);
    let connection = unless(&mut interrupts, connecting).await?;
    let submitted = ready.submit(&connection, &mut interrupts, context).await;
    connection.close().await;
    say::to_stdout(format!("{}\n", submitted?))?;
    Ok(exit::OK)
}
