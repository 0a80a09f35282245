//! Returns what a run was made from, for exports and for running one of its cells elsewhere.

use super::find;
use crate::access::Caller;
use crate::journal::Submission;
use crate::supervisor::Handle;
use phalanx_proto::v1;
use phalanx_shared::plan::SnapshotUse;
use serde_json::Value;
use tonic::Status;

/// Returns a run's submission. It contains names of secrets only.
pub(super) async fn get(
    handle: &Handle,
    caller: &Caller,
    request: v1::GetSubmissionRequest,
) -> Result<v1::GetSubmissionResponse, Status> {
    let row = find::run(&**handle.journal.store(), caller, &request.run_id).await?;
    if let Some(problem) = row.problem {
        return Err(Status::data_loss(format!("run {}: {problem}", row.new.run)));
    }
    Ok(v1::GetSubmissionResponse {
        submission: Some(to_wire(row.new.submission)),
    })
}

fn to_wire(submission: Submission) -> v1::SubmitRequest {
    let Submission {
        files,
        inputs,
        only,
        cells,
        keep,
        fail_fast,
        max_parallel,
        priority,
        // It belongs to that run's trace.
        traceparent: _,
        // The plan holds these files.
        read: _,
        workspace_digest,
        images,
        snapshots,
        origin,
    } = submission;
    v1::SubmitRequest {
        files: files.into_iter().map(Into::into).collect(),
        inputs_json: Value::Object(inputs).to_string().into_bytes(),
        only,
        cells,
        options: Some(v1::Options {
            keep: Some(keep.into()),
            fail_fast,
            max_parallel,
            priority: Some(priority),
            snapshots: match snapshots {
                SnapshotUse::Use => v1::SnapshotUse::Unspecified,
                SnapshotUse::Never => v1::SnapshotUse::Never,
                SnapshotUse::Refresh => v1::SnapshotUse::Refresh,
            }
            .into(),
            ..v1::Options::default()
        }),
        workspace_digest: workspace_digest.unwrap_or_default(),
        images: images.into_iter().collect(),
        origin_json: Value::Object(origin).to_string().into_bytes(),
        ..v1::SubmitRequest::default()
    }
}
