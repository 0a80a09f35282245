//! Options of every command that submits a run.

use super::Context;
use super::error::CliError;
use crate::config::server::COORDINATOR;
use crate::config::stack::KEEP_TTL_S;
use phalanx_proto::v1;
use phalanx_shared::plan::Keep;

/// How to run cells, for `run`, `submit` and `rerun`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Cancel the other cells when a cell fails
    #[arg(long, help_heading = "Running")]
    fail_fast: bool,
    /// Maximum number of cells to run concurrently
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Running")]
    max_parallel: Option<u32>,
    /// Scheduling priority; higher starts first, negative after others [default: 0]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Running"
    )]
    priority: Option<i32>,
    /// Leave stacks running for inspection: `always` (without a value) or `on-failure`
    #[arg(long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "always", help_heading = "Running")]
    keep: Option<String>,
    /// TTL of kept stacks: 90s, 30m, 2h
    #[arg(long, value_name = "TIME", requires = "keep", help_heading = "Running")]
    ttl: Option<String>,
    /// Run every step: restore no snapshots and make none
    #[arg(long, conflicts_with = "refresh_snapshots", help_heading = "Running")]
    no_snapshots: bool,
    /// Make snapshots again, instead of restoring those that are kept
    #[arg(long, help_heading = "Running")]
    refresh_snapshots: bool,
}

impl Options {
    /// Reads `--keep spec.yaml` as `--keep=always spec.yaml`: a flag with an optional value takes the next word.
    pub fn untangle(&mut self, spec: &mut Option<String>) {
        let word = self.keep.as_deref().unwrap_or("always");
        if spec.is_none() && !matches!(word, "always" | "on-failure") {
            *spec = self.keep.replace("always".to_owned());
        }
    }

    /// Converts the options to the message of a submission.
    pub fn to_wire(&self, detach: bool, context: &Context) -> Result<v1::Options, CliError> {
        if detach && context.settings.get(&COORDINATOR).is_empty() {
            let message = "to leave a run needs a coordinator that goes on without this command";
            return Err(CliError::usage(message)
                .with_help("phalanx serve starts one; name it with --coordinator"));
        }
        Ok(v1::Options {
            keep: Some(self.keep(context)?.into()),
            fail_fast: self.fail_fast.then_some(true),
            max_parallel: self.max_parallel,
            detach,
            traceparent: std::env::var("TRACEPARENT").unwrap_or_default(),
            priority: self.priority,
            refusal_in_answer: true,
            snapshots: match (self.no_snapshots, self.refresh_snapshots) {
                (true, _) => v1::SnapshotUse::Never,
                (_, true) => v1::SnapshotUse::Refresh,
                _ => v1::SnapshotUse::Unspecified,
            }
            .into(),
        })
    }

    fn keep(&self, context: &Context) -> Result<Keep, CliError> {
        let ttl_s = match &self.ttl {
            None => context.settings.get(&KEEP_TTL_S),
            Some(text) => phalanx_shared::language::quantity::duration(text)
                .map(|ttl| ttl.as_secs().max(1))
                .ok_or_else(|| {
                    CliError::usage(format!("--ttl {text}: not a time"))
                        .with_help("write 90s, 30m or 2h")
                })?,
        };
        match self.keep.as_deref() {
            None => Ok(Keep::Never),
            Some("always") => Ok(Keep::Always { ttl_s }),
            Some("on-failure") => Ok(Keep::OnFailure { ttl_s }),
            Some(other) => Err(CliError::usage(format!(
                "--keep {other}: expected always or on-failure"
            ))),
        }
    }
}
