//! Runs a cell of a spec in this process and collects what it tells: real host processes, a fake for containers,
//! a small HTTP server to test against.

use phalanx_agent::cell::{self, CellHandle};
use phalanx_agent::cell_contract::{Assignment, Host};
use phalanx_agent::clock::SystemClock;
use phalanx_agent::policy::{Guard, Policy};
use phalanx_agent::runtime::contract::Runtime;
use phalanx_agent::runtime::fake::FakeRuntime;
use phalanx_agent::runtime::fake::script::Script;
use phalanx_agent::runtime::process::{ProcessRuntime, WardenProgram};
use phalanx_agent::sink::{ArtifactPiece, LogChunk, Stamped};
use phalanx_agent::snapshot::Store;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::{EventKind, ServiceState, SnapshotState, StepResult};
use phalanx_shared::expr::{Cache, Layer, Scope, eval_node};
use phalanx_shared::id::Token;
use phalanx_shared::language::load;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{CellJob, Keep, PlannedCell, Resources, SnapshotUse, SpecSource};
use phalanx_shared::time::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// No test may hang longer.
pub const BOUND: Duration = Duration::from_secs(60);
/// Family of the snapshots of all jobs.
pub const FAMILY: &str = "fa01";

/// A cell to be run.
pub struct Rig {
    pub yaml: String,
    pub script: Script,
    pub secrets: BTreeMap<String, String>,
    pub inputs: Map<String, Value>,
    pub matrix: Map<String, Value>,
    pub keep: Keep,
    /// Time of the run's submission.
    pub submitted: Option<Timestamp>,
    pub timeout: Duration,
    pub workspace: Option<PathBuf>,
    pub policy: Policy,
    pub containers: bool,
    /// Instead of the fake.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// Instead of real processes.
    pub processes: Option<Arc<dyn Runtime>>,
    pub traceparent: Option<String>,
    /// Where snapshots are kept.
    pub store: Option<Store>,
    pub snapshots: SnapshotUse,
}

/// Steps of one phase `main`, with `inputs.url` for the server of the test.
pub fn steps(yaml: &str) -> Rig {
    let indented: String = yaml.lines().map(|line| format!("    {line}\n")).collect();
    spec(&format!("phases:\n  main:\n{indented}"))
}

/// A whole spec without its name and inputs.
pub fn spec(yaml: &str) -> Rig {
    Rig {
        yaml: format!("name: test\ninputs: {{ url: {{ default: '' }} }}\n{yaml}"),
        script: Script::default(),
        secrets: BTreeMap::new(),
        inputs: Map::new(),
        matrix: Map::new(),
        keep: Keep::Never,
        submitted: None,
        timeout: Duration::from_secs(50),
        workspace: None,
        policy: Policy::open(),
        containers: true,
        runtime: None,
        processes: None,
        traceparent: None,
        store: None,
        snapshots: SnapshotUse::Use,
    }
}

impl Rig {
    /// Adds keys of the spec's top level.
    pub fn prepend(&mut self, yaml: &str) {
        self.yaml = format!("{yaml}{}", self.yaml);
    }

    pub fn url(self, url: &str) -> Rig {
        self.input("url", url)
    }

    pub fn input(mut self, name: &str, value: &str) -> Rig {
        self.inputs.insert(name.to_owned(), json!(value));
        self
    }

