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
        self.submitted_from(Map::new());
    }

    fn submitted_from(&mut self, origin: Map<String, serde_json::Value>) {
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
                max_skips: None,
                fail_fast: false,
                workspace: None,
                files: Default::default(),
            },
            origin,
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
            placement: Default::default(),
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
        self.step_result(path, action, outcome, began, |_| {});
    }

    fn step_result(
        &mut self,
        path: &str,
        action: &str,
        outcome: Outcome,
        began: Timestamp,
        adjust: impl FnOnce(&mut StepResult),
    ) {
        let checks = vec![CheckResult {
            expression: "status == 200".into(),
            passed: outcome.is_ok(),
            parts: vec![],
            error: None,
        }];
        let mut result = StepResult {
            path: path.into(),
            name: path.into(),
            id: Some("order".into()),
            action: action.into(),
            outcome,
            reason: (outcome != Outcome::Passed).then(|| "because".to_owned()),
            unreached: false,
            timed_out: false,
            culprit: None,
            tries: 1,
            polls: 0,
            began,
            elapsed_us: 500,
            waits: vec![],
            verifies: vec![],
            checks,
            output: None,
            captured: Vec::new(),
            failure: None,
            restored: None,
        };
        adjust(&mut result);
        self.agent(EventKind::StepFinished(Box::new(result)));
    }

    fn service(&mut self, state: ServiceState) {
        let began = Timestamp(self.now);
        self.agent(EventKind::ServiceChanged {
            service: "db".into(),
            state,
            began,
            detail: Some("a detail".into()),
            image: None,
            queued_us: 0,
            reference: None,
        });
    }

    fn ended(&mut self, outcome: Outcome) {
        self.agent(EventKind::AttemptFinished {
            outcome,
            reason: None,
            timed_out: false,
            culprit: None,
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
        timed_out: false,
    });
    journal.ended(Outcome::Passed);
    journal.torn_down();
    let spans = journal.over(Outcome::Passed);
    assert_eq!(
        tree(&spans),
        [
            "queue (queue) in on mysql",
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
            "on mysql (cell) in RUN shop",
            "RUN shop (run) in nothing",
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
    assert_eq!(
        (step.kind, step.status.clone()),
        (SpanKind::Client, Status::Unset)
    );
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
    let run = find(&spans, "RUN shop")[0];
    assert_eq!(run.kind, SpanKind::Server);
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
            "queue (queue) in on mysql",
            "queue (queue) in on mysql",
            "start (start) in db",
            "sync/0 (step) in sync",
            "sync (phase) in attempt 2",
            "ready (ready) in db",
            "db (service) in stack",
            "attempt 2 (attempt) in on mysql",
            "stack (stack) in attempt 2",
            "queue (queue) in on mysql",
            "sync (phase) in attempt 3",
            "attempt 3 (attempt) in on mysql",
            "clean-up (clean-up) in attempt 3",
            "on mysql (cell) in RUN shop",
            "RUN shop (run) in nothing",
        ]
    );
    let lost = find(&spans, "sync/0")[0];
    assert_eq!(lost.status, Status::Error("its agent is gone".into()));
    assert_eq!(lost.attribute("error.type"), Some(&"agent_lost".into()));
    let cell = find(&spans, "on mysql")[0];
    assert_eq!(cell.events[0].name, "offer returned");
    // The waits don't overlap, and the last one begins when the attempt before was lost.
    let waits = find(&spans, "queue");
    assert!(waits[0].end <= waits[1].start && waits[1].end <= waits[2].start);
    assert_eq!(waits[2].start, find(&spans, "attempt 2")[0].end);
    let next = find(&spans, "attempt 3")[0];
    let before = Link {
        trace: next.trace,
        span: find(&spans, "attempt 2")[0].id,
        what: "previous attempt",
    };
    assert_eq!(next.links, [before]);
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
    assert_eq!(tree[1], "sync/0[a/b] (step) in sync/0");
    assert_eq!(tree[2], "sync/0 (group) in sync");
    assert_eq!(tree[0], "queue (queue) in on mysql");
    assert_eq!(spans[1].kind, SpanKind::Client);
    assert_eq!(spans[2].kind, SpanKind::Internal);
    assert_eq!(spans[1].events[0].name, "check failed");
    assert_eq!(
        find(&spans, "RUN shop")[0].status,
        Status::Error("failed".into())
    );
}

