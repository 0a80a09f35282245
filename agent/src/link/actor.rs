//! The agent's root actor: owns the link's core, performs its effects and holds the cells' cancel orders.
//!
//! ```text
//! connection ──▶ Agent ──▶ cells (start, cancel)      cells ──events──▶ Agent ──▶ connection
//!                                                     cells ──bytes───▶ logs  ──▶ a connection of their own
//! ```
//! The actor never waits: the connection takes as much as fits, and cells receive cancel orders through a watch
//! channel.

use super::cells::{CellSpawner, Files, NoWorkspace, Starter};
use super::connect::Coordinator;
use super::connection;
use super::core::{About, Effect, Link};
use super::input::{Input, Wire};
use super::logs::actor::{self as log_actor, Logs, Order};
use super::logs::spool::{Limits as LogLimits, LogSpool, Over};
use super::overflow::Directory;
use super::spool::{Limits, Spool};
use super::stay::Stay;
use crate::clock::Clock;
use crate::workspace::Workspaces;
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn, WeakRecipient};
use kameo::error::Infallible;
use kameo::mailbox;
use kameo::message::{Context, Message};
use phalanx_proto::link::{Ahead, FromAgent, Hello, Offer, Snapshots, ToAgent};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::id::Token;
use phalanx_shared::plan::WantedImage;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Resolution of heartbeats and leases.
const TICK: Duration = Duration::from_millis(250);
/// Capacity of the mailbox; producers wait when it is full.
const MAILBOX: usize = 1024;

/// Prepares images ahead of the cells that need them.
pub trait Prefetcher: Send + Sync + 'static {
    /// Prepares these images and no others from now on. Returns immediately.
    fn prefetch(&self, images: Vec<WantedImage>);
}

/// Removes snapshots of stacks.
pub trait SnapshotRemover: Send + Sync + 'static {
    /// Removes the snapshots with these keys. Returns immediately; what is kept then is reported to the link.
    fn remove(&self, keys: Vec<String>);
}

/// Arguments of an agent's link.
pub struct Args {
    /// The agent's description for the coordinator.
    pub about: About,
    /// Id of this process, which differs from other processes with the same identity; [`crate::mourner`] reports its
    /// death.
    pub instance: String,
    /// The coordinator to connect to.
    pub coordinator: Coordinator,
    /// The agent's state directory; spools and workspaces are kept below it.
    pub state_dir: PathBuf,
    /// Runs attempts.
    pub cells: Arc<dyn CellSpawner>,
    /// Prepares images; `None` if there is no engine.
    pub images: Option<Arc<dyn Prefetcher>>,
    /// Removes snapshots; `None` if none are kept.
    pub snapshots: Option<Arc<dyn SnapshotRemover>>,
    /// The agent's clock.
    pub clock: Arc<dyn Clock>,
    /// Limits for unacknowledged events.
    pub events: Limits,
    /// Limits for logs.
    pub logs: LogLimits,
    /// How long the agent stays.
    pub stay: Stay,
}

/// Handle to a running agent. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    agent: ActorRef<Agent>,
    files: Files,
    left: CancellationToken,
}

/// Starts an agent's link. It connects, and reconnects, until the agent has left.
///
/// # Errors
/// The state directory can't be used.
pub async fn start(args: Args) -> io::Result<Handle> {
    let Args {
        about,
        instance,
        coordinator,
        state_dir,
        cells,
        images,
        snapshots,
        clock,
        events,
        logs,
        stay,
    } = args;
    let spool = Spool::new(Directory::create(state_dir.join("spool-events"))?, events);
    let log_spool = LogSpool::new(Directory::create(state_dir.join("spool-logs"))?, logs);
    let (over, overs) = mpsc::channel(64);
    let logs = log_actor::start(about.agent.clone(), coordinator.clone(), log_spool, over);
    let (room_sender, room) = watch::channel(true);
    let left = CancellationToken::new();
    let workspaces = Workspaces::new(state_dir.join("workspaces"));
    let (old, now) = (workspaces.clone(), clock.wall());
    // In the background, because there may be many.
    tokio::task::spawn_blocking(move || old.prune(now));
    let files = Files {
        coordinator: coordinator.clone(),
        workspaces,
        clock: clock.clone(),
    };
    let starter = Starter {
        cells,
        files: files.clone(),
        clock: clock.clone(),
        logs: logs.clone(),
        room,
    };
    let agent = Agent {
        core: Link::new(about, spool).staying(stay),
        instance,
        clock,
        starter,
        images,
        snapshots,
        logs,
        room: room_sender,
        wire: None,
        orders: BTreeMap::new(),
        left: left.clone(),
    };
    let agent = Agent::spawn_with_mailbox(agent, mailbox::bounded(MAILBOX));
    let inputs = agent.clone().recipient::<Input>();
    tokio::spawn(connection::keep(
        coordinator,
        inputs.downgrade(),
        left.clone(),
    ));
    tokio::spawn(tick(inputs.downgrade()));
    tokio::spawn(take_overs(overs, inputs.downgrade()));
    Ok(Handle { agent, files, left })
}

