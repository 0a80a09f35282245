//! `phalanx schema`: prints the JSON Schema of the spec language, for editors.

use std::io::Write;

/// The command has no arguments.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Args {}

/// Prints the schema; docs/spec.schema.json is this output.
pub fn run(_args: &Args) -> u8 {
    let _ = writeln!(
        std::io::stdout().lock(),
        "{:#}",
        phalanx_shared::language::schema::schema()
    );
    0
}
