//! A runtime that only pretends, steered by data ([`script`]), for tests of what stands above the contract.
//!
//! It objects to misuse rather than agree with everything: each call that the contract forbids is kept as a violation
//! ([`FakeRuntime::violations`]) that a test reads at its end. It uses tokio's clock only, so that paused time works.

mod member;
mod record;
pub mod script;
mod stack;

use crate::runtime::contract::{AttemptScope, Closed, Runtime, RuntimeError, Stack};
use async_trait::async_trait;
use phalanx_shared::id::Token;
use record::Record;
use script::Script;
use stack::FakeStack;
use std::collections::HashSet;
use std::sync::Arc;

/// The fake. Cheap to clone: all clones share script and record.
#[derive(Clone)]
pub struct FakeRuntime {
    script: Arc<Script>,
    record: Arc<Record>,
}

impl FakeRuntime {
    /// One that does what the script says.
    pub fn new(script: Script) -> FakeRuntime {
        FakeRuntime {
            script: Arc::new(script),
            record: Arc::default(),
        }
    }

    /// What was done that the contract forbids, oldest first. Stacks that are still open count once they are dropped.
    pub fn violations(&self) -> Vec<String> {
        self.record.violations()
    }

    /// All calls, as `open r/c#1@1`, `create db`, `start db`, `close`, …, in the order in which they came.
    pub fn calls(&self) -> Vec<String> {
        self.record.calls()
    }

    /// The attempts whose stack is open.
    pub fn open_stacks(&self) -> HashSet<Token> {
        self.record.open_stacks()
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn kind(&self) -> &'static str {
        "fake"
    }

    async fn open(&self, scope: AttemptScope) -> Result<Arc<dyn Stack>, RuntimeError> {
        self.record.call(format!("open {}", scope.token));
        tokio::time::sleep(self.script.open_delay).await;
        if let Some(error) = &self.script.open_error {
            return Err(error.clone());
        }
        self.record.opened(&scope.token);
        let stack = FakeStack::new(scope.token, self.script.clone(), self.record.clone());
        Ok(Arc::new(stack))
    }

    async fn reap(&self, live: &HashSet<Token>) -> Result<Closed, RuntimeError> {
        self.record.call("reap".to_owned());
        for token in self.record.open_stacks().difference(live) {
            self.record
                .violation(format!("reap while {token} is open but not among the live"));
        }
        Ok(self.script.reaped.clone())
    }

    async fn shutdown(&self) {
        self.record.call("shutdown".to_owned());
        self.record.shut_down();
    }
}
