//! Why the cells of a run wait, in the coordinator's own words, and when the run is expected to finish.
//!
//! The journal doesn't say it, since it depends on all other runs and agents. So it has no position, and pages of the
//! past don't show it.

use crate::access::Caller;
use crate::access::core::Scope;
use crate::dispatch::logs::store::LogStore;
use crate::serve::api::why;
use crate::supervisor::Handle;
use phalanx_proto::v1;
use phalanx_shared::id::RunId;

/// Cells that wait for the same reasons.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The constraints that hold them back.
    pub reasons: Vec<String>,
    /// Ids of the cells; of very many only the first.
    pub cells: Vec<String>,
    /// Number of the cells.
    pub count: usize,
}

/// What is known of a run now and not from its journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waits {
    /// When the run is expected to finish, in words.
    pub expected: Option<String>,
    /// Cells by their reasons.
    pub groups: Vec<Group>,
    /// Problems of the coordinator.
    pub problems: Vec<String>,
}

impl From<v1::WaitingResponse> for Waits {
    fn from(answer: v1::WaitingResponse) -> Waits {
        let v1::WaitingResponse { groups, problems } = answer;
        let groups = groups.into_iter().map(|group| Group {
            reasons: group.reasons,
            count: usize::try_from(group.count).unwrap_or(usize::MAX),
            cells: group.cells,
        });
        Waits {
            expected: None,
            groups: groups.collect(),
            problems,
        }
    }
}

/// Asks the coordinator. Returns `None` if it doesn't answer.
pub async fn ask(handle: &Handle, logs: &LogStore, run: &RunId) -> Option<Waits> {
    let request = v1::WaitingRequest {
        run_id: run.to_string(),
    };
    // Whoever watches the run's page was allowed to see the run.
    let caller = Caller::machine(Scope::All);
    let answer = why::waiting(handle, &caller, logs, request).await.ok()?;
    Some(answer.into())
}
