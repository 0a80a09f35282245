//! Attends an attempt from before its actors start until after they have ended: opens the stacks, waits for the actors,
//! emits the verdict, and cleans up.
//!
//! It is a plain task that is never aborted: whatever happens to the actors, `AttemptFinished` and `TornDown` follow.

use super::actor::{CellActor, CellArgs};
use super::core::{Ending, Verdict, judge};
use super::prepare::{Opened, board, given_up, ipv6, open, own_workspace};
use crate::cell_contract::{Assignment, Host};
use crate::context::masks::Masks;
use crate::context::services::{Down, Services};
use crate::context::{CellContext, Parts};
use crate::keeper;
use crate::runtime::contract::{AttemptScope, Closed, Stack};
use crate::sequence::effect::Limits;
use crate::sink::EventSink;
use crate::stack::actor::Stacks;
use crate::stack::logs::Logs;
use crate::stack::services::StackServices;
use kameo::actor::{ActorRef, Spawn};
use kameo::error::ActorStopReason;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{EventKind, KeptService};
use phalanx_shared::id::Token;
use phalanx_shared::plan::CellJob;
use phalanx_shared::trace::{AttemptTrace, TraceContext};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Time for `always` steps after a timeout.
const GRACE: Duration = Duration::from_secs(30);

/// Handle to a running attempt. Dropping it has no effect; send a [`CancelOrder`] to end the attempt.
pub struct CellHandle {
    /// Token of the attempt.
    pub token: Token,
    task: JoinHandle<()>,
}

impl CellHandle {
    /// Waits until the attempt is over, including its clean-up.
    pub async fn join(self) {
        // The task doesn't panic and is never aborted. If it failed all the same, the attempt would be over too.
        let _ = self.task.await;
    }

    /// Returns whether the attempt is over, including its clean-up.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// Starts an attempt.
pub fn spawn(host: Host, assignment: Assignment) -> CellHandle {
    CellHandle {
        token: assignment.token.clone(),
        task: tokio::spawn(attend(host, assignment)),
    }
}

async fn attend(host: Host, assignment: Assignment) {
    let Assignment {
        token,
        job,
        secrets,
        workspace,
        traceparent,
        events,
        logs,
        cancel,
    } = assignment;
    // An invalid trace context is ignored; the attempt runs without tracing.
    let trace = traceparent
        .as_deref()
        .and_then(TraceContext::parse)
        .map(|context| AttemptTrace::new(context, &token));
    let masks = Masks::new(&secrets);
    let (masks, unmaskable) = match masks {
        Ok(masks) => (Arc::new(masks), None),
        Err(why) => (Arc::new(Masks::default()), Some(why)),
    };
    let clock = Arc::clone(&host.clock);
    let sink = EventSink::new(token.clone(), Arc::clone(&clock), masks.clone(), events);
    let agent = host.agent.clone();
    sink.emit(EventKind::AttemptStarted { agent }).await;
    let logs = Logs::spawn(token.clone(), clock, Arc::clone(&masks), logs);
    let services = StackServices::new(board(&job.source.spec), logs);
    let attempt = Attempt {
        host,
        token,
        job,
        sink,
        services: Arc::new(services),
        cancel,
        scratch: PathBuf::new(),
        opened: Opened::default(),
    };
    let begin = Beginning {
        secrets,
        masks,
        unmaskable,
        workspace,
        trace,
    };
    attempt.run(begin).await;
}

struct Attempt {
    host: Host,
    token: Token,
    job: Arc<CellJob>,
    sink: EventSink,
    services: Arc<StackServices>,
    cancel: watch::Receiver<Option<CancelOrder>>,
    scratch: PathBuf,
    opened: Opened,
}

struct Beginning {
    secrets: std::collections::BTreeMap<String, String>,
    masks: Arc<Masks>,
    unmaskable: Option<String>,
    workspace: Option<PathBuf>,
    trace: Option<AttemptTrace>,
}

impl Attempt {
    async fn run(mut self, begin: Beginning) {
        let given_up = given_up(self.cancel.clone(), Arc::clone(&self.job));
        let begun = tokio::select! {
            begun = self.begin(begin) => begun.map_err(Ending::NotBegun),
            // Stacks that are open are closed below; the reaper finds partly created objects by their labels.
            ending = given_up => Err(ending),
        };
        let ending = match begun {
            Ok((context, stacks)) => self.attend(context, stacks).await,
            Err(ending) => ending,
        };
        let cancel = self.cancel.borrow().clone();
        let verdict = judge(ending, self.job.keep, cancel.as_ref());
        // All logs precede the verdict.
        self.services.logs.settle().await;
        self.services.logs.close().await;
        let (outcome, reason) = (verdict.outcome, verdict.reason.clone());
        self.sink
            .emit(EventKind::AttemptFinished { outcome, reason })
            .await;
        self.tear_down(&verdict).await;
    }

