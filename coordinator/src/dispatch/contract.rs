//! What sessions and the rest of the coordinator say to each other. `dispatch` knows connections, sequence numbers and leases;
//! it doesn't know runs, queues or the journal. The owner of these (`supervisor.rs`) wires the two channels.

use phalanx_shared::event::Event;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::{CellJob, Resources};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What an agent said of itself in its Hello.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentInfo {
    /// Its identity.
    pub id: AgentId,
    /// Its name for people.
    pub name: String,
    /// Its program version.
    pub version: String,
    /// What it offers: `k=v`, or `k` alone for plain labels such as `docker`.
    pub labels: Vec<String>,
    /// Attempts it takes at once.
    pub slots: u32,
    /// What it has, its own overcommit applied.
    pub resources: Resources,
    /// Digests or references of images that its engine holds.
    pub images: Vec<String>,
}

/// An attempt that a connecting agent still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryItem {
    /// Which.
    pub token: Token,
    /// The last event it made.
    pub last_seq: u64,
    /// Whether its steps are over (only unacknowledged events are left).
    pub finished: bool,
}

/// An attempt with which a connecting agent goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoesOn {
    /// Which.
    pub token: Token,
    /// The last sequence that is durable.
    pub durable_seq: u64,
    /// The timeout of its cell: how long its agent may take for it, before what every attempt may take beyond.
    pub timeout: Duration,
}

/// Facts from the sessions, in order per agent. Never dropped: the channel is bounded and slows a session down.
#[derive(Debug)]
pub enum FromAgents {
    /// An agent said Hello. The answer names the attempts that go on; all others are abandoned.
    Connected {
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
        answer: oneshot::Sender<Vec<GoesOn>>,
    },
    /// The connection is gone. Its attempts may go on until `LeaseExpired`.
    Disconnected { agent: AgentId, reason: String },
    /// It didn't come back in time, or said Goodbye, or fell silent: its attempts are over.
    Lost { agent: AgentId, reason: String },
    /// It takes no further offers.
    Draining { agent: AgentId },
    /// An offer was taken.
    Accepted { token: Token },
    /// An offer came to nothing: declined, or unanswered in time.
    Declined { token: Token, reason: String },
    /// An attempt was taken from its agent: it didn't end in time, or its agent said what it may not. The gate is closed behind it.
    Revoked { token: Token, reason: String },
    /// Events of a live attempt, in sequence without holes, already through the gate. `durable` is sent when they are on disk.
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
        /// The attempt's place in the run's trace, if it is traced.
        traceparent: Option<String>,
    },
    /// End an attempt: `always` steps and clean-up within the grace. `force` skips the steps.
    Cancel {
        token: Token,
        grace_ms: u64,
        reason: String,
        force: bool,
    },
    /// The attempt is over for the coordinator; whatever the agent still says of it is refused at the gate.
    Retire { token: Token },
    /// Take nothing new, finish what runs, say Goodbye.
    Drain { agent: AgentId },
    /// Pull these images, a queued cell will need them.
    Prefetch { agent: AgentId, images: Vec<String> },
}

impl std::fmt::Debug for ToAgents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // By hand, so that secret values can't reach a log through it.
        match self {
            ToAgents::Offer { agent, token, .. } => write!(f, "Offer({agent}, {token})"),
            ToAgents::Cancel {
                token,
                grace_ms,
                reason,
                force,
            } => {
                write!(f, "Cancel({token}, {grace_ms} ms, {reason}, force {force})")
            }
            ToAgents::Retire { token } => write!(f, "Retire({token})"),
            ToAgents::Drain { agent } => write!(f, "Drain({agent})"),
            ToAgents::Prefetch { agent, images } => write!(f, "Prefetch({agent}, {images:?})"),
        }
    }
}
