//! The actors around sessions: one [`Session`] per agent, and [`Dispatch`], which routes messages to sessions.
//!
//! ```text
//! server ── Greet ──▶ Dispatch ── spawns, links ──▶ Session × n ──▶ forward ──▶ FromAgents
//! ToAgents ─────────▶ Dispatch ── by agent/token ─▶ Session × n ──▶ connection
//! ```
//! A session never waits. It sends to its connection only what fits (a peer that doesn't read is cut off), and passes
//! facts to `forward.rs`.

use super::contract::{FromAgents, GoesOn, ToAgents};
use super::core::{AgentSession, ConnectionId, Effect, Fact, Settings};
use super::forward::{self, Outward};
use super::gate::SharedGate;
use super::heard::Heard;
use super::holders::Holders;
use super::logs::store::LogStore;
use crate::clock::Clock;
use crate::metrics::METRICS;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use phalanx_proto::link::{FromAgent, Hello, Obituary, Offer, ToAgent};
use phalanx_proto::specs::SpecsSent;
use phalanx_proto::v1;
use phalanx_shared::id::{AgentId, Token};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// How often sessions look at the clock: the resolution of all their deadlines.
const TICK: Duration = Duration::from_millis(250);

/// Sender of messages to an agent; tonic reads the other end.
pub(super) type Wire = mpsc::Sender<Result<v1::ToAgent, Status>>;

/// State that all sessions share.
#[derive(Clone)]
pub(super) struct Shared {
    pub settings: Settings,
    pub clock: Arc<dyn Clock>,
    pub gate: SharedGate,
    pub logs: LogStore,
    pub facts: mpsc::Sender<FromAgents>,
    pub heard: Heard,
    pub holders: Holders,
}

/// One agent, over all of its connections.
pub(super) struct Session {
    agent: AgentId,
    shared: Shared,
    core: AgentSession,
    /// The newest connection is the current one; older ones stay only until their end is reported.
    wires: BTreeMap<ConnectionId, (Wire, SpecsSent)>,
    outward: mpsc::Sender<Outward>,
    /// Offers in flight and when they were sent.
    offered: BTreeMap<Token, Duration>,
}

/// Input of a session.
pub(super) enum Input {
    Hello {
        connection: ConnectionId,
        wire: Wire,
        protocol: u32,
        hello: Hello,
    },
    Received {
        connection: ConnectionId,
        message: FromAgent,
    },
    Broken {
        connection: ConnectionId,
        reason: String,
    },
    Resumed(Vec<GoesOn>),
    Durable {
        token: Token,
        seq: u64,
    },
    NotDurable {
        token: Token,
    },
    Command(ToAgents),
    /// The agent process with this instance id ended.
    Died(String),
    Tick,
}

impl Actor for Session {
    type Args = (AgentId, Shared);
    type Error = Infallible;

    async fn on_start((agent, shared): Self::Args, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let outward = forward::start(agent.clone(), shared.facts.clone(), me.downgrade());
        tokio::spawn(tick(me.downgrade()));
        let now = shared.clock.monotonic();
        let (settings, gate) = (shared.settings.clone(), shared.gate.clone());
        let patience = settings.lease + settings.margin;
        let mut core = AgentSession::new(agent.clone(), settings, gate, now);
        let wall = shared.clock.wall();
        if let Some((instance, left)) = shared.holders.before(&agent, wall, patience) {
            core.was_held(instance, now + left);
        }
        Ok(Session {
            core,
            agent,
            shared,
            wires: BTreeMap::new(),
            outward,
            offered: BTreeMap::new(),
        })
    }
}

async fn tick(session: WeakActorRef<Session>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        let Some(session) = session.upgrade() else {
            return;
        };
        if session.tell(Input::Tick).await.is_err() {
            return;
        }
    }
}

impl Message<Input> for Session {
    type Reply = ();

    async fn handle(&mut self, input: Input, ctx: &mut Context<Self, ()>) {
        let now = self.shared.clock.monotonic();
        let effects = self.decide(now, input);
        if self.perform(now, effects) {
            ctx.stop();
        }
    }
}

impl Session {
    fn decide(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        match input {
            Input::Hello {
                connection,
                wire,
                protocol,
                hello,
            } => {
                self.wires
                    .insert(connection, (wire, SpecsSent::new(protocol)));
                let instance = hello.instance.clone();
                let effects = self.core.hello(now, connection, protocol, hello);
                if self.core.current() == Some(connection) {
                    self.shared.holders.note(&self.agent, &instance);
                }
                effects
            }
            Input::Received {
                connection,
                message,
            } => {
                if self.core.current() == Some(connection) {
                    let wall = self.shared.clock.wall();
                    self.shared.heard.note(&self.agent, wall);
                }
                self.core.received(now, connection, message)
            }
            Input::Broken { connection, reason } => {
                self.wires.remove(&connection);
                self.core.disconnected(now, connection, reason)
            }
            Input::Resumed(answer) => self.core.resumed(now, answer),
            Input::Durable { token, seq } => self.core.durable(&token, seq),
            Input::NotDurable { token } => self.core.not_durable(now, &token),
            Input::Command(command) => self.command(now, command),
            Input::Died(instance) => self.core.died(&instance),
            Input::Tick => self.core.tick(now),
        }
    }

