//! The pure core of a session. There is one session per agent; it spans all of the agent's connections, from the first
//! Hello until the agent is lost.
//!
//! Inputs arrive with the current time; effects are returned as data and performed by `actor.rs`. A session knows
//! connections, sequence numbers and leases. It doesn't know runs, queues or the journal: these receive facts
//! ([`Effect::Tell`]) and answer through [`AgentSession::resumed`] and [`AgentSession::durable`].
//!
//! stage: offered: the offer goes to the agent's session, over `proto/phalanx/v1/agent_link.proto`

use super::attempt::{Attempt, Cancel, Sequence, Stage};
use super::budget::size;
use super::contract::{AgentInfo, GoesOn, InventoryItem};
use super::gate::{SharedGate, Stale};
use phalanx_proto::link::{FromAgent, Hello, ToAgent, Welcome};
use phalanx_shared::event::Event;
use phalanx_shared::id::{AgentId, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Batches of one attempt that may wait for the journal. A well-behaved agent has at most four in flight.
const MAX_PENDING: usize = 64;

/// Time and size limits of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Epoch of the coordinator's current term of office.
    pub epoch: u64,
    /// Version of the coordinator's program.
    pub version: String,
    /// How long an answered heartbeat entitles an agent to run its attempts.
    pub lease: Duration,
    /// Interval between an agent's heartbeats.
    pub heartbeat: Duration,
    /// How much longer than the lease the coordinator waits, so that the agent stops first.
    pub margin: Duration,
    /// How long an agent may take to reconnect after its connection breaks; less if its lease and margin end sooner. A
    /// value below the lease would turn a cut connection into a lost agent (against I8). A larger one delays giving up
    /// agents whose death no one reports.
    pub reset_grace: Duration,
    /// How long an offer may stay unanswered before the cell goes back to the queue.
    pub accept_within: Duration,
    /// How much longer than its cell's timeout an attempt may take: opening stacks, `always` steps, logs, clean-up.
    /// After that, the attempt is revoked from its agent. Otherwise an agent that answers heartbeats and does nothing
    /// else would hold it forever.
    pub attempt_margin: Duration,
    /// Maximum bytes of events over all attempts that one agent holds.
    pub agent_event_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            epoch: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lease: Duration::from_secs(10),
            heartbeat: Duration::from_secs(2),
            margin: Duration::from_secs(3),
            reset_grace: Duration::from_secs(13),
            accept_within: Duration::from_secs(5),
            attempt_margin: Duration::from_secs(300),
            agent_event_bytes: 512 << 20,
        }
    }
}

/// Number of an agent's connection, assigned by the code that accepts connections.
pub type ConnectionId = u64;

/// An effect that the session's actor performs.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send a message to the agent over its current connection.
    Send(ToAgent),
    /// Pass a fact to the rest of the coordinator. Order is kept.
    Tell(Fact),
    /// Close a connection.
    Close {
        connection: ConnectionId,
        reason: String,
    },
    /// Accept logs of this attempt from now on.
    Opened(Token),
    /// No more logs of this attempt will come.
    Closed(Token),
    /// End the session: the agent is lost.
    End,
}

/// A fact for the rest of the coordinator: [`super::contract::FromAgents`] without its channels.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The agent said Hello. Answered by [`AgentSession::resumed`].
    Connected {
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
    },
    /// The connection broke.
    Disconnected { reason: String },
    /// The agent is lost.
    Lost { reason: String },
    /// The agent takes no new attempts.
    Draining,
    /// The agent accepted an offer.
    Accepted { token: Token },
    /// An offer was declined, or failed.
    Declined { token: Token, reason: String },
    /// An attempt was revoked from its agent.
    Revoked { token: Token, reason: String },
    /// Events passed the gate. Answered by [`AgentSession::durable`].
    Events { token: Token, events: Vec<Event> },
}

/// State of the agent's connection.
#[derive(Debug, PartialEq)]
pub(super) enum Connection {
    /// No connection. The agent is lost if it isn't back at `until`.
    Down {
        until: Duration,
    },
    /// A Hello arrived; the rest of the coordinator has to answer it.
    Greeted {
        id: ConnectionId,
    },
    Up {
        id: ConnectionId,
    },
}

