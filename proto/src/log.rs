//! The messages of the log stream as checked domain types.
//!
//! Records of an attempt (chunks, gaps, the end) are numbered from 1 without holes; acknowledgements are cumulative.

use phalanx_shared::event::LogStream;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::time::Timestamp;

/// From an agent to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogUp {
    /// The first message.
    Hello { agent: AgentId },
    /// A record of an attempt's logs.
    Record { token: Token, record: Record },
}

/// One record of an attempt's logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// From 1 without holes.
    pub number: u64,
    /// What it holds.
    pub body: Body,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Bytes as they came.
    Chunk {
        /// Where they came from.
        source: Source,
        /// Of the first byte in the source's stream.
        offset: u64,
        /// When the first byte came.
        at: Timestamp,
        /// Never empty, never more than [`crate::limit::LOG_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    /// Bytes `from..to` could not be kept.
    Gap {
        source: Source,
        from: u64,
        to: u64,
        reason: String,
    },
    /// Nothing follows.
    End,
}

/// One output of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The service; `agent` for the agent's own notes.
    pub service: String,
    /// Which output.
    pub stream: LogStream,
}

/// From the coordinator to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDown {
    /// The first message: so many bytes of one attempt may be unacknowledged.
    Welcome { window_bytes: u64 },
    /// All records up to this number are stored.
    Ack { token: Token, number: u64 },
    /// The token is stale, send no more of it.
    Refused { token: Token, reason: String },
}
