//! The contract of a journal's storage: in a SQLite file ([`super::SqliteStore`]), or in a PostgreSQL database
//! ([`super::PostgresStore`]) that several coordinators know.
//!
//! # Order
//! A single writer calls [`Store::commit`], one call at a time. Reads may run concurrently and see committed rows.
//! # Durability
//! When `commit` returns `Ok`, all of its writes survive a power cut; when it returns an error, none of them took
//! effect. One that failed with an error that may pass may have taken effect all the same if the connection to a database
//! broke; the next call must bring the same writes, and succeeds then.
//! # Errors
//! [`StoreError::Full`] and [`StoreError::Unavailable`] (an I/O error) may pass, so the writer retries. The others need a
//! person.

use async_trait::async_trait;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::Recorded;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::namespace::Namespace;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Keep, SnapshotUse};
use phalanx_shared::run_state::Counts;
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// An earlier execution of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Id of the cell.
    pub cell: CellId,
    /// Axis values of the cell.
    pub matrix: Vec<(String, Value)>,
    /// How long it took when it last passed, in milliseconds.
    pub elapsed_ms: u64,
    /// What it did with its snapshot; `None` if it had none.
    pub snapshot: Option<PastSnapshot>,
}

/// What an earlier execution of a cell did with its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PastSnapshot {
    /// It restored one.
    Restored,
    /// It ran the steps.
    Missed {
        /// Time in milliseconds from the start of the cell until others could restore what it had made; `None` if it made
        /// none.
        making_ms: Option<u64>,
    },
}

impl PastSnapshot {
    /// Converts the columns of a row: whether it was restored (null without a snapshot), and how long making it took.
    pub(super) fn of_row(restored: Option<i64>, making_ms: Option<i64>) -> Option<PastSnapshot> {
        restored.map(|restored| match restored {
            0 => PastSnapshot::Missed {
                making_ms: making_ms.and_then(|ms| u64::try_from(ms).ok()),
            },
            _ => PastSnapshot::Restored,
        })
    }

    /// Returns the columns of its row.
    pub(super) fn to_row(self) -> (i64, Option<i64>) {
        match self {
            PastSnapshot::Restored => (1, None),
            PastSnapshot::Missed { making_ms } => {
                let making_ms = making_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
                (0, making_ms)
            }
        }
    }
}

/// An error of the journal.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the journal open for writing.
    #[error("the journal {} is in use by another coordinator{}: stop it, or give this one another state directory", .path.display(), .holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// Path of the database.
        path: PathBuf,
        /// Process id of the holder, if it left one.
        holder: Option<String>,
    },
    /// The database is from a later version, or can't be opened.
    #[error("can't open the journal {}: {reason}", .path.display())]
    Unusable {
        /// Path of the database.
        path: PathBuf,
        /// Reason, as shown to the user.
        reason: String,
    },
    /// The content isn't what was written.
    #[error("the journal {} is damaged: {found}: {help}", .path.display())]
    Damaged {
        /// Path of the database.
        path: PathBuf,
        /// The damage that was found.
        found: String,
        /// What the user can do.
        help: String,
    },
    /// The disk is full.
    #[error("can't write to the journal: {FULL}")]
    Full,
    /// The journal can't be written at the moment.
    #[error("can't write to the journal: {0}")]
    Unavailable(String),
    /// Another coordinator has begun a term on the same database. This one commits nothing any more.
    #[error("another coordinator leads on this journal's database: this one stops")]
    Deposed,
    /// The rows contradict existing ones; a retry changes nothing.
    #[error("the journal refuses a write: {0}")]
    Refused(String),
    /// A row can't be read.
    #[error("can't read the journal: {0}")]
    Read(String),
}

/// What a full disk means, for users.
pub(super) const FULL: &str = "the disk is full: free some space, the run goes on then";

/// Everything that a run is created from. A restart uses it to plan the run again, and `rerun` to create another one.
/// It contains secrets by name only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Files of the spec, the main one first.
    pub files: Vec<Source>,
    /// Values passed for inputs.
    pub inputs: Map<String, Value>,
    /// Filters of the form `axis=value`.
    pub only: Vec<String>,
    /// Ids or names of the selected cells; empty for all.
    pub cells: Vec<String>,
    /// When stacks are kept after their attempt, and for how long.
    pub keep: Keep,
    /// Overrides the spec's fail-fast setting.
    pub fail_fast: Option<bool>,
    /// Overrides the spec's limit of concurrent cells.
    pub max_parallel: Option<u32>,
    /// Priority among runs; higher comes first.
    #[serde(default)]
    pub priority: i32,
    /// Parent context of the run's trace, if it is part of one.
    pub traceparent: Option<String>,
    /// Files that expressions read during planning, by the paths that the expressions name. The journal keeps them in
    /// the plan.
    #[serde(skip)]
    pub read: BTreeMap<String, String>,
    /// Digest of the packed workspace, if there is one.
    pub workspace_digest: Option<String>,
    /// Images by service that replace those of the spec: references with digests, or an engine's ids.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// What the cells do with snapshots.
    #[serde(default, skip_serializing_if = "SnapshotUse::is_usual")]
    pub snapshots: SnapshotUse,
    /// Where the submission came from, for display.
    pub origin: Map<String, Value>,
}

