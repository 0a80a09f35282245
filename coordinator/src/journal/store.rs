//! What a journal's storage promises; SQLite keeps it today ([`super::SqliteStore`]), another database may tomorrow.
//!
//! # Order
//! [`Store::commit`] is called by one writer only, one call at a time; reads may run beside it and see committed rows.
//! # Durability
//! When `commit` returns `Ok`, all of its writes survive a power cut; when it returns an error, none of them happened.
//! # Errors
//! [`StoreError::Unavailable`] may pass (disk full, I/O): the writer tries again. The others are for people.

use crate::schedule::expected::Past;
use async_trait::async_trait;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::Recorded;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Keep;
use phalanx_shared::run_state::Counts;
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// Why the journal couldn't.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else writes to it.
    #[error("the journal {} is in use by another coordinator{}: stop it, or give this one another state directory", .path.display(), .holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The database.
        path: PathBuf,
        /// The other's process id, if it left one.
        holder: Option<String>,
    },
    /// It is of a later version, or broken.
    #[error("can't open the journal {}: {reason}", .path.display())]
    Unusable {
        /// The database.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It isn't what was written.
    #[error("the journal {} is damaged: {found}: {help}", .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What to do.
        help: String,
    },
    /// It can't be written at the moment.
    #[error("can't write to the journal: {0}")]
    Unavailable(String),
    /// The rows contradict what is there; trying again changes nothing.
    #[error("the journal refuses a write: {0}")]
    Refused(String),
    /// A row isn't what it should be.
    #[error("can't read the journal: {0}")]
    Read(String),
}

/// Everything a run is made from; with it a restart plans the run anew, and `rerun` another one. Secrets are in it by name only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The spec's files, the main one first.
    pub files: Vec<Source>,
    /// Values passed for inputs.
    pub inputs: Map<String, Value>,
    /// `axis=value` filters.
    pub only: Vec<String>,
    /// Cells by id or name; empty for all.
    pub cells: Vec<String>,
    /// Whether stacks are kept.
    pub keep: Keep,
    /// Overrides the spec's.
    pub fail_fast: Option<bool>,
    /// Overrides the spec's.
    pub max_parallel: Option<u32>,
    /// Among runs; higher first.
    #[serde(default)]
    pub priority: i32,
    /// The trace that the run is a part of.
    pub traceparent: Option<String>,
    /// The files that expressions read while the spec is planned, by the paths that they name. The journal has them in the plan.
    #[serde(skip)]
    pub read: BTreeMap<String, String>,
    /// Digest of the packed workspace, if there is one.
    pub workspace_digest: Option<String>,
    /// What it came from, for people.
    pub origin: Map<String, Value>,
}

/// A run that begins.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub run: RunId,
    /// When.
    pub submitted: Timestamp,
    /// The spec's name.
    pub spec: String,
    /// The plan's digest.
    pub digest: String,
    /// How many cells.
    pub cells: u32,
    /// What it was made from.
    pub submission: Submission,
}

/// How a run ended, for lists.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEnd {
    /// When.
    pub finished: Timestamp,
    /// Its outcome.
    pub outcome: Outcome,
    /// How many cells ended how.
    pub counts: Counts,
    /// Why it was cancelled, if it was.
    pub cancel: Option<String>,
}

/// A row of the list of runs: all but what the run was made from, which is long.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHead {
    /// Its id.
    pub run: RunId,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// The spec's name.
    pub spec: String,
    /// The plan's digest.
    pub digest: String,
    /// How many cells.
    pub cells: u32,
    /// As it ended.
    pub end: Option<RunEnd>,
    /// Whether nothing more will happen.
    pub settled: bool,
    /// What of the row can't be read, if anything; its place holds nothing then.
    pub problem: Option<String>,
}

/// A run with what it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// As it began.
    pub new: NewRun,
    /// As it ended.
    pub end: Option<RunEnd>,
    /// Whether nothing more will happen.
    pub settled: bool,
    /// What of the row can't be read, if anything; its place holds nothing then.
    pub problem: Option<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
// Nearly all writes are events, so that boxing them would cost an allocation each and save nothing.
#[allow(clippy::large_enum_variant)]
pub enum Write {
    /// A run begins.
    Run(Box<NewRun>),
    /// An event of a run. Positions are the caller's, from 1 without holes.
    Event(Recorded),
    /// The run has its outcome.
    Finished { run: RunId, end: RunEnd },
    /// Nothing more will happen in the run.
    Settled { run: RunId },
    /// A cell was judged and took so long.
    Duration {
        spec: String,
        past: Past,
        at: Timestamp,
    },
    /// A run goes, with its events.
    Forget { run: RunId },
}

/// Where runs and events are kept.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Begins a term of office; every later one is higher.
    async fn begin_term(&self, now: Timestamp) -> Result<u64, StoreError>;
    /// Makes all writes durable, or none.
    async fn commit(&self, writes: &[Write]) -> Result<(), StoreError>;
    /// One run.
    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, StoreError>;
    /// Runs, newest first; `open` leaves out the settled ones. What they were made from isn't read.
    async fn runs(&self, limit: u32, open: bool) -> Result<Vec<RunHead>, StoreError>;
    /// At most so many runs whose ids begin with a text.
    async fn beginning_with(&self, text: &str, limit: u32) -> Result<Vec<RunId>, StoreError>;
    /// The digests of all workspaces that runs have.
    async fn workspaces(&self) -> Result<HashSet<String>, StoreError>;
    /// Settled runs that finished before a time, oldest first.
    async fn settled_before(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError>;
    /// Events of a run from a position on without a hole, at most so many, and fewer if they are large: there may be more until none come.
    async fn events(&self, run: &RunId, from: u64, limit: u32)
    -> Result<Vec<Recorded>, StoreError>;
    /// What the cells of a spec took, oldest first.
    async fn history(&self, spec: &str) -> Result<Vec<Past>, StoreError>;
    /// Looks at the whole storage, which may take a while: what is damaged, if anything.
    async fn check(&self) -> Result<(), String>;
    /// Closes the files; nothing may be written afterwards.
    async fn close(&self);
}

/// A cell's past, as its row tells it.
pub(super) fn past(cell: String, matrix: &str, elapsed_ms: i64) -> Option<Past> {
    let matrix: Vec<(String, Value)> = serde_json::from_str(matrix).ok()?;
    Some(Past {
        cell: CellId(cell),
        matrix,
        elapsed_ms: u64::try_from(elapsed_ms).ok()?,
    })
}