/// The session of one agent. See the module documentation.
#[derive(Debug)]
pub struct AgentSession {
    pub(super) agent: AgentId,
    pub(super) settings: Settings,
    pub(super) gate: SharedGate,
    pub(super) connection: Connection,
    pub(super) protocol: u32,
    /// Instance id of the agent's process; none before the first Hello.
    pub(super) instance: Option<String>,
    pub(super) attempts: BTreeMap<Token, Attempt>,
    pub(super) inventory: BTreeSet<Token>,
    /// Orders to cancel that arrived between the Hello and the answer to it.
    pub(super) early: BTreeMap<Token, Cancel>,
    /// When the last message arrived.
    pub(super) heard: Duration,
    pub(super) ticked: Option<Duration>,
    pub(super) draining: bool,
    pub(super) ended: bool,
}

pub(super) type Effects = Vec<Effect>;

impl AgentSession {
    /// Creates the session of an agent that is about to say Hello.
    pub fn new(agent: AgentId, settings: Settings, gate: SharedGate, now: Duration) -> Self {
        // The Hello is on its way. Nothing that comes before it, such as a tick, may end the session.
        let until = now + settings.lease + settings.margin;
        AgentSession {
            agent,
            settings,
            gate,
            connection: Connection::Down { until },
            protocol: 0,
            instance: None,
            attempts: BTreeMap::new(),
            inventory: BTreeSet::new(),
            early: BTreeMap::new(),
            heard: now,
            ticked: None,
            draining: false,
            ended: false,
        }
    }

    /// Sets the process that was this agent in the coordinator's previous term. It may still be the agent until
    /// `until`.
    pub fn was_held(&mut self, instance: String, until: Duration) {
        self.instance = Some(instance);
        self.connection = Connection::Down { until };
    }

    /// Returns the current connection.
    pub fn current(&self) -> Option<ConnectionId> {
        match self.connection {
            Connection::Down { .. } => None,
            Connection::Greeted { id } | Connection::Up { id } => Some(id),
        }
    }