/// A run that was just submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// Id of the run.
    pub run: RunId,
    /// Time of the submission.
    pub submitted: Timestamp,
    /// Name of the spec.
    pub spec: String,
    /// Digest of the plan.
    pub digest: String,
    /// Number of cells.
    pub cells: u32,
    /// What the run was created from.
    pub submission: Submission,
    /// The namespace that the run belongs to.
    pub namespace: Namespace,
    /// Whose run it is; empty without access control.
    pub owner: String,
}

/// How a run ended, for lists.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEnd {
    /// When the run finished.
    pub finished: Timestamp,
    /// Outcome of the run.
    pub outcome: Outcome,
    /// Number of cells by status.
    pub counts: Counts,
    /// Reason why the run was cancelled, if it was.
    pub cancel: Option<String>,
}

/// A row of the list of runs: everything but the submission, which is large.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHead {
    /// Id of the run.
    pub run: RunId,
    /// The namespace that the run belongs to.
    pub namespace: Namespace,
    /// Time of the submission.
    pub submitted: Timestamp,
    /// Name of the spec.
    pub spec: String,
    /// Digest of the plan.
    pub digest: String,
    /// Number of cells.
    pub cells: u32,
    /// How the run ended; none while it is unfinished.
    pub end: Option<RunEnd>,
    /// Whether nothing more will happen in the run.
    pub settled: bool,
    /// Which part of the row can't be read, if any. That part has its default value.
    pub problem: Option<String>,
}

/// A run with its submission.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The run as it was submitted.
    pub new: NewRun,
    /// How the run ended; none while it is unfinished.
    pub end: Option<RunEnd>,
    /// Whether nothing more will happen in the run.
    pub settled: bool,
    /// Which part of the row can't be read, if any. That part has its default value.
    pub problem: Option<String>,
}

/// One change to the journal.
#[derive(Clone, Debug, PartialEq)]
// Nearly all writes are events, so boxing them would cost an allocation each and save nothing.
#[allow(clippy::large_enum_variant)]
pub enum Write {
    /// Add a run.
    Run(Box<NewRun>),
    /// Add an event of a run. The caller assigns positions, from 1 without gaps.
    Event(Recorded),
    /// Record that the run has its outcome.
    Finished { run: RunId, end: RunEnd },
    /// Record that nothing more will happen in the run.
    Settled { run: RunId },
    /// Record how long a cell took.
    Duration {
        spec: String,
        past: Past,
        at: Timestamp,
    },
    /// Remove a run with its events.
    Forget { run: RunId },
}

/// Storage of runs and events.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Begins a term of office and returns its epoch, which is higher than all earlier ones.
    async fn begin_term(&self, now: Timestamp) -> Result<u64, StoreError>;
    /// Returns the epoch of the newest term; 0 before the first one.
    async fn newest_epoch(&self) -> Result<u64, StoreError>;
    /// Makes sure that the epochs of later terms are higher than this one.
    async fn raise_epoch(&self, epoch: u64) -> Result<(), StoreError>;
    /// Makes all writes durable, or none.
    async fn commit(&self, writes: &[Write]) -> Result<(), StoreError>;
    /// Returns one run, if it exists.
    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, StoreError>;
    /// Returns up to `limit` runs of a namespace (or of all), newest first; `open` leaves out the settled ones. Doesn't
    /// read submissions.
    async fn runs(
        &self,
        limit: u32,
        open: bool,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunHead>, StoreError>;
    /// Returns up to `limit` ids of runs of a namespace (or of all) that begin with `text`.
    async fn beginning_with(
        &self,
        text: &str,
        limit: u32,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunId>, StoreError>;
    /// Returns whether a run of a namespace has this workspace.
    async fn has_workspace(&self, digest: &str, namespace: &Namespace) -> Result<bool, StoreError>;
    /// Returns the digests of all workspaces that runs have.
    async fn workspaces(&self) -> Result<HashSet<String>, StoreError>;
    /// Returns the settled runs that finished before a time, oldest first.
    async fn settled_before(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError>;
    /// Returns events of a run from a position on, without gaps: up to `limit`, and fewer if they are large. More may
    /// follow unless the result is empty. Returns an error if an event is missing.
    async fn events(&self, run: &RunId, from: u64, limit: u32)
    -> Result<Vec<Recorded>, StoreError>;
    /// Returns the recorded durations of a spec's cells, oldest first; those with and without a snapshot apart.
    async fn history(&self, spec: &str) -> Result<Vec<Past>, StoreError>;
    /// Checks the whole storage, which may take a while. Returns the damage found as an error.
    async fn check(&self) -> Result<(), String>;
    /// Closes the files. Nothing may be written afterwards.
    async fn close(&self);
}

/// Converts a row to a cell's earlier execution; none if the row is invalid.
pub(super) fn past(
    cell: String,
    matrix: &str,
    elapsed_ms: i64,
    snapshot: Option<PastSnapshot>,
) -> Option<Past> {
    let matrix: Vec<(String, Value)> = serde_json::from_str(matrix).ok()?;
    Some(Past {
        cell: CellId(cell),
        matrix,
        elapsed_ms: u64::try_from(elapsed_ms).ok()?,
        snapshot,
    })
}
