//! `phalanx demo-server`: a small shop to write specs against. [`crate::entry`] handles the command before all
//! others. This file adds it to help and completions.

use super::Context;
use super::error::CliError;
use crate::cli::exit;

/// Serve a small shop over HTTP, for the quickstart and for trying steps
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    server: crate::demo::DemoServer,
}

/// Serves until SIGTERM.
pub async fn run(args: Args, _context: &Context) -> Result<u8, CliError> {
    let served = crate::demo::serve(args.server).await;
    served
        .map(|()| exit::OK)
        .map_err(|error| CliError::errored(error.to_string()))
}
