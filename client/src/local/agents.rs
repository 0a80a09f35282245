//! The agents of a local run: tasks of this process, or child processes that end with it.

use super::place::{Place, at};
use super::{Error, Options};
use crate::demo;
use phalanx_agent::identity::{self, Identity};
use phalanx_agent::policy::Policy;
use phalanx_agent::reaper;
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_agent::snapshot;
use phalanx_agent::supervisor::{self, Agent};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How often an agent's process is restarted after an unexpected end; after that, the run continues without it.
const RESTARTS: u32 = 5;
/// Pause before each restart.
const PAUSE: Duration = Duration::from_millis(200);

/// Agents of either kind.
pub(super) struct Agents {
    tasks: Vec<Agent>,
    processes: Vec<Process>,
    gave_up: (mpsc::Sender<()>, mpsc::Receiver<()>),
    /// The clean-up after dead identities.
    after_others: Option<JoinHandle<()>>,
}

/// A child process, and the task that restarts it.
struct Process {
    end: oneshot::Sender<End>,
    /// The task; it returns whether the child ended with a complete clean-up.
    kept: JoinHandle<bool>,
}

/// How to end a child.
enum End {
    Clean(Duration),
    Kill,
}

impl Agents {
    /// Starts the agents. Free identities are reused or cleaned up in the background.
    pub async fn start(options: &Options, place: &Place) -> Result<Agents, Error> {
        let mut dead = identity::take_dead(&place.agents());
        let mut agents = Agents {
            tasks: Vec::new(),
            processes: Vec::new(),
            gave_up: mpsc::channel(1),
            after_others: None,
        };
        for n in 1..=options.agents.max(1) {
            let started = agents.start_one(options, place, n, &mut dead).await;
            if let Err(error) = started {
                agents.kill().await;
                return Err(error);
            }
        }
        if !dead.is_empty() {
            agents.after_others = Some(tokio::spawn(clean_up_after(dead, options.docker.clone())));
        }
        Ok(agents)
    }

    async fn start_one(
        &mut self,
        options: &Options,
        place: &Place,
        n: u32,
        dead: &mut Vec<Identity>,
    ) -> Result<(), Error> {
        if options.agents_as_processes {
            let gave_up = self.gave_up.0.clone();
            self.processes
                .push(Process::start(options, place, n, gave_up)?);
            return Ok(());
        }
        // Reuse a free identity: the new agent cleans up after the old one, now and until kept stacks expire.
        let identity = match dead.pop() {
            Some(identity) => identity,
            None => Identity::acquire(&new_directory(place))?,
        };
        let agent = supervisor::start(identity, options.of_agent(place, n)?).await?;
        self.tasks.push(agent);
        Ok(())
    }

    /// Returns when an agent's process was given up. Never returns for agents in this process.
    pub async fn given_up(&mut self) {
        if self.gave_up.1.recv().await.is_none() {
            std::future::pending().await
        }
    }

    /// Ends all agents like a kill, without waiting for clean-up.
    pub async fn kill(self) {
        for agent in self.tasks {
            agent.stop(Duration::ZERO).await;
        }
        for process in self.processes {
            process.end(End::Kill).await;
        }
    }

    /// Ends all agents, with a limit on their clean-up. Returns whether all clean-ups completed.
    pub async fn stop(self, within: Duration) -> bool {
        let mut clean = true;
        for agent in self.tasks {
            clean &= agent.stop(within).await;
        }
        for process in self.processes {
            clean &= process.end(End::Clean(within)).await;
        }
        if let Some(others) = self.after_others {
            // This began with the run and has usually ended long ago, unless an engine hangs. The next start does it
            // then.
            let _ = tokio::time::timeout(within, others).await;
        }
        clean
    }
}

impl Process {
    fn start(
        options: &Options,
        place: &Place,
        n: u32,
        gave_up: mpsc::Sender<()>,
    ) -> Result<Process, Error> {
        let (options, place) = (options.clone(), place.clone());
        let directory = new_directory(&place);
        let child = child(&options, &place, &directory, n)?;
        let again = move || child_again(&options, &place, &directory, n);
        let (end, ending) = oneshot::channel();
        let kept = tokio::spawn(async move {
            let clean = keep(child, again, ending).await;
            // The receiver only waits for the first one.
            let _ = gave_up.try_send(());
            clean
        });
        Ok(Process { end, kept })
    }

    async fn end(self, how: End) -> bool {
        // A task that gave up no longer listens.
        let _ = self.end.send(how);
        self.kept.await.unwrap_or(false)
    }
}

