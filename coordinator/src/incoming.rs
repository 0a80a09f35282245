//! Guards network connections before anything is known about their peers.
//!
//! A connection that doesn't make a request in time is dropped, whether it sent nothing, one byte, half a greeting or
//! half a request. When there are too many connections, from one peer or in total, the oldest idle ones are dropped:
//! first those that never finished their greeting, then those without an open call. A new connection is rejected only
//! when all others are busy, and no peer can use all the room. So a crowd of idle connections costs memory for a moment
//! and keeps no one out.

mod greeting;
mod wire;

pub use wire::{Presented, Secured};

use crate::metrics::METRICS;
use futures::Stream;
use greeting::Greeting;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::{Request, Status};
use wire::{Opened, Wire};

/// Time within which a TLS handshake must be over.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// Time within which a new connection must make its first request.
const GREET_WITHIN: Duration = Duration::from_secs(10);
/// Pause after a failed `accept`, for example for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1, for monitoring and pages.
    Http1,
}

/// How long a connection may be idle.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Of a TLS handshake.
    open: Duration,
    /// Before its first request.
    greet: Duration,
    /// After its first request. Clients reconnect when they need to.
    idle: Duration,
}

impl Patience {
    fn with(speech: Speech) -> Self {
        Patience {
            open: OPEN_WITHIN,
            greet: GREET_WITHIN,
            idle: match speech {
                Speech::Http2 => Duration::from_secs(300),
                Speech::Http1 => Duration::from_secs(90),
            },
        }
    }
}

/// Limits of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of calls that last as long as the client wants: sessions, watchers, followed logs.
    pub streams: usize,
}

impl Room {
    /// Returns the limits of a port in a process that may open `files` files. Half of them are for connections of
    /// agents and clients; logs, the journal and workspaces need the others.
    pub fn of(speech: Speech, files: u64) -> Room {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        match speech {
            Speech::Http2 => Room {
                connections: (files / 2).clamp(16, 16_384),
                streams: (files / 2).clamp(16, 16_384),
            },
            // An open page has one connection for its events, and a few for a moment.
            Speech::Http1 => Room {
                connections: (files / 8).clamp(8, 1_024),
                streams: (files / 16).clamp(4, 512),
            },
        }
    }

    /// Returns the limits of a port in this process.
    pub fn here(speech: Speech) -> Room {
        use nix::sys::resource::{Resource, getrlimit};
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        Room::of(speech, files)
    }

    /// Returns how much of a limit one peer may use; a quarter is left for others.
    fn of_a_peer(all: usize) -> usize {
        all - all / 4
    }
}

/// A listener whose connections are guarded.
pub struct Guard {
    listener: TcpListener,
    /// `None` for a port without TLS.
    secured: Option<Secured>,
    door: Door,
    speech: Speech,
    patience: Patience,
}

impl Guard {
    /// Creates a guarded listener.
    pub fn new(listener: TcpListener, speech: Speech, room: Room) -> Self {
        Guard {
            listener,
            secured: None,
            door: Door::new(room),
            speech,
            patience: Patience::with(speech),
        }
    }

    /// Speaks TLS only.
    pub fn secured(mut self, secured: Secured) -> Self {
        self.secured = Some(secured);
        self
    }

    /// Returns the open connections of this port.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Returns the guarded connections as a stream, for tonic.
    pub fn stream(self) -> impl Stream<Item = io::Result<Guarded>> {
        futures::stream::unfold(self, |mut guard| async {
            let guarded = guard.next().await;
            Some((Ok(guarded), guard))
        })
    }

    fn enter(&self, stream: TcpStream, address: SocketAddr) -> Option<Guarded> {
        let out = CancellationToken::new();
        let Some(visit) = self.door.enter(address, out.clone()) else {
            METRICS.connections_dropped.inc();
            tracing::debug!(%address, "turned away: everybody in is busy");
            return None;
        };
        let (wire, until) = match &self.secured {
            None => (Wire::Plain(stream), self.patience.greet),
            Some(secured) => (secured.accept(stream), self.patience.open),
        };
        Some(Guarded {
            wire,
            greeting: Greeting::new(self.speech),
            visit,
            patience: self.patience,
            asked: 0,
            until: Box::pin(tokio::time::sleep(until)),
            pushed_out: Box::pin(out.cancelled_owned()),
        })
    }

