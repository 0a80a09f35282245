//! Rerun: runs cells of a run again, as a new run of the same submission.

use super::submit::NotStarted;
use super::{find, submit};
use crate::access::Caller;
use crate::supervisor::Handle;
use phalanx_proto::v1;
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::RunState;
use phalanx_shared::trace::spans::RERUN_OF;
use std::collections::BTreeSet;
use tonic::Status;

/// Starts a new run of the selected cells.
pub(in crate::serve) async fn rerun(
    handle: &Handle,
    caller: &Caller,
    request: v1::RerunRequest,
) -> Result<v1::SubmitResponse, NotStarted> {
    let v1::RerunRequest {
        run_id,
        failed,
        cells,
        options,
        secrets,
    } = request;
    submit::given(&secrets)?;
    submit::selected(&[], &cells)?;
    let store = handle.journal.store();
    let row = find::run(&**store, caller, &run_id).await?;
    let run = row.new.run;
    if let Some(problem) = row.problem {
        return Err(Status::data_loss(format!("run {run}: {problem}")).into());
    }
    let state = find::state(&**store, &run).await?;
    let mut submission = row.new.submission;
    // The client doesn't send its files again: the plan contains the files that expressions read, and the coordinator
    // keeps the workspace for its runs.
    submission.read = state
        .plan
        .as_ref()
        .map(|plan| plan.files.clone())
        .unwrap_or_default();
    if failed || !cells.is_empty() {
        submission.cells = chosen(&state, failed, &cells)?;
    }
    if let Some(options) = options {
        submit::set_options(&mut submission, options)?;
    }
    let origin = &mut submission.origin;
    origin.insert(RERUN_OF.to_owned(), run.to_string().into());
    // A caller of all namespaces runs it again where it was.
    let namespace = row.new.namespace;
    let owner = caller.subject().to_owned();
    let secrets = secrets.into_iter().collect();
    let started = submit::launch(handle, submission, secrets, (namespace, owner)).await?;
    caller.about(format!("run {} of {run}", started.run_id));
    Ok(started)
}

fn chosen(state: &RunState, failed: bool, wanted: &[String]) -> Result<Vec<String>, Status> {
    let plan = state.plan.as_ref();
    let plan = plan.ok_or_else(|| Status::internal("the run has no plan in its journal"))?;
    let wanted: BTreeSet<CellId> = wanted
        .iter()
        .map(|text| find::cell(plan, text))
        .collect::<Result<_, _>>()?;
    let cells = state.cells.iter();
    let chosen: Vec<String> = cells
        .filter(|(id, _)| wanted.is_empty() || wanted.contains(*id))
        .filter(|(_, cell)| !failed || !cell.outcome.is_some_and(|outcome| outcome.is_ok()))
        .map(|(id, _)| id.to_string())
        .collect();
    if chosen.is_empty() {
        return Err(Status::failed_precondition(format!(
            "no cell of run {} failed: there is nothing to run again",
            state.run
        )));
    }
    Ok(chosen)
}
