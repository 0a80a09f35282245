//! Keeps the artifacts of an attempt when its sequence is over and its services still stand: those of steps that were
//! ended from outside, then those of services, then those of the cell.

use crate::action::artifacts::{Owner, TimeLimit, keep};
use crate::context::CellContext;
use crate::context::frame::View;
use phalanx_shared::outcome::Outcome;

/// Keeps them within the time. Returns why a good outcome can't stand, if a file is missing that had to be there.
pub async fn at_the_end(
    context: &CellContext,
    outcome: Outcome,
    limit: TimeLimit,
) -> Option<String> {
    let mut problem = None;
    for owed in context.artifacts.take_owed() {
        let owner = Owner {
            step: Some(&owed.path),
            service: None,
        };
        let entries = &owed.step.artifacts;
        // A step that has no outcome of its own was ended: that isn't a good one.
        let outcome = owed.outcome.unwrap_or(Outcome::Failed);
        let kept = keep(context, entries, &owed.scope, owner, outcome, limit.clone()).await;
        problem = problem.or(kept);
    }
    for service in &context.spec.services {
        if service.artifacts.is_empty() {
            continue;
        }
        let scope = context.definition_scope(None);
        let owner = Owner {
            step: None,
            service: Some(&service.name.text),
        };
        let entries = &service.artifacts;
        let kept = keep(context, entries, &scope, owner, outcome, limit.clone()).await;
        problem = problem.or(kept);
    }
    let of_cell = &context.spec.cell.artifacts;
    let scope = context.scope(&View::default());
    let kept = keep(context, of_cell, &scope, Owner::default(), outcome, limit).await;
    context.artifacts.close();
    problem.or(kept)
}
