//! The nodes of a running sequence: one per reached phase, loop, instance, group and step.

use super::outcome::Tally;
use crate::context::frame::Key;
use crate::context::frame::{FrameId, Handed, Value};
use crate::sequence::effect::{NodeId, Now};
use crate::step::contract::{End, Item, Needed, Waits};
use phalanx_shared::event::{Culprit, Restored, StepPath};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// One node of the tree.
#[derive(Debug)]
pub(super) struct Node {
    /// The node that contains it; `None` for the cell itself.
    pub parent: Option<NodeId>,
    /// The phase or step; `None` for the cell itself.
    pub item: Option<Item>,
    /// Whether it is a whole `foreach`, which has instances instead of an action.
    pub looped: bool,
    /// The key, if it is an instance.
    pub key: Option<Key>,
    /// Its path.
    pub path: StepPath,
    /// Its name in reports, with the key; empty until it is opened.
    pub name: String,
    /// Whether the other branch runs: `when` was false and there is an `else`.
    pub other_branch: bool,
    /// The scope in which it is evaluated.
    pub frame: FrameId,
    /// The scope in which its `id` is recorded.
    pub home: FrameId,
    /// Rows of the coverage table, including those of the groups around it.
    pub rows: Vec<String>,
    /// Whether it or a group around it is `always`.
    pub always: bool,
    /// Time when it was opened.
    pub began: Now,
    /// Number of tries that have begun.
    pub tries: u32,
    /// Maximum number of further tries after the first.
    pub retries: u32,
    /// Delay between two tries.
    pub delay: Duration,
    /// What its tries waited for.
    pub waits: Waits,
    /// The arguments of a `use`.
    pub params: Handed,
    /// Whether the items of its `foreach` are secrets or made of one.
    pub secret_items: bool,
    /// The timeout of a phase or group.
    pub limit: Option<Duration>,
    /// Its current state.
    pub state: State,
    /// The ends of the nodes inside it.
    pub tally: Tally,
    /// The reason, if a step inside has skipped this group by its `skip`.
    pub skipped: Option<String>,
    /// Whether its own timeout is over, so that no further try begins.
    pub timed_out: bool,
    /// The time for which artifacts have been kept in it.
    pub keeping: Keeping,
    /// What becomes of its snapshot; `None` for a node without one.
    pub snapshot: Option<OfSnapshot>,
}

/// The time for which artifacts are kept in a node, which counts against no timeout.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Number of steps whose artifacts are being kept, and since when that is more than none.
    steps: usize,
    since: Duration,
    /// Time until then.
    sum: Duration,
    /// How much of it timeouts have been put off by.
    excused: Duration,
}

/// Maximum time by which a timeout is put off for artifacts: the coordinator takes an overdue attempt back.
const EXCUSED: Duration = Duration::from_secs(60);

impl Keeping {
    pub fn begin(&mut self, now: Duration) {
        if self.steps == 0 {
            self.since = now;
        }
        self.steps += 1;
    }

    pub fn end(&mut self, now: Duration) {
        self.sum = self.sum(now);
        self.since = now;
        self.steps = self.steps.saturating_sub(1);
    }

    /// Returns the whole time so far.
    pub fn sum(&self, now: Duration) -> Duration {
        match self.steps {
            0 => self.sum,
            _ => self.sum + now.saturating_sub(self.since),
        }
    }

    /// Returns by how much a timeout that is over now has still to be put off.
    pub fn excuse(&mut self, now: Duration) -> Option<Duration> {
        let excused = self.sum(now).min(EXCUSED);
        let more = excused.saturating_sub(self.excused);
        self.excused = excused;
        (!more.is_zero()).then_some(more)
    }
}

/// The snapshot of a group while the group runs.
#[derive(Debug, Default)]
pub(super) struct OfSnapshot {
    /// Ids that were recorded before the group began.
    pub before: BTreeSet<String>,
    /// The snapshot from which it was restored.
    pub restored: Option<Restored>,
    /// How the group ended, while it is being saved.
    pub end: Option<Box<End>>,
    /// Whether nothing more is to be done about it.
    pub settled: bool,
}