    /// Creates the directories, opens the stacks and builds the context.
    #[tracing::instrument(name = "open an attempt", skip_all, fields(attempt = %self.token))]
    async fn begin(&mut self, begin: Beginning) -> Result<(Arc<CellContext>, Stacks), String> {
        if let Some(why) = begin.unmaskable {
            return Err(why);
        }
        let name = self.token.to_string().replace(['/', '#', '@'], "-");
        self.scratch = self.host.state_dir.join("attempts").join(name);
        let workspace = own_workspace(begin.workspace, &self.scratch).await?;
        let ipv6 = ipv6(&self.job);
        let scope = AttemptScope {
            token: self.token.clone(),
            agent: self.host.agent.clone(),
            cell_name: self.job.cell.name.clone(),
            scratch: self.scratch.clone(),
            workspace: workspace.clone(),
            ipv6,
            trace: begin.trace.clone(),
        };
        let stacks = self.open(scope).await;
        let context = CellContext::new(Parts {
            token: self.token.clone(),
            job: Arc::clone(&self.job),
            secrets: begin.secrets,
            masks: begin.masks,
            services: Arc::clone(&self.services) as Arc<dyn Services>,
            workspace,
            host: self.commands(&stacks),
            trace: begin.trace,
            clock: Arc::clone(&self.host.clock),
            demo_server: self.host.demo_server.clone(),
        });
        Ok((Arc::new(context), stacks))
    }

    /// Opens the stacks that the spec needs, concurrently. If one can't be opened, the services that need it fail, not
    /// the attempt.
    async fn open(&mut self, scope: AttemptScope) -> Stacks {
        let in_containers = self
            .job
            .source
            .spec
            .services
            .iter()
            .any(|service| !service.process);
        let containers = self.host.containers.clone();
        let opened = Arc::clone(&self.opened);
        let processes = Ok(Arc::clone(&self.host.processes));
        let processes = open(processes, scope.clone(), &opened);
        let (processes, containers) = match in_containers {
            true => tokio::join!(processes, open(containers, scope, &opened)),
            false => (processes.await, Err("no service is a container".to_owned())),
        };
        let allowed = self.host.allow_host_commands;
        Stacks {
            processes: processes.and_then(|stack| match allowed {
                true => Ok(stack),
                false => Err(FORBIDDEN.to_owned()),
            }),
            containers,
        }
    }

    fn commands(&self, stacks: &Stacks) -> Result<Arc<dyn Stack>, String> {
        stacks.processes.clone()
    }

    /// Runs the actors until they end, and returns how they ended.
    async fn attend(&mut self, context: Arc<CellContext>, stacks: Stacks) -> Ending {
        let (verdict, judged) = oneshot::channel();
        let (downs, downs_in) = mpsc::channel(64);
        let cell = CellActor::spawn(CellArgs {
            context,
            services: Arc::clone(&self.services),
            stacks,
            events: self.sink.clone(),
            downs,
            limits: Limits {
                cell: Duration::from_millis(self.job.cell.timeout_ms),
                grace: GRACE,
            },
            verdict,
        });
        let pumps = [
            tokio::spawn(pass_on_downs(downs_in, cell.clone())),
            tokio::spawn(pass_on_orders(self.cancel.clone(), cell.clone())),
        ];
        let died = cell
            .wait_for_shutdown_with_result(|result| match result {
                Ok(reason) => death(reason),
                Err(error) => Some(error.to_string()),
            })
            .await;
        pumps.iter().for_each(JoinHandle::abort);
        match (judged.await, died) {
            (_, Some(death)) => Ending::Died(death),
            (Ok((outcome, reason)), None) => Ending::Judged(outcome, reason),
            (Err(_), None) => Ending::Died("the sequence ended without a verdict".to_owned()),
        }
    }

