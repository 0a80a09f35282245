//! The pure scheduler: it takes one input and the current time, and returns a list of effects.
//!
//! Inputs come from runs (waiting cells, finished attempts) and from sessions (agents that connect, leave and decline).
//! Effects go back to runs (`Assign`) and sessions (`Prefetch`). Inputs that name unknown runs, cells or agents change
//! nothing.
//!
//! stage: queued: waits for an agent that meets its constraints; `schedule/why.rs` says which one it lacks

use super::fleet::{Agent, AgentView, Fleet};
use super::ledger::{Ledger, waits};
use super::queue::{At, Class, Classes, Entry, Place, RunQueue, Tried};
use super::request::{ClassId, ClassKey};
use super::snapshots::Hope;
use crate::dispatch::contract::AgentInfo;
use phalanx_proto::link::{Ahead, Snapshots};
use phalanx_shared::event::{Capacity as AgentCapacity, Placement};
use phalanx_shared::id::{AgentId, RunId, Token};
use phalanx_shared::invariant::{self, Capacity, Demand, Violation};
use phalanx_shared::plan::WantedImage;
use phalanx_shared::wait::WaitCause;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use super::request::CellRequest;

/// Input of the scheduler.
#[derive(Clone, Debug)]
pub enum Input {
    /// A run may queue cells from now on.
    RunAdded { run: RunId, limits: RunLimits },
    /// Cells are ready to run.
    Queued { run: RunId, cells: Vec<CellRequest> },
    /// These cells no longer want to run. Placed ones stay placed until released.
    Withdrawn { run: RunId, tokens: Vec<Token> },
    /// The run is over: its cells are forgotten and its reservations end.
    RunRemoved { run: RunId },
    /// An agent connected, or described itself anew. `holding` are its live attempts. The scheduler makes reservations
    /// for those that it doesn't know (after a restart).
    AgentUp {
        agent: AgentInfo,
        holding: Vec<CellRequest>,
    },
    /// The connection broke; the agent's attempts may continue.
    AgentDown { agent: AgentId },
    /// The agent takes no new attempts.
    AgentDraining { agent: AgentId },
    /// The agent is gone for good, and every reservation on it ends.
    AgentLost { agent: AgentId },
    /// The agent accepted an offer.
    Accepted { token: Token },
    /// The agent declined an offer or didn't answer: the reservation ends, and the agent gets no offers for a while.
    Declined { token: Token, reason: String },
    /// The agent says how far the images are that it prepares.
    Ahead { agent: AgentId, images: Vec<Ahead> },
    /// The snapshots that an agent keeps have changed.
    Snapshots {
        agent: AgentId,
        snapshots: Arc<Snapshots>,
    },
    /// Nothing of an attempt is left on its agent: the reservation ends.
    Released { token: Token },
    /// The time of a `WakeAt` has come.
    Tick,
}

/// Limits of a run as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// Priority among runs; higher comes first, the default is 0.
    pub priority: i32,
    /// Maximum number of cells that run concurrently; `None` for no limit.
    pub max_parallel: Option<u32>,
}

/// Effect of an input, for the caller to perform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Offer this attempt to this agent. The reservation is already made.
    Assign { token: Token, agent: AgentId },
    /// Let this agent pull and build these images and no others, because cells will need them.
    Prefetch {
        agent: AgentId,
        images: Vec<WantedImage>,
    },
    /// Send `Tick` at this time.
    WakeAt(Duration),
}

/// Agents, capacity and queues of all runs.
#[derive(Debug, Default)]
pub struct Scheduler {
    pub(super) fleet: Fleet,
    pub(super) classes: Classes,
    pub(super) runs: BTreeMap<RunId, RunQueue>,
    /// Maximum number of cells with a label that run concurrently in the whole fleet, by label.
    pub(super) label_limits: BTreeMap<String, u32>,
    pub(super) label_running: BTreeMap<String, u32>,
    /// Agents whose list of images to prepare may have changed.
    pub(super) changed_lists: BTreeSet<AgentId>,
    /// Waiting cells by the family of their snapshot.
    pub(super) waiting_for: BTreeMap<String, BTreeSet<Token>>,
    /// Counts arrivals and placements, to order them.
    arrivals: u64,
    /// Time of the newest input.
    now: Duration,
}

impl Scheduler {
    /// Creates a scheduler without agents and runs.
    pub fn new(label_limits: BTreeMap<String, u32>) -> Self {
        Scheduler {
            label_limits,
            ..Scheduler::default()
        }
    }

