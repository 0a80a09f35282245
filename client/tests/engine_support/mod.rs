//! A coordinator without agents: the test reads `ToAgents` and plays the agents by a script.

use async_trait::async_trait;
use indexmap::IndexMap;
use phalanx_coordinator::access::Caller;
use phalanx_coordinator::access::core::Scope;
use phalanx_coordinator::clock::SystemClock;
use phalanx_coordinator::dispatch::contract::{
    AgentInfo, FromAgents, InventoryItem, Report, Resumed, ToAgents, ToRun,
};
use phalanx_coordinator::dispatch::logs::store::LogStore;
use phalanx_coordinator::dispatch::sequence::{Received, Sequence};
use phalanx_coordinator::journal::{Receipt, SqliteStore, Submission};
use phalanx_coordinator::serve::api::Api;
use phalanx_coordinator::submission::{Jobs, Planned, Planner};
use phalanx_coordinator::supervisor::{self, Handle, Settings};
use phalanx_coordinator::workspace::Workspaces;
use phalanx_proto::convert::Refusal;
use phalanx_proto::v1;
use phalanx_proto::v1::control_server::Control;
use phalanx_shared::diagnostic::Sources;
use phalanx_shared::event::{AttemptRef, Event, EventKind};
use phalanx_shared::id::{AgentId, CellId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{CellJob, Keep, Plan, PlannedCell, Resources, SpecSource};
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt;
use tonic::Request;

/// A request of somebody who may do everything, as the layer before the API makes it without access control.
pub fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::machine(Scope::All));
    request
}

/// Guards against hanging.
const BOUND: Duration = Duration::from_secs(20);

/// Plans as many cells as the input says, narrowed by `cells`.
struct FakePlanner;

struct FakeJobs {
    secret: Option<String>,
    plan: Plan,
}

impl Planner for FakePlanner {
    fn plan(&self, submission: &Submission) -> Result<Planned, Refusal> {
        let cells = submission.inputs["cells"].as_u64().unwrap();
        let cell = |n: u64| PlannedCell {
            id: CellId(format!("c{n}")),
            name: format!("cell {n}"),
            matrix: IndexMap::from([("n".to_owned(), n.into())]),
            runs_on: vec![],
            experimental: false,
            resources: Resources::default(),
            timeout_ms: 1_000,
            attempts: 1,
            retries: 0,
        };
        let wanted =
            |c: &PlannedCell| submission.cells.is_empty() || submission.cells.contains(&c.id.0);
        let plan = Plan {
            digest: "d".into(),
            spec: "shop".into(),
            cells: (0..cells).map(cell).filter(wanted).collect(),
            ..empty_plan()
        };
        let jobs = self.jobs(submission, &plan)?;
        let warnings = vec![];
        Ok(Planned {
            plan,
            jobs,
            warnings,
            spans: 0,
        })
    }

    fn jobs(&self, submission: &Submission, plan: &Plan) -> Result<Arc<dyn Jobs>, Refusal> {
        let secret = submission.inputs.get("secret").and_then(Value::as_str);
        Ok(Arc::new(FakeJobs {
            secret: secret.map(str::to_owned),
            plan: plan.clone(),
        }))
    }
}

fn empty_plan() -> Plan {
    serde_json::from_value(serde_json::json!({
        "digest": "", "spec": "", "inputs": {}, "axes": [], "coverage": [], "cells": [], "max_parallel": null, "fail_fast": false,
    }))
    .unwrap()
}

#[async_trait]
impl Jobs for FakeJobs {
    async fn job(&self, cell: &CellId) -> Result<Arc<CellJob>, String> {
        let text = "name: x\nphases: { a: [ { run: \"true\" } ] }\n";
        let main = phalanx_shared::diagnostic::Source {
            name: "x.yaml".into(),
            text: text.into(),
        };
        let loaded = phalanx_shared::language::load(main, &mut |_| Err("no files".into()));
        let spec = loaded
            .spec
            .ok_or_else(|| format!("{:?}", loaded.diagnostics))?;
        let cell = self.plan.cells.iter().find(|c| c.id == *cell).cloned();
        Ok(Arc::new(CellJob {
            source: Arc::new(SpecSource::new(Arc::new(spec), Sources::default())),
            cell: cell.ok_or("no such cell")?,
            inputs: Map::new(),
            matrix: Map::new(),
            vars: Map::new(),
            workspace: Map::new(),
            keep: Keep::Never,
            submitted: None,
            images: BTreeMap::new(),
            snapshots: Default::default(),
            snapshot_family: None,
        }))
    }