    fn command(&mut self, now: Duration, command: ToAgents) -> Vec<Effect> {
        match command {
            ToAgents::Offer {
                agent: _,
                token,
                job,
                secrets,
                traceparent,
            } => {
                let offer = Offer {
                    token,
                    job,
                    secrets,
                    accept_within: self.shared.settings.accept_within,
                    traceparent,
                };
                self.core.offer(now, offer)
            }
            ToAgents::Cancel { token, order } => self.core.cancel(now, &token, order),
            ToAgents::Retire { token } => self.core.retire(&token),
            ToAgents::Drain { agent: _ } => self.core.drain(),
            ToAgents::Prefetch { agent: _, images } => self.core.prefetch(images),
        }
    }

    /// Performs effects in order. Returns `true` when the session is over.
    fn perform(&mut self, now: Duration, effects: Vec<Effect>) -> bool {
        let mut over = false;
        for effect in effects {
            self.count(now, &effect);
            let further = match effect {
                Effect::Send(message) => {
                    // The effects before this one opened the tokens of all attempts that the agent continues.
                    if matches!(message, ToAgent::Welcome(_)) {
                        self.shared.gate.welcome(&self.agent);
                    }
                    self.send(now, message)
                }
                Effect::Tell(fact) => self.tell(now, fact),
                Effect::Close { connection, reason } => {
                    tracing::info!(agent = %self.agent, connection, reason, "closing a connection");
                    if let Some((wire, _)) = self.wires.remove(&connection) {
                        let _ = wire.try_send(Err(Status::aborted(reason)));
                    }
                    Vec::new()
                }
                Effect::Opened(token) => {
                    self.shared.logs.open(&token, &self.agent);
                    Vec::new()
                }
                Effect::Closed(token) => {
                    self.shared.logs.close(&token);
                    Vec::new()
                }
                Effect::End => {
                    self.shared.gate.forget(&self.agent);
                    self.shared.holders.forget(&self.agent);
                    over = true;
                    Vec::new()
                }
            };
            over |= self.perform(now, further);
        }
        over
    }

    fn count(&mut self, now: Duration, effect: &Effect) {
        match effect {
            Effect::Send(ToAgent::Offer(offer)) => {
                self.offered.insert(offer.token.clone(), now);
            }
            Effect::Send(ToAgent::Abandon { .. }) => {
                METRICS.stale.inc();
            }
            Effect::Tell(Fact::Accepted { token }) => {
                if let Some(sent) = self.offered.remove(token) {
                    METRICS.offer_accept.observe(now.saturating_sub(sent));
                }
            }
            Effect::Tell(Fact::Declined { token, .. }) => {
                self.offered.remove(token);
                METRICS.offers_declined.inc();
            }
            Effect::Tell(Fact::Revoked { token, reason }) => {
                tracing::warn!(agent = %self.agent, %token, reason, "an attempt is taken from its agent");
            }
            Effect::Tell(Fact::Lost { .. }) => {
                METRICS.agents_lost.inc();
            }
            Effect::Closed(token) => {
                self.offered.remove(token);
            }
            Effect::Close { .. } => {
                METRICS.agents_refused.inc();
            }
            _ => {}
        }
    }

    /// Sends a message if there is room. Cuts off a peer that doesn't read; a well-behaved one has at most a few unread
    /// messages per attempt.
    fn send(&mut self, now: Duration, message: ToAgent) -> Vec<Effect> {
        let Some(mut current) = self.wires.last_entry() else {
            return Vec::new();
        };
        let connection = *current.key();
        let (wire, specs) = current.get_mut();
        let messages = specs.wire(message);
        if messages
            .into_iter()
            .all(|message| wire.try_send(Ok(message)).is_ok())
        {
            return Vec::new();
        }
        self.wires.remove(&connection);
        let reason = "the agent doesn't read what is sent to it".to_owned();
        self.core.disconnected(now, connection, reason)
    }

