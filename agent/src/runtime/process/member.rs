//! One host process: its starts, its output and its end.
//!
//! Each start has its own warden and its own task, which forwards the output and reports how the process ended.

use super::copy;
use super::guarded::{self, Guarded, Refused};
use super::health::Check;
use super::host::AttemptHost;
use super::life::{Definition, Followed, Shared};
use super::ports::Ports;
use super::wire::{Ending, Order, Start};
use crate::beneath::Place;
use crate::procfs;
use crate::runtime::contract::{
    Addresses, ExecOutput, ExecRequest, Exit, Fault, Member, RuntimeError, SignalName,
};
use crate::runtime::gather::Gather;
use crate::runtime::search::{FoundFile, Pattern, Search};
use crate::sink::LogSink;
use async_trait::async_trait;
use nix::sys::signal::Signal;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Time from SIGKILL until all processes have ended, unless one hangs in the kernel.
const KILL_TIME: Duration = Duration::from_secs(10);
/// Time for the log receiver to take the remaining output, once everything is dead and the stack is closing.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A host process that implements the [`Member`] contract.
pub struct ProcessMember {
    shared: Arc<Shared>,
    ports: Arc<Ports>,
}

/// What is left of a process that was to be stopped permanently.
#[derive(Debug, thiserror::Error)]
pub enum Left {
    /// It lives.
    #[error("process of {0}: it does not die of SIGKILL")]
    Alive(String),
    /// It ended, but not all of its output was read.
    #[error("process of {0}: the rest of its output was not read")]
    Output(String),
}