    async fn tear_down(self, verdict: &Verdict) {
        let began = self.sink.now();
        let mut closed = Closed::default();
        let (grace, keep) = (verdict.grace, verdict.keep);
        let opened = self.opened.lock().map_or_else(
            |poisoned| std::mem::take(&mut *poisoned.into_inner()),
            |mut opened| std::mem::take(&mut *opened),
        );
        if let Some(ttl) = keep {
            // The note comes before anything is kept, so that kept objects are always removed when they expire.
            keeper::note(&self.host.state_dir, self.host.clock.wall(), ttl);
        }
        let all = opened.iter().map(|stack| stack.close(grace, keep));
        match tokio::time::timeout(verdict.deadline, futures::future::join_all(all)).await {
            Ok(each) => {
                for one in each {
                    closed.removed += one.removed;
                    closed.left.extend(one.left);
                }
            }
            Err(_) => closed.left.push(format!(
                "clean-up was not done within {}; the reaper goes on with it",
                crate::duration::duration_text(verdict.deadline)
            )),
        }
        let kept = match keep {
            Some(_) => self.kept(),
            None => Vec::new(),
        };
        // Most cells that start nothing on the host have no scratch directory.
        if keep.is_none() && self.scratch.symlink_metadata().is_ok() {
            let removed = tokio::fs::remove_dir_all(&self.scratch).await;
            if let Err(error) = removed.or_else(not_there) {
                closed
                    .left
                    .push(format!("{}: {error}", self.scratch.display()));
            }
        }
        let Closed { removed, left } = closed;
        let torn_down = EventKind::TornDown {
            removed,
            left,
            kept,
            began,
        };
        self.sink.emit(torn_down).await;
    }

    /// Returns the addresses of the services that outlive the attempt.
    fn kept(&self) -> Vec<KeptService> {
        let running = self
            .services
            .board
            .all()
            .into_iter()
            .filter_map(|(service, status)| {
                let addresses = status.addresses.as_ref()?;
                let address = match status
                    .context(&service)
                    .get("url")
                    .and_then(|url| url.as_str())
                {
                    Some(url) => url.to_owned(),
                    None => addresses.ip?.to_string(),
                };
                Some(KeptService { service, address })
            });
        running.collect()
    }
}

const FORBIDDEN: &str =
    "this agent doesn't allow commands and processes on its host (allow_host_commands)";

fn not_there(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

async fn pass_on_downs(mut downs: mpsc::Receiver<Down>, cell: ActorRef<CellActor>) {
    while let Some(down) = downs.recv().await {
        if cell.tell(down).await.is_err() {
            break;
        }
    }
}

async fn pass_on_orders(
    mut cancel: watch::Receiver<Option<CancelOrder>>,
    cell: ActorRef<CellActor>,
) {
    loop {
        let order = cancel.borrow_and_update().clone();
        if let Some(order) = order
            && cell.tell(order).await.is_err()
        {
            break;
        }
        if cancel.changed().await.is_err() {
            break;
        }
    }
}

/// Returns the text of the panic that stopped an actor, or `None` if it stopped normally.
fn death(reason: &ActorStopReason) -> Option<String> {
    match reason {
        ActorStopReason::Normal => None,
        ActorStopReason::Panicked(error) => Some(
            error
                .with_str(str::to_owned)
                .unwrap_or_else(|| error.to_string()),
        ),
        ActorStopReason::LinkDied { reason, .. } => {
            death(reason).or_else(|| Some("an actor of the cell stopped early".to_owned()))
        }
        other => Some(other.to_string()),
    }
}
