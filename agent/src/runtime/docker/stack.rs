//! Implements the runtime contract's stack for the containers of one attempt.

use super::attempt::Attempt;
use super::close;
use crate::runtime::contract::{Closed, Fault, Member, Prepared, RuntimeError, Stack};
use crate::sink::LogSink;
use async_trait::async_trait;
use phalanx_shared::language::service::ServiceConfig;
use std::sync::Arc;
use std::time::Duration;

/// The caller's handle of an attempt's stack.
pub(super) struct Hold(pub Arc<Attempt>);

#[async_trait]
impl Stack for Hold {
    async fn prepare(&self, config: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError> {
        self.0.prepare(config).await
    }

    async fn create(
        &self,
        config: &ServiceConfig,
        logs: LogSink,
    ) -> Result<Arc<dyn Member>, RuntimeError> {
        let making = self.0.clone().make(config.clone(), logs);
        match self.0.tasks.spawn(making).await {
            Ok(answer) => answer,
            Err(error) => {
                let why = format!("create ended by a bug in Phalanx: {error}");
                Err(RuntimeError::of(&config.name, Fault::Misuse, why))
            }
        }
    }

    async fn close(&self, grace: Duration, keep: Option<Duration>) -> Closed {
        close::close(self.0.clone(), grace, keep).await
    }
}
