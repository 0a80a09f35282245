//! Cancel: ends a run, with or without its `always` steps.

use super::find;
use super::status::of_actor;
use crate::access::Caller;
use crate::run::actor::{Look, Tell};
use crate::run::core::Input;
use crate::supervisor::Handle;
use futures::future::BoxFuture;
use phalanx_proto::v1;
use phalanx_shared::cancel::CancelOrder;
use std::time::Duration;
use tonic::Status;

/// Cancels a run. Returns immediately; `Watch` shows the progress.
pub(in crate::serve) async fn cancel(
    handle: &Handle,
    caller: &Caller,
    request: v1::CancelRequest,
) -> Result<v1::CancelResponse, Status> {
    let v1::CancelRequest {
        run_id,
        reason,
        force,
    } = request;
    let row = find::run(&**handle.journal.store(), caller, &run_id).await?;
    caller.about(format!("run {}", row.new.run));
    if !caller.may_cancel(&row.new.owner) {
        return Err(Status::permission_denied(format!(
            "run {} was started with another token: cancelling it needs the role `admin`",
            row.new.run
        )));
    }
    let Some(run) = handle.registry.get(&row.new.run) else {
        if let Some(reason) = handle.registry.parked(&row.new.run) {
            return Err(Status::failed_precondition(format!(
                "run {} is parked, nothing of it runs: {reason}",
                row.new.run
            )));
        }
        return Ok(v1::CancelResponse { finished: true });
    };
    let finished = run.actor.ask(Look).await.map_err(of_actor)?.finished;
    let order = CancelOrder {
        reason: if reason.is_empty() {
            "cancelled".to_owned()
        } else {
            reason
        },
        grace: handle.settings.cancel_grace,
        force,
    };
    // A run that ends in the meantime needs no order.
    let _ = run.actor.tell(Tell(Input::Cancel(order))).await;
    Ok(v1::CancelResponse { finished })
}

/// Cancels every open run and waits until all are settled, at most for `within`. Returns whether they are.
pub fn cancel_all(handle: &Handle, within: Duration) -> BoxFuture<'_, bool> {
    Box::pin(cancel_open(handle, within))
}

async fn cancel_open(handle: &Handle, within: Duration) -> bool {
    let order = CancelOrder {
        reason: "the coordinator stops".to_owned(),
        grace: handle.settings.cancel_grace,
        force: false,
    };
    let mut tails = Vec::new();
    for (_, run) in handle.registry.all() {
        // A run that is over takes no order.
        let _ = run.actor.tell(Tell(Input::Cancel(order.clone()))).await;
        tails.push(run.tail);
    }
    let settled = async {
        for mut tail in tails {
            // If the run's actor is gone, nothing more comes from its tail.
            let _ = tail.wait_for(|tail| tail.settled).await;
        }
    };
    tokio::time::timeout(within, settled).await.is_ok()
}
