//! The evidence of a service that went down: its log and the result of inspecting it, or those of the root cause.

use super::board::Board;
use crate::action::failure::tails;
use crate::context::CellContext;
use crate::runtime::contract::Member;
use phalanx_shared::event::Failure;
use phalanx_shared::mask::{Keep, Source};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

/// Maximum number of characters of a note from a service's runtime, which may quote the output of a health check.
const NOTE: usize = 400;
/// Time limit for inspecting a service.
const INSPECT: Duration = Duration::from_secs(3);

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
pub async fn of_cause(context: &CellContext, board: &Board, cause: &str) -> Failure {
    let Some(status) = board.get(cause) else {
        return Failure::default();
    };
    if let Some(down) = &status.down {
        return down.failure.clone();
    }
    let mut failure = of_service(context, cause, status.member.as_deref()).await;
    // An engine's summary of a container names it.
    if status.process {
        for note in &mut failure.notes {
            *note = format!("{cause}: {note}");
        }
    }
    failure
}
