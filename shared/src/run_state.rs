//! What a run is after its events. CLI, reports and recovery use this and nothing else.
//!
//! Events come in through [`RunState::apply`] (in `fold.rs`), in journal order; this file holds the shape and what is asked of it.

mod fold;

use crate::event::{KeptService, ServiceState, StepResult};
use crate::id::{AgentId, CellId, RunId, Token};
use crate::outcome::Outcome;
use crate::plan::{Plan, PlannedCell};
use crate::time::Timestamp;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A run after some of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// Its plan, once submitted.
    pub plan: Option<Plan>,
    /// What it came from.
    pub origin: Map<String, Value>,
    /// When it was submitted.
    pub submitted: Option<Timestamp>,
    /// When it finished.
    pub finished: Option<Timestamp>,
    /// Its outcome, once finished.
    pub outcome: Option<Outcome>,
    /// Why it was cancelled, if it was.
    pub cancel: Option<String>,
    /// The cells in plan order.
    pub cells: IndexMap<CellId, CellState>,
}

/// A cell after some of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellState {
    /// Its tries, oldest first; only the newest counts.
    pub attempts: Vec<AttemptState>,
    /// Where it is.
    pub status: CellStatus,
    /// Its one outcome (I2).
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<String>,
    /// When it got its outcome.
    pub finished: Option<Timestamp>,
}

/// Where a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum CellStatus {
    Queued,
    Offered,
    Accepted,
    Running,
    /// The attempt ended, the cell has no outcome yet (it may be tried again).
    Ended,
    Finished,
}

/// A try at a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptState {
    /// From 1.
    pub attempt: u32,
    /// The coordinator's term in which it was offered.
    pub epoch: u64,
    /// Who runs it.
    pub agent: AgentId,
    /// Its name for people.
    pub agent_name: String,
    /// When it was offered.
    pub offered: Timestamp,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When its steps were over (clean-up not included).
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<String>,
    /// The offer came to nothing; it doesn't count as a try.
    pub returned: bool,
    /// It ended because its agent was lost.
    #[serde(default)]
    pub lost: bool,
    /// Nothing more comes of it: returned, lost, or its agent was lost during clean-up. What is still said of it is late.
    #[serde(default)]
    pub gone: bool,
    /// The phase in progress.
    pub phase: Option<String>,
    /// The innermost step in progress, as its path.
    pub step: Option<String>,
    /// Steps in the order they began.
    pub steps: IndexMap<String, StepState>,
    /// Services by name.
    pub services: IndexMap<String, ServiceView>,
    /// What keeps services that aren't ready, by name; until their next state.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub progress: IndexMap<String, String>,
    /// Seq of the last event folded; older or equal ones change nothing (duplicates).
    pub last_seq: u64,
    /// What clean-up said.
    pub torn_down: Option<TornDown>,
    /// Notes and log gaps, for people.
    pub notes: Vec<String>,
}

/// A step, group or phase in progress or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// For people.
    pub name: String,
    /// `phase`, `http` …
    pub action: String,
    /// When it began.
    pub began: Timestamp,
    /// How it ended.
    pub result: Option<StepResult>,
}

/// A service as its last event left it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Where it is in its life.
    pub state: ServiceState,
    /// Image, address, exit code …
    pub detail: Option<String>,
    /// Each state with the time its work began and ended, for spans.
    pub history: Vec<(ServiceState, Timestamp, Timestamp)>,
}

/// What clean-up said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TornDown {
    /// When clean-up began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Objects removed.
    pub removed: u32,
    /// Objects it could not remove.
    pub left: Vec<String>,
    /// Services kept for a person to look at.
    pub kept: Vec<KeptService>,
}

/// How many cells of a run are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub total: u32,
    /// Waiting for an agent, or for the next try.
    pub queued: u32,
    /// Offered to an agent, or taken by one, or running there.
    pub running: u32,
    pub passed: u32,
    pub flaky: u32,
    pub skipped: u32,
    pub cancelled: u32,
    pub failed: u32,
    pub errored: u32,
}

impl RunState {
    /// A run of which nothing is known yet.
    pub fn new(run: RunId) -> Self {
        RunState {
            run,
            plan: None,
            origin: Map::new(),
            submitted: None,
            finished: None,
            outcome: None,
            cancel: None,
            cells: IndexMap::new(),
        }
    }

    /// The plan's cell of an id.
    pub fn planned(&self, cell: &CellId) -> Option<&PlannedCell> {
        let index = self.cells.get_index_of(cell)?;
        self.plan.as_ref()?.cells.get(index)
    }

    /// Whether the run has its outcome. Clean-up of its last attempts may still go on.
    pub fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether nothing more will happen: finished, and no attempt is left to clean up.
    pub fn is_settled(&self) -> bool {
        self.is_finished() && self.cells.values().all(|cell| !cell.holds_agent())
    }

    /// The outcome that the run has, or would have if it ended now: the worst of its cells.
    ///
    /// Skipped cells beside others change nothing; a run of nothing but skipped cells is `skipped`, never green.
    /// `None` until every cell has its outcome.
    pub fn run_outcome(&self) -> Option<Outcome> {
        let mut worst = None;
        for cell in self.cells.values() {
            let outcome = cell.outcome?;
            if outcome != Outcome::Skipped {
                worst = worst.max(Some(outcome));
            }
        }
        self.plan.as_ref()?;
        Some(worst.unwrap_or(Outcome::Skipped))
    }

    /// How many cells are where.
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

    /// The newest attempt that an agent had, returned offers left out. The one whose outcome and steps count.
    pub fn newest(&self) -> Option<&AttemptState> {
        self.attempts.iter().rev().find(|attempt| !attempt.returned)
    }

    /// Tries that count: offers that came to nothing don't.
    pub fn tries(&self) -> u32 {
        let tries = self.attempts.iter().filter(|a| !a.returned).count();
        u32::try_from(tries).unwrap_or(u32::MAX)
    }

    /// Tries that ended because their agent was lost.
    pub fn lost(&self) -> u32 {
        let lost = self.attempts.iter().filter(|a| a.lost).count();
        u32::try_from(lost).unwrap_or(u32::MAX)
    }

    /// Whether an agent holds the newest attempt: offered, running, or still cleaning up.
    pub fn holds_agent(&self) -> bool {
        self.attempts.last().is_some_and(AttemptState::is_held)
    }
}

impl AttemptState {
    /// Whether its agent still has something of it: not gone, not torn down.
    pub fn is_held(&self) -> bool {
        !self.gone && self.torn_down.is_none()
    }

    /// The attempt's token.
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
