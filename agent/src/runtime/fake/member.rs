//! The fake's member: prints and exits by the clock, and reports calls that are out of order or concurrent where the
//! contract forbids it.

use super::record::Record;
use super::script::{self, ExitScript, Printed, ServiceScript};
use crate::beneath::Place;
use crate::clock::runtime_now;
use crate::runtime::contract::{
    Addresses, ExecOutput, ExecRequest, Exit, Fault, Member, RuntimeError, SignalName,
};
use crate::sink::LogSink;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

const KILLED: i64 = 137;
const TERMINATED: i64 = 143;

pub struct FakeMember {
    name: String,
    script: ServiceScript,
    logs: LogSink,
    record: Arc<Record>,
    state: Mutex<State>,
    /// Held by calls that the caller has to serialise.
    serial: tokio::sync::Mutex<()>,
    exits: Arc<watch::Sender<Option<Exit>>>,
    health: Arc<watch::Sender<Option<bool>>>,
}

#[derive(Default)]
struct State {
    starts: u32,
    /// Ends the newest start from outside, with an exit code.
    end: Option<watch::Sender<Option<i64>>>,
    paused: bool,
    disconnected: bool,
    closed: bool,
}

impl FakeMember {
    pub fn new(
        name: String,
        script: ServiceScript,
        logs: LogSink,
        record: Arc<Record>,
    ) -> FakeMember {
        FakeMember {
            name,
            script,
            logs,
            record,
            state: Mutex::default(),
            serial: tokio::sync::Mutex::default(),
            exits: Arc::new(watch::Sender::new(None)),
            health: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Called by the stack's `close`, which may come during any other call.
    pub async fn close(&self, grace: Duration) {
        self.state().closed = true;
        self.end(if self.script.deaf {
            grace
        } else {
            Duration::ZERO
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_running(&self) -> bool {
        self.state().end.is_some() && self.exits.borrow().is_none()
    }

    fn call(&self, what: &str) -> Result<(), RuntimeError> {
        let call = format!("{what} {}", self.name);
        self.record.call(call.clone());
        if self.state().closed {
            return Err(self.violation(&format!("{call} after close")));
        }
        Ok(())
    }

    fn serialised(&self, what: &str) -> Result<tokio::sync::MutexGuard<'_, ()>, RuntimeError> {
        self.call(what)?;
        self.serial.try_lock().map_err(|_| {
            self.violation(&format!(
                "{what} {} beside another call that changes it",
                self.name
            ))
        })
    }

    fn violation(&self, what: &str) -> RuntimeError {
        self.record.violation(what.to_owned());
        RuntimeError::new(Fault::Misuse, format!("fake: {what}")).naming(&self.name)
    }

    fn state_is(&self, what: &str) -> RuntimeError {
        let reason = format!("service {} {what}", self.name);
        RuntimeError::new(Fault::State, reason).naming(&self.name)
    }

    fn must_run(&self, what: &str) -> Result<(), RuntimeError> {
        if self.is_running() {
            return Ok(());
        }
        let why = format!("can't {what}: it is not running");
        Err(RuntimeError::of(&self.name, Fault::State, why))
    }

    /// Ends the running start, after `delay` if it ignores its stop signal, and waits for its exit.
    async fn end(&self, delay: Duration) {
        if !self.is_running() {
            return;
        }
        let code = if self.script.deaf { KILLED } else { TERMINATED };
        if self.script.deaf {
            let _ = tokio::time::timeout(delay, self.exited()).await;
        }
        self.end_with(code).await;
    }

    async fn end_with(&self, code: i64) {
        if !self.is_running() {
            return;
        }
        if let Some(end) = &self.state().end {
            end.send_replace(Some(code));
        }
        self.exited().await;
    }

    async fn exited(&self) {
        let _ = self.exits.subscribe().wait_for(Option::is_some).await;
    }
}

/// Runs one start until it exits.
async fn live(
    script: ServiceScript,
    start: u32,
    logs: LogSink,
    mut end: watch::Receiver<Option<i64>>,
    exits: Arc<watch::Sender<Option<Exit>>>,
) {
    let began = runtime_now();
    let by_itself = async {
        for Printed {
            after,
            stream,
            text,
        } in script.output
        {
            sleep_until(began + after).await;
            logs.write(stream, text.into_bytes()).await;
        }
        let exits = script.exiting_starts.is_none_or(|starts| start <= starts);
        match script.exit.filter(|_| exits) {
            Some(exit) => {
                sleep_until(began + exit.after).await;
                exit
            }
            None => std::future::pending().await,
        }
    };
    let ended = async {
        match end.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(KILLED),
            Err(_) => KILLED,
        }
    };
    let exit = tokio::select! {
        biased;
        code = ended => ExitScript { code, ..ExitScript::default() },
        exit = by_itself => exit,
    };
    exits.send_replace(Some(Exit {
        code: exit.code,
        oom: exit.oom,
        start,
    }));
}

#[async_trait]
impl Member for FakeMember {
    async fn start(&self) -> Result<Addresses, RuntimeError> {
        let _serial = self.serialised("start")?;
        if self.is_running() {
            return Err(self.violation(&format!("start {} while it runs", self.name)));
        }
        sleep(self.script.start_delay).await;
        if let Some(error) = &self.script.start_error {
            return Err(error.clone());
        }
        let (end, ended) = watch::channel(None);
        let start = {
            let mut state = self.state();
            if state.closed {
                return Err(RuntimeError::new(
                    Fault::Misuse,
                    "fake: the stack was closed",
                ));
            }
            state.starts += 1;
            state.end = Some(end);
            state.paused = false;
            state.starts
        };
        self.exits.send_replace(None);
        self.health.send_replace(None);
        let (script, logs) = (self.script.clone(), self.logs.clone());
        if let Some(after) = script.healthy_after {
            let (health, mut ended) = (self.health.clone(), ended.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = sleep(after) => { health.send_replace(Some(true)); }
                    _ = ended.wait_for(Option::is_some) => {}
                }
            });
        }
        tokio::spawn(live(script, start, logs, ended, self.exits.clone()));
        Ok(self.script.addresses.clone())
    }

    fn exits(&self) -> watch::Receiver<Option<Exit>> {
        self.exits.subscribe()
    }

    fn health(&self) -> watch::Receiver<Option<bool>> {
        self.health.subscribe()
    }

    fn has_healthcheck(&self) -> bool {
        self.script.healthy_after.is_some()
    }

    async fn addresses(&self) -> Result<Addresses, RuntimeError> {
        self.call("addresses")?;
        Ok(self.script.addresses.clone())
    }

    async fn stop(&self, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let _serial = self.serialised("stop")?;
        self.end(grace.unwrap_or(Duration::from_secs(10))).await;
        Ok(())
    }

    async fn kill(&self, signal: SignalName) -> Result<(), RuntimeError> {
        let _serial = self.serialised(&format!("kill {signal}"))?;
        match signal.as_str() {
            "SIGKILL" => self.end_with(KILLED).await,
            "SIGTERM" if !self.script.deaf => self.end_with(TERMINATED).await,
            _ => {}
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), RuntimeError> {
        let _serial = self.serialised("pause")?;
        self.must_run("pause")?;
        if std::mem::replace(&mut self.state().paused, true) {
            return Err(self.state_is("is paused already"));
        }
        Ok(())
    }

    async fn unpause(&self) -> Result<(), RuntimeError> {
        let _serial = self.serialised("unpause")?;
        self.must_run("unpause")?;
        if !std::mem::take(&mut self.state().paused) {
            return Err(self.state_is("is not paused"));
        }
        Ok(())
    }

    async fn disconnect(&self) -> Result<(), RuntimeError> {
        self.call("disconnect")?;
        if std::mem::replace(&mut self.state().disconnected, true) {
            return Err(self.state_is("is off the network already"));
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(), RuntimeError> {
        self.call("connect")?;
        if !std::mem::take(&mut self.state().disconnected) {
            return Err(self.state_is("is on the network already"));
        }
        Ok(())
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        self.call(&format!("exec `{}` in", request.command.join(" ")))?;
        self.must_run("run a command in it")?;
        script::answer(&self.script.commands, &request.command).await
    }

    async fn copy_in(&self, from: Place, to: String) -> Result<(), RuntimeError> {
        self.call(&format!("copy_in {} {to}", from.display()))
    }

    async fn copy_out(&self, from: String, to: Place) -> Result<(), RuntimeError> {
        self.call(&format!("copy_out {from} {}", to.display()))
    }

    async fn inspect(&self) -> Vec<String> {
        self.script.inspect.clone()
    }
}
