//! The interface between the sequence's core and its performer: inputs go in, effects come out.

use super::frame::{Value, View};
use super::skip::Skipped;
use phalanx_shared::diagnostic::Span;
use phalanx_shared::event::{CheckResult, EventKind, Failure, Output, StepPath, StepResult};
use phalanx_shared::language::model::{Phase, Step};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A phase, step, group or instance in the sequence's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) usize);

/// The time at which an input is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time, for events.
    pub wall: Timestamp,
    /// Monotonic time, for durations.
    pub mono: Duration,
}

/// A phase or a step of the spec.
#[derive(Clone, Debug)]
pub enum Item {
    /// A phase.
    Phase(Arc<Phase>),
    /// A step.
    Step(Arc<Step>),
}

/// Inputs of the sequence's core.
#[derive(Debug)]
pub enum Input {
    /// The sequence starts.
    Start,
    /// Answer to [`Effect::Ask`].
    Asked {
        node: NodeId,
        result: Result<Asked, Refusal>,
    },
    /// Answer to [`Effect::List`].
    Listed {
        node: NodeId,
        result: Result<Vec<Value>, Refusal>,
    },
    /// Answer to [`Effect::Open`].
    Opened {
        node: NodeId,
        result: Result<Opening, Refusal>,
    },
    /// An action begins: the services that it names are ready.
    Acting { node: NodeId },
    /// Answer to [`Effect::Act`] and [`Effect::Conclude`].
    Ended { node: NodeId, end: Box<End> },
    /// An armed timer fired.
    Fired(Timer),
    /// A service exited unexpectedly or can't become ready.
    ServiceDown(Box<Down>),
    /// A cancel order arrived.
    Cancelled {
        grace: Duration,
        reason: String,
        force: bool,
    },
}

/// Effects that the core wants performed, in order.
#[derive(Debug)]
pub enum Effect {
    /// Emit an event.
    Emit(EventKind),
    /// Emit the end of a step. The performer adds the step's position to a failure that has none.
    Ended { result: Box<StepResult>, span: Span },
    /// Emit that a step and everything inside it is skipped; see [`super::skip::expand`].
    Skip(Box<Skipped>),
    /// Evaluate `when`; answered by [`Input::Asked`].
    Ask {
        node: NodeId,
        item: Item,
        view: View,
    },
    /// Evaluate the list of a `foreach`; answered by [`Input::Listed`].
    List {
        node: NodeId,
        step: Arc<Step>,
        view: View,
    },
    /// Evaluate everything around an action (name, limits, arguments); answered by [`Input::Opened`].
    Open {
        node: NodeId,
        item: Item,
        view: View,
    },
    /// Try an action once, from waiting for its services to its checks; answered by [`Input::Acting`], then
    /// [`Input::Ended`].
    Act {
        node: NodeId,
        step: Arc<Step>,
        path: StepPath,
        view: View,
        attempt: u32,
    },
    /// Evaluate captures and checks of a `use` or group whose body passed; answered by [`Input::Ended`].
    Conclude {
        node: NodeId,
        step: Arc<Step>,
        /// The scopes that the step itself sees.
        view: View,
        /// The scopes of its body.
        inner: View,
    },
    /// Abort the action of an `Act`. A late answer is ignored.
    Stop { node: NodeId },
    /// Arm a timer; answered by [`Input::Fired`].
    Arm { timer: Timer, after: Duration },
    /// Disarm a timer that isn't needed any more.
    Disarm(Timer),
    /// Last effect: every event has been emitted.
    Finish {
        outcome: Outcome,
        reason: Option<String>,
    },
}

/// The purposes of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Timeout of the whole cell.
    Cell,
    /// Grace for `always` steps after a cancel order or the cell's timeout.
    Grace,
    /// Timeout of a phase or group.
    Limit(NodeId),
    /// Grace for the `always` steps of a phase or group after its timeout.
    LimitGrace(NodeId),
    /// Delay between two tries.
    Retry(NodeId),
}

/// The result of evaluating `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The item runs.
    Run,
    /// The item doesn't run, for this reason.
    Not { reason: String },
}

/// Reasons why an item could not be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It reads a capture of a step that has none because it was skipped or failed: `needs ID, skipped: …`.
    Needs { reason: String },
    /// Its evaluation failed.
    Invalid {
        /// The item's name, evaluated as far as possible.
        name: String,
        /// `failed`, or `errored` if a service that it names is unavailable.
        outcome: Outcome,
        message: String,
        failure: Option<Box<Failure>>,
    },
}

/// The evaluated surroundings of an action.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opening {
    /// Name in reports, without the `foreach` key.
    pub name: String,
    /// Rows of the coverage table that the item names itself.
    pub rows: Vec<String>,
    /// Timeout of a phase or group. The action of a leaf applies its timeout itself.
    pub timeout: Option<Duration>,
    /// Maximum number of further tries after the first.
    pub retries: u32,
    /// Delay between two tries.
    pub delay: Duration,
    /// The arguments of a `use`.
    pub params: BTreeMap<String, Value>,
}

/// The end of one try of an action, or of the conclusion of a group.
#[derive(Clone, Debug)]
pub struct End {
    /// Passed, skipped, failed, errored or cancelled.
    pub outcome: Outcome,
    /// Reason in one line, as shown in reports.
    pub reason: Option<String>,
    /// Whether the step's `skip` applied, so that the group around it is skipped too.
    pub skips_group: bool,
    /// The result of each check.
    pub checks: Vec<CheckResult>,
    /// The output of its command.
    pub output: Option<Output>,
    /// Evidence that helps to find the cause.
    pub failure: Option<Failure>,
    /// Number of repetitions of the action.
    pub polls: u32,
    /// Values that later steps can read; empty unless the try passed.
    pub captures: Arc<BTreeMap<String, Value>>,
}

impl End {
    /// Creates an end without checks and captures.
    pub fn bare(outcome: Outcome, reason: Option<String>) -> Self {
        End {
            outcome,
            reason,
            skips_group: false,
            checks: Vec::new(),
            output: None,
            failure: None,
            polls: 0,
            captures: Arc::default(),
        }
    }
}

/// A service that went down, or never became ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Down {
    /// Name of the service.
    pub service: String,
    /// `failed` or `errored`.
    pub outcome: Outcome,
    /// Reason in one line.
    pub reason: String,
    /// Evidence: the tail of its log and the result of inspecting it.
    pub failure: Failure,
}

/// The limits of a whole sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `cell.timeout`.
    pub cell: Duration,
    /// Grace for `always` steps after a timeout.
    pub grace: Duration,
}

impl Item {
    /// Returns whether the item runs after a failure, a timeout or a cancel order.
    pub fn always(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.always,
            Item::Step(step) => step.always,
        }
    }

    /// Returns whether the items after it run if it fails.
    pub fn continue_on_failure(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.continue_on_failure,
            Item::Step(step) => step.continue_on_failure,
        }
    }

    /// Returns whether it has a `when`.
    pub fn has_when(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.when.is_some(),
            Item::Step(step) => step.when.is_some(),
        }
    }
}
