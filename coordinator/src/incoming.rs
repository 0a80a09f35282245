//! Connections of a network, before anything is known of who is behind them.
//!
//! Whoever says nothing is dropped after a while, and sooner when many say nothing: the oldest of them goes. So a crowd of silent
//! connections costs memory for a moment and keeps nobody out.

use futures::Stream;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A connection that says nothing for so long is dropped.
const SPEAK_WITHIN: Duration = Duration::from_secs(10);
/// Connections that said nothing yet; one more, and the oldest is dropped. A thousand agents that all come back at once, with two connections
/// each, are no crowd.
const SILENT: usize = 4_096;
/// Pause after an `accept` that failed: no file descriptors, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, guarded.
pub fn guarded(listener: TcpListener) -> impl Stream<Item = io::Result<Guarded>> {
    guarded_by(listener, Door::new(SILENT))
}

fn guarded_by(listener: TcpListener, door: Door) -> impl Stream<Item = io::Result<Guarded>> {
    futures::stream::unfold((listener, door), |(listener, mut door)| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Messages are small and waited for.
                    let _ = stream.set_nodelay(true);
                    let guarded = door.enter(stream);
                    return Some((Ok(guarded), (listener, door)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Knows who hasn't spoken yet, oldest first.
struct Door {
    silent: VecDeque<Weak<CancellationToken>>,
    /// So many at most.
    limit: usize,
}

impl Door {
    fn new(limit: usize) -> Self {
        Door {
            silent: VecDeque::new(),
            limit,
        }
    }

    fn enter(&mut self, stream: TcpStream) -> Guarded {
        let silent = Arc::new(CancellationToken::new());
        self.silent.push_back(Arc::downgrade(&silent));
        if self.silent.len() > self.limit {
            self.silent.retain(|silent| silent.strong_count() > 0);
        }
        while self.silent.len() > self.limit {
            let oldest = self.silent.pop_front();
            if let Some(oldest) = oldest.as_ref().and_then(Weak::upgrade) {
                oldest.cancel();
            }
        }
        Guarded {
            stream,
            silence: Some(Silence {
                until: Box::pin(tokio::time::sleep(SPEAK_WITHIN)),
                pushed_out: Box::pin((*silent).clone().cancelled_owned()),
                _known_by: silent,
            }),
        }
    }
}

/// A connection that has to speak before long.
pub struct Guarded {
    stream: TcpStream,
    /// Until the first byte came.
    silence: Option<Silence>,
}

struct Silence {
    until: Pin<Box<Sleep>>,
    pushed_out: Pin<Box<WaitForCancellationFutureOwned>>,
    _known_by: Arc<CancellationToken>,
}

impl Silence {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.pushed_out.as_mut().poll(cx).is_ready() {
            return Poll::Ready("it said nothing, and too many others don't either");
        }
        ready!(self.until.as_mut().poll(cx));
        Poll::Ready("it said nothing for too long")
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.silence = None;
        }
        if read.is_pending()
            && let Some(silence) = &mut self.silence
            && let Poll::Ready(reason) = silence.poll_end(cx)
        {
            let from = self.stream.peer_addr().map(|address| address.to_string());
            tracing::info!(
                from = from.unwrap_or_default(),
                reason,
                "dropping a connection"
            );
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Guarded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn the_oldest_silent_connection_makes_room_and_one_that_spoke_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limit = 8;
        let mut door = Box::pin(guarded_by(listener, Door::new(limit)));
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for n in 0..limit + 2 {
            clients.push(TcpStream::connect(address).await.unwrap());
            let mut server = door.next().await.unwrap().unwrap();
            if n == 0 {
                clients[0].write_all(b"x").await.unwrap();
                assert_eq!(server.read_u8().await.unwrap(), b'x');
            }
            servers.push(server);
        }
        let error = servers[1].read_u8().await.unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
        clients[0].write_all(b"y").await.unwrap();
        assert_eq!(servers[0].read_u8().await.unwrap(), b'y');
        clients[2].write_all(b"z").await.unwrap();
        assert_eq!(servers[2].read_u8().await.unwrap(), b'z');
    }
}
