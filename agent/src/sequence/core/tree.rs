//! Relations between the nodes of a sequence: entering and skipping nodes, advancing to the next one, closing groups.

use super::Sequence;
use super::node::{Block, Keeping, Node, State, Stop, Why};
use super::outcome::{Blame, Tally};
use crate::context::frame::Key;
use crate::context::frame::{Frame, FrameId, Handed};
use crate::sequence::effect::{Effect, NodeId, Timer};
use crate::step::contract::body;
use crate::step::contract::{End, Item};
use phalanx_shared::language::model::{Action, DefineBody, Step};
use phalanx_shared::outcome::Outcome;
use std::collections::VecDeque;
use std::sync::Arc;

impl Sequence {
    /// Runs items in order.
    pub(super) fn run_block(&mut self, id: NodeId, items: Vec<Item>, frame: FrameId, path: String) {
        let stop = self.inherited_stop(id);
        self.node_mut(id).state = State::Block(Block {
            items: items.into_iter().enumerate().collect(),
            frame,
            path,
            stop,
        });
        self.advance(id);
    }

    /// Returns the reason that a phase passes on to its steps if it is entered after a failure, for its `always` steps
    /// only.
    fn inherited_stop(&self, id: NodeId) -> Option<Stop> {
        let node = self.node(id);
        let (Some(Item::Phase(phase)), Some(parent)) = (&node.item, node.parent) else {
            return None;
        };
        let why = self.bar(parent, phase.always)?;
        Some(Stop { why, over: false })
    }

    /// Continues with the next item of a block, or closes the block.
    pub(super) fn advance(&mut self, id: NodeId) {
        loop {
            let Some(block) = self.node_mut(id).block() else {
                return;
            };
            let (frame, path) = (block.frame, block.path.clone());
            let Some((index, item)) = block.items.pop_front() else {
                return self.body_done(id);
            };
            let path = match &item {
                Item::Phase(phase) => phase.name.text.clone(),
                Item::Step(_) => format!("{path}/{index}"),
            };
            let child = self.attach(id, item, path, frame, frame, None);
            match self.barred(child) {
                None => return self.begin(child),
                Some(why) => self.skip_quietly(child, why),
            }
        }
    }

    /// Continues with the next instance of a loop, or closes the loop.
    pub(super) fn next_instance(&mut self, id: NodeId) {
        loop {
            let State::Looping(left) = &mut self.node_mut(id).state else {
                return;
            };
            let next = left.pop_front();
            let node = self.node(id);
            let (Some((key, value)), Some(Item::Step(step))) = (next, node.item.clone()) else {
                let (outcome, reason) = node.tally.outcome(None);
                return self.complete(id, End::bare(outcome, reason));
            };
            let variable = step.foreach.as_ref().map(|each| each.variable.text.clone());
            let path = format!("{}[{key}]", node.path);
            let (home, outer) = (node.home, node.frame);
            let frame = Frame {
                variable: variable.map(|name| (name, value)),
                secret_variable: node.secret_items,
                ..Frame::default()
            };
            let frame = self.frames.inside(outer, frame);
            let child = self.attach(id, Item::Step(step), path, frame, home, Some(key));
            match self.loop_bar(id).or_else(|| self.barred(child)) {
                None => return self.begin(child),
                Some(why) => self.skip_quietly(child, why),
            }
        }
    }

    /// Returns why no further instance runs: a failed instance ends the loop unless `continue-on-failure` is set.
    fn loop_bar(&self, id: NodeId) -> Option<Why> {
        let node = self.node(id);
        let goes_on = node.item.as_ref().is_some_and(Item::continue_on_failure);
        let blame = node.tally.blame().filter(|_| !goes_on)?;
        Some(Why::unreached(after(blame)))
    }

    fn attach(
        &mut self,
        parent: NodeId,
        item: Item,
        path: String,
        frame: FrameId,
        home: FrameId,
        key: Option<Key>,
    ) -> NodeId {
        let id = NodeId(self.nodes.len());
        let around = self.node(parent);
        let looped = key.is_none() && matches!(&item, Item::Step(step) if step.foreach.is_some());
        let name = match &item {
            Item::Phase(phase) => phase.name.text.clone(),
            Item::Step(_) => String::new(),
        };
        let node = Node {
            parent: Some(parent),
            rows: around.rows.clone(),
            always: around.always || item.always(),
            item: Some(item),
            looped,
            key,
            path,
            name,
            home,
            ..Node::root(frame)
        };
        self.nodes.push(node);
        id
    }

