//! The agent's end of a process under a warden: spawns it, sends orders and receives how it ended.
//!
//! Dropping [`Orders`] closes the socket, and the warden then kills everything: an abandoned call leaves nothing
//! behind.

use super::fork_server::ForkServer;
use super::wardens::{Below, Wardens};
use super::wire::{Ending, Order, Report, Start};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe::Receiver as Pipe;

/// Reason why a process could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The command is at fault; code and message are those of a shell.
    Command {
        /// 126 or 127.
        exit_code: i64,
        /// Reason, as shown to the user.
        message: String,
    },
    /// The machine or Phalanx is at fault.
    Machine(String),
}

/// A running process with its warden.
pub struct Guarded {
    /// Pid of the service's first process.
    pub pid: i32,
    /// Sends orders to the warden.
    pub orders: Orders,
    /// Reports how the process ended.
    pub end: End,
    /// Standard output.
    pub stdout: Pipe,
    /// Standard error.
    pub stderr: Pipe,
}

/// Sends orders to a warden. When this is dropped, the warden kills everything.
#[derive(Debug)]
pub struct Orders {
    socket: OwnedWriteHalf,
}

impl Orders {
    /// Sends an order. If the warden is gone, an error doesn't matter: [`End`] reports what happened.
    pub async fn give(&mut self, order: &Order) {
        if let Ok(mut line) = serde_json::to_vec(order) {
            line.push(b'\n');
            let _ = self.socket.write_all(&line).await;
        }
    }
}

/// Receives how the process ended. If this is dropped before that, clean-up still waits for the warden.
pub struct End {
    below: Option<Below>,
    wardens: Wardens,
}

impl End {
    /// Waits until no process below the warden lives. Returns `None` if the warden itself was killed: descendants may
    /// still live.
    pub async fn wait(&mut self) -> Option<Ending> {
        let ending = self.below.as_mut()?.wait().await;
        self.over(ending.is_some());
        ending
    }

    fn over(&mut self, clean: bool) {
        if self.below.take().is_some() {
            self.wardens.ended(clean);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(below) = self.below.take() {
            self.wardens.abandoned(below);
        }
    }
}

/// Starts a process under its own warden, which is counted in `wardens` until it has reported its end.
pub async fn start(
    server: &ForkServer,
    wardens: &Wardens,
    start: Start,
) -> Result<Guarded, Refused> {
    let machine = |what: &str, error: io::Error| Refused::Machine(format!("{what}: {error}"));
    let asked = ask_for_warden(server).await;
    let (control, stdout, stderr) =
        asked.map_err(|error| machine("can't start a warden process", error))?;
    let (reports, socket) = control.into_split();
    let mut orders = Orders { socket };
    wardens.started();
    let mut end = End {
        below: Some(Below::new(reports)),
        wardens: wardens.clone(),
    };
    orders.give(&Order::Start(Box::new(start))).await;
    let answer = match &mut end.below {
        Some(below) => below.next_line().await,
        None => Ok(None),
    };
    let answer = answer.map_err(|error| machine("the warden's socket broke", error))?;
    match answer.as_deref().map(serde_json::from_str) {
        Some(Ok(Report::Started { pid })) => Ok(Guarded {
            pid,
            orders,
            end,
            stdout,
            stderr,
        }),
        // Nothing was started.
        Some(Ok(Report::Refused { exit_code, message })) => {
            end.over(true);
            Err(Refused::Command { exit_code, message })
        }
        Some(Ok(Report::Unable { message })) => {
            end.over(true);
            Err(Refused::Machine(message))
        }
        _ => Err(Refused::Machine(last_words(stderr).await)),
    }
}

/// Requests a warden. Returns the socket to it, and its service's standard output and standard error.
async fn ask_for_warden(server: &ForkServer) -> io::Result<(UnixStream, Pipe, Pipe)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let (stdout, writes_stdout) = io::pipe()?;
    let (stderr, writes_stderr) = io::pipe()?;
    let streams = [
        OwnedFd::from(theirs),
        writes_stdout.into(),
        writes_stderr.into(),
    ];
    server.fork(&streams).await?;
    ours.set_nonblocking(true)?;
    Ok((
        UnixStream::from_std(ours)?,
        Pipe::from_owned_fd(stdout.into())?,
        Pipe::from_owned_fd(stderr.into())?,
    ))
}

async fn last_words(mut stderr: Pipe) -> String {
    use tokio::io::AsyncReadExt;
    let mut text = Vec::new();
    let _ = (&mut stderr).take(4096).read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    format!(
        "the warden process went away before the command began: {}",
        text.trim()
    )
}
