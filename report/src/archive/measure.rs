//! Limits on what a journal fills: every list and map of a run's state has one, so that a file from anywhere can't fill
//! the memory of its reader or keep it busy for hours. What is written is measured too, so that it can be read.

use super::Error;
use phalanx_shared::event::{AttemptRef, Event, EventKind, StepResult};
use phalanx_shared::id::{AgentId, CellId};
use phalanx_shared::matrix::{MAX_CELLS, MAX_KEYS};
use phalanx_shared::plan::Plan;
use std::collections::{HashMap, HashSet};

/// Maximum of one collection.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// What it holds, and where, for the message.
    what: &'static str,
    most: usize,
}

const fn limit(most: usize, what: &'static str) -> Limit {
    Limit { what, most }
}

const CELLS: Limit = limit(MAX_CELLS, "cells");
const AXES: Limit = limit(MAX_KEYS, "axes");
const COVERAGE: Limit = limit(100_000, "rows of coverage");
const FILES: Limit = limit(10_000, "files that expressions read");
const LABELS: Limit = limit(1_000, "labels");
const AGENTS: Limit = limit(10_000, "agents");
const OFFERS: Limit = limit(10_000, "attempts at one cell");
const ALL_OFFERS: Limit = limit(2_000_000, "attempts");
const SERVICES: Limit = limit(1_000, "services in one attempt");
const STATES: Limit = limit(100_000, "states of services in one attempt");
const ALL_STATES: Limit = limit(20_000_000, "states of services");
const PHASES: Limit = limit(10_000, "beginnings of phases in one attempt");
const STEPS: Limit = limit(500_000, "beginnings and ends of steps in one attempt");
const ALL_STEPS: Limit = limit(20_000_000, "beginnings and ends of steps");
const CHECKS: Limit = limit(10_000, "checks of one step");
const ALL_CHECKS: Limit = limit(20_000_000, "checks");
const PARTS: Limit = limit(100, "parts of one check");
const WAITS: Limit = limit(1_000, "waits of one step or offer");
const VERIFIES: Limit = limit(10_000, "rows of coverage of one step");
const CAPTURED: Limit = limit(1_000, "captured values of a step");
const LINES: Limit = limit(100_000, "lines about one failure");
const LEFT: Limit = limit(100_000, "objects that a clean-up left");
const ARTIFACTS: Limit = limit(10_000, "artifacts of one attempt");
const ALL_ARTIFACTS: Limit = limit(2_000_000, "artifacts");
const DEPTH: Limit = limit(256, "levels of one step");

impl Limit {
    fn check(self, found: usize) -> Result<(), Error> {
        let Limit { what, most } = self;
        match found <= most {
            true => Ok(()),
            false => Err(Error::TooLarge(format!("more than {most} {what}"))),
        }
    }

    /// Counts some more.
    fn add(self, count: &mut usize, more: usize) -> Result<(), Error> {
        *count = count.saturating_add(more);
        self.check(*count)
    }
}

/// What the events so far have filled.
#[derive(Debug, Default)]
pub(super) struct Measure {
    agents: HashSet<AgentId>,
    /// Offers of each cell.
    offers: HashMap<CellId, usize>,
    all_offers: usize,
    attempts: HashMap<AttemptRef, Attempt>,
    all_states: usize,
    all_steps: usize,
    all_checks: usize,
    all_artifacts: usize,
}

/// What the events of one attempt have filled.
#[derive(Debug, Default)]
struct Attempt {
    services: HashSet<String>,
    states: usize,
    phases: usize,
    steps: usize,
    artifacts: usize,
}

impl Measure {
    /// Counts an event.
    ///
    /// # Errors
    /// Returns an error if a limit is exceeded; it says which one.
    pub(super) fn add(&mut self, event: &Event) -> Result<(), Error> {
        match &event.attempt {
            Some(attempt) => self.of_attempt(attempt, &event.kind),
            None => self.of_run(&event.kind),
        }
    }

