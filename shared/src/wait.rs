//! Why time passed without work being done. Events carry these causes, so that reports can name them.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// Why something waited. A closed set: a cause of a later version is read as [`WaitCause::Other`].
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum WaitCause {
    /// Every agent that could run the cell had all its slots taken.
    Slot,
    /// The run had reached its own limit (`max-parallel`).
    MaxParallel,
    /// The fleet had reached its limit for a label.
    LabelLimit,
    /// No agent that could run the cell had enough CPU time left to reserve.
    Cpu,
    /// No agent that could run the cell had enough memory left to reserve.
    Memory,
    /// No agent that could run the cell had a network left.
    Subnet,
    /// No agent that could run the cell was there, or those that were took no cells.
    Agent,
    /// An image was pulled.
    ImagePull,
    /// An image was built.
    ImageBuild,
    /// The cell's network was created.
    Network,
    /// A service had started and was not ready yet.
    Readiness,
    /// The last pause of a `poll`: what it polled for came true at some time within it.
    PollInterval,
    /// The pause before another try of a step, or the wait for another attempt at a cell.
    RetryPause,
    /// The engine was busy with other requests of this agent.
    EngineQueue,
    /// Another cell on the same machine made the snapshot that this one restored.
    Snapshot,
    /// A cause that was not recorded, or one that this version doesn't know.
    #[serde(other)]
    Other,
}

impl WaitCause {
    /// All causes.
    pub const ALL: &[WaitCause] = <Self as VariantArray>::VARIANTS;

    /// Returns the name in snake case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns whether a cell waits for it before an agent has it.
    pub fn is_queue(self) -> bool {
        matches!(
            self,
            WaitCause::Slot
                | WaitCause::MaxParallel
                | WaitCause::LabelLimit
                | WaitCause::Cpu
                | WaitCause::Memory
                | WaitCause::Subnet
                | WaitCause::Agent
        )
    }
}

/// Time that one cause took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Why it waited.
    pub cause: WaitCause,
    /// How long, in microseconds.
    pub us: u64,
}
