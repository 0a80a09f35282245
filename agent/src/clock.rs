//! The machine's clocks, and tokio's clock, which a test can pause.

#![allow(clippy::disallowed_methods)]

pub use phalanx_shared::clock::{Clock, Deadline, Stopwatch, SystemClock};

/// Returns the current time of tokio's clock.
pub fn runtime_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
