//! The plan: the fully expanded, immutable list of cells of one spec and its inputs.

use crate::id::CellId;
use crate::time::Timestamp;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

mod advice;
mod cells;
mod context;
mod expand;
mod family;
mod job;
mod kin;
mod networks;
mod probe;
mod select;
mod settings;
mod source;
mod vars;
mod wanted;

pub use advice::advice;
pub use cells::cell_id;
pub use expand::{Request, expand};
pub use job::Jobs;
pub use select::Selection;
pub use source::{PackedSpec, SpecSource};
pub use wanted::{MAX_DEFINITION, Wanted, WantedImage};

/// All cells of one spec with one set of inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// SHA-256 over spec, files, inputs and cells, in hexadecimal (I5).
    pub digest: String,
    /// Name of the spec.
    pub spec: String,
    /// Inputs after defaults and conversion.
    pub inputs: Map<String, Value>,
    /// Axes in the order written, for tables.
    pub axes: Vec<String>,
    /// Rows of the coverage table: key and title.
    pub coverage: Vec<(String, String)>,
    /// Cells in matrix order.
    pub cells: Vec<PlannedCell>,
    /// Maximum number of the run's cells that run concurrently.
    pub max_parallel: Option<u32>,
    /// Whether a failed cell cancels the remaining cells.
    pub fail_fast: bool,
    /// Maximum time in milliseconds that a cell waits for its first start, counted from the submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// Maximum number of skipped steps; a run with more fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_skips: Option<u32>,
    /// Digest of the workspace, if the plan was made with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Files of the workspace that expressions read, by path. With them a cell's variables can be evaluated without the
    /// workspace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// One cell of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// Hash of the cell's own axis values; the same on every machine.
    pub id: CellId,
    /// Display name.
    pub name: String,
    /// Axis values in the order of the axes, then the keys that `include` added.
    pub matrix: IndexMap<String, Value>,
    /// Labels that an agent must offer.
    pub runs_on: Vec<String>,
    /// Whether the cell is marked as experimental. Reports show the mark; it doesn't affect outcomes.
    pub experimental: bool,
    /// Resources that the scheduler reserves.
    pub resources: Resources,
    /// Timeout of the whole cell, in milliseconds.
    pub timeout_ms: u64,
    /// Maximum tries at a cell that ends `errored`.
    pub attempts: u32,
    /// Maximum further tries at a failed cell.
    pub retries: u32,
}

/// Resources that a cell reserves or an agent has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU time in thousandths of a CPU.
    pub millicpus: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Number of networks, if a cell has more than one.
    pub subnets: u32,
}

impl Resources {
    /// Returns whether this reservation fits into the free resources.
    pub fn fits(&self, free: &Resources) -> bool {
        self.millicpus <= free.millicpus
            && self.memory_bytes <= free.memory_bytes
            && self.subnets <= free.subnets
    }

    /// Returns the sum of both.
    #[must_use]
    pub fn plus(&self, other: &Resources) -> Resources {
        Resources {
            millicpus: self.millicpus.saturating_add(other.millicpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            subnets: self.subnets.saturating_add(other.subnets),
        }
    }

    /// Returns what is left when `taken` is subtracted; never below zero.
    #[must_use]
    pub fn minus(&self, taken: &Resources) -> Resources {
        Resources {
            millicpus: self.millicpus.saturating_sub(taken.millicpus),
            memory_bytes: self.memory_bytes.saturating_sub(taken.memory_bytes),
            subnets: self.subnets.saturating_sub(taken.subnets),
        }
    }
}

/// The data that an agent needs to run one cell: the spec, and the values of every planned context. Secrets are
/// included by name only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellJob {
    /// Spec and sources, shared by all cells of the run.
    #[serde(flatten)]
    pub source: Arc<SpecSource>,
    /// The planned cell.
    pub cell: PlannedCell,
    /// Values of `inputs`.
    pub inputs: Map<String, Value>,
    /// Values of `matrix`; keys that only other cells have are null.
    pub matrix: Map<String, Value>,
    /// Values of `vars`, evaluated.
    pub vars: Map<String, Value>,
    /// Values of `workspace` (`workspace.digest`); empty without a workspace.
    pub workspace: Map<String, Value>,
    /// Whether and how long the stack is kept after the attempt.
    pub keep: Keep,
    /// Time at which the run was submitted, by which dates in the spec are judged. `None` while the job has no run, and
    /// from coordinators that don't send it: no date is over then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted: Option<Timestamp>,
    /// Images by service: a reference with a digest, or an engine's id. They replace what the spec's `image` or `build`
    /// gives, so that a cell runs again with the images of an earlier run. Empty for all others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// What the cell does with snapshots.
    #[serde(default, skip_serializing_if = "SnapshotUse::is_usual")]
    pub snapshots: SnapshotUse,
    /// Digest of what the coordinator knows of the cell's snapshot, the same for cells whose snapshots are probably the
    /// same. The key itself depends on images and files that only the agent knows. `None` if the cell uses no snapshot,
    /// and from coordinators of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_family: Option<String>,
}

/// What a run's cells do with snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotUse {
    /// Restore them, and make those that are missing.
    #[default]
    Use,
    /// Neither restore nor make any.
    Never,
    /// Make them again.
    Refresh,
}

impl SnapshotUse {
    /// Returns whether it is the default.
    pub fn is_usual(&self) -> bool {
        *self == SnapshotUse::default()
    }
}

/// Whether a stack outlives its attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The stack is always torn down.
    #[default]
    Never,
    /// The stack is kept for `ttl_s` seconds if the cell failed.
    OnFailure { ttl_s: u64 },
    /// The stack is always kept, for `ttl_s` seconds.
    Always { ttl_s: u64 },
}

#[cfg(test)]
mod tests;
