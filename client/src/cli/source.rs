//! The run that a command reads: of this machine, of a coordinator, or in a file.

use super::Context;
use super::connect::{self, Connection};
use super::error::CliError;
use phalanx_shared::id::RunId;
use std::path::{Path, PathBuf};

/// Names a run, or a file with one.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct RunOrFile {
    /// Id of the run, or its beginning or end [default: the newest]
    run: Option<String>,
    /// Read a run that `phalanx export` wrote, instead of one of this machine or of a coordinator
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with_all = ["run", "coordinator"])]
    file: Option<PathBuf>,
}

impl RunOrFile {
    /// Returns whether the run is in a file, which is unpacked.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Connects to a coordinator that knows the run. Returns the connection and the run's id.
    pub async fn open(&self, context: &Context) -> Result<(Connection, RunId), CliError> {
        open(context, self.run.as_deref(), self.file.as_deref()).await
    }
}

/// Connects to a coordinator that knows a run, or reads the run in a file.
pub async fn open(
    context: &Context,
    run: Option<&str>,
    file: Option<&Path>,
) -> Result<(Connection, RunId), CliError> {
    match file {
        Some(file) => connect::to_file(file).await,
        None => connect::to_run(context, run).await,
    }
}