    /// Begins a node: evaluates its `when`, lists its `foreach` or opens it, whichever comes first.
    fn begin(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(item) = node.item.clone() else {
            return;
        };
        let per_value = matches!(&item, Item::Step(step) if asks_per_value(step));
        let asked_before = node.key.is_some() && !per_value;
        if item.has_when() && !asked_before && !(node.looped && per_value) {
            let view = self.frames.view(node.frame);
            self.node_mut(id).state = State::Asking;
            self.effects.push(Effect::Ask {
                node: id,
                item,
                view,
            });
        } else if node.looped {
            self.list(id);
        } else {
            self.open(id);
        }
    }

    pub(super) fn list(&mut self, id: NodeId) {
        let node = self.node(id);
        let (Some(Item::Step(step)), view) = (node.item.clone(), self.frames.view(node.frame))
        else {
            return;
        };
        self.node_mut(id).state = State::Listing;
        self.effects.push(Effect::List {
            node: id,
            step,
            view,
        });
    }

    pub(super) fn open(&mut self, id: NodeId) {
        let node = self.node(id);
        let (Some(item), view) = (node.item.clone(), self.frames.view(node.frame)) else {
            return;
        };
        self.node_mut(id).state = State::Opening;
        self.effects.push(Effect::Open {
            node: id,
            item,
            view,
        });
    }

    /// Runs the steps inside a phase, group, `use`, `parallel` or other branch.
    pub(super) fn run_body(&mut self, id: NodeId) {
        let node = self.node(id);
        let (frame, path, other) = (node.frame, node.path.clone(), node.other_branch);
        match node.item.clone() {
            None => {}
            Some(Item::Phase(phase)) => self.run_block(id, items(&phase.steps), frame, path),
            Some(Item::Step(step)) if other => {
                self.run_block(id, items(&step.otherwise), frame, format!("{path}/else"));
            }
            Some(Item::Step(step)) => match &step.action {
                Action::Parallel(steps) => self.run_parallel(id, steps),
                Action::Use(used) => {
                    let params = Some(self.node(id).params.clone());
                    let frame = self.frames.inside(
                        frame,
                        Frame {
                            params,
                            ..Frame::default()
                        },
                    );
                    let spec = Arc::clone(&self.spec);
                    let steps = match body(&spec, &used.define.text) {
                        Some(DefineBody::Steps { steps, .. }) => items(steps),
                        _ => Vec::new(),
                    };
                    self.run_block(id, steps, frame, path);
                }
                Action::Steps(steps) => self.run_block(id, items(steps), frame, path),
                _ => {}
            },
        }
    }

    /// Begins all steps concurrently. Each one records into its own scope, so that they don't see each other.
    fn run_parallel(&mut self, id: NodeId, steps: &[Step]) {
        let (frame, path) = (self.node(id).frame, self.node(id).path.clone());
        let mut children = Vec::new();
        for (index, item) in items(steps).into_iter().enumerate() {
            let own = self.frames.inside(frame, Frame::default());
            children.push(self.attach(id, item, format!("{path}/{index}"), own, own, None));
        }
        self.node_mut(id).state = State::Parallel {
            running: children.len(),
            branches: children.clone(),
        };
        if children.is_empty() {
            return self.body_done(id);
        }
        for child in children {
            self.begin(child);
        }
    }

    /// Handles the end of a child node and continues with its parent.
    pub(super) fn child_done(
        &mut self,
        child: NodeId,
        outcome: Outcome,
        reason: Option<&str>,
        blame: Option<&Blame>,
    ) {
        let node = self.node(child);
        let Some(parent) = node.parent else { return };
        let goes_on = node.item.as_ref().is_some_and(Item::continue_on_failure);
        let around = self.node_mut(parent);
        around.tally.add(outcome, reason, blame);
        match &mut around.state {
            State::Block(block) => {
                if let Some(blame) = blame.filter(|_| !outcome.is_ok() && !goes_on) {
                    block.stop.get_or_insert_with(|| Stop {
                        why: Why::unreached(after(blame)),
                        over: false,
                    });
                }
                self.advance(parent);
            }
            State::Looping(_) => self.next_instance(parent),
            State::Parallel { running, .. } => {
                *running = running.saturating_sub(1);
                if *running == 0 {
                    self.body_done(parent);
                }
            }
            _ => {}
        }
    }

