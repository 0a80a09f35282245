//! The state of a run, folded from its events. The CLI, reports and recovery use this and nothing else.
//!
//! [`RunState::apply`] (in `fold.rs`) takes the events in journal order; this file holds the data types and the
//! queries.

mod fold;

use crate::cancel::CancelOrder;
use crate::event::{
    Artifact, Capacity, Culprit, KeptService, ServiceState, SnapshotState, StepResult,
};
use crate::id::{AgentId, CellId, RunId, Token};
use crate::outcome::Outcome;
use crate::plan::{Plan, PlannedCell};
use crate::time::Timestamp;
use crate::wait::Wait;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// State of a run after some of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Id of the run.
    pub run: RunId,
    /// Plan of the run; set once the run was submitted.
    pub plan: Option<Plan>,
    /// Where the run came from: the spec's path, inputs, `--only`.
    pub origin: Map<String, Value>,
    /// Time of submission.
    pub submitted: Option<Timestamp>,
    /// Time at which the run finished.
    pub finished: Option<Timestamp>,
    /// Outcome of the run, once finished.
    pub outcome: Option<Outcome>,
    /// Reason of the cancellation, if one was requested before the run finished.
    pub cancel: Option<String>,
    /// The harshest cancel order so far. Versions that recorded only the reason leave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<CancelOrder>,
    /// Whether a harsher order followed the first one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escalated: bool,
    /// Cells in plan order.
    pub cells: IndexMap<CellId, CellState>,
    /// What the agents have that were offered cells; empty in journals of versions that didn't record it.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub agents: IndexMap<AgentId, Capacity>,
}

/// State of a cell after some of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellState {
    /// Attempts, oldest first; only the newest counts.
    pub attempts: Vec<AttemptState>,
    /// Current place in the cell's life cycle.
    pub status: CellStatus,
    /// The cell's only outcome (I2).
    pub outcome: Option<Outcome>,
    /// Reason of the outcome, shown in reports.
    pub reason: Option<String>,
    /// Time at which the cell got its outcome.
    pub finished: Option<Timestamp>,
}

/// Place in a cell's life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum CellStatus {
    Queued,
    Offered,
    Accepted,
    Running,
    /// The attempt ended but the cell has no outcome yet (it may be tried again).
    Ended,
    Finished,
}

/// State of one attempt at a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptState {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Epoch of the coordinator that offered the attempt.
    pub epoch: u64,
    /// Agent that was offered the attempt.
    pub agent: AgentId,
    /// Display name of the agent.
    pub agent_name: String,
    /// Time of the offer.
    pub offered: Timestamp,
    /// What it waited for in the queue before the offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// Time in milliseconds that the cell was expected to take; 0 if unknown, `None` in journals of versions that didn't
    /// record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// Time at which the attempt started.
    pub started: Option<Timestamp>,
    /// How what its services share came into being; `None` until then, and in journals of versions that didn't record
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
    /// Time at which the attempt's steps ended (clean-up not included).
    pub finished: Option<Timestamp>,
    /// Outcome of the attempt.
    pub outcome: Option<Outcome>,
    /// Reason of the outcome, shown in reports.
    pub reason: Option<String>,
    /// What its failure follows from; `None` in journals of versions that didn't record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<Culprit>,
    /// Whether the offer was declined or not answered; then the attempt doesn't count as a try.
    pub returned: bool,
    /// Whether the attempt ended because its agent was lost.
    #[serde(default)]
    pub lost: bool,
    /// Whether no further events count: the offer was returned, or the agent was lost (before the end or during
    /// clean-up). Later events are stale.
    #[serde(default)]
    pub gone: bool,
    /// Name of the phase in progress.
    pub phase: Option<String>,
    /// Path of the innermost step in progress.
    pub step: Option<String>,
    /// Steps, groups and phases by path, in the order in which they began.
    pub steps: IndexMap<String, StepState>,
    /// Services by name.
    pub services: IndexMap<String, ServiceView>,
    /// Current activity of services that aren't ready, by name; removed when the service's state changes.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub progress: IndexMap<String, String>,
    /// What became of snapshots, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotSeen>,
    /// `seq` of the last folded event; events up to it are duplicates and change nothing.
    pub last_seq: u64,
    /// Result of the clean-up.
    pub torn_down: Option<TornDown>,
    /// Notes and log gaps, for display.
    pub notes: Vec<String>,
    /// Files that were kept, and those that weren't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// What became of the snapshot of a group in an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSeen {
    /// Path of the group.
    pub path: String,
    /// The snapshot's key; empty if it could not be computed.
    pub key: String,
    /// What became of it.
    pub state: SnapshotState,
    /// Time at which the work for this state began.
    pub began: Timestamp,
    /// Time at which it ended.
    pub ended: Timestamp,
    /// Run that made the snapshot, if another one did.
    pub run: Option<RunId>,
    /// Size of the saved files.
    pub bytes: u64,
    /// Why there is none, or why it isn't used.
    pub reason: Option<String>,
}

