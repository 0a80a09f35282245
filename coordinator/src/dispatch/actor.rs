//! The actors around sessions: one [`Session`] per agent, and [`Dispatch`], which routes messages to sessions.
//!
//! ```text
//! server ── Greet ──▶ Dispatch ── spawns, links ──▶ Session × n ── reports ──▶ Run ──▶ Journal
//! ToAgents ─────────▶ Dispatch ── by agent/token ─▶ Session × n ◀────── durable ─────────┘
//! ```
//! A session never waits. It sends to its connection only what fits (a peer that doesn't read is cut off), and its
//! reports go to the mailboxes of runs, which take them at once. Its own mailbox is unbounded, so that the journal and
//! runs never wait for it. What may be in it is bounded: [`WAITING`] messages of each connection, the events of its
//! attempts that aren't durable, and a few commands per attempt.

use super::contract::{FromAgents, Report, Resumed, ToAgents, ToRun};
use super::core::{AgentSession, ConnectionId, Effect, Input, Settings};
use super::gate::SharedGate;
use super::heard::Heard;
use super::holders::Holders;
use super::logs::store::LogStore;
use super::reason::{AgentGone, DeclineReason};
use super::sequence::InSequence;
use crate::clock::Clock;
use crate::journal::Receipt;
use crate::metrics::METRICS;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::mailbox;
use kameo::message::{Context, Message};
use phalanx_proto::link::{FromAgent, Hello, Obituary, Offer, ToAgent};
use phalanx_proto::specs::SpecsSent;
use phalanx_proto::v1;
use phalanx_shared::id::{AgentId, Token};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

/// How often sessions look at the clock: the resolution of all their deadlines.
const TICK: Duration = Duration::from_millis(250);

/// Messages of one connection that may wait for the session. Beyond that, the connection isn't read.
pub(super) const WAITING: usize = 64;

/// Sender of messages to an agent; tonic reads the other end.
pub(super) type Wire = mpsc::Sender<Result<v1::ToAgent, Status>>;

/// State that all sessions share.
#[derive(Clone)]
pub(super) struct Shared {
    pub settings: Settings,
    pub clock: Arc<dyn Clock>,
    pub gate: SharedGate,
    pub logs: LogStore,
    pub agents: mpsc::UnboundedSender<FromAgents>,
    pub heard: Heard,
    pub holders: Holders,
}

/// One agent, over all of its connections.
pub(super) struct Session {
    agent: AgentId,
    me: WeakActorRef<Self>,
    shared: Shared,
    core: AgentSession,
    /// The newest connection is the current one; older ones stay only until their end is reported.
    wires: BTreeMap<ConnectionId, (Wire, SpecsSent)>,
    /// The way to the run of each attempt.
    runs: BTreeMap<Token, Arc<dyn ToRun>>,
    /// Offers in flight and when they were sent.
    offered: BTreeMap<Token, Duration>,
}

/// A message to a session.
pub(super) enum ToSession {
    Hello {
        connection: ConnectionId,
        wire: Wire,
        protocol: u32,
        hello: Hello,
    },
    Received {
        connection: ConnectionId,
        message: FromAgent,
        /// Its place among the waiting messages of its connection.
        _room: OwnedSemaphorePermit,
    },
    Broken {
        connection: ConnectionId,
        reason: String,
    },
    Resumed {
        connection: ConnectionId,
        attempts: Vec<Resumed>,
    },
    Offer {
        offer: Offer,
        run: OnItsWay,
    },
    /// An input that the core takes as it is.
    Plain(Input),
}

/// The way to the run of an offer that no session has taken yet. If none does, because the session ends at this moment,
/// the offer is declined.
pub(super) struct OnItsWay(Option<Arc<dyn ToRun>>);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run.report(Report::Declined(DeclineReason::NotConnected));
        }
    }
}

impl Actor for Session {
    type Args = (AgentId, Shared);
    type Error = Infallible;

    async fn on_start((agent, shared): Self::Args, me: ActorRef<Self>) -> Result<Self, Infallible> {
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
            me: me.downgrade(),
            shared,
            wires: BTreeMap::new(),
            runs: BTreeMap::new(),
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
        if session.tell(ToSession::Plain(Input::Tick)).await.is_err() {
            return;
        }
    }
}

impl Message<ToSession> for Session {
    type Reply = ();

    async fn handle(&mut self, message: ToSession, ctx: &mut Context<Self, ()>) {
        let now = self.shared.clock.monotonic();
        let effects = self.decide(now, message);
        if self.perform(now, effects) {
            ctx.stop();
        }
    }
}

