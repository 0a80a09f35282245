//! The log lines of a whole run, for reports with logs.

use super::CliError;
use crate::credential::Client;
use phalanx_proto::convert::stream_from_wire;
use phalanx_proto::v1::{LogRecord, LogsRequest};
use phalanx_report::logs::{Gatherer, Limit, Logs, Origin};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::time::Timestamp;
use tonic::{Code, Streaming};

/// Returns the lines that all attempts of a run have written so far, up to a limit.
pub async fn fetch_logs(client: Client, run: RunId, limit: Limit) -> Result<Logs, CliError> {
    let records = records(client, &run).await?;
    let mut gatherer = Gatherer::new(limit);
    gather(&mut gatherer, None, records).await?;
    Ok(gatherer.finish())
}

/// Returns the lines that the newest attempts of some cells have written so far, up to a limit.
pub async fn fetch_logs_of(
    mut client: Client,
    run: &RunId,
    cells: &[CellId],
    limit: Limit,
) -> Result<Logs, CliError> {
    let mut gatherer = Gatherer::new(limit);
    for cell in cells {
        let request = LogsRequest {
            run_id: run.to_string(),
            cell: cell.to_string(),
            ..LogsRequest::default()
        };
        let records = client.logs(request).await?.into_inner();
        if gather(&mut gatherer, Some(cell), records).await? {
            break;
        }
    }
    Ok(gatherer.finish())
}

/// Adds records until the gatherer is full. Returns whether it is. Only records of a whole run name their cell.
async fn gather(
    gatherer: &mut Gatherer,
    of: Option<&CellId>,
    mut records: Streaming<LogRecord>,
) -> Result<bool, CliError> {
    while let Some(record) = records.message().await? {
        let named = CellId::from(record.cell.as_str());
        let cell = of.unwrap_or(&named);
        let stream = stream_from_wire(record.stream).ok().flatten();
        let origin = Origin {
            cell,
            attempt: record.attempt,
            service: &record.service,
            stream: stream.unwrap_or(LogStream::Stdout),
        };
        let at = Timestamp(record.at_us);
        if gatherer.is_full() {
            gatherer.cut(origin, at);
            return Ok(true);
        }
        match record.gap_to {
            Some(to) => {
                let bytes = to.saturating_sub(record.offset);
                gatherer.gap(origin, at, bytes, &record.gap_reason);
            }
            None => gatherer.chunk(origin, at, &record.data),
        }
    }
    Ok(false)
}

/// Returns the log records of all attempts of a run, in plan order; each names its cell.
pub async fn records(mut client: Client, run: &RunId) -> Result<Streaming<LogRecord>, CliError> {
    let request = LogsRequest {
        run_id: run.to_string(),
        ..LogsRequest::default()
    };
    let answer = client.logs(request).await;
    let answer = answer.map_err(|status| match status.code() {
        // An earlier version looks for a cell without a name.
        Code::InvalidArgument | Code::NotFound => {
            CliError::errored("the coordinator can't send the logs of a whole run")
                .with_help("update it to this version of Phalanx")
                .explained_by(ErrorCode::OldCoordinator)
        }
        _ => status.into(),
    })?;
    Ok(answer.into_inner())
}
