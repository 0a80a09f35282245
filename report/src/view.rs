//! The view of a run: the source of every report, and the content of `--report json=…`.
//!
//! Pure: made from a [`RunState`](phalanx_shared::run_state::RunState) and the time. It judges nothing, because
//! outcomes come from the fold, and it doesn't lay out text.
//! Changing its fields changes the JSON report: update `docs/reports.md`, and increase [`VERSION`] if a field is
//! removed.
//!
//! stage: viewed: reports are made of the view; the lines that follow a run (`plain.rs`, `live.rs`, `still.rs`) are made of the state

mod build;
pub mod coverage;

pub use build::origin_path;

use crate::timing::Timing;
use coverage::Coverage;
use indexmap::IndexMap;
use phalanx_shared::event::{
    Artifact, CASE, Captured, CheckResult, Culprit, Failure, KeptService, Output, Restored,
    ServiceState, SnapshotState,
};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::CellStatus;
use phalanx_shared::time::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::time::Duration;

/// Version of the JSON report. Fields may be added within a version.
pub const VERSION: u32 = 1;
/// Key of the trace in a run's origin, if it has one.
pub const TRACE: &str = "trace";

/// View of a run, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    /// Version of the report's format: [`VERSION`].
    pub version: u32,
    /// Id of the run.
    pub run: RunId,
    /// Id of the trace, if the run was traced: 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Name of the spec.
    pub spec: String,
    /// Path of the spec as given by the user, for messages; empty if unknown.
    pub path: String,
    /// Digest of the plan.
    pub digest: String,
    /// Inputs after defaults and conversion.
    pub inputs: Map<String, Value>,
    /// Outcome of the run; `null` while it runs.
    pub outcome: Option<Outcome>,
    /// Reason of the cancellation, if the run was cancelled.
    pub cancelled: Option<String>,
    /// Time of submission.
    #[serde(serialize_with = "rfc3339")]
    pub submitted: Option<Timestamp>,
    /// Time at which the last cell got its outcome.
    #[serde(serialize_with = "rfc3339")]
    pub finished: Option<Timestamp>,
    /// Number of cells by outcome.
    pub cells_by_outcome: Counts,
    /// Number of steps of the newest attempts by outcome.
    pub steps_by_outcome: Counts,
    /// Coverage table: `verifies` rows by the values of an axis; `null` if the spec has no rows.
    pub coverage: Option<Coverage>,
    /// What the run didn't verify although an earlier run did, with its age, one sentence each; empty if earlier runs
    /// weren't at hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unverified: Vec<String>,
    /// Maximum number of skipped steps (`strategy.max-skips`); a run with more fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_skips: Option<u32>,
    /// Skipped steps by reason, the most frequent first. Steps that were never reached are not included.
    pub skips: Vec<SkipGroup>,
    /// Times of the run.
    pub timing: Timing,
    /// Cells in plan order.
    pub cells: Vec<CellView>,
}

/// Counts by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub total: usize,
    pub passed: usize,
    pub flaky: usize,
    pub skipped: usize,
    /// Passed steps that didn't run, because a snapshot of what they had done was restored. They aren't in `passed`.
    #[serde(skip_serializing_if = "none")]
    pub restored: usize,
    /// Steps that were never reached: a failure, a timeout or a cancellation came before them.
    pub not_run: usize,
    pub cancelled: usize,
    pub failed: usize,
    pub errored: usize,
    /// Cells or steps without an outcome yet.
    pub unfinished: usize,
}

fn none(count: &usize) -> bool {
    *count == 0
}

impl Counts {
    /// Counts one outcome.
    pub fn add(&mut self, outcome: Option<Outcome>) {
        self.total += 1;
        *match outcome {
            None => &mut self.unfinished,
            Some(Outcome::Passed) => &mut self.passed,
            Some(Outcome::Flaky) => &mut self.flaky,
            Some(Outcome::Skipped) => &mut self.skipped,
            Some(Outcome::Cancelled) => &mut self.cancelled,
            Some(Outcome::Failed) => &mut self.failed,
            Some(Outcome::Errored) => &mut self.errored,
        } += 1;
    }

