//! Ends steps from outside: timeouts of the cell, of phases and groups, cancel orders, and services that go down.
//!
//! `always` steps are spared until the grace is over.

use super::node::{Halt, State, Stop, Why};
use super::outcome::Blame;
use super::{ROOT, Sequence, down_end};
use crate::context::services::Down;
use crate::sequence::effect::{Effect, NodeId, Timer};
use crate::step::contract::{End, Item};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::outcome::Outcome;
use std::time::Duration;

impl Sequence {
    pub(super) fn fired(&mut self, timer: Timer) {
        match timer {
            Timer::Cell => self.cell_timed_out(),
            Timer::Grace => self.grace_is_over(),
            Timer::Limit(id) => self.limit_is_over(id),
            Timer::LimitGrace(id) => self.limit_grace_is_over(id),
            Timer::Retry(id) => {
                if matches!(self.node(id).state, State::Delaying) {
                    self.again(id);
                }
            }
        }
    }

    fn cell_timed_out(&mut self) {
        if self.is_finished() || self.halt.is_some() {
            return;
        }
        let now = self.now.mono;
        if let Some(more) = self.node_mut(ROOT).keeping.excuse(now) {
            return self.arm(Timer::Cell, more);
        }
        let limit = crate::duration::duration_text(self.limits.cell);
        let (outcome, reason) = if self.acted {
            (Outcome::Failed, format!("the cell timed out after {limit}"))
        } else {
            (
                Outcome::Errored,
                format!("the cell timed out after {limit}, before any step ran"),
            )
        };
        let end = End::timed_out(outcome, reason.clone());
        self.halt(reason, end, self.limits.grace, Some(now));
    }

    pub(super) fn cancelled(&mut self, order: &CancelOrder) {
        if self.is_finished() {
            return;
        }
        if self.halt.is_none() {
            let line = format!("cancelled: {}", order.reason);
            let end = End::bare(Outcome::Cancelled, Some(line.clone()));
            self.halt(line, end, order.grace, None);
        }
        if order.force {
            self.grace_is_over();
        }
    }

    fn halt(
        &mut self,
        skip_reason: String,
        end: End,
        grace: Duration,
        timed_out: Option<Duration>,
    ) {
        self.halt = Some(Halt {
            reason: skip_reason,
            timed_out,
            over: false,
        });
        self.node_mut(ROOT).tally.charge(Blame {
            step: String::new(),
            reason: end.reason.clone(),
            outcome: end.outcome,
            culprit: None,
        });
        self.arm(Timer::Grace, grace);
        self.interrupt(ROOT, true, &end);
    }

    fn grace_is_over(&mut self) {
        let Some(halt) = &mut self.halt else { return };
        halt.over = true;
        let reason = format!("{}, and no time is left for it", halt.reason);
        self.interrupt(ROOT, false, &End::bare(Outcome::Cancelled, Some(reason)));
    }

    fn limit_is_over(&mut self, id: NodeId) {
        let node = self.node(id);
        if matches!(node.state, State::Done) || node.timed_out {
            return;
        }
        let now = self.now.mono;
        if let Some(more) = self.node_mut(id).keeping.excuse(now) {
            return self.arm(Timer::Limit(id), more);
        }
        let node = self.node(id);
        let limit = crate::duration::duration_text(node.limit.unwrap_or_default());
        let reason = format!("{} timed out after {limit}", node.name);
        let blame = Blame {
            step: node.name.clone(),
            reason: Some(reason.clone()),
            outcome: Outcome::Failed,
            culprit: None,
        };
        let node = self.node_mut(id);
        node.timed_out = true;
        node.tally.charge(blame);
        self.bar_inside(id, true, &format!("after {reason}"), false);
        self.interrupt(id, true, &End::timed_out(Outcome::Failed, reason));
        if !matches!(self.node(id).state, State::Done) {
            self.arm(Timer::LimitGrace(id), self.limits.grace);
        }
    }

