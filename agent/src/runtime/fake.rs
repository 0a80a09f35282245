//! A fake runtime, scripted by data ([`script`]), for tests of the code above the contract.
//!
//! It checks its callers: each call that the contract forbids is recorded as a violation ([`FakeRuntime::violations`])
//! for the test to assert on at its end. It only uses tokio's clock, so that paused time works.

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

/// The fake runtime. Cheap to clone: all clones share the script and the record.
#[derive(Clone)]
pub struct FakeRuntime {
    script: Arc<Script>,
    record: Arc<Record>,
}

impl FakeRuntime {
    /// Creates a runtime that follows the script.
    pub fn new(script: Script) -> FakeRuntime {
        FakeRuntime {
            script: Arc::new(script),
            record: Arc::default(),
        }
    }

    /// Returns all contract violations, oldest first. A stack that is still open is only reported once it is dropped.
    pub fn violations(&self) -> Vec<String> {
        self.record.violations()
    }

    /// Returns all calls in order, as `open r/c#1@1`, `create db`, `start db`, `close`, ….
    pub fn calls(&self) -> Vec<String> {
        self.record.calls()
    }

    /// Returns the attempts whose stack is open.
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
