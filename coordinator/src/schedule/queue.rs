//! Waiting cells: classes of cells with the same constraints, and one queue per run and class, longest expected first.

use super::fleet::ShapeId;
use super::request::{CellRequest, ClassKey};
use phalanx_shared::id::{AgentId, CellId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The agents that may still be asked for a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// All agents: none was asked yet.
    Nobody,
    /// Only these agents: all were asked, and only these have gained room since.
    AllBut(BTreeSet<AgentId>),
}

pub(super) type ClassId = u32;

/// Cells with the same constraints.
#[derive(Debug)]
pub(super) struct Class {
    pub key: ClassKey,
    /// Shapes that offer all of its labels.
    pub shapes: Vec<ShapeId>,
    pub tried: Tried,
    /// Number of known cells, waiting or placed. The class is removed with the last one.
    pub cells: u32,
    /// Number of waiting cells.
    pub waiting: u32,
    /// Whether waiting cells may gain from pulling images ahead.
    pub prefetch_due: bool,
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
            cells: 0,
            waiting: 0,
            prefetch_due: false,
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

    pub fn enqueue(&mut self, class: ClassId, place: Place, request: CellRequest) {
        let cell = request.token.cell.clone();
        self.queues
            .entry(class)
            .or_default()
            .insert(place, cell.clone());
        let at = At::Waiting(place);
        self.cells.insert(cell, Entry { request, class, at });
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