impl Session {
    fn decide(&mut self, now: Duration, message: ToSession) -> Vec<Effect> {
        match message {
            ToSession::Hello {
                connection,
                wire,
                protocol,
                hello,
            } => {
                self.wires
                    .insert(connection, (wire, SpecsSent::new(protocol)));
                let instance = hello.instance.clone();
                let input = Input::Hello {
                    connection,
                    protocol,
                    hello,
                };
                let effects = self.core.handle(input, now);
                if self.core.current() == Some(connection) {
                    self.shared.holders.note(&self.agent, &instance);
                }
                effects
            }
            ToSession::Received {
                connection,
                message,
                _room,
            } => {
                if self.core.current() == Some(connection) {
                    let wall = self.shared.clock.wall();
                    self.shared.heard.note(&self.agent, wall);
                }
                let input = Input::Received {
                    connection,
                    message,
                };
                self.core.handle(input, now)
            }
            ToSession::Broken { connection, reason } => {
                self.wires.remove(&connection);
                self.core.handle(Input::Broken { connection, reason }, now)
            }
            ToSession::Resumed {
                connection,
                attempts,
            } => {
                if self.core.current() != Some(connection) {
                    return Vec::new();
                }
                let apart = |Resumed { goes_on, run }: Resumed| {
                    self.runs.insert(goes_on.token.clone(), run);
                    goes_on
                };
                let attempts = attempts.into_iter().map(apart).collect();
                let input = Input::Resumed {
                    connection,
                    attempts,
                };
                self.core.handle(input, now)
            }
            ToSession::Offer { offer, mut run } => {
                if let Some(run) = run.0.take() {
                    self.runs.insert(offer.token.clone(), run);
                }
                self.core.handle(Input::Offer(offer), now)
            }
            ToSession::Plain(input) => self.core.handle(input, now),
        }
    }

