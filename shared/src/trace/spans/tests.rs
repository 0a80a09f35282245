#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::super::TraceId;
use super::*;
use crate::event::{AttemptRef, CheckResult, ServiceState, StepResult};
use crate::id::{AgentId, Token};
use crate::plan::{Plan, Resources};
use crate::trace::Value;
use indexmap::IndexMap;
use serde_json::{Map, json};

const RUN: &str = "01a20310-164b-7535-9778-e12d19df3ce8";

/// Writes a journal whose events are one millisecond apart.
struct Journal {
    now: i64,
    seq: u64,
    attempt: u32,
    spans: Spans,
    made: Vec<Span>,
}

impl Journal {
    fn new(within: Option<TraceContext>) -> Journal {
        Journal {
            now: 0,
            seq: 0,
            attempt: 0,
            spans: Spans::new(RUN.into(), within),
            made: Vec::new(),
        }
    }

    fn event(&mut self, attempt: Option<AttemptRef>, kind: EventKind) -> Event {
        self.now += 1_000;
        Event {
            run: RUN.into(),
            seq: attempt.as_ref().map_or(0, |_| self.seq),
            attempt,
            at: Timestamp(self.now),
            mono_us: 0,
            kind,
        }
    }

    fn run(&mut self, kind: EventKind) {
        let event = self.event(None, kind);
        self.made.extend(self.spans.apply(&event));
    }

    fn agent(&mut self, kind: EventKind) -> Event {
        self.seq += 1;
        let attempt = AttemptRef {
            cell: "cell".into(),
            attempt: self.attempt,
        };
        let event = self.event(Some(attempt), kind);
        self.made.extend(self.spans.apply(&event));
        event
    }

    fn token(&self) -> Token {
        Token {
            run: RUN.into(),
            cell: "cell".into(),
            attempt: self.attempt,
            epoch: 1,
        }
    }

    fn submitted(&mut self) {
        let cell = PlannedCell {
            id: "cell".into(),
            name: "on mysql".into(),
            matrix: IndexMap::from([
                ("database".to_owned(), json!("mysql")),
                ("orders".to_owned(), json!(5)),
            ]),
            runs_on: vec![],
            experimental: false,
            resources: Resources::default(),
            timeout_ms: 1,
            attempts: 1,
            retries: 0,
        };
        self.run(EventKind::RunSubmitted {
            plan: Plan {
                digest: String::new(),
                spec: "shop".into(),
                inputs: Map::new(),
                axes: vec![],
                coverage: vec![],
                cells: vec![cell],
                max_parallel: None,
                queue_timeout_ms: None,
                fail_fast: false,
                workspace: None,
                files: Default::default(),
            },
            origin: Map::new(),
        });
    }

    fn offered(&mut self) {
        self.attempt += 1;
        self.seq = 0;
        let token = self.token();
        self.run(EventKind::CellOffered {
            token,
            agent: "agent".into(),
            agent_name: "runner".into(),
        });
    }

    fn started(&mut self) {
        self.offered();
        let agent = AgentId::from("agent");
        self.agent(EventKind::AttemptStarted { agent });
        self.agent(EventKind::PhaseStarted {
            path: "sync".into(),
            name: "sync".into(),
        });
    }

    fn step(&mut self, path: &str, action: &str) -> Timestamp {
        let event = self.agent(EventKind::StepStarted {
            path: path.into(),
            name: path.into(),
            action: action.into(),
        });
        event.at
    }

    fn step_ended(&mut self, path: &str, action: &str, outcome: Outcome, began: Timestamp) {
        let checks = vec![CheckResult {
            expression: "status == 200".into(),
            passed: outcome.is_ok(),
            parts: vec![],
            error: None,
        }];
        self.agent(EventKind::StepFinished(Box::new(StepResult {
            path: path.into(),
            name: path.into(),
            id: Some("order".into()),
            action: action.into(),
            outcome,
            reason: (outcome != Outcome::Passed).then(|| "because".to_owned()),
            unreached: false,
            tries: 1,
            polls: 0,
            began,
            elapsed_us: 500,
            verifies: vec![],
            checks,
            output: None,
            failure: None,
        })));
    }

    fn service(&mut self, state: ServiceState) {
        let began = Timestamp(self.now);
        self.agent(EventKind::ServiceChanged {
            service: "db".into(),
            state,
            began,
            detail: Some("a detail".into()),
        });
    }

