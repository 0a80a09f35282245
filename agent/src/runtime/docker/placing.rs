//! Keeps steps that copy into the workspace from replacing a mount's source while the engine opens it.

use crate::policy::Policy;
use phalanx_shared::policy::{Need, Refusal, Rule};
use std::sync::Arc;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Starts of an attempt's containers happen together, copies into its workspace alone: `cp` may put a link there. Only
/// agents that protect their host's files need it; with others, copies don't wait for starts.
#[derive(Clone)]
pub(super) struct Placing(Option<Arc<RwLock<()>>>);

impl Placing {
    /// Creates the lock of an attempt.
    pub fn of(policy: &Policy) -> Placing {
        Placing(refusal(policy).map(|_| Arc::default()))
    }

    /// Waits until no copy is going on, and holds copies up.
    pub async fn start(&self) -> Option<OwnedRwLockReadGuard<()>> {
        Some(self.0.clone()?.read_owned().await)
    }

    /// Waits until no container is being started, and holds starts up.
    pub async fn copy(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        Some(self.0.clone()?.write_owned().await)
    }
}

/// Returns why mounts below what other containers may write to are refused, or `None` if they are allowed.
pub(super) fn refusal(policy: &Policy) -> Option<Refusal> {
    policy.refuses(&Need::new(Rule::NestedMounts, ""))
}
