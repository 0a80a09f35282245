//! Implements the runtime contract's stack for the containers of one attempt.

use super::attempt::Attempt;
use super::{close, snapshot};
use crate::runtime::contract::{
    Closed, Fault, Member, Prepared, RuntimeError, SaveOrder, Saved, Stack,
};
use crate::sink::LogSink;
use async_trait::async_trait;
use phalanx_shared::language::service::ServiceConfig;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The caller's handle of an attempt's stack.
pub(super) struct Hold(pub Arc<Attempt>);

#[async_trait]
impl Stack for Hold {
    fn queued(&self) -> Duration {
        self.0.networks.first.queued()
    }

    async fn prepare(&self, config: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError> {
        self.0.prepare(config).await
    }

    fn preparing(&self, service: &str) -> Option<String> {
        self.0.preparing(service)
    }

    fn notes(&self, config: &ServiceConfig) -> Vec<String> {
        self.0.notes(config)
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

    async fn image_id(&self, config: &ServiceConfig) -> Result<Option<String>, RuntimeError> {
        self.0.image_id(config).await.map(Some)
    }

    async fn save(&self, order: SaveOrder) -> Result<Saved, RuntimeError> {
        snapshot::save(&self.0, order).await
    }

    async fn restore(&self, saved: &Saved, from: PathBuf) -> Result<(), RuntimeError> {
        // Runs in its own task: `close` waits for volumes whose creation a dropped call had begun.
        let restoring = snapshot::restore(self.0.clone(), saved.clone(), from);
        match self.0.tasks.spawn(restoring).await {
            Ok(answer) => answer,
            Err(error) => Err(RuntimeError::new(
                Fault::Misuse,
                format!("restoring a snapshot ended by a bug in Phalanx: {error}"),
            )),
        }
    }

    async fn discard(&self, services: &[String]) -> Result<(), RuntimeError> {
        snapshot::discard(&self.0, services).await
    }

    async fn close(&self, grace: Duration, keep: Option<Duration>) -> Closed {
        close::close(self.0.clone(), grace, keep).await
    }
}
