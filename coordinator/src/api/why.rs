//! Why a cell waits.

use super::find;
use super::status::of_actor;
use crate::run::actor::LookAtCell;
use crate::schedule::Waiting;
use crate::schedule::actor::Why;
use crate::supervisor::Handle;
use phalanx_proto::v1;
use tonic::Status;

/// Where a cell is, and each constraint that it waits for.
pub(super) async fn why(
    handle: &Handle,
    request: v1::WhyRequest,
) -> Result<v1::WhyResponse, Status> {
    let store = handle.journal.store();
    let row = find::run(&**store, &request.run_id).await?;
    let run = row.new.run;
    let plan = find::plan(&**store, &run).await?;
    let cell = find::cell(&plan, &request.cell)?;
    let over = || v1::WhyResponse {
        status: "finished".to_owned(),
        reasons: Vec::new(),
    };
    let Some(open) = handle.registry.get(&run) else {
        return Ok(over());
    };
    let Ok(Some((status, mut reasons))) = open.actor.ask(LookAtCell(cell.clone())).await else {
        return Ok(over());
    };
    let asked = Why {
        run: run.clone(),
        cell,
    };
    if let Waiting::For(constraints) = handle.scheduling.ask(asked).await.map_err(of_actor)? {
        reasons.extend(constraints.iter().map(ToString::to_string));
    }
    if let Some(trouble) = handle.journal.health().borrow().clone() {
        reasons.push(trouble);
    }
    Ok(v1::WhyResponse {
        status: format!("{status:?}").to_lowercase(),
        reasons,
    })
}
