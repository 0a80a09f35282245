//! Durable journal events per second, compared with what the disk can do:
//! `cargo bench -p phalanx-coordinator --bench journal [-- SECONDS DIRECTORY]`.
//!
//! The baseline uses the same disk directly, in the same process, before and after: it appends one page to a file and
//! calls `fdatasync`, which is the minimum that a commit of one event needs. Each writer appends one event and waits
//! until it is durable, as a run does. With more writers, one commit carries many events (group commit). The store is
//! the real one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use phalanx_coordinator::journal::{Journal, SqliteStore, Write};
use phalanx_shared::event::{Event, EventKind, Recorded};
use phalanx_shared::time::Timestamp;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Numbers of concurrent writers.
const WRITERS: [usize; 4] = [1, 10, 100, 1_000];
/// Size of a page in the write-ahead log, which holds a small event.
const PAGE: usize = 4_096;

fn main() {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let seconds = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(3.0);
    let parent = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let place = tempfile::tempdir_in(&parent).unwrap();
    let within = Duration::from_secs_f64(seconds);

    println!(
        "{} of writing each, in {}\n",
        human(within),
        parent.display()
    );
    println!(
        "| what | durable events/s | p50 | p99 | over the disk's floor |\n|---|---|---|---|---|"
    );
    let before = floor(place.path(), within);
    let floor_rate = before.rate();
    before.print("the disk: append a page, fdatasync", floor_rate);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for writers in WRITERS {
        let file = place.path().join(format!("journal-{writers}.db"));
        let measured = runtime.block_on(journal(&file, writers, within));
        let name = if writers == 1 {
            "1 writer".to_owned()
        } else {
            format!("{writers} writers")
        };
        measured.print(&name, floor_rate);
    }
    floor(place.path(), within).print("the disk again", floor_rate);
}

/// The duration of each append, and of all of them.
struct Measured {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    fn print(mut self, what: &str, floor: f64) {
        self.latencies.sort();
        let at = |percent: usize| {
            let last = self.latencies.len().saturating_sub(1);
            human(
                self.latencies
                    .get(last * percent / 100)
                    .copied()
                    .unwrap_or_default(),
            )
        };
        let (rate, p50, p99) = (self.rate(), at(50), at(99));
        println!(
            "| {what} | {rate:.0} | {p50} | {p99} | {:.2} |",
            rate / floor
        );
    }
}

fn human(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.1} s"),
        s => format!("{:.2} ms", s * 1e3),
    }
}

/// Measures the disk without the journal.
fn floor(place: &Path, within: Duration) -> Measured {
    let mut file = File::create(place.join("floor")).unwrap();
    let page = [7_u8; PAGE];
    let (began, mut latencies) = (Instant::now(), Vec::new());
    while began.elapsed() < within {
        let one = Instant::now();
        file.write_all(&page).unwrap();
        file.sync_data().unwrap();
        latencies.push(one.elapsed());
    }
    Measured {
        latencies,
        took: began.elapsed(),
    }
}

/// Measures writers that each wait for their own event, on a new journal. Checks at the end that it can be read back.
async fn journal(file: &Path, writers: usize, within: Duration) -> Measured {
    let store = Arc::new(SqliteStore::open(file).await.unwrap());
    let (journal, _writer) = Journal::start(store, Timestamp(1)).await.unwrap();
    let began = Instant::now();
    let appenders: Vec<_> = (0..writers)
        .map(|n| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while began.elapsed() < within {
                    let position = latencies.len() as u64 + 1;
                    let one = Instant::now();
                    let durable = journal.append(vec![event(n, position)]).await;
                    durable.await.unwrap();
                    latencies.push(one.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for (n, appender) in appenders.into_iter().enumerate() {
        let own = appender.await.unwrap();
        // The acknowledged events must be there.
        let last = own.len() as u64;
        let read = journal
            .store()
            .events(&run(n).as_str().into(), last, 10)
            .await
            .unwrap();
        assert_eq!(read.len(), 1, "writer {n} was told of {last} events");
        latencies.extend(own);
    }
    Measured {
        latencies,
        took: began.elapsed(),
    }
}

fn run(n: usize) -> String {
    format!("run-{n}")
}

/// An event of typical size, such as the end of a step without checks.
fn event(n: usize, position: u64) -> Write {
    let message = format!("step {position} said something of the length that such a note has");
    Write::Event(Recorded {
        position,
        event: Event {
            run: run(n).as_str().into(),
            attempt: None,
            seq: position,
            at: Timestamp(position as i64),
            mono_us: position,
            kind: EventKind::Note { message },
        },
    })
}