    /// Handles the end of a body: all steps inside have their outcome.
    fn body_done(&mut self, id: NodeId) {
        if let State::Parallel { branches, .. } = &self.node(id).state {
            let into = self.node(id).frame;
            for branch in branches.clone() {
                let branch = self.node(branch).home;
                self.frames.publish(branch, into);
            }
        }
        let node = self.node(id);
        let (outcome, reason) = node.tally.outcome(node.skipped.as_deref());
        let passed = matches!(outcome, Outcome::Passed | Outcome::Flaky);
        let item = node.item.clone();
        match item {
            Some(Item::Step(step)) if passed && !node.other_branch && concludes(&step) => {
                let inner = match &node.state {
                    State::Block(block) => block.frame,
                    _ => node.frame,
                };
                let (view, inner) = (self.frames.view(node.frame), self.frames.view(inner));
                self.node_mut(id).state = State::Concluding;
                self.effects.push(Effect::Conclude {
                    node: id,
                    step,
                    view,
                    inner,
                });
            }
            _ => self.try_ended(id, End::bare(outcome, reason)),
        }
    }

    /// Returns the name as written, for messages about a name that could not be evaluated.
    pub(super) fn plain_name(&self, id: NodeId) -> String {
        match &self.node(id).item {
            Some(Item::Phase(phase)) => phase.name.text.clone(),
            Some(Item::Step(step)) => match &step.name {
                Some(name) => name.text.clone(),
                None => step.action.keyword().to_owned(),
            },
            None => String::new(),
        }
    }

    pub(super) fn arm(&mut self, timer: Timer, after: std::time::Duration) {
        self.effects.push(Effect::Arm { timer, after });
    }

    /// Disarms the timers that a node has armed.
    pub(super) fn disarm(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.limit.is_some() {
            self.effects.push(Effect::Disarm(Timer::Limit(id)));
            self.effects.push(Effect::Disarm(Timer::LimitGrace(id)));
        }
        if matches!(self.node(id).state, State::Delaying) {
            self.effects.push(Effect::Disarm(Timer::Retry(id)));
        }
    }
}

impl Node {
    /// Creates the node of the cell, which is also the template for other nodes.
    pub(super) fn root(frame: FrameId) -> Self {
        Node {
            parent: None,
            item: None,
            looped: false,
            key: None,
            path: String::new(),
            name: String::new(),
            other_branch: false,
            frame,
            home: frame,
            rows: Vec::new(),
            always: false,
            began: crate::sequence::effect::Now::default(),
            tries: 0,
            retries: 0,
            delay: std::time::Duration::ZERO,
            waits: crate::step::contract::Waits::default(),
            limit: None,
            params: Handed::default(),
            secret_items: false,
            state: State::Block(Block {
                items: VecDeque::new(),
                frame,
                path: String::new(),
                stop: None,
            }),
            tally: Tally::default(),
            skipped: None,
            timed_out: false,
            keeping: Keeping::default(),
            snapshot: None,
        }
    }
}

/// Formats the reason of steps that aren't reached: `after failed step NAME`.
fn after(blame: &Blame) -> String {
    format!("after failed step {}", blame.step)
}

fn items(steps: &[Step]) -> Vec<Item> {
    let steps = steps.iter().cloned();
    steps.map(|step| Item::Step(Arc::new(step))).collect()
}

/// Returns whether a group evaluates something after its body.
fn concludes(step: &Step) -> bool {
    matches!(step.action, Action::Use(_))
        || step.skip.is_some()
        || !step.capture.is_empty()
        || !step.expect.is_empty()
}

/// Returns whether `when` refers to the `foreach` variable, so that it is evaluated for each value.
pub(super) fn asks_per_value(step: &Step) -> bool {
    match (&step.when, &step.foreach) {
        (Some(when), Some(each)) => crate::sequence::key::names(&when.text, &each.variable.text),
        _ => false,
    }
}
