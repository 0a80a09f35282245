//! A request to run a cell, and the constraints in it.

use phalanx_shared::id::Token;
use phalanx_shared::plan::Resources;
use std::collections::BTreeSet;

/// A request to run a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRequest {
    /// Token of the attempt that will run.
    pub token: Token,
    /// Labels that an agent must offer.
    pub labels: Vec<String>,
    /// Resources that it reserves.
    pub resources: Resources,
    /// Images that its containers need, as far as they are known before it runs.
    pub images: Vec<String>,
    /// Expected duration in milliseconds; 0 if unknown.
    pub expected_ms: u64,
}

/// The constraints that make cells interchangeable for every agent.
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
