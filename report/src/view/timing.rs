//! Where the time of a run went: wall time, slowest cell, sum of cells, phases, and the critical path of the slowest
//! cell.
//!
//! All times of a report are measured in the same way: wall time is from submission to finish, a cell's time is from
//! the start of its first attempt to the end of its newest attempt's steps. Clean-up is not on the critical path and is
//! shown separately.

use super::{AttemptView, CellView, StepKind, StepView, micros};
use indexmap::IndexMap;
use phalanx_shared::event::ServiceState;
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, RunState};
use phalanx_shared::time::Timestamp;
use serde::Serialize;

/// Gaps on the critical path that are shorter than this are not shown.
const GAP_US: i64 = 20_000;

/// Times of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Time from submission to finish, or to now while the run is open.
    pub wall_us: u64,
    /// Sum of the cells' times: what a sequential run would have taken.
    pub sum_us: u64,
    /// The cell that took longest.
    pub slowest: Option<Slowest>,
    /// Time by phase over all cells, in the order of the phases. Added by Phalanx: `(waiting)` for a slot, `(stack)`
    /// before the first phase, and `(clean-up)`.
    pub phases: Vec<PhaseTime>,
}

/// The cell that took longest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slowest {
    /// Id of the cell.
    pub id: CellId,
    /// Display name.
    pub name: String,
    /// Time that the cell took.
    pub elapsed_us: u64,
    /// Segments from submission to the cell's end without gaps: what must become faster for the run to become faster.
    pub critical_path: Vec<Segment>,
}

/// A segment of the critical path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// Activity during the segment.
    pub what: String,
    /// Phase, if the activity is a step.
    pub phase: Option<String>,
    /// Start, in microseconds since the submission.
    pub began_us: u64,
    /// Duration in microseconds.
    pub elapsed_us: u64,
}

/// Times of a phase over all cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTime {
    /// Name of the phase.
    pub name: String,
    /// Number of cells in which it ran.
    pub cells: usize,
    /// Sum over these cells.
    pub sum_us: u64,
    /// Longest time in one cell.
    pub max_us: u64,
    /// Name of the cell with the longest time.
    pub max_cell: String,
}

/// Returns the times of a run at `now`.
pub fn timing(state: &RunState, cells: &[CellView], now: Timestamp) -> Timing {
    let submitted = state.submitted.unwrap_or(now);
    let slowest = cells
        .iter()
        .filter_map(|cell| Some((cell.elapsed_us?, cell)))
        .fold(None, |best: Option<(u64, &CellView)>, this| match best {
            Some(best) if best.0 >= this.0 => Some(best),
            _ => Some(this),
        });
    Timing {
        wall_us: micros(state.finished.unwrap_or(now).since(submitted)),
        sum_us: cells.iter().filter_map(|cell| cell.elapsed_us).sum(),
        slowest: slowest.map(|(elapsed_us, cell)| Slowest {
            id: cell.id.clone(),
            name: cell.name.clone(),
            elapsed_us,
            critical_path: critical_path(state, cell, submitted),
        }),
        phases: phases(cells),
    }
}

fn phases(cells: &[CellView]) -> Vec<PhaseTime> {
    let mut phases: IndexMap<&str, PhaseTime> = IndexMap::new();
    for cell in cells {
        if let Some(waited_us) = cell.waited_us {
            add_phase(&mut phases, "(waiting)", cell, waited_us);
        }
    }
    for cell in cells {
        let Some(attempt) = cell.newest() else {
            continue;
        };
        let ran = |step: &&StepView| {
            step.kind == StepKind::Phase && step.outcome != Some(Outcome::Skipped)
        };
        let first = attempt.steps.first().map(|phase| phase.began);
        let ended = first.or(attempt.finished);
        if let (Some(started), Some(ended)) = (attempt.started, ended) {
            add_phase(&mut phases, "(stack)", cell, micros(ended.since(started)));
        }
        for phase in attempt.steps.iter().filter(ran) {
            add_phase(&mut phases, &phase.name, cell, phase.elapsed_us);
        }
    }
    for cell in cells {
        if let Some(clean_up) = cell.newest().and_then(|attempt| attempt.clean_up.as_ref()) {
            add_phase(&mut phases, "(clean-up)", cell, clean_up.elapsed_us);
        }
    }
    phases.into_values().collect()
}

