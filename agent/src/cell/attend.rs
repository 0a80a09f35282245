//! Attends an attempt from before its actors start until after they have ended: opens the stacks, waits for the actors,
//! emits the verdict, and cleans up. What to do when is decided by the attempt's core.
//!
//! It is a plain task that is never aborted: whatever happens to the actors, `AttemptFinished` and `TornDown` follow.

use super::actors::Actors;
use super::collect;
use super::core::{Cell, Effect, Ending, Input, Timer, Verdict};
use super::prepare::{Opened, board, ipv6, open, own_workspace};
use crate::action::artifacts::TimeLimit;
use crate::cell_contract::{Assignment, Host};
use crate::context::artifacts::Artifacts;
use crate::context::masks::Masks;
use crate::context::services::{Down, Services};
use crate::context::{CellContext, Parts};
use crate::keeper;
use crate::runtime::contract::{AttemptScope, Closed, RuntimeError, Stack};
use crate::sequence::actor::SequenceArgs;
use crate::sequence::effect::{Judgement, Limits};
use crate::sink::{ArtifactPiece, EventSink};
use crate::stack::actor::{StackArgs, Stacks};
use crate::stack::logs::Logs;
use crate::stack::services::StackServices;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{EventKind, KeptService};
use phalanx_shared::id::Token;
use phalanx_shared::plan::CellJob;
use phalanx_shared::policy::Need;
use phalanx_shared::trace::{AttemptTrace, TraceContext};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

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
        artifacts,
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
        context: None,
    };
    let begin = Beginning {
        secrets,
        masks,
        unmaskable,
        workspace,
        trace,
        artifacts,
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
    /// The context, once the stacks are open.
    context: Option<Arc<CellContext>>,
}

struct Beginning {
    secrets: std::collections::BTreeMap<String, String>,
    masks: Arc<Masks>,
    unmaskable: Option<String>,
    workspace: Option<PathBuf>,
    trace: Option<AttemptTrace>,
    artifacts: mpsc::Sender<ArtifactPiece>,
}

impl Attempt {
    async fn run(mut self, begin: Beginning) {
        let mut verdict = self.live(begin).await;
        if let Some(context) = self.context.take() {
            self.collect(&context, &mut verdict).await;
        }
        // All logs and artifacts precede the verdict.
        self.services.logs.settle().await;
        self.services.logs.close().await;
        let Judgement {
            outcome,
            reason,
            timed_out,
            culprit,
        } = verdict.judgement.clone();
        self.sink
            .emit(EventKind::AttemptFinished {
                outcome,
                reason,
                timed_out,
                culprit,
            })
            .await;
        self.tear_down(&verdict).await;
    }

    /// Keeps artifacts. A cancel order that comes meanwhile leaves less time for it and for the clean-up.
    async fn collect(&self, context: &CellContext, verdict: &mut Verdict) {
        let (shorten, limit) = TimeLimit::new(verdict.collect);
        let outcome = verdict.judgement.outcome;
        let mut collecting = std::pin::pin!(collect::at_the_end(context, outcome, limit));
        let mut outside = Outside::new(self.cancel.clone());
        let problem = loop {
            tokio::select! {
                biased;
                input = outside.next() => {
                    if let Input::Cancelled(order) = input {
                        verdict.hurry(&order);
                        shorten.to(verdict.collect);
                    }
                }
                problem = &mut collecting => break problem,
            }
        };
        if let Some(problem) = problem {
            verdict.lacks(problem, self.job.keep);
        }
    }

