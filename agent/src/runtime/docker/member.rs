//! The container of one service: its state as the engine's answers and events tell it, and what the engine is asked to
//! do with it.
//!
//! `handle` implements the calls of the contract; `start` starts it, `output` forwards its output, `exec` runs commands
//! in it, `copy` copies files.

use super::carried::Carried;
use super::error::{Said, judge, runtime_of, said, status};
use super::govern::Work;
use super::joined::{Interfaces, Joined};
use super::lock::lock;
use super::mounts::Pin;
use super::placing::Placing;
use super::watch::Signals;
use super::{Shared, address, convert};
use crate::runtime::contract::{Addresses, Exit, Fault, RuntimeError};
use crate::sink::LogSink;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, HealthStatusEnum, NetworkConnectRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{KillContainerOptionsBuilder, StopContainerOptionsBuilder};
use phalanx_shared::language::service::ServiceConfig;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Docker's default time between the stop signal and SIGKILL.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A container of a stack.
pub(super) struct Container {
    pub shared: Arc<Shared>,
    pub config: ServiceConfig,
    pub id: String,
    pub interfaces: Interfaces,
    pub logs: LogSink,
    pub signals: Arc<Signals>,
    pub carried: Carried,
    /// How long the health check can take to report unhealthy; `None` without a health check.
    pub health_allows: Option<Duration>,
    pub exits: watch::Sender<Option<Exit>>,
    starts: AtomicU32,
    running: AtomicBool,
    pub paused: AtomicBool,
    pub asked_to_end: AtomicBool,
    pub ended_by_machinery: Mutex<Option<String>>,
    follower: Mutex<Option<tokio::task::JoinHandle<()>>>,
    pub tasks: TaskTracker,
    looking: tokio::sync::Mutex<()>,
    /// Whether the stack is being closed.
    closing: Arc<AtomicBool>,
    /// Sources of its mounts in the workspace.
    pins: Vec<Pin>,
    pub placing: Placing,
    /// What it runs, by digest.
    pub image: Option<String>,
    /// How long its creation and its starts waited for their turns at the engine, in microseconds.
    queued_us: AtomicU64,
}

/// Result of [`Container::look`].
pub(super) enum Seen {
    /// It runs or is paused.
    Running,
    /// It has exited.
    Ended(End),
    /// The engine doesn't know the container any more.
    Gone,
}

/// How a container exited.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub code: i64,
    pub oom: bool,
    /// Unix time in seconds, by the engine's clock.
    pub at: Option<i64>,
}

/// State shared by all containers of a stack.
pub(super) struct OfStack {
    pub interfaces: Interfaces,
    pub tasks: TaskTracker,
    /// Whether the stack is being closed.
    pub closing: Arc<AtomicBool>,
    /// How long the container's creation waited for its turn at the engine.
    pub queued: Duration,
    /// What the container runs, by digest.
    pub image: Option<String>,
    pub placing: Placing,
}

impl Container {
    /// Wraps a container that the engine has created.
    pub fn new(
        shared: Arc<Shared>,
        config: ServiceConfig,
        created: &ContainerInspectResponse,
        logs: LogSink,
        pins: Vec<Pin>,
        stack: OfStack,
    ) -> Arc<Container> {
        let OfStack {
            interfaces,
            tasks,
            closing,
            queued,
            image,
            placing,
        } = stack;
        let id = created.id.clone().unwrap_or_default();
        let signals = Signals::new();
        shared.watch.register(&id, &signals);
        let container = Container {
            shared,
            health_allows: health_allows(created),
            config,
            id,
            interfaces,
            logs,
            signals,
            carried: Carried::default(),
            exits: watch::Sender::new(None),
            starts: AtomicU32::new(0),
            running: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            asked_to_end: AtomicBool::new(false),
            ended_by_machinery: Mutex::new(None),
            follower: Mutex::new(None),
            tasks,
            looking: tokio::sync::Mutex::new(()),
            closing,
            pins,
            placing,
            image,
            queued_us: AtomicU64::new(0),
        };
        container.add_queued(queued);
        Arc::new(container)
    }

