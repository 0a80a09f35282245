//! The times of a run as a whole.

use super::cell::{Activities, Clock, activities as of_cell};
use super::describe::segment;
use super::holds::Holds;
use super::{
    CellActivity, Lane, PhaseTime, Segment, SegmentKind, Slowest, Timing, WaitTime, micros,
    name_of, path, sum,
};
use indexmap::IndexMap;
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{CellState, RunState};
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::WaitCause;
use std::collections::{BTreeMap, HashMap};

/// Returns the times of a run at `now`.
pub fn timing(state: &RunState, now: Timestamp) -> Timing {
    let clock = clock(state, now);
    let cells: Vec<CellTimes> = state
        .cells
        .iter()
        .map(|(id, cell)| CellTimes::of(state, id, cell, now))
        .collect();
    let wall_us = wall_us(state, now);
    let slowest = slowest(state, &cells, clock);
    let holds = Holds::of(state, clock);
    let critical_path = path::of_run(state, &holds, clock);
    let overhead = critical_path
        .iter()
        .filter(|segment| segment.kind == SegmentKind::Overhead);
    Timing {
        wall_us,
        sum_us: sum(cells.iter().filter_map(|cell| cell.elapsed_us)),
        efficiency: slowest
            .as_ref()
            .and_then(|slowest| share(slowest.elapsed_us, wall_us)),
        overhead_us: sum(overhead.map(|segment| segment.elapsed_us)),
        slowest,
        phases: phases(&cells),
        waits: waits(state, clock),
        critical_path,
        slots: holds.slots(state, clock),
    }
}

/// Returns the time from the submission of a run to its end, or until now.
pub fn wall_us(state: &RunState, now: Timestamp) -> u64 {
    clock(state, now).us(state.finished.unwrap_or(now))
}

/// Returns the segments from the submission to the end of a cell, without gaps or overlaps. Potentials refer to the
/// cell's end. Empty for an unknown cell.
pub fn cell_path(state: &RunState, cell: &CellId, now: Timestamp) -> Vec<Segment> {
    let index = state.cells.get_index_of(cell);
    index.map_or_else(Vec::new, |index| {
        path::of_cell(state, index, clock(state, now))
    })
}

/// Returns all activities of a cell, each after those that it waited for; none for an unknown cell. Activities of
/// services and of parallel steps overlap.
pub fn activities(state: &RunState, cell: &CellId, now: Timestamp) -> Vec<CellActivity> {
    let Some((_, id, seen)) = state.cells.get_full(cell) else {
        return Vec::new();
    };
    let Activities { graph, end, .. } = of_cell(seen, clock(state, now));
    let path = graph.path(end);
    let potentials: HashMap<usize, u64> =
        path.iter().copied().zip(graph.potentials(&path)).collect();
    let all = graph.activities().iter().enumerate();
    let all = all.filter(|(_, activity)| activity.elapsed() > 0);
    all.map(|(index, activity)| {
        let potential = potentials.get(&index).copied();
        let attempt = activity.data.attempt;
        let attempt = attempt.and_then(|index| seen.attempts.get(index));
        let times = (activity.begin, activity.end);
        CellActivity {
            segment: Segment {
                potential_us: potential.unwrap_or(0),
                ..segment(id, seen, &activity.data, times)
            },
            attempt: attempt.map_or(0, |attempt| attempt.attempt),
            critical: potential.is_some(),
        }
    })
    .collect()
}

/// Returns the attempts of a run by agent and slot.
pub fn lanes(state: &RunState, now: Timestamp) -> Vec<Lane> {
    Holds::of(state, clock(state, now)).lanes(state)
}

/// Returns how a run's times are measured.
pub(super) fn clock(state: &RunState, now: Timestamp) -> Clock {
    Clock {
        submitted: state.submitted.unwrap_or(now),
        now,
        causes: !state.agents.is_empty(),
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss)] // A number for people.
    (whole > 0).then(|| (part as f64 / whole as f64).min(1.0))
}

/// The times of a cell.
struct CellTimes<'a> {
    index: usize,
    name: String,
    cell: &'a CellState,
    waited_us: Option<u64>,
    /// From the start of the first attempt to the end of the newest attempt's steps.
    elapsed_us: Option<u64>,
}

