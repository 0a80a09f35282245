//! Replays a finished run with changed figures: the scheduler decides where its cells go, and each holds its slot for as
//! long as it did, or as long as the changes leave.
//!
//! What cells take from each other while they run beside each other (CPU time, disks) stays as it was. The replay of the
//! unchanged run shows how far the model can be trusted.

use super::core::{CellRequest, Effect, Input, RunLimits, Scheduler};
use crate::dispatch::contract::AgentInfo;
use phalanx_report::timing::{Change, Occupancy, closing_us, occupancies};
use phalanx_shared::event::Capacity;
use phalanx_shared::id::{AgentId, RunId, Token};
use phalanx_shared::plan::Resources;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::WaitCause;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

/// Changed figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Slots of all agents together; `None` leaves each agent its own.
    pub slots: Option<u32>,
    /// Changed waits.
    pub changes: Vec<Change>,
}

/// What a replay gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Forecast {
    /// Wall time of the run as it was, in microseconds.
    pub wall_us: u64,
    /// Wall time that the replay of the run as it was gives.
    pub replayed_us: u64,
    /// Wall time that the replay with the changed figures gives.
    pub changed_us: u64,
}

impl Forecast {
    /// Returns the error of the replay of the run as it was, as a share of its wall time; negative if it is too short.
    pub fn error(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // A number for people.
        let (wall, replayed) = (self.wall_us as f64, self.replayed_us as f64);
        if wall > 0.0 {
            (replayed - wall) / wall
        } else {
            0.0
        }
    }
}

/// Why a run can't be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoForecast {
    /// It isn't finished, or no cell of it ever started.
    Unfinished,
    /// With the changed figures, no agent could run this many of its cells.
    Stranded(usize),
}

/// Replays a finished run as it was and with changed figures.
///
/// # Errors
/// Returns an error if the run isn't finished, or if no agent could run some of its cells.
pub fn forecast(state: &RunState, figures: &Figures) -> Result<Forecast, NoForecast> {
    let times = Option::zip(state.submitted, state.finished);
    let (submitted, finished) = times.ok_or(NoForecast::Unfinished)?;
    let replay =
        |figures: &Figures| Replay::of(state, finished, figures).ok_or(NoForecast::Unfinished);
    let replayed = replay(&Figures::default())?;
    let changed = replay(figures)?;
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ok(Forecast {
        wall_us: us(finished.since(submitted)),
        replayed_us: us(replayed.wall()?),
        changed_us: us(changed.wall()?),
    })
}

/// An attempt to replay.
#[derive(Clone, Debug)]
struct Attempt {
    handover: Duration,
    steps: Duration,
    held: Duration,
}

/// A run to replay.
struct Replay {
    run: RunId,
    limits: RunLimits,
    label_limits: BTreeMap<String, u32>,
    /// Agents, each with the time since the submission at which it is there.
    agents: Vec<(Duration, AgentInfo)>,
    /// Requests of the cells, in plan order.
    requests: Vec<CellRequest>,
    /// The attempts at each cell that are still to come.
    attempts: HashMap<phalanx_shared::id::CellId, VecDeque<Attempt>>,
    closing: Duration,
}

/// Something that happens in a replay, in the order in which events at the same time are handled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Released(Token),
    AgentUp(usize),
}

impl Replay {
    fn of(state: &RunState, now: Timestamp, figures: &Figures) -> Option<Replay> {
        let plan = state.plan.as_ref()?;
        let was = occupancies(state, &[], now);
        let mut cells = occupancies(state, &figures.changes, now);
        cells.retain(|attempts| !attempts.is_empty());
        if cells.is_empty() {
            return None;
        }
        let without = |cause| figures.changes.contains(&Change::Without(cause));
        let label_limits = match without(WaitCause::LabelLimit) {
            true => BTreeMap::new(),
            false => label_limits(state, &was),
        };
        let limits = RunLimits {
            priority: 0,
            max_parallel: plan
                .max_parallel
                .filter(|_| !without(WaitCause::MaxParallel)),
        };
        Some(Replay {
            run: state.run.clone(),
            limits,
            label_limits,
            agents: agents(state, &was, figures),
            requests: requests(state, &cells),
            attempts: cells.iter().filter_map(|c| attempts(c)).collect(),
            closing: micros(closing_us(state, now)),
        })
    }

