//! How many spans a run will have, before it runs.
//!
//! The number decides whether the run's trace is split, and agents pass traces on from the first step. So it must be known
//! at the submission, from the spec alone. It is an estimate: a list that is computed counts as [`COMPUTED`] items, and
//! retries aren't counted.

use crate::language::model::{Action, DefineBody, Spec, Step};
use crate::node::{Node, NodeValue};
use std::collections::HashMap;

/// Number of items that a computed list of a `foreach` counts as.
const COMPUTED: u64 = 4;
/// Spans of a cell without services and steps: cell, queue, attempt, stack, clean-up.
const CELL: u64 = 5;
/// Spans of a service: its own, pull or build, create, start, ready.
const SERVICE: u64 = 5;

/// Returns the estimated number of spans of a run with this many cells.
pub fn spans(spec: &Spec, cells: usize) -> u64 {
    let mut counter = Counter {
        spec,
        defines: HashMap::new(),
    };
    let services = count(spec.services.len()).saturating_mul(SERVICE);
    let mut cell = CELL.saturating_add(services);
    for phase in &spec.phases {
        cell = cell.saturating_add(1 + counter.steps(&phase.steps));
    }
    cell.saturating_mul(count(cells)).saturating_add(1)
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

struct Counter<'a> {
    spec: &'a Spec,
    /// Spans of the steps of each define, by its name. 0 while it is being counted: a define can't contain itself, and if
    /// one did, the count would still end.
    defines: HashMap<&'a str, u64>,
}

impl<'a> Counter<'a> {
    fn steps(&mut self, steps: &'a [Step]) -> u64 {
        let each = steps.iter().map(|step| self.step(step));
        each.fold(0, u64::saturating_add)
    }

    fn step(&mut self, step: &'a Step) -> u64 {
        let inside = match &step.action {
            Action::Steps(steps) | Action::Parallel(steps) => self.steps(steps),
            Action::Use(used) => self.define(&used.define.text),
            _ => 0,
        };
        // Either the step or those of its `else`.
        let once = inside.saturating_add(1).max(self.steps(&step.otherwise));
        match &step.foreach {
            None => once,
            Some(each) => once.saturating_mul(items(&each.items)),
        }
    }

    fn define(&mut self, name: &'a str) -> u64 {
        if let Some(known) = self.defines.get(name) {
            return *known;
        }
        self.defines.insert(name, 0);
        let found = self
            .spec
            .define
            .iter()
            .find(|known| known.name.text == name);
        let spans = match found.map(|found| &found.body) {
            Some(DefineBody::Steps { steps, .. }) => self.steps(steps),
            _ => 0,
        };
        self.defines.insert(name, spans);
        spans
    }
}

fn items(list: &Node) -> u64 {
    match &list.value {
        NodeValue::List(items) => count(items.len()),
        _ => COMPUTED,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;
    use crate::diagnostic::Source;
    use crate::language;

    fn spans_of(text: &str, cells: usize) -> u64 {
        let main = Source {
            name: "spec.yaml".into(),
            text: text.into(),
        };
        let loaded = language::load(main, &mut |_| Err("no other file".to_owned()));
        let problems = loaded.diagnostics;
        spans(
            &loaded.spec.unwrap_or_else(|| panic!("{problems:?}")),
            cells,
        )
    }

    #[test]
    fn cells_services_phases_groups_loops_and_defines_count() {
        let bare = "name: s\nphases:\n  a:\n    - { run: \"true\" }\n";
        assert_eq!(spans_of(bare, 1), 1 + 7);
        assert_eq!(spans_of(bare, 10), 1 + 70);
        let rich = r#"
name: s
define:
  twice: { steps: [ { run: "true" }, { run: "true" } ] }
services: { db: { process: [sleep, inf] } }
phases:
  a:
    - { foreach: { x: [1, 2, 3] }, run: "true" }
    - { foreach: { x: "${{ [1] }}" }, run: "true" }
    - { use: twice }
    - { steps: [ { run: "true" } ] }
"#;
        assert_eq!(spans_of(rich, 2), 1 + 2 * (5 + 5 + 1 + 3 + 4 + 3 + 2));
    }
}
