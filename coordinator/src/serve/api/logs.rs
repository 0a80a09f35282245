//! Streams the logs of an attempt from any record or offset, also while they are being written.

use super::find;
use crate::dispatch::logs::read::{Query, read};
use crate::dispatch::logs::store::LogStore;
use crate::supervisor::Handle;
use phalanx_proto::convert::stream_from_wire;
use phalanx_proto::v1;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// Returns the log records of an attempt.
pub(super) async fn logs(
    handle: &Handle,
    store_of_logs: &LogStore,
    request: v1::LogsRequest,
) -> Result<impl Stream<Item = Result<v1::LogRecord, Status>> + use<>, Status> {
    let v1::LogsRequest {
        run_id,
        cell,
        attempt,
        service,
        stream,
        offset,
        from_record,
        follow,
    } = request;
    let store = handle.journal.store();
    let run = find::run(&**store, &run_id).await?.new.run;
    let state = find::state(&**store, &run).await?;
    let plan = state.plan.as_ref();
    let plan = plan.ok_or_else(|| Status::internal("the run has no plan in its journal"))?;
    let cell = find::cell(plan, &cell)?;
    let seen = state.cells.get(&cell);
    let newest = seen.and_then(|cell| cell.newest()).map(|a| a.attempt);
    let Some(attempt) = (if attempt == 0 { newest } else { Some(attempt) }) else {
        return Err(Status::not_found(format!(
            "cell {cell} hasn't been tried yet"
        )));
    };
    let known = seen.is_some_and(|cell| cell.attempts.iter().any(|a| a.attempt == attempt));
    if !known {
        return Err(Status::not_found(format!(
            "cell {cell} has no attempt {attempt}"
        )));
    }
    let invalid = |_| Status::invalid_argument(format!("log stream {stream} isn't known"));
    let query = Query {
        run,
        cell,
        attempt,
        service: (!service.is_empty()).then_some(service),
        stream: stream_from_wire(stream).map_err(invalid)?,
        offset,
        from_record,
        follow,
    };
    let entries = read(store_of_logs, query);
    Ok(entries.map(move |entry| {
        let entry = entry.map_err(|error| Status::internal(format!("the log: {error}")))?;
        Ok(entry.into_wire(attempt))
    }))
}
