//! The warden: a tiny process between the agent and one service, which never leaves anything of the service behind.
//!
//! It is a fork of the fork server ([`WARDEN_COMMAND`], a hidden subcommand of both binaries), single-threaded, without an async runtime. Its
//! standard input is a socket to the agent, its output and errors are the service's pipes, which it hands on and closes for itself.
//! As subreaper it becomes the parent of every orphan below it, whatever sessions those made. When the service's
//! first process exits, when it is told to, or when the socket closes (the agent is gone, also by `kill -9`), it kills all below it and goes.
//! It doesn't read the service's output, and knows nothing of cells.
//!
//! `server` forks wardens, `launch` starts the service, `watch` waits for what happens and ends it.

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

/// The first argument that makes a binary of ours the fork server of wardens.
pub const WARDEN_COMMAND: &str = "__wardens";
/// The variable of the fork server in whose place each warden writes its mark.
pub const MARK_ROOM: &str = "PHALANX_MARK_ROOM";

/// For the ports of the service to become free.
const PORT_TIME: Duration = Duration::from_secs(5);

/// Runs the fork server, and in its children a warden. `main` of both binaries calls it, before anything else, if its first argument is
/// [`WARDEN_COMMAND`].
pub fn main() -> ExitCode {
    let served = server::serve().and_then(|forked| if forked { guard() } else { Ok(()) });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its output is the service's: this is read where the service's last words are.
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
        return Ok(()); // The agent went away, or this is no agent.
    };
    spawn::replace_environment(&start.marker.block_of_warden())?;
    let outputs = Outputs::open();
    if let Err(message) = ports::wait_until_free(&start.ports, PORT_TIME) {
        return report(&control, &Report::Unable { message });
    }
    let service = match launch::launch(&start) {
        Ok(pid) => pid,
        Err(error) => return report(&control, &launch::refusal(&start, &error)),
    };
    let _ = rename_after(&start.marker.service);
    close_standard_streams()?;
    // An error here means that nobody reads: the loop sees the end of the socket.
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

/// What can arrive is read from a descriptor instead; the service begins with an empty mask (`spawn`).
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

/// Shows in `ps -o comm` whose warden it is.
fn rename_after(service: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(format!("warden:{service}")).map_err(io::Error::other)?;
    Ok(nix::sys::prctl::set_name(&name)?)
}

/// The service alone shall hold its pipes: their end tells the agent that all has been said.
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