    fn ended(&mut self, outcome: Outcome) {
        self.agent(EventKind::AttemptFinished {
            outcome,
            reason: None,
        });
    }

    fn torn_down(&mut self) {
        let began = Timestamp(self.now);
        self.agent(EventKind::TornDown {
            removed: 1,
            left: vec![],
            kept: vec![],
            began,
        });
    }

    fn over(mut self, outcome: Outcome) -> Vec<Span> {
        self.run(EventKind::CellFinished {
            cell: "cell".into(),
            outcome,
            reason: None,
            attempts: self.attempt,
        });
        self.run(EventKind::RunFinished { outcome });
        self.made.extend(self.spans.finish());
        self.made
    }
}

/// Returns each span as `name (kind) in parent's name`, in the order they ended.
fn tree(spans: &[Span]) -> Vec<String> {
    let name = |id: Option<SpanId>| match id {
        None => "nothing".to_owned(),
        Some(id) => {
            let of = spans.iter().filter(|span| span.id == id);
            let names: Vec<&str> = of.map(|span| span.name.as_str()).collect();
            // Every parent exists exactly once.
            assert_eq!(names.len(), 1, "{id}: {names:?}");
            names[0].to_owned()
        }
    };
    let line = |span: &Span| {
        let kind = match span.attribute("phalanx.kind") {
            Some(Value::Text(kind)) => kind.clone(),
            other => format!("{other:?}"),
        };
        format!("{} ({kind}) in {}", span.name, name(span.parent))
    };
    spans.iter().map(line).collect()
}

fn find<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[test]
fn a_run_is_one_tree_with_outcomes_and_reasons() {
    let mut journal = Journal::new(None);
    journal.submitted();
    journal.started();
    for state in [
        ServiceState::Pulled,
        ServiceState::Created,
        ServiceState::Started,
        ServiceState::Ready,
    ] {
        journal.service(state);
    }
    let began = journal.step("sync/0", "http");
    journal.step_ended("sync/0", "http", Outcome::Passed, began);
    journal.step_ended("sync/1", "exec", Outcome::Skipped, began);
    journal.agent(EventKind::PhaseFinished {
        path: "sync".into(),
        name: "sync".into(),
        outcome: Outcome::Passed,
        reason: None,
        began,
    });
    journal.ended(Outcome::Passed);
    journal.torn_down();
    let spans = journal.over(Outcome::Passed);
    assert_eq!(
        tree(&spans),
        [
            "pull (pull) in db",
            "create (create) in db",
            "start (start) in db",
            "ready (ready) in db",
            "sync/0 (step) in sync",
            "sync/1 (step) in sync",
            "sync (phase) in attempt 1",
            "db (service) in stack",
            "attempt 1 (attempt) in on mysql",
            "clean-up (clean-up) in stack",
            "stack (stack) in attempt 1",
            "on mysql (cell) in shop",
            "shop (run) in nothing",
        ]
    );
    let trace = TraceId::of_run(&RUN.into());
    assert!(
        spans
            .iter()
            .all(|span| span.trace == trace && span.start <= span.end)
    );
    let skipped = find(&spans, "sync/1")[0];
    assert_eq!(
        skipped.attribute("phalanx.outcome"),
        Some(&"skipped".into())
    );
    assert_eq!(
        skipped.attribute("phalanx.skip.reason"),
        Some(&"because".into())
    );
    assert_eq!(skipped.status, Status::Unset);
    let step = find(&spans, "sync/0")[0];
    assert_eq!(step.end.0 - step.start.0, 500);
    for (key, value) in [
        ("phalanx.run.id", RUN),
        ("phalanx.cell.id", "cell"),
        ("phalanx.cell.name", "on mysql"),
        ("phalanx.matrix.database", "mysql"),
        ("phalanx.matrix.orders", "5"),
        ("phalanx.agent", "runner"),
        ("phalanx.step.id", "order"),
        ("phalanx.step.path", "sync/0"),
        ("phalanx.step.action", "http"),
    ] {
        assert_eq!(step.attribute(key), Some(&value.into()), "{key}");
    }
    assert_eq!(step.attribute("phalanx.attempt"), Some(&Value::Int(1)));
    assert_eq!((step.client, step.status.clone()), (true, Status::Ok));
}

