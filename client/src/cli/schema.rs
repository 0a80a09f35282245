//! `phalanx schema`: prints the JSON Schema of the spec language, for editors, or that of the JSON report.

use super::error::CliError;
use super::{exit, say};

/// Print a JSON Schema: of the spec language, for editors, or of the JSON report
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = "\
Examples:
  phalanx schema > spec.schema.json           for an editor
  phalanx schema report > report.schema.json  for programs that read --report json=FILE")]
pub struct Args {
    /// What the schema describes
    #[arg(value_enum, default_value_t = Of::Spec)]
    of: Of,
}

/// What has a schema.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// The spec language.
    Spec,
    /// The JSON report.
    Report,
}

/// Prints the schema; docs/spec.schema.json and docs/report.schema.json are this output.
pub fn run(args: &Args) -> Result<u8, CliError> {
    say::to_stdout(match args.of {
        Of::Spec => format!("{:#}\n", phalanx_shared::language::schema::schema()),
        Of::Report => phalanx_report::json::SCHEMA.to_owned(),
    })?;
    Ok(exit::OK)
}
