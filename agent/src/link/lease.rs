//! The agent's lease, measured by its own clock. It counts from the moment when a heartbeat was *sent*, so it ends
//! before the coordinator considers the agent lost.

use std::collections::VecDeque;
use std::time::Duration;

/// The lease of this agent. All times are readings of its monotonic clock.
#[derive(Clone, Debug)]
pub struct Lease {
    length: Duration,
    interval: Duration,
    /// Time when the last answered heartbeat (or the Hello) was sent.
    renewed: Duration,
    /// Unanswered heartbeats and the times when they were sent.
    sent: VecDeque<(u64, Duration)>,
    next_number: u64,
    next_at: Duration,
}

/// Maximum number of unanswered heartbeats that are remembered; an answer to an older one doesn't renew the lease.
const REMEMBERED: usize = 64;

impl Lease {
    /// Creates the lease granted by a Welcome, in answer to a Hello sent at `asked`.
    pub fn new(length: Duration, interval: Duration, asked: Duration) -> Self {
        Lease {
            length,
            interval,
            renewed: asked,
            sent: VecDeque::new(),
            next_number: 1,
            next_at: asked + interval,
        }
    }

    /// Returns the number of the heartbeat to send now, if one is due.
    pub fn beat(&mut self, now: Duration) -> Option<u64> {
        if now < self.next_at {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.next_at = now + self.interval;
        self.sent.push_back((number, now));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        Some(number)
    }

    /// Handles the answer to a heartbeat: the lease counts from the time when that heartbeat was sent.
    pub fn answered(&mut self, number: u64) {
        while let Some((sent, at)) = self.sent.front().copied() {
            if sent > number {
                break;
            }
            self.sent.pop_front();
            if sent == number {
                self.renewed = self.renewed.max(at);
            }
        }
    }

    /// Returns whether the lease has expired.
    pub fn ran_out(&self, now: Duration) -> bool {
        now >= self.renewed + self.length
    }

    /// Returns whether the connection is probably dead: no answer for more than half of the lease. A new connection may
    /// still save the lease.
    pub fn silent(&self, now: Duration) -> bool {
        now >= self.renewed + self.length / 2 + self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn it_counts_from_the_sending_of_the_answered_heartbeat() {
        let mut lease = Lease::new(S(10), S(2), S(0));
        assert_eq!(lease.beat(S(1)), None);
        assert_eq!(lease.beat(S(2)), Some(1));
        assert_eq!(lease.beat(S(4)), Some(2));
        lease.answered(1); // arrives late, for example at 9
        assert!(!lease.ran_out(S(11)));
        assert!(lease.ran_out(S(12)));
    }

    #[test]
    fn an_answer_to_a_heartbeat_never_sent_renews_nothing() {
        let mut lease = Lease::new(S(10), S(2), S(0));
        lease.beat(S(2));
        lease.answered(77);
        assert!(lease.ran_out(S(10)));
    }

    #[test]
    fn silence_is_noticed_before_the_lease_is_over() {
        let lease = Lease::new(S(10), S(2), S(0));
        assert!(!lease.silent(S(6)));
        assert!(lease.silent(S(7)) && !lease.ran_out(S(7)));
    }
}
