//! The warden: a tiny process between the agent and one service that makes sure nothing of the service stays behind.
//!
//! It is a fork of the fork server ([`WARDEN_COMMAND`], a hidden subcommand of both binaries): single-threaded, without
//! an async runtime. Its standard input is a socket to the agent. Its standard output and standard error are the
//! service's pipes, which it passes on and then closes for itself. As a subreaper it becomes the parent of every orphan
//! below it, whatever sessions those created. It kills everything below it and exits when the service's first process
//! exits, when the agent orders it to, or when the socket closes (the agent is gone, even by `kill -9`). It doesn't
//! read the service's output and doesn't know about cells.
//!
//! `server` forks wardens, `launch` starts the service, `watch` waits for events and ends the service.

mod launch;
mod server;
mod watch;

use super::ports;
use super::spawn;
use super::wire::{Order, Report};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;
use watch::{Outputs, Warden};

/// First argument that makes a Phalanx binary run as the fork server of wardens.
pub const WARDEN_COMMAND: &str = "__wardens";
/// Variable of the fork server whose space each warden overwrites with its mark.
pub const MARK_ROOM: &str = "PHALANX_MARK_ROOM";

/// Time for the service's ports to become free.
const PORT_TIME: Duration = Duration::from_secs(5);

/// Runs the fork server, and in its children a warden. `main` of both binaries calls this first, if the first argument
/// is [`WARDEN_COMMAND`].
pub fn main() -> ExitCode {
    let served = server::serve().and_then(|forked| if forked { guard() } else { Ok(()) });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the service's, so this message appears after the service's last output.
            eprintln!("phalanx warden: {error}");
            ExitCode::FAILURE
        }
    }
}

fn guard() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let signals = block_signals()?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut orders = BufReader::new(control.try_clone()?);
    let mut first = String::new();
    orders.read_line(&mut first)?;
    let Ok(Order::Start(start)) = serde_json::from_str(&first) else {
        return Ok(()); // The agent exited, or the peer is no agent.
    };
    spawn::replace_environment(&start.marker.block_of_warden())?;
    let outputs = Outputs::open();
    if let Err(taken) = ports::wait_until_free(&start.ports, PORT_TIME) {
        let message = taken.to_string();
        return report(&control, &Report::Unable { message });
    }
    let service = match launch::launch(&start) {
        Ok(pid) => pid,
        Err(error) => return report(&control, &launch::refusal(&start, &error)),
    };
    let _ = rename_after(&start.marker.service);
    close_standard_streams()?;
    // An error here means that the agent doesn't read: the loop then sees the end of the socket.
    let _ = report(
        &control,
        &Report::Started {
            pid: service.as_raw(),
        },
    );
    let ending = Warden::new(service, outputs).watch(orders, &signals)?;
    let _ = report(&control, &Report::Ended(ending));
    Ok(())
}

/// Blocks the signals that can arrive and returns a descriptor to read them from. The service begins with an empty mask
/// (`spawn`).
fn block_signals() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// Sets the process name, so that `ps -o comm` shows the service of the warden.
fn rename_after(service: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(format!("warden:{service}")).map_err(io::Error::other)?;
    Ok(nix::sys::prctl::set_name(&name)?)
}

/// Only the service may hold its pipes: their end tells the agent that the output is complete.
fn close_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

fn report(mut control: &UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report).map_err(io::Error::other)?;
    line.push(b'\n');
    control.write_all(&line)
}