#[test]
fn the_agent_derives_the_spans_that_are_made() {
    let within = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let mut journal = Journal::new(within);
    journal.submitted();
    journal.started();
    let offer = TraceContext::of_run(&RUN.into(), within);
    let agent = AttemptTrace::new(offer, &journal.token());
    journal.service(ServiceState::Started);
    journal.service(ServiceState::Stopped);
    journal.service(ServiceState::Started);
    journal.service(ServiceState::Ready);
    let began = journal.step("sync/0", "http");
    journal.step_ended("sync/0", "http", Outcome::Failed, began);
    let began = journal.step("sync/0", "http");
    journal.step_ended("sync/0", "http", Outcome::Passed, began);
    journal.ended(Outcome::Passed);
    journal.torn_down();
    let spans = journal.over(Outcome::Passed);
    let ids = |name: &str| -> Vec<SpanId> { find(&spans, name).iter().map(|s| s.id).collect() };
    assert_eq!(
        ids("sync/0"),
        [agent.step("sync/0", 1), agent.step("sync/0", 2)]
    );
    assert_eq!(ids("db"), [agent.service("db")]);
    assert_eq!(
        ids("start"),
        [agent.stage("db", "start", 1), agent.stage("db", "start", 2)]
    );
    // The first start was stopped before it was ready.
    let ready = [agent.stage("db", "ready", 1), agent.stage("db", "ready", 2)];
    assert_eq!(ids("ready"), ready);
    assert!(matches!(find(&spans, "ready")[0].status, Status::Error(_)));
    let run = find(&spans, "shop")[0];
    assert_eq!(run.parent, within.map(|within| within.span));
    assert_eq!(run.trace, within.unwrap().trace);
    assert!(
        agent
            .parent(ids("db")[0])
            .starts_with("00-0af7651916cd43dd8448eb211c80319c-")
    );
    let mut all: Vec<SpanId> = spans.iter().map(|span| span.id).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), spans.len());
}

#[test]
fn a_lost_attempt_ends_everything_in_it_and_the_next_one_is_told_apart() {
    let mut journal = Journal::new(None);
    journal.submitted();
    journal.offered();
    let token = journal.token();
    journal.run(EventKind::CellReturned {
        token,
        reason: "draining".into(),
    });
    journal.started();
    journal.service(ServiceState::Started);
    journal.step("sync/0", "run");
    let token = journal.token();
    let reason = "its agent is gone".to_owned();
    journal.run(EventKind::AttemptLost { token, reason });
    // Later events of the lost attempt are stale.
    journal.ended(Outcome::Passed);
    journal.started();
    journal.ended(Outcome::Passed);
    journal.torn_down();
    let spans = journal.over(Outcome::Passed);
    assert_eq!(
        tree(&spans),
        [
            "start (start) in db",
            "sync/0 (step) in sync",
            "sync (phase) in attempt 2",
            "ready (ready) in db",
            "db (service) in stack",
            "attempt 2 (attempt) in on mysql",
            "stack (stack) in attempt 2",
            "sync (phase) in attempt 3",
            "attempt 3 (attempt) in on mysql",
            "clean-up (clean-up) in attempt 3",
            "on mysql (cell) in shop",
            "shop (run) in nothing",
        ]
    );
    let lost = find(&spans, "sync/0")[0];
    assert_eq!(lost.status, Status::Error("its agent is gone".into()));
    let cell = find(&spans, "on mysql")[0];
    assert_eq!(cell.events[0].name, "offer returned");
}

#[test]
fn a_foreach_is_a_group_and_repeated_events_make_no_second_span() {
    let mut journal = Journal::new(None);
    journal.submitted();
    journal.started();
    let outer = journal.step("sync/0", "http");
    let inner = journal.step("sync/0[a/b]", "http");
    journal.step_ended("sync/0[a/b]", "http", Outcome::Failed, inner);
    journal.step_ended("sync/0", "http", Outcome::Failed, outer);
    let made = journal.made.len();
    journal.seq -= 2;
    journal.step_ended("sync/0[a/b]", "http", Outcome::Failed, inner);
    assert_eq!(journal.made.len(), made);
    journal.seq += 1;
    journal.ended(Outcome::Failed);
    journal.torn_down();
    let spans = journal.over(Outcome::Failed);
    let tree = tree(&spans);
    assert_eq!(tree[0], "sync/0[a/b] (step) in sync/0");
    assert_eq!(tree[1], "sync/0 (group) in sync");
    assert_eq!((spans[0].client, spans[1].client), (true, false));
    assert_eq!(spans[0].events[0].name, "check failed");
    assert_eq!(
        find(&spans, "shop")[0].status,
        Status::Error("failed".into())
    );
}
