//! The examples that need nothing, as they ship: every cell of theirs, in the agent alone and all at once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use phalanx_agent::cell;
use phalanx_agent::cell_contract::{Assignment, Host};
use phalanx_agent::clock::SystemClock;
use phalanx_agent::runtime::process::{ProcessRuntime, WardenProgram};
use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::{EventKind, StepResult};
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::input::Given;
use phalanx_shared::language;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{self, CellJob, Keep, Selection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const BOUND: Duration = Duration::from_secs(60);

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The jobs of all cells of an example.
fn jobs(name: &str) -> Vec<CellJob> {
    let text = std::fs::read_to_string(directory().join(name)).unwrap();
    let main = Source {
        name: name.to_owned(),
        text,
    };
    let loaded = language::load(main, &mut |path| Err(format!("{name} includes {path}")));
    let Some(spec) = loaded.spec.map(Arc::new) else {
        panic!("{:#?}", loaded.diagnostics);
    };
    let request = plan::Request {
        spec: Arc::clone(&spec),
        sources: &loaded.sources,
        given: &Given::default(),
        files: Arc::new(|path: &str| Err(format!("{path} is read"))),
        workspace: None,
        selection: &Selection::default(),
        max_cells: None,
    };
    let plan = plan::expand(&request).unwrap();
    let jobs = plan::Jobs::new(spec, loaded.sources.clone(), plan.clone()).unwrap();
    plan.cells
        .iter()
        .map(|cell| jobs.job(&cell.id, Keep::Never).unwrap())
        .collect()
}

fn host(state: &Path) -> Host {
    let program = env!("CARGO_BIN_EXE_phalanx-agent");
    let agent = AgentId::from(format!("examples-{}", uuid::Uuid::new_v4()));
    let clock = Arc::new(SystemClock::default());
    let processes = ProcessRuntime::new(agent.clone(), state, clock.clone())
        .with_warden(WardenProgram(program.into()));
    Host {
        agent,
        state_dir: state.to_owned(),
        processes: Arc::new(processes),
        containers: Err("this test has none".to_owned()),
        clock,
        allow_host_commands: true,
        demo_server: vec![program.to_owned(), "demo-server".to_owned()],
    }
}

/// How a cell ended.
struct Ended {
    name: String,
    outcome: Outcome,
    steps: Vec<StepResult>,
    left: Vec<String>,
}

impl Ended {
    /// Each row of the table with its worst outcome.
    fn coverage(&self) -> BTreeMap<&str, Outcome> {
        let mut rows = BTreeMap::new();
        for step in &self.steps {
            for row in &step.verifies {
                let worst = rows.entry(row.as_str()).or_insert(step.outcome);
                *worst = step.outcome.max(*worst);
            }
        }
        rows
    }
}

async fn run(host: Host, job: CellJob) -> Ended {
    let name = job.cell.name.clone();
    let (events, mut events_in) = mpsc::channel(64);
    let (logs, mut logs_in) = mpsc::channel(64);
    let (_cancel, cancel) = watch::channel(None);
    let assignment = Assignment {
        token: Token {
            run: "run".into(),
            cell: job.cell.id.clone(),
            attempt: 1,
            epoch: 1,
        },
        job: Arc::new(job),
        secrets: BTreeMap::new(),
        workspace: Some(directory()),
        traceparent: None,
        events,
        logs,
        cancel,
    };
    let handle = cell::spawn(host, assignment);
    let drain = tokio::spawn(async move { while logs_in.recv().await.is_some() {} });
    let mut ended = Ended {
        name,
        outcome: Outcome::Errored,
        steps: Vec::new(),
        left: Vec::new(),
    };
    while let Some(event) = events_in.recv().await {
        match event.kind {
            EventKind::StepFinished(step) => ended.steps.push(*step),
            EventKind::AttemptFinished { outcome, .. } => ended.outcome = outcome,
            EventKind::TornDown { left, .. } => ended.left = left,
            _ => {}
        }
    }
    handle.join().await;
    drain.await.unwrap();
    ended
}

async fn run_all(name: &str) -> Vec<Ended> {
    let state = tempfile::tempdir().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let host = host(state.path());
    let cells = jobs(name).into_iter().map(|job| run(host.clone(), job));
    let cells = tokio::time::timeout(BOUND, futures::future::join_all(cells)).await;
    let cells = cells.unwrap();
    for cell in &cells {
        let bad: Vec<_> = cell
            .steps
            .iter()
            .filter(|step| !step.outcome.is_ok())
            .collect();
        assert_eq!(cell.outcome, Outcome::Passed, "{}: {bad:#?}", cell.name);
        assert_eq!(cell.left, Vec::<String>::new());
    }
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
        let rows = cell.coverage();
        let keys: BTreeSet<&str> = rows.keys().copied().collect();
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
        .steps
        .iter()
        .find(|step| step.outcome == Outcome::Skipped)
        .unwrap();
    assert_eq!(skipped.reason.as_deref(), Some("v1.8 has no event stream"));
}
