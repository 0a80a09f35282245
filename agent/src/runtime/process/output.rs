//! Carries the output of a process on, in the frames it came in, until both streams have ended.
//!
//! Back-pressure goes all the way: while the receiver is behind, the pipe fills and the process waits in its `write`.

use phalanx_shared::event::LogStream;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// A pipe holds 64 KiB by default; a frame is at most what it holds.
const FRAME: usize = 64 * 1024;
/// After the end of all its processes a pipe may still be held by a stranger (a descriptor that was passed on).
/// What the pipe held is there at once, so that silence means that nothing of the process's own comes any more.
const SILENCE: Duration = Duration::from_secs(2);

/// Where frames go.
#[async_trait::async_trait]
pub trait Receiver: Send + Sync {
    /// Takes a frame; may wait.
    async fn frame(&self, stream: LogStream, bytes: Vec<u8>);
}

#[async_trait::async_trait]
impl Receiver for crate::sink::LogSink {
    async fn frame(&self, stream: LogStream, bytes: Vec<u8>) {
        self.write(stream, bytes).await;
    }
}

/// Hands over all output and returns what `ended` did, which is how one learns that nothing of the process lives.
/// `gone` is set at that moment, which may be long before all output has been taken.
pub async fn drain<T>(
    stdout: impl AsyncRead + Unpin + Send,
    stderr: impl AsyncRead + Unpin + Send,
    ended: impl Future<Output = T> + Send,
    to: &dyn Receiver,
    gone: &watch::Sender<bool>,
) -> T {
    let ended = async {
        let ending = ended.await;
        gone.send_replace(true);
        ending
    };
    let (ending, (), ()) = tokio::join!(
        ended,
        copy(stdout, LogStream::Stdout, to, gone.subscribe()),
        copy(stderr, LogStream::Stderr, to, gone.subscribe()),
    );
    ending
}

async fn copy(
    mut pipe: impl AsyncRead + Unpin,
    stream: LogStream,
    to: &dyn Receiver,
    mut gone: watch::Receiver<bool>,
) {
    loop {
        let mut frame = Vec::with_capacity(FRAME);
        let read = tokio::select! {
            biased;
            read = pipe.read_buf(&mut frame) => read,
            () = silence_after(&mut gone) => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(_) => to.frame(stream, frame).await,
        }
    }
}

async fn silence_after(gone: &mut watch::Receiver<bool>) {
    let _ = gone.wait_for(|gone| *gone).await;
    tokio::time::sleep(SILENCE).await;
}
