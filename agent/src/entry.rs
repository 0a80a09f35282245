//! Hidden subcommands that both binaries answer before they read a setting or start a thread.

use crate::keeper;
use crate::mourner;
use crate::runtime::process::warden;
use std::process::ExitCode;

/// Runs the hidden subcommand that the program was called with, if any, and returns its exit code. Call it first in
/// `main`:
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(code) = phalanx_agent::entry::hidden_command() {
///         return code;
///     }
///     // …
///     ExitCode::SUCCESS
/// }
/// ```
pub fn hidden_command() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next()?;
    if command == warden::WARDEN_COMMAND {
        return Some(warden::main());
    }
    if command == keeper::COMMAND {
        return Some(keeper::main(arguments));
    }
    (command == mourner::COMMAND).then(mourner::main)
}