    pub fn secret(mut self, name: &str, value: &str) -> Rig {
        self.secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn script(mut self, script: Script) -> Rig {
        self.script = script;
        self
    }

    /// Begins it.
    pub fn begin(self) -> Running {
        let state = TempDir::new().unwrap();
        let clock = Arc::new(SystemClock::default());
        let fake = FakeRuntime::new(self.script.clone());
        let agent: phalanx_shared::id::AgentId = "agent-under-test".into();
        let warden = PathBuf::from(env!("CARGO_BIN_EXE_phalanx-agent"));
        let processes = ProcessRuntime::new(agent.clone(), state.path(), clock.clone())
            .with_warden(WardenProgram(warden));
        let host = Host {
            agent,
            state_dir: state.path().to_owned(),
            processes: self.processes.clone().unwrap_or(Arc::new(processes)),
            containers: match self.containers {
                true => Ok(self
                    .runtime
                    .clone()
                    .unwrap_or_else(|| Arc::new(fake.clone()))),
                false => Err("no engine answers".to_owned()),
            },
            clock,
            guard: Arc::new(Guard::new(
                Arc::new(self.policy.clone()),
                "http://127.0.0.1:1",
            )),
            snapshots: self.store.clone(),
            demo_server: vec!["phalanx".to_owned(), "demo-server".to_owned()],
        };
        let (events, events_in) = mpsc::channel(1024);
        let (logs, logs_in) = mpsc::channel(1024);
        let (artifacts, artifacts_in) = mpsc::channel(1024);
        let (cancel, cancel_in) = watch::channel(None);
        let assignment = Assignment {
            token: Token {
                // Its own: clean-up ends every process that bears an attempt's token.
                run: uuid::Uuid::new_v4().to_string().into(),
                cell: "cell".into(),
                attempt: 1,
                epoch: 1,
            },
            job: Arc::new(self.job()),
            secrets: self.secrets.clone(),
            workspace: self.workspace.clone(),
            traceparent: self.traceparent.clone(),
            events,
            logs,
            artifacts,
            cancel: cancel_in,
        };
        Running {
            handle: cell::spawn(host, assignment),
            events: events_in,
            logs: logs_in,
            artifacts: artifacts_in,
            cancel,
            fake,
            state,
            seen: Vec::new(),
        }
    }

    /// Runs it to its end.
    pub async fn run(self) -> Ended {
        self.begin().end().await
    }

    fn job(&self) -> CellJob {
        let main = Source {
            name: "test.yaml".to_owned(),
            text: self.yaml.clone(),
        };
        let loaded = load(main, &mut |path: &str| Err(format!("no {path} in a test")));
        let Some(spec) = loaded.spec else {
            panic!(
                "the spec of the test:\n{}\n{:#?}",
                self.yaml, loaded.diagnostics
            );
        };
        let mut inputs = self.inputs.clone();
        inputs.entry("url").or_insert(json!(""));
        let mut vars = Map::new();
        for (name, node) in &spec.vars {
            let scope = Scope::new(
                Layer::new()
                    .value("inputs", Value::Object(inputs.clone()))
                    .value("matrix", Value::Object(self.matrix.clone()))
                    .value("vars", Value::Object(vars.clone())),
            );
            let value = eval_node(node, &scope, &Cache::new()).unwrap();
            vars.insert(name.text.clone(), value);
        }
        CellJob {
            source: Arc::new(SpecSource::new(Arc::new(spec), loaded.sources)),
            cell: PlannedCell {
                id: "cell".into(),
                name: "the cell".to_owned(),
                matrix: self.matrix.clone().into_iter().collect(),
                runs_on: Vec::new(),
                experimental: false,
                resources: Resources::default(),
                timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap(),
                attempts: 1,
                retries: 0,
            },
            inputs,
            matrix: self.matrix.clone(),
            vars,
            workspace: Map::new(),
            keep: self.keep,
            submitted: self.submitted,
            images: Default::default(),
            snapshots: self.snapshots,
            snapshot_family: Some(FAMILY.to_owned()),
        }
    }
}

/// A cell that runs.
pub struct Running {
    handle: CellHandle,
    events: mpsc::Receiver<Stamped>,
    logs: mpsc::Receiver<LogChunk>,
    pub artifacts: mpsc::Receiver<ArtifactPiece>,
    pub cancel: watch::Sender<Option<CancelOrder>>,
    pub fake: FakeRuntime,
    pub state: TempDir,
    seen: Vec<EventKind>,
}

impl Running {
    /// Waits for an event.
    pub async fn until(&mut self, what: impl Fn(&EventKind) -> bool) {
        loop {
            let event = tokio::time::timeout(BOUND, self.events.recv()).await;
            let Ok(Some(event)) = event else {
                panic!("the event never came; seen: {:#?}", self.seen);
            };
            let found = what(&event.kind);
            self.seen.push(event.kind);
            if found {
                return;
            }
        }
    }

    pub async fn until_started(&mut self, path: &str) {
        self.until(|kind| matches!(kind, EventKind::StepStarted { path: p, .. } if p == path))
            .await;
    }

    pub fn cancel(&self, grace: Duration, force: bool) {
        let order = CancelOrder {
            grace,
            reason: "by the test".to_owned(),
            force,
        };
        self.cancel.send_replace(Some(order));
    }

