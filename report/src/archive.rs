//! A run as one file: what it was made from, its journal, its logs and its artifacts.
//!
//! The file is a gzip stream of JSON lines, so that other programs can read it (`gunzip -c r.phx | jq`):
//!
//! ```text
//! {"phalanx_run":1,"by":"0.1.0"}          version of the format, and of the program that wrote it
//! {"run":{"id":…,"files":[…],…}}          what the run was made from
//! {"event":{"position":1,"event":{…}}}    the journal, in order
//! {"log":{"cell":…,"text":"…"}}           the logs, one attempt after the other
//! {"artifact":{"digest":…,"base64":…}}    the files that the run keeps, in pieces
//! {"end":{"events":19,"logs":4,…}}        how many lines of each there are
//! ```
//!
//! A reader ignores fields and lines that it doesn't know. The version changes if that isn't enough to read a file
//! correctly. The same run gives the same bytes: nothing here depends on the time or the machine.
//!
//! A file may come from anywhere, so the reader holds one line at a time, and each line, each id and the whole have a
//! limit ([`decode`]), and so has everything that its journal fills ([`measure`]). Secrets are in a journal by name only, and so they are here.

mod decode;
mod encode;
mod error;
mod measure;

pub use decode::Decoder;
pub use encode::Encoder;
pub use error::Error;

use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::{LogStream, Recorded};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::plan::Keep;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Version of the format that this program writes and reads.
pub const VERSION: u32 = 1;
/// Usual ending of a file's name.
pub const EXTENSION: &str = "phx";
/// Maximum bytes of a file's content before compression.
const TOTAL_BYTES: u64 = 4 << 30;
/// Maximum bytes of the log lines within [`TOTAL_BYTES`]; what exceeds it is left out as a gap.
const LOGS_BYTES: u64 = 2 << 30;

/// Maximum bytes of the lines of artifacts within [`TOTAL_BYTES`]; artifacts beyond it are left out.
const ARTIFACTS_BYTES: u64 = 512 << 20;
/// Maximum bytes of one piece of an artifact.
pub const PIECE_BYTES: usize = 256 << 10;

/// What a run was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Id of the run.
    pub id: RunId,
    /// Files of the spec, the main one first.
    pub files: Vec<Source>,
    /// Values passed for inputs.
    pub inputs: Map<String, Value>,
    /// Filters of the form `axis=value`.
    pub only: Vec<String>,
    /// Ids or names of the selected cells; empty for all.
    pub cells: Vec<String>,
    /// When stacks were kept after their attempt, and for how long.
    pub keep: Keep,
    /// Overrides the spec's fail-fast setting.
    pub fail_fast: Option<bool>,
    /// Overrides the spec's limit of concurrent cells.
    pub max_parallel: Option<u32>,
    /// Priority among the runs of its coordinator.
    pub priority: i32,
    /// Digest of the workspace, if there was one. Its files are not in the archive.
    pub workspace: Option<String>,
    /// Images by service that replaced those of the spec.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Where the submission came from: the spec's path, the command line, names of secrets.
    pub origin: Map<String, Value>,
}

/// Bytes that a service wrote during an attempt, or a gap in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Cell of the attempt.
    pub cell: CellId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Name of the service; `agent` for the agent's own notes.
    pub service: String,
    /// Output stream.
    pub stream: LogStream,
    /// Offset of the first byte in the stream.
    pub offset: u64,
    /// Unix time in microseconds at which the first byte arrived; 0 for a gap.
    pub at_us: i64,
    /// The bytes, or up to where they are missing.
    pub body: LogBody,
}

/// Content of a [`LogRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogBody {
    /// Bytes as the service wrote them, masked.
    Bytes(Vec<u8>),
    /// Bytes up to this offset are missing.
    Gap {
        /// Offset of the first byte after the gap.
        to: u64,
        /// Why they are missing.
        reason: String,
    },
}

/// A piece of an artifact. The pieces of one follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactPiece {
    /// SHA-256 of the whole artifact, in hexadecimal.
    pub digest: String,
    /// Bytes of the whole artifact.
    pub size: u64,
    /// Offset of the piece.
    pub offset: u64,
    /// Its bytes, at most [`PIECE_BYTES`]; empty only for an empty artifact.
    pub bytes: Vec<u8>,
}

/// One entry of an archive after its head.
#[derive(Clone, Debug, PartialEq)]
// Nearly all entries of a large archive are small, and each is dropped before the next is read.
#[allow(clippy::large_enum_variant)]
pub enum Entry {
    /// An event of the journal.
    Event(Recorded),
    /// A record of the logs.
    Log(LogRecord),
    /// A piece of an artifact.
    Artifact(ArtifactPiece),
}

/// Any line, as it is written and read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phalanx_run: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Head>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Recorded>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<LogLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact: Option<ArtifactLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<End>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LogLine {
    cell: CellId,
    attempt: u32,
    service: String,
    stream: LogStream,
    offset: u64,
    #[serde(default)]
    at_us: i64,
    /// The bytes, if they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Other bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap_to: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ArtifactLine {
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    offset: u64,
    base64: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many lines of each kind came before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    events: u64,
    logs: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    artifacts: u64,
}

#[cfg(test)]
mod tests;
