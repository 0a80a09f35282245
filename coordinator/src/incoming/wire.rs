//! The bytes of a connection: as they come, or by TLS.
//!
//! The handshake is made by whoever first reads or writes, in the connection's own task: the port accepts further
//! connections meanwhile, and a slow peer holds up only itself.

use phalanx_proto::certificate::{Facts, facts};
use phalanx_shared::clock::Clock;
use phalanx_shared::time::Timestamp;
use rustls::ServerConfig;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// The certificate that a peer showed, which TLS has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// What the certificate says.
    pub facts: Facts,
    /// End of the connection's handshake.
    pub connected: Timestamp,
}

/// TLS of a port. Each connection uses the configuration of the moment at which it arrives.
#[derive(Clone)]
pub struct Secured {
    clock: Arc<dyn Clock>,
    config: Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>,
}

impl Secured {
    /// Creates TLS that asks for its configuration at each connection.
    pub fn new(
        clock: Arc<dyn Clock>,
        config: impl Fn() -> Arc<ServerConfig> + Send + Sync + 'static,
    ) -> Secured {
        Secured {
            clock,
            config: Arc::new(config),
        }
    }

    pub(super) fn accept(&self, stream: TcpStream) -> Wire {
        let accept = TlsAcceptor::from((self.config)()).accept(stream);
        Wire::Opening(Box::new(accept), self.clock.clone())
    }
}

/// The bytes of a connection.
pub(super) enum Wire {
    Plain(TcpStream),
    /// In its handshake.
    Opening(Box<Accept<TcpStream>>, Arc<dyn Clock>),
    Secret(Box<TlsStream<TcpStream>>),
    /// After a failed handshake.
    Over,
}

/// What became of a handshake.
pub(super) enum Opened {
    /// There was nothing to do.
    Already,
    /// It is over now; the peer may have shown a certificate.
    Now(Option<Presented>),
}

impl Wire {
    /// Returns whether the handshake isn't over.
    pub fn is_opening(&self) -> bool {
        matches!(self, Wire::Opening(..))
    }

    /// Goes on with the handshake.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Opened>> {
        let Wire::Opening(accept, clock) = self else {
            return Poll::Ready(Ok(Opened::Already));
        };
        let accepted = ready!(Pin::new(accept.as_mut()).poll(cx));
        let now = clock.wall();
        let opened = accepted.and_then(|stream| {
            let shown = stream.get_ref().1.peer_certificates();
            let own = shown.and_then(|chain| chain.first());
            let facts = own.map(|own| facts(own)).transpose();
            let facts = facts.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let presented = facts.map(|facts| Presented {
                facts,
                connected: now,
            });
            Ok((stream, presented))
        });
        Poll::Ready(match opened {
            Ok((stream, presented)) => {
                *self = Wire::Secret(Box::new(stream));
                Ok(Opened::Now(presented))
            }
            Err(error) => {
                *self = Wire::Over;
                Err(error)
            }
        })
    }
}

/// Reading or writing before the end of the handshake, or after it failed.
fn not_open() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the handshake isn't over")
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Secret(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Wire::Opening(..) | Wire::Over => Poll::Ready(Err(not_open())),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Secret(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Wire::Opening(..) | Wire::Over => Poll::Ready(Err(not_open())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Secret(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Wire::Opening(..) | Wire::Over => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Secret(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            // Dropping the connection closes it.
            Wire::Opening(..) | Wire::Over => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Wire::Secret(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bytes),
            Wire::Opening(..) | Wire::Over => Poll::Ready(Err(not_open())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // TLS makes one record of what is written at once, so the pieces are joined before.
        matches!(self, Wire::Plain(_))
    }
}
