//! The plan: the fully expanded, immutable list of cells of one spec and its inputs.

use crate::id::CellId;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

mod advice;
mod cells;
mod context;
mod expand;
mod job;
mod probe;
mod select;
mod settings;
mod source;
mod vars;

pub use advice::advice;
pub use cells::cell_id;
pub use expand::{Request, expand};
pub use job::Jobs;
pub use select::Selection;
pub use source::{PackedSpec, SpecSource};

/// All cells of one spec and inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// SHA-256 over spec, files, inputs and cells, in hexadecimal (I5).
    pub digest: String,
    /// The spec's name.
    pub spec: String,
    /// The inputs after defaults and conversion.
    pub inputs: Map<String, Value>,
    /// The axes in the order written, for tables.
    pub axes: Vec<String>,
    /// Rows of the coverage table: key and title.
    pub coverage: Vec<(String, String)>,
    /// The cells in matrix order.
    pub cells: Vec<PlannedCell>,
    /// At most so many cells of the run at once.
    pub max_parallel: Option<u32>,
    /// Whether a failed cell cancels the rest.
    pub fail_fast: bool,
    /// How long a cell may wait for its first start, counted from the submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// The digest of the workspace, if the plan was made with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The workspace's files that expressions read, so that a cell's variables can be evaluated without it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// One cell of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// From the cell's own axis values; the same everywhere.
    pub id: CellId,
    /// For people.
    pub name: String,
    /// The axis values in the order of the axes, then keys that `include` added.
    pub matrix: IndexMap<String, Value>,
    /// Labels that an agent must offer.
    pub runs_on: Vec<String>,
    /// A mark beside the outcome.
    pub experimental: bool,
    /// What the scheduler reserves.
    pub resources: Resources,
    /// Limit of the whole cell.
    pub timeout_ms: u64,
    /// Tries after `errored`.
    pub attempts: u32,
    /// Further tries of a failed cell.
    pub retries: u32,
}

/// A reservation, and what an agent has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub millicpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Cell networks.
    pub subnets: u32,
}

impl Resources {
    /// Whether this reservation fits into what is free.
    pub fn fits(&self, free: &Resources) -> bool {
        self.millicpus <= free.millicpus
            && self.memory_bytes <= free.memory_bytes
            && self.subnets <= free.subnets
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Resources) -> Resources {
        Resources {
            millicpus: self.millicpus.saturating_add(other.millicpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            subnets: self.subnets.saturating_add(other.subnets),
        }
    }

    /// What is left of this when `taken` is taken; never less than nothing.
    #[must_use]
    pub fn minus(&self, taken: &Resources) -> Resources {
        Resources {
            millicpus: self.millicpus.saturating_sub(taken.millicpus),
            memory_bytes: self.memory_bytes.saturating_sub(taken.memory_bytes),
            subnets: self.subnets.saturating_sub(taken.subnets),
        }
    }
}

/// What an agent needs to run one cell: the spec, and every planned context with its values.
/// Secrets are in it by name only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellJob {
    /// What all cells of the run share.
    #[serde(flatten)]
    pub source: Arc<SpecSource>,
    /// The cell.
    pub cell: PlannedCell,
    /// `inputs`.
    pub inputs: Map<String, Value>,
    /// `matrix`, keys that only other cells have as null.
    pub matrix: Map<String, Value>,
    /// `vars`, evaluated.
    pub vars: Map<String, Value>,
    /// `workspace` (`workspace.digest`), or empty.
    pub workspace: Map<String, Value>,
    /// Whether and how long the stack is kept afterwards.
    pub keep: Keep,
}

/// Whether a stack outlives its attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Torn down.
    #[default]
    Never,
    /// Kept if the cell failed, for so many seconds.
    OnFailure { ttl_s: u64 },
    /// Kept, for so many seconds.
    Always { ttl_s: u64 },
}

#[cfg(test)]
mod tests;
