//! The view of a run: what every report is made from, and what `--report json=…` writes as it is.
//!
//! Pure: a [`RunState`](phalanx_shared::run_state::RunState) and the time go in. It judges nothing; outcomes come from the fold. It does not lay out text.
//! A change of its fields is a change of the JSON report: see `docs/reports.md`, and raise [`VERSION`] if one goes away.

mod build;

pub use build::origin_path;
pub(super) use build::{ancestors, micros};

use super::coverage::Coverage;
use super::timing::Timing;
use indexmap::IndexMap;
use phalanx_shared::event::{CheckResult, Failure, KeptService, Output, ServiceState};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::CellStatus;
use phalanx_shared::time::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Version of the JSON report. Fields may be added within one.
pub const VERSION: u32 = 1;
/// Where a run's origin names its trace, if it has one.
pub const TRACE: &str = "trace";

/// A run for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// Its trace, if it was traced: 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The spec's name.
    pub spec: String,
    /// The spec's path as it was given, for messages; empty if unknown.
    pub path: String,
    /// The plan's digest.
    pub digest: String,
    /// The inputs after defaults and conversion.
    pub inputs: Map<String, Value>,
    /// `null` while it runs.
    pub outcome: Option<Outcome>,
    /// Why it was cancelled, if it was.
    pub cancelled: Option<String>,
    /// When it was submitted.
    #[serde(serialize_with = "rfc3339")]
    pub submitted: Option<Timestamp>,
    /// When its last cell got its outcome.
    #[serde(serialize_with = "rfc3339")]
    pub finished: Option<Timestamp>,
    /// Cells by outcome.
    pub cells_by_outcome: Counts,
    /// Steps of the newest attempts by outcome.
    pub steps_by_outcome: Counts,
    /// `verifies` rows × an axis; `null` if the spec has no rows.
    pub coverage: Option<Coverage>,
    /// Skipped steps by reason, the most frequent first; those that weren't reached are none.
    pub skips: Vec<SkipGroup>,
    /// Where the time went.
    pub timing: Timing,
    /// The cells in plan order.
    pub cells: Vec<CellView>,
}

/// How many of each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub total: usize,
    pub passed: usize,
    pub flaky: usize,
    pub skipped: usize,
    /// Steps that were never reached: a failure, a timeout or a cancel came before them.
    pub not_run: usize,
    pub cancelled: usize,
    pub failed: usize,
    pub errored: usize,
    /// Without an outcome yet.
    pub unfinished: usize,
}

impl Counts {
    /// Counts one more.
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

    /// Counts one more step.
    pub fn add_step(&mut self, step: &StepView) {
        if step.unreached {
            self.total += 1;
            self.not_run += 1;
        } else {
            self.add(step.outcome);
        }
    }

    /// How many of an outcome; `None` asks for those without one.
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

/// Steps that were skipped for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SkipGroup {
    /// Why.
    pub reason: String,
    /// Which steps, each with the names of the cells that skipped it.
    pub steps: IndexMap<String, Vec<String>>,
}

impl SkipGroup {
    /// How many skips there are of it.
    pub fn count(&self) -> usize {
        self.steps.values().map(Vec::len).sum()
    }
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellView {
    /// The same everywhere the same cell is planned.
    pub id: CellId,
    /// For people.
    pub name: String,
    /// Its axis values.
    pub matrix: IndexMap<String, Value>,
    /// A mark beside the outcome.
    pub experimental: bool,
    /// Where it is.
    pub status: CellStatus,
    /// Its one outcome.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<String>,
    /// From submission to the start of its first attempt.
    pub waited_us: Option<u64>,
    /// From the start of its first attempt to the end of the newest one's steps, clean-up not included.
    pub elapsed_us: Option<u64>,
    /// Offers that came to nothing, with why. They cost no try.
    pub returned: Vec<String>,
    /// Its tries, oldest first; only the newest counts.
    pub attempts: Vec<AttemptView>,
}

impl CellView {
    /// The attempt that counts.
    pub fn newest(&self) -> Option<&AttemptView> {
        self.attempts.last()
    }

    /// The steps that count as such: each leaf, and each group with a verdict of its own.
    pub fn steps(&self) -> impl Iterator<Item = &StepView> {
        self.newest()
            .into_iter()
            .flat_map(|attempt| attempt.steps.iter().filter(|step| step.reported))
    }
}

/// A try at a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptView {
    /// From 1.
    pub attempt: u32,
    /// Name of the agent.
    pub agent: String,
    /// When it was offered.
    #[serde(serialize_with = "rfc3339_always")]
    pub offered: Timestamp,
    /// When it started.
    #[serde(serialize_with = "rfc3339")]
    pub started: Option<Timestamp>,
    /// When its steps were over.
    #[serde(serialize_with = "rfc3339")]
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<String>,
    /// How long its steps took; so far, while it runs.
    pub elapsed_us: Option<u64>,
    /// Phases, groups and steps in the order they began.
    pub steps: Vec<StepView>,
    /// Services by name.
    pub services: Vec<ServiceReport>,
    /// What clean-up said.
    pub clean_up: Option<CleanUp>,
    /// Notes and log gaps.
    pub notes: Vec<String>,
}

/// What a line of the tree of steps is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum StepKind {
    Phase,
    Group,
    Step,
}

/// A phase, a group or a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepView {
    /// Its place in the attempt.
    pub path: String,
    /// For people.
    pub name: String,
    /// The name of its phase; a phase's own is its name.
    pub phase: String,
    /// What it is.
    pub kind: StepKind,
    /// How many groups and phases are around it.
    pub depth: usize,
    /// `http`, `exec` …
    pub action: String,
    /// `null` while it runs.
    pub outcome: Option<Outcome>,
    /// Why it was skipped, failed or errored.
    pub reason: Option<String>,
    /// Of a skipped one: that it was never reached. Reports say "not run".
    pub unreached: bool,
    /// When it began.
    #[serde(serialize_with = "rfc3339_always")]
    pub began: Timestamp,
    /// How long it took; so far, while it runs.
    pub elapsed_us: u64,
    /// Tries of the step.
    pub tries: u32,
    /// Repetitions of the action in the last try.
    pub polls: u32,
    /// The rows of the coverage table that it names.
    pub verifies: Vec<String>,
    /// Its checks.
    pub checks: Vec<CheckResult>,
    /// What its command printed, if it is ok.
    pub output: Option<Output>,
    /// What helps to see the cause.
    pub failure: Option<Failure>,
    /// Whether it counts as a step of its own: a leaf, or a group with checks or a verdict that none of its steps has.
    pub reported: bool,
}

impl StepView {
    /// Its outcome as reports say it.
    pub fn word(&self) -> &'static str {
        match self.outcome {
            Some(_) if self.unreached => "not run",
            Some(outcome) => outcome.as_str(),
            None => "running",
        }
    }
}

/// A service as it was last seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceReport {
    /// Its name in the spec.
    pub name: String,
    /// Where it is in its life.
    pub state: ServiceState,
    /// Image, address, exit code …
    pub detail: Option<String>,
}

/// What clean-up said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CleanUp {
    /// How long it took.
    pub elapsed_us: u64,
    /// Objects removed.
    pub removed: u32,
    /// Objects it could not remove.
    pub left: Vec<String>,
    /// Services kept for a person to look at.
    pub kept: Vec<KeptService>,
}

fn rfc3339<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_some(&time.to_rfc3339()),
        None => serializer.serialize_none(),
    }
}

fn rfc3339_always<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339())
}