/// Restarts a child when it ends unexpectedly. Returns whether it ended with a complete clean-up.
async fn keep(
    mut child: Child,
    again: impl Fn() -> Option<Child>,
    mut ending: oneshot::Receiver<End>,
) -> bool {
    let mut restarts = RESTARTS;
    loop {
        // `wait` would close the child's standard input, which tells the child that this process is gone.
        let stdin = child.stdin.take();
        let status = tokio::select! {
            how = &mut ending => return end(child, stdin, how.unwrap_or(End::Kill)).await,
            status = child.wait() => status,
        };
        tracing::warn!(?status, "an agent's process exited unexpectedly");
        if restarts == 0 {
            return false;
        }
        restarts -= 1;
        tokio::select! {
            _ = &mut ending => return false,
            () = tokio::time::sleep(PAUSE) => {}
        }
        let Some(next) = again() else {
            return false;
        };
        child = next;
    }
}

async fn end(mut child: Child, stdin: Option<ChildStdin>, how: End) -> bool {
    if let End::Clean(within) = how {
        // The end of its standard input tells the child to stop.
        drop(stdin);
        let ended = tokio::time::timeout(within, child.wait()).await;
        if let Ok(status) = ended {
            return status.is_ok_and(|status| status.success());
        }
    }
    // Its wardens end what it started, as after any kill.
    let _ = child.kill().await;
    false
}

/// Runs in the background: a run needn't wait for the leftovers of another one.
async fn clean_up_after(dead: Vec<Identity>, docker: DockerSettings) {
    for identity in dead {
        if reaper::reap_dead(&identity, &docker).await.is_over() {
            identity.retire();
        }
    }
}

fn new_directory(place: &Place) -> PathBuf {
    place.agents().join(uuid::Uuid::now_v7().to_string())
}

/// Returns the display name of an agent.
fn name(options: &Options, n: u32) -> String {
    if options.agents <= 1 {
        "local".to_owned()
    } else {
        format!("local-{n}")
    }
}

impl Options {
    fn program(&self) -> Result<PathBuf, Error> {
        match &self.program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe().map_err(at("this program's own path".as_ref())),
        }
    }

    fn of_agent(&self, place: &Place, n: u32) -> Result<supervisor::Options, Error> {
        Ok(supervisor::Options {
            coordinator: place.address(),
            name: Some(name(self, n)),
            labels: self.labels.clone(),
            slots: self.slots,
            cpu_overcommit: self.cpu_overcommit,
            memory_overcommit: self.memory_overcommit,
            policy: Policy::of(self.policy.clone()),
            demo_server: demo::command(&self.program()?),
            docker: self.docker.clone(),
            snapshots: Some(snapshot::Place {
                directory: place.snapshots(),
                bounds: snapshot::Bounds::of_settings(self.snapshots_mib, self.snapshots_days),
            }),
            stay: Default::default(),
            access: None,
            mourned: false,
        })
    }
}

fn child_again(options: &Options, place: &Place, directory: &Path, n: u32) -> Option<Child> {
    let child = child(options, place, directory, n);
    child
        .inspect_err(|error| tracing::error!(%error, "can't start an agent again"))
        .ok()
}

/// Returns the path of a child's log.
pub(super) fn log_path(place: &Place, n: u32) -> PathBuf {
    place.directory().join(format!("agent-{n}.log"))
}

/// Starts `phalanx agent`. The child holds the reading end of a pipe, so it ends with this process.
fn child(options: &Options, place: &Place, directory: &Path, n: u32) -> Result<Child, Error> {
    let log_path = log_path(place, n);
    let mut open = File::options();
    let log = open.create(true).append(true).open(&log_path);
    let log = log.map_err(at(&log_path))?;
    let mut command = Command::new(options.program()?);
    command
        .arg("agent")
        .args(["--coordinator", &place.address()])
        .arg("--identity-dir")
        .arg(directory)
        .arg("--snapshot-dir")
        .arg(place.snapshots())
        .args(["--snapshot-mib", &options.snapshots_mib.to_string()])
        .args(["--snapshot-days", &options.snapshots_days.to_string()])
        .args(["--name", &name(options, n)])
        .args(["--slots", &options.slots.to_string()])
        .args(["--cpu-overcommit", &options.cpu_overcommit.to_string()])
        .args([
            "--memory-overcommit",
            &options.memory_overcommit.to_string(),
        ])
        .args([
            "--docker",
            &serde_json::to_string(&options.docker).map_err(unwritable)?,
        ])
        .args([
            "--rules",
            &serde_json::to_string(&options.policy).map_err(unwritable)?,
        ])
        .arg("--with-parent");
    for label in &options.labels {
        command.args(["--label", label]);
    }
    // The child gets its own process group: Ctrl-C on the terminal is for `phalanx`, which decides what its agents do.
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log);
    let failed = |error: std::io::Error| Error::Process(error.to_string());
    command.spawn().map_err(failed)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::Process(format!("its settings: {error}"))
}
