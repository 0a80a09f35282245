//! A histogram of durations by labels: for Prometheus with exemplars, and for OTLP.
//!
//! The values of labels may come from users (names of services, images). So each label has at most [`DISTINCT`] values;
//! further ones are counted together as [`OTHER`].

use super::BOUNDS;
use opentelemetry::KeyValue;
use phalanx_shared::trace::TraceContext;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Maximum number of values of a label.
const DISTINCT: usize = 100;
/// The value that stands for all values beyond those.
const OTHER: &str = "other";
/// Maximum number of bytes of a value.
const LENGTH: usize = 200;

type Labels<const N: usize> = [(&'static str, String); N];
/// The span in which a duration was measured.
type Exemplar = [(&'static str, String); 2];
type Durations = HistogramWithExemplars<Exemplar>;

/// A histogram of durations for each combination of its labels' values.
#[derive(Debug)]
pub struct Labelled<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    values: [Mutex<HashSet<String>>; N],
    family: Family<Labels<N>, Durations, fn() -> Durations>,
    otlp: opentelemetry::metrics::Histogram<f64>,
}

impl<const N: usize> Labelled<N> {
    /// Creates a histogram. `name` is its name for Prometheus, without prefix; `otlp` is its name for OTLP.
    pub fn new(
        name: &'static str,
        otlp: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Labelled<N> {
        let new = || HistogramWithExemplars::new(BOUNDS.into_iter());
        Labelled {
            name,
            help,
            labels,
            values: std::array::from_fn(|_| Mutex::default()),
            family: Family::new_with_constructor(new),
            otlp: opentelemetry::global::meter("phalanx")
                .f64_histogram(otlp)
                .with_description(help)
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .build(),
        }
    }

    /// Adds a duration. `span` is where it was measured, if runs are traced.
    pub fn observe(&self, values: [&str; N], took: Duration, span: Option<TraceContext>) {
        let mut labels = self.labels.map(|label| (label, String::new()));
        let each = labels.iter_mut().zip(values).zip(&self.values);
        each.for_each(|(((_, label), value), known)| *label = bounded(known, value));
        let seconds = took.as_secs_f64();
        let attributes = labels
            .clone()
            .map(|(label, value)| KeyValue::new(label, value));
        self.otlp.record(seconds, &attributes);
        let exemplar = span.map(|span| {
            [
                ("trace_id", span.trace.to_string()),
                ("span_id", span.span.to_string()),
            ]
        });
        let of_labels = self.family.get_or_create_owned(&labels);
        of_labels.observe(seconds, exemplar, None);
    }

    /// Returns a value of the first label as it is counted.
    pub fn counted(&self, value: &str) -> String {
        let first = self.values.first();
        first.map_or_else(String::new, |known| bounded(known, value))
    }

    /// Adds it to a scrape.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(self.name, self.help, self.family.clone());
    }
}

/// Returns a value, or [`OTHER`] if there are too many others already.
fn bounded(known: &Mutex<HashSet<String>>, value: &str) -> String {
    let value = value
        .get(..value.floor_char_boundary(LENGTH))
        .unwrap_or(value);
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(value) {
        return value.to_owned();
    }
    if known.len() >= DISTINCT {
        return OTHER.to_owned();
    }
    known.insert(value.to_owned());
    value.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::trace::{SpanId, TraceId};

    fn text(histogram: &Labelled<1>, open: bool) -> String {
        let mut registry = Registry::default();
        histogram.register(&mut registry);
        let mut text = String::new();
        match open {
            true => prometheus_client::encoding::text::encode(&mut text, &registry),
            false => prometheus_client::encoding::prometheus_text::encode(&mut text, &registry),
        }
        .unwrap();
        text
    }

    #[test]
    fn an_exemplar_names_the_span_in_open_metrics_and_not_in_the_plain_text() {
        let histogram = Labelled::new("wait", "wait", "A wait", ["service"]);
        let span = TraceContext {
            trace: TraceId([1; 16]),
            span: SpanId([2; 8]),
            flags: 1,
        };
        histogram.observe(["db"], Duration::from_millis(15), Some(span));
        let open = text(&histogram, true);
        let line = open
            .lines()
            .find(|line| line.contains("le=\"0.02\""))
            .unwrap();
        let trace = "01".repeat(16);
        assert!(line.contains(&format!("trace_id=\"{trace}\"")), "{line}");
        let plain = text(&histogram, false);
        assert!(plain.contains("wait_count{service=\"db\"} 1"), "{plain}");
        assert!(!plain.contains("trace_id"), "{plain}");
    }

    #[test]
    fn values_beyond_the_limit_are_counted_together() {
        let histogram = Labelled::new("wait", "wait", "A wait", ["service"]);
        for number in 0..300 {
            let name = format!("s{number}");
            histogram.observe([name.as_str()], Duration::ZERO, None);
        }
        let text = text(&histogram, false);
        assert_eq!(text.matches("wait_count").count(), DISTINCT + 1);
        assert!(text.contains("wait_count{service=\"other\"} 200"), "{text}");
        assert!(text.contains("wait_count{service=\"s0\"} 1"));
    }
}
