//! Forwards the output of a process, frame by frame as it arrives, until both streams have ended.
//!
//! Back-pressure reaches the process: while the receiver is behind, the pipe fills up and the process blocks in
//! `write`.

use phalanx_shared::event::LogStream;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// Maximum frame size: the default capacity of a pipe, 64 KiB.
const FRAME: usize = 64 * 1024;
/// How long to wait for more output after all processes have ended. A pipe may still be held open by an unrelated
/// process that was passed the descriptor. Everything in the pipe can be read at once, so silence means that the
/// process's own output is complete.
const SILENCE: Duration = Duration::from_secs(2);

/// Receives frames of output.
#[async_trait::async_trait]
pub trait Receiver: Send + Sync {
    /// Takes a frame. May wait.
    async fn frame(&self, stream: LogStream, bytes: Vec<u8>);
}

#[async_trait::async_trait]
impl Receiver for crate::sink::LogSink {
    async fn frame(&self, stream: LogStream, bytes: Vec<u8>) {
        self.write(stream, bytes).await;
    }
}

/// Forwards all output and returns the result of `ended`, a future that completes when no process lives. `gone` is set
/// at that moment, which may be long before all output has been received.
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
