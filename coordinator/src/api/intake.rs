//! Large requests of clients, before they are read: a submission may have 105 MiB, and a crowd of them would have all memory.
//!
//! Each message says its length before it comes. What is larger than its call may bring is refused; what is large waits for a turn, which is as many
//! bytes of a budget. Nobody has more than half of it, and whoever waits too long is told to try again. Who has a turn has to send, or loses it.

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

/// What comes without a turn: most submissions, and everything that only asks.
const SMALL: usize = 256 << 10;
/// A message of a call that brings no submission: a piece of a workspace and its envelope.
const OTHER: usize = 1 << 20;
/// How often it is looked at how fast a client sends.
const LOOK: Duration = Duration::from_millis(500);
/// Before each message of gRPC: whether it is compressed, and its length.
const ENVELOPE: usize = 5;

/// A service whose large requests take turns.
#[derive(Clone)]
pub struct Intake<S> {
    inner: S,
    turns: Arc<Turns>,
}

impl<S> Intake<S> {
    /// The service behind its intake.
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
        // The one that is ready, not its clone.
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

/// The request as it comes, or wholly read if it is large; with its turn, to be kept until it is answered.
async fn admit(
    turns: &Arc<Turns>,
    request: http::Request<tonic::body::Body>,
) -> Result<(http::Request<Body>, Option<Turn>), Status> {
    let (head, body) = request.into_parts();
    let limit = match head.uri.path() {
        "/phalanx.v1.Control/Submit" => CLIENT_REQUEST_BYTES,
        // Options, a choice of cells, secrets.
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

/// A request's body, with what was read of it.
struct Incoming {
    data: BodyDataStream,
    meter: Meter,
    read: Vec<Bytes>,
}

impl Incoming {
    /// Waits for more; how many bytes came, none at the end.
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

    /// Reads the first message to its end, from a client that has a turn and has to use it.
    async fn whole(&mut self, turn: &Turn) -> Result<(), Status> {
        let mut pace = Pace::of("the submission");
        while self.meter.left > 0 {
            let waiting = Stopwatch::start();
            let came = tokio::time::timeout(LOOK, self.more()).await;
            let waited = waiting.elapsed();
            let rate = Pace::wanted(turn.is_wanted());
            match came {
                Err(_) => pace.check(waited, 0, rate)?,
                // Half a message: whoever decodes it says so.
                Ok(Ok(0)) => return Ok(()),
                Ok(more) => pace.check(waited, more?, rate)?,
            }
        }
        Ok(())
    }

    /// What was read and what follows, as whoever answers reads it.
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

/// Follows the messages of a stream of bytes by the lengths that they announce.
struct Meter {
    /// Bytes of a message.
    limit: usize,
    /// What came of the envelope of the next message.
    envelope: Vec<u8>,
    /// What is missing of the message before.
    left: usize,
    /// The length of the newest message.
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