/// The states in a node's life.
#[derive(Debug)]
pub(super) enum State {
    /// Its `when` is being evaluated.
    Asking,
    /// The list of its `foreach` is being evaluated.
    Listing,
    /// Its name, limits and arguments are being evaluated.
    Opening,
    /// The instances of its `foreach` run, in order; these are the remaining ones.
    Looping(VecDeque<(Key, Value)>),
    /// Its steps run, in order.
    Block(Block),
    /// Its steps run concurrently; `running` of them haven't ended.
    Parallel {
        running: usize,
        branches: Vec<NodeId>,
    },
    /// Its action is being tried.
    Acting,
    /// Its action has ended like this, and the artifacts of the try are being kept.
    Keeping(Box<End>),
    /// The captures and checks of the group are being evaluated.
    Concluding,
    /// What an earlier cell has made of the group is asked for.
    Recalling,
    /// What the group has made is being saved.
    Remembering,
    /// It waits for the next try.
    Delaying,
    /// It has its outcome.
    Done,
}

/// Steps that run in order.
#[derive(Debug)]
pub(super) struct Block {
    /// The remaining items with their positions.
    pub items: VecDeque<(usize, Item)>,
    /// The scope in which the steps are evaluated.
    pub frame: FrameId,
    /// The path that the steps' positions are appended to.
    pub path: StepPath,
    /// Set if the remaining steps don't run, except for `always` steps.
    pub stop: Option<Stop>,
}

/// The reason why an item doesn't run.
#[derive(Clone, Debug)]
pub(super) struct Why {
    /// Reason, as shown in reports.
    pub reason: String,
    /// Whether the item was never reached; otherwise the spec decided to skip it.
    pub unreached: bool,
    /// What it follows from, if the spec doesn't say so.
    pub culprit: Option<Culprit>,
}

impl Why {
    /// The spec decided it: by `when`, by `skip`, because there is nothing to repeat, or because a step that it needs
    /// was skipped.
    pub fn decided(reason: impl Into<String>) -> Self {
        Why {
            reason: reason.into(),
            unreached: false,
            culprit: None,
        }
    }

    /// A step that it needs has no captures.
    pub fn needs(needed: Needed) -> Self {
        Why {
            culprit: Some(needed.culprit),
            ..Why::decided(needed.reason)
        }
    }

    /// A failure, a timeout or a cancel order came first.
    pub fn unreached(reason: impl Into<String>) -> Self {
        Why {
            reason: reason.into(),
            unreached: true,
            culprit: None,
        }
    }
}

/// The reason why the rest of a block doesn't run.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    /// Reason for the skipped steps.
    pub why: Why,
    /// Whether even `always` steps no longer run.
    pub over: bool,
}

/// The end of the whole cell.
#[derive(Clone, Debug)]
pub(super) struct Halt {
    /// Reason for the skipped steps.
    pub reason: String,
    /// Time at which the cell's timeout was over; `None` for a cancel order.
    pub timed_out: Option<Duration>,
    /// Whether even `always` steps no longer run.
    pub over: bool,
}

impl Node {
    /// Returns whether a step's `skip` skips this group: it is not the cell, a phase or a whole loop.
    pub(super) fn is_group(&self) -> bool {
        matches!(self.item, Some(Item::Step(_)))
            && !self.looped
            && matches!(self.state, State::Block(_) | State::Parallel { .. })
    }

    /// Returns whether a task works on it, which can be stopped.
    pub(super) fn is_at_work(&self) -> bool {
        matches!(
            self.state,
            State::Acting | State::Keeping(_) | State::Recalling | State::Remembering
        )
    }

    /// Returns the keyword of its action.
    pub(super) fn action(&self) -> &'static str {
        match &self.item {
            Some(Item::Step(_)) if self.other_branch => "else",
            Some(Item::Step(step)) => step.action.keyword(),
            _ => "phase",
        }
    }

    /// Returns its block while its steps run.
    pub(super) fn block(&mut self) -> Option<&mut Block> {
        match &mut self.state {
            State::Block(block) => Some(block),
            _ => None,
        }
    }
}
