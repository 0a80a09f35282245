//! The messages of a session as checked domain types: what the cores of both sides take in and give out.
//!
//! The generated types stay at the two edges; between them and these stand [`crate::convert`]'s conversions.

use phalanx_shared::event::Event;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::{CellJob, Resources};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What an agent says of itself when it connects.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Its identity, stable over restarts.
    pub agent: AgentId,
    /// Its name for people.
    pub name: String,
    /// Its program version.
    pub version: String,
    /// The lowest and highest protocol version it speaks.
    pub protocols: (u32, u32),
    /// `k=v`, or `k` alone.
    pub labels: Vec<String>,
    /// Attempts at once.
    pub slots: u32,
    /// What it has.
    pub resources: Resources,
    /// Images that its engine holds.
    pub images: Vec<String>,
    /// Attempts it still holds.
    pub inventory: Vec<Held>,
    /// Of its process: another at each start; empty of agents of earlier versions.
    pub instance: String,
}

/// An agent's process is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obituary {
    /// Whose.
    pub agent: AgentId,
    /// Which process of it.
    pub instance: String,
}

/// An attempt that a connecting agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub token: Token,
    /// The last event it made.
    pub last_seq: u64,
    /// Whether only unacknowledged events are left of it.
    pub finished: bool,
}

/// The answer to a Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The chosen version.
    pub protocol: u32,
    /// The coordinator's term of office.
    pub epoch: u64,
    /// How long an answered heartbeat gives the right to run.
    pub lease: Duration,
    /// How often the agent sends one.
    pub heartbeat: Duration,
    /// Attempts that go on, each with its last durable sequence; all others of the inventory are abandoned.
    pub resume: Vec<(Token, u64)>,
    /// The coordinator's program version.
    pub coordinator_version: String,
}

/// From an agent to the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAgent {
    /// The first message.
    Hello(Hello),
    /// An offer is taken.
    Accept { token: Token },
    /// An offer isn't taken.
    Decline { token: Token, reason: String },
    /// Events of one attempt, in sequence without holes, never empty.
    Events { token: Token, events: Vec<Event> },
    /// Asks for the lease to be renewed.
    Heartbeat { number: u64 },
    /// A cancel has arrived.
    Cancelling { token: Token },
    /// It takes nothing new.
    Draining,
    /// It goes.
    Goodbye { reason: String },
}

/// From the coordinator to an agent.
#[derive(Clone, PartialEq)]
pub enum ToAgent {
    /// The first message.
    Welcome(Welcome),
    /// Run one attempt.
    Offer(Offer),
    /// All up to this sequence is durable.
    Ack { token: Token, seq: u64 },
    /// Send again from this sequence on.
    Resend { token: Token, from_seq: u64 },
    /// End an attempt.
    Cancel {
        token: Token,
        grace: Duration,
        reason: String,
        force: bool,
    },
    /// The attempt isn't the coordinator's any more: end it and forget it.
    Abandon { token: Token, reason: String },
    /// The lease is renewed as of the heartbeat of this number.
    Heartbeat { number: u64 },
    /// Take nothing new, then go.
    Drain,
    /// Pull these images.
    Prefetch { images: Vec<String> },
}

/// The order to run one attempt.
#[derive(Clone, PartialEq)]
pub struct Offer {
    /// The right to run it.
    pub token: Token,
    /// What to run.
    pub job: Arc<CellJob>,
    /// Secret values by name (I4: memory only).
    pub secrets: Arc<BTreeMap<String, String>>,
    /// How long the coordinator waits for an answer.
    pub accept_within: Duration,
    /// W3C trace context of the run, if traced.
    pub traceparent: Option<String>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand, so that secret values can't reach a log through it.
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
            ToAgent::Cancel {
                token,
                grace,
                reason,
                force,
            } => write!(f, "Cancel({token}, {grace:?}, {reason}, force {force})"),
            ToAgent::Abandon { token, reason } => write!(f, "Abandon({token}, {reason})"),
            ToAgent::Heartbeat { number } => write!(f, "Heartbeat({number})"),
            ToAgent::Drain => write!(f, "Drain"),
            ToAgent::Prefetch { images } => write!(f, "Prefetch({images:?})"),
        }
    }
}
