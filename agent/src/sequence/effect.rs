//! The interface between the sequence's core and its performer: inputs go in, effects come out.

use super::skip::Skipped;
use crate::context::frame::View;
use crate::context::services::{Down, Made, Recalled, Unavailable};
use crate::step::contract::{Asked, End, Item, Items, Opening, Refusal};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::diagnostic::Span;
use phalanx_shared::event::{Culprit, EventKind, StepPath, StepResult};
use phalanx_shared::language::model::Step;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
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
        result: Result<Items, Refusal>,
    },
    /// Answer to [`Effect::Open`].
    Opened {
        node: NodeId,
        result: Result<Opening, Refusal>,
    },
    /// Answer to [`Effect::Recall`].
    Recalled {
        node: NodeId,
        result: Result<Option<Box<Recalled>>, Unavailable>,
    },
    /// Answer to [`Effect::Remember`].
    Remembered {
        node: NodeId,
        result: Result<(), Unavailable>,
    },
    /// An action begins: the services that it names are ready.
    Acting,
    /// A try has its end, and keeps its artifacts before it answers with [`Input::Ended`].
    Judged { node: NodeId, end: Box<End> },
    /// Answer to [`Effect::Act`] and [`Effect::Conclude`].
    Ended { node: NodeId, end: Box<End> },
    /// An armed timer fired.
    Fired(Timer),
    /// A service exited unexpectedly or can't become ready.
    ServiceDown(Box<Down>),
    /// A cancel order arrived.
    Cancelled(CancelOrder),
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
    /// Ask for what a group with a snapshot has made in an earlier cell; answered by [`Input::Recalled`]. From now on, the
    /// results of the steps inside are collected.
    Recall { node: NodeId, path: StepPath },
    /// Save what the group has made; answered by [`Input::Remembered`].
    Remember {
        node: NodeId,
        path: StepPath,
        /// Rows of the coverage table that the group and the phase around it name.
        around: Vec<String>,
        made: Box<Made>,
    },
    /// Save nothing of the group.
    Forget { reason: String },
    /// Abort the action of an `Act`, `Recall` or `Remember`. A late answer is ignored.
    Stop { node: NodeId },
    /// Arm a timer; answered by [`Input::Fired`].
    Arm { timer: Timer, after: Duration },
    /// Disarm a timer that isn't needed any more.
    Disarm(Timer),
    /// Last effect: every event has been emitted.
    Finish(Judgement),
}

/// How a sequence ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Reason, as shown in reports.
    pub reason: Option<String>,
    /// Whether the cell's timeout ended it.
    pub timed_out: bool,
    /// What a failure follows from, if not from a step itself.
    pub culprit: Option<Culprit>,
}

impl Judgement {
    /// Creates a judgement that no time limit led to.
    pub fn bare(outcome: Outcome, reason: Option<String>) -> Self {
        Judgement {
            outcome,
            reason,
            timed_out: false,
            culprit: None,
        }
    }
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

/// The limits of a whole sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `cell.timeout`.
    pub cell: Duration,
    /// Grace for `always` steps after a timeout.
    pub grace: Duration,
}
