//! The messages between sessions and the rest of the coordinator. `dispatch` knows connections, sequence numbers and
//! leases; it doesn't know runs or queues. Reports on an attempt go straight to its run ([`ToRun`]), changes of an agent
//! to its owner ([`FromAgents`]).

use super::reason::{AgentGone, DeclineReason, LossCause};
use super::sequence::InSequence;
use crate::journal::Receipt;
use phalanx_proto::link::{Ahead, Held, Hello, Snapshots};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::{CellJob, Resources, WantedImage};
use phalanx_shared::policy::Rules;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
    /// What its policy allows; `None` if it doesn't say.
    pub policy: Option<Rules>,
    /// Maximum images that it prepares ahead at the same time; `None` if it is of an earlier version, which only pulls and
    /// reports nothing.
    pub ahead: Option<u32>,
    /// The snapshots that it keeps.
    pub snapshots: Arc<Snapshots>,
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

/// Splits a Hello into the agent's description and its inventory.
pub(super) fn take_apart(hello: Hello) -> (AgentInfo, Vec<InventoryItem>) {
    let Hello {
        agent,
        name,
        version,
        protocols: _,
        labels,
        slots,
        resources,
        images,
        inventory,
        instance: _,
        number: _,
        policy,
        ahead,
        snapshots,
    } = hello;
    let info = AgentInfo {
        id: agent,
        name,
        version,
        labels,
        slots,
        resources,
        images,
        policy,
        ahead,
        snapshots: Arc::new(snapshots.unwrap_or_default()),
    };
    let item = |held: Held| InventoryItem {
        token: held.token,
        last_seq: held.last_seq,
        finished: held.finished,
    };
    (info, inventory.into_iter().map(item).collect())
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

/// The way from an attempt's session to its run. A session gets one with each offer and each attempt that continues.
pub trait ToRun: Send + Sync {
    /// Passes a report on, in order. It never waits: what an attempt may have under way is bounded by its session,
    /// which ends the connection of an agent that sends more than it may without acknowledgement. If the run is over, or
    /// crashed and is being recovered, the report is dropped, and with it the receipt of its events.
    fn report(&self, report: Report);
}

/// A report on one attempt, from its session to its run.
#[derive(Debug)]
pub enum Report {
    /// The agent accepted the offer.
    Accepted,
    /// The offer was declined, or failed.
    Declined(DeclineReason),
    /// The attempt was taken from its agent. Its token is closed at the gate.
    Revoked(LossCause),
    /// Events that passed the gate, in sequence without gaps.
    Events {
        /// The events.
        events: InSequence,
        /// Goes with the events to the journal, which tells the session when they are on disk.
        receipt: Receipt,
    },
}

/// An attempt that continues, and the way to its run.
pub struct Resumed {
    /// The attempt.
    pub goes_on: GoesOn,
    /// Receives its reports.
    pub run: Arc<dyn ToRun>,
}

/// The answer to a Hello: the attempts that continue. All others are abandoned.
pub type Answer = Box<dyn FnOnce(Vec<Resumed>) + Send>;

/// Changes of agents, from the sessions, in order per agent. Unbounded: each is a connection that came or went, and the
/// receiver never waits.
pub enum FromAgents {
    /// An agent said Hello. An answer that comes after its next Hello has no effect.
    Connected {
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
        answer: Answer,
    },
    /// The connection broke. The agent's attempts may continue until `Lost`.
    Disconnected { agent: AgentId, reason: String },
    /// The agent is gone: its attempts are over.
    Lost { agent: AgentId, gone: AgentGone },
    /// The agent takes no further offers.
    Draining { agent: AgentId },
    /// How far the images are that the agent prepares. Bounded like its list, and sent at most once per change.
    Ahead { agent: AgentId, images: Vec<Ahead> },
    /// The snapshots that the agent keeps have changed.
    Snapshots {
        agent: AgentId,
        snapshots: Arc<Snapshots>,
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
        /// Receives the attempt's reports.
        run: Arc<dyn ToRun>,
    },
    /// Cancel an attempt: run `always` steps and clean up within the grace period. `force` skips the steps.
    Cancel { token: Token, order: CancelOrder },
    /// The attempt is over for the coordinator; the gate rejects further messages about it.
    Retire { token: Token },
    /// Take no new attempts, finish the running ones, say Goodbye.
    Drain { agent: AgentId },
    /// Prepare these images and no others, because cells will need them.
    Prefetch {
        agent: AgentId,
        images: Vec<WantedImage>,
    },
    /// Remove the snapshots with these keys, and say what is kept then.
    RemoveSnapshots { agent: AgentId, keys: Vec<String> },
    /// Connect again and say which attempts you hold: a run was recovered and has to know.
    Reconnect { agent: AgentId },
}

impl fmt::Debug for ToAgents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written by hand, so that secret values can't reach a log through it.
        match self {
            ToAgents::Offer { agent, token, .. } => write!(f, "Offer({agent}, {token})"),
            ToAgents::Cancel { token, order } => write!(f, "Cancel({token}, {order:?})"),
            ToAgents::Retire { token } => write!(f, "Retire({token})"),
            ToAgents::Drain { agent } => write!(f, "Drain({agent})"),
            ToAgents::Prefetch { agent, images } => {
                let ids: Vec<&str> = images.iter().map(WantedImage::id).collect();
                write!(f, "Prefetch({agent}, {ids:?})")
            }
            ToAgents::RemoveSnapshots { agent, keys } => {
                write!(f, "RemoveSnapshots({agent}, {keys:?})")
            }
            ToAgents::Reconnect { agent } => write!(f, "Reconnect({agent})"),
        }
    }
}
