//! Explains why a cell waits, and why the cells of a run do.

use super::find;
use super::status::of_actor;
use crate::access::Caller;
use crate::dispatch::logs::store::LogStore;
use crate::registry::RunHandle;
use crate::run::actor::{LookAtCell, LookAtWaiting};
use crate::schedule::actor::{Prepares, Why, WhyAll};
use crate::schedule::{Preparing, Waiting};
use crate::serve::health::problems;
use crate::supervisor::Handle;
use phalanx_proto::v1;
use phalanx_shared::id::{CellId, RunId};
use std::time::Duration;
use tonic::Status;

/// Returns a cell's status and each constraint that it waits for.
pub(in crate::serve) async fn why(
    handle: &Handle,
    caller: &Caller,
    request: v1::WhyRequest,
) -> Result<v1::WhyResponse, Status> {
    let store = handle.journal.store();
    let row = find::run(&**store, caller, &request.run_id).await?;
    let run = row.new.run;
    let plan = find::plan(&**store, &run).await?;
    let cell = find::cell(&plan, &request.cell)?;
    let over = || v1::WhyResponse {
        status: "finished".to_owned(),
        reasons: Vec::new(),
        ahead: Vec::new(),
    };
    let Some(open) = handle.registry.get(&run) else {
        return Ok(over());
    };
    let Ok(Some((status, mut reasons))) = open.actor.ask(LookAtCell(cell.clone())).await else {
        return Ok(over());
    };
    let asked = Why {
        run: run.clone(),
        cell: cell.clone(),
    };
    if let Waiting::For(constraints) = handle.scheduling.ask(asked).await.map_err(of_actor)? {
        reasons.extend(constraints.iter().map(ToString::to_string));
    }
    let asked = Prepares { run, cell };
    let ahead = handle.scheduling.ask(asked).await.map_err(of_actor)?;
    if let Some(trouble) = handle.journal.health().borrow().clone() {
        reasons.push(trouble);
    }
    Ok(v1::WhyResponse {
        status: format!("{status:?}").to_lowercase(),
        reasons,
        ahead: shown(ahead),
    })
}

/// Maximum number of preparations shown per cell or group.
const SHOWN: usize = 8;

fn shown(ahead: Vec<Preparing>) -> Vec<v1::Preparing> {
    let preparing = |Preparing { agent, image }: Preparing| {
        let v1::AheadImage {
            id: what,
            state,
            doing,
        } = image.into();
        v1::Preparing {
            what,
            agent,
            state,
            doing,
        }
    };
    ahead.into_iter().take(SHOWN).map(preparing).collect()
}

/// Maximum number of cells listed per group.
const NAMED: usize = 2_000;

/// How long to wait for a run that is busy (because its journal can't be written, for example). The client's next
/// request asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Returns the waiting cells of a run grouped by reason (no groups if the run is over), and what keeps the coordinator
/// from working.
pub(in crate::serve) async fn waiting(
    handle: &Handle,
    caller: &Caller,
    logs: &LogStore,
    request: v1::WaitingRequest,
) -> Result<v1::WaitingResponse, Status> {
    let run = RunId::from(request.run_id);
    let open = handle.registry.get(&run);
    let groups = match open.filter(|open| caller.scope().has(&open.namespace)) {
        Some(open) => tokio::time::timeout(ANSWER_WITHIN, groups(handle, run, open)).await,
        // It is over, or none of the caller's.
        None => Ok(Ok(Vec::new())),
    };
    Ok(v1::WaitingResponse {
        groups: groups.unwrap_or_else(|_| Ok(Vec::new()))?,
        problems: problems(handle, logs),
    })
}

async fn groups(
    handle: &Handle,
    run: RunId,
    open: RunHandle,
) -> Result<Vec<v1::WaitingCells>, Status> {
    let Ok(held_back) = open.actor.ask(LookAtWaiting).await else {
        return Ok(Vec::new());
    };
    let mut groups: Vec<(Vec<String>, Vec<v1::Preparing>, Vec<CellId>)> = Vec::new();
    if held_back.reasons.is_empty() {
        let asked = WhyAll { run };
        let known = handle.scheduling.ask(asked).await.map_err(of_actor)?;
        let known = known.into_iter().map(|(constraints, ahead, cells)| {
            let reasons = constraints.iter().map(ToString::to_string);
            (reasons.collect(), shown(ahead), cells)
        });
        groups.extend(known);
    } else {
        groups.push((held_back.reasons, Vec::new(), held_back.cells));
    }
    let trouble = handle.journal.health().borrow().clone();
    let groups = groups.into_iter().map(|(mut reasons, ahead, cells)| {
        reasons.extend(trouble.clone());
        v1::WaitingCells {
            reasons,
            count: u32::try_from(cells.len()).unwrap_or(u32::MAX),
            cells: cells.iter().take(NAMED).map(ToString::to_string).collect(),
            ahead,
        }
    });
    // A group without reasons is about to be placed.
    let groups = groups.filter(|group| group.count > 0 && !group.reasons.is_empty());
    Ok(groups.collect())
}
