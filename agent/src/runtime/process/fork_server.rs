//! The agent's end of the fork server (see [`super::warden`]): started with the first command, started again if it was killed.

use super::spawn;
use super::warden::{MARK_ROOM, WARDEN_COMMAND};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// Bytes of a warden's mark at most.
const MARK_BYTES: usize = 8192;

/// The program that answers [`WARDEN_COMMAND`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WardenProgram(pub PathBuf);

impl Default for WardenProgram {
    /// This very program, also if its file was replaced since.
    fn default() -> Self {
        WardenProgram(PathBuf::from("/proc/self/exe"))
    }
}

/// Asks for wardens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ForkServer {
    program: WardenProgram,
    running: Arc<Mutex<Option<Arc<Running>>>>,
}

/// A running server. Dropped: it goes.
#[derive(Debug)]
struct Running {
    requests: UnixStream,
    child: tokio::sync::Mutex<Child>,
}

impl ForkServer {
    /// Starts nothing yet.
    pub fn new(program: WardenProgram) -> ForkServer {
        ForkServer {
            program,
            running: Arc::default(),
        }
    }

    /// Asks for a warden with these standard streams.
    pub async fn fork(&self, streams: &[OwnedFd; 3]) -> io::Result<()> {
        let server = self.running(None)?;
        let Err(error) = server.request(streams).await else {
            return Ok(());
        };
        // A full table of files is no reason to start another server.
        if !matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ) {
            return Err(error);
        }
        // It was killed. Its wardens live on without it.
        self.running(Some(&server))?.request(streams).await
    }

    /// Ends the server, if it runs. Wardens stay until what they watch over has ended.
    pub async fn shutdown(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(server) = running {
            // It sees the end of its requests and goes; one that can't be told is gone.
            let _ = rustix::net::shutdown(&server.requests, rustix::net::Shutdown::Both);
            let _ = server.child.lock().await.wait().await;
        }
    }

    /// The running server, or a new one in the place of one that is gone.
    fn running(&self, gone: Option<&Arc<Running>>) -> io::Result<Arc<Running>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.as_ref() {
            Some(server) if !gone.is_some_and(|gone| Arc::ptr_eq(gone, server)) => {
                Ok(Arc::clone(server))
            }
            _ => Ok(Arc::clone(running.insert(Arc::new(start(&self.program)?)))),
        }
    }
}

fn start(program: &WardenProgram) -> io::Result<Running> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(&program.0);
    spawn::out_of_reach(command.as_std_mut());
    let child = command
        .arg0("phalanx-warden")
        .arg(WARDEN_COMMAND)
        .env_clear()
        .env(MARK_ROOM, "-".repeat(MARK_BYTES))
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Running {
        requests: UnixStream::from_std(ours)?,
        child: tokio::sync::Mutex::new(child),
    })
}

impl Running {
    async fn request(&self, streams: &[OwnedFd; 3]) -> io::Result<()> {
        let streams = streams.each_ref().map(OwnedFd::as_fd);
        let send = || send(&self.requests, &streams);
        self.requests.async_io(Interest::WRITABLE, send).await
    }
}

/// A byte and the streams: descriptors can't travel alone, and never share a message with another byte's.
fn send(requests: &UnixStream, streams: &[BorrowedFd<'_>; 3]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(streams));
    let word = [IoSlice::new(b"w")];
    sendmsg(requests, &word, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
