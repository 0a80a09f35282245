//! Produces the text of one scrape: counters with their values, and states as their owners report them.

use crate::metrics::{Counter, METRICS, OUTCOMES, Text};
use crate::run::actor::Look;
use crate::schedule::actor::Agents;
use crate::supervisor::Handle;
use phalanx_shared::run_state::Counts;

/// Returns all metrics of a coordinator in Prometheus' text format.
pub async fn scrape(handle: &Handle) -> String {
    let mut text = Text::default();
    about(&mut text, handle);
    runs(&mut text, handle).await;
    agents(&mut text, handle).await;
    counted(&mut text);
    text.into_string()
}

fn about(text: &mut Text, handle: &Handle) {
    let labels = [("version", env!("CARGO_PKG_VERSION"))];
    text.metric("phalanx_build_info", "gauge", "The program's version.")
        .sample("phalanx_build_info", &labels, 1);
    let epoch = handle.journal.epoch();
    text.single(
        "phalanx_epoch",
        "gauge",
        "The coordinator's term of office: starts of it so far.",
        epoch,
    );
    let healthy = u8::from(handle.journal.health().borrow().is_none());
    text.single(
        "phalanx_journal_healthy",
        "gauge",
        "1 while the journal can be written.",
        healthy,
    );
}

async fn runs(text: &mut Text, handle: &Handle) {
    let open = handle.registry.all();
    let name = "phalanx_runs_open";
    text.single(
        name,
        "gauge",
        "Runs that aren't over, clean-up included.",
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
    let name = "phalanx_cells";
    text.metric(
        name,
        "gauge",
        "Cells of open runs without an outcome, by where they are.",
    )
    .sample(name, &[("state", "queued")], sum.queued)
    .sample(name, &[("state", "running")], sum.running);
}

async fn agents(text: &mut Text, handle: &Handle) {
    let views = handle.scheduling.ask(Agents).await.unwrap_or_default();
    let of = |connected: bool, draining: bool| {
        let these = views.iter();
        let these =
            these.filter(|v| v.connected == connected && (!connected || v.draining == draining));
        these.count()
    };
    let name = "phalanx_agents";
    text.metric(name, "gauge", "Agents that aren't lost, by state.")
        .sample(name, &[("state", "connected")], of(true, false))
        .sample(name, &[("state", "draining")], of(true, true))
        .sample(name, &[("state", "disconnected")], of(false, false));
    let slots: u64 = views.iter().map(|v| u64::from(v.info.slots)).sum();
    let used: usize = views.iter().map(|v| v.attempts.len()).sum();
    let name = "phalanx_slots";
    text.metric(
        name,
        "gauge",
        "Slots of agents that aren't lost, and how many of them are taken.",
    )
    .sample(name, &[("state", "total")], slots)
    .sample(name, &[("state", "taken")], used);
}

fn counted(text: &mut Text) {
    let m = &METRICS;
    outcomes(
        text,
        "phalanx_runs_finished_total",
        "Runs by outcome.",
        &m.runs_finished,
    );
    outcomes(
        text,
        "phalanx_cells_finished_total",
        "Cells by outcome.",
        &m.cells_finished,
    );
    text.histogram(
        "phalanx_queue_wait_seconds",
        "From a cell wanting to run to an agent being found.",
        &m.queue_wait,
    );
    text.histogram(
        "phalanx_offer_accept_seconds",
        "From an offer being sent to its being taken.",
        &m.offer_accept,
    );
    text.histogram(
        "phalanx_journal_commit_seconds",
        "A commit of the journal.",
        &m.journal_commit,
    );
    let counters = [
        (
            "phalanx_offers_declined_total",
            "Offers that came to nothing.",
            &m.offers_declined,
        ),
        ("phalanx_events_total", "Events made durable.", &m.events),
        (
            "phalanx_log_bytes_total",
            "Bytes of logs stored.",
            &m.log_bytes,
        ),
        (
            "phalanx_watchers_dropped_total",
            "Watchers that went before what they watched was over.",
            &m.watchers_dropped,
        ),
        (
            "phalanx_agent_connections_refused_total",
            "Connections of agents that were refused or closed with a reason.",
            &m.agents_refused,
        ),
        (
            "phalanx_agents_lost_total",
            "Agents lost: dead, silent, or gone.",
            &m.agents_lost,
        ),
        (
            "phalanx_connections_dropped_total",
            "Connections dropped or turned away because they asked for nothing or were too many.",
            &m.connections_dropped,
        ),
        (
            "phalanx_stale_messages_total",
            "Messages fenced off because their token isn't the newest.",
            &m.stale,
        ),
    ];
    for (name, help, counter) in counters {
        text.single(name, "counter", help, counter.value());
    }
    text.single(
        "phalanx_watchers",
        "gauge",
        "Watchers connected.",
        m.watchers.value(),
    );
}

fn outcomes(text: &mut Text, name: &str, help: &str, counters: &[Counter; OUTCOMES.len()]) {
    text.metric(name, "counter", help);
    for (outcome, counter) in OUTCOMES.iter().zip(counters) {
        text.sample(name, &[("outcome", outcome.as_str())], counter.value());
    }
}
