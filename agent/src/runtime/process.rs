//! Services as host processes.
//!
//! ```text
//! agent ──asks for a warden──▶ fork server ──forks──▶ warden
//! agent ──orders/reports (socket)──▶ warden ──spawns──▶ service ──▶ any descendants
//!   ▲                                  └── adopts every orphan, kills all when the service ends or the agent is gone
//!   └──────────── stdout, stderr (pipes) ─────────────┘
//! ```
//! * [`warden`]: the process in between, and the fork server. `guarded` and `fork_server`: the agent's ends of them.
//! * `stack`, `member`, `life`: the implementation of the contract. `host`: environment, directory, commands next to
//!   the services.
//! * `wardens`: the wardens that have not reported their end yet. `marker`, `reap`: find by their environment the
//!   processes that are left when even the warden was killed.
//!
//! A service inherits the agent's environment (without `PHALANX_*`) and runs in the workspace. Its ports are on
//! 127.0.0.1. When its first process exits, its descendants are killed, as in a container. Linux only (subreaper,
//! pidfd, `/proc`).

mod copy;
mod fork_server;
mod guarded;
mod health;
mod host;
mod kept;
mod life;
mod marker;
mod member;
mod output;
mod ports;
mod reap;
mod signal;
mod spawn;
mod stack;
pub mod warden;
mod wardens;
mod wire;

use fork_server::ForkServer;
pub use fork_server::WardenProgram;
pub use stack::ProcessStack;

use crate::clock::Clock;
use crate::runtime::blocking::blocking;
use crate::runtime::contract::{AttemptScope, Closed, Fault, Runtime, RuntimeError, Stack};
use async_trait::async_trait;
pub use kept::KeptNotes;
use phalanx_shared::id::{AgentId, Token};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Creates stacks of host processes for one agent identity.
pub struct ProcessRuntime {
    agent: AgentId,
    fork_server: ForkServer,
    kept: KeptNotes,
    clock: Arc<dyn Clock>,
}

impl ProcessRuntime {
    /// Creates the runtime for the identity that owns this state directory. Wardens are forks of this program (see
    /// [`crate::entry`]).
    pub fn new(agent: AgentId, state_dir: &Path, clock: Arc<dyn Clock>) -> ProcessRuntime {
        ProcessRuntime {
            agent,
            fork_server: ForkServer::new(WardenProgram::default()),
            kept: KeptNotes::new(state_dir),
            clock,
        }
    }

    /// Uses another program as warden: the test binary of a library doesn't answer [`warden::WARDEN_COMMAND`].
    #[must_use]
    pub fn with_warden(mut self, warden: WardenProgram) -> ProcessRuntime {
        self.fork_server = ForkServer::new(warden);
        self
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn kind(&self) -> &'static str {
        "process"
    }

    async fn open(&self, scope: AttemptScope) -> Result<Arc<dyn Stack>, RuntimeError> {
        if scope.agent != self.agent {
            let what = format!(
                "a stack of agent {} was asked of agent {}",
                scope.agent, self.agent
            );
            return Err(RuntimeError::new(Fault::Misuse, what));
        }
        Ok(Arc::new(ProcessStack::new(
            scope,
            self.fork_server.clone(),
            self.kept.clone(),
            self.clock.clone(),
        )))
    }

    async fn reap(&self, live: &HashSet<Token>) -> Result<Closed, RuntimeError> {
        let (agent, live, kept) = (self.agent.clone(), live.clone(), self.kept.clone());
        let now = self.clock.wall();
        Ok(blocking(move || {
            let kept = kept.unexpired(now);
            reap::end_marked(|marker| {
                marker.agent == agent
                    && !live.contains(&marker.token)
                    && !kept.contains(&marker.token)
            })
        })
        .await)
    }

    async fn shutdown(&self) {
        self.fork_server.shutdown().await;
    }
}
