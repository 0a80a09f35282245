//! What the link (connection to the coordinator) and a cell (one attempt) know of each other.

use crate::runtime::contract::Runtime;
use crate::sequence::effect::Input;
use crate::sink::{LogChunk, Stamped};
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::CellJob;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What one agent process offers to every cell.
#[derive(Clone)]
pub struct Host {
    /// The agent's identity.
    pub agent: AgentId,
    /// Its directory; attempts get a scratch directory below it.
    pub state_dir: PathBuf,
    /// For host processes.
    pub processes: Arc<dyn Runtime>,
    /// For containers, if an engine answers; else why not.
    pub containers: Result<Arc<dyn Runtime>, String>,
    /// The agent's clock.
    pub clock: Arc<dyn crate::clock::Clock>,
    /// Whether `run` steps and `process` services are allowed on this host.
    pub allow_host_commands: bool,
    /// The program that answers `demo-server` (`phalanx.demo_server` in specs).
    pub demo_server: Vec<String>,
}

/// One attempt to run.
pub struct Assignment {
    /// The right to run it.
    pub token: Token,
    /// What to run.
    pub job: Arc<CellJob>,
    /// Secret values by name (I4: memory only).
    pub secrets: BTreeMap<String, String>,
    /// The workspace's directory, if the job has one.
    pub workspace: Option<PathBuf>,
    /// W3C trace context of the run, if traced.
    pub traceparent: Option<String>,
    /// Events go here, unnumbered, in order. The last ones are `AttemptFinished` and `TornDown`, always both, always in this order.
    pub events: mpsc::Sender<Stamped>,
    /// Log bytes go here. Closed before `AttemptFinished` is emitted: a verdict waits for its logs.
    pub logs: mpsc::Sender<LogChunk>,
    /// The order to end.
    pub cancel: watch::Receiver<Option<CancelOrder>>,
}

/// The order to end an attempt; a later one may only be harsher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelOrder {
    /// For `always` steps and stopping services.
    pub grace: Duration,
    /// Why.
    pub reason: String,
    /// Skips the `always` steps.
    pub force: bool,
}

impl From<CancelOrder> for Input {
    fn from(order: CancelOrder) -> Input {
        let CancelOrder {
            grace,
            reason,
            force,
        } = order;
        Input::Cancelled {
            grace,
            reason,
            force,
        }
    }
}
