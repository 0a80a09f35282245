//! The clocks of the machine, and the runtime's, which a test may stop.

#![allow(clippy::disallowed_methods)]

pub use phalanx_shared::clock::{Clock, Deadline, Stopwatch, SystemClock};

/// Now as tokio's timers see it.
pub fn runtime_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
