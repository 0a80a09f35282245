//! The contract between the link (the connection to the coordinator) and a cell (one attempt).

use crate::policy::Guard;
use crate::runtime::contract::Runtime;
use crate::sink::{ArtifactPiece, LogChunk, Stamped};
use crate::snapshot::Store;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::CellJob;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Everything an agent process offers to its cells.
#[derive(Clone)]
pub struct Host {
    /// The agent's id.
    pub agent: AgentId,
    /// The agent's state directory; each attempt gets a scratch directory below it.
    pub state_dir: PathBuf,
    /// The runtime for host processes.
    pub processes: Arc<dyn Runtime>,
    /// The runtime for containers, or the reason why no container engine is available.
    pub containers: Result<Arc<dyn Runtime>, String>,
    /// The agent's clock.
    pub clock: Arc<dyn crate::clock::Clock>,
    /// What specs may do on this host, and which addresses its requests may go to.
    pub guard: Arc<Guard>,
    /// Where snapshots are kept; `None` if this agent keeps none.
    pub snapshots: Option<Store>,
    /// The program that answers `demo-server` (`phalanx.demo_server` in specs).
    pub demo_server: Vec<String>,
}

/// One attempt to run, and the channels that connect it to the link.
pub struct Assignment {
    /// Token of the attempt: (run, cell, attempt, epoch).
    pub token: Token,
    /// The cell's job.
    pub job: Arc<CellJob>,
    /// Secret values by name; they are kept in memory only (I4).
    pub secrets: BTreeMap<String, String>,
    /// The directory of the unpacked workspace, if the job has one.
    pub workspace: Option<PathBuf>,
    /// W3C trace context of the run, if it is traced.
    pub traceparent: Option<String>,
    /// Receives the attempt's events in order; the spool numbers them. The last two are always `AttemptFinished` and
    /// `TornDown`, in this order.
    pub events: mpsc::Sender<Stamped>,
    /// Receives log bytes. It is closed before `AttemptFinished` is emitted, so that all logs precede the verdict.
    pub logs: mpsc::Sender<LogChunk>,
    /// Receives the bytes of artifacts. It is closed before `AttemptFinished` is emitted, like `logs`.
    pub artifacts: mpsc::Sender<ArtifactPiece>,
    /// Carries the order to cancel the attempt, once there is one.
    pub cancel: watch::Receiver<Option<CancelOrder>>,
}
