//! Opens connections. What these functions return is boxed, and connections of every kind have one type, so that the
//! HTTP/2 client is compiled once, in this crate, and not again wherever a connection is opened.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};

/// A connection's bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A future of a known type.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Opens a connection; called again when the previous one is lost.
pub type Open = Box<dyn FnMut() -> Boxed<io::Result<Box<dyn Io>>> + Send>;

/// Connects to an endpoint's own address.
pub fn connect(endpoint: Endpoint) -> Boxed<Result<Channel, Error>> {
    Box::pin(async move { endpoint.connect().await })
}

/// Connects over a Unix socket. The endpoint's address isn't used.
pub fn connect_unix(endpoint: Endpoint, path: PathBuf) -> Boxed<Result<Channel, Error>> {
    let open = move || -> Boxed<io::Result<Box<dyn Io>>> {
        let path = path.clone();
        Box::pin(async move {
            let stream = UnixStream::connect(path).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    };
    connect_by(endpoint, Box::new(open))
}

/// Connects by a function. The endpoint's address isn't used.
pub fn connect_by(endpoint: Endpoint, mut open: Open) -> Boxed<Result<Channel, Error>> {
    let connector = tower::service_fn(move |_: Uri| {
        let opened = open();
        async move { opened.await.map(hyper_util::rt::TokioIo::new) }
    });
    Box::pin(async move { endpoint.connect_with_connector(connector).await })
}

/// Returns an endpoint whose address isn't used: tonic requires one.
pub fn nowhere() -> Endpoint {
    Endpoint::from_static("http://local.invalid")
}
