//! The messages between sessions and the rest of the coordinator. `dispatch` knows connections, sequence numbers and
//! leases; it doesn't know runs, queues or the journal. Their owner (`supervisor.rs`) connects the two channels.

use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::Event;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::{CellJob, Resources};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// An agent as it described itself in its Hello.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentInfo {
    /// Identity of the agent.
    pub id: AgentId,
    /// Display name.
    pub name: String,
    /// Version of the agent's program.
    pub version: String,
    /// Labels that it offers: `k=v`, or `k` alone for plain labels such as `docker`.
    pub labels: Vec<String>,
    /// Maximum number of concurrent attempts.
    pub slots: u32,
    /// Resources that it has, with its own overcommit applied.
    pub resources: Resources,
    /// Digests or references of the images that its engine holds.
    pub images: Vec<String>,
}

/// An attempt that a connecting agent still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryItem {
    /// Token of the attempt.
    pub token: Token,
    /// Sequence number of the last event that the agent created.
    pub last_seq: u64,
    /// Whether its steps are over (only unacknowledged events are left).
    pub finished: bool,
}

/// An attempt that a connecting agent continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoesOn {
    /// Token of the attempt.
    pub token: Token,
    /// Last sequence number that is durable.
    pub durable_seq: u64,
    /// Timeout of its cell. The margin that every attempt gets comes on top.
    pub timeout: Duration,
}

/// Facts from the sessions, in order per agent. Never dropped: the channel is bounded and slows a session down.
#[derive(Debug)]
pub enum FromAgents {
    /// An agent said Hello. The answer names the attempts that continue; all others are abandoned.
    Connected {
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
        answer: oneshot::Sender<Vec<GoesOn>>,
    },
    /// The connection broke. The agent's attempts may continue until `Lost`.
    Disconnected { agent: AgentId, reason: String },
    /// The agent didn't reconnect in time, said Goodbye, or fell silent: its attempts are over.
    Lost { agent: AgentId, reason: String },
    /// The agent takes no further offers.
    Draining { agent: AgentId },
    /// The agent accepted an offer.
    Accepted { token: Token },
    /// An offer was declined, or wasn't answered in time.
    Declined { token: Token, reason: String },
    /// An attempt was revoked: it didn't end in time, or its agent sent events that it may not send. Its token is
    /// closed at the gate.
    Revoked { token: Token, reason: String },
    /// Events of a live attempt, in sequence without gaps, already past the gate. The receiver sends `durable` when
    /// they are on disk.
    Events {
        token: Token,
        events: Vec<Event>,
        durable: oneshot::Sender<()>,
    },
}

/// Commands to the sessions.
#[derive(Clone)]
pub enum ToAgents {
    /// Run one attempt. Secret values stay in memory (I4).
    Offer {
        agent: AgentId,
        token: Token,
        job: Arc<CellJob>,
        secrets: Arc<BTreeMap<String, String>>,
        /// The attempt's parent in the run's trace, if the run is traced.
        traceparent: Option<String>,
    },
    /// Cancel an attempt: run `always` steps and clean up within the grace period. `force` skips the steps.
    Cancel { token: Token, order: CancelOrder },
    /// The attempt is over for the coordinator; the gate rejects further messages about it.
    Retire { token: Token },
    /// Take no new attempts, finish the running ones, say Goodbye.
    Drain { agent: AgentId },
    /// Pull these images because a queued cell will need them.
    Prefetch { agent: AgentId, images: Vec<String> },
}

impl std::fmt::Debug for ToAgents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Written by hand, so that secret values can't reach a log through it.
        match self {
            ToAgents::Offer { agent, token, .. } => write!(f, "Offer({agent}, {token})"),
            ToAgents::Cancel { token, order } => write!(f, "Cancel({token}, {order:?})"),
            ToAgents::Retire { token } => write!(f, "Retire({token})"),
            ToAgents::Drain { agent } => write!(f, "Drain({agent})"),
            ToAgents::Prefetch { agent, images } => write!(f, "Prefetch({agent}, {images:?})"),
        }
    }
}
