//! `phalanx journal`: copies the journal of a coordinator that doesn't run.

use super::error::CliError;
use super::{Context, exit};
use crate::config::place::STATE_DIR;
use crate::config::server::DATABASE;
use phalanx_coordinator::journal::{SqliteStore, Store, copy};
use phalanx_coordinator::serve::server::journal_path;
use phalanx_report::text::{clean, plural};
use phalanx_shared::error_code::ErrorCode;
use std::path::PathBuf;
use std::sync::Arc;

/// Copy the journal of a coordinator, to move it between SQLite and PostgreSQL
///
/// The journal is that of `serve.database`, or the SQLite file in the state directory. No coordinator may lead on it.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx journal export moved.db
  PHALANX_SERVE__DATABASE=postgres://phalanx@db/phalanx phalanx journal import moved.db")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Copy the journal into a new SQLite file
    Export {
        /// The file; it must not exist
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Copy a SQLite file's journal into an empty one
    Import {
        /// The file, of `export` or of a coordinator that doesn't run
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let settings = &context.settings;
    let (file, exports) = match &args.command {
        Command::Export { file } => (file, true),
        Command::Import { file } => (file, false),
    };
    if file.exists() == exports {
        let shown = file.display();
        return Err(CliError::usage(match exports {
            true => format!("{shown} exists already"),
            false => format!("there is no {shown}"),
        }));
    }
    let journal = |error: String| CliError::errored(error).explained_by(ErrorCode::Journal);
    let directory = settings.get(&STATE_DIR).join("coordinator");
    let own: Arc<dyn Store> = match settings.get(&DATABASE).as_str() {
        "" => {
            let path = journal_path(&directory);
            if exports && !path.exists() {
                let shown = path.display();
                return Err(CliError::usage(format!("there is no journal {shown}"))
                    .with_help("--state-dir or serve.database says where it is"));
            }
            let opened = SqliteStore::open(&path).await;
            Arc::new(opened.map_err(|error| journal(error.to_string()))?)
        }
        url => Arc::new(super::serve::lead_now(url, &directory, settings).await?),
    };
    let opened = SqliteStore::open(file).await;
    let other: Arc<dyn Store> = Arc::new(opened.map_err(|error| journal(error.to_string()))?);
    let (from, to) = match exports {
        true => (&own, &other),
        false => (&other, &own),
    };
    let copied = copy(&**from, &**to, super::now()).await;
    own.close().await;
    other.close().await;
    let copied = copied.map_err(|error| journal(error.to_string()))?;
    let count = |count: u64, what| plural(usize::try_from(count).unwrap_or(usize::MAX), what);
    context.voice.note(&format!(
        "copied {} with {}",
        count(copied.runs, "run"),
        count(copied.events, "event")
    ));
    for (run, why) in &copied.unread {
        context
            .voice
            .note(&format!("not copied: run {run}: {}", clean(why)));
    }
    match copied.unread.is_empty() {
        true => Ok(exit::OK),
        false => Ok(exit::FAILED),
    }
}
