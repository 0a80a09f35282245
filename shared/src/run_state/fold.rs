//! The only fold of a run's state: each event changes the state, or does nothing.
//!
//! The fold is total and idempotent. An event changes nothing if it is late (its attempt isn't the newest), repeated or
//! of an unknown kind, and no event causes a panic. This makes replay after a crash safe, and a client may read the
//! same events twice.
//!
//! stage: folded: the only fold of a run's state: commands, reports and recovery use it

use super::{
    AttemptState, CellState, CellStatus, Opened, Restarted, RunState, ServiceView, SnapshotSeen,
    StepState, TornDown,
};
use crate::cancel::CancelOrder;
use crate::event::{
    Artifact, ArtifactLack, ArtifactProblem, AttemptRef, CASE, Event, EventKind, ServiceState,
    StepPath, StepResult,
};
use crate::id::Token;
use crate::outcome::Outcome;
use crate::time::Timestamp;
use indexmap::IndexMap;
use std::time::Duration;

/// Limits on the notes kept per attempt: their number and their bytes.
const NOTES: usize = 1_000;
/// Maximum number of changes of snapshots kept per attempt. A correct agent sends a few.
const SNAPSHOTS: usize = 64;
const NOTES_BYTES: usize = 256 << 10;
/// Replaces the notes of an attempt beyond the limits.
const MORE_NOTES: &str = "there are more notes, in the journal only";

/// Maximum number of artifacts kept per attempt: every fold keeps them in memory.
const ARTIFACTS: usize = 2_000;
/// Note for the artifacts of an attempt beyond the limit.
const MORE_ARTIFACTS: &str = "there are more artifacts, in the journal only";

impl RunState {
    /// Folds one event into the state. Stale, repeated and unknown events change nothing.
    pub fn apply(&mut self, event: &Event) {
        if event.run != self.run {
            return;
        }
        match &event.attempt {
            Some(attempt) => self.apply_to_attempt(attempt, event),
            None => self.apply_to_run(event),
        }
    }

    /// Folds one event without the output of commands and captured values, for users of the state that only decide and
    /// show nothing. They stay in the journal, to keep memory small.
    pub fn apply_without_output(&mut self, event: &Event) {
        self.apply(event);
        let (Some(of), EventKind::StepFinished(result)) = (&event.attempt, &event.kind) else {
            return;
        };
        if (result.output.is_some() || !result.captured.is_empty())
            && let Some(cell) = self.cells.get_mut(&of.cell)
            && let Some(attempt) = cell.attempts.last_mut()
            && let Some(step) = attempt.steps.get_mut(&result.path)
            && let Some(result) = &mut step.result
        {
            result.output = None;
            result.captured = Vec::new();
        }
    }

    /// Folds an agent's event. Only the newest attempt counts, only while its agent holds it, and only in sequence.
    fn apply_to_attempt(&mut self, of: &AttemptRef, event: &Event) {
        let Some(cell) = self.cells.get_mut(&of.cell) else {
            return;
        };
        let Some(attempt) = cell.attempts.last_mut() else {
            return;
        };
        let late = attempt.attempt != of.attempt || !attempt.is_held();
        if late || event.seq <= attempt.last_seq {
            return;
        }
        attempt.last_seq = event.seq;
        attempt.apply(event);
        if cell.outcome.is_none() {
            cell.status = match (attempt.finished, cell.status) {
                (Some(_), _) => CellStatus::Ended,
                (None, CellStatus::Offered | CellStatus::Accepted) => CellStatus::Running,
                (None, status) => status,
            };
        }
    }

