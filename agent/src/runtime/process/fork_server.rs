//! The agent's end of the fork server (see [`super::warden`]). The server is started with the first command and
//! restarted if it was killed.

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

/// Maximum size of a warden's mark, in bytes.
const MARK_BYTES: usize = 8192;

/// Program that answers [`WARDEN_COMMAND`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WardenProgram(pub PathBuf);

impl Default for WardenProgram {
    /// Returns the running program itself, even if its file has been replaced since it started.
    fn default() -> Self {
        WardenProgram(PathBuf::from("/proc/self/exe"))
    }
}

/// Requests wardens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ForkServer {
    program: WardenProgram,
    running: Arc<Mutex<Option<Arc<Running>>>>,
}

/// A running server. It exits when this is dropped.
#[derive(Debug)]
struct Running {
    requests: UnixStream,
    child: tokio::sync::Mutex<Child>,
}

impl ForkServer {
    /// Creates a handle. Starts no process yet.
    pub fn new(program: WardenProgram) -> ForkServer {
        ForkServer {
            program,
            running: Arc::default(),
        }
    }

    /// Requests a warden with these standard streams.
    pub async fn fork(&self, streams: &[OwnedFd; 3]) -> io::Result<()> {
        let server = self.running(None)?;
        let Err(error) = server.request(streams).await else {
            return Ok(());
        };
        // Running out of file descriptors is no reason to start another server.
        if !matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ) {
            return Err(error);
        }
        // The server was killed. Its wardens live on without it.
        self.running(Some(&server))?.request(streams).await
    }

    /// Ends the server if it runs. A warden stays until the processes it watches have ended.
    pub async fn shutdown(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(server) = running {
            // The server exits when its request socket closes. If the shutdown call fails, the server has already
            // exited.
            let _ = rustix::net::shutdown(&server.requests, rustix::net::Shutdown::Both);
            let _ = server.child.lock().await.wait().await;
        }
    }

    /// Returns the running server. Starts a new one if there is none, or if it is `gone`.
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

/// Sends one byte with the streams: descriptors can't be sent without data, and the kernel never merges them with the
/// byte of another message.
fn send(requests: &UnixStream, streams: &[BorrowedFd<'_>; 3]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(streams));
    let word = [IoSlice::new(b"w")];
    sendmsg(requests, &word, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
