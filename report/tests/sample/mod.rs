//! Made-up runs as sequences of events: 27 cells of the Proxbox shape, or any number of another. Always the same for the
//! same arguments, so that snapshots hold. Everything that reports have to show occurs in them: failed checks with parts,
//! skips by `when`, a flaky retry, an errored pull, a lost agent, a returned offer, kept services, parallel steps.
#![allow(dead_code, clippy::unwrap_used)]

use indexmap::IndexMap;
use phalanx_shared::event::*;
use phalanx_shared::id::{CellId, RunId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Plan, PlannedCell, Resources};
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use serde_json::{Map, Value, json};

const RUN: &str = "01936b0e-8f00-7cc3-98c4-dc0c0c07398f";
const START: i64 = 1_795_342_920_000_000;

/// The events of a run in the order of the journal.
pub fn events(cells: usize, slots: usize) -> Vec<Event> {
    let plan = if cells == 27 { proxbox() } else { grid(cells) };
    let mut free = vec![START + 3_000; slots.max(1)];
    let mut events = vec![of_run(
        START,
        EventKind::RunSubmitted {
            plan: plan.clone(),
            origin: Map::from_iter([("path".to_owned(), json!("examples/proxbox/e2e.yaml"))]),
        },
    )];
    for (index, cell) in plan.cells.iter().enumerate() {
        let slot = (0..free.len()).min_by_key(|slot| free[*slot]).unwrap();
        let mut script = Script::new(cell, index, free[slot]);
        script.play();
        free[slot] = script.at;
        events.append(&mut script.events);
    }
    events.sort_by_key(|event| event.at);
    let end = events
        .iter()
        .filter(|e| matches!(e.kind, EventKind::CellFinished { .. }))
        .map(|e| e.at.0)
        .max()
        .unwrap();
    let mut state = RunState::new(RunId::from(RUN));
    events.iter().for_each(|event| state.apply(event));
    let outcome = state.run_outcome().unwrap();
    events.push(of_run(end, EventKind::RunFinished { outcome }));
    events.sort_by_key(|event| event.at);
    events
}

/// The state after the events up to a time (microseconds after the submission).
pub fn state(events: &[Event], until_us: i64) -> (RunState, Timestamp) {
    let now = Timestamp(START.saturating_add(until_us));
    let mut state = RunState::new(RunId::from(RUN));
    events
        .iter()
        .filter(|event| event.at <= now)
        .for_each(|event| state.apply(event));
    (state, now)
}

fn of_run(at: i64, kind: EventKind) -> Event {
    Event {
        run: RUN.into(),
        attempt: None,
        seq: 0,
        at: Timestamp(at),
        mono_us: 0,
        kind,
    }
}