    fn images(
        &self,
        _: &CellId,
        _: &phalanx_shared::id::RunId,
    ) -> Vec<phalanx_shared::plan::WantedImage> {
        vec![]
    }

    fn needs(&self, _: &CellId) -> Vec<phalanx_shared::policy::Need> {
        vec![]
    }

    fn secrets(&self) -> Vec<String> {
        self.secret.clone().into_iter().collect()
    }
}

/// Behaviour of the fake agents.
#[derive(Clone, Debug)]
pub enum Script {
    /// Every attempt passes at once.
    Pass,
    /// Offers are not answered.
    Hold,
    /// This many attempts pass; later ones start and don't end.
    FinishThenHold(usize),
    /// All attempts pass, except those of this cell.
    Fail(String),
}

#[derive(Default)]
struct Seen {
    script: Option<Script>,
    heard: Vec<String>,
    commands: Vec<ToAgents>,
    running: HashMap<AgentId, Vec<Token>>,
    most: HashMap<AgentId, usize>,
    /// Attempts that started and haven't ended, with their last sequence.
    held: HashMap<Token, (AgentId, u64)>,
    /// The way to the run of each attempt.
    runs: HashMap<Token, Arc<dyn ToRun>>,
    passed: usize,
}

pub struct Bench {
    place: tempfile::TempDir,
    handle: Handle,
    api: Api,
    from: mpsc::UnboundedSender<FromAgents>,
    seen: Arc<Mutex<Seen>>,
    offered: watch::Receiver<Option<Token>>,
    agents: tokio::task::JoinHandle<()>,
}