    /// Counts one step.
    pub fn add_step(&mut self, step: &StepView) {
        if step.unreached {
            self.total += 1;
            self.not_run += 1;
        } else if step.is_restored() {
            self.total += 1;
            self.restored += 1;
        } else {
            self.add(step.outcome);
        }
    }

    /// Returns the count for an outcome; `None` stands for those without an outcome.
    pub fn of(&self, outcome: Option<Outcome>) -> usize {
        match outcome {
            None => self.unfinished,
            Some(Outcome::Passed) => self.passed,
            Some(Outcome::Flaky) => self.flaky,
            Some(Outcome::Skipped) => self.skipped,
            Some(Outcome::Cancelled) => self.cancelled,
            Some(Outcome::Failed) => self.failed,
            Some(Outcome::Errored) => self.errored,
        }
    }
}

/// Steps that were skipped for the same reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SkipGroup {
    /// Reason of the skip.
    pub reason: String,
    /// Skipped steps, each with the names of the cells that skipped it.
    pub steps: IndexMap<String, Vec<String>>,
}

impl SkipGroup {
    /// Returns the number of skips for this reason.
    pub fn count(&self) -> usize {
        self.steps.values().map(Vec::len).sum()
    }
}

/// View of a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellView {
    /// Id of the cell; the same wherever the same cell is planned.
    pub id: CellId,
    /// Display name.
    pub name: String,
    /// Axis values of the cell.
    pub matrix: IndexMap<String, Value>,
    /// Whether the cell is marked as experimental.
    pub experimental: bool,
    /// Current place in the cell's life cycle.
    pub status: CellStatus,
    /// The cell's only outcome.
    pub outcome: Option<Outcome>,
    /// Reason of the outcome.
    pub reason: Option<String>,
    /// Time from submission to the start of the first attempt.
    pub waited_us: Option<u64>,
    /// Time from the start of the first attempt to the end of the newest attempt's steps, clean-up not included.
    pub elapsed_us: Option<u64>,
    /// Reasons of offers that were declined or not answered. They don't count as tries.
    pub returned: Vec<String>,
    /// Attempts, oldest first; only the newest counts.
    pub attempts: Vec<AttemptView>,
}

impl CellView {
    /// Returns the newest attempt, which is the one that counts.
    pub fn newest(&self) -> Option<&AttemptView> {
        self.attempts.last()
    }

    /// Returns the steps that are counted: each leaf, and each group with a verdict of its own.
    pub fn steps(&self) -> impl Iterator<Item = &StepView> {
        self.newest()
            .into_iter()
            .flat_map(|attempt| attempt.steps.iter().filter(|step| step.reported))
    }
}

/// View of an attempt at a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptView {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Display name of the agent.
    pub agent: String,
    /// Time of the offer.
    #[serde(serialize_with = "rfc3339_always")]
    pub offered: Timestamp,
    /// Time at which the attempt started.
    #[serde(serialize_with = "rfc3339")]
    pub started: Option<Timestamp>,
    /// Time at which its steps ended.
    #[serde(serialize_with = "rfc3339")]
    pub finished: Option<Timestamp>,
    /// Outcome of the attempt.
    pub outcome: Option<Outcome>,
    /// Reason of the outcome.
    pub reason: Option<String>,
    /// What its failure follows from, if not from a step itself; `null` in journals of versions that didn't record it.
    pub culprit: Option<Culprit>,
    /// Whether it ended because its agent was lost.
    pub lost: bool,
    /// Duration of its steps, up to now while they run.
    pub elapsed_us: Option<u64>,
    /// Phases, groups and steps in the order in which they began.
    pub steps: Vec<StepView>,
    /// Services of the attempt.
    pub services: Vec<ServiceReport>,
    /// Result of the clean-up.
    pub clean_up: Option<CleanUp>,
    /// Notes and log gaps.
    pub notes: Vec<String>,
    /// Files that were kept, and those that weren't.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What became of snapshots, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotReport>,
}

