//! The quickstart as it ships: all its cells at once, in the agent alone.

use crate::rig::{Ended, examples, host, jobs, run};
use phalanx_shared::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_secs(60);

/// Each row of the table with its worst outcome.
fn coverage(cell: &Ended) -> BTreeMap<String, Outcome> {
    let mut rows = BTreeMap::new();
    for step in cell.steps() {
        for row in step.verifies {
            let worst = rows.entry(row).or_insert(step.outcome);
            *worst = step.outcome.max(*worst);
        }
    }
    rows
}

async fn run_all(name: &str) -> Vec<Ended> {
    let state = tempfile::tempdir().unwrap();
    let host = host(state.path());
    let text = std::fs::read_to_string(examples().join(name)).unwrap();
    let cells = jobs(name, &text)
        .into_iter()
        .map(|job| run(host.clone(), job));
    let cells = tokio::time::timeout(BOUND, futures::future::join_all(cells)).await;
    let cells = cells.unwrap();
    cells.iter().for_each(Ended::passed);
    cells
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_passes_and_one_cell_skips_the_stream_it_has_not() {
    let began = Instant::now();
    let cells = run_all("quickstart.yaml").await;
    eprintln!("{} cells in {:?}", cells.len(), began.elapsed());
    let names: Vec<&str> = cells.iter().map(|cell| cell.name.as_str()).collect();
    let expected = [
        "postgres / v1.8",
        "postgres / v1.9",
        "postgres / v2.0",
        "mysql / v1.9",
        "mysql / v2.0",
    ];
    assert_eq!(names, expected);
    for cell in &cells {
        let rows = coverage(cell);
        let keys: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            BTreeSet::from(["ready", "orders", "report", "login", "stream"])
        );
        for (row, outcome) in rows {
            let has_none = row == "stream" && cell.name.ends_with("v1.8");
            let expected = if has_none {
                Outcome::Skipped
            } else {
                Outcome::Passed
            };
            assert_eq!(outcome, expected, "{}: {row}", cell.name);
        }
    }
    let skipped = cells[0]
        .steps()
        .into_iter()
        .find(|step| step.outcome == Outcome::Skipped)
        .unwrap();
    assert_eq!(skipped.reason.as_deref(), Some("v1.8 has no event stream"));
}
