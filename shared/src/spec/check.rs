//! What is wrong with a decoded spec beyond its shape: expressions that don't parse, names that aren't known where
//! they stand, circles, rows that nothing verifies.
//!
//! Nothing is evaluated but `verifies` over written values. What depends on inputs is the planner's to find.

mod circle;
mod coverage;
mod defines;
mod exposed;
mod names;
mod planned;
mod position;
mod reference;
mod scope;
mod services;
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

/// Reports everything that can be known without inputs.
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
    checker.coverage();
}

/// The steps of a group.
fn inner_steps(step: &Step) -> &[Step] {
    match &step.action {
        Action::Steps(steps) | Action::Parallel(steps) => steps,
        _ => &[],
    }
}