    fn limit_grace_is_over(&mut self, id: NodeId) {
        let node = self.node(id);
        if matches!(node.state, State::Done) {
            return;
        }
        let reason = format!("the timeout of {} and its grace are over", node.name);
        self.bar_inside(id, false, &format!("after {reason}"), true);
        self.interrupt(id, false, &End::timed_out(Outcome::Failed, reason));
    }

    pub(super) fn service_down(&mut self, down: Box<Down>) {
        let mut running = self.running(ROOT, true);
        // What only keeps its artifacts had its outcome before.
        running.retain(|id| !matches!(self.node(*id).state, State::Keeping(_)));
        if running.is_empty() {
            self.down.get_or_insert(down);
            return;
        }
        self.end_all(running, &down_end(&down));
    }

    /// Returns why a step inside the node `around` can't begin, or `None` if it can.
    pub(super) fn bar(&self, around: NodeId, always: bool) -> Option<Why> {
        if let Some(halt) = &self.halt
            && (halt.over || !(always || self.node(around).always))
        {
            return Some(Why::unreached(halt.reason.clone()));
        }
        let mut next = Some(around);
        while let Some(id) = next {
            let node = self.node(id);
            match &node.state {
                State::Block(block) => {
                    let stop = block.stop.as_ref()?;
                    return (stop.over || !always).then(|| stop.why.clone());
                }
                State::Looping(_) | State::Parallel { .. } => next = node.parent,
                _ => return None,
            }
        }
        None
    }

    /// Returns why this node can't begin or continue. A phase with `always` steps is entered for their sake.
    pub(super) fn barred(&self, id: NodeId) -> Option<Why> {
        let node = self.node(id);
        let (parent, item) = (node.parent?, node.item.as_ref()?);
        let for_always_steps = match item {
            Item::Phase(phase) => {
                phase.steps.iter().any(|step| step.always)
                    && !self.halt.as_ref().is_some_and(|halt| halt.over)
            }
            Item::Step(_) => false,
        };
        self.bar(parent, item.always())
            .filter(|_| !for_always_steps)
    }

    /// Ends the running steps inside a node. With `spare`, `always` steps continue.
    fn interrupt(&mut self, root: NodeId, spare: bool, end: &End) {
        let running = self.running(root, spare);
        self.end_all(running, end);
    }

    fn end_all(&mut self, running: Vec<NodeId>, end: &End) {
        for id in running {
            if self.node(id).is_at_work() {
                self.effects.push(Effect::Stop { node: id });
            }
            // A step that only kept its artifacts has its outcome.
            if let Some(own) = self.kept(id) {
                self.complete(id, own);
            } else if self.node(id).is_at_work() || matches!(self.node(id).state, State::Delaying) {
                self.complete(id, end.clone());
            }
        }
    }

    /// Returns the steps inside a node whose action runs or whose next try is delayed.
    fn running(&self, root: NodeId, spare: bool) -> Vec<NodeId> {
        self.inside(root, spare)
            .filter(|id| {
                let node = self.node(*id);
                node.is_at_work() || matches!(node.state, State::Delaying)
            })
            .collect()
    }

    fn bar_inside(&mut self, root: NodeId, spare: bool, reason: &str, over: bool) {
        let inside: Vec<NodeId> = self.inside(root, spare).collect();
        for id in inside {
            if let Some(block) = self.node_mut(id).block() {
                block.stop = Some(Stop {
                    why: Why::unreached(reason),
                    over,
                });
            }
        }
    }

    /// Returns the nodes inside a node, including itself. With `spare`, leaves out `always` nodes and the nodes inside
    /// those.
    fn inside(&self, root: NodeId, spare: bool) -> impl Iterator<Item = NodeId> {
        let all = (0..self.nodes.len()).map(NodeId);
        all.filter(move |id| {
            let mut next = Some(*id);
            while let Some(at) = next {
                if at == root {
                    return true;
                }
                let node = self.node(at);
                if spare && node.item.as_ref().is_some_and(Item::always) {
                    return false;
                }
                next = node.parent;
            }
            false
        })
    }
}
