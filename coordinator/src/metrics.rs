//! The metrics of a coordinator.
//!
//! Counters are global to the process, which is one coordinator, so no handle has to be passed around. States (open
//! runs, cells, agents, slots) aren't counted: each scrape asks their owners (`serve/http/scrape.rs`).

mod labelled;
mod measure;

use measure::Measures;
use phalanx_shared::outcome::Outcome;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::LazyLock;
use std::time::Duration;
use strum::VariantArray;

/// All counters of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// One unit in a gauge, until dropped.
#[derive(Debug)]
pub struct Present(Gauge);

impl Present {
    /// Adds one to the gauge, until the returned value is dropped.
    pub fn in_gauge(gauge: &Gauge) -> Present {
        gauge.inc();
        Present(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Upper bounds of a histogram's buckets in seconds, from a millisecond to ten minutes.
const BOUNDS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 600.0,
];

/// A histogram of durations, in seconds.
#[derive(Clone, Debug)]
pub struct Durations(Histogram);

impl Durations {
    /// Adds a duration.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

impl Default for Durations {
    fn default() -> Self {
        Durations(Histogram::new(BOUNDS))
    }
}

/// A counter for each outcome.
#[derive(Clone, Debug)]
pub struct Outcomes(Family<[(&'static str, &'static str); 1], Counter>);

impl Outcomes {
    /// Counts one outcome.
    pub fn count(&self, outcome: Outcome) {
        self.of(outcome).inc();
    }

    fn of(&self, outcome: Outcome) -> Counter {
        let label = [("outcome", outcome.as_str())];
        self.0.get_or_create_owned(&label)
    }
}

impl Default for Outcomes {
    /// Starts all outcomes at 0, so that a rate can be computed from the first one that occurs.
    fn default() -> Self {
        let all = Outcomes(Family::default());
        for outcome in Outcome::VARIANTS {
            all.of(*outcome);
        }
        all
    }
}

/// The type of [`METRICS`].
#[derive(Debug, Default)]
pub struct Metrics {
    /// Time from a cell being queued to an agent being found.
    pub queue_wait: Durations,
    /// Time from sending an offer to its acceptance.
    pub offer_accept: Durations,
    /// Offers that were declined or failed.
    pub offers_declined: Counter,
    /// Duration of a journal commit.
    pub journal_commit: Durations,
    /// Number of events made durable.
    pub events: Counter,
    /// Bytes of logs stored.
    pub log_bytes: Counter,
    /// Bytes of artifacts stored.
    pub artifact_bytes: Counter,
    /// Number of connected watchers.
    pub watchers: Gauge,
    /// Number of watchers that disconnected or stopped reading before their stream was complete.
    pub watchers_dropped: Counter,
    /// Connections of agents that were refused or closed with a reason.
    pub agents_refused: Counter,
    /// Calls of clients without a valid token, or whose role wasn't enough.
    pub calls_refused: Counter,
    /// Connections that were dropped or rejected because they made no requests or were too many.
    pub connections_dropped: Counter,
    /// Number of agents lost.
    pub agents_lost: Counter,
    /// Messages rejected because their token is stale.
    pub stale: Counter,
    /// Finished runs by outcome.
    pub runs_finished: Outcomes,
    /// Finished cells by outcome.
    pub cells_finished: Outcomes,
    /// Durations of runs, cells, steps, readiness and pulls.
    pub measures: Measures,
}

impl Metrics {
    /// Adds all counters to a scrape. The library appends `_total` to the names of counters.
    pub fn register(&self, registry: &mut Registry) {
        let outcomes = [
            (
                "runs_finished",
                "Finished runs by outcome",
                &self.runs_finished,
            ),
            (
                "cells_finished",
                "Finished cells by outcome",
                &self.cells_finished,
            ),
        ];
        for (name, help, family) in outcomes {
            registry.register(name, help, family.0.clone());
        }
        let histograms = [
            (
                "queue_wait_seconds",
                "Time from queueing a cell to finding an agent for it",
                &self.queue_wait,
            ),
            (
                "offer_accept_seconds",
                "Time from sending an offer to its acceptance",
                &self.offer_accept,
            ),
            (
                "journal_commit_seconds",
                "Duration of a journal commit",
                &self.journal_commit,
            ),
        ];
        for (name, help, histogram) in histograms {
            registry.register(name, help, histogram.0.clone());
        }
        let counters = [
            (
                "offers_declined",
                "Offers that did not start an attempt",
                &self.offers_declined,
            ),
            ("events", "Events made durable", &self.events),
            ("log_bytes", "Bytes of logs stored", &self.log_bytes),
            (
                "artifact_bytes",
                "Bytes of artifacts stored",
                &self.artifact_bytes,
            ),
            (
                "watchers_dropped",
                "Watchers that left before their run ended",
                &self.watchers_dropped,
            ),
            (
                "agent_connections_refused",
                "Agent connections refused or closed with a reason",
                &self.agents_refused,
            ),
            (
                "calls_refused",
                "Calls without a valid token, or whose role isn't enough",
                &self.calls_refused,
            ),
            (
                "agents_lost",
                "Agents that died, fell silent or left",
                &self.agents_lost,
            ),
            (
                "connections_dropped",
                "Connections dropped or refused because they sent no request or there were too many",
                &self.connections_dropped,
            ),
            (
                "stale_messages",
                "Messages rejected because their token is stale",
                &self.stale,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        self.measures.register(registry);
        registry.register("watchers", "Connected watchers", self.watchers.clone());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_gauge_falls_when_what_it_counts_is_dropped() {
        let gauge = Gauge::default();
        let (one, two) = (Present::in_gauge(&gauge), Present::in_gauge(&gauge));
        assert_eq!(gauge.get(), 2);
        drop((one, two));
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn both_formats_have_every_counter_under_its_documented_name() {
        let metrics = Metrics::default();
        metrics.journal_commit.observe(Duration::from_millis(15));
        metrics.cells_finished.count(Outcome::Flaky);
        let mut registry = Registry::with_prefix("phalanx");
        metrics.register(&mut registry);
        let (mut plain, mut open) = (String::new(), String::new());
        prometheus_client::encoding::prometheus_text::encode(&mut plain, &registry).unwrap();
        prometheus_client::encoding::text::encode(&mut open, &registry).unwrap();
        for line in [
            "phalanx_journal_commit_seconds_bucket{le=\"0.01\"} 0",
            "phalanx_journal_commit_seconds_bucket{le=\"0.02\"} 1",
            "phalanx_journal_commit_seconds_bucket{le=\"+Inf\"} 1",
            "phalanx_journal_commit_seconds_count 1",
            "phalanx_cells_finished_total{outcome=\"flaky\"} 1",
            "phalanx_cells_finished_total{outcome=\"errored\"} 0",
            "phalanx_events_total 0",
            "phalanx_watchers 0",
        ] {
            for text in [&plain, &open] {
                assert!(text.lines().any(|each| each == line), "{line} in {text}");
            }
        }
        // Only the type's line and the end differ.
        assert!(
            plain.contains("# TYPE phalanx_events_total counter\n"),
            "{plain}"
        );
        assert!(open.contains("# TYPE phalanx_events counter\n"), "{open}");
        assert!(open.ends_with("# EOF\n") && !plain.contains("# EOF"));
    }
}
