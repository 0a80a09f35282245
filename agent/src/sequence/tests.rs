//! Tests of the core without a runtime: random trees of steps with random ends, interrupted at random moments.
//!
//! The performer is as simple as possible: it answers each effect at once, or in a random order where steps run
//! concurrently.

#![allow(clippy::unwrap_used)]

use super::core::Sequence;
use super::effect::{Effect, Input, Judgement, Limits, NodeId, Now, Timer};
use super::skip::{Describe, expand};
use crate::context::frame::{Value, View};
use crate::context::services::Down;
use crate::step::contract::{Asked, End, Item, Items, Opening};
use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::{EventKind, Failure, StepResult};
use phalanx_shared::language::load;
use phalanx_shared::language::model::{Spec, Step};
use phalanx_shared::outcome::Outcome;
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

mod language;
mod random;

/// The outcomes of each step's next tries, by its name; `passed` when none is left.
type Script = BTreeMap<String, Vec<Outcome>>;

/// Performs effects according to a script.
struct Performer {
    core: Sequence,
    spec: Arc<Spec>,
    script: Script,
    /// The running actions, in the order they began.
    acting: Vec<(NodeId, String)>,
    armed: Vec<(Timer, Duration)>,
    results: Vec<StepResult>,
    events: Vec<EventKind>,
    /// Names of the steps whose action has begun, in order.
    acted: Vec<String>,
    whens: BTreeMap<String, bool>,
    finished: Option<(Outcome, Option<String>)>,
    now: Duration,
}

fn parse(yaml: &str) -> Arc<Spec> {
    let main = Source {
        name: "test.yaml".to_owned(),
        text: format!("name: test\n{yaml}"),
    };
    let loaded = load(main, &mut |path: &str| Err(format!("no {path}")));
    match loaded.spec {
        Some(spec) => Arc::new(spec),
        None => panic!("{yaml}\n{:#?}", loaded.diagnostics),
    }
}

/// Describes steps by their names as written, because this performer evaluates nothing.
struct AsWritten;

impl Describe for AsWritten {
    fn name(&self, step: &Step, _: &View) -> String {
        name(step)
    }

    fn rows(&self, item: &Item, _: &View) -> Vec<String> {
        let verifies = match item {
            Item::Phase(phase) => &phase.verifies,
            Item::Step(step) => &step.verifies,
        };
        verifies.iter().map(|row| row.text.clone()).collect()
    }

    fn params(&self, _: &Step, _: &View) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }
}

fn name(step: &Step) -> String {
    match (&step.name, &step.id) {
        (Some(name), _) => name.text.clone(),
        (None, Some(id)) => id.text.clone(),
        (None, None) => step.action.keyword().to_owned(),
    }
}

impl Performer {
    fn new(yaml: &str, script: &[(&str, &[Outcome])]) -> Performer {
        let spec = parse(yaml);
        let limits = Limits {
            cell: Duration::from_secs(3600),
            grace: Duration::from_secs(30),
        };
        Performer {
            core: Sequence::new(Arc::clone(&spec), limits),
            spec,
            script: script
                .iter()
                .map(|(name, outcomes)| ((*name).to_owned(), outcomes.to_vec()))
                .collect(),
            acting: Vec::new(),
            armed: Vec::new(),
            results: Vec::new(),
            events: Vec::new(),
            acted: Vec::new(),
            whens: BTreeMap::new(),
            finished: None,
            now: Duration::ZERO,
        }
    }

    /// Sets whether a phase or step runs; those without an entry run.
    fn when(mut self, name: &str, runs: bool) -> Performer {
        self.whens.insert(name.to_owned(), runs);
        self
    }