    /// Returns whether the events are about an attempt.
    pub(super) fn knows(&self, attempt: &AttemptRef) -> bool {
        self.attempts.contains_key(attempt)
    }

    fn of_run(&mut self, kind: &EventKind) -> Result<(), Error> {
        match kind {
            EventKind::RunSubmitted { plan, .. } => of_plan(plan),
            EventKind::CellOffered {
                token,
                agent,
                placement,
                ..
            } => {
                WAITS.check(placement.waits.len())?;
                if let Some(capacity) = &placement.capacity {
                    LABELS.check(capacity.labels.len())?;
                    self.agents.insert(agent.clone());
                    AGENTS.check(self.agents.len())?;
                }
                let of_cell = self.offers.entry(token.cell.clone()).or_default();
                OFFERS.add(of_cell, 1)?;
                ALL_OFFERS.add(&mut self.all_offers, 1)
            }
            // They fill nothing.
            _ => Ok(()),
        }
    }

    fn of_attempt(&mut self, attempt: &AttemptRef, kind: &EventKind) -> Result<(), Error> {
        if !self.attempts.contains_key(attempt) {
            ALL_OFFERS.check(self.attempts.len() + 1)?;
            self.attempts.insert(attempt.clone(), Attempt::default());
        }
        let Some(held) = self.attempts.get_mut(attempt) else {
            return Ok(());
        };
        match kind {
            EventKind::ArtifactCollected(_) => {
                ARTIFACTS.add(&mut held.artifacts, 1)?;
                ALL_ARTIFACTS.add(&mut self.all_artifacts, 1)
            }
            EventKind::ServiceChanged { service, .. }
            | EventKind::ServiceProgress { service, .. } => {
                if !held.services.contains(service) {
                    held.services.insert(service.clone());
                }
                SERVICES.check(held.services.len())?;
                STATES.add(&mut held.states, 1)?;
                ALL_STATES.add(&mut self.all_states, 1)
            }
            EventKind::PhaseStarted { path, .. } | EventKind::PhaseFinished { path, .. } => {
                PHASES.add(&mut held.phases, 1)?;
                ALL_STEPS.add(&mut self.all_steps, 1)?;
                depth(path)
            }
            EventKind::StepStarted { path, .. } => {
                STEPS.add(&mut held.steps, 1)?;
                ALL_STEPS.add(&mut self.all_steps, 1)?;
                depth(path)
            }
            EventKind::StepFinished(result) => {
                STEPS.add(&mut held.steps, 1)?;
                ALL_STEPS.add(&mut self.all_steps, 1)?;
                ALL_CHECKS.add(&mut self.all_checks, result.checks.len())?;
                of_result(result)
            }
            EventKind::TornDown { left, kept, .. } => LEFT.check(left.len().max(kept.len())),
            // They fill nothing, or what the fold itself limits.
            _ => Ok(()),
        }
    }
}

fn of_plan(plan: &Plan) -> Result<(), Error> {
    CELLS.check(plan.cells.len())?;
    AXES.check(plan.axes.len())?;
    COVERAGE.check(plan.coverage.len())?;
    FILES.check(plan.files.len())?;
    plan.cells.iter().try_for_each(|cell| {
        AXES.check(cell.matrix.len())?;
        LABELS.check(cell.runs_on.len())
    })
}

fn of_result(result: &StepResult) -> Result<(), Error> {
    depth(&result.path)?;
    CHECKS.check(result.checks.len())?;
    WAITS.check(result.waits.len())?;
    VERIFIES.check(result.verifies.len())?;
    CAPTURED.check(result.captured.len())?;
    for check in &result.checks {
        PARTS.check(check.parts.len())?;
    }
    let Some(failure) = &result.failure else {
        return Ok(());
    };
    let lines = failure.logs.iter().map(|tail| tail.lines.len() + 1);
    LINES.check(lines.sum::<usize>() + failure.notes.len())
}

fn depth(path: &str) -> Result<(), Error> {
    DEPTH.check(path.bytes().filter(|byte| *byte == b'/').count())
}

#[cfg(test)]
mod tests;
