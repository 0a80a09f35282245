//! Produces the text of one scrape: counters with their values, and states as their owners report them.

use crate::metrics::METRICS;
use crate::run::actor::Look;
use crate::schedule::actor::{Agents, Demand};
use crate::supervisor::Handle;
use phalanx_shared::run_state::Counts;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Plain,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Chooses by the `Accept` header of the request: OpenMetrics for a client that names it, as Prometheus does.
    pub fn accepted(accept: &str) -> Format {
        let names = |range: &str| {
            let kind = range.split(';').next().unwrap_or_default();
            kind.trim() == "application/openmetrics-text"
        };
        match accept.split(',').any(names) {
            true => Format::OpenMetrics,
            false => Format::Plain,
        }
    }

    /// Returns the content type of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    fn encode(self, registry: &Registry) -> String {
        let mut page = String::new();
        // Writing to a String can't fail.
        let _ = match self {
            Format::Plain => prometheus_text::encode(&mut page, registry),
            Format::OpenMetrics => text::encode(&mut page, registry),
        };
        page
    }
}

/// Returns all metrics of a coordinator.
pub async fn scrape(handle: &Handle, format: Format) -> String {
    let mut registry = Registry::with_prefix("phalanx");
    about(&mut registry, handle);
    runs(&mut registry, handle).await;
    agents(&mut registry, handle).await;
    demand(&mut registry, handle).await;
    METRICS.register(&mut registry);
    format.encode(&registry)
}

/// Maximum number of label sets for which a scrape says what is wanted: specs choose the labels.
const LABELS: usize = 100;

/// Adds a state with one value.
fn state(registry: &mut Registry, name: &str, help: &str, value: impl TryInto<i64>) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value.try_into().unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

/// Adds a state with a value for each value of a label.
fn states<const N: usize>(
    registry: &mut Registry,
    (name, label): (&str, &'static str),
    help: &str,
    values: [(&'static str, u64); N],
) {
    let family = Family::<[(&'static str, &'static str); 1], Gauge>::default();
    for (of, value) in values {
        let gauge = family.get_or_create_owned(&[(label, of)]);
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    registry.register(name, help, family);
}

fn about(registry: &mut Registry, handle: &Handle) {
    let version = (env!("CARGO_PKG_VERSION"), 1);
    states(
        registry,
        ("build_info", "version"),
        "Version of the program",
        [version],
    );
    state(
        registry,
        "epoch",
        "Number of starts of this journal's coordinator",
        handle.journal.epoch(),
    );
    state(
        registry,
        "journal_healthy",
        "1 while the journal can be written",
        u8::from(handle.journal.health().borrow().is_none()),
    );
}

async fn runs(registry: &mut Registry, handle: &Handle) {
    let open = handle.registry.all();
    state(
        registry,
        "runs_open",
        "Runs that aren't over, including clean-up",
        open.len(),
    );
    let mut sum = Counts::default();
    for (_, run) in open {
        // A run that ends at this moment has nothing open.
        if let Ok(glance) = run.actor.ask(Look).await {
            sum.queued += glance.counts.queued;
            sum.running += glance.counts.running;
        }
    }
    states(
        registry,
        ("cells", "state"),
        "Cells of open runs without an outcome, by state",
        [
            ("queued", u64::from(sum.queued)),
            ("running", u64::from(sum.running)),
        ],
    );
}

async fn agents(registry: &mut Registry, handle: &Handle) {
    let views = handle.scheduling.ask(Agents).await.unwrap_or_default();
    let of = |connected: bool, draining: bool| {
        let these = views.iter();
        let these =
            these.filter(|v| v.connected == connected && (!connected || v.draining == draining));
        these.count() as u64
    };
    states(
        registry,
        ("agents", "state"),
        "Agents that aren't lost, by state",
        [
            ("connected", of(true, false)),
            ("draining", of(true, true)),
            ("disconnected", of(false, false)),
        ],
    );
    let slots: u64 = views.iter().map(|v| u64::from(v.info.slots)).sum();
    let taken = views.iter().map(|v| v.attempts.len() as u64).sum();
    states(
        registry,
        ("slots", "state"),
        "Slots of agents that aren't lost: all of them, and those that are taken",
        [("total", slots), ("taken", taken)],
    );
}

/// Adds the slots that cells want, by their labels: what an autoscaler divides by the slots of an agent.
async fn demand(registry: &mut Registry, handle: &Handle) {
    let wanted = handle.scheduling.ask(Demand).await.unwrap_or_default();
    let family = Family::<[(&'static str, String); 1], Gauge>::default();
    for of_labels in wanted.into_iter().take(LABELS) {
        let labels = Vec::from_iter(of_labels.labels).join(",");
        let gauge = family.get_or_create_owned(&[("labels", labels)]);
        let slots = of_labels.startable.saturating_add(of_labels.placed);
        gauge.set(i64::try_from(slots).unwrap_or(i64::MAX));
    }
    registry.register(
        "slots_wanted",
        "Slots that cells take or would take if there were more agents, by the labels that they want",
        family,
    );
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn a_client_that_names_open_metrics_gets_it_and_any_other_the_plain_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for accept in ["", "*/*", "text/plain", "text/html,application/xhtml+xml"] {
            assert_eq!(Format::accepted(accept), Format::Plain, "{accept}");
        }
    }
}
