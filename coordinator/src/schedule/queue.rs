//! Waiting cells: classes of cells with the same constraints, and one queue per run and class, longest expected first.

use super::ledger::{Ledger, Sums};
use super::request::{CellRequest, ClassId, ClassKey, ShapeId};
use phalanx_shared::id::{AgentId, CellId};
use phalanx_shared::wait::{Wait, WaitCause};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// The agents that may still be asked for a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// All agents: none was asked yet.
    Nobody,
    /// Only these agents: all were asked, and only these have gained room since.
    AllBut(BTreeSet<AgentId>),
}

/// Cells with the same constraints.
#[derive(Debug)]
pub(super) struct Class {
    pub key: ClassKey,
    /// Shapes that offer all of its labels.
    pub shapes: Vec<ShapeId>,
    pub tried: Tried,
    /// What the agents lacked that were asked last.
    pub lacks: WaitCause,
    /// What its waiting cells wait for where their run's own limit allows more; `None` until it is noted.
    pub waits_for: Option<WaitCause>,
    /// Number of known cells, waiting or placed. The class is removed with the last one.
    pub cells: u32,
    /// Number of waiting cells.
    pub waiting: u32,
    /// Whether agents may have to be chosen that prepare the images of waiting cells.
    pub prefetch_due: bool,
    /// Agents that were chosen for that.
    pub next: BTreeSet<AgentId>,
    /// Whether more would have been chosen if their lists were shorter.
    pub starved: bool,
}

impl Class {
    /// Returns whether some agent may still be asked.
    pub fn hopeful(&self) -> bool {
        !matches!(&self.tried, Tried::AllBut(agents) if agents.is_empty())
    }
}

/// All classes that have cells.
#[derive(Debug, Default)]
pub(super) struct Classes {
    ids: HashMap<ClassKey, ClassId>,
    /// Ordered by id, so that the same inputs give the same effects in the same order.
    by_id: BTreeMap<ClassId, Class>,
    last: ClassId,
}

impl Classes {
    /// Returns the class of a key. Creates it if necessary, with the shapes that `shapes` finds.
    pub fn intern(
        &mut self,
        key: ClassKey,
        shapes: impl FnOnce(&ClassKey) -> Vec<ShapeId>,
    ) -> ClassId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        self.last = self.last.wrapping_add(1);
        let class = Class {
            shapes: shapes(&key),
            key: key.clone(),
            tried: Tried::Nobody,
            lacks: WaitCause::Agent,
            waits_for: None,
            cells: 0,
            waiting: 0,
            prefetch_due: false,
            next: BTreeSet::new(),
            starved: false,
        };
        self.ids.insert(key, self.last);
        self.by_id.insert(self.last, class);
        self.last
    }

    pub fn get(&self, id: ClassId) -> Option<&Class> {
        self.by_id.get(&id)
    }

    pub fn get_mut(&mut self, id: ClassId) -> Option<&mut Class> {
        self.by_id.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.by_id.iter().map(|(id, class)| (*id, class))
    }

    pub fn iter_mut_with_ids(&mut self) -> impl Iterator<Item = (ClassId, &mut Class)> {
        self.by_id.iter_mut().map(|(id, class)| (*id, class))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Class> {
        self.by_id.values_mut()
    }

    /// Removes one cell from a class. The class is removed with its last cell.
    pub fn drop_cell(&mut self, id: ClassId) {
        if let Some(class) = self.by_id.get_mut(&id) {
            class.cells = class.cells.saturating_sub(1);
            if class.cells == 0
                && let Some(class) = self.by_id.remove(&id)
            {
                self.ids.remove(&class.key);
            }
        }
    }
}

/// Place in a queue: longest expected first, then in the order queued.
pub(super) type Place = (Reverse<u64>, u64);

/// Where a cell is: in a queue or on an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    Waiting(Place),
    On(AgentId),
}

/// A cell that the scheduler knows.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub request: CellRequest,
    pub class: ClassId,
    pub at: At,
    /// The state of its ledger when it was queued.
    pub arrived: Sums,
    /// What it waited for, once it is placed.
    pub waits: Vec<Wait>,
    /// Its expected duration in milliseconds where it is placed.
    pub expects_ms: u64,
}

/// The cells of a run.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    pub priority: i32,
    pub max_parallel: Option<u32>,
    /// Order of arrival among runs.
    pub order: u64,
    /// Arrival count when the run was last given a slot; 0 if never.
    pub served: u64,
    /// Number of placed cells.
    pub running: u32,
    pub cells: HashMap<CellId, Entry>,
    pub queues: BTreeMap<ClassId, BTreeMap<Place, CellId>>,
    /// What the waiting cells of each class wait for.
    pub ledgers: BTreeMap<ClassId, Ledger>,
    /// Whether the run had room when the ledgers were last brought up to date; `None` if a cell was queued since.
    pub noted: Option<bool>,
}

impl RunQueue {
    /// Returns whether the run's own limit lets one more cell start.
    pub fn has_room(&self) -> bool {
        self.max_parallel.is_none_or(|limit| self.running < limit)
    }

    /// Returns the run's sort key; the smallest comes first. With fewer slots than runs, most runs have equally many
    /// running cells. Ordered by age alone, the youngest run would then wait until all others end; so the run that was
    /// served longest ago goes first.
    pub fn turn(&self) -> (Reverse<i32>, u32, u64, u64) {
        (
            Reverse(self.priority),
            self.running,
            self.served,
            self.order,
        )
    }

    pub fn enqueue(&mut self, class: ClassId, place: Place, request: CellRequest, now: Duration) {
        let arrived = self.ledgers.entry(class).or_default().sums(now);
        self.noted = None;
        let cell = request.token.cell.clone();
        self.queues
            .entry(class)
            .or_default()
            .insert(place, cell.clone());
        let at = At::Waiting(place);
        let entry = Entry {
            request,
            class,
            at,
            arrived,
            waits: Vec::new(),
            expects_ms: place.0.0,
        };
        self.cells.insert(cell, entry);
    }

    /// Returns what the waiting cells of a class wait for.
    pub fn cause(&self, class: &Class) -> Option<WaitCause> {
        match self.has_room() {
            true => class.waits_for,
            false => Some(WaitCause::MaxParallel),
        }
    }

    /// Notes what the waiting cells of some classes wait for from now on.
    pub fn note(&mut self, waiting: Vec<ClassId>, classes: &Classes, now: Duration) {
        for id in waiting {
            if let Some(cause) = classes.get(id).and_then(|class| self.cause(class)) {
                self.ledgers.entry(id).or_default().waits_for(cause, now);
            }
        }
    }

    /// Moves a waiting cell in its queue after it became known whether an agent keeps its snapshot.
    pub fn expect_anew(&mut self, cell: &CellId, is_kept: bool) {
        let Some(entry) = self.cells.get_mut(cell) else {
            return;
        };
        let At::Waiting((_, arrived)) = entry.at else {
            return;
        };
        let place = (Reverse(entry.request.expects(is_kept)), arrived);
        let before = std::mem::replace(&mut entry.at, At::Waiting(place));
        entry.expects_ms = place.0.0;
        if let (At::Waiting(before), Some(queue)) = (before, self.queues.get_mut(&entry.class)) {
            queue.remove(&before);
            queue.insert(place, cell.clone());
        }
    }

    /// Removes a cell from its queue if it is in one.
    pub fn unqueue(&mut self, class: ClassId, place: Place) {
        if let Some(queue) = self.queues.get_mut(&class) {
            queue.remove(&place);
            if queue.is_empty() {
                self.queues.remove(&class);
            }
        }
    }
}