    /// Returns whether a process is this agent, or may still be.
    pub fn is_held(&self) -> bool {
        self.instance.is_some() && !self.ended
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.connection, Connection::Up { .. })
    }

    /// Handles a Hello on a new connection, which replaces the previous one. The protocol version is already agreed.
    ///
    /// The Hello must come from the same process unless that process is gone: an identity that is held can't be taken
    /// over. Otherwise anyone who copies an agent's directory, or reads its id in a list, would get its offers, and
    /// each of the two would end the other's attempts.
    pub fn hello(
        &mut self,
        now: Duration,
        id: ConnectionId,
        protocol: u32,
        hello: Hello,
    ) -> Effects {
        let mut effects = Vec::new();
        if self.ended {
            return close(id, "the session is over, come again");
        }
        if self.is_held() && self.instance.as_ref() != Some(&hello.instance) {
            return close(id, HELD);
        }
        if let Some(before) = self.current() {
            let reason = "a newer connection of the same agent takes its place";
            effects.extend(close(before, reason));
        }
        self.connection = Connection::Greeted { id };
        self.early.clear();
        self.protocol = protocol;
        self.heard = now;
        self.instance = Some(hello.instance.clone());
        let (agent, inventory) = take_apart(hello);
        self.inventory = inventory.iter().map(|item| item.token.clone()).collect();
        self.settle_offers(now, &mut effects);
        effects.push(Effect::Tell(Fact::Connected { agent, inventory }));
        effects
    }

    /// Settles the offers that were in flight when the connection broke: those that the agent holds arrived, the rest
    /// didn't.
    fn settle_offers(&mut self, now: Duration, effects: &mut Effects) {
        let offered = |a: &Attempt| matches!(a.stage, Stage::Offered { .. } | Stage::Unsent(_));
        let open: Vec<Token> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| offered(attempt))
            .map(|(token, _)| token.clone())
            .collect();
        for token in open {
            if self.inventory.contains(&token) {
                self.accepted(now, &token, effects);
            } else {
                self.declined(&token, "the offer was lost with the connection", effects);
            }
        }
    }

    /// Handles the answer to a Hello: which attempts of the inventory continue, and each one's last durable sequence
    /// number.
    pub fn resumed(&mut self, now: Duration, answer: Vec<GoesOn>) -> Effects {
        let Connection::Greeted { id } = self.connection else {
            return Vec::new();
        };
        self.connection = Connection::Up { id };
        let resume: BTreeMap<Token, GoesOn> = answer
            .into_iter()
            .filter(|goes_on| self.inventory.contains(&goes_on.token))
            .map(|goes_on| (goes_on.token.clone(), goes_on))
            .collect();
        let mut effects = Vec::new();
        self.keep_only(&resume, &mut effects);
        let margin = self.settings.attempt_margin;
        for (token, goes_on) in &resume {
            self.gate.lock().open(token.clone(), self.agent.clone());
            effects.push(Effect::Opened(token.clone()));
            let known = self.attempts.remove(token);
            // The time allowed keeps counting. For an attempt from an earlier term, it starts again.
            let overdue = known.as_ref().and_then(|a| a.overdue);
            let said = known.as_ref().map_or(0, |a| a.said);
            let early = self.early.remove(token);
            let cancel = early.or(known.and_then(|a| a.cancel));
            let mut attempt = Attempt {
                overdue,
                said,
                ..Attempt::resumed(goes_on.durable_seq, goes_on.timeout)
            };
            attempt.count_from(now, margin);
            if let Some(cancel) = &cancel {
                attempt.end_by(cancel.end_by(now, margin));
            }
            attempt.cancel = cancel;
            self.attempts.insert(token.clone(), attempt);
        }
        let Settings {
            epoch,
            version,
            lease,
            heartbeat,
            ..
        } = self.settings.clone();
        effects.push(Effect::Send(ToAgent::Welcome(Welcome {
            protocol: self.protocol,
            epoch,
            lease,
            heartbeat,
            resume: resume
                .into_iter()
                .map(|(token, goes_on)| (token, goes_on.durable_seq))
                .collect(),
            coordinator_version: version,
        })));
        self.catch_up(now, &mut effects);
        effects
    }

    /// Closes the attempts that the session knows and the agent doesn't continue. Keeps offers made since the Hello:
    /// they haven't been sent yet.
    fn keep_only(&mut self, resume: &BTreeMap<Token, GoesOn>, effects: &mut Effects) {
        let over: Vec<Token> = self
            .attempts
            .iter()
            .filter(|(token, a)| {
                !resume.contains_key(*token) && !matches!(a.stage, Stage::Unsent(_))
            })
            .map(|(token, _)| token.clone())
            .collect();
        for token in over {
            self.close_gate(&token, effects);
        }
    }

    /// Sends what couldn't be sent without a connection.
    fn catch_up(&mut self, now: Duration, effects: &mut Effects) {
        if self.draining {
            effects.push(Effect::Send(ToAgent::Drain));
        }
        let until = now + self.settings.accept_within;
        for (token, attempt) in &mut self.attempts {
            if let Stage::Unsent(_) = attempt.stage {
                let stage = std::mem::replace(&mut attempt.stage, Stage::Offered { until });
                if let Stage::Unsent(offer) = stage {
                    effects.push(Effect::Send(ToAgent::Offer(*offer)));
                }
            }
            if let Some(cancel) = attempt.cancel.as_mut().filter(|c| !c.arrived) {
                cancel.sent = Some(now);
                effects.push(Effect::Send(cancel.message(token)));
            }
        }
    }

    /// Handles the end of a connection. Ignores connections other than the current one.
    pub fn disconnected(&mut self, now: Duration, id: ConnectionId, reason: String) -> Effects {
        if self.current() != Some(id) || self.ended {
            return Vec::new();
        }
        let until = self.patience().min(now + self.settings.reset_grace);
        self.connection = Connection::Down { until };
        vec![Effect::Tell(Fact::Disconnected { reason })]
    }

    /// Returns when a silent agent is considered lost.
    pub(super) fn patience(&self) -> Duration {
        self.heard + self.settings.lease + self.settings.margin
    }

    /// Handles a message. Ignores messages from a superseded connection.
    pub fn received(&mut self, now: Duration, id: ConnectionId, message: FromAgent) -> Effects {
        if self.current() != Some(id) || self.ended {
            return Vec::new();
        }
        if !self.is_up() {
            return self.broken_off(now, "spoke before the Welcome");
        }
        self.heard = now;
        let mut effects = Vec::new();
        match message {
            FromAgent::Hello(_) => return self.broken_off(now, "said Hello twice"),
            FromAgent::Heartbeat { number } => {
                effects.push(Effect::Send(ToAgent::Heartbeat { number }));
            }
            FromAgent::Draining => effects.push(Effect::Tell(Fact::Draining)),
            FromAgent::Goodbye { reason } => self.lost(&format!("it left: {reason}"), &mut effects),
            FromAgent::Accept { token } => {
                self.spoken_of(&token, &mut effects, |session, token, effects| {
                    session.accepted(now, token, effects);
                });
            }
            FromAgent::Decline { token, reason } => {
                self.spoken_of(&token, &mut effects, |session, token, effects| {
                    session.declined(token, &reason, effects);
                });
            }
            FromAgent::Cancelling { token } => {
                self.spoken_of(&token, &mut effects, |session, token, _| {
                    let attempt = session.attempts.get_mut(token);
                    if let Some(cancel) = attempt.and_then(|a| a.cancel.as_mut()) {
                        cancel.arrived = true;
                    }
                });
            }
            FromAgent::Events { token, events } => {
                let mut too_much = false;
                self.spoken_of(&token, &mut effects, |session, token, effects| {
                    too_much = !session.events(now, token, events, effects);
                });
                if too_much {
                    return self.broken_off(now, "sends more than it may without acknowledgement");
                }
            }
        }
        effects
    }

    /// Handles an agent's message about an attempt if its token passes the gate; otherwise answers with `Abandon`.
    fn spoken_of(
        &mut self,
        token: &Token,
        effects: &mut Effects,
        then: impl FnOnce(&mut Self, &Token, &mut Effects),
    ) {
        let verdict: Result<(), Stale> = self.gate.lock().check(&self.agent, token);
        match verdict {
            Ok(()) => then(self, token, effects),
            Err(stale) => effects.push(Effect::Send(ToAgent::Abandon {
                token: token.clone(),
                reason: stale.to_string(),
            })),
        }
    }

    fn accepted(&mut self, now: Duration, token: &Token, effects: &mut Effects) {
        let margin = self.settings.attempt_margin;
        let Some(attempt) = self.attempts.get_mut(token) else {
            return;
        };
        if !matches!(attempt.stage, Stage::Held) {
            attempt.stage = Stage::Held;
            attempt.count_from(now, margin);
            let token = token.clone();
            effects.push(Effect::Tell(Fact::Accepted { token }));
        }
    }

    /// Closes an offer that was declined or failed. An accepted offer can't be declined any more.
    pub(super) fn declined(&mut self, token: &Token, reason: &str, effects: &mut Effects) {
        let held = |attempt: &Attempt| matches!(attempt.stage, Stage::Held);
        if self.attempts.get(token).is_none_or(held) {
            return;
        }
        self.close_gate(token, effects);
        effects.push(Effect::Tell(Fact::Declined {
            token: token.clone(),
            reason: reason.to_owned(),
        }));
    }

    /// Revokes an attempt from its agent and tells the agent to abandon it.
    pub(super) fn revoke(&mut self, token: &Token, reason: String, effects: &mut Effects) {
        self.close_gate(token, effects);
        let token = token.clone();
        effects.push(Effect::Tell(Fact::Revoked {
            token: token.clone(),
            reason: reason.clone(),
        }));
        effects.extend(self.if_up(ToAgent::Abandon { token, reason }));
    }

    /// Passes on events that are new. Returns false if the agent sends more than it may.
    fn events(
        &mut self,
        now: Duration,
        token: &Token,
        events: Vec<Event>,
        effects: &mut Effects,
    ) -> bool {
        // Events imply that the offer arrived, even if the Accept was lost.
        self.accepted(now, token, effects);
        let lie = self.gate.lock().check_events(&self.agent, token, &events);
        if let Err(lie) = lie {
            self.revoke(token, lie.to_string(), effects);
            return true;
        }
        #[cfg(test)]
        if !self.attempts.contains_key(token) {
            // Reached only with the gate off.
            let (token, events) = (token.clone(), events);
            effects.push(Effect::Tell(Fact::Events { token, events }));
            return true;
        }
        let Some(attempt) = self.attempts.get_mut(token) else {
            return true;
        };
        let token = token.clone();
        match attempt.take(events) {
            Sequence::New(events) => {
                let fits = attempt.pending <= MAX_PENDING;
                attempt.said += events.iter().map(|e| size(&e.kind)).sum::<u64>();
                effects.push(Effect::Tell(Fact::Events { token, events }));
                self.keep_budget(effects);
                return fits;
            }
            Sequence::Repeated => {
                // The acknowledgement may have been lost.
                let seq = attempt.durable;
                effects.push(Effect::Send(ToAgent::Ack { token, seq }));
            }
            Sequence::Hole => {
                let from_seq = attempt.received + 1;
                effects.push(Effect::Send(ToAgent::Resend { token, from_seq }));
            }
        }
        true
    }

    /// Closes the current connection; the agent may reconnect.
    pub(super) fn broken_off(&mut self, now: Duration, reason: &str) -> Effects {
        let Some(id) = self.current() else {
            return Vec::new();
        };
        let mut effects = close(id, reason);
        effects.extend(self.disconnected(now, id, reason.to_owned()));
        effects
    }

    pub(super) fn if_up(&self, message: ToAgent) -> Effects {
        if self.is_up() {
            vec![Effect::Send(message)]
        } else {
            Vec::new()
        }
    }

    pub(super) fn close_gate(&mut self, token: &Token, effects: &mut Effects) {
        self.attempts.remove(token);
        self.gate.lock().close(token);
        effects.push(Effect::Closed(token.clone()));
    }

    /// Handles a report that a process of the agent ended. Ignores processes other than the newest one.
    pub fn died(&mut self, instance: &str) -> Effects {
        let mut effects = Vec::new();
        let newest = self.instance.as_deref() == Some(instance);
        if !self.ended && !instance.is_empty() && newest {
            self.lost("its process died", &mut effects);
        }
        effects
    }

    /// Ends the session: the agent's attempts are over, and its later messages about them are stale.
    pub(super) fn lost(&mut self, reason: &str, effects: &mut Effects) {
        self.ended = true;
        for token in self.attempts.keys().cloned().collect::<Vec<_>>() {
            self.close_gate(&token, effects);
        }
        let reason = reason.to_owned();
        effects.push(Effect::Tell(Fact::Lost {
            reason: reason.clone(),
        }));
        if let Some(connection) = self.current() {
            effects.push(Effect::Close { connection, reason });
        }
        effects.push(Effect::End);
    }
}

/// Why a Hello from another process is rejected. It may try again: a dead process holds its identity at most until its
/// lease ends.
const HELD: &str = "another process is this agent, or was until a moment ago: each agent needs a directory of its own (--identity-dir), a copy of one is the same agent";

fn close(connection: ConnectionId, reason: &str) -> Effects {
    let reason = reason.to_owned();
    vec![Effect::Close { connection, reason }]
}

fn take_apart(hello: Hello) -> (AgentInfo, Vec<InventoryItem>) {
    let Hello {
        agent,
        name,
        version,
        protocols: _,
        labels,
        slots,
        resources,
        images,
        inventory,
        instance: _,
    } = hello;
    let info = AgentInfo {
        id: agent,
        name,
        version,
        labels,
        slots,
        resources,
        images,
    };
    let item = |held: phalanx_proto::link::Held| InventoryItem {
        token: held.token,
        last_seq: held.last_seq,
        finished: held.finished,
    };
    (info, inventory.into_iter().map(item).collect())
}
