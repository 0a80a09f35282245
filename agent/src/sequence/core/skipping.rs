//! Skips nodes that were reached, the steps inside them and the rest of groups, and records the skips for later steps.

use super::Sequence;
use super::node::{State, Stop, Why};
use crate::context::frame::Key;
use crate::context::frame::{FrameId, Record};
use crate::sequence::effect::{Effect, NodeId};
use crate::sequence::skip::Skipped;
use crate::step::contract::Item;
use phalanx_shared::event::EventKind;
use phalanx_shared::language::model::{Action, Step};
use phalanx_shared::outcome::Outcome;
use std::sync::Arc;

impl Sequence {
    /// Skips a node that was reached, with everything inside, and continues with the parent node.
    pub(super) fn skip_node(&mut self, id: NodeId, why: Why) {
        self.tell_skipped(id, &why);
        self.child_done(id, Outcome::Skipped, Some(&why.reason), None);
    }

    /// Skips a node without continuing with its parent node.
    pub(super) fn skip_quietly(&mut self, id: NodeId, why: Why) {
        self.tell_skipped(id, &why);
        if let Some(parent) = self.node(id).parent {
            let around = &mut self.node_mut(parent).tally;
            around.add(Outcome::Skipped, Some(&why.reason), None);
        }
    }

    fn tell_skipped(&mut self, id: NodeId, why: &Why) {
        self.disarm(id);
        let now = self.now;
        let node = self.node_mut(id);
        node.state = State::Done;
        if let Some(Item::Phase(_)) = &node.item {
            let finished = EventKind::PhaseFinished {
                path: node.path.clone(),
                name: node.name.clone(),
                outcome: Outcome::Skipped,
                reason: Some(why.reason.clone()),
                began: now.wall,
                timed_out: false,
            };
            self.effects.push(Effect::Emit(finished));
        }
        self.push_skipped(id, why.clone(), false);
        let node = self.node(id);
        if let Some(item) = node.item.clone() {
            let (home, key) = (node.home, node.key.clone());
            self.record_skipped(&item, home, key.as_ref(), why);
        }
    }

    /// Skips the steps inside a node that failed before it was entered.
    pub(super) fn skip_inside(&mut self, id: NodeId, why: Why) {
        let node = self.node(id);
        let (home, key) = (node.home, node.key.clone());
        match node.item.clone() {
            Some(Item::Phase(phase)) => self.record_all(&phase.steps, home, &why),
            Some(Item::Step(step)) if key.is_none() => {
                self.record_inside(&step, home, &why);
            }
            _ => {}
        }
        self.push_skipped(id, why, true);
    }

    fn push_skipped(&mut self, id: NodeId, why: Why, inside_only: bool) {
        let node = self.node(id);
        if let Some(item) = node.item.clone() {
            let skipped = Skipped {
                item,
                path: node.path.clone(),
                key: node.key.clone(),
                view: self.frames.view(node.frame),
                rows: node.rows.clone(),
                reason: why.reason,
                unreached: why.unreached,
                culprit: why.culprit,
                inside_only,
            };
            self.effects.push(Effect::Skip(Box::new(skipped)));
        }
    }

    /// Records skipped steps under their ids, as far as later steps can refer to them.
    fn record_skipped(&mut self, item: &Item, home: FrameId, key: Option<&Key>, why: &Why) {
        match item {
            Item::Phase(phase) => self.record_all(&phase.steps, home, why),
            Item::Step(step) => {
                if let Some(id) = &step.id {
                    let record = Record {
                        outcome: Outcome::Skipped,
                        reason: Some(why.reason.clone()),
                        attempt: 0,
                        handed: Arc::default(),
                        culprit: why.culprit.clone(),
                    };
                    self.frames.record(home, &id.text, key, record);
                }
                if key.is_none() && step.foreach.is_none() {
                    self.record_inside(step, home, why);
                    self.record_all(&step.otherwise, home, why);
                }
            }
        }
    }

    fn record_inside(&mut self, step: &Step, home: FrameId, why: &Why) {
        if let Action::Steps(steps) | Action::Parallel(steps) = &step.action {
            self.record_all(steps, home, why);
        }
    }

    fn record_all(&mut self, steps: &[Step], home: FrameId, why: &Why) {
        for step in steps {
            self.record_skipped(&Item::Step(Arc::new(step.clone())), home, None, why);
        }
    }

    /// Records the branch that isn't taken. Its steps aren't reported, but a step that reads from them learns why it
    /// can't.
    pub(super) fn record_other(&mut self, id: NodeId) {
        let node = self.node(id);
        if let Some(Item::Step(step)) = node.item.clone() {
            let home = node.home;
            self.record_inside(&step, home, &Why::decided("the other branch ran"));
        }
    }

    /// Skips the rest of the group that contains the step, because of its `skip`. A phase doesn't count as a group.
    pub(super) fn skip_group_around(&mut self, id: NodeId, reason: String) {
        let mut next = self.node(id).parent;
        while let Some(around) = next {
            let node = self.node_mut(around);
            if node.is_group() {
                node.skipped = Some(reason.clone());
                if let Some(block) = node.block() {
                    block.stop.get_or_insert(Stop {
                        why: Why::decided(reason),
                        over: false,
                    });
                }
                return;
            }
            if !node.looped {
                return;
            }
            next = node.parent;
        }
    }
}
