//! The only file that reads the machine's clocks; `clippy.toml` refuses it anywhere else.
//!
//! It is for the actors of both sides. Nothing else in this package uses it: the domain gets time as a parameter.

#![allow(clippy::disallowed_methods)]

use crate::time::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Decisions read it once and pass it on.
pub trait Clock: Send + Sync + 'static {
    /// Wall time.
    fn wall(&self) -> Timestamp;
    /// Time since an arbitrary fixed point; never goes back.
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

/// How long something takes, where only a message needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Since it began.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A moment from which on something isn't waited for any more, for loops outside of a runtime.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now. What is beyond the clock's range never comes.
    pub fn within(time: Duration) -> Self {
        Deadline(Instant::now().checked_add(time))
    }

    /// What is left of it; nothing once it is over.
    pub fn left(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.0.map_or(Duration::MAX, left)
    }

    /// Whether it has come.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}
