//! The agent's end of a process under a warden: spawning it, giving orders, hearing how it ended.
//!
//! Dropping [`Orders`] closes the socket, and the warden kills everything: an abandoned call leaves nothing behind.

use super::marker::Marker;
use super::warden;
use super::wardens::Wardens;
use super::wire::{Ending, Order, Report, Start};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// The program that answers [`warden::WARDEN_COMMAND`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WardenProgram(pub PathBuf);

impl Default for WardenProgram {
    /// This very program, also if its file was replaced since.
    fn default() -> Self {
        WardenProgram(PathBuf::from("/proc/self/exe"))
    }
}

/// A process could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The command's fault: as a shell would put it.
    Command {
        /// 126 or 127.
        exit_code: i64,
        /// Why.
        message: String,
    },
    /// The machine's or ours.
    Machine(String),
}

/// A running process.
pub struct Guarded {
    /// The service's first process.
    pub pid: i32,
    /// The way to the warden.
    pub orders: Orders,
    /// Its end.
    pub end: End,
    /// Its output.
    pub stdout: ChildStdout,
    /// Its errors.
    pub stderr: ChildStderr,
}

/// Gives orders. Dropped: kills everything.
#[derive(Debug)]
pub struct Orders {
    socket: OwnedWriteHalf,
}

impl Orders {
    /// Gives an order. If the warden is gone, what the order is for has happened or is known from [`End`].
    pub async fn give(&mut self, order: &Order) {
        if let Ok(mut line) = serde_json::to_vec(order) {
            line.push(b'\n');
            let _ = self.socket.write_all(&line).await;
        }
    }
}

/// Hears how it ended. Dropped before: clean-up still waits for it.
pub struct End {
    below: Option<Below>,
    wardens: Wardens,
}

impl End {
    /// Waits until nothing of it lives. `None`: the warden itself was killed, and descendants may still live.
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

/// What hears a warden.
#[derive(Debug)]
pub struct Below {
    reports: Lines<BufReader<OwnedReadHalf>>,
    warden: Child,
}

impl Below {
    /// Its last word: nothing lives below it. `None` if it went without.
    pub async fn wait(&mut self) -> Option<Ending> {
        let mut ending = None;
        while let Ok(Some(line)) = self.reports.next_line().await {
            if let Ok(Report::Ended(report)) = serde_json::from_str(&line) {
                ending = Some(report);
            }
        }
        let _ = self.warden.wait().await;
        ending
    }
}

/// Starts a process under a warden of its own, which counts among `wardens` until its end is told.
pub async fn start(
    program: &WardenProgram,
    wardens: &Wardens,
    start: Start,
) -> Result<Guarded, Refused> {
    let machine = |what: &str, error: std::io::Error| Refused::Machine(format!("{what}: {error}"));
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| machine("can't make a socket", error))?;
    let (warden, stdout, stderr) = spawn_warden(program, &start.marker, theirs)
        .map_err(|error| machine("can't start a warden process", error))?;
    let (reports, socket) = ours.into_split();
    let mut orders = Orders { socket };
    wardens.started();
    let mut end = End {
        below: Some(Below {
            reports: BufReader::new(reports).lines(),
            warden,
        }),
        wardens: wardens.clone(),
    };
    orders.give(&Order::Start(Box::new(start))).await;
    let answer = match &mut end.below {
        Some(below) => below.reports.next_line().await,
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

fn spawn_warden(
    program: &WardenProgram,
    marker: &Marker,
    socket: UnixStream,
) -> std::io::Result<(Child, ChildStdout, ChildStderr)> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    let mut command = Command::new(&program.0);
    super::spawn::out_of_reach(command.as_std_mut());
    let mut child = command
        .arg0("phalanx-warden")
        .arg(warden::WARDEN_COMMAND)
        .env_clear()
        .envs(marker.variables_of_warden())
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let missing = || std::io::Error::other("its pipes are missing");
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    Ok((child, stdout, stderr))
}

async fn last_words(mut stderr: ChildStderr) -> String {
    use tokio::io::AsyncReadExt;
    let mut text = Vec::new();
    let _ = (&mut stderr).take(4096).read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    format!(
        "the warden process went away before the command began: {}",
        text.trim()
    )
}
