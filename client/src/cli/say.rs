//! Messages to standard error, data to standard output. A closed pipe is the reader's choice and not an error: output
//! that can't be written is dropped, so that clean-up continues.

use super::error::CliError;
use super::exit;
use crate::config::output::Color;
use console::Term;
use phalanx_report::style::{Style, Tone};
use phalanx_report::table::Table;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Width in columns of output that doesn't go to a terminal.
const DEFAULT_WIDTH: usize = 120;

/// How this call prints its output.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// When to use colours.
    pub color: Color,
    /// Print only failures and the summary.
    pub quiet: bool,
    /// Print everything.
    pub verbose: bool,
}

impl Voice {
    /// Returns the style for standard error.
    pub fn stderr_style(self) -> Style {
        self.style(std::io::stderr().is_terminal())
    }

    /// Returns the style for standard output.
    pub fn stdout_style(self) -> Style {
        self.style(std::io::stdout().is_terminal())
    }

    fn style(self, terminal: bool) -> Style {
        let wanted = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colors = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                terminal
                    && !wanted("NO_COLOR")
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Style { colors }
    }

    /// Returns the width of standard error in columns.
    pub fn stderr_width(self) -> usize {
        width(&Term::stderr())
    }

    /// Returns the width of standard output in columns.
    pub fn stdout_width(self) -> usize {
        width(&Term::stdout())
    }

    /// Formats a table for standard output.
    pub fn table(self, table: &Table) -> String {
        let lines = table.lines(self.stdout_width(), self.stdout_style());
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Whether to show a live table: standard error is a terminal that can move its cursor.
    pub fn is_live(self) -> bool {
        let capable =
            std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        !self.quiet && capable && std::io::stderr().is_terminal()
    }

    /// Prints an error with its advice.
    pub fn error(self, error: &CliError) {
        if error.message.is_empty() {
            return;
        }
        let style = self.stderr_style();
        let mut text = format!("{} {}\n", style.paint(Tone::Bad, "error:"), error.message);
        if let Some(help) = &error.help {
            text += &format!("{} {help}\n", style.paint(Tone::Busy, "help:"));
        }
        if let Some(code) = error.explained {
            let more = style.paint(Tone::Dim, "more:");
            text += &format!("{more} phalanx explain {code}\n");
        }
        to_stderr(&text);
    }

    /// Prints a note, unless quiet.
    pub fn note(self, text: &str) {
        if !self.quiet {
            to_stderr(&format!(
                "{} {text}\n",
                self.stderr_style().paint(Tone::Warn, "note:")
            ));
        }
    }
}

fn width(term: &Term) -> usize {
    term.size_checked()
        .map_or(DEFAULT_WIDTH, |(_, columns)| usize::from(columns).max(20))
}

/// Messages that wait for the next frame while a live table is on the screen, so that only the table moves the cursor.
static HELD: Mutex<Option<String>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<String>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints a message of whole lines.
pub fn to_stderr(text: &str) {
    match &mut *held() {
        Some(held) => held.push_str(text),
        None => write_stderr(text),
    }
}

/// Starts to hold messages back until [`take_held`].
pub(super) fn hold() {
    held().get_or_insert_default();
}

/// Takes the held lines.
pub(super) fn take_held() -> Vec<String> {
    let text = held().as_mut().map(std::mem::take).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Prints the held messages and stops holding.
pub(super) fn release() {
    let text = held().take().unwrap_or_default();
    write_stderr(&text);
}

fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Prints data. Returns an error with the code [`exit::OK`] if the reader closed the pipe: the command ends successfully.
pub fn to_stdout(data: impl AsRef<[u8]>) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(data.as_ref()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => CliError::said(exit::OK),
        _ => CliError::errored(format!("can't write to standard output: {error}")),
    })
}
