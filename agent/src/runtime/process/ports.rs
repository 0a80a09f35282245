//! Free ports of 127.0.0.1, reserved for a service by name so that no other process takes them between the choice and
//! the service's `bind`.
//!
//! A port is chosen outside the kernel's ephemeral range, so that no unrelated connection or `bind(0)` takes it. It is
//! claimed among all Phalanx processes of the machine by the name of an abstract socket, which the kernel frees when
//! the holder dies, however it dies. Until the service starts, the port is also bound but not listening, so that
//! connections are refused, as they should be.

use crate::clock::Deadline;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpSocket;
use uuid::Uuid;

/// The lowest port that may be chosen: well-known services use the ports below.
const LOWEST: u16 = 10_000;
/// Number of ports tried before giving up; each one is likely to be free.
const TRIES: u32 = 2_000;

/// A port that stays reserved while this value lives.
#[derive(Debug)]
pub struct Reservation {
    port: u16,
    /// Claim among Phalanx processes, for the whole life of the stack.
    _claim: UnixDatagram,
    /// Sockets that keep other programs off the port until the service starts.
    held: Option<(TcpSocket, UdpSocket)>,
}

impl Reservation {
    /// Chooses and reserves a free port.
    pub fn choose() -> io::Result<Reservation> {
        let candidates = candidates();
        let span = u32::from(candidates.1 - candidates.0) + 1;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        // Any start is fine, as long as agents that start at the same time begin at different ports.
        let start = (Uuid::new_v4().as_u128() % u128::from(span)) as u32;
        for step in 0..TRIES {
            // A stride that is coprime to most spans: the neighbours of a taken port are often taken too.
            let offset = (start + step * 7919) % span;
            let port = candidates.0 + u16::try_from(offset).unwrap_or(0);
            match Reservation::claim(port) {
                Ok(reservation) => return Ok(reservation),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn claim(port: u16) -> io::Result<Reservation> {
        let name = UnixAddr::from_abstract_name(format!("phalanx-port-{port}"))?;
        let claim = UnixDatagram::bind_addr(&name)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Without SO_REUSEADDR: a port with remains of old connections is skipped.
        let tcp = TcpSocket::new_v4()?;
        tcp.bind(address)?;
        let udp = UdpSocket::bind(address)?;
        Ok(Reservation {
            port,
            _claim: claim,
            held: Some((tcp, udp)),
        })
    }

    /// Returns the port number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Unbinds the port so that the service can bind it. It stays claimed among Phalanx processes.
    pub fn hand_over(&mut self) {
        self.held = None;
    }
}

/// The reserved ports of all services of an attempt.
#[derive(Debug, Default)]
pub struct Ports {
    reserved: Mutex<BTreeMap<(String, String), Reservation>>,
}

impl Ports {
    /// Returns the port for a name of a service. The same at each call.
    pub fn reserve(&self, service: &str, name: &str) -> io::Result<u16> {
        match self.lock().entry((service.to_owned(), name.to_owned())) {
            Entry::Occupied(reserved) => Ok(reserved.get().port()),
            Entry::Vacant(free) => Ok(free.insert(Reservation::choose()?).port()),
        }
    }

    /// Lets the service bind its ports, and returns them. They become free a moment later ([`wait_until_free`]).
    pub fn hand_over(&self, service: &str) -> Vec<u16> {
        let mut reserved = self.lock();
        let own = reserved
            .iter_mut()
            .filter(|((owner, _), _)| owner == service);
        own.map(|(_, reservation)| {
            reservation.hand_over();
            reservation.port()
        })
        .collect()
    }

    /// Releases all ports.
    pub fn release(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Reservation>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reserved port that another program took.
#[derive(Debug, thiserror::Error)]
#[error("port {port} of 127.0.0.1 was taken by somebody else: {error}")]
pub struct Taken {
    port: u16,
    error: io::Error,
}

/// Waits until the ports can be bound as the service will bind them. Returns an error that names a port which can't.
///
/// A closed socket may live on for a moment: a child forked by another thread of the agent has copies of all
/// descriptors, even close-on-exec ones, until it gets the CPU to finish its `exec`. There is no notification for the
/// end of that, so this retries. Blocks.
pub fn wait_until_free(ports: &[u16], at_most: Duration) -> Result<(), Taken> {
    let deadline = Deadline::within(at_most);
    for port in ports {
        let address = (Ipv4Addr::LOCALHOST, *port);
        // The standard library's listeners set SO_REUSEADDR, as servers do.
        while let Err(error) = TcpListener::bind(address).and(UdpSocket::bind(address)) {
            if deadline.is_over() {
                return Err(Taken { port: *port, error });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Returns the ports below the ephemeral range, or those above it, or all if neither leaves enough room.
fn candidates() -> (u16, u16) {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    outside(
        range
            .ok()
            .as_deref()
            .and_then(parse_range)
            .unwrap_or((32_768, 60_999)),
    )
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_ascii_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn outside((low, high): (u16, u16)) -> (u16, u16) {
    const ENOUGH: u16 = 2_000;
    if low > LOWEST && low - LOWEST >= ENOUGH {
        (LOWEST, low - 1)
    } else if u16::MAX - high >= ENOUGH {
        (high + 1, u16::MAX)
    } else {
        (LOWEST, u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashSet;
    use std::net::TcpStream;

    #[test]
    fn ports_lie_outside_the_ephemeral_range_where_it_leaves_room() {
        assert_eq!(outside((32_768, 60_999)), (10_000, 32_767));
        assert_eq!(outside((1_024, 60_999)), (61_000, 65_535));
        assert_eq!(outside((1_024, 65_535)), (10_000, 65_535));
        assert_eq!(parse_range("32768\t60999\n"), Some((32_768, 60_999)));
    }

    #[tokio::test]
    async fn a_reserved_port_refuses_connections_and_strangers_until_it_is_handed_over() {
        let mut reservation = Reservation::choose().unwrap();
        let address = (Ipv4Addr::LOCALHOST, reservation.port());
        assert!(TcpStream::connect(address).is_err());
        assert!(TcpListener::bind(address).is_err());
        reservation.hand_over();
        let _service = TcpListener::bind(address).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        assert!(Reservation::claim(reservation.port()).is_err());
    }

    #[test]
    fn a_port_that_stays_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = wait_until_free(&[port], Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.port, port);
        drop(taken);
        wait_until_free(&[port], Duration::from_secs(5)).unwrap();
    }

    #[tokio::test]
    async fn many_reservations_at_once_are_all_different() {
        let reservations: Vec<Reservation> =
            (0..300).map(|_| Reservation::choose().unwrap()).collect();
        let ports: HashSet<u16> = reservations.iter().map(Reservation::port).collect();
        assert_eq!(ports.len(), 300);
    }
}
