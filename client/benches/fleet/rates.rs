//! Measures how many events become durable, and how many log lines are stored, per second. Agents send as fast as they
//! are acknowledged.

use crate::agents::{Crew, Manner, Work};
use crate::rig::Fleet;
use crate::{row, runs};
use std::time::{Duration, Instant};

/// Duration of each measurement.
const WITHIN: Duration = Duration::from_secs(5);
/// Number of events in a message.
const BATCH: u64 = 16;
/// Bytes of a log line.
const LINE: f64 = 100.0;

pub async fn all() {
    for agents in [1, 10, 1_000] {
        let (rate, _) = measure(agents, Work::Talk(BATCH), "phalanx_events_total").await;
        row(
            &format!("durable events per second of {agents} agents, a cell each"),
            &format!("{rate:.0}"),
            &format!("of one run, {BATCH} in a message, four messages unacknowledged"),
        );
    }
    for agents in [1, 10, 100] {
        let (rate, total) = measure(agents, Work::Print, "phalanx_log_bytes_total").await;
        row(
            &format!("log lines stored per second of {agents} agents, a cell each"),
            &format!("{:.2} million", rate / LINE / 1e6),
            &format!("100 bytes each, {:.0} MB in all", total / 1e6),
        );
    }
}

/// Returns how fast a metric grew per second with this many agents, and by how much in total.
async fn measure(agents: u32, work: Work, metric: &str) -> (f64, f64) {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let manner = Manner {
        slots: 1,
        labels: vec![],
        work,
    };
    let crew = Crew::connect(&at.url(), agents, manner).await;
    let run = runs::submit(&at, runs::spec(agents, "", "")).await;
    while at.metric("phalanx_cells{state=\"running\"}") < f64::from(agents) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (began, before) = (Instant::now(), at.metric(metric));
    tokio::time::sleep(WITHIN).await;
    let (took, grown) = (began.elapsed(), at.metric(metric) - before);
    crew.enough();
    let mut stream = runs::watch(&at, &run).await;
    while stream.message().await.unwrap().is_some() {}
    (grown / took.as_secs_f64(), grown)
}
