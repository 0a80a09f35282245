//! The messages of a session as checked domain types: inputs and outputs of the cores of both sides.
//!
//! The generated types stay at the edges of both sides; [`crate::convert`] converts between them and these types.

use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::Event;
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::plan::{CellJob, Resources, WantedImage};
use phalanx_shared::policy::Rules;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An agent's description of itself when it connects.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Identity of the agent, stable over restarts.
    pub agent: AgentId,
    /// Display name.
    pub name: String,
    /// Version of the agent program.
    pub version: String,
    /// Lowest and highest protocol version that the agent supports.
    pub protocols: (u32, u32),
    /// Labels: `k=v`, or `k` alone.
    pub labels: Vec<String>,
    /// Maximum concurrent attempts.
    pub slots: u32,
    /// Total resources of the agent.
    pub resources: Resources,
    /// References of the images in its engine.
    pub images: Vec<String>,
    /// Attempts that the agent still holds.
    pub inventory: Vec<Held>,
    /// Identifies the agent's process: different at each start; empty for agents of earlier versions.
    pub instance: String,
    /// Number of this Hello among those of the process: each is higher than the one before; 0 for agents of earlier
    /// versions.
    pub number: u64,
    /// What its policy allows; `None` if it doesn't say.
    pub policy: Option<Rules>,
    /// Maximum images that it pulls and builds ahead at the same time; `None` for agents of earlier versions, which report
    /// nothing about them.
    pub ahead: Option<u32>,
    /// The snapshots that it keeps; `None` if it keeps none at all.
    pub snapshots: Option<Snapshots>,
}

/// Report that an agent's process has died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obituary {
    /// Identity of the agent.
    pub agent: AgentId,
    /// Instance of the process that died.
    pub instance: String,
}

/// An attempt that a connecting agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Token of the attempt.
    pub token: Token,
    /// `seq` of the last event that the agent made.
    pub last_seq: u64,
    /// Whether the attempt is over and only unacknowledged events are left.
    pub finished: bool,
}

/// The response to a Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Chosen protocol version.
    pub protocol: u32,
    /// Epoch (term of office) of the coordinator.
    pub epoch: u64,
    /// How long an answered heartbeat gives the agent the right to run.
    pub lease: Duration,
    /// Interval at which the agent sends heartbeats.
    pub heartbeat: Duration,
    /// Attempts that continue, each with its last durable sequence; all others of the inventory are abandoned.
    pub resume: Vec<(Token, u64)>,
    /// Version of the coordinator program.
    pub coordinator_version: String,
    /// Rules that narrow what the agent's policy allows.
    pub policy: Option<Rules>,
}

/// A message from an agent to the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAgent {
    /// First message of a session.
    Hello(Box<Hello>),
    /// The agent accepts an offer.
    Accept { token: Token },
    /// The agent declines an offer.
    Decline { token: Token, reason: String },
    /// Events of one attempt, in sequence without gaps, never empty.
    Events { token: Token, events: Vec<Event> },
    /// Asks for the lease to be renewed.
    Heartbeat { number: u64 },
    /// The agent has received a cancellation.
    Cancelling { token: Token },
    /// The agent accepts no further offers.
    Draining,
    /// The agent leaves.
    Goodbye { reason: String },
    /// How far the images of the last `Prefetch` are.
    Ahead { images: Vec<Ahead> },
    /// The snapshots that the agent keeps have changed.
    Snapshots(Snapshots),
}

/// The snapshots that an agent keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// The snapshots, the most recently used first.
    pub held: Vec<HeldSnapshot>,
    /// Identifies the directory that keeps them. Agents of one machine may share it.
    pub store: String,
    /// Keys of those that could not be removed as ordered, each with the reason.
    pub left: Vec<(String, String)>,
}