/// A step, group or phase in progress or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Name shown in reports.
    pub name: String,
    /// `phase`, `http`, `exec` …
    pub action: String,
    /// Time at which the step began.
    pub began: Timestamp,
    /// Result, once the step ended.
    pub result: Option<StepResult>,
}

/// State of a service after its last event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Current state in the life cycle.
    pub state: ServiceState,
    /// Image, address, exit code or error.
    pub detail: Option<String>,
    /// What its container runs: `postgres@sha256:…`, or the engine's id of the image. `None` for host processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Exits after which its `restart` policy started it again, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<Restarted>,
    /// Each state with the times at which its work began and ended, for spans.
    pub history: Vec<(ServiceState, Timestamp, Timestamp)>,
    /// For each entry of `history`, the part of its time in which the engine was busy with other requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queued_us: Vec<u64>,
}

/// An exit after which a service was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// Time of the exit.
    pub at: Timestamp,
    /// Exit code; 128 + signal number if a signal killed it.
    pub code: i64,
    /// Whether the kernel killed it because it ran out of memory.
    pub oom: bool,
}

/// How what an attempt's services share came into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Time at which it began.
    pub began: Timestamp,
    /// Time at which it was done.
    pub ended: Timestamp,
    /// Part of it in which the engine was busy with other requests, in microseconds.
    pub queued_us: u64,
}

/// Result of a clean-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TornDown {
    /// Time at which clean-up began.
    pub began: Timestamp,
    /// Time at which clean-up ended.
    pub ended: Timestamp,
    /// Number of objects removed.
    pub removed: u32,
    /// Objects that could not be removed.
    pub left: Vec<String>,
    /// Services left running for inspection.
    pub kept: Vec<KeptService>,
}

/// Number of cells in each place of the life cycle, and by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub total: u32,
    /// Cells that wait for an agent, or for the next try.
    pub queued: u32,
    /// Cells that are offered to an agent, accepted or running.
    pub running: u32,
    pub passed: u32,
    pub flaky: u32,
    pub skipped: u32,
    pub cancelled: u32,
    pub failed: u32,
    pub errored: u32,
}

impl RunState {
    /// Returns the state of a run before its first event.
    pub fn new(run: RunId) -> Self {
        RunState {
            run,
            plan: None,
            origin: Map::new(),
            submitted: None,
            finished: None,
            outcome: None,
            cancel: None,
            order: None,
            escalated: false,
            cells: IndexMap::new(),
            agents: IndexMap::new(),
        }
    }

    /// Returns the planned cell with this id.
    pub fn planned(&self, cell: &CellId) -> Option<&PlannedCell> {
        let index = self.cells.get_index_of(cell)?;
        self.plan.as_ref()?.cells.get(index)
    }

    /// Returns whether the run has its outcome. Clean-up of its last attempts may still be in progress.
    pub fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    /// Returns whether nothing more will happen: the run is finished, and no attempt is left to clean up.
    pub fn is_settled(&self) -> bool {
        self.is_finished() && self.cells.values().all(|cell| !cell.holds_agent())
    }

    /// Returns the outcome that the run has, or would have if it ended now: the worst outcome of its cells, or
    /// `failed` if they are ok and more steps were skipped than the plan allows.
    ///
    /// Skipped cells don't count if other cells ran; a run with only skipped cells is `skipped`, never green.
    /// Returns `None` until every cell has its outcome.
    pub fn run_outcome(&self) -> Option<Outcome> {
        let mut worst = None;
        for cell in self.cells.values() {
            let outcome = cell.outcome?;
            if outcome != Outcome::Skipped {
                worst = worst.max(Some(outcome));
            }
        }
        let plan = self.plan.as_ref()?;
        let outcome = worst.unwrap_or(Outcome::Skipped);
        match plan.max_skips {
            Some(most) if outcome.is_ok() && self.skips() > u64::from(most) => {
                Some(Outcome::Failed)
            }
            _ => Some(outcome),
        }
    }

