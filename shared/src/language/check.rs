//! Checks a decoded spec beyond its shape: expressions that don't parse, names that aren't known at their place,
//! dependency cycles, and coverage rows that nothing verifies.
//!
//! Evaluates only `verifies` over written values. The planner finds errors that depend on inputs.

mod artifacts;
mod circle;
mod coverage;
mod defines;
mod exposed;
mod names;
mod planned;
mod position;
mod reference;
mod results;
mod scope;
mod services;
mod snapshots;
mod steps;

#[cfg(test)]
pub(crate) use self::{
    reference::{OF_EVENT, OF_SERVICE},
    services::HTTP_RESULTS,
    steps::{COMMAND_RESULTS, SSE_RESULTS},
};
use super::model::{Action, Spec, Step};
use crate::diagnostic::Diagnostic;
use names::Names;
use reference::Checker;
use scope::Scope;
use std::collections::{HashMap, HashSet};

/// Reports every error that can be found without inputs.
pub fn check(spec: &Spec, diagnostics: &mut Vec<Diagnostic>) {
    let mut checker = Checker {
        names: Names::of(spec),
        diagnostics,
        scope: Scope::default(),
        outward: None,
        outward_of: HashMap::new(),
        sessions: HashMap::new(),
        verified: HashSet::new(),
        verified_like: Vec::new(),
    };
    checker.planned();
    checker.services();
    checker.defines();
    checker.phases();
    checker.snapshots();
    checker.coverage();
}

/// Returns the steps of a group.
fn inner_steps(step: &Step) -> &[Step] {
    match &step.action {
        Action::Steps(steps) | Action::Parallel(steps) => steps,
        _ => &[],
    }
}