impl ProcessMember {
    pub(super) fn new(
        host: Arc<AttemptHost>,
        ports: Arc<Ports>,
        definition: Definition,
        logs: LogSink,
    ) -> ProcessMember {
        let shared = Shared {
            host,
            definition,
            logs,
            life: tokio::sync::Mutex::default(),
            exits: watch::Sender::new(None),
            gone: watch::Sender::new(true),
            health: watch::Sender::new(None),
            last_probe: watch::Sender::new(None),
        };
        ProcessMember {
            shared: Arc::new(shared),
            ports,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.definition.name
    }

    /// Stops it permanently.
    pub(super) async fn close(&self, grace: Duration) -> Result<(), Left> {
        self.shared.life.lock().await.closed = true;
        let grace = grace.min(self.shared.definition.stop_grace);
        let name = self.name();
        if !self.ask_to_stop(grace).await {
            return Err(Left::Alive(name.to_owned()));
        }
        let ran = self.shared.life.lock().await.starts > 0;
        if ran && timeout(DRAIN_TIME, self.exited()).await.is_err() {
            return Err(Left::Output(name.to_owned()));
        }
        Ok(())
    }

    /// Lets it live for `ttl`, even without the agent.
    pub(super) async fn keep(&self, ttl: Duration) {
        let mut life = self.shared.life.lock().await;
        life.closed = true;
        if let Some(mut orders) = life.orders.take() {
            let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            orders.give(&Order::Keep(ms)).await;
        }
    }

    /// Sends the stop signal, waits for `grace`, then sends SIGKILL. Returns false if something still lives.
    async fn ask_to_stop(&self, grace: Duration) -> bool {
        let signal = self.shared.definition.stop_signal;
        if !self.shared.order(Order::Signal(signal as i32)).await {
            return true;
        }
        if std::mem::take(&mut self.shared.life.lock().await.paused) {
            self.shared.order(Order::Unpause).await;
        }
        if timeout(grace, self.gone()).await.is_ok() {
            return true;
        }
        self.shared.order(Order::Kill).await;
        timeout(KILL_TIME, self.gone()).await.is_ok()
    }

    async fn gone(&self) {
        let _ = self.shared.gone.subscribe().wait_for(|gone| *gone).await;
    }

    async fn exited(&self) {
        let _ = self
            .shared
            .exits
            .subscribe()
            .wait_for(Option::is_some)
            .await;
    }

    /// Sends an order that only makes sense while the process runs. Returns an error if it doesn't.
    async fn order_running(&self, what: &str, order: Order) -> Result<(), RuntimeError> {
        if self.shared.order(order).await {
            return Ok(());
        }
        Err(self.error(Fault::State, format!("can't {what}: it is not running")))
    }

    fn error(&self, fault: Fault, why: impl fmt::Display) -> RuntimeError {
        RuntimeError::of(self.name(), fault, why)
    }

    fn has_no_network(&self) -> RuntimeError {
        let why = "a host process has no network of its own to be taken off: stop or pause it, or make it a container";
        self.error(Fault::Unsupported, why)
    }

    fn now(&self) -> Addresses {
        Addresses {
            host: Ipv4Addr::LOCALHOST.to_string(),
            ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ipv6: None,
            ports: self.shared.definition.addresses.clone(),
        }
    }

    fn start_order(&self, ports: Vec<u16>) -> Start {
        let definition = &self.shared.definition;
        Start {
            command: definition.command.clone(),
            env: definition.env.clone(),
            workdir: definition.workdir.clone(),
            stdin: None,
            user: None,
            ports,
            limits: crate::limits::SoftLimits::first(),
            marker: self.shared.host.marker(&definition.name),
        }
    }
}

#[async_trait]
impl Member for ProcessMember {
    async fn start(&self) -> Result<Addresses, RuntimeError> {
        let shared = &self.shared;
        let mut life = shared.life.lock().await;
        if life.closed {
            return Err(self.error(Fault::Misuse, "the stack is closed"));
        }
        if life.orders.is_some() {
            return Err(self.error(Fault::State, "it is running already"));
        }
        let ports = self.ports.hand_over(self.name());
        let guarded = guarded::start(
            &shared.host.fork_server,
            &shared.host.wardens,
            self.start_order(ports),
        )
        .await;
        let Guarded {
            pid,
            orders,
            end,
            stdout,
            stderr,
        } = guarded.map_err(|refused| match refused {
            Refused::Command { message, .. } => self.error(Fault::Command, message),
            Refused::Machine(message) => RuntimeError::new(Fault::Machine, message),
        })?;
        // No await from here on: a start must always get its task.
        life.starts += 1;
        life.pid = pid;
        life.orders = Some(orders);
        life.ending = None;
        shared.exits.send_replace(None);
        shared.health.send_replace(None);
        shared.last_probe.send_replace(None);
        shared.gone.send_replace(false);
        let parts = Followed {
            end,
            stdout,
            stderr,
        };
        tokio::spawn(shared.clone().follow(life.starts, parts));
        Ok(self.now())
    }

    fn exits(&self) -> watch::Receiver<Option<Exit>> {
        self.shared.exits.subscribe()
    }

    fn health(&self) -> watch::Receiver<Option<bool>> {
        self.shared.health.subscribe()
    }

    fn has_healthcheck(&self) -> bool {
        self.shared.definition.check.is_some()
    }

    fn health_allows(&self) -> Option<Duration> {
        self.shared.definition.check.as_ref().map(Check::allows)
    }

    async fn last_probe(&self) -> Option<String> {
        self.shared.last_probe.borrow().clone()
    }

    async fn addresses(&self) -> Result<Addresses, RuntimeError> {
        Ok(self.now())
    }

    async fn stop(&self, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let grace = grace.unwrap_or(self.shared.definition.stop_grace);
        if !self.ask_to_stop(grace).await {
            return Err(self.error(Fault::Machine, "does not die of SIGKILL"));
        }
        if self.shared.life.lock().await.starts > 0 {
            self.exited().await;
        }
        Ok(())
    }