    /// Returns the number of steps that the spec skipped, in the newest attempts. A group counts by the steps inside it.
    /// Steps that were never reached don't count.
    pub fn skips(&self) -> u64 {
        let newest = self.cells.values().filter_map(CellState::newest);
        newest.map(AttemptState::skips).sum()
    }

    /// Counts the cells by place and outcome.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for cell in self.cells.values() {
            counts.total += 1;
            let place = match (cell.outcome, cell.status) {
                (Some(Outcome::Passed), _) => &mut counts.passed,
                (Some(Outcome::Flaky), _) => &mut counts.flaky,
                (Some(Outcome::Skipped), _) => &mut counts.skipped,
                (Some(Outcome::Cancelled), _) => &mut counts.cancelled,
                (Some(Outcome::Failed), _) => &mut counts.failed,
                (Some(Outcome::Errored), _) => &mut counts.errored,
                (None, CellStatus::Queued | CellStatus::Ended) => &mut counts.queued,
                (None, _) => &mut counts.running,
            };
            *place += 1;
        }
        counts
    }
}

impl CellState {
    fn new() -> Self {
        CellState {
            attempts: Vec::new(),
            status: CellStatus::Queued,
            outcome: None,
            reason: None,
            finished: None,
        }
    }

    /// Returns the newest attempt whose offer was not returned. Its outcome and steps are the ones that count.
    pub fn newest(&self) -> Option<&AttemptState> {
        self.attempts.iter().rev().find(|attempt| !attempt.returned)
    }

    /// Returns the number of tries; returned offers don't count.
    pub fn tries(&self) -> u32 {
        let tries = self.attempts.iter().filter(|a| !a.returned).count();
        u32::try_from(tries).unwrap_or(u32::MAX)
    }

    /// Returns the number of tries that ended because their agent was lost.
    pub fn lost(&self) -> u32 {
        let lost = self.attempts.iter().filter(|a| a.lost).count();
        u32::try_from(lost).unwrap_or(u32::MAX)
    }

    /// Returns whether an agent holds the newest attempt: offered, running, or still cleaning up.
    pub fn holds_agent(&self) -> bool {
        self.attempts.last().is_some_and(AttemptState::is_held)
    }
}

impl AttemptState {
    /// Returns whether the agent still holds the attempt: not gone and not torn down.
    pub fn is_held(&self) -> bool {
        !self.gone && self.torn_down.is_none()
    }

    /// Returns the number of steps that the spec skipped.
    fn skips(&self) -> u64 {
        let is_skipped =
            |result: &StepResult| result.outcome == Outcome::Skipped && !result.unreached;
        let skipped = self
            .steps
            .iter()
            .filter(|(_, step)| step.result.as_ref().is_some_and(is_skipped));
        let mut skipped = skipped
            .map(|(path, _)| path.as_str())
            .filter(|path| path.contains('/'))
            .peekable();
        if skipped.peek().is_none() {
            return 0;
        }
        // What is inside a group stands beside it in the order of paths, so no path is looked up by all its prefixes.
        let mut paths: Vec<&str> = self.steps.keys().map(String::as_str).collect();
        paths.sort_unstable();
        let holds = |group: &str, separator: char| {
            let start = format!("{group}{separator}");
            let at = paths.partition_point(|path| *path < start.as_str());
            paths.get(at).is_some_and(|path| path.starts_with(&start))
        };
        let leaves = skipped.filter(|path| !holds(path, '/') && !holds(path, '['));
        u64::try_from(leaves.count()).unwrap_or(u64::MAX)
    }

    /// Returns the attempt's token.
    pub fn token(&self, run: &RunId, cell: &CellId) -> Token {
        Token {
            run: run.clone(),
            cell: cell.clone(),
            attempt: self.attempt,
            epoch: self.epoch,
        }
    }
}

#[cfg(test)]
mod tests;
