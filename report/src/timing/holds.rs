//! Which attempt held a slot of which agent, from when to when, and which of them another cell waited for.

use super::cell::Clock;
use super::{Lane, LaneBar, SlotPoint, SlotUse, sum};
use indexmap::IndexMap;
use phalanx_shared::run_state::{AttemptState, CellState, RunState};
use phalanx_shared::wait::{Wait, WaitCause};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// A slot that becomes free is offered again within this time, in microseconds.
const HANDED_OVER: u64 = 1_000_000;
/// Tolerance for events that follow from each other, in microseconds.
const AT_ONCE: u64 = 2_000;
/// Cells of journals without causes that start within this time waited for nothing, in microseconds.
const AT_THE_START: u64 = 20_000;
/// Most releases that are considered for one offer.
const LOOKED_AT: usize = 64;
/// Most points of a curve.
const POINTS: u64 = 500;

/// An attempt that holds a slot. Times are in microseconds since the submission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// Index of the cell.
    pub cell: usize,
    /// Index of the attempt among the cell's.
    pub attempt: usize,
    pub offered: u64,
    /// Time at which its steps ended.
    pub ended: u64,
    /// Time at which nothing was left of it.
    pub released: u64,
}

/// All attempts that held slots.
pub(super) struct Holds {
    /// By cell, then by attempt.
    all: Vec<Hold>,
    /// The hold that each cell waited for, as an index of `all`.
    before: Vec<Option<usize>>,
    /// When each cell ended.
    ends: Vec<u64>,
}

impl Holds {
    /// Returns the holds of a run.
    pub fn of(state: &RunState, clock: Clock) -> Holds {
        let mut all = Vec::new();
        let mut ends = Vec::with_capacity(state.cells.len());
        let mut firsts = Vec::with_capacity(state.cells.len());
        for (index, cell) in state.cells.values().enumerate() {
            firsts.push(all.len());
            let attempts = cell.attempts.iter().enumerate();
            let tries = attempts.filter(|(_, attempt)| !attempt.returned);
            all.extend(tries.map(|(attempt, seen)| hold(index, attempt, seen, clock)));
            ends.push(end(cell, clock));
        }
        let mut holds = Holds {
            before: vec![None; state.cells.len()],
            all,
            ends,
        };
        holds.find_before(state, &firsts, clock);
        holds
    }

    fn find_before(&mut self, state: &RunState, firsts: &[usize], clock: Clock) {
        let releases = Releases::of(state, &self.all);
        let before = state.cells.values().enumerate().map(|(index, cell)| {
            let first = self.all.get(*firsts.get(index)?)?;
            let attempt = cell.attempts.get(first.attempt)?;
            if first.cell != index {
                return None;
            }
            let agent = match wants(&attempt.waits, first, clock)? {
                Wants::OfAgent => Some(attempt.agent.as_str()),
                Wants::OfAny => None,
            };
            releases.latest(&self.all, agent, first)
        });
        self.before = before.collect();
    }

    /// Returns the cell that ended last.
    pub fn last_cell(&self) -> Option<usize> {
        let ends = self.ends.iter().enumerate();
        ends.max_by_key(|(index, end)| (**end, Reverse(*index)))
            .map(|(index, _)| index)
    }

    /// Returns when a cell ended.
    pub fn end(&self, cell: usize) -> u64 {
        self.ends.get(cell).copied().unwrap_or(0)
    }

    /// Returns the hold whose release let a cell start.
    pub fn before(&self, cell: usize) -> Option<Hold> {
        let before = self.before.get(cell).copied().flatten()?;
        self.all.get(before).copied()
    }

    /// Returns for each cell the last of some cells that it is or follows, as a position among them.
    pub fn positions(&self, cells: &[usize]) -> Vec<Option<usize>> {
        let mut known: HashMap<usize, Option<usize>> = HashMap::new();
        for (position, cell) in cells.iter().enumerate() {
            known.insert(*cell, Some(position));
        }
        let mut positions = Vec::with_capacity(self.ends.len());
        for cell in 0..self.ends.len() {
            let mut way = Vec::new();
            let mut at = Some(cell);
            let found = loop {
                match at {
                    None => break None,
                    Some(at) if known.contains_key(&at) => break known.get(&at).copied().flatten(),
                    Some(here) => {
                        way.push(here);
                        at = self.before(here).map(|hold| hold.cell);
                    }
                }
            };
            known.extend(way.into_iter().map(|cell| (cell, found)));
            positions.push(found);
        }
        positions
    }

