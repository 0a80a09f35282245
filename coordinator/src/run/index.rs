//! Which open runs may hold attempts of an agent. So only these are asked when the agent connects, however many runs are
//! open.

use phalanx_shared::id::{AgentId, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// For each agent, the open runs that ever offered it an attempt. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AgentsOfRuns(Arc<Mutex<BTreeMap<AgentId, BTreeSet<RunId>>>>);

impl AgentsOfRuns {
    fn inner(&self) -> MutexGuard<'_, BTreeMap<AgentId, BTreeSet<RunId>>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an agent may hold attempts of a run. Runs call this before they make an offer.
    pub fn holds(&self, agent: &AgentId, run: &RunId) {
        let mut inner = self.inner();
        match inner.get_mut(agent) {
            Some(runs) if runs.contains(run) => {}
            Some(runs) => {
                runs.insert(run.clone());
            }
            None => {
                inner.insert(agent.clone(), [run.clone()].into());
            }
        }
    }

    /// Returns the runs that may hold attempts of an agent.
    pub fn of(&self, agent: &AgentId) -> BTreeSet<RunId> {
        self.inner().get(agent).cloned().unwrap_or_default()
    }

    /// Removes a run that is over.
    pub fn forget(&self, run: &RunId) {
        self.inner().retain(|_, runs| {
            runs.remove(run);
            !runs.is_empty()
        });
    }
}
