//! Waiting cells: classes that share constraints, and one queue per run and class, longest expected first.

use super::fleet::ShapeId;
use phalanx_shared::id::{AgentId, CellId, Token};
use phalanx_shared::plan::Resources;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A cell that wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRequest {
    /// The attempt that it will be.
    pub token: Token,
    /// Labels that an agent must offer.
    pub labels: Vec<String>,
    /// What it reserves.
    pub resources: Resources,
    /// Images that its containers need, as far as they are known before it runs.
    pub images: Vec<String>,
    /// How long it is expected to take; 0 if nothing is known.
    pub expected_ms: u64,
}

/// What makes two cells the same to every agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ClassKey {
    pub labels: BTreeSet<String>,
    pub cpus: u64,
    pub memory: u64,
    pub subnets: u32,
    pub images: BTreeSet<String>,
}

impl ClassKey {
    pub fn of(request: &CellRequest) -> Self {
        ClassKey {
            labels: request.labels.iter().cloned().collect(),
            cpus: request.resources.millicpus,
            memory: request.resources.memory_bytes,
            subnets: request.resources.subnets,
            images: request.images.iter().cloned().collect(),
        }
    }

    pub fn resources(&self) -> Resources {
        Resources {
            millicpus: self.cpus,
            memory_bytes: self.memory,
            subnets: self.subnets,
        }
    }
}

/// Which agents are still to be asked for a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// Nobody was asked yet.
    Nobody,
    /// Everybody was; only these have more room since.
    AllBut(BTreeSet<AgentId>),
}

pub(super) type ClassId = u32;

/// Cells with the same constraints.
#[derive(Debug)]
pub(super) struct Class {
    pub key: ClassKey,
    /// Shapes that offer all its labels.
    pub shapes: Vec<ShapeId>,
    pub tried: Tried,
    /// Cells known, waiting or placed; the class goes with the last one.
    pub cells: u32,
    /// Cells waiting.
    pub waiting: u32,
    /// Waiting cells may gain from images being pulled ahead.
    pub prefetch_due: bool,
}

impl Class {
    /// Whether asking could help.
    pub fn hopeful(&self) -> bool {
        !matches!(&self.tried, Tried::AllBut(agents) if agents.is_empty())
    }
}

/// All classes that some cell is of.
#[derive(Debug, Default)]
pub(super) struct Classes {
    ids: HashMap<ClassKey, ClassId>,
    /// In the order of their ids, so that the same inputs give the same effects in the same order.
    by_id: BTreeMap<ClassId, Class>,
    last: ClassId,
}

impl Classes {
    /// The class of a key, made if need be with the shapes that `shapes` finds.
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

    /// One cell fewer; the last one takes the class with it.
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

/// Where a cell is.
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

/// A run's cells.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    pub priority: i32,
    pub max_parallel: Option<u32>,
    /// Order of arrival among runs.
    pub order: u64,
    /// When it was given a slot last, by the scheduler's own count; 0 for never.
    pub served: u64,
    /// Cells placed.
    pub running: u32,
    pub cells: HashMap<CellId, Entry>,
    pub queues: BTreeMap<ClassId, BTreeMap<Place, CellId>>,
}

impl RunQueue {
    /// Whether its own limit lets one more start.
    pub fn has_room(&self) -> bool {
        self.max_parallel.is_none_or(|limit| self.running < limit)
    }

    /// Whose turn it is: the least comes first. With fewer slots than runs the numbers of running cells are mostly equal, and by age
    /// alone the youngest run would wait for the end of all others; so the one that was served longest ago goes first.
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

    /// Takes a cell out of its queue, if it is in one.
    pub fn unqueue(&mut self, class: ClassId, place: Place) {
        if let Some(queue) = self.queues.get_mut(&class) {
            queue.remove(&place);
            if queue.is_empty() {
                self.queues.remove(&class);
            }
        }
    }
}
