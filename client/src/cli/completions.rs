//! `phalanx completions`: prints completion scripts for shells.

use super::error::CliError;
use super::{Cli, exit, say};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print a shell's completion script
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx completions bash > ~/.local/share/bash-completion/completions/phalanx
  phalanx completions zsh > ~/.zfunc/_phalanx
  phalanx completions fish > ~/.config/fish/completions/phalanx.fish")]
pub struct Args {
    /// Shell to complete for
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "phalanx", &mut script);
    say::to_stdout(script)?;
    Ok(exit::OK)
}