    /// Returns how many slots were held over time, and how many cells waited.
    pub fn slots(&self, state: &RunState, clock: Clock) -> SlotUse {
        let wall = clock.us(state.finished.unwrap_or(clock.now));
        let mut changes: Vec<(u64, i64, i64)> = Vec::new();
        let mut holds = self.all.iter().peekable();
        for cell in 0..self.ends.len() {
            let mut waits_since = 0;
            while let Some(hold) = holds.next_if(|hold| hold.cell == cell) {
                changes.push((waits_since, 0, 1));
                changes.push((hold.offered.max(waits_since), 1, -1));
                changes.push((hold.released, -1, 0));
                waits_since = hold.released;
            }
            if waits_since == 0 {
                changes.push((0, 0, 1));
                changes.push((self.end(cell), 0, -1));
            }
        }
        changes.sort_unstable();
        let held = self
            .all
            .iter()
            .map(|hold| hold.released.min(wall).saturating_sub(hold.offered));
        let held = sum(held);
        #[allow(clippy::cast_precision_loss)] // A number for people.
        let mean = if wall == 0 {
            0.0
        } else {
            held as f64 / wall as f64
        };
        let (peak, points) = curve(&changes, wall);
        SlotUse { peak, mean, points }
    }

    /// Returns the attempts by agent and slot.
    pub fn lanes(&self, state: &RunState) -> Vec<Lane> {
        let mut agents: IndexMap<(&str, &str), Vec<&Hold>> = IndexMap::new();
        for hold in &self.all {
            if let Some((_, attempt)) = of(state, hold) {
                let agent = (attempt.agent_name.as_str(), attempt.agent.as_str());
                agents.entry(agent).or_default().push(hold);
            }
        }
        agents.sort_unstable_keys();
        let lanes = agents.into_iter();
        lanes
            .flat_map(|((agent, _), holds)| lanes_of(state, agent, holds))
            .collect()
    }
}

/// Returns the cell and the attempt of a hold.
fn of<'a>(state: &'a RunState, hold: &Hold) -> Option<(&'a CellState, &'a AttemptState)> {
    let (_, cell) = state.cells.get_index(hold.cell)?;
    Some((cell, cell.attempts.get(hold.attempt)?))
}

fn hold(cell: usize, index: usize, attempt: &AttemptState, clock: Clock) -> Hold {
    let offered = clock.us(attempt.offered);
    let ended = clock.us(attempt.finished.unwrap_or(clock.now)).max(offered);
    let released = match (&attempt.torn_down, attempt.gone) {
        (Some(torn_down), _) => clock.us(torn_down.ended),
        (None, true) => ended,
        (None, false) => clock.us(clock.now),
    };
    Hold {
        cell,
        attempt: index,
        offered,
        ended,
        released: released.max(ended),
    }
}

/// Returns when a cell ended, or now.
fn end(cell: &CellState, clock: Clock) -> u64 {
    let newest = cell.newest().filter(|_| cell.outcome.is_some());
    let ended = newest.and_then(|attempt| attempt.finished);
    clock.us(ended.or(cell.finished).unwrap_or(clock.now))
}

/// What a cell waited for that another cell held.
enum Wants {
    /// Something of the agent that it ran on: a slot, memory …
    OfAgent,
    /// Something that cells on all agents share: a limit.
    OfAny,
}

fn wants(waits: &[Wait], first: &Hold, clock: Clock) -> Option<Wants> {
    if !clock.causes {
        return (first.offered > AT_THE_START).then_some(Wants::OfAgent);
    }
    let longest = waits.iter().max_by_key(|wait| wait.us)?;
    Some(match longest.cause {
        WaitCause::MaxParallel | WaitCause::LabelLimit => Wants::OfAny,
        _ => Wants::OfAgent,
    })
}

/// The ends of holds in order, as indexes of the holds.
struct Releases<'a> {
    of_agents: HashMap<&'a str, Vec<(u64, usize)>>,
    all: Vec<(u64, usize)>,
}