    fn input(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.now += Duration::from_millis(1);
            let now = Now {
                mono: self.now,
                ..Now::default()
            };
            assert!(
                self.finished.is_none() || matches!(input, Input::Fired(_)),
                "{input:?}"
            );
            for effect in self.core.handle(input, now) {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        assert!(self.finished.is_none(), "after the last effect: {effect:?}");
        match effect {
            Effect::Ended { result, .. } => self.results.push(*result),
            Effect::Emit(kind) => self.events.push(kind),
            Effect::Skip(skipped) => {
                let now = phalanx_shared::time::Timestamp::default();
                self.results
                    .extend(expand(&skipped, &self.spec, &AsWritten, now));
            }
            Effect::Ask { node, item, .. } => {
                let name = match &item {
                    Item::Phase(phase) => phase.name.text.clone(),
                    Item::Step(step) => name(step),
                };
                let runs = self.whens.get(&name).copied().unwrap_or(true);
                let result = Ok(match runs {
                    true => Asked::Run,
                    false => Asked::Not {
                        reason: format!("when of {name}"),
                    },
                });
                return Some(Input::Asked { node, result });
            }
            Effect::List { node, step, .. } => {
                let items = &step.foreach.as_ref().unwrap().items;
                let scope = phalanx_shared::expr::Scope::default();
                let cache = phalanx_shared::expr::Cache::new();
                let value = phalanx_shared::expr::eval_node(items, &scope, &cache).unwrap();
                let values = value.as_array().unwrap().clone();
                let secret = false;
                let result = Ok(Items { values, secret });
                return Some(Input::Listed { node, result });
            }
            Effect::Open { node, item, .. } => {
                let result = Ok(opening(&item));
                return Some(Input::Opened { node, result });
            }
            Effect::Act { node, step, .. } => {
                self.acted.push(name(&step));
                self.acting.push((node, name(&step)));
                return Some(Input::Acting);
            }
            Effect::Conclude { node, step, .. } => {
                let end = self.next_end(&format!("end of {}", name(&step)));
                return Some(Input::Ended { node, end });
            }
            Effect::Recall { node, .. } => {
                let result = Ok(None);
                return Some(Input::Recalled { node, result });
            }
            Effect::Remember { node, .. } => {
                let result = Ok(());
                return Some(Input::Remembered { node, result });
            }
            Effect::Forget { .. } => {}
            Effect::Stop { node } => self.acting.retain(|(acting, _)| *acting != node),
            Effect::Arm { timer, after } => self.armed.push((timer, after)),
            Effect::Disarm(timer) => self.armed.retain(|(armed, _)| *armed != timer),
            Effect::Finish(judgement) => {
                self.finished = Some((judgement.outcome, judgement.reason));
            }
        }
        None
    }

    fn next_end(&mut self, name: &str) -> Box<End> {
        let left = self.script.get_mut(name).filter(|left| !left.is_empty());
        let outcome = left.map_or(Outcome::Passed, |left| left.remove(0));
        let reason = (outcome != Outcome::Passed).then(|| format!("{name} was {outcome}"));
        Box::new(End {
            skips_group: outcome == Outcome::Skipped,
            ..End::bare(outcome, reason)
        })
    }

    /// Ends the running action with this index, in the order they began.
    fn end(&mut self, which: usize) {
        let (node, name) = self.acting.remove(which);
        let end = self.next_end(&name);
        self.input(Input::Ended { node, end });
    }

    /// The running action with this index has its end, and its artifacts are being kept.
    fn judge(&mut self, which: usize) {
        let (node, name) = self.acting[which].clone();
        let end = self.next_end(&name);
        self.input(Input::Judged { node, end });
    }

    /// Fires the first timer of a kind.
    fn fire(&mut self, kind: impl Fn(&Timer) -> bool) -> bool {
        let Some(at) = self.armed.iter().position(|(timer, _)| kind(timer)) else {
            return false;
        };
        let (timer, _) = self.armed.remove(at);
        self.input(Input::Fired(timer));
        true
    }

    /// Continues until everything has ended: first the actions in order, then the delays between tries.
    fn finish(mut self) -> Performer {
        while self.finished.is_none() {
            if !self.acting.is_empty() {
                self.end(0);
            } else if !self.fire(|timer| matches!(timer, Timer::Retry(_))) {
                panic!(
                    "nothing is in progress, and it isn't finished: {:#?}",
                    self.core
                );
            }
        }
        assert!(self.acting.is_empty(), "still acting: {:?}", self.acting);
        self
    }

    fn run(mut self) -> Performer {
        self.input(Input::Start);
        self.finish()
    }

    fn outcome(&self) -> Outcome {
        self.finished.as_ref().unwrap().0
    }

    /// Formats each result as `path outcome` and reason, in the order emitted.
    fn lines(&self) -> Vec<String> {
        self.results.iter().map(line).collect()
    }

    fn of(&self, path: &str) -> String {
        let found: Vec<String> = self
            .results
            .iter()
            .filter(|r| r.path == path)
            .map(line)
            .collect();
        assert_eq!(found.len(), 1, "{path} in {:#?}", self.lines());
        found[0].clone()
    }
}

fn line(result: &StepResult) -> String {
    match &result.reason {
        Some(reason) => format!("{} {}: {reason}", result.path, result.outcome),
        None => format!("{} {}", result.path, result.outcome),
    }
}

fn opening(item: &Item) -> Opening {
    let number = |node: &phalanx_shared::node::Node| match node.value {
        phalanx_shared::node::NodeValue::Int(n) => u32::try_from(n).unwrap(),
        _ => 0,
    };
    match item {
        Item::Phase(phase) => Opening {
            name: phase.name.text.clone(),
            rows: AsWritten.rows(item, &View::default()),
            timeout: phase.timeout.as_ref().map(|_| Duration::from_secs(60)),
            ..Opening::default()
        },
        Item::Step(step) => Opening {
            name: name(step),
            rows: AsWritten.rows(item, &View::default()),
            timeout: step.timeout.as_ref().map(|_| Duration::from_secs(60)),
            retries: step.retry.as_ref().map_or(0, |retry| number(&retry.times)),
            delay: step
                .retry
                .as_ref()
                .and_then(|retry| retry.delay.as_ref())
                .map_or(Duration::ZERO, |_| Duration::from_secs(1)),
            ..Opening::default()
        },
    }
}