pub fn submit_request(cells: u64) -> v1::SubmitRequest {
    v1::SubmitRequest {
        files: vec![v1::SourceFile {
            name: "x.yaml".into(),
            text: "x".into(),
        }],
        inputs_json: format!(r#"{{"cells": {cells}}}"#).into_bytes(),
        ..Default::default()
    }
}

impl Bench {
    pub async fn start(place: tempfile::TempDir) -> Bench {
        Self::start_with(place, Arc::new(Mutex::new(Seen::default()))).await
    }

    async fn start_with(place: tempfile::TempDir, seen: Arc<Mutex<Seen>>) -> Bench {
        let store = loop {
            // The last tasks of the predecessor may hold the lock for a moment.
            match SqliteStore::open(&place.path().join("journal.db")).await {
                Ok(store) => break store,
                Err(error) if error.to_string().contains("in use") => {
                    tokio::task::yield_now().await
                }
                Err(error) => panic!("{error}"),
            }
        };
        let (from, from_agents) = mpsc::unbounded_channel();
        let (to_agents, to) = mpsc::unbounded_channel();
        let (handle, _writer) = supervisor::start(supervisor::Args {
            store: Arc::new(store),
            planner: Arc::new(FakePlanner),
            own_secrets: Arc::new(|_, _| None),
            from_agents,
            to_agents,
            clock: Arc::new(SystemClock::default()),
            begin: Default::default(),
            settings: Settings {
                reconnect_within: Duration::from_millis(300),
                ..Settings::default()
            },
        })
        .await
        .unwrap();
        let (offers, offered) = watch::channel(None);
        let agents = tokio::spawn(play(to, seen.clone(), offers));
        let logs = LogStore::new(place.path().join("logs"));
        let workspaces = Workspaces::new(place.path().join("workspaces"));
        let api = Api::new(handle.clone(), logs, workspaces, place.path().to_owned());
        Bench {
            place,
            handle,
            api,
            from,
            seen,
            offered,
            agents,
        }
    }

    /// Kills the coordinator and starts another one on its journal. The agents keep their attempts.
    pub async fn restart(self) -> Bench {
        let Bench {
            place,
            handle,
            api,
            from,
            seen,
            agents,
            ..
        } = self;
        agents.abort();
        drop(from);
        for (_, run) in handle.registry.all() {
            run.actor.kill();
            run.actor.wait_for_shutdown().await;
        }
        handle.coordinator.kill();
        handle.coordinator.wait_for_shutdown().await;
        handle.scheduling.kill();
        handle.scheduling.wait_for_shutdown().await;
        drop((api, handle));
        Self::start_with(place, seen).await
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    pub fn script(&self, script: Script) {
        let mut seen = self.seen.lock().unwrap();
        seen.script = Some(script);
        seen.passed = 0;
    }

    pub async fn connect(&self, id: &str, slots: u32) {
        self.hello(id, slots, vec![]).await;
    }

    /// Reconnects with the held attempts and continues those that are still valid.
    pub async fn reconnect(&self, id: &str, slots: u32) {
        let held: Vec<(Token, u64)> = {
            let seen = self.seen.lock().unwrap();
            let mine = seen
                .held
                .iter()
                .filter(|(_, (agent, _))| agent.as_str() == id);
            mine.map(|(token, (_, seq))| (token.clone(), *seq))
                .collect()
        };
        let inventory = held.iter().map(|(token, last_seq)| InventoryItem {
            token: token.clone(),
            last_seq: *last_seq,
            finished: false,
        });
        let resumed = self.hello(id, slots, inventory.collect()).await;
        assert_eq!(resumed.len(), held.len(), "everything goes on");
        for Resumed { goes_on, run } in resumed {
            let (token, seq) = (&goes_on.token, goes_on.durable_seq);
            end(&*run, token, seq, Outcome::Passed);
        }
    }

    pub fn forget_agent(&self, id: &str) {
        self.seen
            .lock()
            .unwrap()
            .held
            .retain(|_, (agent, _)| agent.as_str() != id);
    }

    async fn hello(&self, id: &str, slots: u32, inventory: Vec<InventoryItem>) -> Vec<Resumed> {
        let (answer, resumed) = oneshot::channel();
        let answer = Box::new(move |resumed| {
            let _ = answer.send(resumed);
        });
        let agent = AgentInfo {
            id: id.into(),
            name: id.into(),
            version: "0".into(),
            labels: vec![],
            slots,
            resources: Resources::default(),
            images: vec![],
            policy: None,
            ahead: Some(0),
            snapshots: Default::default(),
        };
        self.from
            .send(FromAgents::Connected {
                agent,
                inventory,
                answer,
            })
            .unwrap_or_else(|_| panic!("the coordinator is gone"));
        let resumed = tokio::time::timeout(BOUND, resumed).await;
        resumed.unwrap().unwrap()
    }

    pub async fn submit(&self, cells: u64) -> String {
        let request = asked(submit_request(cells));
        self.api.submit(request).await.unwrap().into_inner().run_id
    }

    /// Returns all events until the stream ends.
    pub async fn watch_to_end(&self, run: &str) -> Vec<Event> {
        self.watch(run, 1).await
    }

    pub async fn watch(&self, run: &str, from_position: u64) -> Vec<Event> {
        self.collect(run, from_position, true).await
    }

    /// Returns the events so far.
    pub async fn present(&self, run: &str) -> Vec<Event> {
        self.collect(run, 1, false).await
    }

    async fn collect(&self, run_id: &str, from_position: u64, follow: bool) -> Vec<Event> {
        let request = v1::WatchRequest {
            run_id: run_id.to_owned(),
            from_position,
            follow,
        };
        let stream = self.api.watch(asked(request)).await.unwrap().into_inner();
        let events = stream.map(|item| {
            let recorded: phalanx_shared::event::Recorded = item.unwrap().try_into().unwrap();
            recorded.event
        });
        tokio::time::timeout(BOUND, events.collect())
            .await
            .expect("the watch ends")
    }

    /// Follows a run until its state satisfies a condition.
    pub async fn wait_for(&self, run: &str, condition: impl Fn(&RunState) -> bool) {
        let request = v1::WatchRequest {
            run_id: run.to_owned(),
            from_position: 1,
            follow: true,
        };
        let mut stream = self.api.watch(asked(request)).await.unwrap().into_inner();
        let mut state = RunState::new(run.into());
        let wait = async {
            while let Some(item) = stream.next().await {
                let recorded: phalanx_shared::event::Recorded = item.unwrap().try_into().unwrap();
                state.apply(&recorded.event);
                if condition(&state) {
                    return;
                }
            }
            panic!("it never came: {:?}", state.counts());
        };
        tokio::time::timeout(BOUND, wait).await.unwrap();
    }

    pub async fn offered(&self) -> Token {
        let mut offered = self.offered.clone();
        let token = tokio::time::timeout(BOUND, offered.wait_for(Option::is_some))
            .await
            .unwrap();
        token.unwrap().clone().unwrap()
    }

    pub fn most_at_once(&self, agent: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .most
            .get(&agent.into())
            .copied()
            .unwrap_or(0)
    }

    pub fn heard(&self, what: impl Fn(&ToAgents) -> bool) -> bool {
        self.seen.lock().unwrap().commands.iter().any(what)
    }
}

/// Plays all agents.
async fn play(
    mut to: mpsc::UnboundedReceiver<ToAgents>,
    seen: Arc<Mutex<Seen>>,
    offers: watch::Sender<Option<Token>>,
) {
    while let Some(command) = to.recv().await {
        let script = {
            let mut seen = seen.lock().unwrap();
            seen.commands.push(command.clone());
            seen.heard.push(format!("{command:?}"));
            seen.script.clone().unwrap_or(Script::Pass)
        };
        match command {
            ToAgents::Offer {
                agent, token, run, ..
            } => {
                let outcome = {
                    let mut seen = seen.lock().unwrap();
                    seen.runs.insert(token.clone(), run.clone());
                    let running = seen.running.entry(agent.clone()).or_default();
                    running.push(token.clone());
                    let many = running.len();
                    let most = seen.most.entry(agent.clone()).or_default();
                    *most = (*most).max(many);
                    match &script {
                        Script::Hold => None,
                        Script::Pass => Some(Some(Outcome::Passed)),
                        Script::FinishThenHold(limit) if seen.passed < *limit => {
                            seen.passed += 1;
                            Some(Some(Outcome::Passed))
                        }
                        Script::FinishThenHold(_) => {
                            seen.held.insert(token.clone(), (agent.clone(), 1));
                            Some(None)
                        }
                        Script::Fail(cell) if token.cell.as_str() == cell => {
                            Some(Some(Outcome::Failed))
                        }
                        Script::Fail(_) => Some(Some(Outcome::Passed)),
                    }
                };
                offers.send_replace(Some(token.clone()));
                let Some(outcome) = outcome else { continue };
                run.report(Report::Accepted);
                say(&*run, &token, 1, EventKind::AttemptStarted { agent });
                if let Some(outcome) = outcome {
                    end(&*run, &token, 1, outcome);
                }
            }
            ToAgents::Cancel { token, .. } => {
                let (held, run) = {
                    let mut seen = seen.lock().unwrap();
                    (seen.held.remove(&token), seen.runs.get(&token).cloned())
                };
                if let (Some((_, seq)), Some(run)) = (held, run) {
                    end(&*run, &token, seq, Outcome::Cancelled);
                }
            }
            ToAgents::Retire { token } => {
                let mut seen = seen.lock().unwrap();
                seen.held.remove(&token);
                seen.runs.remove(&token);
                seen.running
                    .values_mut()
                    .for_each(|r| r.retain(|t| *t != token));
            }
            ToAgents::Drain { .. }
            | ToAgents::Prefetch { .. }
            | ToAgents::RemoveSnapshots { .. }
            | ToAgents::Reconnect { .. } => {}
        }
    }
}

/// Sends the remaining events of an attempt.
fn end(run: &dyn ToRun, token: &Token, seq: u64, outcome: Outcome) {
    say(
        run,
        token,
        seq + 1,
        EventKind::AttemptFinished {
            outcome,
            reason: None,
            timed_out: false,
            culprit: None,
        },
    );
    let torn = EventKind::TornDown {
        removed: 0,
        left: vec![],
        kept: vec![],
        began: Timestamp(0),
    };
    say(run, token, seq + 2, torn);
}

fn say(run: &dyn ToRun, token: &Token, seq: u64, kind: EventKind) {
    let event = Event {
        run: token.run.clone(),
        attempt: Some(AttemptRef {
            cell: token.cell.clone(),
            attempt: token.attempt,
        }),
        seq,
        at: Timestamp(i64::try_from(seq).unwrap()),
        mono_us: seq,
        kind,
    };
    let Sequence::New(events) = Received::up_to(seq - 1).take(vec![event]) else {
        panic!("one event is always in sequence");
    };
    let receipt = Receipt::new(|_| ());
    run.report(Report::Events { events, receipt });
}

#[allow(dead_code)]
type Secrets = BTreeMap<String, String>;