    /// Handles one input and returns what follows from it.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        self.now = now;
        let mut effects = Vec::new();
        match input {
            Input::RunAdded { run, limits } => self.add_run(run, limits),
            Input::Queued { run, cells } => self.queue(&run, cells),
            Input::Withdrawn { run, tokens } => self.withdraw(&run, &tokens),
            Input::RunRemoved { run } => self.remove_run(&run),
            Input::AgentUp { agent, holding } => self.agent_up(agent, holding),
            Input::AgentDown { agent } => {
                self.fleet.change(&agent, |a| a.connected = false);
                self.prepares_for_nobody(&agent);
            }
            Input::AgentDraining { agent } => {
                self.fleet.change(&agent, |a| a.draining = true);
                self.prepares_for_nobody(&agent);
            }
            Input::AgentLost { agent } => {
                self.prepares_for_nobody(&agent);
                let changed = self.fleet.keeps(&agent, BTreeSet::new());
                self.expect_anew(changed);
                let held = self.fleet.remove(&agent);
                held.iter().for_each(|token| self.forget(token));
            }
            Input::Ahead { agent, images } => self.prepared(&agent, images),
            Input::Snapshots { agent, snapshots } => self.keeps(&agent, &snapshots),
            Input::Accepted { token } => self.accepted(&token),
            Input::Declined { token, reason } => {
                if let Some(agent) = self.release(&token)
                    && let Some(until) = self.fleet.pause(&agent, reason, now)
                {
                    effects.push(Effect::WakeAt(until));
                }
            }
            Input::Released { token } => {
                self.release(&token);
            }
            Input::Tick => {
                let (ended, next) = self.fleet.end_pauses(now);
                ended.iter().for_each(|agent| self.has_more_room(agent));
                effects.extend(next.map(Effect::WakeAt));
            }
        }
        self.place(&mut effects);
        self.note_waits();
        self.prefetch(&mut effects);
        debug_assert_eq!(
            self.small().then(|| self.check()),
            self.small().then_some(Ok(()))
        );
        debug_assert!(!self.small() || self.waits_are_noted());
        debug_assert!(!self.small() || self.lists_are_wanted());
        effects
    }

    /// Returns all known agents, for display.
    pub fn agents(&self) -> Vec<AgentView> {
        self.fleet.agents().map(Agent::view).collect()
    }

    /// Returns an agent's display name, or its id if the agent isn't known.
    pub fn agent_name(&self, agent: &AgentId) -> String {
        let known = self.fleet.get(agent).map(|known| known.info.name.clone());
        known.unwrap_or_else(|| agent.to_string())
    }

    fn add_run(&mut self, run: RunId, limits: RunLimits) {
        self.arrivals += 1;
        let order = self.arrivals;
        let queue = self.runs.entry(run).or_insert_with(|| RunQueue {
            order,
            ..RunQueue::default()
        });
        queue.priority = limits.priority;
        queue.max_parallel = limits.max_parallel;
    }

    fn queue(&mut self, run: &RunId, cells: Vec<CellRequest>) {
        for request in cells {
            let cell = request.token.cell.clone();
            let known = self.runs.get(run).map(|queue| queue.cells.get(&cell));
            match known {
                None => return,
                // A newer attempt of a placed cell ends the older one's reservation; a repeated request changes
                // nothing.
                Some(Some(entry)) if entry.request.token.attempt >= request.token.attempt => {
                    continue;
                }
                Some(Some(entry)) => {
                    let token = entry.request.token.clone();
                    self.forget(&token);
                }
                Some(None) => {}
            }
            let class = self.class_of(&request);
            let place = self.place_of(&request);
            let token = request.token.clone();
            if let Some(queue) = self.runs.get_mut(run) {
                queue.enqueue(class, place, request, self.now);
            }
            self.waits_for_family(&token);
            if let Some(class) = self.classes.get_mut(class) {
                class.cells += 1;
                class.waiting += 1;
                class.prefetch_due = !class.key.images.is_empty();
            }
        }
    }

    /// Returns the place of a cell that arrives in its queue.
    fn place_of(&mut self, request: &CellRequest) -> Place {
        self.arrivals += 1;
        let wish = request.wish.as_ref();
        let is_kept = wish.is_some_and(|wish| self.fleet.known.is_kept(&wish.family));
        (Reverse(request.expects(is_kept)), self.arrivals)
    }

    fn class_of(&mut self, request: &CellRequest) -> ClassId {
        let fleet = &self.fleet;
        self.classes
            .intern(ClassKey::of(request), |key| fleet.shapes_for(key))
    }

    fn withdraw(&mut self, run: &RunId, tokens: &[Token]) {
        for token in tokens {
            let entry = self.runs.get(run).and_then(|q| q.cells.get(&token.cell));
            if entry.is_some_and(|e| e.request.token == *token && matches!(e.at, At::Waiting(_))) {
                self.forget(token);
            }
        }
    }

    fn remove_run(&mut self, run: &RunId) {
        let cells = self.runs.get(run).map(|queue| queue.cells.values());
        let tokens = cells.into_iter().flatten().map(|e| e.request.token.clone());
        for token in tokens.collect::<Vec<_>>() {
            self.forget(&token);
        }
        self.runs.remove(run);
    }

    fn agent_up(&mut self, agent: AgentInfo, holding: Vec<CellRequest>) {
        let id = agent.id.clone();
        self.prepares_for_nobody(&id);
        let arrived = self.fleet.arrive(agent);
        for class in self.classes.iter_mut() {
            if self.fleet.shape_meets(arrived.shape, &class.key) {
                if arrived.new_shape {
                    class.shapes.push(arrived.shape);
                }
                class.prefetch_due = class.waiting > 0 && !class.key.images.is_empty();
            }
        }
        for request in holding {
            self.adopt(&id, request);
        }
        self.expect_anew(arrived.families);
        self.has_more_room(&id);
    }

    /// Makes a reservation for an attempt that an agent already holds.
    fn adopt(&mut self, agent: &AgentId, request: CellRequest) {
        let token = request.token.clone();
        let Some(queue) = self.runs.get(&token.run) else {
            return;
        };
        match queue.cells.get(&token.cell) {
            Some(entry) if entry.request.token == token && entry.at == At::On(agent.clone()) => {
                return;
            }
            Some(entry) => {
                let known = entry.request.token.clone();
                self.forget(&known);
            }
            None => {}
        }
        let class = self.class_of(&request);
        if let Some(class) = self.classes.get_mut(class) {
            class.cells += 1;
            class.waiting += 1;
        }
        let place = self.place_of(&request);
        if let Some(queue) = self.runs.get_mut(&token.run) {
            queue.enqueue(class, place, request, self.now);
        }
        self.put(&token, agent);
    }

    fn accepted(&mut self, token: &Token) {
        if let Some(Entry {
            request,
            at: At::On(agent),
            ..
        }) = self.entry(token)
            && request.token == *token
        {
            let agent = agent.clone();
            self.fleet.change(&agent, |agent| agent.pause = None);
            self.has_more_room(&agent);
        }
    }

    pub(super) fn entry(&self, token: &Token) -> Option<&Entry> {
        self.runs.get(&token.run)?.cells.get(&token.cell)
    }

    /// Ends the reservation of a token and returns the agent that it was on. A stale token changes nothing.
    fn release(&mut self, token: &Token) -> Option<AgentId> {
        let entry = self.entry(token).filter(|e| e.request.token == *token)?;
        let At::On(agent) = entry.at.clone() else {
            return None;
        };
        self.forget(token);
        Some(agent)
    }

    /// Removes a cell from its queue or its agent, and from its class.
    fn forget(&mut self, token: &Token) {
        let Some(queue) = self.runs.get_mut(&token.run) else {
            return;
        };
        let Some(entry) = queue.cells.remove(&token.cell) else {
            return;
        };
        match entry.at {
            At::Waiting(place) => {
                queue.unqueue(entry.class, place);
                self.waits_no_more(token, entry.request.wish.as_ref());
                if let Some(class) = self.classes.get_mut(entry.class) {
                    class.waiting = class.waiting.saturating_sub(1);
                }
                self.nobody_waits(entry.class);
            }
            At::On(agent) => {
                queue.running = queue.running.saturating_sub(1);
                for label in &entry.request.labels {
                    if let Some(running) = self.label_running.get_mut(label) {
                        *running = running.saturating_sub(1);
                    }
                }
                let resources = &entry.request.resources;
                self.fleet.release(&agent, token, resources, entry.class);
                if let Some(wish) = &entry.request.wish {
                    self.fleet.wishes_no_more(&agent, &wish.family);
                }
                self.changed_lists.insert(agent.clone());
                self.has_more_room(&agent);
            }
        }
        self.classes.drop_cell(entry.class);
    }

    /// Lets exhausted classes ask this agent again.
    fn has_more_room(&mut self, agent: &AgentId) {
        let Some(shape) = self.fleet.shape_of(agent) else {
            return;
        };
        for class in self.classes.iter_mut() {
            if let Tried::AllBut(agents) = &mut class.tried
                && self.fleet.shape_meets(shape, &class.key)
            {
                agents.insert(agent.clone());
            }
        }
    }

    /// Places cells until none can start.
    fn place(&mut self, effects: &mut Vec<Effect>) {
        while let Some((token, agent)) = self.next_placement() {
            self.put(&token, &agent);
            self.arrivals += 1;
            if let Some(queue) = self.runs.get_mut(&token.run) {
                queue.served = self.arrivals;
            }
            effects.push(Effect::Assign { token, agent });
        }
    }

    /// Returns the next cell to start and its agent: runs by priority and fair share, within a run the longest expected
    /// cell.
    fn next_placement(&mut self) -> Option<(Token, AgentId)> {
        let mut runs: Vec<_> = self
            .runs
            .iter()
            .filter(|(_, run)| run.has_room() && !run.queues.is_empty())
            .map(|(id, run)| (run.turn(), id.clone()))
            .collect();
        runs.sort_unstable_by_key(|(turn, _)| *turn);
        for (_, run) in runs {
            while let Some((class, token)) = self.head(&run) {
                match self.agent_for(class, &token) {
                    Some(agent) => return Some((token, agent)),
                    None => self.exhaust(class),
                }
            }
        }
        None
    }

    /// Returns the longest expected cell of a run whose class is neither exhausted nor at a label limit.
    fn head(&self, run: &RunId) -> Option<(ClassId, Token)> {
        let queue = self.runs.get(run)?;
        let heads = queue.queues.iter().filter_map(|(class, cells)| {
            let known = self.classes.get(*class)?;
            let open = known.hopeful() && !self.label_limited(known);
            cells
                .first_key_value()
                .filter(|_| open)
                .map(|(place, cell)| (place, *class, cell))
        });
        let (_, class, cell) = heads.min_by_key(|(place, ..)| *place)?;
        Some((class, queue.cells.get(cell)?.request.token.clone()))
    }

    pub(super) fn label_limited(&self, class: &Class) -> bool {
        class.key.labels.iter().any(|label| {
            let limit = self.label_limits.get(label);
            let running = self.label_running.get(label).copied().unwrap_or(0);
            limit.is_some_and(|limit| running >= *limit)
        })
    }

    fn agent_for(&self, class: ClassId, token: &Token) -> Option<AgentId> {
        let class = self.classes.get(class)?;
        let request = self.entry(token).map(|entry| &entry.request);
        let hope = request.and_then(|request| {
            Some(Hope {
                wish: request.wish.as_ref()?,
                missed_ms: request.expected_ms,
                now: self.now,
            })
        });
        match &class.tried {
            Tried::Nobody => self.fleet.best(&class.key, &class.shapes, hope),
            Tried::AllBut(agents) => {
                let (key, shapes) = (&class.key, &class.shapes);
                self.fleet.best_of(key, shapes, agents, hope)
            }
        }
    }

    fn exhaust(&mut self, class: ClassId) {
        let Some(class) = self.classes.get_mut(class) else {
            return;
        };
        let asked = match std::mem::replace(&mut class.tried, Tried::AllBut(BTreeSet::new())) {
            Tried::Nobody => None,
            Tried::AllBut(agents) => Some(agents),
        };
        class.lacks = self
            .fleet
            .lacking(&class.key, &class.shapes, asked.as_ref());
    }

    /// Moves a waiting cell onto an agent.
    fn put(&mut self, token: &Token, agent: &AgentId) {
        let Some(queue) = self.runs.get_mut(&token.run) else {
            return;
        };
        let Some(entry) = queue.cells.get_mut(&token.cell) else {
            return;
        };
        let At::Waiting(place) = std::mem::replace(&mut entry.at, At::On(agent.clone())) else {
            return;
        };
        let (id, resources) = (entry.class, entry.request.resources);
        let wish = entry.request.wish.clone();
        if let (Some(wish), Some(shelf)) = (&wish, self.fleet.shelf_of(agent)) {
            entry.expects_ms = shelf.expects(wish, entry.request.expected_ms, self.now);
        }
        if let Some(ledger) = queue.ledgers.get(&id) {
            entry.waits = waits(&entry.arrived, &ledger.sums(self.now));
        }
        for label in &entry.request.labels {
            *self.label_running.entry(label.clone()).or_default() += 1;
        }
        queue.unqueue(id, place);
        queue.running += 1;
        if let Some(class) = self.classes.get_mut(id) {
            class.waiting = class.waiting.saturating_sub(1);
            self.fleet
                .reserve(agent, token, &resources, &class.key.images, id);
            self.changed_lists.insert(agent.clone());
        }
        self.nobody_waits(id);
        self.waits_no_more(token, wish.as_ref());
        if let Some(wish) = wish {
            self.fleet.wished(agent, &wish.family, self.now);
        }
    }

    /// Notes what the waiting cells wait for from now on. Looks only into runs of which it may have changed: the room
    /// below their own limit, their queues, or the cause of one of their classes.
    fn note_waits(&mut self) {
        let changed = self.changed_causes();
        let (classes, now) = (&self.classes, self.now);
        for queue in self.runs.values_mut() {
            let has_room = queue.has_room();
            if queue.noted != Some(has_room) {
                queue.noted = Some(has_room);
                let waiting: Vec<ClassId> = queue.queues.keys().copied().collect();
                queue.note(waiting, classes, now);
            } else if has_room && !changed.is_empty() {
                let waiting = changed.iter().copied();
                let waiting: Vec<ClassId> =
                    waiting.filter(|id| queue.queues.contains_key(id)).collect();
                queue.note(waiting, classes, now);
            }
        }
    }

    /// Returns the classes whose cells wait for something else than before, apart from their runs' own limits.
    fn changed_causes(&mut self) -> Vec<ClassId> {
        let mut changed = Vec::new();
        for (id, class) in self.classes.iter() {
            let cause = match self.label_limited(class) {
                true => WaitCause::LabelLimit,
                false => class.lacks,
            };
            if class.waits_for != Some(cause) {
                changed.push((id, cause));
            }
        }
        for (id, cause) in &changed {
            if let Some(class) = self.classes.get_mut(*id) {
                class.waits_for = Some(*cause);
            }
        }
        changed.into_iter().map(|(id, _)| id).collect()
    }

    /// Returns what a placed cell waited for, and what its agent has.
    pub fn placement(&self, token: &Token) -> Placement {
        let Some(entry) = self.entry(token).filter(|e| e.request.token == *token) else {
            return Placement::default();
        };
        let agent = match &entry.at {
            At::On(agent) => self.fleet.get(agent),
            At::Waiting(_) => None,
        };
        Placement {
            waits: entry.waits.clone(),
            expected_ms: Some(entry.expects_ms),
            capacity: agent.map(|agent| AgentCapacity {
                slots: agent.info.slots,
                resources: agent.info.resources,
                labels: agent.info.labels.clone(),
            }),
        }
    }

    /// Returns whether checking everything is cheap enough for debug builds.
    fn small(&self) -> bool {
        self.runs.values().map(|run| run.cells.len()).sum::<usize>() <= 64
    }

    /// Returns whether a visit of all runs and classes would note the same as [`Scheduler::note_waits`] did.
    fn waits_are_noted(&self) -> bool {
        self.runs.values().all(|queue| {
            queue.queues.keys().all(|id| {
                let cause = match self.classes.get(*id) {
                    _ if !queue.has_room() => WaitCause::MaxParallel,
                    Some(class) if self.label_limited(class) => WaitCause::LabelLimit,
                    Some(class) => class.lacks,
                    None => return true,
                };
                let known = queue.ledgers.get(id).and_then(Ledger::cause);
                known == Some(cause)
            })
        })
    }

    /// Checks I6 for the current state.
    pub fn check(&self) -> Result<(), Violation> {
        let mut waiting = Vec::new();
        for (run, queue) in &self.runs {
            for (cell, entry) in &queue.cells {
                if let At::Waiting(_) = entry.at {
                    let class = self.classes.get(entry.class);
                    waiting.push(Demand {
                        run,
                        cell,
                        labels: &entry.request.labels,
                        avoids: &entry.request.avoids,
                        resources: entry.request.resources,
                        limited: !queue.has_room() || class.is_some_and(|c| self.label_limited(c)),
                        needs: &entry.request.needs,
                    });
                }
            }
        }
        let agents = self.fleet.agents().map(|agent| Capacity {
            agent: &agent.info.id,
            labels: &agent.info.labels,
            free_slots: agent.free_slots(),
            free: agent.free(),
            takes: agent.takes(),
            policy: agent.info.policy.as_ref(),
        });
        invariant::nobody_waits_in_vain(&waiting, &agents.collect::<Vec<_>>())
    }
}
