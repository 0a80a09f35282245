//! The sequence as a state machine: which step is next, and how the end of one step affects the others.
//!
//! It is pure: no runtime, no clock, no evaluation. [`Sequence::handle`] takes one [`Input`] and the time, and returns
//! the [`Effect`]s to perform in order. This file holds the life of one node (asked ▸ opened ▸ acting ▸ ended);
//! `core/tree.rs` holds the relations between nodes, and `core/interrupt.rs` the ends from outside (timeouts, cancel
//! orders, a service that goes down).
//!
//! This code settles two rules that the language leaves open: an `always` step inside a group that was never entered is
//! skipped with its group, and a group that is ended in the middle by a step's `skip` still runs its own `always`
//! steps.
//!
//! stage: in a step: which step is next; what it does and what is checked

mod interrupt;
mod node;
mod outcome;
mod skipping;
mod snapshot;
mod tree;

use super::effect::{Effect, Input, Judgement, Limits, NodeId, Now};
use super::effect::{Timer, Timer::Retry};
use super::key::keys;
use super::skip::{add_rows, with_key};
use crate::context::frame::{Frames, Record};
use crate::context::services::Down;
use crate::step::contract::{Asked, End, Item, Items, Opening, Refusal};
use node::{Halt, Node, State, Why};
use outcome::{Blame, Tally};
use phalanx_shared::event::{Culprit, EventKind, StepResult};
use phalanx_shared::language::model::{Action, Spec};
use phalanx_shared::outcome::Outcome;
use std::collections::HashSet;
use std::sync::Arc;

/// The sequence of one attempt.
#[derive(Debug)]
pub struct Sequence {
    spec: Arc<Spec>,
    limits: Limits,
    frames: Frames,
    nodes: Vec<Node>,
    now: Now,
    effects: Vec<Effect>,
    /// Set when the cell must end, because of a cancel order or its timeout.
    halt: Option<Halt>,
    /// Whether any action has begun.
    acted: bool,
    /// A service that went down between two steps; the next step ends with its failure.
    down: Option<Box<Down>>,
    finished: bool,
}

const ROOT: NodeId = NodeId(0);

impl Sequence {
    /// Creates the sequence of a spec, not started yet.
    pub fn new(spec: Arc<Spec>, limits: Limits) -> Self {
        let (frames, cell) = Frames::new();
        let root = Node::root(cell);
        Sequence {
            spec,
            limits,
            frames,
            nodes: vec![root],
            now: Now::default(),
            effects: Vec::new(),
            halt: None,
            acted: false,
            down: None,
            finished: false,
        }
    }