/// Returns one step of each outcome with the words that the convention has for it.
fn conventional() -> Vec<(Outcome, bool, &'static str, Option<&'static str>)> {
    vec![
        (Outcome::Passed, false, "success", Some("pass")),
        (Outcome::Flaky, false, "success", Some("pass")),
        (Outcome::Failed, false, "failure", Some("fail")),
        (Outcome::Failed, true, "timeout", Some("fail")),
        (Outcome::Errored, false, "error", None),
        (Outcome::Cancelled, false, "cancellation", None),
        (Outcome::Skipped, false, "skip", None),
    ]
}

#[test]
fn every_outcome_has_the_conventions_word_at_every_level() {
    for (outcome, timed_out, result, status) in conventional() {
        let mut journal = Journal::new(None);
        journal.submitted();
        journal.started();
        let began = journal.step("sync/0", "http");
        journal.step_result("sync/0", "http", outcome, began, |step| {
            step.timed_out = timed_out;
        });
        journal.ended(outcome);
        journal.torn_down();
        let spans = journal.over(outcome);
        let has = |name: &str, key: &str, value: &str| {
            let span = find(&spans, name)[0];
            assert_eq!(span.attribute(key), Some(&value.into()), "{name} {key}");
        };
        let word = |value: &str| value.to_owned();
        has("sync/0", "cicd.pipeline.task.run.result", result);
        let of_all = if timed_out { "failure" } else { result };
        has("attempt 1", "cicd.pipeline.task.run.result", of_all);
        has("on mysql", "cicd.pipeline.task.run.result", of_all);
        has("RUN shop", "cicd.pipeline.result", of_all);
        has("RUN shop", "cicd.pipeline.name", "shop");
        has("RUN shop", "cicd.pipeline.run.id", RUN);
        has("on mysql", "test.suite.name", "on mysql");
        has("sync/0", "test.case.name", "sync / sync/0");
        has("attempt 1", "cicd.worker.id", "agent");
        has("attempt 1", "cicd.worker.name", "runner");
        has("queue", "cicd.pipeline.run.state", "pending");
        has("attempt 1", "cicd.pipeline.run.state", "executing");
        has("clean-up", "cicd.pipeline.run.state", "finalizing");
        let step = find(&spans, "sync/0")[0];
        let expected = status.map(|status| Value::Text(word(status)));
        assert_eq!(
            step.attribute("test.case.result.status"),
            expected.as_ref(),
            "{outcome:?}"
        );
        let error = match (outcome, timed_out) {
            (Outcome::Failed, true) => Some("timeout"),
            (Outcome::Failed, false) => Some("failed"),
            (Outcome::Errored, _) => Some("errored"),
            _ => None,
        };
        let error = error.map(|error| Value::Text(word(error)));
        assert_eq!(step.attribute("error.type"), error.as_ref());
        assert_eq!(matches!(step.status, Status::Error(_)), error.is_some());
    }
}

#[test]
fn a_phase_an_attempt_and_a_cell_that_a_time_limit_ended_say_so() {
    for outcome in [Outcome::Failed, Outcome::Errored] {
        let mut journal = Journal::new(None);
        journal.submitted();
        journal.started();
        let began = journal.step("sync/0", "http");
        journal.step_ended("sync/0", "http", outcome, began);
        journal.agent(EventKind::PhaseFinished {
            path: "sync".into(),
            name: "sync".into(),
            outcome,
            reason: None,
            timed_out: true,
            began,
        });
        journal.agent(EventKind::AttemptFinished {
            outcome,
            reason: None,
            timed_out: true,
            culprit: None,
        });
        let spans = journal.over(outcome);
        for name in ["sync", "attempt 1", "on mysql"] {
            let span = find(&spans, name)[0];
            for key in ["cicd.pipeline.task.run.result", "error.type"] {
                assert_eq!(span.attribute(key), Some(&"timeout".into()), "{name} {key}");
            }
        }
    }
}