impl<'a> CellTimes<'a> {
    fn of(state: &RunState, id: &CellId, cell: &'a CellState, now: Timestamp) -> Self {
        let tries = || cell.attempts.iter().filter(|attempt| !attempt.returned);
        let started = tries().find_map(|attempt| attempt.started);
        let ended = match tries().next_back() {
            Some(attempt) => attempt.finished.or(cell.finished).or(Some(now)),
            None => cell.finished,
        };
        let between = |from: Option<Timestamp>, to: Option<Timestamp>| {
            Option::zip(from, to).map(|(from, to)| micros(to.since(from)))
        };
        CellTimes {
            index: state.cells.get_index_of(id).unwrap_or(0),
            name: name_of(state, id),
            cell,
            waited_us: between(state.submitted, started),
            elapsed_us: between(started, ended),
        }
    }
}

fn slowest(state: &RunState, cells: &[CellTimes<'_>], clock: Clock) -> Option<Slowest> {
    let times = cells
        .iter()
        .filter_map(|cell| Some((cell.elapsed_us?, cell)));
    // The first of equally slow ones.
    let (elapsed_us, slowest) = times.rev().max_by_key(|(elapsed_us, _)| *elapsed_us)?;
    let (id, _) = state.cells.get_index(slowest.index)?;
    Some(Slowest {
        id: id.clone(),
        name: slowest.name.clone(),
        elapsed_us,
        critical_path: path::of_cell(state, slowest.index, clock),
    })
}

fn phases(cells: &[CellTimes<'_>]) -> Vec<PhaseTime> {
    let mut phases: IndexMap<&str, PhaseTime> = IndexMap::new();
    for cell in cells {
        if let Some(waited_us) = cell.waited_us {
            add_phase(&mut phases, "(waiting)", cell, waited_us);
        }
    }
    for cell in cells {
        let Some(attempt) = cell.cell.newest() else {
            continue;
        };
        let first = attempt.steps.values().next().map(|phase| phase.began);
        let ended = first.or(attempt.finished);
        if let (Some(started), Some(ended)) = (attempt.started, ended) {
            add_phase(&mut phases, "(stack)", cell, micros(ended.since(started)));
        }
        let until = attempt.finished;
        for phase in attempt.steps.values().filter(|step| step.action == "phase") {
            let result = phase.result.as_ref();
            let elapsed = result.map(|result| result.elapsed_us);
            let open = until.map(|until| micros(until.since(phase.began)));
            let skipped = result.is_some_and(|result| result.outcome == Outcome::Skipped);
            if let Some(elapsed_us) = elapsed.or(open).filter(|_| !skipped) {
                add_phase(&mut phases, &phase.name, cell, elapsed_us);
            }
        }
    }
    for cell in cells {
        let clean_up = cell
            .cell
            .newest()
            .and_then(|attempt| attempt.torn_down.as_ref());
        if let Some(done) = clean_up {
            let elapsed_us = micros(done.ended.since(done.began));
            add_phase(&mut phases, "(clean-up)", cell, elapsed_us);
        }
    }
    phases.into_values().collect()
}

fn add_phase<'a>(
    phases: &mut IndexMap<&'a str, PhaseTime>,
    name: &'a str,
    cell: &CellTimes<'_>,
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
    phase.sum_us = phase.sum_us.saturating_add(elapsed_us);
    if elapsed_us > phase.max_us {
        phase.max_us = elapsed_us;
        phase.max_cell.clone_from(&cell.name);
    }
}

/// Returns the waits on the critical paths of all cells.
fn waits(state: &RunState, clock: Clock) -> Vec<WaitTime> {
    let mut waits: BTreeMap<WaitCause, WaitTime> = BTreeMap::new();
    for (id, cell) in &state.cells {
        for (cause, us) in waits_of(cell, clock) {
            let wait = waits.entry(cause).or_insert_with(|| WaitTime {
                cause,
                cells: 0,
                sum_us: 0,
                max_us: 0,
                max_cell: String::new(),
            });
            wait.cells += 1;
            wait.sum_us = wait.sum_us.saturating_add(us);
            if us > wait.max_us {
                wait.max_us = us;
                wait.max_cell = name_of(state, id);
            }
        }
    }
    let mut waits: Vec<WaitTime> = waits.into_values().collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.sum_us));
    waits
}

fn waits_of(cell: &CellState, clock: Clock) -> BTreeMap<WaitCause, u64> {
    let Activities { graph, end, .. } = of_cell(cell, clock);
    let mut waits = BTreeMap::new();
    let path = graph.path(end);
    for activity in path.iter().filter_map(|id| graph.get(*id)) {
        if let Some(cause) = activity.data.wait.filter(|_| activity.elapsed() > 0) {
            let wait: &mut u64 = waits.entry(cause).or_insert(0);
            *wait = wait.saturating_add(activity.elapsed());
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_fit_together_give_the_longest_time() {
        assert_eq!(sum([1, 2].into_iter()), 3);
        assert_eq!(sum([u64::MAX, 2].into_iter()), u64::MAX);
    }
}
