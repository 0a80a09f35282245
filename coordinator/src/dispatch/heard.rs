//! When each agent last sent a message. Sessions write it with every message; the agent list reads it.

use phalanx_shared::id::AgentId;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Time of the last message of each agent since the coordinator started. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<BTreeMap<AgentId, Timestamp>>>);

impl Heard {
    /// Records a message from an agent.
    pub fn note(&self, agent: &AgentId, now: Timestamp) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.get_mut(agent) {
            Some(at) => *at = now,
            None => {
                heard.insert(agent.clone(), now);
            }
        }
    }

    /// Returns when the last message arrived; none if there was none since the start.
    pub fn last(&self, agent: &AgentId) -> Option<Timestamp> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(agent).copied()
    }

    /// Removes an agent that the coordinator has forgotten.
    pub fn forget(&self, agent: &AgentId) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.remove(agent);
    }
}
