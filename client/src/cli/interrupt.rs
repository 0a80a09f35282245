//! Ctrl-C, SIGTERM and SIGHUP: each is a request to stop.

use super::error::CliError;
use super::exit;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that requested the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stop {
    Interrupt,
    Terminate,
    Hangup,
}

impl Stop {
    /// Returns the name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Stop::Interrupt => "Ctrl-C",
            Stop::Terminate => "SIGTERM",
            Stop::Hangup => "SIGHUP, the terminal was closed",
        }
    }

    /// Returns how to send the signal again, for messages.
    pub fn again(self) -> &'static str {
        match self {
            Stop::Interrupt => "Ctrl-C again",
            Stop::Terminate | Stop::Hangup => "a second signal",
        }
    }
}

/// Listens for the signals that request a stop.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    /// Starts listening. From now on these signals don't kill the program.
    pub fn listen() -> Result<Interrupts, CliError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CliError::errored(format!("can't listen for signals: {error}")))
        };
        Ok(Interrupts {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.hangup.recv() => Stop::Hangup,
        }
    }
}

/// Returns the result of the work, or an error if Ctrl-C comes first. Nothing runs yet, so there is nothing to clean
/// up.
pub(super) async fn unless<T>(
    interrupts: &mut Interrupts,
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        _ = interrupts.next() => Err(CliError::said(exit::INTERRUPTED)),
        done = work => done,
    }
}