    /// Handles one input and returns the effects to perform. Ignores answers that no node waits for any more.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.now = now;
        match input {
            Input::Start => self.start(),
            Input::Asked { node, result } => self.asked(node, result),
            Input::Listed { node, result } => self.listed(node, result),
            Input::Opened { node, result } => self.opened(node, result),
            Input::Recalled { node, result } => self.recalled(node, result),
            Input::Remembered { node, result } => self.remembered(node, result),
            Input::Acting => self.acted = true,
            Input::Judged { node, end } => self.judged(node, end),
            Input::Ended { node, end } => self.ended(node, *end),
            Input::Fired(timer) => self.fired(timer),
            Input::ServiceDown(down) => self.service_down(down),
            Input::Cancelled(order) => self.cancelled(&order),
        }
        std::mem::take(&mut self.effects)
    }

    /// Returns whether [`Effect::Finish`] has been emitted.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn start(&mut self) {
        self.arm(Timer::Cell, self.limits.cell);
        self.node_mut(ROOT).tries = 1;
        let phases = self.spec.phases.iter().cloned();
        let items = phases.map(|phase| Item::Phase(Arc::new(phase))).collect();
        self.run_block(ROOT, items, self.node(ROOT).frame, String::new());
    }

    fn asked(&mut self, id: NodeId, result: Result<Asked, Refusal>) {
        if !self.is_in(id, |state| matches!(state, State::Asking)) {
            return;
        }
        match result {
            Err(refusal) => self.refused(id, refusal),
            Ok(Asked::Not { reason }) if !self.has_other_branch(id) => {
                self.skip_node(id, Why::decided(reason))
            }
            Ok(asked) => {
                if asked != Asked::Run {
                    self.node_mut(id).other_branch = true;
                    self.node_mut(id).looped = false;
                    self.record_other(id);
                }
                match self.barred(id) {
                    Some(why) => self.skip_node(id, why),
                    None if self.node(id).looped => self.list(id),
                    None => self.open(id),
                }
            }
        }
    }

    fn listed(&mut self, id: NodeId, result: Result<Items, Refusal>) {
        if !self.is_in(id, |state| matches!(state, State::Listing)) {
            return;
        }
        let Items { values, secret } = match result {
            Ok(items) => items,
            Err(refusal) => return self.refused(id, refusal),
        };
        self.node_mut(id).secret_items = secret;
        match keys(&values) {
            Err(message) => {
                let name = self.plain_name(id);
                let failure = None;
                self.refused(
                    id,
                    Refusal::Invalid {
                        name,
                        outcome: Outcome::Failed,
                        message,
                        failure,
                        culprit: None,
                    },
                );
            }
            Ok(_) if values.is_empty() => {
                self.skip_node(id, Why::decided("foreach over an empty list"));
            }
            Ok(keys) => {
                self.node_mut(id).state = State::Looping(keys.into_iter().zip(values).collect());
                self.next_instance(id);
            }
        }
    }

    fn opened(&mut self, id: NodeId, result: Result<Opening, Refusal>) {
        if !self.is_in(id, |state| matches!(state, State::Opening)) {
            return;
        }
        let opening = match result {
            Ok(opening) => opening,
            Err(refusal) => return self.refused(id, refusal),
        };
        if let Some(why) = self.barred(id) {
            return self.skip_node(id, why);
        }
        let now = self.now;
        let node = self.node_mut(id);
        node.name = with_key(&opening.name, node.key.as_ref());
        add_rows(&mut node.rows, opening.rows);
        (node.retries, node.delay) = (opening.retries, opening.delay);
        node.began = now;
        let (path, name, action) = (
            node.path.clone(),
            node.name.clone(),
            node.action().to_owned(),
        );
        let phase = matches!(node.item, Some(Item::Phase(_)));
        self.effects.push(Effect::Emit(if phase {
            EventKind::PhaseStarted { path, name }
        } else {
            EventKind::StepStarted { path, name, action }
        }));
        if let Some(limit) = opening.timeout.filter(|_| self.is_body(id)) {
            self.node_mut(id).limit = Some(limit);
            self.arm(Timer::Limit(id), limit);
        }
        self.node_mut(id).params = opening.params;
        self.again(id);
    }

    /// Begins the first or a further try.
    fn again(&mut self, id: NodeId) {
        self.node_mut(id).tries += 1;
        if self.has_snapshot(id) {
            self.recall(id);
        } else if self.is_body(id) {
            self.run_body(id);
        } else {
            self.act(id);
        }
    }

    fn act(&mut self, id: NodeId) {
        if !self.node(id).always
            && let Some(down) = self.down.take()
        {
            let end = down_end(&down);
            return self.complete(id, end);
        }
        let Some(Item::Step(step)) = self.node(id).item.clone() else {
            return;
        };
        let view = self.frames.view(self.node(id).frame);
        let node = self.node_mut(id);
        node.state = State::Acting;
        let path = node.path.clone();
        self.effects.push(Effect::Act {
            node: id,
            step,
            path,
            view,
        });
    }

    fn judged(&mut self, id: NodeId, end: Box<End>) {
        if !self.is_in(id, |state| matches!(state, State::Acting)) {
            return;
        }
        self.node_mut(id).state = State::Keeping(end);
        let now = self.now.mono;
        let mut next = Some(id);
        while let Some(id) = next {
            let node = self.node_mut(id);
            node.keeping.begin(now);
            next = node.parent;
        }
    }

    /// Ends the time for which the artifacts of a try are kept. Returns how the try had ended.
    fn kept(&mut self, id: NodeId) -> Option<End> {
        let node = self.node_mut(id);
        let end = match std::mem::replace(&mut node.state, State::Acting) {
            State::Keeping(end) => *end,
            other => {
                node.state = other;
                return None;
            }
        };
        let now = self.now.mono;
        let mut next = Some(id);
        while let Some(id) = next {
            let node = self.node_mut(id);
            node.keeping.end(now);
            next = node.parent;
        }
        Some(end)
    }

    fn ended(&mut self, id: NodeId, end: End) {
        self.kept(id);
        let waiting = |state: &State| matches!(state, State::Acting | State::Concluding);
        if self.is_in(id, waiting) {
            self.try_ended(id, end);
        }
    }

    /// Handles the end of one try: begins another try or completes the node.
    fn try_ended(&mut self, id: NodeId, end: End) {
        let node = self.node_mut(id);
        node.waits.add(end.waits);
        let node = self.node(id);
        let again = end.outcome == Outcome::Failed
            && node.tries <= node.retries
            && !node.timed_out
            && self.barred(id).is_none();
        if !again {
            return self.complete(id, end);
        }
        let delay = node.delay;
        let node = self.node_mut(id);
        node.tally = Tally::default();
        node.skipped = None;
        node.state = State::Delaying;
        node.waits.retry += delay;
        if delay.is_zero() {
            self.again(id);
        } else {
            self.arm(Retry(id), delay);
        }
    }

    /// Completes a node with its outcome: emits it, records it, and continues with the parent node.
    fn complete(&mut self, id: NodeId, end: End) {
        let Some(mut end) = self.before_completion(id, end) else {
            return;
        };
        let (now, node) = (self.now, self.node(id));
        let is_flaky = |case: &StepResult| case.outcome == Outcome::Flaky;
        let flaky = node.tries > 1 || node.tally.is_flaky() || end.cases.iter().any(is_flaky);
        if end.outcome == Outcome::Passed && flaky {
            end.outcome = Outcome::Flaky;
        }
        let blame = node.tally.blame().cloned().or_else(|| {
            (!end.outcome.is_ok()).then(|| Blame {
                step: node.name.clone(),
                reason: end.reason.clone(),
                outcome: end.outcome,
                culprit: end.culprit.clone(),
            })
        });
        let record = Record {
            outcome: end.outcome,
            reason: end.reason.clone(),
            attempt: node.tries,
            handed: Arc::clone(&end.handed),
            culprit: end.culprit.clone(),
        };
        match &node.item {
            None => return self.finish(end),
            Some(Item::Phase(_)) => {
                let by_cell = self.halt.as_ref().and_then(|halt| halt.timed_out);
                let by_cell = by_cell.is_some_and(|at| node.began.mono <= at);
                let red = matches!(end.outcome, Outcome::Failed | Outcome::Errored);
                self.effects.push(Effect::Emit(EventKind::PhaseFinished {
                    path: node.path.clone(),
                    name: node.name.clone(),
                    outcome: end.outcome,
                    reason: end.reason.clone(),
                    timed_out: red && (node.timed_out || by_cell),
                    began: node.began.wall,
                }));
            }
            Some(Item::Step(_)) if node.looped => {}
            Some(Item::Step(step)) => {
                let verifies = match end.timed_out {
                    // Cases that are missing might have failed.
                    true => node.rows.clone(),
                    false => rows_left(&node.rows, &end.cases),
                };
                let cases = std::mem::take(&mut end.cases).into_iter();
                let cases: Vec<Effect> = cases
                    .map(|case| {
                        let path = format!("{}/{}", node.path, case.path);
                        let case = Box::new(StepResult { path, ..case });
                        Effect::Emit(EventKind::StepFinished(case))
                    })
                    .collect();
                let restored = node.snapshot.as_ref();
                let restored = restored.and_then(|snapshot| snapshot.restored.clone());
                let result = StepResult {
                    path: node.path.clone(),
                    name: node.name.clone(),
                    id: step.id.as_ref().map(|id| id.text.clone()),
                    action: node.action().to_owned(),
                    outcome: end.outcome,
                    reason: end.reason.clone(),
                    unreached: false,
                    timed_out: end.timed_out || node.timed_out,
                    culprit: end.culprit,
                    tries: node.tries,
                    polls: end.polls,
                    began: node.began.wall,
                    elapsed_us: match &restored {
                        Some(_) => 0,
                        None => {
                            let all = now.mono.saturating_sub(node.began.mono);
                            micros(all.saturating_sub(node.keeping.sum(now.mono)))
                        }
                    },
                    waits: node.waits.by_cause(),
                    verifies,
                    checks: end.checks,
                    output: end.output.filter(|_| end.outcome.is_ok()),
                    captured: match end.outcome.is_ok() {
                        true => end.captured,
                        false => Vec::new(),
                    },
                    failure: end.failure,
                    restored,
                };
                let span = step.span;
                self.effects.extend(cases);
                self.effects.push(Effect::Ended {
                    result: Box::new(result),
                    span,
                });
            }
        }
        self.record(id, record);
        self.disarm(id);
        self.node_mut(id).state = State::Done;
        if end.skips_group {
            self.skip_group_around(id, end.reason.clone().unwrap_or_default());
        }
        self.child_done(id, end.outcome, end.reason.as_deref(), blame.as_ref());
    }

    fn finish(&mut self, end: End) {
        let root = self.node_mut(ROOT);
        root.state = State::Done;
        let culprit = root.tally.blame().and_then(|blame| blame.culprit.clone());
        let red = matches!(end.outcome, Outcome::Failed | Outcome::Errored);
        let halt = self.halt.as_ref();
        let timed_out = halt.is_some_and(|halt| halt.timed_out.is_some());
        self.effects.push(Effect::Disarm(Timer::Cell));
        self.effects.push(Effect::Disarm(Timer::Grace));
        self.effects.push(Effect::Finish(Judgement {
            outcome: end.outcome,
            reason: end.reason,
            timed_out: red && timed_out,
            culprit: culprit.filter(|_| red),
        }));
        self.finished = true;
    }

    /// Handles a node that could not be asked, listed or opened.
    fn refused(&mut self, id: NodeId, refusal: Refusal) {
        match refusal {
            Refusal::Needs(needed) => self.skip_node(id, Why::needs(needed)),
            Refusal::Invalid {
                name,
                outcome,
                message,
                failure,
                culprit,
            } => {
                let key = self.node(id).key.clone();
                let now = self.now;
                let node = self.node_mut(id);
                node.name = with_key(&name, key.as_ref());
                node.began = now;
                node.looped = false;
                let reason = format!("after failed step {}", node.name);
                self.skip_inside(id, Why::unreached(reason));
                self.complete(
                    id,
                    End {
                        failure: failure.map(|failure| *failure),
                        culprit,
                        ..End::bare(outcome, Some(message))
                    },
                );
            }
        }
    }

    /// Records the end of a step under its id.
    fn record(&mut self, id: NodeId, record: Record) {
        let node = self.node(id);
        let Some(Item::Step(step)) = &node.item else {
            return;
        };
        let (Some(name), false) = (&step.id, node.looped) else {
            return;
        };
        let (home, name, key) = (node.home, name.text.clone(), node.key.clone());
        self.frames.record(home, &name, key.as_ref(), record);
    }

    /// Returns whether the node contains steps instead of an action.
    fn is_body(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.other_branch
            || match &node.item {
                Some(Item::Step(step)) => matches!(
                    step.action,
                    Action::Use(_) | Action::Steps(_) | Action::Parallel(_)
                ),
                _ => true,
            }
    }

    fn has_other_branch(&self, id: NodeId) -> bool {
        matches!(&self.node(id).item, Some(Item::Step(step)) if !step.otherwise.is_empty())
    }

    fn is_in(&self, id: NodeId, state: impl Fn(&State) -> bool) -> bool {
        self.nodes.get(id.0).is_some_and(|node| state(&node.state))
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }
}

/// Returns the rows that a step verifies itself: those that its test cases verify are theirs.
fn rows_left(rows: &[String], cases: &[StepResult]) -> Vec<String> {
    let of_cases: HashSet<&String> = cases.iter().flat_map(|case| &case.verifies).collect();
    let own = rows.iter().filter(|row| !of_cases.contains(row));
    own.cloned().collect()
}

/// Returns the end of the running step when a service goes down.
fn down_end(down: &Down) -> End {
    End {
        failure: Some(down.failure.clone()),
        culprit: Some(Culprit::Service {
            service: down.root.clone(),
        }),
        ..End::bare(down.outcome, Some(down.reason.clone()))
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
