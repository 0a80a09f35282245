//! Ctrl-C, SIGTERM and SIGHUP: each is a request to stop.

use super::error::CliError;
use super::exit;
use crate::leftover;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

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

/// How long a signal waits for work that is busy, or blocked by a reader of its output, before the program ends anyway.
const REACT_WITHIN: Duration = Duration::from_millis(200);

/// Returns the result of work that may leave files behind if it is killed: a signal then drops it instead, which removes
/// them. A signal kills other work as it kills any program.
pub(super) async fn guarded(
    leaves_files: bool,
    work: impl Future<Output = Result<u8, CliError>>,
) -> Result<u8, CliError> {
    match leaves_files {
        true => reacting(work).await,
        false => work.await,
    }
}

async fn reacting(work: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    let mut interrupts = Interrupts::listen()?;
    let noticed = Arc::new(AtomicBool::new(false));
    let stuck = end_if_stuck(Interrupts::listen()?, Arc::clone(&noticed));
    let stuck = AbortOnDropHandle::new(tokio::spawn(stuck));
    let first = async {
        interrupts.next().await;
        noticed.store(true, Ordering::Release);
    };
    let result = tokio::select! {
        () = first => Err(CliError::said(exit::INTERRUPTED)),
        done = work => done,
    };
    drop(stuck);
    result
}

/// Ends the program after a signal that the work didn't notice. It computes, or nobody reads the pipe that it writes to;
/// in either case it can't be dropped.
async fn end_if_stuck(mut interrupts: Interrupts, noticed: Arc<AtomicBool>) {
    interrupts.next().await;
    tokio::time::sleep(REACT_WITHIN).await;
    if !noticed.load(Ordering::Acquire) {
        leftover::remove_all();
        // There are no children and no sockets, and no way back to main.
        #[allow(clippy::disallowed_methods)]
        std::process::exit(exit::INTERRUPTED.into());
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
