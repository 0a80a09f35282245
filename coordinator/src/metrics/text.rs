//! Prometheus' text format, version 0.0.4.

use super::{BOUNDS_US, Histogram};
use std::fmt::{Display, Write};

/// Builds the text metric by metric.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Starts a metric; its samples follow.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        self
    }

    /// Adds a sample to the current metric.
    pub fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) -> &mut Self {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
            .collect();
        match labels.as_slice() {
            [] => self.line(format_args!("{name} {value}")),
            labels => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
        self
    }

    /// Adds a metric with one sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) -> &mut Self {
        self.metric(name, kind, help).sample(name, &[], value)
    }

    /// Adds a histogram, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> &mut Self {
        self.metric(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut so_far = 0;
        for (bound, count) in BOUNDS_US.iter().zip(histogram.buckets()) {
            so_far += count;
            self.sample(&bucket, &[("le", &seconds(*bound))], so_far);
        }
        let (count, sum) = histogram.total();
        // Read after the buckets, so it should be at least their sum.
        self.sample(&bucket, &[("le", "+Inf")], count.max(so_far));
        self.sample(&format!("{name}_sum"), &[], seconds(sum));
        self.sample(&format!("{name}_count"), &[], count.max(so_far))
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// Returns the text.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let text = text.trim_end_matches('0');
    text.strip_suffix('.').unwrap_or(text).to_owned()
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn labels_are_escaped_and_buckets_cumulative() {
        let histogram = Histogram::new();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_millis(15));
        let mut text = Text::default();
        text.metric("x", "gauge", "Xs.")
            .sample("x", &[("name", "a\"b\\c\nd")], 3);
        text.histogram("took_seconds", "How long.", &histogram);
        let text = text.into_string();
        assert!(
            text.starts_with("# HELP x Xs.\n# TYPE x gauge\nx{name=\"a\\\"b\\\\c\\nd\"} 3\n"),
            "{text}"
        );
        for line in [
            "took_seconds_bucket{le=\"0.001\"} 1",
            "took_seconds_bucket{le=\"0.01\"} 1",
            "took_seconds_bucket{le=\"0.02\"} 2",
            "took_seconds_bucket{le=\"600\"} 2",
            "took_seconds_bucket{le=\"+Inf\"} 2",
            "took_seconds_sum 0.016",
            "took_seconds_count 2",
        ] {
            assert!(text.lines().any(|each| each == line), "{line} in {text}");
        }
    }
}