    fn tell(&mut self, now: Duration, fact: super::core::Fact) -> Vec<Effect> {
        let cut = match self.outward.try_send(Outward(fact)) {
            Ok(()) => return Vec::new(),
            Err(mpsc::error::TrySendError::Full(_)) => "the agent sends more than can be journaled",
            Err(mpsc::error::TrySendError::Closed(_)) => "the coordinator is going away",
        };
        // A fact that can't be passed on must not be followed by another one: start over from what is durable.
        tracing::warn!(agent = %self.agent, "{cut}");
        match self.wires.last_key_value() {
            Some((&connection, _)) => {
                if let Some((wire, _)) = self.wires.remove(&connection) {
                    let _ = wire.try_send(Err(Status::resource_exhausted(cut)));
                }
                self.core.disconnected(now, connection, cut.to_owned())
            }
            None => Vec::new(),
        }
    }
}

/// Routes messages and commands to sessions.
pub(super) struct Dispatch {
    shared: Shared,
    sessions: BTreeMap<AgentId, ActorRef<Session>>,
}

impl Actor for Dispatch {
    type Args = Shared;
    type Error = Infallible;

    async fn on_start(shared: Shared, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Dispatch {
            shared,
            sessions: BTreeMap::new(),
        })
    }

    /// Handles the end of a session. If it crashed (a bug in the coordinator), its agent counts as lost, with all of
    /// its attempts.
    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        let found = self.sessions.iter().find(|(_, session)| session.id() == id);
        let Some(agent) = found.map(|(agent, _)| agent.clone()) else {
            return Ok(ControlFlow::Continue(()));
        };
        self.sessions.remove(&agent);
        if !matches!(reason, ActorStopReason::Normal) {
            tracing::error!(%agent, ?reason, "a session died");
            self.shared.gate.forget(&agent);
            for token in self.shared.gate.lock().close_all(&agent) {
                self.shared.logs.close(&token);
            }
            let reason =
                "the coordinator's session with it died: a bug of the coordinator".to_owned();
            let _ = self
                .shared
                .facts
                .send(FromAgents::Lost { agent, reason })
                .await;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Dispatch {
    /// Sends a command to all sessions, since no agent holds its token. An agent that waits for the answer to its Hello
    /// may still hold it; only that agent's session knows.
    async fn tell_all(&self, command: ToAgents) {
        for session in self.sessions.values() {
            // A session that is over doesn't need it.
            let _ = session.tell(Input::Command(command.clone())).await;
        }
    }
}

/// A Hello that arrived over a new connection. Answered with the session that it belongs to.
pub(super) struct Greet {
    pub connection: ConnectionId,
    pub wire: Wire,
    pub protocol: u32,
    pub hello: Hello,
}

impl Message<Greet> for Dispatch {
    type Reply = ActorRef<Session>;

    async fn handle(&mut self, greet: Greet, ctx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let Greet {
            connection,
            wire,
            protocol,
            hello,
        } = greet;
        let agent = hello.agent.clone();
        let alive = self.sessions.get(&agent).filter(|s| s.is_alive()).cloned();
        let session = match alive {
            Some(session) => session,
            None => {
                let args = (agent.clone(), self.shared.clone());
                let session = Session::spawn_link(ctx.actor_ref(), args).await;
                self.sessions.insert(agent, session.clone());
                session
            }
        };
        // A session that ends at this moment drops the wire, and the agent reconnects.
        let _ = session
            .tell(Input::Hello {
                connection,
                wire,
                protocol,
                hello,
            })
            .await;
        session
    }
}

impl Message<Obituary> for Dispatch {
    type Reply = ();

    async fn handle(&mut self, obituary: Obituary, _: &mut Context<Self, ()>) {
        if let Some(session) = self.sessions.get(&obituary.agent) {
            // A session that is over has already handled it.
            let _ = session.tell(Input::Died(obituary.instance)).await;
        } else {
            let Obituary { agent, instance } = obituary;
            self.shared.holders.died(&agent, &instance);
        }
    }
}

impl Message<ToAgents> for Dispatch {
    type Reply = ();

    async fn handle(&mut self, command: ToAgents, _: &mut Context<Self, ()>) {
        let agent = match &command {
            ToAgents::Offer { agent, .. }
            | ToAgents::Drain { agent }
            | ToAgents::Prefetch { agent, .. } => Some(agent.clone()),
            ToAgents::Cancel { token, .. } | ToAgents::Retire { token } => {
                self.shared.gate.lock().holder(token)
            }
        };
        let Some(agent) = agent else {
            return self.tell_all(command).await;
        };
        let session = self.sessions.get(&agent);
        let unheard = match session {
            Some(session) => match session.tell(Input::Command(command)).await {
                Ok(()) => return,
                Err(error) => error.msg(),
            },
            None => Some(Input::Command(command)),
        };
        if let Some(Input::Command(ToAgents::Offer { token, .. })) = unheard {
            let reason = "the agent isn't connected".to_owned();
            let fact = FromAgents::Declined { token, reason };
            let facts = self.shared.facts.clone();
            // Not awaited here: the receiver of facts may be waiting for this actor to take its commands.
            tokio::spawn(async move { facts.send(fact).await });
        }
    }
}
