//! The pages that belong to no single run: the list of runs, and the agents with the queue.
//!
//! They show what the coordinator says now, once a second while somebody watches, and have no past.

use super::board::{Board, Region};
use super::pages::{agents, runs};
use super::problem::Problem;
use super::shelf::Shelf;
use super::watched::{Rendered, Watched};
use crate::access::Caller;
use crate::access::core::Scope;
use crate::serve::api::{agents as api_agents, list};
use crate::supervisor::Handle;
use axum::http::StatusCode;
use phalanx_proto::v1;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Maximum number of lists that are watched at once; there are two kinds for each namespace.
const LISTS: usize = 64;
/// Runs on the list.
const RUNS: u32 = 200;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Runs,
    Agents,
}

/// A list as some callers see it.
#[derive(Clone, Debug)]
pub struct List {
    /// Which list.
    pub kind: Kind,
    /// One of those who see it.
    pub caller: Caller,
    /// Whether the agents' page offers to drain them.
    pub drains: bool,
}

impl List {
    /// Returns what distinguishes lists that look different.
    fn key(&self) -> Key {
        (self.kind, self.caller.scope().clone(), self.drains)
    }
}

type Key = (Kind, Scope, bool);

/// The lists that are being watched.
pub struct Lists {
    handle: Handle,
    watched: Mutex<Shelf<Key, Watched>>,
}

impl Lists {
    /// Creates the lists of a coordinator.
    pub fn new(handle: Handle) -> Lists {
        Lists {
            handle,
            watched: Mutex::new(Shelf::new(LISTS)),
        }
    }

    fn watched(&self) -> MutexGuard<'_, Shelf<Key, Watched>> {
        // Nothing panics while it is locked.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a list as it is now.
    pub async fn now(&self, list: &List) -> Result<Board, Problem> {
        Ok(Board::new(0, regions(&self.handle, list).await?))
    }

    /// Returns a list that is rendered while it is held.
    pub async fn watch(&self, list: List) -> Result<Arc<Watched>, Problem> {
        let now = self.handle.clock.monotonic();
        if let Some(watched) = self.watched().get(&list.key(), now) {
            return Ok(watched);
        }
        let first = regions(&self.handle, &list).await?;
        let (handle, key) = (self.handle.clone(), list.key());
        // Greater than every number before a restart, so that a browser that connects again gets everything.
        let begin = Rendered {
            seq: u64::try_from(self.handle.clock.wall().0)
                .unwrap_or(1)
                .max(1),
            over: false,
        };
        let watched = Watched::begin(begin, first, |brush| async move {
            loop {
                tokio::time::sleep(EVERY).await;
                // What can't be read at the moment stays as it was.
                if let Ok(regions) = regions(&handle, &list).await {
                    brush.paint_next(regions);
                }
            }
        });
        let put = self.watched().put(key, watched, now);
        put.ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "reload the page"))
    }

    /// Removes what nobody watches any more.
    pub fn sweep(&self) {
        let now = self.handle.clock.monotonic();
        let gone = self.watched().sweep(now);
        drop(gone);
    }
}

async fn regions(handle: &Handle, list: &List) -> Result<Vec<Region>, Problem> {
    let caller = &list.caller;
    Ok(match list.kind {
        Kind::Runs => {
            let request = v1::ListRunsRequest {
                limit: RUNS,
                open: false,
            };
            let runs = list::list_runs(handle, caller, request).await?.runs;
            runs::regions(&runs)
        }
        Kind::Agents => {
            let agents = api_agents::list(handle, caller).await?.agents;
            let request = v1::ListRunsRequest {
                limit: RUNS,
                open: true,
            };
            let open = list::list_runs(handle, caller, request).await?.runs;
            agents::regions(&agents, &open, list.drains)
        }
    })
}
