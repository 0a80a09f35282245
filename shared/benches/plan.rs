//! Plans 100,000 cells and says what it took: `cargo bench -p phalanx-shared --bench plan`.
//! Time is what `expand` takes, from a loaded spec to the plan with its digest; memory is the process's peak.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use phalanx_shared::diagnostic::Source;
use phalanx_shared::input::Given;
use phalanx_shared::language;
use phalanx_shared::plan::{Request, Selection, expand};
use std::sync::Arc;
use std::time::Instant;

const SPEC: &str = r#"
name: wide
inputs: { from: { type: number, default: 0 } }
strategy:
  matrix:
    os: "${{ lists.range(10).map(n, 'os-' + string(n)) }}"
    database: "${{ lists.range(10).map(n, 'database-' + string(n)) }}"
    version: "${{ lists.range(10).map(n, 'v1.' + string(n)) }}"
    shard: "${{ lists.range(100).map(n, n + inputs.from) }}"
    exclude: [{ os: os-0, database: database-0, version: v1.0, shard: 0 }]
    include: [{ os: os-1, extra: true }]
cell:
  name: "${{ matrix.os }} / ${{ matrix.database }} / ${{ matrix.version }} #${{ matrix.shard }}"
  runs-on: [docker]
  resources: { cpus: 1, memory: 1GiB }
  experimental: "${{ matrix.version == 'v1.9' }}"
vars: { image: "shop:${{ matrix.version }}" }
services: { shop: { image: "${{ vars.image }}" } }
phases: { assert: [{ run: "true" }] }
"#;

fn main() {
    let source = Source {
        name: "wide.yaml".into(),
        text: SPEC.into(),
    };
    let loaded = language::load(source, &mut |path| Err(format!("no {path}")));
    let spec = Arc::new(
        loaded
            .spec
            .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)),
    );
    let before = peak_kib();
    for round in 1..=3 {
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let plan = expand(&Request {
            spec: Arc::clone(&spec),
            sources: &loaded.sources,
            given: &Given::default(),
            files: Arc::new(|path: &str| Err(format!("no {path}"))),
            workspace: None,
            selection: &Selection::default(),
            max_cells: None,
        })
        .unwrap();
        let took = begun.elapsed();
        println!(
            "round {round}: {} cells in {:.3} s ({:.2} s of computing); peak memory {} MiB (before: {} MiB); digest {}",
            plan.cells.len(),
            took.as_secs_f64(),
            cpu_seconds() - cpu,
            peak_kib() / 1024,
            before / 1024,
            &plan.digest[..12],
        );
    }
}

/// What the process computed, in seconds, in hundredths: on a busy machine the wall clock says little.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold spaces; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// The most memory that the process ever had, as Linux counts it.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
