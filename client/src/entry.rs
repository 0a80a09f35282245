//! What `phalanx` answers before it reads a setting or starts a thread.

use crate::demo;
use std::process::ExitCode;

/// Runs the agent's hidden subcommands and the demo server, if the program was called with one of them, and returns the
/// exit code. Call it first in `main`.
pub fn early_command() -> Option<ExitCode> {
    if let Some(code) = phalanx_agent::entry::hidden_command() {
        return Some(code);
    }
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next()?;
    (command == demo::DEMO_COMMAND).then(|| demo::main(arguments))
}