impl<'a> Releases<'a> {
    fn of(state: &'a RunState, holds: &[Hold]) -> Releases<'a> {
        let mut releases = Releases {
            of_agents: HashMap::new(),
            all: Vec::with_capacity(holds.len()),
        };
        for (index, hold) in holds.iter().enumerate() {
            if let Some((_, attempt)) = of(state, hold) {
                let of_agent = releases.of_agents.entry(attempt.agent.as_str());
                of_agent.or_default().push((hold.released, index));
                releases.all.push((hold.released, index));
            }
        }
        releases.all.sort_unstable();
        let of_agents = releases.of_agents.values_mut();
        of_agents.for_each(|releases| releases.sort_unstable());
        releases
    }

    /// Returns the newest release before an offer that another cell's attempt made, which was offered earlier.
    fn latest(&self, holds: &[Hold], agent: Option<&str>, first: &Hold) -> Option<usize> {
        let releases = match agent {
            Some(agent) => self.of_agents.get(agent)?,
            None => &self.all,
        };
        let until = first.offered.saturating_add(AT_ONCE);
        let known = releases.partition_point(|(released, _)| *released <= until);
        let before = releases.get(..known)?.iter().rev().take(LOOKED_AT);
        let mut earlier = before.filter(|(_, index)| {
            let hold = holds.get(*index);
            hold.is_some_and(|hold| hold.cell != first.cell && hold.offered < first.offered)
        });
        let (released, index) = earlier.next()?;
        let recent = first.offered.saturating_sub(*released) <= HANDED_OVER;
        recent.then_some(*index)
    }
}

/// Returns the peak of a curve and its points, from changes of slots held and of cells waiting. Of a longer curve, a part
/// has a point with its maximum and one with the values that it ends with.
fn curve(changes: &[(u64, i64, i64)], wall: u64) -> (u32, Vec<SlotPoint>) {
    let width = (wall / POINTS).max(1);
    let count = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    let (mut used, mut queued, mut peak) = (0, 0, 0);
    let mut points: Vec<SlotPoint> = Vec::new();
    let mut changes = changes.iter().peekable();
    while let Some((at, ..)) = changes.peek() {
        let at = *at;
        let before = (count(used), count(queued));
        while let Some((_, more, waiting)) = changes.next_if(|(then, ..)| *then == at) {
            used += more;
            queued += waiting;
        }
        peak = peak.max(count(used));
        if at > wall {
            continue;
        }
        let point = |at_us, (used, queued)| SlotPoint {
            at_us,
            used,
            queued,
        };
        let now = (count(used), count(queued));
        match points.last_mut() {
            Some(last) if last.at_us / width == at / width => {
                last.used = last.used.max(now.0);
                last.queued = last.queued.max(now.1);
            }
            Some(last) if (last.used, last.queued) != before => {
                let end = (last.at_us / width + 1) * width;
                points.push(point(end.min(at), before));
                points.push(point(at, now));
            }
            _ => points.push(point(at, now)),
        }
    }
    (peak, points)
}

/// Puts the attempts of an agent into as many lanes as it used slots.
fn lanes_of(state: &RunState, agent: &str, mut holds: Vec<&Hold>) -> Vec<Lane> {
    holds.sort_by_key(|hold| (hold.offered, hold.released));
    let mut lanes: Vec<Lane> = Vec::new();
    let mut free: BTreeSet<usize> = BTreeSet::new();
    let mut busy: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for hold in holds {
        while let Some(Reverse((_, lane))) = busy
            .peek()
            .filter(|Reverse((until, _))| *until <= hold.offered)
        {
            free.insert(*lane);
            busy.pop();
        }
        let lane = free.pop_first().unwrap_or_else(|| {
            lanes.push(Lane {
                agent: agent.to_owned(),
                slot: u32::try_from(lanes.len() + 1).unwrap_or(u32::MAX),
                bars: Vec::new(),
            });
            lanes.len() - 1
        });
        busy.push(Reverse((hold.released, lane)));
        if let Some(lane) = lanes.get_mut(lane) {
            lane.bars.extend(bar(state, hold));
        }
    }
    lanes
}

fn bar(state: &RunState, hold: &Hold) -> Option<LaneBar> {
    let (id, _) = state.cells.get_index(hold.cell)?;
    let (_, attempt) = of(state, hold)?;
    Some(LaneBar {
        cell: id.clone(),
        name: super::name_of(state, id),
        attempt: attempt.attempt,
        began_us: hold.offered,
        elapsed_us: hold.released.saturating_sub(hold.offered),
        steps_us: hold.ended.saturating_sub(hold.offered),
        outcome: attempt.outcome,
    })
}
