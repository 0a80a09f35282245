//! `phalanx docs` (hidden): generates docs/cli.md from the definitions of the commands, and docs/language.md from the
//! tables of the language. A test and CI compare them with the committed files.

use super::error::CliError;
use super::{Cli, exit, say};
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Print docs/cli.md or docs/language.md, or write the man pages
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Page to print
    #[arg(value_enum, default_value_t = Page::Cli)]
    page: Page,
    /// Directory for the man pages
    #[arg(long, value_name = "DIR", required_if_eq("page", "man"))]
    to: Option<PathBuf>,
}

/// A page that is generated from the code.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// docs/cli.md: the commands.
    Cli,
    /// docs/language.md: functions, results and contexts.
    Language,
    /// A page in section 1 of the manual for each command.
    Man,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<u8, CliError> {
    match args.page {
        Page::Cli => say::to_stdout(markdown())?,
        Page::Language => say::to_stdout(phalanx_shared::reference::markdown())?,
        Page::Man => manual(args.to.as_deref().unwrap_or(Path::new(".")))?,
    }
    Ok(exit::OK)
}

/// Writes `phalanx.1` and a page for each command that isn't hidden.
fn manual(directory: &Path) -> Result<(), CliError> {
    let made = std::fs::create_dir_all(directory);
    let made = made.and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    made.map_err(|error| {
        CliError::errored(format!("can't write to {}: {error}", directory.display()))
    })
}

const HEAD: &str = "\
# The `phalanx` command

<!-- Made by `phalanx docs > docs/cli.md`: don't edit. -->

Words (progress, failures, the summary, notes) go to standard error; standard output is for data only: what `plan`, `show`,
`runs`, `logs`, `agents`, `config` print, and reports written to `-`. So `phalanx run … --report json=- | jq` works. On a terminal
`run`, `rerun` and `watch` show a live table; elsewhere they print lines, `CELL | PHASE > STEP ... OUTCOME` (docs/reports.md).

| exit code | means |
|---|---|
| 0 | passed (flaky and partly skipped included) |
| 1 | a cell failed, or every step was skipped: nothing was tested |
| 2 | the call, a setting, the spec or an input is wrong; nothing was run |
| 3 | it could not be judged: a cell errored, the coordinator could not be reached, a report could not be written |
| 130 | cancelled, by Ctrl-C, SIGTERM or `phalanx cancel` |

Ctrl-C once cancels: `always` steps and clean-up still run. Twice cleans up without waiting for steps. A third time leaves at once
and says what may be left. Reports are written in every case. SIGTERM and SIGHUP are like Ctrl-C.
";

fn markdown() -> String {
    let mut out = HEAD.to_owned();
    let mut root = Cli::command();
    root.build();
    let globals: Vec<&Arg> = root
        .get_arguments()
        .filter(|arg| arg.is_global_set() && !is_builtin(arg))
        .collect();
    let _ = writeln!(out, "\n## Options of every command\n");
    options(&mut out, globals.into_iter());
    for command in root
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        section(&mut out, command);
    }
    out
}

fn section(out: &mut String, command: &Command) {
    let inner = command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help");
    if !command.is_subcommand_required_set() {
        described(out, command);
    }
    inner.for_each(|inner| section(out, inner));
}

/// Adds the description of a command that can be called itself.
fn described(out: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let _ = writeln!(out, "\n## {name}\n");
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        let _ = writeln!(out, "{}\n", escape(&about.to_string()));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let _ = writeln!(out, "```\n{}\n```\n", usage.trim());
    let own = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set() && !is_builtin(arg));
    options(out, own);
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(out, "\n```text\n{}\n```", after.to_string().trim_end());
    }
}

fn is_builtin(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn options<'a>(out: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    for arg in arguments {
        let help = arg.get_help().map(ToString::to_string);
        let mut text = escape(&help.unwrap_or_default());
        let values = arg.get_possible_values();
        let values: Vec<&str> = values
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| value.get_name())
            .collect();
        if arg.get_action().takes_values() && !values.is_empty() {
            let _ = write!(text, " ({})", values.join(", "));
        }
        let defaults: Vec<String> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        if !defaults.is_empty()
            && !arg.is_hide_default_value_set()
            && arg.get_action().takes_values()
        {
            let _ = write!(text, " [default: {}]", defaults.join(", "));
        }
        let _ = writeln!(out, "- `{}`: {text}", spelling(arg));
    }
}

fn spelling(arg: &Arg) -> String {
    let mut names: Vec<String> = arg
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .collect();
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let values: Vec<String> = match arg.get_value_names() {
        Some(values) if arg.get_action().takes_values() => {
            values.iter().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    };
    if names.is_empty() {
        return values.join(" ");
    }
    let optional = arg
        .get_num_args()
        .is_some_and(|range| range.min_values() == 0)
        && !values.is_empty();
    let values = match (values.join(" "), optional) {
        (values, true) => format!(" [{values}]"),
        (values, false) if values.is_empty() => String::new(),
        (values, false) => format!(" {values}"),
    };
    format!("{}{values}", names.join(", "))
}

fn escape(text: &str) -> String {
    text.replace('<', "&lt;").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_command_prints() {
        let committed =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md"));
        assert_eq!(
            committed.unwrap_or_default(),
            markdown(),
            "docs/cli.md is out of date: cargo run --bin phalanx -- docs > docs/cli.md"
        );
    }

    #[test]
    fn the_committed_page_of_the_language_is_what_the_command_prints() {
        let committed =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/language.md"));
        assert_eq!(
            committed.unwrap_or_default(),
            phalanx_shared::reference::markdown(),
            "docs/language.md is out of date: cargo run --bin phalanx -- docs language > docs/language.md"
        );
    }

    #[test]
    fn the_definitions_of_all_commands_are_sound() {
        Cli::command().debug_assert();
    }
}
