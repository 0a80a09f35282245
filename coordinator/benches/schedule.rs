//! Measures the scheduler alone: the makespan of a run compared with its lower bound (in simulated time), decisions per
//! second, and the memory of its queues (both in real time).
//!
//! `cargo bench -p phalanx-coordinator --bench schedule` prints the tables of docs/performance.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods
)]

use phalanx_coordinator::dispatch::contract::AgentInfo;
use phalanx_coordinator::journal::Past;
use phalanx_coordinator::schedule::core::{CellRequest, Effect, Input, RunLimits, Scheduler};
use phalanx_coordinator::schedule::expected::History;
use phalanx_shared::id::{CellId, RunId, Token};
use phalanx_shared::plan::{PlannedCell, Resources};
use serde_json::json;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

/// A matrix of 3 × 10 × 2 × 3 cells.
const AXES: [(&str, u64); 4] = [("a", 3), ("b", 10), ("c", 2), ("d", 3)];
const SLOTS: u32 = 8;
const ROUNDS: u64 = 200;

/// SplitMix64: the same numbers each time.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number above 0, up to 1.
    fn share(&mut self) -> f64 {
        ((self.number() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }
}

/// Returns the milliseconds that a cell takes; the last argument is its place on each axis.
type Lengths = fn(&mut Random, &[f64; 4], [u64; 4]) -> f64;

const DISTRIBUTIONS: [(&str, Lengths); 6] = [
    ("all about the same (±10 %)", |r, _, _| {
        60_000.0 * (0.9 + 0.2 * r.share())
    }),
    ("uniform, 1 s to 2 min", |r, _, _| {
        1_000.0 + 119_000.0 * r.share()
    }),
    ("exponential, mean 30 s", |r, _, _| {
        1_000.0 - 30_000.0 * r.share().ln()
    }),
    ("one in ten takes twenty times as long", |r, _, _| {
        if r.share() < 0.1 {
            200_000.0
        } else {
            10_000.0 * (0.5 + r.share())
        }
    }),
    (
        "heavy tail (Pareto, exponent 1.5, at most 10 min)",
        |r, _, _| (5_000.0 / r.share().powf(1.0 / 1.5)).min(600_000.0),
    ),
    ("by axis: slow versions, slow databases", |r, of, at| {
        let by_axis = (0..4).map(|axis| of[axis] * at[axis] as f64).sum::<f64>();
        (2_000.0 + by_axis) * (0.9 + 0.2 * r.share())
    }),
];

fn cells() -> Vec<(PlannedCell, [u64; 4])> {
    let count: u64 = AXES.iter().map(|(_, n)| n).product();
    (0..count)
        .map(|number| {
            let (mut rest, mut at) = (number, [0; 4]);
            for (axis, (_, size)) in AXES.iter().enumerate().rev() {
                at[axis] = rest % size;
                rest /= size;
            }
            let matrix = AXES
                .iter()
                .zip(at)
                .map(|((name, _), at)| ((*name).to_owned(), json!(at)));
            let cell = PlannedCell {
                id: CellId(format!("{number:012x}")),
                name: number.to_string(),
                matrix: matrix.collect(),
                runs_on: vec![],
                experimental: false,
                resources: Resources::default(),
                timeout_ms: 0,
                attempts: 1,
                retries: 0,
            };
            (cell, at)
        })
        .collect()
}

/// What a run knows about the durations of its cells.
#[derive(Clone, Copy)]
enum Known {
    /// All took exactly as long last time.
    Exactly,
    /// Each took up to 20 % more or less last time.
    Roughly,
    /// As `Roughly`, but a third of the cells is new and predicted from similar cells.
    Kin,
    /// Nothing, so the order is first in, first out.
    Nothing,
}

fn history(
    known: Known,
    cells: &[(PlannedCell, [u64; 4])],
    lengths: &[u64],
    random: &mut Random,
) -> History {
    let mut past = Vec::new();
    for ((cell, _), length) in cells.iter().zip(lengths) {
        let noise = 0.8 + 0.4 * random.share();
        let new = random.share() < 1.0 / 3.0;
        let elapsed_ms = match known {
            Known::Exactly => *length,
            Known::Roughly => (*length as f64 * noise) as u64,
            Known::Kin if !new => (*length as f64 * noise) as u64,
            Known::Kin | Known::Nothing => continue,
        };
        let matrix = cell
            .matrix
            .iter()
            .map(|(axis, value)| (axis.clone(), value.clone()));
        past.push(Past {
            cell: cell.id.clone(),
            matrix: matrix.collect(),
            elapsed_ms,
            snapshot: None,
        });
    }
    History::learn(past)
}

fn agent(id: String, slots: u32) -> AgentInfo {
    AgentInfo {
        id: id.as_str().into(),
        name: id,
        version: String::new(),
        labels: vec!["docker".to_owned()],
        slots,
        resources: Resources {
            millicpus: 64_000,
            memory_bytes: 64 << 30,
            subnets: 100,
        },
        images: vec![],
        policy: None,
        ahead: Some(2),
        snapshots: Default::default(),
    }
}

fn up(agent: AgentInfo) -> Input {
    Input::AgentUp {
        agent,
        holding: vec![],
    }
}

fn request(run: &RunId, cell: CellId, expected_ms: u64) -> CellRequest {
    CellRequest {
        token: Token {
            run: run.clone(),
            cell,
            attempt: 1,
            epoch: 1,
        },
        labels: vec![],
        avoids: Vec::new(),
        resources: Resources::default(),
        images: vec![],
        expected_ms,
        needs: Vec::new(),
        wish: None,
    }
}

/// Returns when the last cell ends, in milliseconds.
fn makespan(cells: &[(PlannedCell, [u64; 4])], lengths: &[u64], history: &History) -> u64 {
    let of: BTreeMap<&CellId, u64> = cells
        .iter()
        .map(|(cell, _)| &cell.id)
        .zip(lengths.iter().copied())
        .collect();
    let mut scheduler = Scheduler::new(BTreeMap::new());
    let run = RunId::from("run");
    let requests = cells
        .iter()
        .map(|(cell, _)| request(&run, cell.id.clone(), history.expected_ms(cell)));
    let begin = [
        Input::RunAdded {
            run: run.clone(),
            limits: RunLimits::default(),
        },
        up(agent("agent".to_owned(), SLOTS)),
        Input::Queued {
            run: run.clone(),
            cells: requests.collect(),
        },
    ];
    let (mut now, mut ends) = (0, BinaryHeap::new());
    let mut tell = |input, now: u64, ends: &mut BinaryHeap<Reverse<(u64, Token)>>| {
        for effect in scheduler.handle(input, Duration::from_millis(now)) {
            if let Effect::Assign { token, .. } = effect {
                ends.push(Reverse((now + of[&token.cell], token)));
            }
        }
    };
    begin
        .into_iter()
        .for_each(|input| tell(input, 0, &mut ends));
    while let Some(Reverse((at, token))) = ends.pop() {
        now = at;
        tell(Input::Released { token }, now, &mut ends);
    }
    now
}

fn makespans() {
    println!(
        "makespan over the lower bound, 3 × 10 × 2 × 3 cells on {SLOTS} slots, {ROUNDS} rounds each: median (worst)\n"
    );
    println!(
        "| lengths | history | history ±20 % | a third new, by kin | first in, first out |\n|---|---|---|---|---|"
    );
    let cells = cells();
    for (name, length) in DISTRIBUTIONS {
        let mut ratios: [Vec<f64>; 4] = Default::default();
        for round in 0..ROUNDS {
            let mut random = Random(round);
            let of_axis = [
                random.share() * 9_000.0,
                random.share() * 2_000.0,
                random.share() * 8_000.0,
                random.share() * 5_000.0,
            ];
            let lengths: Vec<u64> = cells
                .iter()
                .map(|(_, at)| length(&mut random, &of_axis, *at) as u64)
                .collect();
            let work: u64 = lengths.iter().sum();
            let bound = (work as f64 / f64::from(SLOTS)).max(*lengths.iter().max().unwrap() as f64);
            for (known, ratios) in [Known::Exactly, Known::Roughly, Known::Kin, Known::Nothing]
                .into_iter()
                .zip(&mut ratios)
            {
                let history = history(known, &cells, &lengths, &mut random);
                ratios.push(makespan(&cells, &lengths, &history) as f64 / bound);
            }
        }
        let shown = ratios.map(|mut ratios| {
            ratios.sort_by(f64::total_cmp);
            format!(
                "{:.3} ({:.3})",
                ratios[ratios.len() / 2],
                ratios[ratios.len() - 1]
            )
        });
        println!("| {name} | {} |", shown.join(" | "));
    }
}

/// Returns the resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn decisions() {
    const AGENTS: u64 = 1_000;
    const CELLS: u64 = 100_000;
    let before = resident();
    let mut scheduler = Scheduler::new(BTreeMap::new());
    let mut placed = Vec::new();
    let mut tell = |input, placed: &mut Vec<Token>| {
        for effect in scheduler.handle(input, Duration::ZERO) {
            if let Effect::Assign { token, .. } = effect {
                placed.push(token);
            }
        }
    };
    for number in 0..AGENTS {
        tell(up(agent(format!("agent{number:04}"), 8)), &mut placed);
    }
    let began = Instant::now();
    // Ten runs and seven sizes, so that agents fill up unevenly and runs take turns.
    for run in 0..10 {
        let run = RunId(format!("run{run}"));
        let cells = (0..CELLS / 10).map(|number| CellRequest {
            labels: vec!["docker".to_owned()],
            resources: Resources {
                millicpus: 1_000,
                memory_bytes: (number % 7) << 30,
                subnets: 1,
            },
            ..request(&run, CellId(format!("{number:012x}")), number % 977)
        });
        tell(
            Input::RunAdded {
                run: run.clone(),
                limits: RunLimits::default(),
            },
            &mut placed,
        );
        tell(
            Input::Queued {
                run: run.clone(),
                cells: cells.collect(),
            },
            &mut placed,
        );
    }
    let queued = began.elapsed();
    let memory = resident().saturating_sub(before);
    let (began, mut slowest, mut done) = (Instant::now(), Duration::ZERO, 0);
    while let Some(token) = placed.get(done).cloned() {
        done += 1;
        let before = Instant::now();
        tell(Input::Released { token }, &mut placed);
        slowest = slowest.max(before.elapsed());
    }
    let elapsed = began.elapsed();
    println!("\n{AGENTS} agents with 8 slots, {CELLS} cells of 10 runs:");
    println!("queueing all of them and starting the first 8,000: {queued:.2?}");
    println!("memory of queues and agents: {} MiB", memory / 1024);
    let each = (done as f64 / elapsed.as_secs_f64()) as u64;
    println!(
        "slot free → next cell: {each} decisions per second, the slowest took {slowest:.2?} ({done} cells in {elapsed:.2?})"
    );
}

fn main() {
    makespans();
    decisions();
}
