//! Runs with planted outcomes and times, for tests.
#![allow(clippy::unwrap_used)]

use super::{History, Short};
use crate::view::RunView;
use phalanx_shared::event::{AttemptRef, Event, EventKind, StepResult};
use phalanx_shared::id::Token;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use serde_json::json;

/// A step to plant: name, outcome, seconds.
pub type Step = (&'static str, Outcome, f64);

/// A cell to plant.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Axis values; the id and the name are made from them.
    pub matrix: Vec<(&'static str, String)>,
    /// Seconds from the submission to its start.
    pub began: f64,
    /// Steps, one after the other. A step of the outcome `Cancelled` is left out: the attempt is still in it.
    pub steps: Vec<Step>,
    /// Outcome; `None` if it still runs, or waits if it has no steps.
    pub outcome: Option<Outcome>,
    /// Reason of the outcome.
    pub reason: Option<String>,
    /// Seconds of clean-up.
    pub clean_up: f64,
}

impl Cell {
    /// A cell with one step that takes the whole time.
    pub fn of(matrix: &[(&'static str, &str)], outcome: Outcome, seconds: f64) -> Cell {
        Cell {
            matrix: matrix
                .iter()
                .map(|(axis, value)| (*axis, (*value).to_owned()))
                .collect(),
            began: 0.0,
            steps: vec![("check", outcome, seconds)],
            outcome: Some(outcome),
            reason: (!outcome.is_ok()).then(|| format!("check {outcome}")),
            clean_up: 0.0,
        }
    }

    fn name(&self) -> String {
        let values: Vec<&str> = self
            .matrix
            .iter()
            .map(|(_, value)| value.as_str())
            .collect();
        values.join(" / ")
    }
}

/// A run to plant.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    /// Seconds since the epoch.
    pub submitted: f64,
    pub cells: Vec<Cell>,
    /// Changes to the plan's JSON.
    pub plan: serde_json::Value,
    pub finished: bool,
}

impl Run {
    /// A finished run; the number gives id and time, one run a day.
    pub fn of(number: usize, cells: Vec<Cell>) -> Run {
        Run {
            id: format!("run-{number:03}"),
            submitted: number as f64 * 86_400.0,
            cells,
            plan: json!({}),
            finished: true,
        }
    }

    pub fn at(&self, seconds: f64) -> Timestamp {
        Timestamp(((self.submitted + seconds) * 1e6) as i64)
    }

    /// Folds the run.
    pub fn state(&self) -> RunState {
        let mut state = RunState::new(self.id.as_str().into());
        let cells: Vec<_> = self.cells.iter().map(|cell| {
            let matrix: serde_json::Map<_, _> = cell.matrix.iter()
                .map(|(axis, value)| ((*axis).to_owned(), json!(value))).collect();
            json!({
                "id": cell.name(), "name": cell.name(), "matrix": matrix, "runs_on": [], "experimental": false,
                "timeout_ms": 1, "attempts": 1, "retries": 0,
                "resources": { "millicpus": 0, "memory_bytes": 0, "subnets": 0 },
            })
        }).collect();
        let mut plan = json!({
            "digest": "d1", "spec": "shop", "inputs": {}, "axes": ["db", "image"], "coverage": [["pay", "Payment"]],
            "max_parallel": null, "fail_fast": false, "cells": cells,
        });
        for (key, value) in self.plan.as_object().unwrap() {
            plan[key] = value.clone();
        }
        let submitted = EventKind::RunSubmitted {
            plan: serde_json::from_value(plan).unwrap(),
            origin: serde_json::Map::new(),
        };
        let mut events = vec![(0.0, String::new(), submitted)];
        let mut end: f64 = 0.0;
        for cell in &self.cells {
            end = end.max(self.of_cell(cell, &mut events));
        }
        events.sort_by(|a, b| a.0.total_cmp(&b.0));
        if self.finished {
            let worst = self.cells.iter().filter_map(|cell| cell.outcome).max();
            let outcome = worst.unwrap_or(Outcome::Skipped);
            events.push((end, String::new(), EventKind::RunFinished { outcome }));
        }
        for (seq, (at, cell, kind)) in events.into_iter().enumerate() {
            let of_agent = kind.speaker() == phalanx_shared::event::Speaker::Agent;
            state.apply(&Event {
                run: self.id.as_str().into(),
                attempt: of_agent.then(|| AttemptRef {
                    cell: cell.as_str().into(),
                    attempt: 1,
                }),
                seq: u64::try_from(seq).unwrap(),
                at: self.at(at),
                mono_us: 0,
                kind,
            });
        }
        state
    }

    fn of_cell(&self, cell: &Cell, events: &mut Vec<(f64, String, EventKind)>) -> f64 {
        let name = cell.name();
        let mut push = |at: f64, kind| events.push((at, name.clone(), kind));
        if cell.steps.is_empty() && cell.outcome.is_none() {
            return 0.0;
        }
        let token = Token {
            run: self.id.as_str().into(),
            cell: name.as_str().into(),
            attempt: 1,
            epoch: 1,
        };
        let mut at = cell.began;
        push(
            at,
            EventKind::CellOffered {
                token,
                agent: "a".into(),
                agent_name: "runner".to_owned(),
                placement: Default::default(),
            },
        );
        push(at, EventKind::AttemptStarted { agent: "a".into() });
        push(
            at,
            EventKind::PhaseStarted {
                path: "test".to_owned(),
                name: "test".to_owned(),
            },
        );
        for (index, (step, outcome, seconds)) in cell.steps.iter().enumerate() {
            if *outcome == Outcome::Cancelled {
                continue;
            }
            let began = self.at(at);
            at += seconds;
            push(
                at,
                EventKind::StepFinished(Box::new(StepResult {
                    path: format!("test/{index}"),
                    name: (*step).to_owned(),
                    id: None,
                    action: "exec".to_owned(),
                    outcome: *outcome,
                    reason: (!outcome.is_ok()).then(|| format!("{step} {outcome}")),
                    unreached: false,
                    timed_out: false,
                    culprit: None,
                    tries: 1,
                    polls: 0,
                    began,
                    elapsed_us: (seconds * 1e6) as u64,
                    waits: Vec::new(),
                    verifies: vec!["pay".to_owned()],
                    checks: Vec::new(),
                    output: None,
                    captured: Vec::new(),
                    failure: None,
                    restored: None,
                })),
            );
        }
        let Some(outcome) = cell.outcome else {
            return at;
        };
        push(
            at,
            EventKind::AttemptFinished {
                outcome,
                reason: cell.reason.clone(),
                timed_out: false,
                culprit: None,
            },
        );
        let finished = EventKind::CellFinished {
            cell: name.as_str().into(),
            outcome,
            reason: cell.reason.clone(),
            attempts: 1,
        };
        push(at, finished);
        let began = self.at(at);
        let down = EventKind::TornDown {
            removed: 0,
            left: Vec::new(),
            kept: Vec::new(),
            began,
        };
        push(at + cell.clean_up, down);
        at
    }

    /// Returns the view of the run, long after it.
    pub fn view(&self) -> RunView {
        RunView::of(&self.state(), self.at(1e6), None)
    }
}

/// Returns the history of some runs.
pub fn history(runs: &[Run]) -> History {
    let mut history = History::default();
    for run in runs {
        history.add(Short::from(&run.view()));
    }
    history
}

/// A small random number generator: the same numbers for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a number with the given mean and about normal noise.
    pub fn around(&mut self, mean: f64, deviation: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.share()).sum();
        mean + (sum - 6.0) * deviation
    }
}
