//! Decides what a session does: one per agent, over all of its connections, from its first Hello until it is lost.
//!
//! Pure: what happens comes in with the time, effects go out as data; `actor.rs` performs them. It knows connections, sequence numbers and leases;
//! it doesn't know runs, queues or the journal: these hear facts ([`Effect::Tell`]) and answer through [`AgentSession::resumed`] and
//! [`AgentSession::durable`].

use super::attempt::{Attempt, Cancel, Sequence, Stage};
use super::budget::size;
use super::contract::{AgentInfo, GoesOn, InventoryItem};
use super::gate::{SharedGate, Stale};
use phalanx_proto::link::{FromAgent, Hello, ToAgent, Welcome};
use phalanx_shared::event::Event;
use phalanx_shared::id::{AgentId, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Batches of one attempt that may wait for the journal; an honest agent has four under way.
const MAX_PENDING: usize = 64;

/// How patient sessions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The coordinator's term of office.
    pub epoch: u64,
    /// The coordinator's program version.
    pub version: String,
    /// How long an answered heartbeat gives an agent the right to run.
    pub lease: Duration,
    /// How often an agent sends one.
    pub heartbeat: Duration,
    /// How much longer than the lease the coordinator waits, so that the agent stops first.
    pub margin: Duration,
    /// After a broken connection the agent has so long to come back, or the rest of the coordinator's patience if that is less. Less than the
    /// lease makes a cut connection a death (against I8), and dead agents without a mourner are given up sooner.
    pub reset_grace: Duration,
    /// An offer unanswered for so long goes back to the queue.
    pub accept_within: Duration,
    /// How much longer than its cell's timeout an attempt may take: opening stacks, `always` steps, logs, clean-up. Its agent loses one that takes
    /// longer. An agent that answers heartbeats and does nothing else would hold it for ever.
    pub attempt_margin: Duration,
    /// Bytes of events of all attempts that one agent holds.
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

/// A connection of an agent, numbered by whoever accepts connections.
pub type ConnectionId = u64;

/// What a session wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// To the agent, over its current connection.
    Send(ToAgent),
    /// To the rest of the coordinator, in order.
    Tell(Fact),
    /// End a connection.
    Close {
        connection: ConnectionId,
        reason: String,
    },
    /// An attempt's logs may come.
    Opened(Token),
    /// Nothing more comes of an attempt's logs.
    Closed(Token),
    /// The agent is lost, this session is over.
    End,
}

/// What the rest of the coordinator hears: [`super::contract::FromAgents`] without its channels.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Answered by [`AgentSession::resumed`].
    Connected {
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
    },
    /// The connection is gone.
    Disconnected { reason: String },
    /// The agent is gone.
    Lost { reason: String },
    /// It takes nothing new.
    Draining,
    /// An offer was taken.
    Accepted { token: Token },
    /// An offer came to nothing.
    Declined { token: Token, reason: String },
    /// An attempt was taken from its agent.
    Revoked { token: Token, reason: String },
    /// Answered by [`AgentSession::durable`].
    Events { token: Token, events: Vec<Event> },
}

/// Where the connection is.
#[derive(Debug, PartialEq)]
pub(super) enum Connection {
    /// Lost if it isn't back by then.
    Down {
        until: Duration,
    },
    /// A Hello came, the rest of the coordinator has to answer.
    Greeted {
        id: ConnectionId,
    },
    Up {
        id: ConnectionId,
    },
}

/// See the module.
#[derive(Debug)]
pub struct AgentSession {
    pub(super) agent: AgentId,
    pub(super) settings: Settings,
    pub(super) gate: SharedGate,
    pub(super) connection: Connection,
    pub(super) protocol: u32,
    /// Of the agent's process; none before the first Hello.
    pub(super) instance: Option<String>,
    pub(super) attempts: BTreeMap<Token, Attempt>,
    pub(super) inventory: BTreeSet<Token>,
    /// Orders to end that came between the Hello and the answer to it.
    pub(super) early: BTreeMap<Token, Cancel>,
    /// When a message arrived last.
    pub(super) heard: Duration,
    pub(super) ticked: Option<Duration>,
    pub(super) draining: bool,
    pub(super) ended: bool,
}

pub(super) type Effects = Vec<Effect>;

