//! Streams the logs of an attempt from any record or offset, also while they are being written, and the logs of a whole
//! run one attempt after the other.

use super::find;
use crate::access::Caller;
use crate::dispatch::logs::read::{Query, read};
use crate::dispatch::logs::store::LogStore;
use crate::supervisor::Handle;
use phalanx_proto::convert::stream_from_wire;
use phalanx_proto::v1;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::run_state::RunState;
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// The records that answer a request.
pub(super) type Records = Pin<Box<dyn Stream<Item = Result<v1::LogRecord, Status>> + Send>>;

/// Returns the log records of an attempt, or those of the whole run if the request names no cell.
pub(super) async fn logs(
    handle: &Handle,
    caller: &Caller,
    store_of_logs: &LogStore,
    request: v1::LogsRequest,
) -> Result<Records, Status> {
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
    let run = find::run(&**store, caller, &run_id).await?.new.run;
    let state = find::state(&**store, &run).await?;
    let invalid = |_| Status::invalid_argument(format!("log stream {stream} isn't known"));
    let stream = stream_from_wire(stream).map_err(invalid)?;
    if cell.is_empty() {
        let query = Query {
            service: (!service.is_empty()).then_some(service),
            stream,
            ..everything(run)
        };
        return Ok(of_run(store_of_logs, &state, query));
    }
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
    let query = Query {
        run,
        cell,
        attempt,
        service: (!service.is_empty()).then_some(service),
        stream,
        offset,
        from_record,
        follow,
    };
    Ok(Box::pin(records(store_of_logs, query)))
}

/// Returns a query for all records of a run; cell and attempt are still to be set.
fn everything(run: RunId) -> Query {
    Query {
        run,
        cell: CellId::from(""),
        attempt: 0,
        service: None,
        stream: None,
        offset: 0,
        from_record: 0,
        follow: false,
    }
}

/// Returns the records of all attempts, in plan order. The next attempt's files are opened when the one before is read.
fn of_run(store: &LogStore, state: &RunState, query: Query) -> Records {
    let attempts = state.cells.iter().flat_map(|(cell, seen)| {
        let attempts = seen.attempts.iter();
        attempts.map(|attempt| (cell.clone(), attempt.attempt))
    });
    let attempts: Vec<(CellId, u32)> = attempts.collect();
    let store = store.clone();
    let streams = futures::stream::iter(attempts).map(move |(cell, attempt)| {
        let name = cell.to_string();
        let query = Query {
            cell,
            attempt,
            ..query.clone()
        };
        records(&store, query).map(move |record| {
            let mut record = record?;
            record.cell.clone_from(&name);
            Ok(record)
        })
    });
    Box::pin(futures::StreamExt::flatten(streams))
}

/// Returns the records of one attempt.
fn records(
    store: &LogStore,
    query: Query,
) -> impl Stream<Item = Result<v1::LogRecord, Status>> + Send + use<> {
    let attempt = query.attempt;
    read(store, query).map(move |entry| {
        let entry = entry.map_err(|error| Status::internal(format!("the log: {error}")))?;
        Ok(entry.into_wire(attempt))
    })
}
