//! The agents of a local run: tasks of this process, or children of it that end when it does.

use super::place::{Place, at};
use super::{Error, Options};
use phalanx_agent::identity::{self, Identity};
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_agent::supervisor::{self, Agent};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// An agent's process that ends unasked is started again so often; then the run goes on without it.
const RESTARTS: u32 = 5;
/// Before each.
const PAUSE: Duration = Duration::from_millis(200);

/// Agents of either kind.
pub(super) struct Agents {
    tasks: Vec<Agent>,
    processes: Vec<Process>,
    gave_up: (mpsc::Sender<()>, mpsc::Receiver<()>),
    /// Cleaning up after dead identities.
    after_others: Option<JoinHandle<()>>,
}

/// A child, and the task that keeps it alive.
struct Process {
    end: oneshot::Sender<End>,
    /// Whether it ended cleaned up.
    kept: JoinHandle<bool>,
}

/// How a child is to end.
enum End {
    Clean(Duration),
    Kill,
}

impl Agents {
    /// Starts as many as the options say; first cleans up after identities that nobody holds.
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
        // An identity that is free is used again: its successor cleans up after it, now and until what was kept expires.
        let identity = match dead.pop() {
            Some(identity) => identity,
            None => Identity::acquire(&new_directory(place))?,
        };
        let agent = supervisor::start(identity, options.of_agent(place, n)?).await?;
        self.tasks.push(agent);
        Ok(())
    }

    /// Returns when an agent's process was given up; never for agents in this process.
    pub async fn given_up(&mut self) {
        if self.gave_up.1.recv().await.is_none() {
            std::future::pending().await
        }
    }

    /// Ends all as a kill would, without waiting for clean-up.
    pub async fn kill(self) {
        for agent in self.tasks {
            agent.stop(Duration::ZERO).await;
        }
        for process in self.processes {
            process.end(End::Kill).await;
        }
    }

    /// Ends all, cleaned up within a bound. Returns whether all of it was.
    pub async fn stop(self, within: Duration) -> bool {
        let mut clean = true;
        for agent in self.tasks {
            clean &= agent.stop(within).await;
        }
        for process in self.processes {
            clean &= process.end(End::Clean(within)).await;
        }
        if let Some(others) = self.after_others {
            // It began with the run and is over long since, unless an engine hangs: then the next start does it.
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
            // Whoever waits for it wants to know of the first one only.
            let _ = gave_up.try_send(());
            clean
        });
        Ok(Process { end, kept })
    }

    async fn end(self, how: End) -> bool {
        // A task that gave up listens no more.
        let _ = self.end.send(how);
        self.kept.await.unwrap_or(false)
    }
}

/// Starts a child again when it ends unasked. Returns whether it ended cleaned up.
async fn keep(
    mut child: Child,
    again: impl Fn() -> Option<Child>,
    mut ending: oneshot::Receiver<End>,
) -> bool {
    let mut restarts = RESTARTS;
    loop {
        // Waiting for a child would close its standard input, which means to it that we are gone.
        let stdin = child.stdin.take();
        let status = tokio::select! {
            how = &mut ending => return end(child, stdin, how.unwrap_or(End::Kill)).await,
            status = child.wait() => status,
        };
        tracing::warn!(?status, "an agent's process ended unasked");
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
        // The end of its standard input tells it that we are going.
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

/// In the background: a run needn't wait for what another one left.
async fn clean_up_after(dead: Vec<Identity>, docker: DockerSettings) {
    for identity in dead {
        if supervisor::reap_dead(&identity, &docker).await.is_over() {
            identity.retire();
        }
    }
}

fn new_directory(place: &Place) -> PathBuf {
    place.agents().join(uuid::Uuid::now_v7().to_string())
}

/// The name of an agent, for people.
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
        let program = self.program()?.to_string_lossy().into_owned();
        Ok(supervisor::Options {
            coordinator: place.address(),
            name: Some(name(self, n)),
            labels: self.labels.clone(),
            slots: self.slots,
            cpu_overcommit: self.cpu_overcommit,
            memory_overcommit: self.memory_overcommit,
            allow_host_commands: self.allow_host_commands,
            demo_server: vec![program, "demo-server".to_owned()],
            docker: self.docker.clone(),
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

/// Where a child's own words go.
pub(super) fn log_path(place: &Place, n: u32) -> PathBuf {
    place.directory().join(format!("agent-{n}.log"))
}

/// Starts `phalanx agent`, which ends with us: it holds the reading end of a pipe of ours.
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
        .arg("--with-parent");
    for label in &options.labels {
        command.args(["--label", label]);
    }
    if !options.allow_host_commands {
        command.arg("--no-host-commands");
    }
    // A process group of its own: Ctrl-C on the terminal is for `phalanx`, which tells its agents what it means.
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
