//! Ctrl-C, SIGTERM and SIGHUP, each counted as "stop".

use super::error::CliError;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean "stop".
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    /// From now on these signals don't kill the program.
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

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