fn planned(index: usize, values: &[(&str, Value)]) -> PlannedCell {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    PlannedCell {
        id: CellId(format!(
            "{:016x}",
            (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )),
        name: values
            .iter()
            .map(|(_, v)| text(v))
            .collect::<Vec<_>>()
            .join(" / "),
        matrix: values
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect::<IndexMap<_, _>>(),
        runs_on: vec!["docker".into()],
        experimental: values.iter().any(|(_, v)| v == "v4.6.0") && index.is_multiple_of(5),
        resources: Resources {
            millicpus: 1000,
            memory_bytes: 1 << 30,
            subnets: 1,
        },
        timeout_ms: 3_600_000,
        attempts: 2,
        retries: 0,
    }
}

fn plan(spec: &str, axes: &[&str], cells: Vec<PlannedCell>) -> Plan {
    Plan {
        digest: "7d5c0f2b9a41e6835b7a9c1d0e2f46587d5c0f2b9a41e6835b7a9c1d0e2f4658".into(),
        spec: spec.into(),
        inputs: Map::from_iter([("proxmox_service".to_owned(), json!("all"))]),
        axes: axes.iter().map(|a| (*a).to_owned()).collect(),
        coverage: [
            ("ready", "Stack readiness (NetBox API, proxbox-api API)"),
            ("mock", "Mock /health reports correct service"),
            ("keepalive", "Keepalive: Proxmox endpoint"),
            ("fields", "Custom field creation via proxbox-api"),
            ("stream", "Backend /full-update/stream completes"),
            ("transition", "VM status transition assertion"),
        ]
        .map(|(k, t)| (k.to_owned(), t.to_owned()))
        .to_vec(),
        cells,
        max_parallel: None,
        queue_timeout_ms: None,
        max_skips: None,
        fail_fast: false,
        workspace: None,
        files: Default::default(),
    }
}

fn proxbox() -> Plan {
    let mut cells = Vec::new();
    for source in ["local", "pypi", "container"] {
        for image in ["v4.5.8", "v4.5.9", "v4.6.0"] {
            for service in ["pve", "pbs", "pdm"] {
                let values = [
                    ("install_source", json!(source)),
                    ("netbox_image", json!(image)),
                    ("network_stack", json!("ipv4")),
                    ("proxmox_service", json!(service)),
                ];
                cells.push(planned(cells.len(), &values));
            }
        }
    }
    plan(
        "proxbox-e2e",
        &[
            "install_source",
            "netbox_image",
            "network_stack",
            "proxmox_service",
        ],
        cells,
    )
}

fn grid(count: usize) -> Plan {
    let services = ["pve", "pbs", "pdm"];
    let cells = (0..count)
        .map(|i| {
            let values = [
                ("proxmox_service", json!(services[i % 3])),
                ("release", json!(format!("v4.{}", i / 3 % 20))),
                ("shard", json!(i / 60)),
            ];
            planned(i, &values)
        })
        .collect();
    plan("grid-e2e", &["proxmox_service", "release", "shard"], cells)
}

struct Script<'a> {
    cell: &'a PlannedCell,
    index: usize,
    at: i64,
    seq: u64,
    attempt: u32,
    began: i64,
    events: Vec<Event>,
}

impl<'a> Script<'a> {
    fn new(cell: &'a PlannedCell, index: usize, at: i64) -> Self {
        Script {
            cell,
            index,
            at,
            seq: 0,
            attempt: 0,
            began: at,
            events: Vec::new(),
        }
    }

    fn pve(&self) -> bool {
        self.cell.matrix["proxmox_service"] == "pve"
    }

    fn play(&mut self) {
        if self.index == 7 {
            self.offer("runner-2");
            self.tell_run(EventKind::CellReturned {
                token: self.token(),
                reason: "runner-2 declined: no free subnet".into(),
            });
        }
        self.offer("runner-1");
        if self.index == 4 {
            self.tell(EventKind::AttemptStarted { agent: "a1".into() });
            self.wait(3_000_000);
            self.tell_run(EventKind::AttemptLost {
                token: self.token(),
                reason: "agent runner-1 lost: no heartbeat for 15s".into(),
            });
            self.offer("runner-2");
        }
        self.tell(EventKind::AttemptStarted { agent: "a1".into() });
        if self.index == 13 {
            self.wait(900_000);
            let reason = "service netbox: pull of netboxcommunity/netbox:v4.5.9 failed: 429 Too Many Requests (after 3 tries)";
            self.service("netbox", ServiceState::Pulled, 800_000, reason);
            return self.end(Outcome::Errored, Some(reason));
        }
        for (service, millis) in [
            ("postgres", 400),
            ("redis", 150),
            ("netbox", 2_400),
            ("mock", 700),
        ] {
            self.service(
                service,
                ServiceState::Started,
                millis * 300,
                "image from the cache",
            );
            self.service(
                service,
                ServiceState::Ready,
                millis * 700,
                "127.0.0.1:32768",
            );
        }
        self.setup();
        let failed = self.pve() && self.index % 9 == 6;
        self.sync(failed);
        self.stream(failed);
        if failed {
            self.end(
                Outcome::Failed,
                Some("sync > VM status transition (active to offline): check failed"),
            );
        } else if self.index == 11 {
            self.end(Outcome::Flaky, None);
        } else {
            self.end(Outcome::Passed, None);
        }
    }

