//! The evidence of a failure: request, response, the logs of the services involved, and the position in the spec.

use super::answer::Answer;
use crate::cell::context::CellContext;
use crate::runtime::contract::Member;
use phalanx_shared::diagnostic::Span;
use phalanx_shared::event::{Failure, LogTail};
use phalanx_shared::mask::{Keep, Source};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

/// Number of lines of a service's log that a failure shows.
const LINES: usize = 40;
/// Maximum number of characters of a note from a service's runtime, which may quote the output of a health check.
const NOTE: usize = 400;
/// Time limit for inspecting a service.
const INSPECT: Duration = Duration::from_secs(3);

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

/// Returns the failure of a service that went down.
pub async fn of_service(
    context: &CellContext,
    service: &str,
    member: Option<&dyn Member>,
) -> Failure {
    let notes = match member {
        Some(member) => timeout(INSPECT, member.inspect()).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let masks = context.masks.current();
    let notes = notes
        .iter()
        .map(|note| masks.excerpt(Source::whole(note.as_bytes()), Keep::Head(NOTE)))
        .collect();
    Failure {
        logs: tails(context, &BTreeSet::from([service.to_owned()])).await,
        notes,
        ..Failure::default()
    }
}

/// Returns the failure of a service whose dependency can't be met: that of the dependency, or of the root cause further
/// up.
pub async fn of_cause(context: &CellContext, cause: &str) -> Failure {
    let Some(status) = context.board.get(cause) else {
        return Failure::default();
    };
    if let Some(down) = &status.down {
        return down.failure.clone();
    }
    let mut failure = of_service(context, cause, status.member.as_deref()).await;
    for note in &mut failure.notes {
        if !note.starts_with(cause) {
            *note = format!("{cause}: {note}");
        }
    }
    failure
}

/// Returns the last lines of each service that has printed any.
async fn tails(context: &CellContext, services: &BTreeSet<String>) -> Vec<LogTail> {
    if services.is_empty() {
        return Vec::new();
    }
    context.logs.settle().await;
    services
        .iter()
        .map(|service| context.logs.tail(service, LINES))
        .filter(|tail| !tail.lines.is_empty())
        .collect()
}
