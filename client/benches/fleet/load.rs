//! Measures a coordinator with 1,000 agents and 100,000 queued cells: its use of the machine while they wait, and how
//! many it assigns per second.

use crate::agents::{Crew, Manner, Work};
use crate::rig::{Coordinator, Fleet};
use crate::{row, runs};
use std::fs;
use std::time::{Duration, Instant};

const AGENTS: u32 = 1_000;
const RUNS: u32 = 10;
const CELLS: u32 = 10_000;
/// How long a state is observed.
const WITHIN: Duration = Duration::from_secs(10);

pub async fn all() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let manner = |label: &str| Manner {
        slots: 1,
        labels: vec![label.to_owned()],
        work: Work::Step(500, 1_500),
    };
    row("a coordinator just started", &memory(&at), "resident");
    let began = Instant::now();
    let crew = Crew::connect(&at.url(), AGENTS, manner("now")).await;
    let took = format!("all connected and welcome within {:.2?}", began.elapsed());
    row(&format!("… with {AGENTS} agents"), &memory(&at), &took);
    idle(&at, &format!("{AGENTS} agents that have nothing to do")).await;

    let began = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..RUNS {
        let spec = runs::spec(CELLS, "", "runs-on: [later],");
        ids.push(runs::submit(&at, spec).await);
    }
    let all = RUNS * CELLS;
    wait_for(&at, "phalanx_cells{state=\"queued\"}", f64::from(all)).await;
    let took = format!("submitted and queued within {:.2?}", began.elapsed());
    let what = format!("… and {all} queued cells of {RUNS} runs");
    row(&what, &memory(&at), &took);
    idle(&at, &format!("{AGENTS} agents and {all} cells that wait")).await;

    // The same agents connect again and take the waiting cells. A cell takes half a second to one and a half, so a
    // thousand are wanted per second.
    drop(crew);
    let began = Instant::now();
    let crew = Crew::connect(&at.url(), AGENTS, manner("later")).await;
    let again = format!("{AGENTS} agents connecting again, with other labels");
    row(
        &again,
        &format!("{:.2?}", began.elapsed()),
        "until all are welcome",
    );
    let before = Seen::now(&at);
    tokio::time::sleep(WITHIN).await;
    let after = Seen::now(&at);
    let per_second = |value: f64| format!("{:.0}", value / after.since(&before));
    let cpu = format!(
        "{:.0} % of a core",
        (after.cpu - before.cpu) / after.since(&before) * 100.0
    );
    row(
        "cells handed out and finished per second, 1,000 agents of one slot, cells of 0.5 to 1.5 s",
        &per_second(after.cells - before.cells),
        &format!("{cpu}, {}; with no delay it would be 1,000", memory(&at)),
    );
    let what = "durable events per second meanwhile";
    row(
        what,
        &per_second(after.events - before.events),
        "ten of each cell",
    );
    let began = Instant::now();
    for run in &ids {
        runs::cancel(&at, run).await;
    }
    wait_for(&at, "phalanx_runs_open", 0.0).await;
    let what = "cancelling all of it, until every run is over";
    row(what, &format!("{:.2?}", began.elapsed()), &memory(&at));
    drop(crew);
}

/// Measures the cost while only heartbeats happen.
async fn idle(at: &Coordinator, what: &str) {
    let before = Seen::now(at);
    tokio::time::sleep(WITHIN).await;
    let after = Seen::now(at);
    let share = (after.cpu - before.cpu) / after.since(&before) * 100.0;
    row(what, &format!("{share:.1} % of a core"), &memory(at));
}

struct Seen {
    at: Instant,
    cpu: f64,
    cells: f64,
    events: f64,
}

impl Seen {
    fn now(at: &Coordinator) -> Seen {
        Seen {
            at: Instant::now(),
            cpu: computed(at.process.id()),
            cells: at.metric("phalanx_cells_finished_total{outcome=\"passed\"}"),
            events: at.metric("phalanx_events_total"),
        }
    }

    fn since(&self, earlier: &Seen) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }
}

async fn wait_for(at: &Coordinator, metric: &str, value: f64) {
    while (at.metric(metric) - value).abs() > 0.5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the CPU time of a process so far, in seconds.
fn computed(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The program's name is followed by the state and numbers. User and system time are the 14th and 15th field of the
    // line.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: f64 = [11, 12]
        .map(|n| fields[n].parse::<f64>().unwrap())
        .iter()
        .sum();
    // The kernel's unit for this file, whatever its own timer uses.
    ticks / 100.0
}

/// Returns the resident memory of the coordinator, and its peak so far.
fn memory(at: &Coordinator) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", at.process.id())).unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() / 1024
    };
    format!("{} MiB (at most {})", of("VmRSS:"), of("VmHWM:"))
}