    fn setup(&mut self) {
        let began = self.phase_start("setup");
        self.step(
            "setup/0",
            "create a NetBox API token",
            "exec",
            310_000,
            &["ready"],
            |_| {},
        );
        let flaky = self.index == 11;
        self.step(
            "setup/1",
            "register endpoints",
            "http",
            120_000,
            &["ready"],
            |r| {
                if flaky {
                    (r.outcome, r.tries) = (Outcome::Flaky, 2);
                    r.reason = Some("passed at try 2".into());
                }
            },
        );
        self.step(
            "setup/2",
            "the mock is the right one",
            "http",
            40_000,
            &["mock"],
            |r| {
                r.checks = vec![
                    held("status == 200"),
                    held("json.service == matrix.proxmox_service"),
                ];
            },
        );
        self.phase_end("setup", Outcome::Passed, None, began);
    }

    fn sync(&mut self, failed: bool) {
        let began = self.phase_start("sync");
        self.tell(EventKind::StepStarted {
            path: "sync/0".into(),
            name: "plugin keepalives".into(),
            action: "parallel".into(),
        });
        let group_began = self.at;
        for (i, endpoint) in ["fastapi", "netbox"].iter().enumerate() {
            self.step(
                &format!("sync/0/{i}"),
                &format!("keepalive {endpoint}"),
                "http",
                90_000,
                &[],
                |_| {},
            );
        }
        if self.pve() {
            self.step(
                "sync/0/2",
                "keepalive proxmox",
                "http",
                80_000,
                &["keepalive"],
                |_| {},
            );
        } else {
            self.skip("sync/0/2", "keepalive proxmox", &["keepalive"]);
        }
        self.finish(
            "sync/0",
            "plugin keepalives",
            "parallel",
            group_began,
            &[],
            |_| {},
        );
        self.step(
            "sync/1",
            "create custom fields",
            "http",
            500_000 + self.index as i64 * 7_000,
            &["fields"],
            |_| {},
        );
        if self.pve() {
            self.step("sync/2", "full update job", "http", 1_800_000, &[], |r| {
                r.polls = 14
            });
            self.step(
                "sync/3",
                "VM status transition (active to offline)",
                "http",
                260_000,
                &["transition"],
                |r| {
                    if failed {
                        transition_failed(r);
                    }
                },
            );
        } else {
            self.skip("sync/2", "full update job", &[]);
            self.skip(
                "sync/3",
                "VM status transition (active to offline)",
                &["transition"],
            );
        }
        let outcome = if failed {
            Outcome::Failed
        } else {
            Outcome::Passed
        };
        self.phase_end("sync", outcome, failed.then_some("failed step"), began);
    }

    fn stream(&mut self, failed: bool) {
        if failed {
            let reason = "after failed step VM status transition (active to offline)";
            let began = self.at;
            self.finish(
                "stream/0",
                "full-update stream",
                "sse",
                began,
                &["stream"],
                |r| {
                    (r.outcome, r.tries, r.polls) = (Outcome::Skipped, 0, 0);
                    (r.reason, r.unreached) = (Some(reason.into()), true);
                },
            );
            return self.phase_end("stream", Outcome::Skipped, Some(reason), began);
        }
        let began = self.phase_start("stream");
        if self.pve() {
            self.step(
                "stream/0",
                "full-update stream",
                "sse",
                900_000,
                &["stream"],
                |_| {},
            );
            self.phase_end("stream", Outcome::Passed, None, began);
        } else {
            self.skip("stream/0", "full-update stream", &["stream"]);
            self.phase_end("stream", Outcome::Skipped, Some(&self.reason()), began);
        }
    }

    fn reason(&self) -> String {
        format!(
            "the {} mock has no PVE-shaped API",
            self.cell.matrix["proxmox_service"].as_str().unwrap()
        )
    }

    fn wait(&mut self, micros: i64) {
        self.at += micros;
    }

    fn token(&self) -> Token {
        Token {
            run: RUN.into(),
            cell: self.cell.id.clone(),
            attempt: self.attempt,
            epoch: 1,
        }
    }

    fn tell_run(&mut self, kind: EventKind) {
        self.at += 50;
        self.events.push(of_run(self.at, kind));
    }

