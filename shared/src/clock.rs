//! The only file that reads the machine's clocks; `clippy.toml` forbids that everywhere else.
//!
//! The actors of both sides use it. Nothing else in this package does: the domain takes time as a parameter.

#![allow(clippy::disallowed_methods)]

use crate::time::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time. Code that decides reads it once and passes the value on.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall time.
    fn wall(&self) -> Timestamp;
    /// Returns the time since an arbitrary fixed point; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Debug)]
pub struct SystemClock {
    zero: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock {
            zero: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.zero.elapsed()
    }
}

/// Measures how long something takes, for messages only.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring now.
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A point in time at which a wait ends, for loops outside of an async runtime.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Returns the deadline `time` from now. A deadline beyond the clock's range never comes.
    pub fn within(time: Duration) -> Self {
        Deadline(Instant::now().checked_add(time))
    }

    /// Returns the time left; zero once the deadline has passed.
    pub fn left(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.0.map_or(Duration::MAX, left)
    }

    /// Returns whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}