/// What became of the snapshot of a group of steps in an attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotReport {
    /// Path of the group.
    pub path: String,
    /// The snapshot's key; empty if it could not be computed.
    pub key: String,
    /// What became of it: `missed`, `waiting`, `restored`, `saved`, `unsaved`, `discarded`.
    pub state: SnapshotState,
    /// Time at which the work for this state began.
    #[serde(serialize_with = "rfc3339_always")]
    pub began: Timestamp,
    /// Duration of the work.
    pub elapsed_us: u64,
    /// Run that made the snapshot, if another one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Size of the saved files; 0 if nothing was saved.
    pub bytes: u64,
    /// Why there is none, or why it isn't used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Kind of a line in the tree of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum StepKind {
    Phase,
    Group,
    Step,
}

/// View of a phase, a group or a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepView {
    /// Path within the attempt.
    pub path: String,
    /// Display name.
    pub name: String,
    /// Name of the enclosing phase; for a phase, its own name.
    pub phase: String,
    /// Phase, group or step.
    pub kind: StepKind,
    /// Number of groups and phases around it.
    pub depth: usize,
    /// `phase`, `http`, `exec` …
    pub action: String,
    /// Outcome; `null` while it runs.
    pub outcome: Option<Outcome>,
    /// Why it was skipped, failed or errored.
    pub reason: Option<String>,
    /// Whether it was skipped because it was never reached. Reports show "not run".
    pub unreached: bool,
    /// Time at which it began.
    #[serde(serialize_with = "rfc3339_always")]
    pub began: Timestamp,
    /// Duration, up to now while it runs.
    pub elapsed_us: u64,
    /// Tries of the step (`retry`).
    pub tries: u32,
    /// Repetitions of the action in the last try (`poll`).
    pub polls: u32,
    /// Keys of the coverage table's rows that it names.
    pub verifies: Vec<String>,
    /// Checks in the order written.
    pub checks: Vec<CheckResult>,
    /// Output of its command, if the step is ok.
    pub output: Option<Output>,
    /// Values that it captured, if the step is ok.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub captured: Vec<Captured>,
    /// What its failure or skip follows from, if not from the step itself; `null` in journals of versions that didn't
    /// record it.
    pub culprit: Option<Culprit>,
    /// Details that help to find the cause of a failure.
    pub failure: Option<Failure>,
    /// Set if it didn't run, because a snapshot of what it had done was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// Number of test cases that its program ran, by outcome; absent if it has no `results`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<Counts>,
    /// Whether it counts as a step of its own: a leaf, or a group with checks or with a verdict that none of its steps
    /// has.
    pub reported: bool,
}

impl StepView {
    /// Returns whether it is a test case, which the program of the step above it ran.
    pub fn is_case(&self) -> bool {
        self.action == CASE
    }

    /// Returns whether it counts as restored: it passed when a snapshot was made, and didn't run now.
    pub fn is_restored(&self) -> bool {
        self.restored.is_some() && self.outcome == Some(Outcome::Passed)
    }

    /// Returns the outcome as shown in reports.
    pub fn word(&self) -> &'static str {
        match self.outcome {
            Some(_) if self.unreached => "not run",
            Some(_) if self.is_restored() => "restored",
            Some(outcome) => outcome.as_str(),
            None => "running",
        }
    }
}

/// State of a service after its last event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceReport {
    /// Name in the spec.
    pub name: String,
    /// State in the life cycle.
    pub state: ServiceState,
    /// Image, address, exit code or error.
    pub detail: Option<String>,
    /// What its container ran, whatever its tag names now: `postgres@sha256:…` if the image came from a registry, else
    /// the engine's id `sha256:…`. `null` for host processes, and in journals of versions that didn't record it.
    pub image: Option<String>,
    /// Exits after which its `restart` policy started it again, oldest first.
    pub restarts: Vec<ServiceRestart>,
    /// The states that it went through, oldest first.
    pub history: Vec<ServiceStage>,
}

