//! Limits the memory of large client requests before they are read: a submission may have 105 MiB, and many of them at
//! once would use up all memory.
//!
//! Each message announces its length. A message that is too large for its call is rejected. A large message waits for a
//! turn, which takes its bytes from a shared budget. One address gets at most half of the budget, and a client that
//! waits too long is told to try again. A client with a turn must send fast enough, or it loses the turn.

mod turns;

use super::workspace::Pace;
use crate::incoming::Visit;
use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use futures::future::BoxFuture;
use phalanx_proto::limit::{CLIENT_REQUEST_BYTES, VALUES_BYTES};
use phalanx_shared::clock::Stopwatch;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::Status;
use tonic::codegen::{Bytes, Service, http};
use tonic::server::NamedService;
use turns::Turn;
pub use turns::Turns;

/// Largest message that needs no turn: most submissions, and all plain queries.
const SMALL: usize = 256 << 10;
/// Largest message of a call that brings no submission: a piece of a workspace with its envelope.
const OTHER: usize = 1 << 20;
/// Interval at which a client's speed is checked.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes before each gRPC message: the compression flag and the length.
const ENVELOPE: usize = 5;

/// A service whose large requests take turns.
#[derive(Clone)]
pub struct Intake<S> {
    inner: S,
    turns: Arc<Turns>,
}

impl<S> Intake<S> {
    /// Puts an intake in front of a service.
    pub fn new(inner: S, turns: Turns) -> Self {
        Intake {
            inner,
            turns: Arc::new(turns),
        }
    }
}

impl<S: NamedService> NamedService for Intake<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = http::Response<tonic::body::Body>;

impl<S> Service<http::Request<tonic::body::Body>> for Intake<S>
where
    S: Service<http::Request<Body>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let clone = self.inner.clone();
        // Call the instance that was polled ready, not its clone.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let turns = self.turns.clone();
        Box::pin(async move {
            match admit(&turns, request).await {
                Ok((request, _turn)) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Returns the request unread, or completely read if it is large, then with its turn. Keep the turn until the request
/// is answered.
async fn admit(
    turns: &Arc<Turns>,
    request: http::Request<tonic::body::Body>,
) -> Result<(http::Request<Body>, Option<Turn>), Status> {
    let (head, body) = request.into_parts();
    let limit = match head.uri.path() {
        "/phalanx.v1.Control/Submit" => CLIENT_REQUEST_BYTES,
        // Options, a selection of cells, secrets.
        "/phalanx.v1.Control/Rerun" => 3 * VALUES_BYTES,
        _ => OTHER,
    };
    let mut incoming = Incoming {
        data: Body::new(body).into_data_stream(),
        meter: Meter::new(limit),
        read: Vec::new(),
    };
    while incoming.meter.announced.is_none() && incoming.more().await? > 0 {}
    let size = incoming.meter.announced.unwrap_or_default();
    let mut turn = None;
    if limit > OTHER && size > SMALL {
        let peer = head.extensions.get::<Visit>().map(Visit::peer);
        let taken = turns.take(peer, size as u64).await?;
        incoming.whole(&taken).await?;
        turn = Some(taken);
    }
    Ok((http::Request::from_parts(head, incoming.into_body()), turn))
}

/// The body of a request, with the bytes read so far.
struct Incoming {
    data: BodyDataStream,
    meter: Meter,
    read: Vec<Bytes>,
}

impl Incoming {
    /// Waits for more bytes and returns their number; 0 at the end.
    async fn more(&mut self) -> Result<usize, Status> {
        let Some(next) = self.data.next().await else {
            return Ok(0);
        };
        let bytes = next.map_err(|error| Status::from_error(error.into_inner()))?;
        self.meter.hear(&bytes)?;
        let length = bytes.len();
        self.read.push(bytes);
        Ok(length)
    }

    /// Reads the first message to its end. The client has a turn, so it must send fast enough.
    async fn whole(&mut self, turn: &Turn) -> Result<(), Status> {
        let mut pace = Pace::of("the submission");
        while self.meter.left > 0 {
            let waiting = Stopwatch::start();
            let came = tokio::time::timeout(LOOK, self.more()).await;
            let waited = waiting.elapsed();
            let rate = Pace::wanted(turn.is_wanted());
            match came {
                Err(_) => pace.check(waited, 0, rate)?,
                // An incomplete message: the decoder reports it.
                Ok(Ok(0)) => return Ok(()),
                Ok(more) => pace.check(waited, more?, rate)?,
            }
        }
        Ok(())
    }

    /// Returns a body that consists of the bytes read so far and the rest.
    fn into_body(self) -> Body {
        let Incoming {
            data,
            mut meter,
            read,
        } = self;
        // No call brings a second large message.
        meter.limit = meter.limit.min(OTHER);
        let rest = data.map(move |next| {
            let bytes = next.map_err(|error| Status::from_error(error.into_inner()))?;
            meter.hear(&bytes)?;
            Ok::<Bytes, Status>(bytes)
        });
        Body::from_stream(futures::stream::iter(read.into_iter().map(Ok)).chain(rest))
    }
}

/// Follows the messages in a stream of bytes by the lengths that they announce.
struct Meter {
    /// Maximum bytes of a message.
    limit: usize,
    /// The part of the next message's envelope that has arrived.
    envelope: Vec<u8>,
    /// Bytes of the current message that are still missing.
    left: usize,
    /// Length of the newest message.
    announced: Option<usize>,
}

impl Meter {
    fn new(limit: usize) -> Self {
        Meter {
            limit,
            envelope: Vec::with_capacity(ENVELOPE),
            left: 0,
            announced: None,
        }
    }

    fn hear(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (_, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= bytes.len() - rest.len();
                bytes = rest;
                continue;
            }
            let missing = ENVELOPE - self.envelope.len();
            let (more, rest) = bytes.split_at(missing.min(bytes.len()));
            self.envelope.extend_from_slice(more);
            bytes = rest;
            if let [_, length @ ..] = self.envelope.as_slice()
                && let Ok(length) = length.try_into()
            {
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.announced = Some(self.left);
                self.envelope.clear();
            }
            if self.left > self.limit {
                return Err(Status::out_of_range(format!(
                    "the message has {} bytes, this call takes at most {}",
                    self.left, self.limit
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_are_followed_however_their_bytes_are_cut() {
        let mut stream = Vec::new();
        for length in [0u32, 3, 700, 1] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(vec![9; length as usize]);
        }
        for piece in [1, 2, 3, 7, 5_000] {
            let mut meter = Meter::new(700);
            let mut lengths = Vec::new();
            for bytes in stream.chunks(piece) {
                meter.hear(bytes).unwrap();
                lengths.extend(meter.announced.filter(|l| lengths.last() != Some(l)));
            }
            assert_eq!((meter.left, meter.envelope.len()), (0, 0));
            assert_eq!(lengths.last(), Some(&1));
            let mut small = Meter::new(699);
            let refused = stream.chunks(piece).find_map(|b| small.hear(b).err());
            assert!(refused.unwrap().message().contains("700 bytes"));
        }
    }
}
