//! Decides which clients may send a large request now, and which come next.

use phalanx_proto::limit::CLIENT_REQUEST_BYTES;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::Status;

/// Time after which a client without a turn gets an error.
const WAIT: Duration = Duration::from_secs(5);
/// Maximum number of waiting requests. Each holds what its connection has received already.
const WAITING: usize = 64;

/// A budget of bytes that large requests share.
pub struct Turns {
    budget: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: u64,
    requests: usize,
    /// Bytes by address. Clients without an address use a socket of this machine.
    peers: HashMap<Option<IpAddr>, u64>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    peer: Option<IpAddr>,
    bytes: u64,
    granted: oneshot::Sender<Turn>,
}

/// Permission to send a number of bytes, valid until dropped.
pub struct Turn {
    turns: Arc<Turns>,
    peer: Option<IpAddr>,
    bytes: u64,
}

impl Turns {
    /// Creates a budget. It has room for at least one request of the largest size.
    pub fn new(budget: u64) -> Self {
        Turns {
            budget: budget.max(CLIENT_REQUEST_BYTES as u64),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No statement that could panic leaves the counts inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how much one address may use: half the budget is left for others, but any request fits.
    fn of_a_peer(&self, peer: Option<IpAddr>) -> u64 {
        match peer {
            Some(_) => (self.budget / 2).max(CLIENT_REQUEST_BYTES as u64),
            None => self.budget,
        }
    }

    /// Waits briefly for a turn for a request of this size. Returns an error if none is granted in time.
    pub async fn take(self: &Arc<Self>, peer: Option<IpAddr>, bytes: u64) -> Result<Turn, Status> {
        let (granted, turn) = oneshot::channel();
        let queued = {
            let mut state = self.state();
            state.waiting.retain(|waiting| !waiting.granted.is_closed());
            let room = state.waiting.len() < WAITING;
            if room {
                state.waiting.push_back(Waiting {
                    peer,
                    bytes,
                    granted,
                });
            }
            room
        };
        self.serve();
        if queued && let Ok(Ok(turn)) = tokio::time::timeout(WAIT, turn).await {
            return Ok(turn);
        }
        let state = self.state();
        Err(Status::resource_exhausted(format!(
            "the coordinator is taking {} large submissions with {} MiB, {} MiB are the most at a time and {} MiB of one address: try again",
            state.requests,
            state.taken >> 20,
            self.budget >> 20,
            self.of_a_peer(peer) >> 20,
        )))
    }

    /// Grants turns to waiting requests, in order. A peer that is over its own share doesn't hold up others. A request
    /// that exceeds the rest of the budget does, because otherwise small requests would keep large ones out.
    fn serve(self: &Arc<Self>) {
        let mut served = Vec::new();
        {
            let mut state = self.state();
            let mut still = VecDeque::new();
            let mut full = false;
            while let Some(waiting) = state.waiting.pop_front() {
                let Waiting { peer, bytes, .. } = waiting;
                if waiting.granted.is_closed() {
                    continue;
                }
                let of_peer = state.peers.get(&peer).copied().unwrap_or_default();
                let too_much = of_peer + bytes > self.of_a_peer(peer);
                full |= !too_much && state.taken + bytes > self.budget;
                if full || too_much {
                    still.push_back(waiting);
                    continue;
                }
                state.taken += bytes;
                state.requests += 1;
                *state.peers.entry(peer).or_default() += bytes;
                served.push(waiting);
            }
            state.waiting = still;
        }
        for Waiting {
            peer,
            bytes,
            granted,
        } in served
        {
            let turns = self.clone();
            // If the request doesn't wait any more, dropping the turn returns its bytes.
            let _ = granted.send(Turn { turns, peer, bytes });
        }
    }
}

impl Turn {
    /// Returns whether another request waits for a turn.
    pub fn is_wanted(&self) -> bool {
        !self.turns.state().waiting.is_empty()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut state = self.turns.state();
            state.taken = state.taken.saturating_sub(self.bytes);
            state.requests = state.requests.saturating_sub(1);
            if let Some(of_peer) = state.peers.get_mut(&self.peer) {
                *of_peer = of_peer.saturating_sub(self.bytes);
                if *of_peer == 0 {
                    state.peers.remove(&self.peer);
                }
            }
        }
        self.turns.serve();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn peer(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, n]))
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_has_half_and_the_other_half_is_for_others() {
        let turns = Arc::new(Turns::new(256 * MIB));
        let first = turns.take(peer(1), 100 * MIB).await.unwrap();
        let refused = turns.take(peer(1), 100 * MIB).await.err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        for part in ["taking 1 large submissions with 100 MiB", "128 MiB of one"] {
            assert!(refused.message().contains(part), "{refused}");
        }
        let _small = turns.take(peer(1), 20 * MIB).await.unwrap();
        let _other = turns.take(peer(2), 100 * MIB).await.unwrap();
        assert!(!first.is_wanted());
        let waits = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(peer(1), 100 * MIB).await }
        });
        tokio::task::yield_now().await;
        assert!(first.is_wanted());
        drop(first);
        assert!(waits.await.unwrap().is_ok());
        assert_eq!(turns.state().requests, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_one_that_waits_is_not_passed_by_small_ones_and_all_is_given_back() {
        let turns = Arc::new(Turns::new(256 * MIB));
        let held = [
            turns.take(peer(1), 100 * MIB).await.unwrap(),
            turns.take(peer(2), 100 * MIB).await.unwrap(),
        ];
        let wait = |n: u8, bytes: u64| {
            let turns = turns.clone();
            tokio::spawn(async move { turns.take(peer(n), bytes).await })
        };
        let large = wait(3, 100 * MIB);
        tokio::task::yield_now().await;
        let small = wait(4, MIB);
        tokio::task::yield_now().await;
        assert_eq!(turns.state().waiting.len(), 2);
        drop(held);
        let (large, small) = (large.await.unwrap().unwrap(), small.await.unwrap().unwrap());
        drop((large, small));
        // If too many wait, the rest are refused.
        let all = turns.take(None, 256 * MIB).await.unwrap();
        let crowd: Vec<_> = (0..200).map(|_| wait(5, MIB)).collect();
        for waits in crowd {
            assert!(waits.await.unwrap().is_err());
        }
        drop(all);
        let state = turns.state();
        assert_eq!((state.taken, state.requests, state.peers.len()), (0, 0, 0));
    }
}