    /// Performs effects in order. Returns `true` when the session is over.
    fn perform(&mut self, now: Duration, effects: Vec<Effect>) -> bool {
        let mut over = false;
        for effect in effects {
            self.count(now, &effect);
            match effect {
                Effect::Send(message) => {
                    // The effects before this one opened the tokens of all attempts that the agent continues.
                    if matches!(message, ToAgent::Welcome(_)) {
                        self.shared.gate.welcome(&self.agent);
                    }
                    let further = self.send(now, message);
                    over |= self.perform(now, further);
                }
                Effect::Accepted { token } => self.report(&token, Report::Accepted),
                Effect::Declined { token, reason } => {
                    self.report(&token, Report::Declined(reason));
                }
                Effect::Revoked { token, cause } => self.report(&token, Report::Revoked(cause)),
                Effect::Events { token, events } => {
                    let receipt = self.receipt(&token, &events);
                    self.report(&token, Report::Events { events, receipt });
                }
                Effect::Connected {
                    connection,
                    agent,
                    inventory,
                } => {
                    let me = self.me.clone();
                    let answer = Box::new(move |attempts| {
                        let resumed = ToSession::Resumed {
                            connection,
                            attempts,
                        };
                        pass_on(&me, resumed);
                    });
                    self.tell(FromAgents::Connected {
                        agent,
                        inventory,
                        answer,
                    });
                }
                Effect::Disconnected { reason } => {
                    let agent = self.agent.clone();
                    self.tell(FromAgents::Disconnected { agent, reason });
                }
                Effect::Draining => {
                    let agent = self.agent.clone();
                    self.tell(FromAgents::Draining { agent });
                }
                Effect::Ahead { images } => {
                    let agent = self.agent.clone();
                    self.tell(FromAgents::Ahead { agent, images });
                }
                Effect::Snapshots(snapshots) => {
                    let agent = self.agent.clone();
                    let snapshots = Arc::new(snapshots);
                    self.tell(FromAgents::Snapshots { agent, snapshots });
                }
                Effect::Lost { gone } => {
                    let agent = self.agent.clone();
                    self.tell(FromAgents::Lost { agent, gone });
                }
                Effect::Close { connection, reason } => {
                    tracing::info!(agent = %self.agent, connection, reason, "closing a connection");
                    if let Some((wire, _)) = self.wires.remove(&connection) {
                        let _ = wire.try_send(Err(Status::aborted(reason)));
                    }
                }
                Effect::Opened(token) => self.shared.logs.open(&token, &self.agent),
                Effect::Closed(token) => {
                    self.shared.logs.close(&token);
                    self.runs.remove(&token);
                }
                Effect::End => {
                    self.shared.gate.forget(&self.agent);
                    self.shared.holders.forget(&self.agent);
                    over = true;
                }
            }
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
            Effect::Accepted { token } => {
                if let Some(sent) = self.offered.remove(token) {
                    METRICS.offer_accept.observe(now.saturating_sub(sent));
                }
            }
            Effect::Declined { token, .. } => {
                self.offered.remove(token);
                METRICS.offers_declined.inc();
            }
            Effect::Revoked { token, cause } => {
                tracing::warn!(agent = %self.agent, %token, %cause, "an attempt is taken from its agent");
            }
            Effect::Lost { .. } => {
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
        self.core.handle(Input::Broken { connection, reason }, now)
    }

    fn report(&self, token: &Token, report: Report) {
        if let Some(run) = self.runs.get(token) {
            run.report(report);
        }
    }

    /// Returns the receipt that tells this session when events are on disk.
    fn receipt(&self, token: &Token, events: &InSequence) -> Receipt {
        let (me, token, seq) = (self.me.clone(), token.clone(), events.last());
        let connection = self.core.current().unwrap_or_default();
        Receipt::new(move |stored| {
            let input = match stored {
                true => Input::Durable { token, seq },
                false => Input::NotDurable { connection, token },
            };
            pass_on(&me, ToSession::Plain(input));
        })
    }

    fn tell(&self, change: FromAgents) {
        // Its receiver ends only with the coordinator.
        let _ = self.shared.agents.send(change);
    }
}

/// Passes a message to a session without waiting; its mailbox is unbounded. A session that is over doesn't need it.
fn pass_on(session: &WeakActorRef<Session>, message: ToSession) {
    if let Some(session) = session.upgrade() {
        let _ = session.tell(message).try_send();
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
            let gone = AgentGone::SessionDied;
            let _ = self.shared.agents.send(FromAgents::Lost { agent, gone });
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Dispatch {
    /// Passes an input to the session of an agent, if there is one.
    fn to_agent(&self, agent: &AgentId, input: Input) {
        if let Some(session) = self.sessions.get(agent) {
            // A session that is over doesn't need it.
            let _ = session.tell(ToSession::Plain(input)).try_send();
        }
    }

    /// Passes an input about an attempt to the session that holds it. If no agent holds it, passes it to all sessions:
    /// an agent that waits for the answer to its Hello may still hold it, and only that agent's session knows.
    fn to_holder(&self, token: &Token, input: impl Fn() -> Input) {
        let holder = self.shared.gate.lock().holder(token);
        match holder {
            Some(agent) => self.to_agent(&agent, input()),
            None => self
                .sessions
                .keys()
                .for_each(|agent| self.to_agent(agent, input())),
        }
    }

    fn offer(&self, agent: &AgentId, offer: Offer, run: Arc<dyn ToRun>) {
        let run = OnItsWay(Some(run));
        if let Some(session) = self.sessions.get(agent) {
            let _ = session.tell(ToSession::Offer { offer, run }).try_send();
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
                let me = ctx.actor_ref();
                let session =
                    Session::spawn_link_with_mailbox(me, args, mailbox::unbounded()).await;
                self.sessions.insert(agent, session.clone());
                session
            }
        };
        // A session that ends at this moment drops the wire, and the agent reconnects.
        let _ = session
            .tell(ToSession::Hello {
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
            let instance = obituary.instance;
            let died = ToSession::Plain(Input::Died { instance });
            let _ = session.tell(died).await;
        } else {
            let Obituary { agent, instance } = obituary;
            self.shared.holders.died(&agent, &instance);
        }
    }
}

impl Message<ToAgents> for Dispatch {
    type Reply = ();

    async fn handle(&mut self, command: ToAgents, _: &mut Context<Self, ()>) {
        match command {
            ToAgents::Offer {
                agent,
                token,
                job,
                secrets,
                traceparent,
                run,
            } => {
                let offer = Offer {
                    token,
                    job,
                    secrets,
                    accept_within: self.shared.settings.accept_within,
                    traceparent,
                };
                self.offer(&agent, offer, run);
            }
            ToAgents::Cancel { token, order } => self.to_holder(&token, || Input::Cancel {
                token: token.clone(),
                order: order.clone(),
            }),
            ToAgents::Retire { token } => self.to_holder(&token, || Input::Retire {
                token: token.clone(),
            }),
            ToAgents::Drain { agent } => self.to_agent(&agent, Input::Drain),
            ToAgents::Prefetch { agent, images } => {
                self.to_agent(&agent, Input::Prefetch { images });
            }
            ToAgents::RemoveSnapshots { agent, keys } => {
                self.to_agent(&agent, Input::RemoveSnapshots { keys });
            }
            ToAgents::Reconnect { agent } => self.to_agent(&agent, Input::Reconnect),
        }
    }
}
