//! Makes the view from a folded run.

use super::coverage::coverage;
use super::{
    AttemptView, CellView, CleanUp, Counts, RunView, ServiceReport, ServiceRestart, ServiceStage,
    SkipGroup, SnapshotReport, StepKind, StepView, VERSION, ancestors, micros,
};
use crate::timing::timing;
use indexmap::IndexMap;
use phalanx_shared::event::CASE;
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, CellState, RunState, StepState};
use phalanx_shared::time::Timestamp;
use serde_json::{Map, Value};

impl RunView {
    /// Returns the view of a run at a time. `axis` selects the columns of the coverage table; without it, the axis
    /// along which the rows differ most is used.
    pub fn of(state: &RunState, now: Timestamp, axis: Option<&str>) -> RunView {
        let cells: Vec<CellView> = state
            .cells
            .iter()
            .map(|(id, cell)| cell_view(state, id, cell, now))
            .collect();
        let plan = state.plan.as_ref();
        let mut cells_by_outcome = Counts::default();
        let mut steps_by_outcome = Counts::default();
        for cell in &cells {
            cells_by_outcome.add(cell.outcome);
            cell.steps()
                .for_each(|step| steps_by_outcome.add_step(step));
        }
        RunView {
            version: VERSION,
            run: state.run.clone(),
            trace: state
                .origin
                .get(super::TRACE)
                .and_then(serde_json::Value::as_str)
                .map(str::to_owned),
            spec: plan.map(|plan| plan.spec.clone()).unwrap_or_default(),
            path: origin_path(&state.origin),
            digest: plan.map(|plan| plan.digest.clone()).unwrap_or_default(),
            inputs: plan.map(|plan| plan.inputs.clone()).unwrap_or_default(),
            outcome: state.outcome,
            cancelled: state.cancel.clone(),
            submitted: state.submitted,
            finished: state.finished,
            cells_by_outcome,
            steps_by_outcome,
            coverage: plan.and_then(|plan| coverage(plan, &cells, axis)),
            unverified: Vec::new(),
            max_skips: plan.and_then(|plan| plan.max_skips),
            skips: skips(&cells),
            timing: timing(state, now),
            cells,
        }
    }

    /// Returns whether there are steps and every one of them was skipped. Such a run is never green.
    pub fn only_skips(&self) -> bool {
        let steps = &self.steps_by_outcome;
        steps.total > 0 && steps.skipped == steps.total
    }
}