#[test]
fn the_error_of_a_failed_check_is_the_check() {
    let mut journal = Journal::new(None);
    journal.submitted();
    journal.started();
    let began = journal.step("sync/0", "http");
    journal.step_result("sync/0", "http", Outcome::Failed, began, |step| {
        step.reason = Some(step.checks[0].failure());
    });
    let spans = journal.over(Outcome::Failed);
    let step = find(&spans, "sync/0")[0];
    assert_eq!(step.attribute("error.type"), Some(&"check".into()));
}

#[test]
fn a_split_run_ends_at_attempts_and_each_cell_is_a_linked_trace_of_its_own() {
    let mut journal = Journal::new(None);
    journal.submitted_from(Map::from_iter([(SPLIT.to_owned(), json!(true))]));
    journal.started();
    journal.service(ServiceState::Started);
    let began = journal.step("sync/0", "http");
    journal.step_ended("sync/0", "http", Outcome::Passed, began);
    journal.ended(Outcome::Passed);
    journal.torn_down();
    let spans = journal.over(Outcome::Passed);
    let run = TraceId::of_run(&RUN.into());
    let cell = TraceId::of_cell(&RUN.into(), &"cell".into());
    let names = |trace: TraceId| -> Vec<&str> {
        let of = spans.iter().filter(|span| span.trace == trace);
        of.map(|span| span.name.as_str()).collect()
    };
    assert_eq!(names(run), ["queue", "attempt 1", "on mysql", "RUN shop"]);
    let inner = names(cell);
    assert_eq!(inner.len(), 9, "{inner:?}");
    for name in ["on mysql", "attempt 1", "sync/0", "db", "stack", "clean-up"] {
        assert!(inner.contains(&name), "{name}: {inner:?}");
    }
    // Each trace is whole by itself: one root, and every parent is there.
    for trace in [run, cell] {
        let of: Vec<&Span> = spans.iter().filter(|span| span.trace == trace).collect();
        let roots = of.iter().filter(|span| span.parent.is_none()).count();
        assert_eq!(roots, 1);
        let known = |id: SpanId| of.iter().any(|span| span.id == id);
        assert!(of.iter().all(|span| span.parent.is_none_or(known)));
    }
    for name in ["on mysql", "attempt 1"] {
        for span in find(&spans, name) {
            let (other, what) = match span.trace == run {
                true => (cell, "detail"),
                false => (run, "overview"),
            };
            let link = Link {
                trace: other,
                span: span.id,
                what,
            };
            assert_eq!(span.links, [link], "{name}");
        }
    }
}

#[test]
fn a_rerun_links_to_the_run_and_the_cell_that_it_runs_again() {
    let mut journal = Journal::new(None);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    journal.submitted_from(Map::from_iter([
        (RERUN_OF.to_owned(), json!("old")),
        (RERUN_TRACE.to_owned(), json!(trace)),
    ]));
    let spans = journal.over(Outcome::Cancelled);
    let link = |name: &str| find(&spans, name)[0].links[0].clone();
    let old = TraceId::parse(trace).unwrap();
    assert_eq!(link("RUN shop").span, SpanId::of_run(&"old".into()));
    let cell = SpanId::of_cell(&"old".into(), &"cell".into());
    assert_eq!((link("on mysql").span, link("on mysql").trace), (cell, old));
    // The cell never got an agent: it waited all the time.
    let (wait, cell) = (find(&spans, "queue")[0], find(&spans, "on mysql")[0]);
    assert_eq!((wait.start, wait.end), (cell.start, cell.end));
}