impl Handle {
    /// Accepts no new offers and leaves when all attempts are over.
    pub async fn drain(&self) {
        let _ = self.agent.tell(Input::Drain).await;
    }

    /// Cancels every attempt.
    pub async fn cancel_all(&self, order: CancelOrder) {
        let _ = self.agent.tell(Input::CancelAll(order)).await;
    }

    /// Reports that the engine's images have changed; the next Hello contains them.
    pub async fn holds_images(&self, images: Vec<String>) {
        let _ = self.agent.tell(Input::Images(images)).await;
    }

    /// Reports how far the images are that are prepared ahead.
    pub async fn ahead(&self, images: Vec<Ahead>) {
        let _ = self.agent.tell(Input::Ahead(images)).await;
    }

    /// Reports which snapshots the agent keeps now.
    pub async fn keeps(&self, snapshots: Snapshots) {
        let _ = self.agent.tell(Input::Snapshots(snapshots)).await;
    }

    /// Returns the directory of a workspace, which is fetched if it isn't here.
    ///
    /// # Errors
    /// The coordinator doesn't have it or can't be reached, or the disk fails.
    pub async fn workspace(&self, digest: &str) -> Result<PathBuf, NoWorkspace> {
        self.files.get(digest).await
    }

    /// Returns the attempts whose clean-up isn't over: the reaper must leave them alone.
    pub async fn live(&self) -> Vec<Token> {
        self.agent.ask(Live).await.unwrap_or_default()
    }

    /// Waits until the agent has left: it is drained and all events are delivered.
    pub async fn left(&self) {
        tokio::select! {
            () = self.left.cancelled() => {}
            // A panic of the actor ends the agent too.
            () = self.agent.wait_for_shutdown() => {}
        }
    }

    /// Ends the agent as if its process had been killed, for tests and for a coordinator that ends together with it:
    /// sends nothing more and cancels the cells.
    pub async fn stop(&self) {
        self.cancel_all(CancelOrder::at_once("the agent stops"))
            .await;
        self.left.cancel();
        let _ = self.agent.stop_gracefully().await;
        self.agent.wait_for_shutdown().await;
    }
}

async fn tick(agent: WeakRecipient<Input>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(agent) = agent.upgrade() else { return };
        if agent.tell(Input::Tick).await.is_err() {
            return;
        }
    }
}

async fn take_overs(mut overs: mpsc::Receiver<Over>, agent: WeakRecipient<Input>) {
    while let Some(over) = overs.recv().await {
        let Some(agent) = agent.upgrade() else { return };
        if agent.tell(Input::LogsOver(over)).await.is_err() {
            return;
        }
    }
}

/// The agent's root actor; see the module.
struct Agent {
    core: Link<Directory>,
    instance: String,
    clock: Arc<dyn Clock>,
    starter: Starter,
    images: Option<Arc<dyn Prefetcher>>,
    snapshots: Option<Arc<dyn SnapshotRemover>>,
    logs: Logs,
    room: watch::Sender<bool>,
    wire: Option<(u64, Wire)>,
    orders: BTreeMap<Token, watch::Sender<Option<CancelOrder>>>,
    left: CancellationToken,
}

struct Live;

impl Actor for Agent {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(args: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(args)
    }
}

impl Message<Live> for Agent {
    type Reply = Vec<Token>;

    async fn handle(&mut self, _: Live, _: &mut Context<Self, Self::Reply>) -> Vec<Token> {
        self.core.live().cloned().collect()
    }
}