    /// Folds an event of the coordinator.
    fn apply_to_run(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            EventKind::RunSubmitted { plan, origin } if self.plan.is_none() => {
                self.submitted = Some(at);
                self.origin = origin.clone();
                let cells = plan.cells.iter();
                self.cells = cells.map(|c| (c.id.clone(), CellState::new())).collect();
                self.plan = Some(plan.clone());
            }
            EventKind::CellOffered {
                token,
                agent,
                agent_name,
                placement,
            } => {
                if let Some(capacity) = &placement.capacity {
                    self.agents.insert(agent.clone(), capacity.clone());
                }
                let Some(cell) = self.cells.get_mut(&token.cell) else {
                    return;
                };
                let newest = cell.attempts.last().map_or(0, |a| a.attempt);
                if cell.outcome.is_none() && token.attempt > newest {
                    let mut offered = AttemptState::offered(token, agent, agent_name, at);
                    offered.waits.clone_from(&placement.waits);
                    offered.expected_ms = placement.expected_ms;
                    cell.attempts.push(offered);
                    cell.status = CellStatus::Offered;
                }
            }
            EventKind::CellAccepted { token } => {
                if let Some(cell) = self.holding(token)
                    && cell.status == CellStatus::Offered
                {
                    cell.status = CellStatus::Accepted;
                }
            }
            EventKind::CellReturned { token, reason } => {
                if let Some(cell) = self.holding(token)
                    && matches!(cell.status, CellStatus::Offered | CellStatus::Accepted)
                {
                    cell.status = CellStatus::Queued;
                    if let Some(attempt) = cell.attempts.last_mut() {
                        attempt.returned = true;
                        attempt.gone = true;
                        attempt.reason = Some(reason.clone());
                    }
                }
            }
            EventKind::AttemptLost { token, reason } => {
                if let Some(cell) = self.holding(token) {
                    cell.lose(reason, at);
                }
            }
            EventKind::CellFinished {
                cell,
                outcome,
                reason,
                ..
            } => {
                if let Some(cell) = self.cells.get_mut(cell)
                    && cell.outcome.is_none()
                {
                    cell.outcome = Some(*outcome);
                    cell.reason = reason.clone();
                    cell.finished = Some(at);
                    cell.status = CellStatus::Finished;
                }
            }
            EventKind::CancelRequested {
                reason,
                grace_ms,
                force,
            } => self.cancelled(reason, *grace_ms, *force),
            EventKind::RunFinished { outcome }
                if self.outcome.is_none() && self.run_outcome().is_some() =>
            {
                self.outcome = Some(*outcome);
                self.finished = Some(at);
            }
            _ => {}
        }
    }

    fn cancelled(&mut self, reason: &str, grace_ms: Option<u64>, force: bool) {
        let first = self.cancel.is_none() && self.order.is_none();
        if self.cancel.is_none() && !self.is_finished() {
            self.cancel = Some(reason.to_owned());
        }
        let Some(grace_ms) = grace_ms else { return };
        let order = CancelOrder {
            reason: reason.to_owned(),
            grace: Duration::from_millis(grace_ms),
            force,
        };
        if self
            .order
            .as_ref()
            .is_none_or(|known| order.is_harsher_than(known))
        {
            self.order = Some(order);
            self.escalated |= !first;
        }
    }

    /// Returns the token's cell if the token is that of its newest attempt and an agent holds it.
    fn holding(&mut self, token: &Token) -> Option<&mut CellState> {
        let cell = self.cells.get_mut(&token.cell)?;
        let newest = cell.attempts.last()?;
        let same = newest.attempt == token.attempt && newest.epoch == token.epoch;
        (same && newest.is_held()).then_some(cell)
    }
}

impl CellState {
    /// Marks the newest attempt as lost with its agent. It becomes errored if it hadn't ended; otherwise only its
    /// clean-up is lost.
    fn lose(&mut self, reason: &str, at: Timestamp) {
        let Some(attempt) = self.attempts.last_mut() else {
            return;
        };
        attempt.gone = true;
        attempt.step = None;
        attempt.phase = None;
        if attempt.outcome.is_none() {
            attempt.lost = true;
            attempt.outcome = Some(Outcome::Errored);
            attempt.reason = Some(reason.to_owned());
            attempt.finished = Some(at);
        } else {
            attempt.note(&format!("clean-up not seen: {reason}"));
        }
        if self.outcome.is_none() {
            self.status = CellStatus::Ended;
        }
    }
}

