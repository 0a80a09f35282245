//! How long each attempt would have held its slot if some waits had been shorter.

use super::cell::{Activities, Clock, Subject, Try, What, activities};
use super::graph::{Activity, Graph};
use super::holds::Holds;
use super::{SegmentKind, micros_between, summary};
use phalanx_shared::id::{AgentId, CellId};
use phalanx_shared::run_state::{CellState, RunState};
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::{Wait, WaitCause};

/// A change of what attempts waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing waits for this cause.
    Without(WaitCause),
    /// A service is ready (or ends, if something waits for that) sooner after its start, at most at once.
    Faster {
        /// Name of the service.
        service: String,
        /// How much sooner, in microseconds.
        by_us: u64,
    },
}

/// The time for which an attempt held its slot. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Cell of the attempt.
    pub cell: CellId,
    /// Agent that held it.
    pub agent: AgentId,
    /// Time of the offer, since the submission; as it was.
    pub offered_us: u64,
    /// What it waited for in the queue; as it was.
    pub waits: Vec<Wait>,
    /// Time in milliseconds that the scheduler expected the cell to take; `None` if it wasn't recorded.
    pub expected_ms: Option<u64>,
    /// Time from the release of what it waited for until the offer; 0 if it waited for no other cell.
    pub handover_us: u64,
    /// Time from the offer to the end of its steps.
    pub steps_us: u64,
    /// Time from the offer until nothing was left of it.
    pub held_us: u64,
}

/// Returns the attempts of each cell that held slots, in plan order, with changed waits.
pub fn occupancies(state: &RunState, changes: &[Change], now: Timestamp) -> Vec<Vec<Occupancy>> {
    let clock = summary::clock(state, now);
    let holds = Holds::of(state, clock);
    let cells = state.cells.iter().enumerate();
    cells
        .map(|(index, (id, cell))| of_cell(id, cell, index, &holds, changes, clock))
        .collect()
}

fn of_cell(
    id: &CellId,
    cell: &CellState,
    index: usize,
    holds: &Holds,
    changes: &[Change],
    clock: Clock,
) -> Vec<Occupancy> {
    let Activities { graph, tries, .. } = activities(cell, clock);
    let ends = ends(&graph, cell, changes);
    let end = |id: usize| ends.get(id).copied().unwrap_or(0);
    let first = tries.first().map(|first| first.attempt);
    let occupancy = |one: &Try| {
        let attempt = cell.attempts.get(one.attempt)?;
        let offered_us = clock.us(attempt.offered);
        let before = holds.before(index).filter(|_| first == Some(one.attempt));
        Some(Occupancy {
            cell: id.clone(),
            agent: attempt.agent.clone(),
            offered_us,
            waits: attempt.waits.clone(),
            expected_ms: attempt.expected_ms,
            handover_us: before.map_or(0, |hold| offered_us.saturating_sub(hold.released)),
            steps_us: end(one.ended).saturating_sub(end(one.offered)),
            held_us: end(one.released).saturating_sub(end(one.offered)),
        })
    };
    tries.iter().filter_map(occupancy).collect()
}

/// Returns when each activity would end with the changes.
fn ends(graph: &Graph<What>, cell: &CellState, changes: &[Change]) -> Vec<u64> {
    graph.ends_with(|activity| {
        changes.iter().fold(activity.elapsed(), |elapsed, change| {
            elapsed.saturating_sub(less(activity, cell, change))
        })
    })
}

/// Returns by how much a change shortens an activity.
fn less(activity: &Activity<What>, cell: &CellState, change: &Change) -> u64 {
    let what = &activity.data;
    match change {
        Change::Without(cause) if what.wait == Some(*cause) => activity.elapsed(),
        Change::Faster { service, by_us } => {
            let waits = matches!(what.kind, SegmentKind::Readiness | SegmentKind::Job);
            let attempt = what.attempt.and_then(|index| cell.attempts.get(index));
            let about = match what.subject {
                Subject::Service(index) => attempt.and_then(|a| a.services.get_index(index)),
                _ => None,
            };
            let named = about.is_some_and(|(name, _)| name == service);
            if waits && named { *by_us } else { 0 }
        }
        Change::Without(_) => 0,
    }
}

/// Returns the time between a run's last outcome and its finish, in microseconds.
pub fn closing_us(state: &RunState, now: Timestamp) -> u64 {
    let clock = summary::clock(state, now);
    let holds = Holds::of(state, clock);
    let last = holds.last_cell().map_or(0, |cell| holds.end(cell));
    let finished = state.finished.unwrap_or(now);
    micros_between(clock.submitted, finished).saturating_sub(last)
}
