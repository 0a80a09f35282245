//! A request to run a cell, and the constraints in it.

use super::snapshots::Wish;
use phalanx_shared::id::Token;
use phalanx_shared::plan::{Resources, WantedImage};
use phalanx_shared::policy::Need;
use std::collections::BTreeSet;

/// Number of a shape: what agents have in common that cells ask for.
pub(super) type ShapeId = usize;

/// Number of a class of interchangeable cells.
pub(super) type ClassId = u32;

/// A request to run a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRequest {
    /// Token of the attempt that will run.
    pub token: Token,
    /// Labels that an agent must offer.
    pub labels: Vec<String>,
    /// Labels that an agent must not have: those of pools that belong to other namespaces.
    pub avoids: Vec<String>,
    /// Resources that it reserves.
    pub resources: Resources,
    /// What it needs of its agent's machine, as far as that is known before it runs.
    pub needs: Vec<Need>,
    /// Images that its containers need, as far as they are known before it runs.
    pub images: Vec<WantedImage>,
    /// Expected duration in milliseconds; 0 if unknown. Without a snapshot, if it may restore one.
    pub expected_ms: u64,
    /// What it hopes for if it may restore a snapshot.
    pub wish: Option<Wish>,
}

impl CellRequest {
    /// Returns the expected duration in milliseconds if some agent keeps its snapshot, or if none does.
    pub(super) fn expects(&self, is_kept: bool) -> u64 {
        let restored = self.wish.as_ref().and_then(|wish| wish.restored_ms);
        restored.filter(|_| is_kept).unwrap_or(self.expected_ms)
    }
}

/// The constraints that make cells interchangeable for every agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ClassKey {
    pub labels: BTreeSet<String>,
    pub avoids: BTreeSet<String>,
    pub cpus: u64,
    pub memory: u64,
    pub subnets: u32,
    pub needs: BTreeSet<Need>,
    pub images: BTreeSet<WantedImage>,
}

impl ClassKey {
    pub fn of(request: &CellRequest) -> Self {
        ClassKey {
            labels: request.labels.iter().cloned().collect(),
            avoids: request.avoids.iter().cloned().collect(),
            cpus: request.resources.millicpus,
            memory: request.resources.memory_bytes,
            subnets: request.resources.subnets,
            images: request.images.iter().cloned().collect(),
            needs: request.needs.iter().cloned().collect(),
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
