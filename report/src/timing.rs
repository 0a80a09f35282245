//! Where the time of a run went: wall time, efficiency, the critical path with what each piece of it could save, the
//! causes of waits, and the use of slots.
//!
//! All of it comes from a run's state. Wall time is from submission to finish. A cell's time is from the start of its
//! first attempt to the end of its newest attempt's steps. `docs/insight.md` explains every figure.

mod cell;
mod change;
mod describe;
mod graph;
mod holds;
mod path;
mod rows;
mod summary;
mod waterfall;

pub use change::{Change, Occupancy, closing_us, occupancies};
pub use summary::{activities, cell_path, lanes, timing, wall_us};
pub use waterfall::waterfall;

use phalanx_shared::event::StepPath;
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::{Wait, WaitCause};
use serde::Serialize;
use std::time::Duration;

/// Times of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Time from submission to finish, or to now while the run is open.
    pub wall_us: u64,
    /// Sum of the cells' times: what a sequential run would have taken.
    pub sum_us: u64,
    /// The time of the slowest cell divided by the wall time, from 0 to 1: 1 if the run took no longer than its slowest
    /// cell. `None` before the first cell started.
    pub efficiency: Option<f64>,
    /// Part of the critical path that is Phalanx's own work: planning, dispatch, the pauses between steps, the journal.
    pub overhead_us: u64,
    /// The cell that took longest.
    pub slowest: Option<Slowest>,
    /// Time by phase over all cells, in the order of the phases. Added by Phalanx: `(waiting)` for a slot, `(stack)`
    /// before the first phase, and `(clean-up)`.
    pub phases: Vec<PhaseTime>,
    /// Waits on the critical paths of all cells by cause, the longest sum first.
    pub waits: Vec<WaitTime>,
    /// Critical path of the run: segments from submission to finish without gaps or overlaps. It goes through other
    /// cells where a cell waited for what they held.
    pub critical_path: Vec<Segment>,
    /// How many slots the run used over time.
    pub slots: SlotUse,
}

/// The cell that took longest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slowest {
    /// Id of the cell.
    pub id: CellId,
    /// Display name.
    pub name: String,
    /// Time that the cell took.
    pub elapsed_us: u64,
    /// Segments from submission to the cell's end without gaps or overlaps. Potentials refer to the cell's end.
    pub critical_path: Vec<Segment>,
}

/// A segment of a critical path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// Activity during the segment, in one line.
    pub what: String,
    /// Kind of the activity.
    pub kind: SegmentKind,
    /// Cause, if nothing was done but wait.
    pub wait: Option<WaitCause>,
    /// Cell that it belongs to; `None` for what belongs to the run as a whole.
    pub cell: Option<CellId>,
    /// Phase, if the activity is a step.
    pub phase: Option<String>,
    /// Path of the step, if the activity is a step or a pause of one.
    pub step: Option<StepPath>,
    /// Service, if the activity is one of a service or a wait for it.
    pub service: Option<String>,
    /// Start, in microseconds since the submission.
    pub began_us: u64,
    /// Duration in microseconds.
    pub elapsed_us: u64,
    /// What the end of the path would win if this segment took no time: its duration, or less if another path takes
    /// over before that.
    pub potential_us: u64,
}

impl Segment {
    /// Returns whether it is long enough to be shown to people. Shorter ones are hidden; paths stay without gaps in the
    /// data.
    pub fn is_telling(&self) -> bool {
        match self.kind {
            SegmentKind::Overhead => self.elapsed_us >= 20_000,
            _ => self.elapsed_us >= 2_000,
        }
    }
}

/// An activity of a cell, on its critical path or beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellActivity {
    /// The activity; its potential is 0 beside the critical path.
    #[serde(flatten)]
    pub segment: Segment,
    /// Attempt that it belongs to, from 1; 0 for none.
    pub attempt: u32,
    /// Whether it is on the cell's critical path.
    pub critical: bool,
}

/// Kind of an activity.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SegmentKind {
    /// A cell waits for an agent.
    Queue,
    /// Phalanx works: planning, dispatch, what lies between steps, the journal.
    Overhead,
    /// The cell's network, or what its services share otherwise.
    Network,
    /// An image is pulled or built.
    Image,
    /// A container or process is created.
    Create,
    /// A container or process is started.
    Start,
    /// A service has started and isn't ready yet.
    Readiness,
    /// A service runs, and something waits for its end.
    Job,
    /// A step acts.
    Step,
    /// A step pauses: between polls or between tries.
    Pause,
    /// An engine request waits for its turn.
    EngineQueue,
    /// A snapshot is looked for, restored or saved, or another cell makes it.
    Snapshot,
    /// What an attempt left is removed.
    CleanUp,
}

