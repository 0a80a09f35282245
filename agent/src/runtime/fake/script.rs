//! What a fake runtime does: plain data. Everything left out happens at once and succeeds.

use crate::runtime::contract::{Addresses, Closed, ExecOutput, Prepared, RuntimeError};
use phalanx_shared::event::LogStream;
use std::collections::BTreeMap;
use std::time::Duration;

/// The whole of it.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Services by name; others behave as the default.
    pub services: BTreeMap<String, ServiceScript>,
    /// Commands on the host.
    pub commands: Vec<CommandScript>,
    /// Before a stack is open.
    pub open_delay: Duration,
    /// No stack can be opened.
    pub open_error: Option<RuntimeError>,
    /// Before everything is removed.
    pub close_delay: Duration,
    /// What can't be removed.
    pub left: Vec<String>,
    /// What `reap` finds.
    pub reaped: Closed,
}

impl Script {
    /// With a service.
    #[must_use]
    pub fn service(mut self, name: &str, script: ServiceScript) -> Script {
        self.services.insert(name.to_owned(), script);
        self
    }
}

/// A service.
#[derive(Clone, Debug, Default)]
pub struct ServiceScript {
    /// What `prepare` comes to, after its delay.
    pub prepared: Option<Prepared>,
    /// Of `prepare`.
    pub prepare_delay: Duration,
    /// `prepare` fails.
    pub prepare_error: Option<RuntimeError>,
    /// `create` fails.
    pub create_error: Option<RuntimeError>,
    /// Of `start`.
    pub start_delay: Duration,
    /// `start` fails.
    pub start_error: Option<RuntimeError>,
    /// What each start prints, in the order of time.
    pub output: Vec<Printed>,
    /// How each start ends by itself.
    pub exit: Option<ExitScript>,
    /// It has a health check, which holds so long after each start.
    pub healthy_after: Option<Duration>,
    /// It doesn't react to its stop signal: only SIGKILL ends it.
    pub deaf: bool,
    /// Where it is; the host is its name unless written.
    pub addresses: Addresses,
    /// Commands in it.
    pub commands: Vec<CommandScript>,
    /// Lines of `inspect`.
    pub inspect: Vec<String>,
}

/// A piece of output.
#[derive(Clone, Debug)]
pub struct Printed {
    /// After the start.
    pub after: Duration,
    /// Where to.
    pub stream: LogStream,
    /// As it is: write your own newlines.
    pub text: String,
}

impl Printed {
    /// A line on stdout.
    pub fn line(after: Duration, text: &str) -> Printed {
        Printed {
            after,
            stream: LogStream::Stdout,
            text: format!("{text}\n"),
        }
    }
}

/// An exit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExitScript {
    /// After the start.
    pub after: Duration,
    /// The exit code.
    pub code: i64,
    /// Killed for want of memory.
    pub oom: bool,
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub struct CommandScript {
    /// For commands whose words, joined by spaces, contain this; the first that fits answers.
    pub contains: String,
    /// How long it takes.
    pub delay: Duration,
    /// What it says.
    pub answer: Result<ExecOutput, RuntimeError>,
}

impl CommandScript {
    /// Prints a text and exits with 0.
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

/// The answer of the first script that fits; a command that nothing fits isn't found, as in a shell.
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