impl Message<Input> for Agent {
    type Reply = ();

    async fn handle(&mut self, input: Input, ctx: &mut Context<Self, ()>) {
        let now = self.clock.monotonic();
        let effects = self.decide(now, input);
        self.perform(effects, ctx.actor_ref());
        let room = self.core.has_room();
        self.room
            .send_if_modified(|before| std::mem::replace(before, room) != room);
    }
}

impl Agent {
    fn decide(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        let current = self.wire.as_ref().map(|(generation, _)| *generation);
        match input {
            Input::Connected { generation, wire } => {
                self.wire = Some((generation, wire));
                self.core.connected(now)
            }
            Input::Received {
                generation,
                message,
            } if current == Some(generation) => {
                if let ToAgent::Welcome(welcome) = &*message {
                    self.starter.cells.narrow(welcome.policy.clone());
                }
                self.core.received(now, *message)
            }
            Input::Say {
                generation,
                message,
            } if current == Some(generation) => vec![Effect::Send(message)],
            Input::Broken { generation } if current.is_none_or(|c| c == generation) => {
                self.wire = None;
                self.core.disconnected();
                Vec::new()
            }
            // They belong to a connection that was given up.
            Input::Received { .. } | Input::Say { .. } | Input::Broken { .. } => Vec::new(),
            Input::Emitted(event) => self.core.emitted(now, event),
            Input::CellGone { token, at } => {
                self.orders.remove(&token);
                self.core.cell_gone(now, at, &token)
            }
            Input::LogsOver(over) => self.core.logs_over(now, over),
            Input::Images(images) => {
                self.core.holds_images(images);
                Vec::new()
            }
            Input::Ahead(images) => self.core.prepares(images),
            Input::Snapshots(snapshots) => self.core.keeps(snapshots),
            Input::CancelAll(order) => self.core.cancel_all(&order),
            Input::Drain => self.core.drain(now),
            Input::Tick => self.core.tick(now),
        }
    }

    fn perform(&mut self, effects: Vec<Effect>, me: &ActorRef<Self>) {
        for effect in effects {
            match effect {
                Effect::Send(FromAgent::Hello(hello)) => {
                    let instance = self.instance.clone();
                    let hello = Hello { instance, ..*hello };
                    self.send(FromAgent::Hello(Box::new(hello)));
                }
                Effect::Send(message) => self.send(message),
                Effect::Start(offer) => self.start(*offer, me),
                Effect::Cancel { token, order } => {
                    if order.force {
                        // The run's end waits for nothing but the logs.
                        let reason = format!("cancelled at once: {}", order.reason);
                        let token = token.clone();
                        self.logs.order(Order::NoArtifacts { token, reason });
                    }
                    if let Some(cell) = self.orders.get(&token) {
                        cell.send_replace(Some(order));
                    }
                }
                Effect::DropLogs { token, reason } => {
                    self.logs.order(Order::Drop { token, reason });
                }
                Effect::Prefetch(images) => {
                    if let Some(engine) = &self.images {
                        engine.prefetch(images);
                    }
                }
                Effect::RemoveSnapshots(keys) => {
                    if let Some(kept) = &self.snapshots {
                        kept.remove(keys);
                    }
                }
                Effect::Reconnect(reason) => {
                    tracing::warn!(reason, "giving up the connection");
                    self.cut();
                }
                Effect::Leave => {
                    tracing::info!("drained");
                    // Ends the stream after the Goodbye.
                    self.wire = None;
                    self.left.cancel();
                }
            }
        }
    }

    fn start(&mut self, offer: Offer, me: &ActorRef<Self>) {
        let token = offer.token.clone();
        tracing::info!(%token, cell = offer.job.cell.name, "attempt taken");
        self.logs.order(Order::Open(token.clone()));
        let order = self.starter.start(me.clone().recipient(), offer);
        self.orders.insert(token, order);
    }

    /// Hands a message to the transport. If the transport's queue is full, the connection is dead.
    fn send(&mut self, message: FromAgent) {
        let Some((_, wire)) = &self.wire else { return };
        if wire.sender.try_send(message.into()).is_err() {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if let Some((_, wire)) = self.wire.take() {
            wire.cut.cancel();
        }
        self.core.disconnected();
    }
}
