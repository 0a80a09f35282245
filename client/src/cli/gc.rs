//! `phalanx gc`: removes old runs and the leftovers of dead ones.

use super::error::CliError;
use super::{Context, connect, exit, say};
use crate::local;
use phalanx_report::text::{clean, plural};

/// Remove old runs with their logs, and the leftovers of dead runs
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx gc                                       remove what killed runs left: containers, volumes, processes, snapshots
  phalanx gc --kept                                remove stacks kept by --keep as well
  phalanx gc --snapshots 168h                      remove snapshots that no cell has used for a week
  phalanx gc --older-than 720h --images 168h -n    print which old runs and images would be removed")]
pub struct Args {
    /// Remove finished runs older than this: 90m, 12h, 720h [default: keep all]
    #[arg(long, value_name = "TIME")]
    older_than: Option<String>,
    /// Remove kept stacks before their TTL expires
    #[arg(long)]
    kept: bool,
    /// Remove unused images built from contexts (`phalanx-build:…`) longer ago than this: 168h; 0s for all
    #[arg(long, value_name = "TIME")]
    images: Option<String>,
    /// Remove snapshots of services that no cell has used for this time: 168h; 0s for all that no cell uses now
    #[arg(long, value_name = "TIME")]
    snapshots: Option<String>,
    /// Print what would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let older_than_s = seconds("--older-than", args.older_than.as_deref())?;
    let wish = local::Gc {
        older_than_s: older_than_s.map_or(0, |age| age.max(1)),
        dry_run: args.dry_run,
        kept: args.kept,
        images_older_than_s: seconds("--images", args.images.as_deref())?,
        snapshots_unused_s: seconds("--snapshots", args.snapshots.as_deref())?,
    };
    let answer = connect::gc(context, wish).await?;
    let text: String = answer
        .removed
        .iter()
        .map(|object| format!("{}\n", clean(object)))
        .collect();
    say::to_stdout(text)?;
    let verb = if args.dry_run { "would go" } else { "removed" };
    let mebibytes = answer.bytes as f64 / f64::from(1 << 20);
    context.voice.note(&format!(
        "{} {verb}, {mebibytes:.1} MiB",
        plural(answer.removed.len(), "object")
    ));
    Ok(exit::OK)
}

fn seconds(flag: &str, text: Option<&str>) -> Result<Option<u64>, CliError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let age = phalanx_shared::language::quantity::duration(text).ok_or_else(|| {
        CliError::usage(format!("{flag} {text}: not a time")).with_help("write 90m, 12h or 720h")
    })?;
    Ok(Some(age.as_secs()))
}
