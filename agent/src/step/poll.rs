//! The pauses of `poll`: 50 ms, doubling up to the interval, never beyond the deadline.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// Interval if the poll doesn't set `interval`.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
/// Timeout if the poll doesn't set `timeout`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Paces the repetitions of one try.
#[derive(Clone, Debug)]
pub struct Pace {
    next: Duration,
    longest: Duration,
    deadline: Duration,
}

impl Pace {
    /// Creates a pace whose repetitions end at `now + timeout`.
    pub fn new(now: Duration, timeout: Duration, interval: Duration) -> Self {
        Pace {
            next: FIRST.min(interval),
            longest: interval,
            deadline: now.saturating_add(timeout),
        }
    }

    /// Returns the time left until the deadline.
    pub fn left(&self, now: Duration) -> Duration {
        self.deadline.saturating_sub(now)
    }

    /// Returns the pause before the next repetition, or `None` if the time is over.
    pub fn pause(&mut self, now: Duration) -> Option<Duration> {
        let left = self.left(now);
        if left.is_zero() {
            return None;
        }
        let pause = self.next.min(left);
        self.next = (self.next * 2).min(self.longest);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_50ms_to_the_interval_and_end_at_the_deadline() {
        let (mut now, mut pauses) = (Duration::from_secs(7), Vec::new());
        let mut pace = Pace::new(now, Duration::from_secs(5), Duration::from_millis(2000));
        while let Some(pause) = pace.pause(now) {
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 1850]);
    }

    #[test]
    fn an_interval_below_50ms_is_the_pause_from_the_start() {
        let mut pace = Pace::new(Duration::ZERO, DEFAULT_TIMEOUT, Duration::from_millis(10));
        assert_eq!(pace.pause(Duration::ZERO), Some(Duration::from_millis(10)));
        assert_eq!(pace.pause(Duration::ZERO), Some(Duration::from_millis(10)));
    }
}
