//! Decides when an agent that isn't meant to stay leaves by itself, as runners do that are started for a job.

use std::time::Duration;

/// How long an agent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stay {
    /// Maximum number of attempts that it accepts; it leaves when they are over.
    pub attempts: Option<u32>,
    /// Time without an attempt after which it leaves.
    pub idle: Option<Duration>,
}

/// What an agent has done of it.
#[derive(Debug)]
pub(super) struct Stayed {
    stay: Stay,
    accepted: u32,
    idle_since: Option<Duration>,
}

impl Stayed {
    pub(super) fn new(stay: Stay) -> Self {
        Stayed {
            stay,
            accepted: 0,
            idle_since: None,
        }
    }

    /// Counts an accepted attempt. Returns whether it is the last one.
    pub(super) fn accepted(&mut self) -> bool {
        self.accepted = self.accepted.saturating_add(1);
        self.stay.attempts.is_some_and(|most| self.accepted >= most)
    }

    /// Returns whether the agent has been without an attempt for too long. Idle time counts from the first call, and
    /// without a coordinator too: nobody else would stop such a runner.
    pub(super) fn idles_too_long(&mut self, now: Duration, busy: bool) -> bool {
        let Some(idle) = self.stay.idle else {
            return false;
        };
        if busy {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        now >= since + idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn an_agent_without_limits_stays() {
        let mut stayed = Stayed::new(Stay::default());
        assert!((0..100).all(|_| !stayed.accepted()));
        assert!(!stayed.idles_too_long(secs(0), false));
        assert!(!stayed.idles_too_long(secs(1 << 30), false));
    }

    #[test]
    fn the_last_attempt_is_known_when_it_is_accepted() {
        let mut stayed = Stayed::new(Stay {
            attempts: Some(2),
            idle: None,
        });
        assert!(!stayed.accepted());
        assert!(stayed.accepted());
        // An offer that crossed with the refusal of more.
        assert!(stayed.accepted());
    }

    #[test]
    fn idle_time_begins_anew_with_each_attempt() {
        let mut stayed = Stayed::new(Stay {
            attempts: None,
            idle: Some(secs(60)),
        });
        assert!(!stayed.idles_too_long(secs(100), false));
        assert!(!stayed.idles_too_long(secs(159), false));
        assert!(!stayed.idles_too_long(secs(160), true));
        assert!(!stayed.idles_too_long(secs(170), false));
        assert!(!stayed.idles_too_long(secs(229), false));
        assert!(stayed.idles_too_long(secs(230), false));
    }
}
