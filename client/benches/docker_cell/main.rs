//! Measures the cost of a cell beyond the engine's own time. A cell has its own network, one container and `exec true`;
//! its time runs from the submission to a coordinator until the engine holds nothing of it. This is compared with the
//! same calls made directly, in alternating rounds of one process. Prints medians as a Markdown table.
//!
//!     cargo bench -p phalanx --bench docker_cell --profile dev [-- ROUNDS [CELLS]]
//!     cargo bench -p phalanx --bench docker_cell --profile dev -- cancel [ROUNDS]
//!
//! The second command measures the time from a cancel until nothing is left.
//!
//! The engine is the limit, so the build profile makes little difference. Needs an engine and a static busybox
//! (`apt-get install busybox-static`), from which it builds its image. No network is kept ready.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

mod bare;
mod cancel;
mod image;
mod ours;

use bollard::Docker;
use std::time::Duration;

/// The times of a cell: until its outcome is known, and until the engine holds nothing of it.
#[derive(Clone, Copy)]
pub struct Took {
    pub outcome: Duration,
    pub whole: Duration,
}

/// The times of all cells, and the wall time of the round.
pub struct Round {
    pub cells: Vec<Took>,
    pub wall: Duration,
}

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let rounds = numbers.first().copied().unwrap_or(5);
    let docker = Docker::connect_with_defaults().unwrap();
    let docker = docker.negotiate_version().await.unwrap();
    image::provide(&docker).await;
    if std::env::args().any(|word| word == "cancel") {
        return cancel::all(&docker, rounds).await;
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("Medians of {rounds} alternating rounds, {cpus} cores, load {load} at the start.\n");
    println!("| cells | what | bare (ms) | phalanx (ms) | ratio, median | of each round |");
    println!("|---|---|---|---|---|---|");
    for (cells, at_once) in [(5, 1), (16, 16), (27, 27)] {
        if numbers.get(1).is_some_and(|only| *only != cells) {
            continue;
        }
        let (mut bares, mut ours) = (Vec::new(), Vec::new());
        // The first pair warms the caches on both sides and isn't counted.
        for round in 0..=rounds {
            let bare = bare::round(&docker, cells, at_once).await;
            let our = ours::round(&docker, cells, at_once).await;
            if round > 0 {
                bares.push(bare);
                ours.push(our);
            }
        }
        let name = match at_once {
            1 => format!("{cells}, one at a time"),
            _ => format!("{cells} at once"),
        };
        let row =
            |what: &str, bare: &dyn Fn(&Round) -> Duration, our: &dyn Fn(&Round) -> Duration| {
                row(&name, what, &bares, bare, &ours, our);
            };
        row("wall time of all", &|r| r.wall, &|r| r.wall);
        row("a cell, until nothing is left", &whole, &whole);
        // A user waits for the outcome; bare calls have none before they have cleaned up.
        row("a cell, until its outcome", &whole, &outcome);
        row("… against bare without its clean-up", &outcome, &outcome);
    }
}

fn whole(round: &Round) -> Duration {
    median(round.cells.iter().map(|cell| cell.whole).collect())
}

fn outcome(round: &Round) -> Duration {
    median(round.cells.iter().map(|cell| cell.outcome).collect())
}

/// Compares a round of Phalanx with the bare round before it, since the machine's load changes.
fn row(
    cells: &str,
    what: &str,
    bares: &[Round],
    bare: &dyn Fn(&Round) -> Duration,
    ours: &[Round],
    our: &dyn Fn(&Round) -> Duration,
) {
    let bares: Vec<Duration> = bares.iter().map(bare).collect();
    let ours: Vec<Duration> = ours.iter().map(our).collect();
    let ratios = bares.iter().zip(&ours);
    let ratios: Vec<f64> = ratios
        .map(|(bare, our)| our.as_secs_f64() / bare.as_secs_f64())
        .collect();
    let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let mut sorted = ratios.clone();
    sorted.sort_by(f64::total_cmp);
    println!(
        "| {cells} | {what} | {} | {} | {:.2} | {} |",
        median(bares).as_millis(),
        median(ours).as_millis(),
        sorted[sorted.len() / 2],
        each.join(" ")
    );
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}