/// Returns the spec's path from a run's origin; empty if unknown.
pub fn origin_path(origin: &Map<String, Value>) -> String {
    origin
        .get("path")
        .or_else(|| origin.get("spec"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

impl CellView {
    /// Returns the view of one cell at a time; `None` if the run has no such cell.
    pub fn of(state: &RunState, id: &CellId, now: Timestamp) -> Option<CellView> {
        let cell = state.cells.get(id)?;
        Some(cell_view(state, id, cell, now))
    }
}

fn cell_view(state: &RunState, id: &CellId, cell: &CellState, now: Timestamp) -> CellView {
    let planned = state.planned(id);
    let (returned, tries): (Vec<_>, Vec<_>) = cell.attempts.iter().partition(|try_| try_.returned);
    let started = tries.iter().find_map(|attempt| attempt.started);
    let ended = match tries.last() {
        Some(attempt) => attempt.finished.or(cell.finished).or(Some(now)),
        None => cell.finished,
    };
    CellView {
        id: id.clone(),
        name: planned.map_or_else(|| id.to_string(), |planned| planned.name.clone()),
        matrix: planned
            .map(|planned| planned.matrix.clone())
            .unwrap_or_default(),
        experimental: planned.is_some_and(|planned| planned.experimental),
        status: cell.status,
        outcome: cell.outcome,
        reason: cell.reason.clone(),
        waited_us: Option::zip(started, state.submitted).map(|(to, from)| micros(to.since(from))),
        elapsed_us: Option::zip(ended, started).map(|(to, from)| micros(to.since(from))),
        returned: returned
            .iter()
            .filter_map(|attempt| attempt.reason.clone())
            .collect(),
        attempts: tries
            .into_iter()
            .map(|attempt| attempt_view(attempt, cell.finished.unwrap_or(now)))
            .collect(),
    }
}

fn attempt_view(attempt: &AttemptState, now: Timestamp) -> AttemptView {
    let ended = attempt.finished.unwrap_or(now);
    AttemptView {
        attempt: attempt.attempt,
        agent: attempt.agent_name.clone(),
        offered: attempt.offered,
        started: attempt.started,
        finished: attempt.finished,
        outcome: attempt.outcome,
        reason: attempt.reason.clone(),
        culprit: attempt.culprit.clone(),
        lost: attempt.lost,
        elapsed_us: attempt.started.map(|started| micros(ended.since(started))),
        steps: step_views(&attempt.steps, ended),
        services: attempt
            .services
            .iter()
            .map(|(name, service)| ServiceReport {
                name: name.clone(),
                state: service.state,
                detail: service.detail.clone(),
                image: service.image.clone(),
                restarts: service
                    .restarts
                    .iter()
                    .map(|exit| ServiceRestart {
                        at: exit.at,
                        exit_code: exit.code,
                        oom: exit.oom,
                    })
                    .collect(),
                history: service
                    .history
                    .iter()
                    .map(|(state, began, ended)| ServiceStage {
                        state: *state,
                        began: *began,
                        ended: *ended,
                    })
                    .collect(),
            })
            .collect(),
        clean_up: attempt.torn_down.as_ref().map(|done| CleanUp {
            elapsed_us: micros(done.ended.since(done.began)),
            removed: done.removed,
            left: done.left.clone(),
            kept: done.kept.clone(),
        }),
        notes: attempt.notes.clone(),
        artifacts: attempt.artifacts.clone(),
        snapshots: attempt
            .snapshots
            .iter()
            .map(|seen| SnapshotReport {
                path: seen.path.clone(),
                key: seen.key.clone(),
                state: seen.state,
                began: seen.began,
                elapsed_us: micros(seen.ended.since(seen.began)),
                run: seen.run.clone(),
                bytes: seen.bytes,
                reason: seen.reason.clone(),
            })
            .collect(),
    }
}

fn step_views(steps: &IndexMap<String, StepState>, now: Timestamp) -> Vec<StepView> {
    let mut has_children = vec![false; steps.len()];
    let mut has_bad_child = vec![false; steps.len()];
    let mut cases: Vec<Option<Counts>> = vec![None; steps.len()];
    for (path, step) in steps {
        let bad = step
            .result
            .as_ref()
            .is_some_and(|result| !result.outcome.is_ok());
        let around = ancestors(path, |prefix| steps.get_index_of(prefix));
        if step.action == CASE
            && let Some(of) = around.last().and_then(|step| cases.get_mut(*step))
        {
            let outcome = step.result.as_ref().map(|result| result.outcome);
            of.get_or_insert_default().add(outcome);
        }
        for ancestor in around {
            if let (Some(children), Some(bad_child)) = (
                has_children.get_mut(ancestor),
                has_bad_child.get_mut(ancestor),
            ) {
                *children = true;
                *bad_child |= bad;
            }
        }
    }
    steps
        .iter()
        .zip(has_children.iter().zip(&has_bad_child).zip(cases))
        .map(|((path, step), ((children, bad_child), cases))| {
            let around = ancestors(path, |prefix| steps.get_index_of(prefix));
            let phase = around
                .first()
                .and_then(|outermost| steps.get_index(*outermost))
                .map_or(step.name.as_str(), |(_, phase)| phase.name.as_str());
            let inside = (*children, *bad_child);
            let view = step_view(path, step, phase, around.len(), inside, now);
            StepView { cases, ..view }
        })
        .collect()
}

fn step_view(
    path: &str,
    step: &StepState,
    phase: &str,
    depth: usize,
    (children, bad_child): (bool, bool),
    now: Timestamp,
) -> StepView {
    let result = step.result.as_ref();
    let outcome = result.map(|result| result.outcome);
    let kind = match step.action.as_str() {
        "phase" => StepKind::Phase,
        _ if depth == 0 => StepKind::Phase,
        _ if children => StepKind::Group,
        _ => StepKind::Step,
    };
    let bad = outcome.is_some_and(|outcome| !outcome.is_ok());
    let checks = result
        .map(|result| result.checks.clone())
        .unwrap_or_default();
    let reported = match kind {
        StepKind::Step => true,
        StepKind::Group => !checks.is_empty() || (bad && !bad_child),
        StepKind::Phase => bad && !bad_child,
    };
    StepView {
        path: path.to_owned(),
        name: result.map_or(&step.name, |result| &result.name).clone(),
        phase: phase.to_owned(),
        kind,
        depth,
        action: step.action.clone(),
        outcome,
        reason: result.and_then(|result| result.reason.clone()),
        unreached: result.is_some_and(|result| result.unreached),
        began: step.began,
        elapsed_us: result
            .map_or_else(|| micros(now.since(step.began)), |result| result.elapsed_us),
        tries: result.map_or(0, |result| result.tries),
        polls: result.map_or(0, |result| result.polls),
        verifies: result
            .map(|result| result.verifies.clone())
            .unwrap_or_default(),
        checks,
        output: result.and_then(|result| result.output.clone()),
        captured: result.map_or_else(Vec::new, |result| result.captured.clone()),
        culprit: result.and_then(|result| result.culprit.clone()),
        failure: result.and_then(|result| result.failure.clone()),
        restored: result.and_then(|result| result.restored.clone()),
        cases: None,
        reported,
    }
}

fn skips(cells: &[CellView]) -> Vec<SkipGroup> {
    let mut groups: IndexMap<&str, IndexMap<String, Vec<String>>> = IndexMap::new();
    for cell in cells {
        for step in cell
            .steps()
            .filter(|step| step.outcome == Some(Outcome::Skipped) && !step.unreached)
        {
            groups
                .entry(step.reason.as_deref().unwrap_or("no reason given"))
                .or_default()
                .entry(step.name.clone())
                .or_default()
                .push(cell.name.clone());
        }
    }
    let mut groups: Vec<SkipGroup> = groups
        .into_iter()
        .map(|(reason, steps)| SkipGroup {
            reason: reason.to_owned(),
            steps,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count()));
    groups
}