impl AttemptState {
    fn offered(token: &Token, agent: &crate::id::AgentId, name: &str, at: Timestamp) -> Self {
        AttemptState {
            attempt: token.attempt,
            epoch: token.epoch,
            agent: agent.clone(),
            agent_name: name.to_owned(),
            offered: at,
            waits: Vec::new(),
            expected_ms: None,
            started: None,
            opened: None,
            finished: None,
            outcome: None,
            reason: None,
            culprit: None,
            returned: false,
            lost: false,
            gone: false,
            phase: None,
            step: None,
            steps: IndexMap::new(),
            services: IndexMap::new(),
            progress: IndexMap::new(),
            snapshots: Vec::new(),
            last_seq: 0,
            torn_down: None,
            notes: Vec::new(),
            artifacts: Vec::new(),
        }
    }

    /// Keeps a note within the limits: an agent may send any number of notes, and every fold keeps them in memory.
    fn note(&mut self, text: &str) {
        if self.notes.last().is_some_and(|last| last == MORE_NOTES) {
            return;
        }
        let held: usize = self.notes.iter().map(String::len).sum();
        let fits = self.notes.len() < NOTES && held + text.len() <= NOTES_BYTES;
        let kept = if fits { text } else { MORE_NOTES };
        self.notes.push(kept.to_owned());
    }

    /// Keeps an artifact within the limit of an attempt.
    fn artifact(&mut self, artifact: &Artifact) {
        if self.artifacts.len() < ARTIFACTS {
            self.artifacts.push(artifact.clone());
        } else if !self.notes.iter().any(|note| note == MORE_ARTIFACTS) {
            self.note(MORE_ARTIFACTS);
        }
    }