    async fn kill(&self, signal: SignalName) -> Result<(), RuntimeError> {
        let signal = super::signal::parse(&signal)?;
        if signal == Signal::SIGKILL {
            return self.stop(Some(Duration::ZERO)).await;
        }
        self.shared.order(Order::Signal(signal as i32)).await;
        Ok(())
    }

    async fn pause(&self) -> Result<(), RuntimeError> {
        self.order_running("pause", Order::Pause).await?;
        self.shared.life.lock().await.paused = true;
        Ok(())
    }

    async fn unpause(&self) -> Result<(), RuntimeError> {
        self.order_running("unpause", Order::Unpause).await?;
        self.shared.life.lock().await.paused = false;
        Ok(())
    }

    async fn disconnect(&self) -> Result<(), RuntimeError> {
        Err(self.has_no_network())
    }

    async fn connect(&self) -> Result<(), RuntimeError> {
        Err(self.has_no_network())
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        if *self.shared.gone.borrow() {
            let why = "can't run a command in it: it is not running";
            return Err(self.error(Fault::State, why));
        }
        self.shared.exec(request).await
    }

    async fn copy_in(&self, from: Place, to: String) -> Result<(), RuntimeError> {
        let target = self.shared.definition.workdir.join(inside(&to));
        copy::copied(from, target, to.ends_with('/')).await
    }

    async fn copy_out(&self, from: String, to: Place) -> Result<(), RuntimeError> {
        let source = self.shared.definition.workdir.join(inside(&from));
        copy::copied(source, to, false).await
    }

    async fn find(&self, search: Search) -> Result<Vec<FoundFile>, RuntimeError> {
        let definition = &self.shared.definition;
        let name = definition.name.clone();
        let search = Search {
            pattern: Pattern::new(inside(search.pattern.as_str()))
                .map_err(|why| RuntimeError::of(&name, Fault::Path, why))?,
            ..search
        };
        copy::found(definition.workdir.clone(), search)
            .await
            .map_err(|error| RuntimeError::of(&name, error.fault, error.reason))
    }

    async fn gather(&self, gather: Gather) -> Result<(), RuntimeError> {
        let definition = &self.shared.definition;
        let gather = Gather {
            pattern: Pattern::new(inside(gather.pattern.as_str()))
                .map_err(|why| RuntimeError::of(&definition.name, Fault::Path, why))?,
            ..gather
        };
        copy::gathered(definition.workdir.clone(), gather)
            .await
            .map_err(|error| RuntimeError::of(&definition.name, error.fault, error.reason))
    }

    async fn inspect(&self) -> Vec<String> {
        let life = self.shared.life.lock().await;
        if life.starts == 0 {
            return vec!["never started".to_owned()];
        }
        let mut lines = vec![format!("process {}, start {}", life.pid, life.starts)];
        match life.ending {
            None => {
                let memory = procfs::resident(life.pid).unwrap_or_else(|| "unknown".to_owned());
                let paused = if life.paused { ", paused" } else { "" };
                lines.push(format!("running{paused}, resident memory {memory}"));
            }
            Some(ending) => {
                lines.push(describe(ending));
                lines.push(format!("peak memory of one process {} kB", ending.peak_kib));
            }
        }
        if let Some(healthy) = *self.shared.health.borrow() {
            lines.push(format!(
                "healthcheck: {}",
                if healthy { "healthy" } else { "unhealthy" }
            ));
        }
        if let Some(answer) = self.shared.last_probe.borrow().as_deref() {
            lines.push(format!("health probe: {answer}"));
        }
        lines
    }
}

/// `cp` treats the process's working directory as the root of its file system: a leading `/` refers to it.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn describe(ending: Ending) -> String {
    let signal = ending.signal.map(|number| match Signal::try_from(number) {
        Ok(signal) => signal.to_string(),
        Err(_) => format!("signal {number}"),
    });
    match signal {
        Some(signal) => format!("killed by {signal} (exit code {})", ending.code),
        None => format!("exit code {}", ending.code),
    }
}