    /// Returns the time from the submission to the finish, or an error if cells are left that no agent can run.
    fn wall(mut self) -> Result<Duration, NoForecast> {
        let mut scheduler = Scheduler::new(std::mem::take(&mut self.label_limits));
        let mut agenda: BinaryHeap<Reverse<(Duration, Happening)>> = BinaryHeap::new();
        for (index, (up, _)) in self.agents.iter().enumerate() {
            agenda.push(Reverse((*up, Happening::AgentUp(index))));
        }
        let run = self.run.clone();
        let limits = self.limits;
        let cells = self.requests.clone();
        let mut last = Duration::ZERO;
        let start = [
            Input::RunAdded {
                run: run.clone(),
                limits,
            },
            Input::Queued { run, cells },
        ];
        for input in start {
            let ended = self.perform(&mut scheduler, input, Duration::ZERO, &mut agenda);
            last = last.max(ended);
        }
        let requests: HashMap<_, _> = self
            .requests
            .iter()
            .map(|request| (request.token.cell.clone(), request.clone()))
            .collect();
        while let Some(Reverse((now, happening))) = agenda.pop() {
            let mut inputs = Vec::new();
            match happening {
                Happening::AgentUp(index) => {
                    if let Some((_, agent)) = self.agents.get(index) {
                        inputs.push(Input::AgentUp {
                            agent: agent.clone(),
                            holding: Vec::new(),
                        });
                    }
                }
                Happening::Released(token) => {
                    let more = self
                        .attempts
                        .get(&token.cell)
                        .is_some_and(|a| !a.is_empty());
                    let again = requests.get(&token.cell).filter(|_| more).cloned();
                    let attempt = token.attempt + 1;
                    inputs.push(Input::Released { token });
                    inputs.extend(again.map(|mut request| {
                        request.token.attempt = attempt;
                        Input::Queued {
                            run: self.run.clone(),
                            cells: vec![request],
                        }
                    }));
                }
            }
            for input in inputs {
                let ended = self.perform(&mut scheduler, input, now, &mut agenda);
                last = last.max(ended);
            }
        }
        let left = self.attempts.values().filter(|left| !left.is_empty());
        match left.count() {
            0 => Ok(last + self.closing),
            cells => Err(NoForecast::Stranded(cells)),
        }
    }

    /// Lets the scheduler handle an input, and starts what it places. Returns when the last of these attempts ends.
    fn perform(
        &mut self,
        scheduler: &mut Scheduler,
        input: Input,
        now: Duration,
        agenda: &mut BinaryHeap<Reverse<(Duration, Happening)>>,
    ) -> Duration {
        let mut last = Duration::ZERO;
        for effect in scheduler.handle(input, now) {
            let Effect::Assign { token, .. } = effect else {
                continue;
            };
            let attempts = self.attempts.get_mut(&token.cell);
            if let Some(attempt) = attempts.and_then(VecDeque::pop_front) {
                let offered = now + attempt.handover;
                last = last.max(offered + attempt.steps);
                let released = offered + attempt.held;
                agenda.push(Reverse((released, Happening::Released(token))));
            }
        }
        last
    }
}

fn micros(us: u64) -> Duration {
    Duration::from_micros(us)
}

fn attempts(cell: &[Occupancy]) -> Option<(phalanx_shared::id::CellId, VecDeque<Attempt>)> {
    let id = cell.first()?.cell.clone();
    let attempts = cell.iter().map(|one| Attempt {
        handover: micros(one.handover_us),
        steps: micros(one.steps_us),
        held: micros(one.held_us),
    });
    Some((id, attempts.collect()))
}

/// Returns the requests of cells in plan order. The scheduler starts the cell with the longest expected time first. For
/// journals that don't hold it, the order in which cells got their agents stands for it.
fn requests(state: &RunState, cells: &[Vec<Occupancy>]) -> Vec<CellRequest> {
    let requests = cells.iter().filter_map(|attempts| {
        let first = attempts.first()?;
        let cell = first.cell.clone();
        let planned = state.planned(&cell);
        Some(CellRequest {
            labels: planned.map(|p| p.runs_on.clone()).unwrap_or_default(),
            avoids: Vec::new(),
            resources: planned.map(|p| p.resources).unwrap_or_default(),
            images: Vec::new(),
            expected_ms: first.expected_ms.unwrap_or(u64::MAX - first.offered_us),
            token: Token {
                run: state.run.clone(),
                cell,
                attempt: 1,
                epoch: 1,
            },
            needs: Vec::new(),
            wish: None,
        })
    });
    requests.collect()
}