    fn add_queued(&self, queued: Duration) {
        let us = u64::try_from(queued.as_micros()).unwrap_or(u64::MAX);
        self.queued_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Returns how long its creation and its starts waited for their turns at the engine.
    pub fn queued(&self) -> Duration {
        Duration::from_micros(self.queued_us.load(Ordering::Relaxed))
    }

    /// Returns the error of an operation on it.
    pub fn error(&self, fault: Fault, why: impl fmt::Display) -> RuntimeError {
        RuntimeError::of(&self.config.name, fault, why)
    }

    /// Converts the engine's answer to an operation on it.
    pub fn engine_error(&self, doing: &str, error: &Error) -> RuntimeError {
        runtime_of(&self.config.name, doing, error)
    }

    fn what(&self, doing: &str) -> String {
        format!("service {}: {doing}", self.config.name)
    }

    /// Asks the engine for the state of the container. Only one call runs at a time, so that an older health verdict
    /// never replaces a newer one.
    pub async fn look(&self) -> Result<Seen, Error> {
        let _turn = self.looking.lock().await;
        let inspected = match self.shared.engine.inspect(&self.id).await {
            Ok(inspected) => inspected,
            Err(error) if status(&error) == Some(404) => return Ok(Seen::Gone),
            Err(error) => return Err(error),
        };
        let state = inspected.state.unwrap_or_default();
        if state.running == Some(true) || state.paused == Some(true) {
            let verdict = state.health.and_then(|health| health.status);
            match verdict {
                Some(HealthStatusEnum::HEALTHY) => self.hear_health(true),
                Some(HealthStatusEnum::UNHEALTHY) => self.hear_health(false),
                _ => {}
            }
            return Ok(Seen::Running);
        }
        let finished = state.finished_at.as_deref().unwrap_or_default();
        Ok(Seen::Ended(End {
            code: state.exit_code.unwrap_or(-1),
            oom: state.oom_killed == Some(true) || self.signals.oom.load(Ordering::Acquire),
            at: finished
                .parse::<jiff::Timestamp>()
                .ok()
                .map(|at| at.as_second()),
        }))
    }

    fn hear_health(&self, healthy: bool) {
        self.signals.health.send_if_modified(|known| {
            let news = *known != Some(healthy);
            *known = Some(healthy);
            news
        });
    }

    /// Prepares its state for the next start, and returns the number of that start.
    pub async fn next_start(&self) -> Result<u32, RuntimeError> {
        if self.runs() {
            return Err(self.error(Fault::Misuse, "started while it runs: stop it first"));
        }
        if let Some(follower) = self.take_follower() {
            // The follower has published the exit and is about to end.
            let _ = follower.await;
        }
        let start = self.starts.fetch_add(1, Ordering::AcqRel) + 1;
        self.exits.send_replace(None);
        self.signals.health.send_replace(None);
        self.signals.oom.store(false, Ordering::Release);
        self.asked_to_end.store(false, Ordering::Release);
        *lock(&self.ended_by_machinery) = None;
        self.paused.store(false, Ordering::Release);
        Ok(start)
    }

    /// Checks that the sources of its mounts are still the ones that were given to the engine.
    pub fn mounts_hold(&self) -> Result<(), RuntimeError> {
        let broken = self.pins.iter().find_map(|pin| pin.holds().err());
        broken.map_or(Ok(()), |why| Err(self.error(Fault::Machine, why)))
    }

    /// Asks the engine to start it, when it is this start's turn.
    pub async fn ask_to_start(&self) -> Result<(), RuntimeError> {
        let turn = self.shared.governor.turn(Work::Start).await;
        self.add_queued(turn.waited());
        if self.closing.load(Ordering::Acquire) {
            let why = "not started, since its stack is being closed";
            return Err(self.error(Fault::Misuse, why));
        }
        let docker = &self.shared.engine.docker;
        self.shared
            .engine
            .ask(|| docker.start_container(&self.id, None))
            .await
            .map_err(|error| {
                let said = start_failure(&error, &self.config);
                judge(&self.what("start"), &said).naming(&self.config.name)
            })
    }

    fn take_follower(&self) -> Option<tokio::task::JoinHandle<()>> {
        lock(&self.follower).take()
    }

    /// Notes that it runs, and then begins to follow it: the follower notes the exit.
    pub fn started(&self, follow: impl FnOnce() -> tokio::task::JoinHandle<()>) {
        self.running.store(true, Ordering::Release);
        let follower = follow();
        *lock(&self.follower) = Some(follower);
    }

    /// Waits up to `limit` for its output to be forwarded, then stops following it.
    pub async fn settle(&self, limit: Duration) {
        if let Some(mut follower) = self.take_follower()
            && tokio::time::timeout(limit, &mut follower).await.is_err()
        {
            follower.abort();
        }
    }

    /// Returns whether it was killed for no known reason while it had a memory limit.
    pub fn may_be_out_of_memory(&self, end: &End) -> bool {
        let limited = self.config.mem_limit.is_some();
        limited && end.code == 137 && !end.oom && !self.asked_to_end.load(Ordering::Acquire)
    }

    /// Publishes an exit. The follower calls this once all output has been forwarded.
    pub fn exited(&self, start: u32, end: End) {
        let exit = Exit {
            code: end.code,
            oom: end.oom,
            start,
        };
        // Exit codes of containers that an engine ended itself; any other code comes from the container.
        let engines = matches!(end.code, 0 | 137 | 143 | 255) && !end.oom;
        let away = end.at.and_then(|at| self.shared.engine.away.at(at));
        let asked = self.asked_to_end.swap(false, Ordering::AcqRel);
        let cause = away
            .filter(|_| engines && !asked)
            .map(|why| self.what(&format!("{why}, and its container ended with it")));
        *lock(&self.ended_by_machinery) = cause;
        self.running.store(false, Ordering::Release);
        self.exits.send_replace(Some(exit));
    }

    pub async fn until_exited(&self) {
        let mut exits = self.exits.subscribe();
        if self.runs() {
            // The sender lives as long as `self`.
            let _ = exits.wait_for(Option::is_some).await;
        }
    }

    pub fn runs(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Stops it: unpauses it, sends its stop signal and kills it after `grace`. Doesn't wait for its output.
    pub async fn ask_to_stop(&self, grace: Option<Duration>) -> Result<(), Error> {
        self.asked_to_end.store(true, Ordering::Release);
        if self.paused.swap(false, Ordering::AcqRel) {
            let _ = self.shared.engine.docker.unpause_container(&self.id).await;
        }
        let own = self.config.stop_grace_ms.map(Duration::from_millis);
        let grace = grace.or(own).unwrap_or(DEFAULT_GRACE);
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let patient = self.shared.engine.patient(grace);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        self.shared
            .engine
            .ask(|| patient.stop_container(&self.id, Some(options.clone())))
            .await
    }

    pub async fn signal(&self, signal: &str) -> Result<(), RuntimeError> {
        let options = KillContainerOptionsBuilder::default()
            .signal(signal)
            .build();
        let docker = &self.shared.engine.docker;
        let sent = self
            .shared
            .engine
            .ask(|| docker.kill_container(&self.id, Some(options.clone())))
            .await;
        match sent {
            Err(error) if status(&error) == Some(409) && !self.runs() => Ok(()),
            // The engine learns of an exit a moment before the agent does.
            Err(error) if Said::NotRunning.is_in(&error) => Ok(()),
            other => other.map_err(|error| self.engine_error(&format!("sending {signal}"), &error)),
        }
    }

    /// Joins its networks but the first, which it has joined from its creation on.
    pub async fn join_further(&self) -> Result<(), RuntimeError> {
        for joined in self.interfaces.networks().iter().skip(1) {
            self.join(joined).await?;
        }
        Ok(())
    }

    /// Joins a network. Succeeds if it is on it already.
    pub async fn join(&self, joined: &Joined) -> Result<(), RuntimeError> {
        let docker = &self.shared.engine.docker;
        let request = || NetworkConnectRequest {
            container: self.id.clone(),
            endpoint_config: Some(convert::endpoint(&self.config, &joined.used)),
        };
        let network = &joined.network.name;
        let engine = &self.shared.engine;
        match engine
            .ask(|| docker.connect_network(network, request()))
            .await
        {
            Err(error) if Said::AlreadyConnected.is_in(&error) => Ok(()),
            other => other.map_err(|error| self.engine_error("connect", &error)),
        }
    }

    /// Leaves a network. Succeeds if it isn't on it.
    pub async fn leave(&self, joined: &Joined) -> Result<(), RuntimeError> {
        let docker = &self.shared.engine.docker;
        let request = || NetworkDisconnectRequest {
            container: self.id.clone(),
            force: Some(false),
        };
        let network = &joined.network.name;
        let engine = &self.shared.engine;
        match engine
            .ask(|| docker.disconnect_network(network, request()))
            .await
        {
            Err(error) if Said::NotConnected.is_in(&error) => Ok(()),
            other => other.map_err(|error| self.engine_error("disconnect", &error)),
        }
    }

    pub async fn where_it_is(&self) -> Result<Addresses, RuntimeError> {
        // Interfaces of another container have its addresses.
        let (mut owner, mut interfaces) = (self.id.as_str(), &self.interfaces);
        while let Interfaces::Of { id, own } = interfaces {
            (owner, interfaces) = (id.as_str(), own);
        }
        let inspected = self
            .shared
            .engine
            .inspect(owner)
            .await
            .map_err(|error| self.engine_error("looking up its address", &error))?;
        let networks: Vec<&str> = interfaces
            .networks()
            .iter()
            .map(|joined| joined.network.name.as_str())
            .collect();
        let host = matches!(interfaces, Interfaces::Host);
        let way = self.shared.way();
        Ok(match host {
            true => address::of_host(&self.config, way),
            false => address::of(&self.config, &inspected, &networks, way),
        })
    }
}

/// Returns the engine's message about a failed start, with the related setting of the service.
fn start_failure(error: &Error, config: &ServiceConfig) -> String {
    let said = said(error);
    let user = config
        .user
        .as_deref()
        .filter(|_| Said::NoSuchUser.is_in(error));
    match user {
        Some(user) => format!("user {user:?} doesn't exist in the image: {said}"),
        None => said,
    }
}

/// Returns the time until the health check of the service or its image can report unhealthy, with Docker's defaults;
/// `None` without a health check.
fn health_allows(created: &ContainerInspectResponse) -> Option<Duration> {
    let check = created.config.as_ref()?.healthcheck.as_ref()?;
    let kind = check.test.as_ref()?.first()?;
    if kind == "NONE" {
        return None;
    }
    let nanos = |value: Option<i64>| value.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let interval = nanos(check.interval).map_or(Duration::from_secs(30), Duration::from_nanos);
    let retries = check.retries.and_then(|n| u32::try_from(n).ok());
    let start = Duration::from_nanos(nanos(check.start_period).unwrap_or(0));
    let all = interval.saturating_mul(retries.filter(|n| *n > 0).unwrap_or(3));
    Some(start.saturating_add(all))
}