    /// Opens the stacks and runs the actors, until there is a verdict.
    async fn live(&mut self, begin: Beginning) -> Verdict {
        let limit = Duration::from_millis(self.job.cell.timeout_ms);
        let mut core = Cell::new(self.job.keep, limit);
        let mut outside = Outside::new(self.cancel.clone());
        let mut input = Input::Assigned;
        let (context, stacks) = {
            // Dropped when it is given up. Stacks that are open are closed later; the reaper finds partly created objects
            // by their labels.
            let mut opening = std::pin::pin!(self.begin(begin));
            loop {
                for effect in core.handle(input) {
                    match effect {
                        Effect::Arm { timer, after } => outside.arm(timer, after),
                        Effect::End(verdict) => return verdict,
                        // Nothing is told to a sequence that hasn't begun.
                        Effect::Tell(_) => {}
                    }
                }
                input = tokio::select! {
                    opened = &mut opening => match opened {
                        Ok(opened) => break opened,
                        Err(why) => Input::Ended(Ending::NotBegun(why)),
                    },
                    input = outside.next() => input,
                };
            }
        };
        let (downs, mut downs_in) = mpsc::channel(64);
        let mut actors = self.actors(context, stacks, downs).await;
        let mut input = Input::Begun;
        loop {
            for effect in core.handle(input) {
                match effect {
                    Effect::Arm { timer, after } => outside.arm(timer, after),
                    Effect::Tell(input) => actors.tell(input).await,
                    Effect::End(verdict) => return verdict,
                }
            }
            input = tokio::select! {
                ending = actors.ended() => Input::Ended(ending),
                Some(down) = downs_in.recv() => Input::Down(Box::new(down)),
                input = outside.next() => input,
            };
        }
    }

    /// Spawns the actors.
    async fn actors(
        &self,
        context: Arc<CellContext>,
        stacks: Stacks,
        downs: mpsc::Sender<Down>,
    ) -> Actors {
        let (verdict, judged) = oneshot::channel();
        let stack = StackArgs {
            context: Arc::clone(&context),
            services: Arc::clone(&self.services),
            stacks,
            events: self.sink.clone(),
            downs,
            store: self.host.snapshots.clone(),
        };
        let sequence = SequenceArgs {
            context,
            events: self.sink.clone(),
            limits: Limits {
                cell: Duration::from_millis(self.job.cell.timeout_ms),
                grace: GRACE,
            },
            verdict,
        };
        Actors::spawn(stack, sequence, judged).await
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
            images: self.job.images.clone(),
            policy: Arc::clone(self.host.guard.policy()),
        };
        let began = self.sink.now();
        let stacks = self.open(scope).await;
        let queued = stacks.containers.as_ref().map(|stack| stack.queued());
        let opened = EventKind::StackOpened {
            began,
            queued_us: u64::try_from(queued.unwrap_or_default().as_micros()).unwrap_or(u64::MAX),
        };
        self.sink.emit(opened).await;
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
            artifacts: Artifacts::new(self.token.clone(), self.sink.clone(), begin.artifacts),
            demo_server: self.host.demo_server.clone(),
            guard: Arc::clone(&self.host.guard),
        });
        let context = Arc::new(context);
        self.context = Some(Arc::clone(&context));
        Ok((context, stacks))
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
        let refused = self.host.guard.policy().refuses(&Need::run());
        Stacks {
            processes: processes.and_then(|stack| match refused {
                None => Ok(stack),
                Some(refusal) => Err(RuntimeError::refused(&refusal).reason),
            }),
            containers,
        }
    }

    fn commands(&self, stacks: &Stacks) -> Result<Arc<dyn Stack>, String> {
        stacks.processes.clone()
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

fn not_there(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// What reaches an attempt from outside its actors: cancel orders, and the timers that it armed.
struct Outside {
    /// `None` when no order can arrive any more.
    orders: Option<watch::Receiver<Option<CancelOrder>>>,
    timers: JoinSet<Timer>,
}

impl Outside {
    fn new(mut orders: watch::Receiver<Option<CancelOrder>>) -> Self {
        // An order may have arrived before.
        orders.mark_changed();
        Outside {
            orders: Some(orders),
            timers: JoinSet::new(),
        }
    }

    fn arm(&mut self, timer: Timer, after: Duration) {
        self.timers.spawn(async move {
            tokio::time::sleep(after).await;
            timer
        });
    }

    /// Waits for the next order or timer.
    async fn next(&mut self) -> Input {
        loop {
            let changed = async {
                match &mut self.orders {
                    Some(orders) => orders.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changed => match (changed, &mut self.orders) {
                    (Ok(()), Some(orders)) => {
                        if let Some(order) = orders.borrow_and_update().clone() {
                            return Input::Cancelled(order);
                        }
                    }
                    _ => self.orders = None,
                },
                Some(Ok(timer)) = self.timers.join_next() => return Input::Fired(timer),
            }
        }
    }
}