fn add_phase<'a>(
    phases: &mut IndexMap<&'a str, PhaseTime>,
    name: &'a str,
    cell: &CellView,
    elapsed_us: u64,
) {
    let phase = phases.entry(name).or_insert_with(|| PhaseTime {
        name: name.to_owned(),
        cells: 0,
        sum_us: 0,
        max_us: 0,
        max_cell: cell.name.clone(),
    });
    phase.cells += 1;
    phase.sum_us += elapsed_us;
    if elapsed_us > phase.max_us {
        phase.max_us = elapsed_us;
        phase.max_cell.clone_from(&cell.name);
    }
}

/// Walks back from the end of each attempt, always to the step that ended last before that point.
fn critical_path(state: &RunState, cell: &CellView, submitted: Timestamp) -> Vec<Segment> {
    let mut path = Vec::new();
    let mut from = submitted;
    let folded = state.cells.get(&cell.id);
    for attempt in &cell.attempts {
        let Some(started) = attempt.started else {
            continue;
        };
        let waiting = if path.is_empty() {
            "waiting for a slot"
        } else {
            "waiting for the next attempt"
        };
        push(&mut path, submitted, waiting, None, from, attempt.offered);
        push(
            &mut path,
            submitted,
            "dispatch",
            None,
            attempt.offered.max(from),
            started,
        );
        let ended =
            Timestamp(started.0.saturating_add(
                i64::try_from(attempt.elapsed_us.unwrap_or(0)).unwrap_or(i64::MAX),
            ));
        let services = folded.and_then(|cell| {
            cell.attempts
                .iter()
                .find(|a| a.attempt == attempt.attempt && !a.returned)
        });
        path.extend(steps_path(attempt, services, submitted, started, ended));
        from = ended;
    }
    path
}

fn push(
    path: &mut Vec<Segment>,
    submitted: Timestamp,
    what: &str,
    phase: Option<&str>,
    began: Timestamp,
    ended: Timestamp,
) {
    if ended > began {
        path.push(Segment {
            what: what.to_owned(),
            phase: phase.map(str::to_owned),
            began_us: micros(began.since(submitted)),
            elapsed_us: micros(ended.since(began)),
        });
    }
}

fn steps_path(
    attempt: &AttemptView,
    folded: Option<&AttemptState>,
    submitted: Timestamp,
    started: Timestamp,
    ended: Timestamp,
) -> Vec<Segment> {
    let end_of = |step: &StepView| {
        Timestamp(
            step.began
                .0
                .saturating_add(i64::try_from(step.elapsed_us).unwrap_or(0)),
        )
    };
    let mut steps: Vec<_> = attempt
        .steps
        .iter()
        .filter(|step| step.kind == StepKind::Step && step.elapsed_us > 0)
        .collect();
    steps.sort_by_key(|step| end_of(step));
    let mut path = Vec::new();
    let mut until = ended;
    while let Some(step) = steps.pop() {
        let (began, end) = (step.began.max(started), end_of(step));
        if end > until || began >= end {
            continue; // overlaps a step that is already on the path
        }
        if until.0 - end.0 > GAP_US {
            push(
                &mut path,
                submitted,
                &gap(folded, end, until),
                None,
                end,
                until,
            );
        }
        push(
            &mut path,
            submitted,
            &step.name,
            Some(&step.phase),
            began,
            end,
        );
        until = began;
    }
    if until.0 - started.0 > GAP_US {
        push(
            &mut path,
            submitted,
            &gap(folded, started, until),
            None,
            started,
            until,
        );
    }
    path.reverse();
    path
}

/// Describes a gap between steps: the service whose readiness ended it, if the events show one.
fn gap(folded: Option<&AttemptState>, from: Timestamp, to: Timestamp) -> String {
    let mut last: Option<(&str, Timestamp)> = None;
    for (name, service) in folded.into_iter().flat_map(|attempt| &attempt.services) {
        for (state, _, ended) in &service.history {
            let within = *ended > from && ended.0 <= to.0 + GAP_US;
            if *state == ServiceState::Ready && within && last.is_none_or(|(_, at)| *ended > at) {
                last = Some((name, *ended));
            }
        }
    }
    match last {
        Some((name, _)) => format!("waiting for service {name}"),
        None => "between steps".to_owned(),
    }
}