    fn apply(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            EventKind::AttemptStarted { .. } => {
                self.started.get_or_insert(at);
            }
            EventKind::StackOpened { began, queued_us } => {
                self.opened.get_or_insert(Opened {
                    began: *began,
                    ended: at,
                    queued_us: *queued_us,
                });
            }
            EventKind::ServiceChanged {
                service,
                state,
                began,
                detail,
                image,
                reference: _,
                queued_us,
            } => {
                self.progress.shift_remove(service);
                let view = self.service_changed(service, *state, *began, at, detail.as_deref());
                view.queued_us.push(*queued_us);
                if image.is_some() {
                    view.image.clone_from(image);
                }
            }
            EventKind::SnapshotChanged {
                path,
                key,
                state,
                began,
                run,
                bytes,
                reason,
            } if self.snapshots.len() < SNAPSHOTS => {
                self.snapshots.push(SnapshotSeen {
                    path: path.clone(),
                    key: key.clone(),
                    state: *state,
                    began: *began,
                    ended: at,
                    run: run.clone(),
                    bytes: *bytes,
                    reason: reason.clone(),
                });
            }
            EventKind::ServiceProgress { service, doing } => {
                self.progress.insert(service.clone(), doing.clone());
            }
            EventKind::ServiceRestarted {
                service, code, oom, ..
            } => self.service_restarted(service, *code, *oom, at),
            EventKind::PhaseStarted { path, name } => {
                self.phase = Some(name.clone());
                self.begin(path, name, "phase", at);
            }
            EventKind::PhaseFinished {
                path,
                name,
                outcome,
                reason,
                timed_out,
                began,
            } => {
                self.phase = None;
                self.step = None;
                let result = phase_result(path, name, *outcome, reason.as_deref(), *began, at);
                self.end(StepResult {
                    timed_out: *timed_out,
                    ..result
                });
            }
            EventKind::StepStarted { path, name, action } => {
                self.begin(path, name, action, at);
                self.step = Some(path.clone());
            }
            EventKind::StepFinished(result) => {
                self.end((**result).clone());
                if self.step.as_ref() == Some(&result.path) {
                    self.step = self.open_ancestor(&result.path);
                }
            }
            EventKind::AttemptFinished {
                outcome,
                reason,
                timed_out: _,
                culprit,
            } if self.outcome.is_none() => {
                self.outcome = Some(*outcome);
                self.reason = reason.clone();
                self.culprit = culprit.clone();
                self.finished = Some(at);
                self.phase = None;
                self.step = None;
            }
            EventKind::TornDown {
                removed,
                left,
                kept,
                began,
            } => {
                self.torn_down = Some(TornDown {
                    began: *began,
                    ended: at,
                    removed: *removed,
                    left: left.clone(),
                    kept: kept.clone(),
                });
            }
            EventKind::LogGap {
                service,
                stream,
                from,
                to,
                reason,
            } => {
                let stream = format!("{stream:?}").to_lowercase();
                self.note(&format!(
                    "log of {service} ({stream}): bytes {from} to {to} not kept: {reason}"
                ));
            }
            EventKind::ArtifactCollected(artifact) => self.artifact(artifact),
            EventKind::ArtifactLost { id, reason } => {
                if let Some(artifact) = self.artifacts.iter_mut().find(|known| known.id == *id) {
                    artifact.digest.clear();
                    artifact.lack = Some(ArtifactLack {
                        problem: ArtifactProblem::Cut,
                        reason: reason.clone(),
                    });
                }
            }
            EventKind::Note { message } => self.note(message),
            _ => {}
        }
    }

    /// Records that a step, group or phase began, possibly again (a retried group runs its steps anew).
    fn begin(&mut self, path: &StepPath, name: &str, action: &str, at: Timestamp) {
        let step = StepState {
            name: name.to_owned(),
            action: action.to_owned(),
            began: at,
            result: None,
        };
        if self.steps.insert(path.clone(), step).is_some() {
            // Test cases of an earlier try are no cases of this one.
            let inside = format!("{path}/");
            let is_case =
                |path: &str, step: &StepState| step.action == CASE && path.starts_with(&inside);
            self.steps.retain(|path, step| !is_case(path, step));
        }
    }

    /// Records that a step, group or phase ended. For a skipped one this is its first event.
    fn end(&mut self, result: StepResult) {
        let step = self
            .steps
            .entry(result.path.clone())
            .or_insert_with(|| StepState {
                name: result.name.clone(),
                action: result.action.clone(),
                began: result.began,
                result: None,
            });
        step.name.clone_from(&result.name);
        step.result = Some(result);
    }

    /// Returns the path of the nearest enclosing group that is still in progress.
    fn open_ancestor(&self, path: &str) -> Option<StepPath> {
        let mut rest = path;
        while let Some((parent, _)) = rest.rsplit_once('/') {
            let open = self.steps.get(parent);
            if open.is_some_and(|s| s.result.is_none() && s.action != "phase") {
                return Some(parent.to_owned());
            }
            rest = parent;
        }
        None
    }

    fn service_changed(
        &mut self,
        service: &str,
        state: ServiceState,
        began: Timestamp,
        ended: Timestamp,
        detail: Option<&str>,
    ) -> &mut ServiceView {
        let view = self
            .services
            .entry(service.to_owned())
            .or_insert_with(|| ServiceView {
                state,
                detail: None,
                image: None,
                restarts: Vec::new(),
                history: Vec::new(),
                queued_us: Vec::new(),
            });
        view.state = state;
        if let Some(detail) = detail {
            view.detail = Some(detail.to_owned());
        }
        view.history.push((state, began, ended));
        view
    }

    /// Counts an exit after which the service is started again. Until its next event, that is what it is doing.
    fn service_restarted(&mut self, service: &str, code: i64, oom: bool, at: Timestamp) {
        if let Some(view) = self.services.get_mut(service) {
            view.restarts.push(Restarted { at, code, oom });
            let doing = format!("exited with code {code}, starting again");
            self.progress.insert(service.to_owned(), doing);
        }
    }
}

/// Returns a phase's end in the form of a step's result, so that readers handle only one kind of row.
fn phase_result(
    path: &str,
    name: &str,
    outcome: Outcome,
    reason: Option<&str>,
    began: Timestamp,
    at: Timestamp,
) -> StepResult {
    StepResult {
        path: path.to_owned(),
        name: name.to_owned(),
        id: None,
        action: "phase".to_owned(),
        outcome,
        reason: reason.map(str::to_owned),
        unreached: false,
        timed_out: false,
        culprit: None,
        tries: 1,
        polls: 0,
        began,
        elapsed_us: u64::try_from(at.since(began).as_micros()).unwrap_or(u64::MAX),
        waits: Vec::new(),
        verifies: Vec::new(),
        checks: Vec::new(),
        output: None,
        captured: Vec::new(),
        failure: None,
        restored: None,
    }
}
