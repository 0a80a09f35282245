//! The fork server: a small single-threaded process that forks a warden for each process that the agent starts.
//!
//! Starting the whole program as a warden costs several milliseconds of linking; a fork of a process that has touched
//! little memory costs some hundred microseconds. The agent starts the server with its first command and requests
//! wardens over a socket. Each request carries the three standard streams of the new warden. When the socket closes
//! (the agent is gone), the server exits. Wardens don't depend on it.

use super::{block_signals, report};
use crate::runtime::process::spawn;
use crate::runtime::process::wire::Report;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::ForkResult;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Standard input, output and error of the next warden.
type Streams = [OwnedFd; 3];

/// Forks a warden for each request. Returns false in the server when the agent is gone, and true in each warden.
pub fn serve() -> io::Result<bool> {
    let requests = io::stdin().as_fd().try_clone_to_owned()?;
    let _ = prctl::set_name(c"phalanx-wardens");
    let signals = block_signals()?;
    while let Some([control, stdout, stderr]) = next_request(&requests, &signals)? {
        match spawn::fork() {
            Ok(ForkResult::Child) => {
                drop((requests, signals));
                become_warden(&control, &stdout, &stderr)?;
                return Ok(true);
            }
            Ok(ForkResult::Parent { .. }) => {}
            Err(error) => {
                let message = format!("can't start a warden process: {error}");
                // If the report can't be sent, nothing waits for the warden either.
                let _ = report(&UnixStream::from(control), &Report::Unable { message });
            }
        }
    }
    Ok(false)
}

fn become_warden(control: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::unistd::dup2_stdin(control)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}

/// Returns the streams of the next request, or `None` when the agent is gone. Also reaps wardens that have ended, so
/// that their resource usage counts as the agent's.
fn next_request(requests: &OwnedFd, signals: &SignalFd) -> io::Result<Option<Streams>> {
    loop {
        let mut either =
            [requests.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An interrupted call is treated like an event.
        let _ = poll(&mut either, PollTimeout::NONE);
        while let Ok(Some(_)) = signals.read_signal() {}
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG))
            && status != WaitStatus::StillAlive
        {}
        if either[0]
            .revents()
            .is_none_or(|happened| happened.is_empty())
        {
            continue;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut word = [0u8; 1];
        let received = recvmsg(
            requests,
            &mut [IoSliceMut::new(&mut word)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        match received {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => {}
        }
        let streams: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        // Fewer descriptors arrive if this process has none left. Those that arrived are closed, which tells the
        // requester.
        if let Ok(streams) = Streams::try_from(streams) {
            return Ok(Some(streams));
        }
    }
}
