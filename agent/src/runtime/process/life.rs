//! The state of a process over its starts, shared by the member and the task that follows a start.

use super::guarded::{End, Orders};
use super::health::{Check, Judge};
use super::host::AttemptHost;
use super::output;
use super::reap;
use super::wire::{Ending, Order};
use crate::beneath::Place;
use crate::clock::runtime_now;
use crate::duration::duration_text;
use crate::runtime::blocking::blocking;
use crate::runtime::contract::{ExecOutput, ExecRequest, Exit, RuntimeError};
use crate::sink::LogSink;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver as Pipe;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

/// The evaluated definition of the process.
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

/// State shared by the member and the task of a start.
pub struct Shared {
    pub(super) host: Arc<AttemptHost>,
    pub(super) definition: Definition,
    pub(super) logs: LogSink,
    pub(super) life: Mutex<Life>,
    pub(super) exits: watch::Sender<Option<Exit>>,
    /// Whether no process of it lives. True before the exit is sent, since the exit waits for the output.
    pub(super) gone: watch::Sender<bool>,
    pub(super) health: watch::Sender<Option<bool>>,
    /// Answer of the newest health probe.
    pub(super) last_probe: watch::Sender<Option<String>>,
}

/// Current state of the process.
#[derive(Default)]
pub struct Life {
    pub(super) starts: u32,
    pub(super) pid: i32,
    /// Orders to the warden of the running start.
    pub(super) orders: Option<Orders>,
    pub(super) paused: bool,
    pub(super) closed: bool,
    pub(super) ending: Option<Ending>,
}

impl Shared {
    /// Sends an order to the running start. Returns false if there is none.
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

    /// Follows one start to its end. Sends the exit last: after all output, and when no process of it lives.
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

    /// Cleans up after a warden that was killed from outside: finds its processes by their mark.
    async fn clean_up_after_warden(&self) -> Ending {
        let own = self.host.marker(&self.definition.name);
        blocking(move || reap::end_marked(|marker| *marker == own)).await;
        Ending {
            code: 128 + i64::from(Signal::SIGKILL as i32),
            signal: Some(Signal::SIGKILL as i32),
            peak_kib: 0,
        }
    }

    /// Probes the health until the future is dropped.
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

    /// Runs a command in the environment and directory of the process.
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

/// The parts of a start that its task follows: its end and its output.
pub struct Followed {
    pub(super) end: End,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
}