/// Returns the agents of a run with changed slots and resources, each with the time of its first offer: until then it
/// wasn't there, since no cell waits while an agent can run it.
fn agents(
    state: &RunState,
    cells: &[Vec<Occupancy>],
    figures: &Figures,
) -> Vec<(Duration, AgentInfo)> {
    let mut first: BTreeMap<&AgentId, u64> = BTreeMap::new();
    for one in cells.iter().flatten() {
        let known = first.entry(&one.agent).or_insert(one.offered_us);
        *known = one.offered_us.min(*known);
    }
    let mut capacities: Vec<(&AgentId, Capacity)> = first
        .keys()
        .map(|agent| {
            let known = state.agents.get(*agent).cloned();
            (*agent, known.unwrap_or_else(|| seen(state, cells, agent)))
        })
        .collect();
    change(&mut capacities, figures);
    let agents = capacities.into_iter().map(|(agent, capacity)| {
        let up = first.get(agent).copied().unwrap_or(0);
        let info = AgentInfo {
            id: agent.clone(),
            name: agent.to_string(),
            version: String::new(),
            labels: capacity.labels,
            slots: capacity.slots,
            resources: capacity.resources,
            images: Vec::new(),
            policy: None,
            ahead: Some(0),
            snapshots: Default::default(),
        };
        (micros(up), info)
    });
    agents.collect()
}

/// Returns what an agent has at least, for journals that don't say it: what the run used of it.
fn seen(state: &RunState, cells: &[Vec<Occupancy>], agent: &AgentId) -> Capacity {
    let held = || cells.iter().flatten().filter(|one| one.agent == *agent);
    let labels: BTreeSet<&String> = held().flat_map(|one| labels_of(state, one)).collect();
    Capacity {
        slots: most_at_once(held()),
        resources: PLENTY,
        labels: labels.into_iter().cloned().collect(),
    }
}

fn labels_of<'a>(state: &'a RunState, one: &Occupancy) -> &'a [String] {
    let planned = state.planned(&one.cell);
    planned.map_or(&[], |planned| planned.runs_on.as_slice())
}

/// Returns how many attempts were held at the same time at most.
fn most_at_once<'a>(held: impl Iterator<Item = &'a Occupancy>) -> u32 {
    let times = held.flat_map(|one| {
        let until = one.offered_us.saturating_add(one.held_us);
        [(one.offered_us, 1_i64), (until, -1)]
    });
    let mut times: Vec<(u64, i64)> = times.collect();
    times.sort_unstable();
    let running = times.iter().scan(0, |running, (_, change)| {
        *running += change;
        Some(*running)
    });
    u32::try_from(running.max().unwrap_or(0)).unwrap_or(u32::MAX)
}

const PLENTY: Resources = Resources {
    millicpus: u64::MAX,
    memory_bytes: u64::MAX,
    subnets: u32::MAX,
};

fn change(agents: &mut [(&AgentId, Capacity)], figures: &Figures) {
    let without = |cause| figures.changes.contains(&Change::Without(cause));
    let all: u64 = agents
        .iter()
        .map(|(_, capacity)| u64::from(capacity.slots))
        .sum();
    let (mut given, mut before) = (0, 0);
    for (_, capacity) in agents.iter_mut() {
        let resources = &mut capacity.resources;
        if without(WaitCause::Cpu) {
            resources.millicpus = PLENTY.millicpus;
        }
        if without(WaitCause::Memory) {
            resources.memory_bytes = PLENTY.memory_bytes;
        }
        if without(WaitCause::Subnet) {
            resources.subnets = PLENTY.subnets;
        }
        // In proportion to what each has, so that the sum is right.
        if let Some(slots) = figures.slots {
            before += u64::from(capacity.slots);
            let until = u64::from(slots) * before / all.max(1);
            capacity.slots = u32::try_from(until - given).unwrap_or(u32::MAX);
            given = until;
        }
        if without(WaitCause::Slot) {
            capacity.slots = u32::MAX;
        }
    }
}

/// Returns the limits of the labels for which cells waited: the journal doesn't say them, but they were reached. Of the
/// labels of a cell, the one that the fewest cells had at once is taken for the limited one.
fn label_limits(state: &RunState, cells: &[Vec<Occupancy>]) -> BTreeMap<String, u32> {
    let mut by_label: BTreeMap<&String, Vec<&Occupancy>> = BTreeMap::new();
    for one in cells.iter().flatten() {
        for label in labels_of(state, one) {
            by_label.entry(label).or_default().push(one);
        }
    }
    let peaks = by_label.into_iter();
    let peaks: BTreeMap<&String, u32> = peaks
        .map(|(label, held)| (label, most_at_once(held.into_iter())))
        .collect();
    let waited = cells.iter().flatten().filter(|one| {
        let mut waits = one.waits.iter();
        waits.any(|wait| wait.cause == WaitCause::LabelLimit)
    });
    let limited = waited.filter_map(|one| {
        let labels = labels_of(state, one).iter();
        let labels = labels.filter_map(|label| Some((label.clone(), *peaks.get(label)?)));
        labels.min_by_key(|(_, peak)| *peak)
    });
    limited.collect()
}

#[cfg(test)]
mod tests;
