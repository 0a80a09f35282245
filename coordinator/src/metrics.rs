//! The metrics of a coordinator, and their text format for Prometheus.
//!
//! Counters are global to the process, which is one coordinator, so no handle has to be passed around. States (open
//! runs, cells, agents, slots) aren't counted: each scrape asks their owners (`http/scrape.rs`).

mod text;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
pub use text::Text;

/// All counters of this process.
pub static METRICS: Metrics = Metrics::new();

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Adds a number.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Returns the current value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that can rise and fall.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// One unit in a gauge, until dropped.
#[derive(Debug)]
pub struct Present(&'static Gauge);

impl Gauge {
    const fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    /// Adds one to the gauge, until the returned value is dropped.
    pub fn enter(&'static self) -> Present {
        self.0.fetch_add(1, Ordering::Relaxed);
        Present(self)
    }

    /// Returns the current value.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Upper bounds of a histogram's buckets in microseconds, from a millisecond to ten minutes.
pub const BOUNDS_US: [u64; 14] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
];

/// A histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    const fn new() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BOUNDS_US.len()],
            count: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
        }
    }

    /// Adds a duration.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS_US.iter().position(|bound| us <= *bound);
        if let Some(bucket) = place.and_then(|place| self.buckets.get(place)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Returns the number of observations in each bucket; not cumulative.
    pub fn buckets(&self) -> [u64; BOUNDS_US.len()] {
        let mut counts = [0; BOUNDS_US.len()];
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        counts
    }

    /// Returns the number of observations and their sum in microseconds.
    pub fn total(&self) -> (u64, u64) {
        let count = self.count.load(Ordering::Relaxed);
        (count, self.sum_us.load(Ordering::Relaxed))
    }
}

/// The type of [`METRICS`].
#[derive(Debug)]
pub struct Metrics {
    /// Time from a cell being queued to an agent being found.
    pub queue_wait: Histogram,
    /// Time from sending an offer to its acceptance.
    pub offer_accept: Histogram,
    /// Offers that were declined or failed.
    pub offers_declined: Counter,
    /// Duration of a journal commit.
    pub journal_commit: Histogram,
    /// Number of events made durable.
    pub events: Counter,
    /// Bytes of logs stored.
    pub log_bytes: Counter,
    /// Number of connected watchers.
    pub watchers: Gauge,
    /// Number of watchers that disconnected or stopped reading before their stream was complete.
    pub watchers_dropped: Counter,
    /// Connections of agents that were refused or closed with a reason.
    pub agents_refused: Counter,
    /// Connections that were dropped or rejected because they made no requests or were too many.
    pub connections_dropped: Counter,
    /// Number of agents lost.
    pub agents_lost: Counter,
    /// Messages rejected because their token is stale.
    pub stale: Counter,
    /// Finished runs by outcome, in the order of [`OUTCOMES`].
    pub runs_finished: [Counter; OUTCOMES.len()],
    /// Finished cells by outcome, in the order of [`OUTCOMES`].
    pub cells_finished: [Counter; OUTCOMES.len()],
}

/// All outcomes, in the order of the arrays above.
pub const OUTCOMES: [phalanx_shared::outcome::Outcome; 6] = {
    use phalanx_shared::outcome::Outcome::*;
    [Passed, Flaky, Skipped, Cancelled, Failed, Errored]
};

impl Metrics {
    const fn new() -> Metrics {
        Metrics {
            queue_wait: Histogram::new(),
            offer_accept: Histogram::new(),
            offers_declined: Counter::new(),
            journal_commit: Histogram::new(),
            events: Counter::new(),
            log_bytes: Counter::new(),
            watchers: Gauge::new(),
            watchers_dropped: Counter::new(),
            agents_refused: Counter::new(),
            connections_dropped: Counter::new(),
            agents_lost: Counter::new(),
            stale: Counter::new(),
            runs_finished: [const { Counter::new() }; OUTCOMES.len()],
            cells_finished: [const { Counter::new() }; OUTCOMES.len()],
        }
    }
}

/// Counts one outcome.
pub fn count_outcome(
    counters: &[Counter; OUTCOMES.len()],
    outcome: phalanx_shared::outcome::Outcome,
) {
    let place = OUTCOMES.iter().position(|known| *known == outcome);
    if let Some(counter) = place.and_then(|place| counters.get(place)) {
        counter.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_observation_once_where_it_belongs() {
        let histogram = Histogram::new();
        for ms in [0, 1, 3, 20, 21, 10_000_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets.iter().sum::<u64>(), 5, "the longest is in none");
        assert_eq!(
            (buckets[0], buckets[2], buckets[4], buckets[5]),
            (2, 1, 1, 1)
        );
        assert_eq!(histogram.total(), (6, 10_000_045_000));
    }

    #[test]
    fn a_gauge_falls_when_what_it_counts_is_dropped() {
        static GAUGE: Gauge = Gauge::new();
        let (one, two) = (GAUGE.enter(), GAUGE.enter());
        assert_eq!(GAUGE.value(), 2);
        drop((one, two));
        assert_eq!(GAUGE.value(), 0);
    }
}
