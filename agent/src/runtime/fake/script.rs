//! Scripts for the fake runtime, as plain data. Everything left out succeeds immediately.

use crate::runtime::contract::{Addresses, Closed, ExecOutput, Prepared, RuntimeError};
use phalanx_shared::event::LogStream;
use std::collections::BTreeMap;
use std::time::Duration;

/// The whole script.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Services by name. Services that aren't listed use the default.
    pub services: BTreeMap<String, ServiceScript>,
    /// Commands on the host.
    pub commands: Vec<CommandScript>,
    /// Delay before a stack is open.
    pub open_delay: Duration,
    /// Error returned by `open`.
    pub open_error: Option<RuntimeError>,
    /// Delay of `close`, after everything has stopped.
    pub close_delay: Duration,
    /// Error returned by `save`.
    pub save_error: Option<RuntimeError>,
    /// Objects that `close` reports as not removed.
    pub left: Vec<String>,
    /// Result of `reap`.
    pub reaped: Closed,
}

impl Script {
    /// Adds a service.
    #[must_use]
    pub fn service(mut self, name: &str, script: ServiceScript) -> Script {
        self.services.insert(name.to_owned(), script);
        self
    }
}

/// Script of one service.
#[derive(Clone, Debug, Default)]
pub struct ServiceScript {
    /// Result of `prepare`, after its delay.
    pub prepared: Option<Prepared>,
    /// Delay of `prepare`.
    pub prepare_delay: Duration,
    /// Error returned by `prepare`.
    pub prepare_error: Option<RuntimeError>,
    /// Error returned by `create`.
    pub create_error: Option<RuntimeError>,
    /// Delay of `start`.
    pub start_delay: Duration,
    /// Error returned by `start`.
    pub start_error: Option<RuntimeError>,
    /// Output of each start, in chronological order.
    pub output: Vec<Printed>,
    /// How each start exits by itself.
    pub exit: Option<ExitScript>,
    /// How many of its starts exit by themselves; the later ones run on. All of them by default.
    pub exiting_starts: Option<u32>,
    /// Adds a health check that passes this long after each start.
    pub healthy_after: Option<Duration>,
    /// Ignores the stop signal: only SIGKILL ends it.
    pub deaf: bool,
    /// Addresses of the service. The host defaults to the service's name.
    pub addresses: Addresses,
    /// Id of the image that it runs.
    pub image_id: Option<String>,
    /// Error returned by `start` if it starts with restored files.
    pub restored_error: Option<RuntimeError>,
    /// Commands inside the service.
    pub commands: Vec<CommandScript>,
    /// Lines returned by `inspect`.
    pub inspect: Vec<String>,
}

/// A piece of output.
#[derive(Clone, Debug)]
pub struct Printed {
    /// Time after the start.
    pub after: Duration,
    /// Stream that it is written to.
    pub stream: LogStream,
    /// Text as printed; contains its own newlines.
    pub text: String,
}

impl Printed {
    /// Creates a line on stdout.
    pub fn line(after: Duration, text: &str) -> Printed {
        Printed {
            after,
            stream: LogStream::Stdout,
            text: format!("{text}\n"),
        }
    }
}

/// A scripted exit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExitScript {
    /// Time after the start.
    pub after: Duration,
    /// Exit code.
    pub code: i64,
    /// Whether the exit counts as killed for lack of memory.
    pub oom: bool,
}

/// Scripted result of a command.
#[derive(Clone, Debug)]
pub struct CommandScript {
    /// Matches commands whose words, joined by spaces, contain this text. The first match answers.
    pub contains: String,
    /// How long the command takes.
    pub delay: Duration,
    /// Result of the command.
    pub answer: Result<ExecOutput, RuntimeError>,
}

impl CommandScript {
    /// Creates a command that prints a text and exits with 0.
    pub fn prints(contains: &str, stdout: &str) -> CommandScript {
        CommandScript {
            contains: contains.to_owned(),
            delay: Duration::ZERO,
            answer: Ok(ExecOutput {
                stdout: stdout.as_bytes().to_vec(),
                ..ExecOutput::default()
            }),
        }
    }
}

/// Returns the result of the first script that matches. Without a match the exit code is 127, as in a shell.
pub(super) async fn answer(
    scripts: &[CommandScript],
    command: &[String],
) -> Result<ExecOutput, RuntimeError> {
    let text = command.join(" ");
    match scripts
        .iter()
        .find(|script| text.contains(&script.contains))
    {
        Some(script) => {
            tokio::time::sleep(script.delay).await;
            script.answer.clone()
        }
        None => Ok(ExecOutput {
            exit_code: 127,
            stderr: format!("fake: no script for `{text}`\n").into_bytes(),
            ..ExecOutput::default()
        }),
    }
}
