//! Resolves a user's reference to a run or cell: an id, a prefix of one, or a name.

use super::status::of_store;
use crate::access::Caller;
use crate::journal::{RunRow, Store};
use crate::supervisor::replay;
use phalanx_shared::event::EventKind;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::plan::Plan;
use phalanx_shared::run_state::RunState;
use tonic::Status;

/// Returns the run with this id or id prefix, if the caller sees it. What is in another namespace isn't there.
pub(in crate::serve) async fn run(
    store: &dyn Store,
    caller: &Caller,
    text: &str,
) -> Result<RunRow, Status> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Status::invalid_argument("which run? its id is empty"));
    }
    let seen = |row: &RunRow| caller.scope().has(&row.new.namespace);
    if let Some(row) = store
        .run(&text.into())
        .await
        .map_err(of_store)?
        .filter(seen)
    {
        return Ok(row);
    }
    let found = store.beginning_with(text, 2, caller.only()).await;
    let found = found.map_err(of_store)?;
    let row = match found.as_slice() {
        [run] => store.run(run).await.map_err(of_store)?,
        [] => None,
        _ => {
            return Err(Status::invalid_argument(format!(
                "several runs begin with {text}: write more of the id"
            )));
        }
    };
    row.ok_or_else(|| {
        Status::not_found(format!("there is no run {text}: `phalanx runs` lists them"))
    })
}

/// Returns a run's plan without reading the rest of its journal.
pub(in crate::serve) async fn plan(store: &dyn Store, run: &RunId) -> Result<Plan, Status> {
    let first = store.events(run, 1, 1).await.map_err(of_store)?;
    match first.into_iter().next().map(|recorded| recorded.event.kind) {
        Some(EventKind::RunSubmitted { plan, .. }) => Ok(plan),
        _ => Err(Status::data_loss(format!(
            "run {run} has no plan in its journal"
        ))),
    }
}

/// Returns a run's state, folded from its journal.
pub(in crate::serve) async fn state(store: &dyn Store, run: &RunId) -> Result<RunState, Status> {
    let (state, _) = replay(store, run).await.map_err(of_store)?;
    Ok(state)
}

/// Returns the cell with this id, id prefix or name.
pub(in crate::serve) fn cell(plan: &Plan, text: &str) -> Result<CellId, Status> {
    let text = text.trim();
    let exact = plan
        .cells
        .iter()
        .find(|cell| cell.id.as_str() == text || cell.name == text);
    if let Some(cell) = exact {
        return Ok(cell.id.clone());
    }
    let begins = |id: &CellId| !text.is_empty() && id.as_str().starts_with(text);
    let mut found = plan.cells.iter().filter(|cell| begins(&cell.id));
    match (found.next(), found.next()) {
        (Some(cell), None) => Ok(cell.id.clone()),
        (Some(_), Some(_)) => Err(Status::invalid_argument(format!(
            "several cells begin with {text}: write more of the id"
        ))),
        (None, _) => {
            let names = plan.cells.iter().map(|cell| cell.name.as_str());
            let near = names
                .map(|name| (strsim::jaro_winkler(name, text), name))
                .filter(|(likeness, _)| *likeness > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near.map_or(String::new(), |(_, name)| {
                format!(", did you mean {name:?}?")
            });
            Err(Status::not_found(format!(
                "the run has no cell {text:?}{hint}"
            )))
        }
    }
}
