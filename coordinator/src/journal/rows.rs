//! What the rows of all databases have in common.

use super::store::{RunEnd, StoreError, Submission};
use phalanx_shared::event::{AttemptRef, Event, Recorded};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::namespace::{InvalidNamespace, Namespace};
use phalanx_shared::time::Timestamp;

/// Maximum bytes of events read at once; a single larger event is read alone.
pub(super) const READ_BYTES: usize = 8 << 20;

/// Columns in which a run's row says how it ended.
pub(super) struct EndColumns {
    pub finished_us: Option<i64>,
    pub outcome: Option<String>,
    pub counts: Option<String>,
    pub cancel: Option<String>,
}

impl EndColumns {
    pub fn read(self) -> Result<Option<RunEnd>, StoreError> {
        let (Some(finished), Some(outcome), Some(counts)) =
            (self.finished_us, self.outcome, self.counts)
        else {
            return Ok(None);
        };
        Ok(Some(RunEnd {
            finished: Timestamp(finished),
            outcome: serde_json::from_value(outcome.into()).map_err(|e| named("outcome", e))?,
            counts: serde_json::from_str(&counts).map_err(|e| named("counts", e))?,
            cancel: self.cancel,
        }))
    }
}

/// Columns of an event.
pub(super) struct EventColumns {
    pub position: i64,
    pub cell: Option<String>,
    pub attempt: Option<u32>,
    pub seq: i64,
    pub at_us: i64,
    pub mono_us: i64,
    pub kind: String,
}

impl EventColumns {
    pub fn read(self, run: &RunId) -> Result<Recorded, StoreError> {
        let attempt = self.cell.zip(self.attempt);
        Ok(Recorded {
            position: unsigned(self.position),
            event: Event {
                run: run.clone(),
                attempt: attempt.map(|(cell, attempt)| AttemptRef {
                    cell: CellId(cell),
                    attempt,
                }),
                seq: unsigned(self.seq),
                at: Timestamp(self.at_us),
                mono_us: unsigned(self.mono_us),
                kind: serde_json::from_str(&self.kind).map_err(malformed)?,
            },
        })
    }
}

/// Events of a run as they are read one by one: none may be missing.
pub(super) struct Reading<'a> {
    run: &'a RunId,
    expected: u64,
    events: Vec<Recorded>,
}

impl<'a> Reading<'a> {
    pub fn new(run: &'a RunId, from: u64) -> Self {
        Reading {
            run,
            expected: from.max(1),
            events: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn push(&mut self, read: Result<EventColumns, StoreError>) -> Result<(), StoreError> {
        let (expected, run) = (self.expected, self.run);
        let recorded = read.and_then(|columns| columns.read(run));
        let recorded = recorded.map_err(|error| match error {
            StoreError::Read(why) => {
                StoreError::Read(format!("event {expected} of run {run}: {why}"))
            }
            other => other,
        })?;
        if recorded.position != expected {
            return Err(StoreError::Read(format!(
                "event {expected} of run {run} is missing"
            )));
        }
        self.expected += 1;
        self.events.push(recorded);
        Ok(())
    }

    pub fn end(self) -> Vec<Recorded> {
        self.events
    }
}

pub(super) fn submission(text: &str) -> Result<Submission, StoreError> {
    serde_json::from_str(text).map_err(|error| named("submission", error))
}

pub(super) fn namespace(name: &str) -> Result<Namespace, StoreError> {
    let odd = |error: InvalidNamespace| StoreError::Read(format!("its namespace: {error}"));
    name.parse().map_err(odd)
}

/// Notes the first problem of a row.
pub(super) fn note(problem: &mut Option<String>, error: StoreError) {
    problem.get_or_insert(match error {
        StoreError::Read(why) => why,
        other => other.to_string(),
    });
}

/// Returns the error for a column with an invalid value.
fn named(column: &str, error: serde_json::Error) -> StoreError {
    StoreError::Read(format!("its {column} can't be read: {error}"))
}

/// The databases' integers are signed; no number here comes near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn refused(error: serde_json::Error) -> StoreError {
    StoreError::Refused(error.to_string())
}

pub(crate) fn read(error: sqlx::Error) -> StoreError {
    StoreError::Read(error.to_string())
}

fn malformed(error: serde_json::Error) -> StoreError {
    StoreError::Read(format!("this version can't read it: {error}"))
}
