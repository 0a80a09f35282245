//! Lists runs.

use super::status::of_store;
use crate::access::Caller;
use crate::journal::{RunEnd, RunHead, Store};
use crate::run::actor::Look;
use crate::supervisor::{Handle, replay};
use phalanx_proto::convert::outcome_to_wire;
use phalanx_proto::v1;
use phalanx_shared::id::RunId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::Counts;
use tonic::Status;

const DEFAULT_LIMIT: u32 = 100;
const LIMIT: u32 = 10_000;

/// Returns the runs that a caller sees, newest first.
pub(in crate::serve) async fn list_runs(
    handle: &Handle,
    caller: &Caller,
    request: v1::ListRunsRequest,
) -> Result<v1::ListRunsResponse, Status> {
    let v1::ListRunsRequest { limit, open } = request;
    let limit = if limit == 0 {
        DEFAULT_LIMIT
    } else {
        limit.min(LIMIT)
    };
    let store = handle.journal.store();
    let rows = store.runs(limit, open, caller.only()).await;
    let mut runs = Vec::new();
    for row in rows.map_err(of_store)? {
        // "Settled" includes clean-up, but a client asks for runs without an outcome.
        if !(open && row.end.is_some()) {
            runs.push(summary(handle, row).await);
        }
    }
    Ok(v1::ListRunsResponse { runs })
}

/// Returns the summary of a run. If a part can't be read, the summary names the problem; other runs aren't affected.
async fn summary(handle: &Handle, row: RunHead) -> v1::RunSummary {
    let RunHead {
        run,
        namespace,
        submitted,
        spec,
        digest,
        cells,
        end,
        settled: _,
        problem,
    } = row;
    let mut problem = handle.registry.parked(&run).or(problem);
    let (counts, finished, outcome, cancel) = match end {
        Some(RunEnd {
            finished,
            outcome,
            counts,
            cancel,
        }) => (counts, Some(finished), Some(outcome), cancel),
        None => {
            let actor = handle.registry.get(&run).map(|run| run.actor);
            let glance = match actor {
                Some(actor) => actor.ask(Look).await.ok(),
                None => None,
            };
            let (counts, cancel) = match glance {
                Some(glance) => (glance.counts, glance.cancel),
                None => cut_off(&**handle.journal.store(), &run)
                    .await
                    .unwrap_or_else(|error| {
                        problem.get_or_insert(error);
                        (Counts::default(), None)
                    }),
            };
            (counts, None, None, cancel)
        }
    };
    v1::RunSummary {
        run_id: run.to_string(),
        namespace: namespace.into(),
        spec,
        submitted_us: submitted.0,
        finished_us: finished.map(|at| at.0),
        outcome: outcome_to_wire(outcome).into(),
        cells,
        running: counts.running,
        queued: counts.queued,
        counts: by_outcome(counts),
        cancel,
        plan_digest: digest,
        problem: problem.unwrap_or_default(),
    }
}

/// Returns the counts of an open run without an actor, because its program was killed. Cells that run according to the
/// journal no longer do: they wait until the run is resumed.
async fn cut_off(store: &dyn Store, run: &RunId) -> Result<(Counts, Option<String>), String> {
    let (state, _) = replay(store, run).await.map_err(|e| e.to_string())?;
    let mut counts = state.counts();
    counts.queued += std::mem::take(&mut counts.running);
    Ok((counts, state.cancel))
}

fn by_outcome(counts: Counts) -> Vec<v1::OutcomeCount> {
    let Counts {
        total: _,
        queued: _,
        running: _,
        passed,
        flaky,
        skipped,
        cancelled,
        failed,
        errored,
    } = counts;
    let all = [
        (Outcome::Passed, passed),
        (Outcome::Flaky, flaky),
        (Outcome::Skipped, skipped),
        (Outcome::Cancelled, cancelled),
        (Outcome::Failed, failed),
        (Outcome::Errored, errored),
    ];
    let some = all.into_iter().filter(|(_, cells)| *cells > 0);
    some.map(|(outcome, cells)| v1::OutcomeCount {
        outcome: outcome_to_wire(Some(outcome)).into(),
        cells,
    })
    .collect()
}
