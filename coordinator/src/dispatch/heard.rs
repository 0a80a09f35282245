//! When each agent was heard of last. Written with every message of an agent, read by whoever lists agents.

use phalanx_shared::id::AgentId;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The last message of each agent since the start. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<BTreeMap<AgentId, Timestamp>>>);

impl Heard {
    /// A message came.
    pub fn note(&self, agent: &AgentId, now: Timestamp) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.get_mut(agent) {
            Some(at) => *at = now,
            None => {
                heard.insert(agent.clone(), now);
            }
        }
    }

    /// When the last one came.
    pub fn last(&self, agent: &AgentId) -> Option<Timestamp> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(agent).copied()
    }

    /// An agent that nobody remembers any more.
    pub fn forget(&self, agent: &AgentId) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.remove(agent);
    }
}
