//! Implements the runtime contract's member for a container.

use super::error::Said;
use super::hooks;
use super::joined::Joined;
use super::lock::lock;
use super::member::Container;
use super::start::start;
use super::summary;
use crate::beneath::Place;
use crate::runtime::contract::{
    Addresses, ExecOutput, ExecRequest, Exit, Fault, Member, RuntimeError,
};
use crate::runtime::gather::Gather;
use crate::runtime::search::{FoundFile, Search};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// The caller's handle of a container.
pub(super) struct Handle(pub Arc<Container>);

impl Handle {
    /// Returns its networks, or an error if it has none of its own.
    fn networks(&self, verb: &str) -> Result<&[Joined], RuntimeError> {
        let networks = self.0.interfaces.networks();
        match networks.is_empty() {
            true => {
                let why = format!("can't {verb} it: it has a `network_mode` and no networks");
                Err(self.0.error(Fault::Unsupported, why))
            }
            false => Ok(networks),
        }
    }
}

#[async_trait]
impl Member for Handle {
    async fn start(&self) -> Result<Addresses, RuntimeError> {
        // Runs in its own task: a dropped call must not leave a start that `close` doesn't know of.
        let container = self.0.clone();
        match self.0.tasks.spawn(start(container)).await {
            Ok(answer) => answer,
            Err(error) => {
                let why = format!("start ended by a bug in Phalanx: {error}");
                Err(self.0.error(Fault::Misuse, why))
            }
        }
    }

    async fn post_start(&self) -> Result<(), RuntimeError> {
        hooks::post_start(&self.0).await
    }

    fn queued(&self) -> Duration {
        self.0.queued()
    }

    fn image(&self) -> Option<String> {
        self.0.image.clone()
    }

    fn exits(&self) -> watch::Receiver<Option<Exit>> {
        self.0.exits.subscribe()
    }

    fn ended_by_machinery(&self) -> Option<String> {
        lock(&self.0.ended_by_machinery).clone()
    }

    fn health(&self) -> watch::Receiver<Option<bool>> {
        self.0.signals.health.subscribe()
    }

    fn has_healthcheck(&self) -> bool {
        self.0.health_allows.is_some()
    }

    fn health_allows(&self) -> Option<Duration> {
        self.0.health_allows
    }

    async fn last_probe(&self) -> Option<String> {
        summary::last_probe(&self.0).await
    }

    async fn addresses(&self) -> Result<Addresses, RuntimeError> {
        self.0.where_it_is().await
    }

    async fn stop(&self, grace: Option<Duration>) -> Result<(), RuntimeError> {
        if !self.0.runs() {
            return Ok(());
        }
        hooks::pre_stop(&self.0).await?;
        self.0
            .ask_to_stop(grace)
            .await
            .map_err(|error| self.0.engine_error("stop", &error))?;
        self.0.until_exited().await;
        Ok(())
    }

    async fn kill(&self, signal: String) -> Result<(), RuntimeError> {
        if !self.0.runs() {
            return Ok(());
        }
        let deadly = matches!(signal.as_str(), "SIGKILL" | "KILL" | "9");
        self.0.asked_to_end.store(true, Ordering::Release);
        if deadly && self.0.paused.load(Ordering::Acquire) {
            self.unpause().await?;
        }
        self.0.signal(&signal).await?;
        if deadly {
            self.0.until_exited().await;
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), RuntimeError> {
        let docker = &self.0.shared.engine.docker;
        self.0.paused.store(true, Ordering::Release);
        let engine = &self.0.shared.engine;
        match engine.ask(|| docker.pause_container(&self.0.id)).await {
            Err(error) if Said::AlreadyPaused.is_in(&error) => Ok(()),
            other => other.map_err(|error| self.0.engine_error("pause", &error)),
        }
    }

    async fn unpause(&self) -> Result<(), RuntimeError> {
        let docker = &self.0.shared.engine.docker;
        self.0.paused.store(false, Ordering::Release);
        let engine = &self.0.shared.engine;
        match engine.ask(|| docker.unpause_container(&self.0.id)).await {
            Err(error) if Said::NotPaused.is_in(&error) => Ok(()),
            other => other.map_err(|error| self.0.engine_error("unpause", &error)),
        }
    }

    async fn disconnect(&self) -> Result<(), RuntimeError> {
        for joined in self.networks("disconnect")? {
            self.0.leave(joined).await?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(), RuntimeError> {
        for joined in self.networks("connect")? {
            self.0.join(joined).await?;
        }
        Ok(())
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        super::exec::run(&self.0, request).await
    }

    async fn copy_in(&self, from: Place, to: String) -> Result<(), RuntimeError> {
        super::copy::copy_in(&self.0, from, to).await
    }

    async fn copy_out(&self, from: String, to: Place) -> Result<(), RuntimeError> {
        super::copy::copy_out(&self.0, from, to).await
    }

    async fn find(&self, search: Search) -> Result<Vec<FoundFile>, RuntimeError> {
        super::find::find(&self.0, search).await
    }

    async fn gather(&self, gather: Gather) -> Result<(), RuntimeError> {
        super::gather::gather(&self.0, gather).await
    }

    async fn inspect(&self) -> Vec<String> {
        summary::of(&self.0).await
    }
}