/// An exit after which a service was started again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceRestart {
    /// Time of the exit.
    #[serde(serialize_with = "rfc3339_always")]
    pub at: Timestamp,
    /// Exit code; 128 + signal number if a signal killed it.
    pub exit_code: i64,
    /// Whether the kernel killed it because it ran out of memory.
    pub oom: bool,
}

impl ServiceReport {
    /// Returns how often it was restarted and the exit codes, for example `restarted 3 times: exit codes 1, 1, 137
    /// (out of memory)`; `None` if it wasn't.
    pub fn restarted(&self) -> Option<String> {
        /// Maximum number of exit codes that are named.
        const NAMED: usize = 8;
        let count = self.restarts.len();
        let times = match count {
            0 => return None,
            1 => "once: exit code".to_owned(),
            _ => format!("{count} times: exit codes"),
        };
        let code = |exit: &ServiceRestart| match exit.oom {
            true => format!("{} (out of memory)", exit.exit_code),
            false => exit.exit_code.to_string(),
        };
        let mut codes: Vec<String> = self.restarts.iter().take(NAMED).map(code).collect();
        if count > NAMED {
            codes.push("…".to_owned());
        }
        Some(format!("restarted {times} {}", codes.join(", ")))
    }
}

/// A state that a service went through.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceStage {
    /// The state that it reached.
    pub state: ServiceState,
    /// Time at which the work for this state began: a pull, a start, a wait for readiness.
    #[serde(serialize_with = "rfc3339_always")]
    pub began: Timestamp,
    /// Time at which it reached the state.
    #[serde(serialize_with = "rfc3339_always")]
    pub ended: Timestamp,
}

/// Result of a clean-up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CleanUp {
    /// Duration of the clean-up.
    pub elapsed_us: u64,
    /// Number of objects removed.
    pub removed: u32,
    /// Objects that could not be removed.
    pub left: Vec<String>,
    /// Services left running for inspection.
    pub kept: Vec<KeptService>,
}

pub(crate) fn rfc3339<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_some(&time.to_rfc3339()),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn rfc3339_always<S: Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339())
}

/// Returns the groups and phases around a path, outermost first, as `known` maps them. A `foreach` key may contain a
/// slash, so a prefix counts only if it is known. Of very many prefixes only the outermost and the innermost are looked up.
pub(crate) fn ancestors<T>(path: &str, known: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut cuts: Vec<usize> = path.match_indices(['/', '[']).map(|(at, _)| at).collect();
    if cuts.len() > 2 * AROUND {
        cuts.drain(AROUND..cuts.len() - AROUND);
    }
    cuts.into_iter()
        .filter_map(|at| path.get(..at).and_then(&known))
        .collect()
}

/// Prefixes of a path that are looked up, from each of its ends.
const AROUND: usize = 64;

/// Returns a duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_slashes_and_brackets_is_no_group() {
        let known = ["sync", "sync/2", "sync/2[a/b]"];
        let found = ancestors("sync/2[a/b]/1", |prefix| {
            known.iter().position(|path| *path == prefix)
        });
        assert_eq!(found, [0, 1, 2]);
    }

    #[test]
    fn a_key_of_slashes_hides_neither_its_loop_nor_its_item() {
        let item = format!("sync/2[{}]", "/".repeat(10_000));
        let known = ["sync", "sync/2", item.as_str()];
        let asked = std::cell::Cell::new(0);
        let found = ancestors(&format!("{item}/1"), |prefix| {
            asked.set(asked.get() + 1);
            known.iter().position(|path| *path == prefix)
        });
        assert_eq!((found, asked.get()), (vec![0, 1, 2], 2 * AROUND));
    }
}
