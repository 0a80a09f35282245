//! The words between the sequence's core and whoever performs for it: inputs go in, effects come out.

use super::frame::{Value, View};
use super::skip::Skipped;
use phalanx_shared::diagnostic::Span;
use phalanx_shared::event::{CheckResult, EventKind, Failure, Output, StepPath, StepResult};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::spec::model::{Phase, Step};
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
    /// Wall time, for events.
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

/// What the sequence learns.
#[derive(Debug)]
pub enum Input {
    /// It begins.
    Start,
    /// The answer to [`Effect::Ask`].
    Asked {
        node: NodeId,
        result: Result<Asked, Refusal>,
    },
    /// The answer to [`Effect::List`].
    Listed {
        node: NodeId,
        result: Result<Vec<Value>, Refusal>,
    },
    /// The answer to [`Effect::Open`].
    Opened {
        node: NodeId,
        result: Result<Opening, Refusal>,
    },
    /// An action begins: the services it names are ready.
    Acting { node: NodeId },
    /// The answer to [`Effect::Act`] and [`Effect::Conclude`].
    Ended { node: NodeId, end: Box<End> },
    /// An armed timer fired.
    Fired(Timer),
    /// A service exited unasked, or can't become ready.
    ServiceDown(Box<Down>),
    /// The order to end.
    Cancelled {
        grace: Duration,
        reason: String,
        force: bool,
    },
}

/// What the sequence wants done, in order.
#[derive(Debug)]
pub enum Effect {
    /// Tell a fact.
    Emit(EventKind),
    /// Tell how a step ended. Whoever performs it adds the step's place to a failure that has none.
    Ended { result: Box<StepResult>, span: Span },
    /// Tell that a step and everything inside is skipped; see [`super::skip::expand`].
    Skip(Box<Skipped>),
    /// Ask `when`; answered by [`Input::Asked`].
    Ask {
        node: NodeId,
        item: Item,
        view: View,
    },
    /// Evaluate a `foreach` list; answered by [`Input::Listed`].
    List {
        node: NodeId,
        step: Arc<Step>,
        view: View,
    },
    /// Evaluate what surrounds an action; answered by [`Input::Opened`].
    Open {
        node: NodeId,
        item: Item,
        view: View,
    },
    /// Try an action once, from waiting for its services to its checks; answered by [`Input::Acting`], then [`Input::Ended`].
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
        /// Where the step itself stands.
        view: View,
        /// Where its body ran.
        inner: View,
    },
    /// Drop what an `Act` is doing. A late answer is ignored.
    Stop { node: NodeId },
    /// Arm a timer; answered by [`Input::Fired`].
    Arm { timer: Timer, after: Duration },
    /// A timer that isn't needed any more.
    Disarm(Timer),
    /// All is told. The last effect.
    Finish {
        outcome: Outcome,
        reason: Option<String>,
    },
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The whole cell.
    Cell,
    /// `always` steps after a cancel or the cell's timeout.
    Grace,
    /// A phase or group.
    Limit(NodeId),
    /// `always` steps of a phase or group after its timeout.
    LimitGrace(NodeId),
    /// Between two tries.
    Retry(NodeId),
}

/// What `when` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It runs.
    Run,
    /// It doesn't, and why.
    Not { reason: String },
}

/// Why something could not be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It reads a capture of a step that has none, since it was skipped (or failed): `needs ID, skipped: …`.
    Needs { reason: String },
    /// It can't be evaluated.
    Invalid {
        /// The item's name, as far as it can be evaluated.
        name: String,
        /// `failed`, or `errored` when a service it names could not be had.
        outcome: Outcome,
        message: String,
        failure: Option<Box<Failure>>,
    },
}

/// What surrounds an action, evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opening {
    /// What reports show, without the `foreach` key.
    pub name: String,
    /// Rows of the coverage table that it names itself.
    pub rows: Vec<String>,
    /// Limit of a phase or group; a leaf's action has its limit of its own.
    pub timeout: Option<Duration>,
    /// Further tries after the first.
    pub retries: u32,
    /// Between tries.
    pub delay: Duration,
    /// The arguments of a `use`.
    pub params: BTreeMap<String, Value>,
}

/// How one try of an action (or the conclusion of a group) ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Passed, skipped, failed, errored or cancelled.
    pub outcome: Outcome,
    /// Why, in one line.
    pub reason: Option<String>,
    /// Whether `skip` said so: then the group it stands in is skipped too.
    pub skips_group: bool,
    /// Each check.
    pub checks: Vec<CheckResult>,
    /// What its command printed.
    pub output: Option<Output>,
    /// What helps to see the cause.
    pub failure: Option<Failure>,
    /// Repetitions of the action.
    pub polls: u32,
    /// What later steps read; of a passed try only.
    pub captures: Arc<BTreeMap<String, Value>>,
}

impl End {
    /// An end without checks and captures.
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

/// A service that went down, or never came up.
#[derive(Clone, Debug, PartialEq)]
pub struct Down {
    /// Which.
    pub service: String,
    /// `failed` or `errored`.
    pub outcome: Outcome,
    /// What happened, in one line.
    pub reason: String,
    /// The tail of its log, what inspecting it says.
    pub failure: Failure,
}

/// The limits of a whole sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `cell.timeout`.
    pub cell: Duration,
    /// For `always` steps after a timeout.
    pub grace: Duration,
}

impl Item {
    /// Whether it runs after a failure, a timeout or a cancel.
    pub fn always(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.always,
            Item::Step(step) => step.always,
        }
    }

    /// Whether what follows it runs after it failed.
    pub fn continue_on_failure(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.continue_on_failure,
            Item::Step(step) => step.continue_on_failure,
        }
    }

    /// Whether it has a `when`.
    pub fn has_when(&self) -> bool {
        match self {
            Item::Phase(phase) => phase.when.is_some(),
            Item::Step(step) => step.when.is_some(),
        }
    }
}