impl AgentSession {
    /// A session of an agent that is about to say Hello.
    pub fn new(agent: AgentId, settings: Settings, gate: SharedGate, now: Duration) -> Self {
        // The Hello is on its way to us; whatever else comes first, the passing of time included, must not end us.
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

    /// In the coordinator's term before, this process was the agent, and it may be until then.
    pub fn was_held(&mut self, instance: String, until: Duration) {
        self.instance = Some(instance);
        self.connection = Connection::Down { until };
    }

    /// The connection that counts.
    pub fn current(&self) -> Option<ConnectionId> {
        match self.connection {
            Connection::Down { .. } => None,
            Connection::Greeted { id } | Connection::Up { id } => Some(id),
        }
    }

    /// Whether a process is this agent, or may still be.
    pub fn is_held(&self) -> bool {
        self.instance.is_some() && !self.ended
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.connection, Connection::Up { .. })
    }

    /// A Hello came over a new connection, which takes the place of the one before. The version is agreed on already.
    ///
    /// It has to be of the same process, or that process is gone: an identity that is held isn't taken over. Who copies an agent's directory, or
    /// reads its id in a list, would otherwise get its offers, and each of the two would end the other's attempts.
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

    /// Offers under way when the connection broke: what the agent holds arrived, the rest didn't.
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

    /// The rest of the coordinator says which attempts of the inventory go on, each after which durable sequence.
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
            // Its time goes on; that of an earlier term's counts anew.
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

    /// Attempts that the session knows and the agent doesn't go on with are over. Offers made since the Hello are on their way.
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

    /// Says what couldn't be said without a connection.
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

    /// A connection is gone. What isn't the current one's is no news.
    pub fn disconnected(&mut self, now: Duration, id: ConnectionId, reason: String) -> Effects {
        if self.current() != Some(id) || self.ended {
            return Vec::new();
        }
        let until = self.patience().min(now + self.settings.reset_grace);
        self.connection = Connection::Down { until };
        vec![Effect::Tell(Fact::Disconnected { reason })]
    }

    /// Until when silence is borne.
    pub(super) fn patience(&self) -> Duration {
        self.heard + self.settings.lease + self.settings.margin
    }

    /// A message came. What comes over a connection that was replaced doesn't count.
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
            FromAgent::Goodbye { reason } => {
                self.lost(&format!("said goodbye: {reason}"), &mut effects)
            }
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

    /// Everything that an agent says of an attempt comes by here and passes the gate, or is answered with `Abandon`.
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

    /// An offer came to nothing. One that was taken can't be declined any more.
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

    /// Takes an attempt from its agent, which is told to end it.
    pub(super) fn revoke(&mut self, token: &Token, reason: String, effects: &mut Effects) {
        self.close_gate(token, effects);
        let token = token.clone();
        effects.push(Effect::Tell(Fact::Revoked {
            token: token.clone(),
            reason: reason.clone(),
        }));
        effects.extend(self.if_up(ToAgent::Abandon { token, reason }));
    }

    /// Passes on what is new. False if the agent sends more than it may.
    fn events(
        &mut self,
        now: Duration,
        token: &Token,
        events: Vec<Event>,
        effects: &mut Effects,
    ) -> bool {
        // Events say that the offer arrived, whatever became of the Accept.
        self.accepted(now, token, effects);
        let lie = self.gate.lock().check_events(&self.agent, token, &events);
        if let Err(lie) = lie {
            self.revoke(token, lie.to_string(), effects);
            return true;
        }
        #[cfg(test)]
        if !self.attempts.contains_key(token) {
            // Only with the gate off.
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

    /// Ends the current connection; the agent may come again.
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

    /// Somebody saw a process of the agent end. Of one that isn't the newest it is no news.
    pub fn died(&mut self, instance: &str) -> Effects {
        let mut effects = Vec::new();
        let newest = self.instance.as_deref() == Some(instance);
        if !self.ended && !instance.is_empty() && newest {
            self.lost("its process died", &mut effects);
        }
        effects
    }

    /// The agent is gone: its attempts are over, and whatever it still says of them is stale.
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

/// Why a Hello of another process is refused. It may try again: a process that is gone holds its identity until the end of its lease at most.
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
