//! The messages of the log stream as checked domain types.
//!
//! The records of an attempt (chunks, gaps, artifacts, the end) are numbered from 1 without gaps; acknowledgements are cumulative.

use phalanx_shared::event::LogStream;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::time::Timestamp;

/// A message from an agent to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogUp {
    /// First message of the stream.
    Hello { agent: AgentId },
    /// A record of an attempt's logs.
    Record { token: Token, record: Record },
}

/// One record of an attempt's logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the record, from 1 without gaps.
    pub number: u64,
    /// Content of the record.
    pub body: Body,
}

/// Content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Bytes as the source wrote them.
    Chunk {
        /// Source of the bytes.
        source: Source,
        /// Offset of the first byte in the source's stream.
        offset: u64,
        /// Wall time at which the first byte arrived.
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
    /// Bytes of an artifact.
    Artifact {
        /// Number of the artifact within the attempt, from 1.
        id: u32,
        /// Offset of the first byte in the artifact.
        offset: u64,
        /// Never empty, never more than [`crate::limit::LOG_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    /// An artifact is complete, or given up.
    ArtifactEnd {
        /// Number of the artifact within the attempt.
        id: u32,
        /// SHA-256 of its bytes; `None` if it is given up.
        digest: Option<String>,
        /// Number of its bytes.
        size: u64,
    },
    /// The logs are complete; no records follow.
    End,
}

/// One output stream of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Name of the service; `agent` for the agent's own notes.
    pub service: String,
    /// Output stream of the service.
    pub stream: LogStream,
}

/// A message from the coordinator to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDown {
    /// First message of the stream: up to `window_bytes` bytes of one attempt may be unacknowledged.
    Welcome { window_bytes: u64 },
    /// All records up to this number are stored.
    Ack { token: Token, number: u64 },
    /// The token is stale; the agent must stop sending its records.
    Refused { token: Token, reason: String },
    /// An artifact is not kept.
    ArtifactRefused {
        token: Token,
        id: u32,
        reason: String,
    },
}
