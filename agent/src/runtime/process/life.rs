//! The life of a process over its starts: what the member and the task that follows a start both know.

use super::copy;
use super::guarded::{End, Orders};
use super::health::{Check, Judge};
use super::host::AttemptHost;
use super::output;
use super::reap;
use super::wire::{Ending, Order};
use crate::beneath::Place;
use crate::clock::runtime_now;
use crate::runtime::contract::{ExecOutput, ExecRequest, Exit, RuntimeError};
use crate::sequence::limit::duration_text;
use crate::sink::LogSink;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver as Pipe;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

/// What the process is, evaluated.
pub struct Definition {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) workdir: Place,
    pub(super) addresses: Vec<(String, SocketAddr)>,
    pub(super) check: Option<Check>,
    pub(super) stop_signal: Signal,
    pub(super) stop_grace: Duration,
}

/// What the member and the task of a start both need.
pub struct Shared {
    pub(super) host: Arc<AttemptHost>,
    pub(super) definition: Definition,
    pub(super) logs: LogSink,
    pub(super) life: Mutex<Life>,
    pub(super) exits: watch::Sender<Option<Exit>>,
    /// Whether nothing of it lives; earlier than the exit, which waits for the output.
    pub(super) gone: watch::Sender<bool>,
    pub(super) health: watch::Sender<Option<bool>>,
    /// What the last probe of its health check answered.
    pub(super) last_probe: watch::Sender<Option<String>>,
}

/// Its state at this moment.
#[derive(Default)]
pub struct Life {
    pub(super) starts: u32,
    pub(super) pid: i32,
    /// Of the running start.
    pub(super) orders: Option<Orders>,
    pub(super) paused: bool,
    pub(super) closed: bool,
    pub(super) ending: Option<Ending>,
}

impl Shared {
    /// Gives an order to the running start; false if there is none.
    pub async fn order(&self, order: Order) -> bool {
        let mut life = self.life.lock().await;
        match &mut life.orders {
            Some(orders) if !*self.gone.borrow() => {
                orders.give(&order).await;
                true
            }
            _ => false,
        }
    }

    /// Follows one start to its end. The exit is sent last: after all output, and with nothing alive.
    pub async fn follow(self: Arc<Self>, start: u32, parts: Followed) {
        let Followed {
            mut end,
            stdout,
            stderr,
        } = parts;
        let ended = async {
            match end.wait().await {
                Some(ending) => ending,
                None => self.clean_up_after_warden().await,
            }
        };
        let drained = output::drain(stdout, stderr, ended, &self.logs, &self.gone);
        let ending = match &self.definition.check {
            None => drained.await,
            Some(check) => tokio::select! {
                ending = drained => ending,
                never = self.probe(check) => match never {},
            },
        };
        let mut life = self.life.lock().await;
        life.orders = None;
        life.paused = false;
        life.ending = Some(ending);
        drop(life);
        self.exits.send_replace(Some(Exit {
            code: ending.code,
            oom: false,
            start,
        }));
    }

    /// The warden was killed from outside: what it watched over is found by its mark.
    async fn clean_up_after_warden(&self) -> Ending {
        let own = self.host.marker(&self.definition.name);
        copy::blocking(move || reap::end_marked(|marker| *marker == own)).await;
        Ending {
            code: 128 + i64::from(Signal::SIGKILL as i32),
            signal: Some(Signal::SIGKILL as i32),
            peak_kib: 0,
        }
    }

    /// Asks for its health until dropped.
    async fn probe(&self, check: &Check) -> std::convert::Infallible {
        let began = runtime_now();
        let mut judge = Judge::default();
        loop {
            tokio::time::sleep(judge.pause(check)).await;
            let request = ExecRequest {
                command: check.command.clone(),
                max_output: 4096,
                ..ExecRequest::default()
            };
            let probe = self.exec(request);
            let (passed, answer) = match timeout(check.timeout, probe).await {
                Ok(Ok(output)) => (output.exit_code == 0, answer(&output)),
                Ok(Err(error)) => (false, error.to_string()),
                Err(_) => (
                    false,
                    format!("no answer within {}", duration_text(check.timeout)),
                ),
            };
            self.last_probe.send_replace(Some(answer));
            let healthy = judge.probed(check, began.elapsed(), passed);
            self.health.send_if_modified(|known| {
                let changed = *known != healthy;
                *known = healthy;
                changed
            });
        }
    }

    /// Runs a command in its environment and directory.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        let mut env = self.definition.env.clone();
        env.extend(request.env.clone());
        let workdir = match &request.workdir {
            Some(path) => self.definition.workdir.join(path),
            None => self.definition.workdir.clone(),
        };
        self.host
            .run(&self.definition.name, request, env, workdir)
            .await
    }
}

fn answer(output: &ExecOutput) -> String {
    let mut text = format!("exit code {}", output.exit_code);
    for bytes in [&output.stdout, &output.stderr] {
        let said = String::from_utf8_lossy(bytes);
        if !said.trim().is_empty() {
            text = format!("{text}: {}", said.trim());
        }
    }
    text
}

/// A start as its task needs it: its end and its output.
pub struct Followed {
    pub(super) end: End,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
}