    fn offer(&mut self, agent: &str) {
        self.attempt += 1;
        self.seq = 0;
        self.tell_run(EventKind::CellOffered {
            token: self.token(),
            agent: "a1".into(),
            agent_name: agent.into(),
            placement: Placement::default(),
        });
        self.tell_run(EventKind::CellAccepted {
            token: self.token(),
        });
        self.wait(2_000);
        self.began = self.at;
    }

    fn tell(&mut self, kind: EventKind) {
        self.seq += 1;
        self.at += 20;
        let attempt = Some(AttemptRef {
            cell: self.cell.id.clone(),
            attempt: self.attempt,
        });
        let mono_us = (self.at - self.began) as u64;
        self.events.push(Event {
            run: RUN.into(),
            attempt,
            seq: self.seq,
            at: Timestamp(self.at),
            mono_us,
            kind,
        });
    }

    fn service(&mut self, service: &str, state: ServiceState, micros: i64, detail: &str) {
        let began = Timestamp(self.at);
        self.wait(micros);
        self.tell(EventKind::ServiceChanged {
            service: service.into(),
            state,
            began,
            detail: Some(detail.into()),
            image: (state == ServiceState::Started)
                .then(|| format!("{service}@sha256:{}", "5e".repeat(32))),
            queued_us: 0,
            reference: None,
        });
    }

    fn phase_start(&mut self, name: &str) -> i64 {
        self.tell(EventKind::PhaseStarted {
            path: name.into(),
            name: name.into(),
        });
        self.at
    }

    fn phase_end(&mut self, name: &str, outcome: Outcome, reason: Option<&str>, began: i64) {
        let (path, name) = (name.to_owned(), name.to_owned());
        let reason = reason.map(str::to_owned);
        self.tell(EventKind::PhaseFinished {
            path,
            name,
            outcome,
            reason,
            began: Timestamp(began),
            timed_out: false,
        });
    }

    fn step(
        &mut self,
        path: &str,
        name: &str,
        action: &str,
        micros: i64,
        verifies: &[&str],
        adjust: impl FnOnce(&mut StepResult),
    ) {
        self.tell(EventKind::StepStarted {
            path: path.into(),
            name: name.into(),
            action: action.into(),
        });
        let began = self.at;
        self.wait(micros + (self.index as i64 * 7919 + micros) % 50_000);
        self.finish(path, name, action, began, verifies, adjust);
    }

    fn finish(
        &mut self,
        path: &str,
        name: &str,
        action: &str,
        began: i64,
        verifies: &[&str],
        adjust: impl FnOnce(&mut StepResult),
    ) {
        let mut result = StepResult {
            path: path.into(),
            name: name.into(),
            id: None,
            action: action.into(),
            outcome: Outcome::Passed,
            reason: None,
            unreached: false,
            timed_out: false,
            culprit: None,
            tries: 1,
            polls: 1,
            began: Timestamp(began),
            elapsed_us: (self.at - began) as u64,
            waits: Vec::new(),
            verifies: verifies.iter().map(|v| (*v).to_owned()).collect(),
            checks: Vec::new(),
            output: None,
            captured: Vec::new(),
            failure: None,
            restored: None,
        };
        adjust(&mut result);
        self.tell(EventKind::StepFinished(Box::new(result)));
    }

    fn skip(&mut self, path: &str, name: &str, verifies: &[&str]) {
        let reason = self.reason();
        self.skip_with(path, name, verifies, &reason);
    }

    fn skip_with(&mut self, path: &str, name: &str, verifies: &[&str], reason: &str) {
        let began = self.at;
        self.finish(path, name, "http", began, verifies, |r| {
            (r.outcome, r.tries, r.polls) = (Outcome::Skipped, 0, 0);
            r.reason = Some(reason.into());
        });
    }

