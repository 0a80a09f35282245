//! Runs cells in the agent alone, on host processes, without a coordinator.

use phalanx_agent::cell;
use phalanx_agent::cell_contract::{Assignment, Host};
use phalanx_agent::clock::SystemClock;
use phalanx_agent::runtime::process::{ProcessRuntime, WardenProgram};
use phalanx_client::demo;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::{EventKind, ServiceState, StepResult};
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::input::Given;
use phalanx_shared::language;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{self, CellJob, Keep, Selection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// The program that answers for the warden and for the demo server.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_phalanx");

pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The jobs of all cells of a spec.
pub fn jobs(name: &str, text: &str) -> Vec<CellJob> {
    let main = Source {
        name: name.to_owned(),
        text: text.to_owned(),
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

/// A process runtime of an agent of its own.
pub fn processes(state: &Path) -> (AgentId, ProcessRuntime) {
    let agent = AgentId::from(format!("demo-{}", uuid::Uuid::new_v4()));
    let clock = Arc::new(SystemClock::default());
    let runtime = ProcessRuntime::new(agent.clone(), state, clock);
    (agent, runtime.with_warden(WardenProgram(PROGRAM.into())))
}

pub fn host(state: &Path) -> Host {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (agent, processes) = processes(state);
    Host {
        agent,
        state_dir: state.to_owned(),
        processes: Arc::new(processes),
        containers: Err("this test has none".to_owned()),
        clock: Arc::new(SystemClock::default()),
        guard: phalanx_agent::policy::Guard::open(),
        snapshots: None,
        demo_server: demo::command(Path::new(PROGRAM)),
    }
}

/// How a cell ended.
pub struct Ended {
    pub name: String,
    pub events: Vec<EventKind>,
}

impl Ended {
    pub fn steps(&self) -> Vec<StepResult> {
        let steps = self.events.iter().filter_map(|event| match event {
            EventKind::StepFinished(step) => Some(StepResult::clone(step)),
            _ => None,
        });
        steps.collect()
    }

    /// The states that a service went through.
    pub fn states(&self, name: &str) -> Vec<ServiceState> {
        let states = self.events.iter().filter_map(|event| match event {
            EventKind::ServiceChanged { service, state, .. } if service == name => Some(*state),
            _ => None,
        });
        states.collect()
    }

    /// It passed and left nothing.
    pub fn passed(&self) {
        let outcome = self.events.iter().find_map(|event| match event {
            EventKind::AttemptFinished { outcome, .. } => Some(*outcome),
            _ => None,
        });
        assert_eq!(
            outcome,
            Some(Outcome::Passed),
            "{}: {:#?}",
            self.name,
            self.events
        );
        let torn = self.events.last();
        assert!(
            matches!(torn, Some(EventKind::TornDown { removed: 1.., left, .. }) if left.is_empty()),
            "{torn:?}"
        );
    }
}

pub async fn run(host: Host, job: CellJob) -> Ended {
    let name = job.cell.name.clone();
    let (events, mut events_in) = mpsc::channel(64);
    let (logs, mut logs_in) = mpsc::channel(64);
    let (artifacts, _artifacts_in) = mpsc::channel(64);
    let (_cancel, cancel) = watch::channel(None);
    let assignment = Assignment {
        token: Token {
            // Its own: clean-up ends every process that has an attempt's token.
            run: uuid::Uuid::new_v4().to_string().into(),
            cell: job.cell.id.clone(),
            attempt: 1,
            epoch: 1,
        },
        job: Arc::new(job),
        secrets: BTreeMap::new(),
        workspace: Some(examples()),
        traceparent: None,
        events,
        logs,
        artifacts,
        cancel,
    };
    let handle = cell::spawn(host, assignment);
    let drain = tokio::spawn(async move { while logs_in.recv().await.is_some() {} });
    let mut ended = Ended {
        name,
        events: Vec::new(),
    };
    while let Some(event) = events_in.recv().await {
        ended.events.push(event.kind);
    }
    handle.join().await;
    drain.await.unwrap();
    ended
}
