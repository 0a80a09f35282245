//! Reports a skipped step together with everything inside it: each gets a line, an event and a report row.
//!
//! The core names the outermost item and [`expand`] walks its inside. [`Describe`] supplies names and rows as far as
//! they can be evaluated; an unknown part of a name appears as `{expression}`.

use crate::context::frame::Key;
use crate::context::frame::{Frame, Handed, Value, View};
use crate::step::contract::{Item, body};
use phalanx_shared::event::{Culprit, StepPath, StepResult};
use phalanx_shared::language::model::{Action, DefineBody, Spec, Step};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Limit on the nesting depth. Defines can't contain themselves; the limit ends the walk if one does all the same.
const MAX_DEPTH: usize = 64;

/// An item that is skipped as a whole.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// The phase or step.
    pub item: Item,
    /// Its path, with the key of an instance.
    pub path: StepPath,
    /// The key, if it is an instance.
    pub key: Option<Key>,
    /// The scopes that it would have seen.
    pub view: View,
    /// Rows of the coverage table that the groups around it name.
    pub rows: Vec<String>,
    /// Reason, as shown in reports.
    pub reason: String,
    /// Whether it was never reached; otherwise the spec decided to skip it.
    pub unreached: bool,
    /// What it follows from, if the spec doesn't say so.
    pub culprit: Option<Culprit>,
    /// Whether only the steps inside are reported, because the item itself has its event already.
    pub inside_only: bool,
}

/// Describes a step that doesn't run, as far as that is possible.
pub trait Describe {
    /// Returns the step's name as far as it is known.
    fn name(&self, step: &Step, view: &View) -> String;
    /// Returns the rows that the item names itself; for a `foreach`, the rows of all its values if they can be known.
    fn rows(&self, item: &Item, view: &View) -> Vec<String>;
    /// Returns the arguments of a `use` as far as they can be evaluated.
    fn params(&self, step: &Step, view: &View) -> BTreeMap<String, Value>;
}

/// Returns the results of a skipped item and of everything inside it, outermost first.
pub fn expand(
    skipped: &Skipped,
    spec: &Spec,
    describe: &dyn Describe,
    now: Timestamp,
) -> Vec<StepResult> {
    let mut walk = Walk {
        spec,
        describe,
        now,
        reason: &skipped.reason,
        unreached: skipped.unreached,
        culprit: skipped.culprit.as_ref(),
        results: Vec::new(),
    };
    let mut rows = skipped.rows.clone();
    add_rows(&mut rows, describe.rows(&skipped.item, &skipped.view));
    match &skipped.item {
        Item::Phase(phase) => walk.steps(&phase.steps, &skipped.path, &skipped.view, &rows, 0),
        Item::Step(step) => {
            if !skipped.inside_only {
                walk.tell(
                    step,
                    &skipped.path,
                    skipped.key.as_ref(),
                    &skipped.view,
                    &rows,
                );
            }
            walk.inside(step, &skipped.path, &skipped.view, &rows, 0);
        }
    }
    walk.results
}

/// Adds the rows that aren't present yet.
pub(super) fn add_rows(rows: &mut Vec<String>, more: Vec<String>) {
    for row in more {
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
}

struct Walk<'a> {
    spec: &'a Spec,
    describe: &'a dyn Describe,
    now: Timestamp,
    reason: &'a str,
    unreached: bool,
    culprit: Option<&'a Culprit>,
    results: Vec<StepResult>,
}

impl Walk<'_> {
    fn steps(&mut self, steps: &[Step], path: &str, view: &View, rows: &[String], depth: usize) {
        for (index, step) in steps.iter().enumerate() {
            let path = format!("{path}/{index}");
            let mut rows = rows.to_vec();
            let own = self
                .describe
                .rows(&Item::Step(Arc::new(step.clone())), view);
            add_rows(&mut rows, own);
            self.tell(step, &path, None, view, &rows);
            self.inside(step, &path, view, &rows, depth);
        }
    }

    fn inside(&mut self, step: &Step, path: &str, view: &View, rows: &[String], depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match &step.action {
            Action::Steps(steps) | Action::Parallel(steps) => {
                self.steps(steps, path, view, rows, depth + 1);
            }
            Action::Use(used) => {
                let spec = self.spec;
                let Some(DefineBody::Steps { steps, .. }) = body(spec, &used.define.text) else {
                    return;
                };
                let values = self.describe.params(step, view);
                let secret = BTreeSet::new(); // nothing inside is captured
                let params = Some(Handed { values, secret });
                let inner = view.within(Frame {
                    params,
                    ..Frame::default()
                });
                self.steps(steps, path, &inner, rows, depth + 1);
            }
            _ => {}
        }
    }

    fn tell(&mut self, step: &Step, path: &str, key: Option<&Key>, view: &View, rows: &[String]) {
        let name = self.describe.name(step, view);
        self.results.push(StepResult {
            path: path.to_owned(),
            name: with_key(&name, key),
            id: step.id.as_ref().map(|id| id.text.clone()),
            action: step.action.keyword().to_owned(),
            outcome: Outcome::Skipped,
            reason: Some(self.reason.to_owned()),
            unreached: self.unreached,
            timed_out: false,
            culprit: self.culprit.cloned(),
            tries: 0,
            polls: 0,
            began: self.now,
            elapsed_us: 0,
            waits: Vec::new(),
            verifies: rows.to_vec(),
            checks: Vec::new(),
            output: None,
            captured: Vec::new(),
            failure: None,
            restored: None,
        });
    }
}

/// Formats the name of an instance as `name [key]`.
pub(super) fn with_key(name: &str, key: Option<&Key>) -> String {
    match key {
        Some(key) => format!("{name} [{key}]"),
        None => name.to_owned(),
    }
}