/// A snapshot that an agent keeps. Holds neither captures nor secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSnapshot {
    /// Its key: 64 hexadecimal digits.
    pub key: String,
    /// The family that its cell's job named; empty if it named none.
    pub family: String,
    /// Name of the spec.
    pub spec: String,
    /// Name of the group of steps.
    pub group: String,
    /// Size of all its files and images.
    pub bytes: u64,
    /// When it was made.
    pub made: Timestamp,
    /// When it was last restored, or made if it never was.
    pub used: Timestamp,
    /// Run that made it.
    pub run: RunId,
    /// Cell that made it.
    pub cell: CellId,
    /// Display name of that cell.
    pub cell_name: String,
    /// How long the group's steps took, in microseconds.
    pub setup_us: u64,
    /// How long stopping, saving and starting the services took, in microseconds.
    pub save_us: u64,
}

/// How far an image is that an agent prepares ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Id of the image.
    pub id: String,
    /// How far it is.
    pub state: AheadState,
}

/// State of an image that an agent prepares ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AheadState {
    /// It waits for its turn.
    Waiting,
    /// It is being pulled or built; how far that is, for display.
    Doing(String),
    /// The agent has it.
    Ready,
    /// It failed. The cell that needs it tries again.
    Failed,
}

/// A message from the coordinator to an agent.
#[derive(Clone, PartialEq)]
pub enum ToAgent {
    /// First message of a session.
    Welcome(Welcome),
    /// Offers one attempt to run.
    Offer(Offer),
    /// All events up to this sequence are durable.
    Ack { token: Token, seq: u64 },
    /// Asks for the events from this sequence on again.
    Resend { token: Token, from_seq: u64 },
    /// Asks the agent to end an attempt.
    Cancel { token: Token, order: CancelOrder },
    /// The attempt no longer belongs to the coordinator: the agent ends and forgets it.
    Abandon { token: Token, reason: String },
    /// Renews the lease as of the heartbeat with this number.
    Heartbeat { number: u64 },
    /// Asks the agent to accept no further offers, and then to leave.
    Drain,
    /// Names every image that the agent should have before a cell needs it. Replaces the earlier list.
    Prefetch { images: Vec<WantedImage> },
    /// Asks the agent to remove the snapshots with these keys. It answers with what it keeps then.
    RemoveSnapshots { keys: Vec<String> },
}

/// An offer to run one attempt.
#[derive(Clone, PartialEq)]
pub struct Offer {
    /// Token of the attempt: the right to run it.
    pub token: Token,
    /// Job to run.
    pub job: Arc<CellJob>,
    /// Secret values by name (I4: memory only).
    pub secrets: Arc<BTreeMap<String, String>>,
    /// How long the coordinator waits for a response.
    pub accept_within: Duration,
    /// W3C trace context of the run, if traced.
    pub traceparent: Option<String>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written by hand, so that secret values can't reach a log through it.
        write!(f, "Offer({}, {})", self.token, self.job.cell.name)
    }
}

impl fmt::Debug for ToAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToAgent::Welcome(welcome) => welcome.fmt(f),
            ToAgent::Offer(offer) => offer.fmt(f),
            ToAgent::Ack { token, seq } => write!(f, "Ack({token}, {seq})"),
            ToAgent::Resend { token, from_seq } => write!(f, "Resend({token}, {from_seq})"),
            ToAgent::Cancel { token, order } => write!(f, "Cancel({token}, {order:?})"),
            ToAgent::Abandon { token, reason } => write!(f, "Abandon({token}, {reason})"),
            ToAgent::Heartbeat { number } => write!(f, "Heartbeat({number})"),
            ToAgent::Drain => write!(f, "Drain"),
            ToAgent::Prefetch { images } => {
                let ids: Vec<&str> = images.iter().map(WantedImage::id).collect();
                write!(f, "Prefetch({ids:?})")
            }
            ToAgent::RemoveSnapshots { keys } => write!(f, "RemoveSnapshots({keys:?})"),
        }
    }
}
