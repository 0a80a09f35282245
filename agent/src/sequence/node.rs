//! The nodes of a running sequence: one per phase, loop, instance, group and step that was reached.

use super::effect::{Item, NodeId, Now};
use super::frame::{FrameId, Value};
use super::key::Key;
use super::outcome::Tally;
use phalanx_shared::event::StepPath;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// One node of the tree.
#[derive(Debug)]
pub(super) struct Node {
    /// What it stands in; `None` of the cell itself.
    pub parent: Option<NodeId>,
    /// The phase or step; `None` of the cell itself.
    pub item: Option<Item>,
    /// The whole of a `foreach`: it has instances, not an action.
    pub looped: bool,
    /// The key, of an instance.
    pub key: Option<Key>,
    /// Where it stands.
    pub path: StepPath,
    /// What reports show, with the key; empty until it is opened.
    pub name: String,
    /// The other branch runs: `when` was false and there is an `else`.
    pub other_branch: bool,
    /// Where it is evaluated.
    pub frame: FrameId,
    /// Where its `id` is recorded.
    pub home: FrameId,
    /// Rows of the coverage table, those of the groups around it included.
    pub rows: Vec<String>,
    /// It, or a group around it, is `always`.
    pub always: bool,
    /// When it was opened.
    pub began: Now,
    /// Tries begun.
    pub tries: u32,
    /// Further tries allowed.
    pub retries: u32,
    /// Between tries.
    pub delay: Duration,
    /// The arguments of a `use`.
    pub params: BTreeMap<String, Value>,
    /// Its own limit, of a phase or group.
    pub limit: Option<Duration>,
    /// Where it is in its life.
    pub state: State,
    /// The ends of what is inside.
    pub tally: Tally,
    /// `skip` of a step inside said that this group is skipped.
    pub skipped: Option<String>,
    /// Its own timeout is over: no further try.
    pub timed_out: bool,
}

/// Where a node is in its life.
#[derive(Debug)]
pub(super) enum State {
    /// `when` is asked.
    Asking,
    /// The list of a `foreach` is evaluated.
    Listing,
    /// Name, limits and arguments are evaluated.
    Opening,
    /// The instances of a `foreach` run, in order.
    Looping(VecDeque<(Key, Value)>),
    /// Steps run, in order.
    Block(Block),
    /// So many steps run at once.
    Parallel {
        running: usize,
        branches: Vec<NodeId>,
    },
    /// An action is tried.
    Acting,
    /// Captures and checks of a group are evaluated.
    Concluding,
    /// The next try waits.
    Delaying,
    /// It has its outcome.
    Done,
}

/// Steps in order.
#[derive(Debug)]
pub(super) struct Block {
    /// What is left, with positions.
    pub items: VecDeque<(usize, Item)>,
    /// Where the steps are evaluated.
    pub frame: FrameId,
    /// The path that the steps' positions are appended to.
    pub path: StepPath,
    /// Why what is left doesn't run, `always` steps aside.
    pub stop: Option<Stop>,
}

/// Why something doesn't run.
#[derive(Clone, Debug)]
pub(super) struct Why {
    /// For people.
    pub reason: String,
    /// Whether it was never reached; otherwise the spec decided so.
    pub unreached: bool,
}

impl Why {
    /// The spec says so: `when`, `skip`, nothing to repeat, or what it needs was skipped.
    pub fn decided(reason: impl Into<String>) -> Self {
        Why {
            reason: reason.into(),
            unreached: false,
        }
    }

    /// A failure, a timeout or a cancel came before it.
    pub fn unreached(reason: impl Into<String>) -> Self {
        Why {
            reason: reason.into(),
            unreached: true,
        }
    }
}

/// Why the rest of a block doesn't run.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    /// For the skipped steps.
    pub why: Why,
    /// Whether not even `always` steps run any more.
    pub over: bool,
}

impl Node {
    /// Whether it is a group that a step's `skip` skips: not the cell, a phase, or the whole of a loop.
    pub(super) fn is_group(&self) -> bool {
        matches!(self.item, Some(Item::Step(_)))
            && !self.looped
            && matches!(self.state, State::Block(_) | State::Parallel { .. })
    }

    /// The word of its action.
    pub(super) fn action(&self) -> &'static str {
        match &self.item {
            Some(Item::Step(_)) if self.other_branch => "else",
            Some(Item::Step(step)) => super::skip::action_word(&step.action),
            _ => "phase",
        }
    }

    /// Its block, while its steps run.
    pub(super) fn block(&mut self) -> Option<&mut Block> {
        match &mut self.state {
            State::Block(block) => Some(block),
            _ => None,
        }
    }
}
