//! Writes the HTML report of a made-up run, for measurements and for tests of the page:
//! `cargo run -p phalanx-report --example page -- CELLS LINES FILE` (`LINES` log lines over all cells; docs/performance.md).
//!
//! The lines look like those of a web application, its database and its worker: about 110 bytes, with times, durations,
//! ids and addresses that differ from line to line, so that they compress as real ones do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "../tests/sample/mod.rs"]
mod sample;

use phalanx_report::html;
use phalanx_report::logs::{LogLine, Logs, ServiceLog};
use phalanx_report::view::{CellView, RunView};
use phalanx_shared::event::LogStream;
use phalanx_shared::time::Timestamp;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [cells, lines, file] = args.as_slice() else {
        panic!("give the number of cells, the number of log lines, and the file to write");
    };
    let (cells, lines): (usize, usize) = (cells.parse().unwrap(), lines.parse().unwrap());
    let events = sample::events(cells, (cells / 12).max(9));
    let (state, now) = sample::state(&events, i64::MAX / 4);
    let view = RunView::of(&state, now, None);
    let logs = logs(&view, lines);
    let page = html::render(&view, Some(&logs));
    std::fs::write(file, &page).unwrap();
    let raw: usize = logs
        .services
        .iter()
        .flat_map(|s| &s.lines)
        .map(|l| l.text.len() + 1)
        .sum();
    println!(
        "{file}: {} bytes, {} log lines of {raw} bytes",
        page.len(),
        logs.lines()
    );
}

/// A small generator of numbers (splitmix64): the same file each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

fn logs(view: &RunView, lines: usize) -> Logs {
    let mut numbers = Numbers(7);
    let mut services = Vec::new();
    for (index, cell) in view.cells.iter().enumerate() {
        let of_cell = lines * (index + 1) / view.cells.len() - lines * index / view.cells.len();
        services.extend(of_attempt(cell, of_cell, &mut numbers));
    }
    Logs { services }
}

/// Lines of the newest attempt, spread over its time: half of the application, a third of its worker, the rest of the
/// database.
fn of_attempt(cell: &CellView, lines: usize, numbers: &mut Numbers) -> Vec<ServiceLog> {
    let attempt = cell.newest().unwrap();
    let start = attempt.started.unwrap().0;
    let length = attempt.elapsed_us.unwrap_or(1_000_000).max(1_000_000);
    let shares = [("netbox", lines / 2), ("worker", lines / 3)];
    let rest = lines - lines / 2 - lines / 3;
    let shares = shares.into_iter().chain([("postgres", rest)]);
    shares
        .map(|(service, lines)| ServiceLog {
            cell: cell.id.clone(),
            attempt: attempt.attempt,
            service: service.to_owned(),
            lines: (0..lines)
                .map(|n| {
                    let at = start + (length as i64) * n as i64 / lines.max(1) as i64;
                    line(service, at, numbers)
                })
                .collect(),
        })
        .collect()
}

fn line(service: &str, at: i64, numbers: &mut Numbers) -> LogLine {
    let at = Timestamp(at);
    let time = at.to_rfc3339();
    let time = time.trim_end_matches('Z');
    let text = match service {
        "netbox" => request(time, numbers),
        "worker" => job(time, numbers),
        _ => statement(time, numbers),
    };
    LogLine {
        at,
        stream: if service == "postgres" {
            LogStream::Stderr
        } else {
            LogStream::Stdout
        },
        text,
        gap: false,
    }
}

fn request(time: &str, numbers: &mut Numbers) -> String {
    let method = numbers.of(&["GET", "GET", "GET", "GET", "POST", "PATCH"]);
    let object = numbers.of(&[
        "dcim/devices",
        "ipam/ip-addresses",
        "virtualization/virtual-machines",
        "extras/custom-fields",
        "core/jobs",
    ]);
    let status = if numbers.below(200) == 0 {
        "500 Internal Server Error"
    } else {
        "200 OK"
    };
    format!(
        "[{time}] INFO 172.30.0.{} - \"{method} /api/{object}/?limit=50&offset={} HTTP/1.1\" {status} {} {}ms",
        4 + numbers.below(3),
        50 * numbers.below(8),
        200 + numbers.below(64) * 16,
        3 + numbers.below(40)
    )
}

fn job(time: &str, numbers: &mut Numbers) -> String {
    match numbers.below(20) {
        0 => format!(
            "{time} WARNING proxbox.sync: vm {}: status not updated, the backend answered with an empty body",
            100 + numbers.below(40)
        ),
        _ => format!(
            "{time} DEBUG proxbox.sync: vm {} on node pve-{}: {} interfaces, {} addresses, unchanged",
            100 + numbers.below(40),
            1 + numbers.below(3),
            1 + numbers.below(4),
            numbers.below(6)
        ),
    }
}

fn statement(time: &str, numbers: &mut Numbers) -> String {
    let table = numbers.of(&[
        "dcim_device",
        "ipam_ipaddress",
        "virtualization_virtualmachine",
        "extras_customfield",
    ]);
    format!(
        "{time} UTC [{}] LOG:  duration: {}.{:03} ms  execute: SELECT * FROM {table} WHERE id = $1",
        60 + numbers.below(4),
        numbers.below(4),
        numbers.below(1000)
    )
}