    async fn next(&mut self) -> Guarded {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Messages are small, and the peer waits for each.
                    let _ = stream.set_nodelay(true);
                    if let Some(guarded) = self.enter(stream, address) {
                        return guarded;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for Guard {
    type Io = Guarded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        let guarded = self.next().await;
        let address = guarded.visit.address;
        (guarded, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Keeps track of the open connections of a port.
#[derive(Clone)]
pub struct Door(Arc<Mutex<Inside>>);

struct Inside {
    room: Room,
    arrivals: u64,
    /// Connections by order of arrival, oldest first.
    guests: BTreeMap<u64, Guest>,
    peers: HashMap<IpAddr, Peer>,
    streams: usize,
}

struct Guest {
    peer: IpAddr,
    greeted: bool,
    /// Number of open streams.
    busy: usize,
    out: CancellationToken,
    shown: Arc<Shown>,
}

/// What becomes known of a connection while it is open.
#[derive(Default)]
struct Shown {
    /// The certificate of its peer.
    presented: OnceLock<Presented>,
    /// Why it must end, if not to make room.
    refused: OnceLock<&'static str>,
}

#[derive(Default)]
struct Peer {
    connections: usize,
    streams: usize,
}

/// Returns the peer of an address. IPv6 addresses with the same first 64 bits count as one peer, because the owner of
/// such a network can use all of its addresses.
fn peer_of(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
    }
}

impl Door {
    fn new(room: Room) -> Self {
        Door(Arc::new(Mutex::new(Inside {
            room,
            arrivals: 0,
            guests: BTreeMap::new(),
            peers: HashMap::new(),
            streams: 0,
        })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // No statement that could panic leaves the counts inconsistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a new connection if there is room.
    fn enter(&self, address: SocketAddr, out: CancellationToken) -> Option<Visit> {
        let peer = peer_of(address);
        let mut inside = self.inside();
        if !inside.make_room(peer) {
            return None;
        }
        inside.arrivals += 1;
        let arrival = inside.arrivals;
        inside.peers.entry(peer).or_default().connections += 1;
        let shown = Arc::new(Shown::default());
        let guest = Guest {
            peer,
            greeted: false,
            busy: 0,
            out,
            shown: shown.clone(),
        };
        inside.guests.insert(arrival, guest);
        Some(Visit {
            door: self.clone(),
            arrival,
            address,
            shown,
        })
    }

    /// Ends the connections whose certificate is one of these.
    pub fn drop_where(&self, refused: &dyn Fn(&Presented) -> bool) {
        let inside = self.inside();
        let these = inside
            .guests
            .values()
            .filter(|guest| guest.shown.presented.get().is_some_and(refused));
        for guest in these {
            let _ = guest
                .shown
                .refused
                .set("its identity may not be used any more");
            guest.out.cancel();
        }
    }
}

impl Inside {
    /// Makes room for a connection of a peer, if necessary by dropping another one. Returns whether there is room.
    fn make_room(&mut self, peer: IpAddr) -> bool {
        let own = self.peers.get(&peer).map_or(0, |known| known.connections);
        let oldest = |of: &dyn Fn(IpAddr) -> bool| {
            let idle = |greeted: bool| {
                let mut these = self.guests.iter().filter(|(_, guest)| {
                    of(guest.peer) && guest.greeted == greeted && guest.busy == 0
                });
                these.next().map(|(arrival, _)| *arrival)
            };
            idle(false).or_else(|| idle(true))
        };
        let goes = if own >= Room::of_a_peer(self.room.connections) {
            oldest(&|other| other == peer)
        } else if self.guests.len() >= self.room.connections {
            let most = self.peers.iter().max_by_key(|(_, peer)| peer.connections);
            let most = most.map(|(peer, _)| *peer);
            oldest(&|other| Some(other) == most).or_else(|| oldest(&|_| true))
        } else {
            return true;
        };
        let Some(goes) = goes else {
            return false;
        };
        if let Some(guest) = self.leave(goes) {
            guest.out.cancel();
        }
        true
    }

    fn leave(&mut self, arrival: u64) -> Option<Guest> {
        let guest = self.guests.remove(&arrival)?;
        self.streams = self.streams.saturating_sub(guest.busy);
        self.change(guest.peer, |peer| {
            peer.connections = peer.connections.saturating_sub(1);
            peer.streams = peer.streams.saturating_sub(guest.busy);
        });
        Some(guest)
    }

    fn change(&mut self, peer: IpAddr, change: impl FnOnce(&mut Peer)) {
        if let Some(known) = self.peers.get_mut(&peer) {
            change(known);
            if known.connections == 0 {
                self.peers.remove(&peer);
            }
        }
    }
}

/// A connection's place among the open ones, as its calls see it.
#[derive(Clone)]
pub struct Visit {
    door: Door,
    arrival: u64,
    address: SocketAddr,
    shown: Arc<Shown>,
}

impl Visit {
    /// Returns the visit of the connection that a call uses; none for a socket of this machine.
    pub fn of<T>(request: &Request<T>) -> Option<Visit> {
        request.extensions().get::<Visit>().cloned()
    }

    /// Returns the address that the connection comes from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the certificate that the peer showed, if it did.
    pub fn presented(&self) -> Option<&Presented> {
        self.shown.presented.get()
    }

    /// Returns the peer that the address belongs to.
    pub fn peer(&self) -> IpAddr {
        peer_of(self.address)
    }
}

/// A long-lasting call. While it lives, its connection isn't dropped to make room.
pub struct Busy(Option<Visit>);

impl Busy {
    /// Registers a long-lasting call. Returns an error if the peer or the port has too many.
    pub fn with<T>(request: &Request<T>) -> Result<Busy, Status> {
        Busy::of(Visit::of(request))
    }

    /// Registers a long-lasting call of a visit; a call through a socket of this machine has none. Returns an error if
    /// the peer or the port has too many.
    pub fn of(visit: Option<Visit>) -> Result<Busy, Status> {
        let Some(visit) = visit else {
            return Ok(Busy(None));
        };
        let peer = visit.peer();
        let mut inside = visit.door.inside();
        let all = inside.room.streams;
        let own = Room::of_a_peer(all);
        let of_peer = inside.peers.get(&peer).map_or(0, |peer| peer.streams);
        if of_peer >= own || inside.streams >= all {
            let message = format!(
                "too many calls that go on: {of_peer} from this address, {} in all; the limits are {own} and {all}",
                inside.streams
            );
            return Err(Status::resource_exhausted(message));
        }
        // The connection was dropped in the meantime.
        let Some(guest) = inside.guests.get_mut(&visit.arrival) else {
            return Err(Status::unavailable("the connection is over"));
        };
        guest.busy += 1;
        inside.streams += 1;
        inside.change(peer, |peer| peer.streams += 1);
        drop(inside);
        Ok(Busy(Some(visit)))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Some(visit) = &self.0 else { return };
        let mut inside = visit.door.inside();
        let Some(guest) = inside.guests.get_mut(&visit.arrival) else {
            return;
        };
        guest.busy = guest.busy.saturating_sub(1);
        inside.streams = inside.streams.saturating_sub(1);
        inside.change(visit.peer(), |peer| {
            peer.streams = peer.streams.saturating_sub(1);
        });
    }
}

/// A connection that is dropped if it makes no request in time.
pub struct Guarded {
    wire: Wire,
    greeting: Greeting,
    visit: Visit,
    patience: Patience,
    /// Number of requests when it was last checked.
    asked: u64,
    /// When it is checked next.
    until: Pin<Box<Sleep>>,
    pushed_out: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Guarded {
    /// Returns why the connection ends, if it does.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.pushed_out.as_mut().poll(cx).is_ready() {
            let refused = self.visit.shown.refused.get().copied();
            let for_room = "it does nothing, and others need the room";
            return Poll::Ready(refused.unwrap_or(for_room));
        }
        while self.until.as_mut().poll(cx).is_ready() {
            if self.wire.is_opening() {
                return Poll::Ready("its TLS handshake took too long");
            }
            if !self.greeting.is_over() {
                return Poll::Ready("it didn't say what it wants");
            }
            let asked = self.greeting.asked();
            let busy = {
                let inside = self.visit.door.inside();
                let guest = inside.guests.get(&self.visit.arrival);
                guest.is_some_and(|guest| guest.busy > 0)
            };
            if asked == self.asked && !busy {
                return Poll::Ready("it asked for nothing for too long");
            }
            self.asked = asked;
            self.until = Box::pin(tokio::time::sleep(self.patience.idle));
        }
        Poll::Pending
    }

    /// Returns the error of a connection that must end now.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_end(cx).map(|reason| {
            METRICS.connections_dropped.inc();
            tracing::debug!(from = %self.visit.address, reason, "dropping a connection");
            io::Error::new(io::ErrorKind::TimedOut, reason)
        })
    }

    /// Goes on with the handshake of TLS, which must be over before anything is read or written.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.wire.is_opening() {
            return Poll::Ready(Ok(()));
        }
        match self.wire.poll_open(cx) {
            Poll::Ready(Ok(opened)) => {
                if let Opened::Now(Some(presented)) = opened {
                    let _ = self.visit.shown.presented.set(presented);
                }
                self.until = Box::pin(tokio::time::sleep(self.patience.greet));
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                METRICS.connections_dropped.inc();
                let from = self.visit.address;
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                match inner {
                    // A peer without a certificate that holds is worth a line; what isn't TLS may be anything.
                    Some(rustls::Error::InvalidCertificate(reason)) => {
                        tracing::warn!(%from, ?reason, "a certificate was refused");
                    }
                    _ => tracing::debug!(%from, %error, "a TLS handshake failed"),
                }
                Poll::Ready(Err(error))
            }
            Poll::Pending => self.poll_ended(cx).map(Err),
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.visit.door.inside().leave(self.visit.arrival);
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        std::task::ready!(me.poll_open(cx))?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut me.wire).poll_read(cx, buffer);
        let greeted = me.greeting.is_over();
        me.greeting
            .hear(buffer.filled().get(before..).unwrap_or_default());
        if !greeted && me.greeting.is_over() {
            if let Some(guest) = me.visit.door.inside().guests.get_mut(&me.visit.arrival) {
                guest.greeted = true;
            }
            me.until = Box::pin(tokio::time::sleep(me.patience.idle));
        }
        // Bytes alone don't count: a peer that sends one every few seconds never makes a request either.
        if let Poll::Ready(ended) = me.poll_ended(cx) {
            return Poll::Ready(Err(ended));
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
        std::task::ready!(self.poll_open(cx))?;
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(cx))?;
        Pin::new(&mut self.wire).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}

impl Connected for Guarded {
    type ConnectInfo = Visit;

    fn connect_info(&self) -> Visit {
        self.visit.clone()
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Guard>> for Visit {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Guard>) -> Visit {
        stream.io().visit.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ROOM: Room = Room {
        connections: 8,
        streams: 4,
    };
    /// The preface, an empty SETTINGS frame, and a HEADERS frame without a payload.
    const GREETING: &[u8] =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x01\x04\0\0\0\x01";

    struct Port {
        guard: Guard,
        address: SocketAddr,
    }

    impl Port {
        async fn open() -> Port {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let guard = Guard::new(listener, Speech::Http2, ROOM);
            Port { guard, address }
        }

        async fn enter(&mut self, say: &[u8]) -> (TcpStream, Guarded) {
            let mut client = TcpStream::connect(self.address).await.unwrap();
            client.write_all(say).await.unwrap();
            let mut server = self.guard.next().await;
            let mut heard = vec![0; say.len()];
            server.read_exact(&mut heard).await.unwrap();
            (client, server)
        }
    }

    fn call(guarded: &Guarded) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(guarded.connect_info());
        request
    }

    #[tokio::test]
    async fn who_never_finished_its_greeting_makes_room_first_then_who_does_nothing() {
        let mut port = Port::open().await;
        // One peer may have six.
        let (_a, mut idle) = port.enter(GREETING).await;
        let (_b, mut half) = port.enter(&GREETING[..20]).await;
        let (mut c, mut busy) = port.enter(GREETING).await;
        let _busy = Busy::with(&call(&busy)).unwrap();
        let mut others = Vec::new();
        for _ in 0..3 {
            let (client, server) = port.enter(GREETING).await;
            let stream = Busy::with(&call(&server));
            others.push((client, server, stream.ok()));
        }
        let _seventh = port.enter(GREETING).await;
        let error = half.read_u8().await.unwrap_err();
        assert!(
            error.to_string().contains("others need the room"),
            "{error}"
        );
        let _eighth = port.enter(GREETING).await;
        assert!(idle.read_u8().await.is_err(), "it did nothing");
        c.write_all(b"x").await.unwrap();
        assert_eq!(busy.read_u8().await.unwrap(), b'x', "the busy one stays");
    }

    #[tokio::test]
    async fn when_all_are_busy_a_new_one_is_turned_away_and_nobody_has_everything() {
        let mut port = Port::open().await;
        let mut kept = Vec::new();
        for n in 0..6 {
            let (client, server) = port.enter(GREETING).await;
            let stream = Busy::with(&call(&server));
            // One peer may have three of four streams.
            assert_eq!(stream.is_ok(), n < 3);
            if let Ok(stream) = stream {
                kept.push((client, server, Some(stream)));
            } else {
                kept.push((client, server, None));
            }
        }
        let more = Busy::with(&call(&kept[0].1)).err().unwrap();
        assert_eq!(more.code(), tonic::Code::ResourceExhausted);
        // Mark the connections without a stream as busy, too.
        for guest in port.guard.door.inside().guests.values_mut() {
            guest.busy = 1;
        }
        let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
        assert!(!port.guard.door.inside().make_room(peer_of(peer)));
        let other: SocketAddr = "192.0.2.1:9".parse().unwrap();
        assert!(port.guard.door.inside().make_room(peer_of(other)));
        drop(kept);
        let inside = port.guard.door.inside();
        assert_eq!((inside.guests.len(), inside.peers.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_trickle_is_no_greeting() {
        let mut port = Port::open().await;
        port.guard.patience.greet = Duration::from_millis(300);
        let (mut client, mut server) = port.enter(b"").await;
        let trickle = tokio::spawn(async move {
            // It never completes a greeting, however often it sends a byte.
            while client.write_all(b"P").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let error = loop {
            if let Err(error) = server.read_u8().await {
                break error;
            }
        };
        assert!(error.to_string().contains("what it wants"), "{error}");
        drop(server);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn who_wants_nothing_more_is_dropped_unless_a_call_of_it_goes_on() {
        let mut port = Port::open().await;
        port.guard.patience.idle = Duration::from_millis(100);
        let (_client, mut idle) = port.enter(GREETING).await;
        let (mut client, mut busy) = port.enter(GREETING).await;
        let stream = Busy::with(&call(&busy)).unwrap();
        let error = idle.read_u8().await.unwrap_err();
        assert!(
            error.to_string().contains("nothing for too long"),
            "{error}"
        );
        client.write_all(b"x").await.unwrap();
        assert_eq!(busy.read_u8().await.unwrap(), b'x');
        drop(stream);
        assert!(busy.read_u8().await.is_err());
    }

    /// TLS with a certificate that nobody needs to trust.
    fn secured() -> Secured {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into());
        let config = Arc::new(config.unwrap());
        let clock = Arc::new(phalanx_shared::clock::SystemClock::default());
        Secured::new(clock, move || config.clone())
    }

    #[tokio::test]
    async fn a_handshake_that_doesnt_end_is_dropped_whether_it_is_read_or_written() {
        let mut port = Port::open().await;
        port.guard.patience.open = Duration::from_millis(100);
        port.guard = port.guard.secured(secured());
        for reads in [true, false] {
            let mut client = TcpStream::connect(port.address).await.unwrap();
            // The beginning of a record.
            client.write_all(&[22, 3, 1]).await.unwrap();
            let mut server = port.guard.next().await;
            let ended = match reads {
                true => server.read_u8().await.map(|_| ()),
                false => server.write_all(b"x").await,
            };
            let error = ended.unwrap_err();
            assert!(error.to_string().contains("took too long"), "{error}");
        }
        let mut client = TcpStream::connect(port.address).await.unwrap();
        client.write_all(GREETING).await.unwrap();
        let mut server = port.guard.next().await;
        assert!(server.read_u8().await.is_err(), "no TLS");
        assert!(server.read_u8().await.is_err(), "and it stays over");
    }

    #[tokio::test]
    async fn who_doesnt_end_its_handshake_makes_room_first() {
        let mut port = Port::open().await;
        let (_a, mut idle) = port.enter(GREETING).await;
        port.guard = port.guard.secured(secured());
        let mut kept = Vec::new();
        for _ in 0..6 {
            let client = TcpStream::connect(port.address).await.unwrap();
            kept.push((client, port.guard.next().await));
        }
        let error = kept[0].1.read_u8().await.unwrap_err();
        assert!(error.to_string().contains("the room"), "{error}");
        let nothing = tokio::time::timeout(Duration::from_millis(50), idle.read_u8()).await;
        assert!(nothing.is_err(), "who said what it wants stays");
    }

    #[test]
    fn peers_are_told_apart_by_what_they_can_choose_freely() {
        let of = |text: &str| peer_of(text.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::2]:9"));
        assert_ne!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:2::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
    }

    #[test]
    fn connections_leave_files_for_everything_else() {
        assert_eq!(Room::of(Speech::Http2, 3_000).connections, 1_500);
        assert_eq!(Room::of(Speech::Http1, 3_000).connections, 375);
        assert_eq!(Room::of(Speech::Http1, 1_048_576).streams, 512);
        assert_eq!(Room::of(Speech::Http2, 1_048_576).connections, 16_384);
    }
}
