//! Made-up journals of whole matrices whose failures have a known cause.
#![allow(dead_code, clippy::unwrap_used)]

use indexmap::IndexMap;
use phalanx_report::view::RunView;
use phalanx_shared::event::*;
use phalanx_shared::id::{CellId, RunId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Plan, PlannedCell, Resources};
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use serde_json::{Map, Value, json};

/// Random numbers that are the same for the same seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Axis values of a cell.
pub type Values = IndexMap<String, Value>;

/// Returns the product of axes.
pub fn product(axes: &[(&str, Vec<Value>)]) -> Vec<Values> {
    let mut cells = vec![Values::new()];
    for (axis, values) in axes {
        let with = |cell: &Values, value: &Value| {
            let mut cell = cell.clone();
            cell.insert((*axis).to_owned(), value.clone());
            cell
        };
        let longer = cells
            .iter()
            .flat_map(|cell| values.iter().map(move |value| with(cell, value)));
        cells = longer.collect();
    }
    cells
}

/// What a step of a cell does.
#[derive(Clone)]
pub struct Did {
    pub path: &'static str,
    pub name: &'static str,
    pub result: Ended,
    pub elapsed_us: u64,
    pub stdout: &'static str,
    /// Captured values.
    pub captured: Vec<(&'static str, String)>,
}

/// How a step ends.
#[derive(Clone)]
pub enum Ended {
    Passed,
    Flaky,
    /// Skipped on purpose.
    Skipped(String),
    /// Never reached.
    NotRun(String),
    /// A check `text == …` failed with this value.
    Check(&'static str, String),
    /// This check failed, with the value of its first part.
    CheckOf {
        expression: String,
        part: String,
        value: String,
    },
    /// Failed for this reason.
    Failed(String),
    Errored(String),
}

pub fn did(path: &'static str, result: Ended) -> Did {
    Did {
        path,
        name: path,
        result,
        elapsed_us: 100_000,
        stdout: "",
        captured: Vec::new(),
    }
}

/// A cell's attempt.
pub struct Played {
    pub agent: String,
    pub began_us: i64,
    pub services: Vec<(&'static str, bool, i64)>,
    pub steps: Vec<Did>,
    /// Images by service.
    pub images: std::collections::HashMap<&'static str, String>,
    /// How it ends without a step that says so.
    pub lost: Option<String>,
}

impl Played {
    pub fn of(steps: Vec<Did>) -> Played {
        Played {
            agent: "runner".into(),
            began_us: 0,
            services: vec![("db", true, 900_000)],
            steps,
            images: Default::default(),
            lost: None,
        }
    }
}

/// Returns the view of a run in which each cell plays what `play` says.
pub fn view(cells: &[Values], play: impl FnMut(usize, &Values) -> Played) -> RunView {
    let events = events(cells, play);
    let mut state = RunState::new(RunId::from("run"));
    events.iter().for_each(|event| state.apply(event));
    let end = events.iter().map(|event| event.at).max().unwrap();
    RunView::of(&state, end, None)
}

/// Returns the journal of such a run.
pub fn events(cells: &[Values], mut play: impl FnMut(usize, &Values) -> Played) -> Vec<Event> {
    let planned: Vec<PlannedCell> = cells.iter().enumerate().map(planned).collect();
    let plan = Plan {
        digest: "0".repeat(64),
        spec: "planted".into(),
        inputs: Map::new(),
        axes: cells
            .first()
            .into_iter()
            .flat_map(IndexMap::keys)
            .cloned()
            .collect(),
        coverage: Vec::new(),
        cells: planned.clone(),
        max_parallel: None,
        queue_timeout_ms: None,
        max_skips: None,
        fail_fast: false,
        workspace: None,
        files: Default::default(),
    };
    let mut writer = Writer {
        events: Vec::new(),
        seq: 0,
        cell: CellId(String::new()),
        attempt: 1,
    };
    writer.run(
        0,
        EventKind::RunSubmitted {
            plan,
            origin: Map::new(),
        },
    );
    let mut worst = Outcome::Passed;
    for (index, (cell, values)) in planned.iter().zip(cells).enumerate() {
        worst = worst.max(writer.cell(cell, play(index, values)));
    }
    let end = writer.events.iter().map(|event| event.at.0).max().unwrap();
    writer.run(end + 1, EventKind::RunFinished { outcome: worst });
    writer.events
}

fn planned((index, values): (usize, &Values)) -> PlannedCell {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    PlannedCell {
        id: CellId(format!("{index:016x}")),
        name: values.values().map(text).collect::<Vec<_>>().join(" / "),
        matrix: values.clone(),
        runs_on: Vec::new(),
        experimental: false,
        resources: Resources {
            millicpus: 1,
            memory_bytes: 1,
            subnets: 0,
        },
        timeout_ms: 60_000,
        attempts: 1,
        retries: 0,
    }
}

struct Writer {
    events: Vec<Event>,
    seq: u64,
    cell: CellId,
    attempt: u32,
}

impl Writer {
    fn run(&mut self, at: i64, kind: EventKind) {
        self.events.push(Event {
            run: "run".into(),
            attempt: None,
            seq: 0,
            at: Timestamp(at),
            mono_us: 0,
            kind,
        });
    }

    fn agent(&mut self, at: i64, kind: EventKind) {
        self.seq += 1;
        self.events.push(Event {
            run: "run".into(),
            attempt: Some(AttemptRef {
                cell: self.cell.clone(),
                attempt: self.attempt,
            }),
            seq: self.seq,
            at: Timestamp(at),
            mono_us: 0,
            kind,
        });
    }

