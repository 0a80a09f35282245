//! The evidence of a failure: request, response, the logs of the services involved, and the position in the spec.

use super::answer::Answer;
use crate::context::CellContext;
use phalanx_shared::diagnostic::Span;
use phalanx_shared::event::{Failure, LogTail};
use std::collections::BTreeSet;

/// Number of lines of a service's log that a failure shows.
const LINES: usize = 40;

/// Returns the failure of a step. With `withheld`, its output isn't shown, only its size.
pub async fn of_step(
    context: &CellContext,
    span: Span,
    answer: Option<&Answer>,
    services: &BTreeSet<String>,
    withheld: bool,
) -> Failure {
    let mut failure = Failure {
        place: context.place(span),
        logs: tails(context, services).await,
        ..Failure::default()
    };
    if let Some(answer) = answer {
        show(context, &mut failure, answer, withheld);
    }
    failure
}

/// Adds the answer of an action to a failure. With `withheld`, adds only the size of the output.
pub fn show(context: &CellContext, failure: &mut Failure, answer: &Answer, withheld: bool) {
    if withheld {
        failure.notes.push(format!(
            "the output ({} bytes) is withheld: it holds a secret that could not be captured",
            answer.size
        ));
        return;
    }
    let masks = context.masks.current();
    failure.request = answer.request.as_ref().map(|shown| shown.show(&masks));
    failure.response = answer.response.as_ref().map(|shown| shown.show(&masks));
    let notes = answer.notes.iter().map(|shown| shown.show(&masks));
    failure.notes.extend(notes);
}

/// Returns the last lines of each service that has printed any.
pub async fn tails(context: &CellContext, services: &BTreeSet<String>) -> Vec<LogTail> {
    if services.is_empty() {
        return Vec::new();
    }
    context.services.settle_output().await;
    services
        .iter()
        .flat_map(|service| context.services.replicas(service))
        .map(|service| context.services.tail(&service, LINES))
        .filter(|tail| !tail.lines.is_empty())
        .collect()
}