    pub async fn end(mut self) -> Ended {
        let bounded = tokio::time::timeout(BOUND, async {
            let mut chunks = Vec::new();
            let mut pieces = Vec::new();
            let (mut more_events, mut more_logs, mut more_pieces) = (true, true, true);
            while more_events || more_logs || more_pieces {
                tokio::select! {
                    event = self.events.recv(), if more_events => match event {
                        Some(event) => self.seen.push(event.kind),
                        None => more_events = false,
                    },
                    chunk = self.logs.recv(), if more_logs => match chunk {
                        Some(chunk) => chunks.push(chunk),
                        None => more_logs = false,
                    },
                    piece = self.artifacts.recv(), if more_pieces => match piece {
                        Some(piece) => pieces.push(piece),
                        None => more_pieces = false,
                    },
                }
            }
            self.handle.join().await;
            (chunks, pieces)
        });
        let Ok((logs, pieces)) = bounded.await else {
            panic!("the cell never ended; seen: {:#?}", self.seen);
        };
        Ended {
            events: self.seen,
            logs,
            pieces,
            violations: self.fake.violations(),
            calls: self.fake.calls(),
            state: self.state,
        }
    }
}

/// What a cell told.
pub struct Ended {
    pub events: Vec<EventKind>,
    pub logs: Vec<LogChunk>,
    pub pieces: Vec<ArtifactPiece>,
    pub violations: Vec<String>,
    pub calls: Vec<String>,
    pub state: TempDir,
}

impl Ended {
    /// The attempt's outcome.
    pub fn outcome(&self) -> Outcome {
        self.finished().0
    }

    /// The attempt's outcome and reason.
    pub fn finished(&self) -> (Outcome, Option<String>) {
        let found = self.events.iter().find_map(|kind| match kind {
            EventKind::AttemptFinished {
                outcome, reason, ..
            } => Some((*outcome, reason.clone())),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no AttemptFinished in {:#?}", self.events))
    }

    /// Every step's result, in the order told.
    pub fn steps(&self) -> Vec<&StepResult> {
        let results = self.events.iter().filter_map(|kind| match kind {
            EventKind::StepFinished(result) => Some(&**result),
            _ => None,
        });
        results.collect()
    }

    /// The result of a path.
    pub fn step(&self, path: &str) -> &StepResult {
        let found = self.steps().into_iter().find(|step| step.path == path);
        found.unwrap_or_else(|| panic!("no step {path} in {:#?}", self.summary()))
    }

    /// `path: outcome` lines, with the reason where there is one.
    pub fn summary(&self) -> Vec<String> {
        let line = |path: &str, outcome: &Outcome, reason: &Option<String>| match reason {
            Some(reason) => format!("{path}: {outcome}: {reason}"),
            None => format!("{path}: {outcome}"),
        };
        let lines = self.events.iter().filter_map(|kind| match kind {
            EventKind::StepFinished(step) => Some(line(&step.path, &step.outcome, &step.reason)),
            EventKind::PhaseFinished {
                path,
                outcome,
                reason,
                ..
            } => Some(line(path, outcome, reason)),
            _ => None,
        });
        lines.collect()
    }

    pub fn reason(&self, path: &str) -> String {
        self.step(path).reason.clone().unwrap_or_default()
    }

    /// What became of the cell's snapshot, in order.
    pub fn snapshots(&self) -> Vec<SnapshotState> {
        let states = self.events.iter().filter_map(|kind| match kind {
            EventKind::SnapshotChanged { state, .. } => Some(*state),
            _ => None,
        });
        states.collect()
    }

    /// Why a snapshot is as it is.
    pub fn snapshot_reason(&self, wanted: SnapshotState) -> String {
        let reason = self.events.iter().find_map(|kind| match kind {
            EventKind::SnapshotChanged { state, reason, .. } if *state == wanted => reason.clone(),
            _ => None,
        });
        reason.unwrap_or_default()
    }

    /// The keys of its snapshots.
    pub fn key(&self) -> String {
        let key = self.events.iter().find_map(|kind| match kind {
            EventKind::SnapshotChanged { key, .. } => Some(key.clone()),
            _ => None,
        });
        key.unwrap_or_default()
    }

    /// The states a service went through.
    pub fn states(&self, name: &str) -> Vec<ServiceState> {
        let states = self.events.iter().filter_map(|kind| match kind {
            EventKind::ServiceChanged { service, state, .. } if service == name => Some(*state),
            _ => None,
        });
        states.collect()
    }

    /// Everything that was told, as one text to search.
    pub fn everything(&self) -> String {
        let mut text = serde_json::to_string(&self.events).unwrap();
        for chunk in &self.logs {
            text.push_str(&String::from_utf8_lossy(&chunk.bytes));
        }
        text
    }

    #[track_caller]
    pub fn passed(&self) -> &Self {
        assert_eq!(self.outcome(), Outcome::Passed, "{:#?}", self.detail());
        assert_eq!(self.violations, Vec::<String>::new());
        self
    }

    /// Steps that aren't fine, whole.
    pub fn detail(&self) -> (Vec<String>, Vec<&StepResult>) {
        let bad = self
            .steps()
            .into_iter()
            .filter(|step| !step.outcome.is_ok());
        (self.summary(), bad.collect())
    }
}