impl SegmentKind {
    /// Returns the name in snake case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Times of a phase over all cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTime {
    /// Name of the phase.
    pub name: String,
    /// Number of cells in which it ran.
    pub cells: usize,
    /// Sum over these cells.
    pub sum_us: u64,
    /// Longest time in one cell.
    pub max_us: u64,
    /// Name of the cell with the longest time.
    pub max_cell: String,
}

/// Waits for one cause over all cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WaitTime {
    /// The cause.
    pub cause: WaitCause,
    /// Number of cells that waited for it.
    pub cells: usize,
    /// Sum over these cells.
    pub sum_us: u64,
    /// Longest wait of one cell.
    pub max_us: u64,
    /// Name of the cell that waited longest.
    pub max_cell: String,
}

/// Use of slots over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SlotUse {
    /// Largest number of slots that the run held at once.
    pub peak: u32,
    /// Mean number of slots that the run held, from submission to finish.
    pub mean: f64,
    /// Slots held and cells waiting, from each time on until that of the next point; at most 1,000 points.
    pub points: Vec<SlotPoint>,
}

/// Slots held and cells waiting from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlotPoint {
    /// Time in microseconds since the submission.
    pub at_us: u64,
    /// Slots held, clean-up included.
    pub used: u32,
    /// Cells that wait for an agent.
    pub queued: u32,
}

/// What one cell did and waited for, from submission to the end of its clean-up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waterfall {
    /// Id of the cell.
    pub cell: CellId,
    /// Display name.
    pub name: String,
    /// Time of the last bar's end, in microseconds since the submission.
    pub end_us: u64,
    /// Bars in the order in which they began, those of a phase, group or service before what is inside it.
    pub bars: Vec<Bar>,
}

/// One bar of a waterfall.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// Name of the phase, group, step, service or activity.
    pub what: String,
    /// What it shows.
    pub kind: BarKind,
    /// Kind of the activity, if it is a single one.
    pub activity: Option<SegmentKind>,
    /// Number of bars around it.
    pub depth: usize,
    /// Attempt that it belongs to, from 1; 0 for the wait before the first.
    pub attempt: u32,
    /// Path of the phase, group or step.
    pub step: Option<StepPath>,
    /// Service that it belongs to.
    pub service: Option<String>,
    /// Start, in microseconds since the submission.
    pub began_us: u64,
    /// Duration in microseconds, up to now while it goes on.
    pub elapsed_us: u64,
    /// Outcome of a phase, group or step; `None` for others and while it runs.
    pub outcome: Option<Outcome>,
    /// Waits within it, by cause.
    pub waits: Vec<Wait>,
    /// Whether it is on the cell's critical path.
    pub critical: bool,
}

/// What a bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BarKind {
    /// A phase.
    Phase,
    /// A group of steps.
    Group,
    /// A service, from its first work to its last event.
    Service,
    /// A single activity.
    Activity,
}

/// The attempts that an agent held, by slot: no two bars of a lane overlap.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lane {
    /// Display name of the agent.
    pub agent: String,
    /// Number of the slot on that agent, from 1.
    pub slot: u32,
    /// Attempts, in the order in which they began.
    pub bars: Vec<LaneBar>,
}

/// An attempt in a lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneBar {
    /// Id of the cell.
    pub cell: CellId,
    /// Display name of the cell.
    pub name: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Time of the offer, in microseconds since the submission.
    pub began_us: u64,
    /// Time from the offer until nothing was left of the attempt, clean-up included.
    pub elapsed_us: u64,
    /// Part of it until the steps ended.
    pub steps_us: u64,
    /// Outcome of the attempt.
    pub outcome: Option<Outcome>,
}

/// Returns a duration in whole microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the time between two points in whole microseconds; 0 if the first is later.
fn micros_between(from: Timestamp, to: Timestamp) -> u64 {
    micros(to.since(from))
}

/// Returns a cell's display name.
fn name_of(state: &RunState, cell: &CellId) -> String {
    let planned = state.planned(cell);
    planned.map_or_else(|| cell.to_string(), |planned| planned.name.clone())
}

/// Returns the sum of times. A journal may hold any time, so that the sum may not fit.
fn sum(times: impl Iterator<Item = u64>) -> u64 {
    times.fold(0, u64::saturating_add)
}
