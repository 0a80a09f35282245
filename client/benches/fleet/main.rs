//! Measures a fleet on the loopback network: the real `phalanx serve` as its own process, and agents that are real or
//! simulated (1, 10 and 1,000 of them, with their own sockets, speaking the real protocol). Prints rows of a Markdown
//! table: what, value, note.
//!
//!     cargo bench -p phalanx --bench fleet [-- latency load rates lost]
//!
//! - `latency`: offer → accept, and slot free → next first step, both by the events of the run's own journal.
//! - `load`: memory and CPU time of a coordinator with 1,000 agents and 100,000 queued cells, and how fast it assigns
//!   them.
//! - `rates`: durable events and log lines per second.
//! - `lost`: how soon a dead and a silent agent are noticed.
//!
//! Without arguments, it measures all of these, which takes some six minutes. The agents run in this process, on the
//! same cores.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss
)]

mod agents;
mod latency;
mod load;
mod lost;
#[path = "../../tests/fleet/proxy.rs"]
#[allow(dead_code)] // the tests use all of it
mod proxy;
mod rates;
#[path = "../../tests/fleet/rig.rs"]
#[allow(dead_code)]
mod rig;
mod runs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::time::Duration;

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let known = ["latency", "load", "rates", "lost"];
    let wanted: Vec<&str> = known
        .into_iter()
        .filter(|part| words.iter().any(|word| word == part))
        .collect();
    let wants = |part: &str| wanted.is_empty() || wanted.contains(&part);
    // A thousand agents have two connections each.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    if wants("latency") {
        latency::all().await;
    }
    if wants("load") {
        load::all().await;
    }
    if wants("rates") {
        rates::all().await;
    }
    if wants("lost") {
        lost::all().await;
    }
}

/// Prints one line of the table.
fn row(what: &str, value: &str, note: &str) {
    println!("| {what} | {value} | {note} |");
}

/// Formats `p50 / p99 ms`; p99 is the worst value if there are fewer than a hundred.
fn spread(mut all: Vec<Duration>) -> String {
    all.sort();
    let at = |percent: usize| {
        let place = (all.len() * percent / 100).min(all.len().saturating_sub(1));
        let found = all.get(place).copied().unwrap_or_default();
        found.as_secs_f64() * 1e3
    };
    format!("{:.1} / {:.1} ms", at(50), at(99))
}