    fn end(&mut self, outcome: Outcome, reason: Option<&str>) {
        let reason = reason.map(str::to_owned);
        self.tell(EventKind::AttemptFinished {
            outcome,
            reason: reason.clone(),
            timed_out: false,
            culprit: None,
        });
        let done = self.at;
        let kept = match self.index {
            6 => vec![KeptService {
                service: "netbox".into(),
                address: "http://127.0.0.1:32771".into(),
            }],
            _ => Vec::new(),
        };
        self.tell_run(EventKind::CellFinished {
            cell: self.cell.id.clone(),
            outcome,
            reason,
            attempts: self.attempt,
        });
        self.wait(180_000);
        self.tell(EventKind::TornDown {
            removed: 5,
            left: Vec::new(),
            kept,
            began: Timestamp(done),
        });
    }
}

fn held(expression: &str) -> CheckResult {
    CheckResult {
        expression: expression.into(),
        passed: true,
        parts: Vec::new(),
        error: None,
    }
}

fn transition_failed(result: &mut StepResult) {
    result.outcome = Outcome::Failed;
    result.reason = Some("1 of 2 checks failed".into());
    let parts = [
        ("json.results[0].status.value", "\"active\""),
        ("json.count", "1"),
    ];
    result.checks = vec![
        held("json.count == 1"),
        CheckResult {
            expression: "json.results[0].status.value == 'offline' && json.count == 1".into(),
            passed: false,
            parts: parts
                .map(|(text, value)| Part {
                    text: text.into(),
                    value: value.into(),
                })
                .to_vec(),
            error: None,
        },
    ];
    result.failure = Some(Failure {
        place: Some("examples/proxbox/sync.yaml:57:9".into()),
        request: Some("GET http://172.30.0.4:8080/api/virtualization/virtual-machines/?name=vm101\nauthorization: Token ***\naccept: application/json".into()),
        response: Some("HTTP/1.1 200 OK\ncontent-type: application/json\n\n{\"count\":1,\"results\":[{\"name\":\"vm101\",\"status\":{\"value\":\"active\"}}]}".into()),
        logs: vec![LogTail {
            service: "netbox-worker".into(),
            lines: vec![
                "12:00:41 default: netbox_proxbox.jobs.ProxboxSyncJob (0b5c) ".into(),
                "12:00:42 \u{1b}[33mWARN\u{1b}[0m vm 101: status not updated, <backend> answered 200 & an empty body".into(),
                "12:00:42 default: Job OK (0b5c)".into(),
            ],
        }],
        notes: vec!["inspect of netbox-worker: running, exit code 0, restarts 0".into()],
    });
}

/// A run of one cell with one step that ends so.
pub fn of_outcome(outcome: Outcome) -> Vec<Event> {
    let mut plan = grid(1);
    plan.coverage.clear();
    let cell = plan.cells[0].clone();
    let mut script = Script::new(&cell, 0, START);
    script.events.push(of_run(
        START,
        EventKind::RunSubmitted {
            plan,
            origin: Map::new(),
        },
    ));
    script.offer("runner-1");
    script.tell(EventKind::AttemptStarted { agent: "a1".into() });
    let began = script.phase_start("p");
    script.finish("p/0", "step", "http", began, &[], |r| r.outcome = outcome);
    script.phase_end("p", outcome, None, began);
    script.end(outcome, None);
    let at = script.at;
    script
        .events
        .push(of_run(at, EventKind::RunFinished { outcome }));
    script.events
}

/// What comes after a cancel: every cell that isn't over is cancelled, and the run with them.
pub fn cancelled(rest: &[Event]) -> Vec<Event> {
    let at = rest[0].at.0;
    let mut events = vec![of_run(
        at,
        EventKind::CancelRequested {
            reason: "Ctrl-C".into(),
            grace_ms: None,
            force: false,
        },
    )];
    for event in rest {
        if let EventKind::CellFinished { cell, attempts, .. } = &event.kind {
            let (cell, attempts) = (cell.clone(), *attempts);
            let reason = Some("cancelled: Ctrl-C".to_owned());
            events.push(of_run(
                at,
                EventKind::CellFinished {
                    cell,
                    outcome: Outcome::Cancelled,
                    reason,
                    attempts,
                },
            ));
        }
    }
    events.push(of_run(
        at,
        EventKind::RunFinished {
            outcome: Outcome::Cancelled,
        },
    ));
    events
}