    fn cell(&mut self, cell: &PlannedCell, played: Played) -> Outcome {
        let mut at = played.began_us + 10;
        let token = Token {
            run: "run".into(),
            cell: cell.id.clone(),
            attempt: 1,
            epoch: 1,
        };
        (self.cell, self.seq, self.attempt) = (cell.id.clone(), 0, 1);
        let agent = played.agent.clone();
        self.run(
            at,
            EventKind::CellOffered {
                token: token.clone(),
                agent: agent.as_str().into(),
                agent_name: agent.clone(),
                placement: Default::default(),
            },
        );
        self.run(
            at,
            EventKind::CellAccepted {
                token: token.clone(),
            },
        );
        self.agent(
            at,
            EventKind::AttemptStarted {
                agent: agent.as_str().into(),
            },
        );
        for (service, ready, us) in &played.services {
            let state = if *ready {
                ServiceState::Ready
            } else {
                ServiceState::Started
            };
            let changed = EventKind::ServiceChanged {
                service: (*service).into(),
                state,
                began: Timestamp(at),
                detail: None,
                image: played.images.get(*service).cloned(),
                queued_us: 0,
                reference: None,
            };
            self.agent(at + us, changed);
        }
        at += played
            .services
            .iter()
            .map(|(.., us)| *us)
            .max()
            .unwrap_or(0);
        let outcome = self.steps(&mut at, &played.steps);
        if let Some(reason) = played.lost {
            self.run(
                at,
                EventKind::AttemptLost {
                    token,
                    reason: reason.clone(),
                },
            );
            self.finish(at, cell, Outcome::Errored, Some(reason));
            return Outcome::Errored;
        }
        self.agent(
            at,
            EventKind::AttemptFinished {
                outcome,
                reason: None,
                timed_out: false,
                culprit: None,
            },
        );
        self.finish(at, cell, outcome, None);
        outcome
    }

    fn finish(&mut self, at: i64, cell: &PlannedCell, outcome: Outcome, reason: Option<String>) {
        self.run(
            at,
            EventKind::CellFinished {
                cell: cell.id.clone(),
                outcome,
                reason,
                attempts: 1,
            },
        );
    }

    fn steps(&mut self, at: &mut i64, steps: &[Did]) -> Outcome {
        let began = Timestamp(*at);
        self.agent(
            *at,
            EventKind::PhaseStarted {
                path: "test".into(),
                name: "test".into(),
            },
        );
        let mut worst = Outcome::Passed;
        for step in steps {
            let result = result(step, Timestamp(*at));
            worst = match result.outcome {
                Outcome::Skipped => worst,
                outcome => worst.max(outcome),
            };
            *at += i64::try_from(step.elapsed_us).unwrap() + 1;
            self.agent(*at, EventKind::StepFinished(Box::new(result)));
        }
        self.agent(
            *at,
            EventKind::PhaseFinished {
                path: "test".into(),
                name: "test".into(),
                outcome: worst,
                reason: None,
                began,
                timed_out: false,
            },
        );
        worst
    }
}

fn result(step: &Did, began: Timestamp) -> StepResult {
    let mut result = StepResult {
        path: format!("test/{}", step.path),
        name: step.name.into(),
        id: None,
        action: "http".into(),
        outcome: Outcome::Passed,
        reason: None,
        unreached: false,
        timed_out: false,
        culprit: None,
        tries: 1,
        polls: 0,
        began,
        elapsed_us: step.elapsed_us,
        verifies: Vec::new(),
        waits: Vec::new(),
        checks: Vec::new(),
        output: (!step.stdout.is_empty()).then(|| Output {
            stdout: step.stdout.into(),
            ..Output::default()
        }),
        captured: step
            .captured
            .iter()
            .map(|(name, value)| Captured {
                name: (*name).into(),
                value: value.clone(),
                left_out: 0,
            })
            .collect(),
        failure: None,
        restored: None,
    };
    match &step.result {
        Ended::Passed => {}
        Ended::Flaky => (result.outcome, result.tries) = (Outcome::Flaky, 2),
        Ended::Skipped(reason) => skipped(&mut result, reason, false),
        Ended::NotRun(reason) => skipped(&mut result, reason, true),
        Ended::Check(text, value) => check(&mut result, &format!("{text} == 'fine'"), text, value),
        Ended::CheckOf {
            expression,
            part,
            value,
        } => check(&mut result, expression, part, value),
        Ended::Failed(reason) => {
            (result.outcome, result.reason) = (Outcome::Failed, Some(reason.clone()));
        }
        Ended::Errored(reason) => {
            (result.outcome, result.reason) = (Outcome::Errored, Some(reason.clone()));
        }
    }
    result
}

fn check(result: &mut StepResult, expression: &str, text: &str, value: &str) {
    let check = CheckResult {
        expression: expression.to_owned(),
        passed: false,
        parts: vec![Part {
            text: text.to_owned(),
            value: value.to_owned(),
        }],
        error: None,
    };
    result.outcome = Outcome::Failed;
    result.reason = Some(check.failure());
    result.checks = vec![check];
}

fn skipped(result: &mut StepResult, reason: &str, unreached: bool) {
    (result.outcome, result.tries) = (Outcome::Skipped, 0);
    (result.reason, result.elapsed_us) = (Some(reason.into()), 0);
    result.unreached = unreached;
}

/// Versions `v4.0`, `v4.1` …
pub fn versions(count: usize) -> Vec<Value> {
    (0..count)
        .map(|minor| json!(format!("v4.{minor}")))
        .collect()
}

/// Names `a`, `b` …
pub fn names(count: usize) -> Vec<Value> {
    let letters = "abcdefghijklmnopqrstuvwxyz".chars();
    letters
        .take(count)
        .map(|letter| json!(letter.to_string()))
        .collect()
}
