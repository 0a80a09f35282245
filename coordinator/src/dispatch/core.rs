//! The pure core of a session. There is one session per agent; it spans all of the agent's connections, from the first
//! Hello until the agent is lost.
//!
//! Inputs arrive with the current time; effects are returned as data and performed by `actor.rs`. A session knows
//! connections, sequence numbers and leases. It doesn't know runs, queues or the journal: runs receive reports and
//! answer with [`Input::Resumed`], and the journal says what is durable ([`Input::Durable`]).
//!
//! stage: offered: the offer goes to the agent's session, over `proto/phalanx/v1/agent_link.proto`

use super::attempt::{Attempt, Cancel};
use super::contract::{AgentInfo, GoesOn, InventoryItem, take_apart};
use super::gate::{SharedGate, Stale};
use super::reason::{AgentGone, DeclineReason, LossCause};
use super::sequence::{InSequence, Sequence};
use phalanx_proto::link::{Ahead, FromAgent, Hello, Offer, Snapshots, ToAgent, Welcome};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::Event;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::WantedImage;
use phalanx_shared::policy::Rules;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
    /// Rules that narrow what agents allow.
    pub policy: Option<Rules>,
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
            policy: None,
        }
    }
}

/// Number of an agent's connection, assigned by the code that accepts connections.
pub type ConnectionId = u64;

/// Input of a session.
// The large one, a Hello, comes once per connection. It is handled at once, so there are never many.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Input {
    /// A Hello on a new connection. The protocol version is already agreed.
    Hello {
        connection: ConnectionId,
        protocol: u32,
        hello: Hello,
    },
    /// A message from the agent.
    Received {
        connection: ConnectionId,
        message: FromAgent,
    },
    /// A connection ended.
    Broken {
        connection: ConnectionId,
        reason: String,
    },
    /// The answer to the Hello on a connection: the attempts of the inventory that continue.
    Resumed {
        connection: ConnectionId,
        attempts: Vec<GoesOn>,
    },
    /// Offer an attempt to the agent.
    Offer(Offer),
    /// Cancel an attempt. The order is repeated until the agent confirms it.
    Cancel { token: Token, order: CancelOrder },
    /// An attempt is over for the coordinator.
    Retire { token: Token },
    /// Tell the agent to take no new attempts and to leave when it is done.
    Drain,
    /// Tell the agent which images it should prepare, and that it should prepare no others.
    Prefetch { images: Vec<WantedImage> },
    /// Tell the agent to remove snapshots. Without a connection, nothing happens.
    RemoveSnapshots { keys: Vec<String> },
    /// Let the agent connect again, so that the runs learn which attempts it holds.
    Reconnect,
    /// The events of an attempt up to `seq` are on disk.
    Durable { token: Token, seq: u64 },
    /// Events that came over a connection didn't reach the disk, or not even their run.
    NotDurable {
        connection: ConnectionId,
        token: Token,
    },
    /// The agent process with this instance id ended.
    Died { instance: String },
    /// Time passed.
    Tick,
}

/// An effect that the session's actor performs, in order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send a message to the agent over its current connection.
    Send(ToAgent),
    /// Tell the run that the agent accepted an offer.
    Accepted { token: Token },
    /// Tell the run that an offer was declined, or failed.
    Declined { token: Token, reason: DeclineReason },
    /// Tell the run that an attempt was taken from its agent.
    Revoked { token: Token, cause: LossCause },
    /// Pass events to the run. The journal answers with [`Input::Durable`].
    Events { token: Token, events: InSequence },
    /// The agent said Hello. Answered by [`Input::Resumed`].
    Connected {
        connection: ConnectionId,
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
    },
    /// The connection broke.
    Disconnected { reason: String },
    /// The agent takes no new attempts.
    Draining,
    /// The agent says how far the images are that it prepares.
    Ahead { images: Vec<Ahead> },
    /// The snapshots that the agent keeps have changed.
    Snapshots(Snapshots),
    /// The agent is lost.
    Lost { gone: AgentGone },
    /// Close a connection.
    Close {
        connection: ConnectionId,
        reason: String,
    },
    /// Accept logs of this attempt from now on.
    Opened(Token),
    /// No more logs of this attempt will come, and no reports.
    Closed(Token),
    /// End the session: the agent is lost.
    End,
}

type Effects = Vec<Effect>;

/// State of the agent's connection.
#[derive(Debug, PartialEq)]
enum Connection {
    /// No connection. The agent is lost if it isn't back at `until`.
    Down { until: Duration },
    /// A Hello arrived; the rest of the coordinator has to answer it.
    Greeted { id: ConnectionId },
    /// The Hello is answered.
    Up { id: ConnectionId },
}

/// The session of one agent. See the module documentation.
#[derive(Debug)]
pub struct AgentSession {
    agent: AgentId,
    settings: Settings,
    gate: SharedGate,
    connection: Connection,
    protocol: u32,
    /// Instance id of the agent's process; none before the first Hello.
    instance: Option<String>,
    /// Number of that process's newest Hello.
    number: u64,
    attempts: BTreeMap<Token, Attempt>,
    inventory: BTreeSet<Token>,
    /// Orders to cancel that arrived between the Hello and the answer to it.
    early: BTreeMap<Token, Cancel>,
    /// When the last message arrived.
    heard: Duration,
    ticked: Option<Duration>,
    draining: bool,
    ended: bool,
    /// The images that the agent should prepare, once it can be told.
    prefetch: Option<Vec<WantedImage>>,
}

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
            number: 0,
            attempts: BTreeMap::new(),
            inventory: BTreeSet::new(),
            early: BTreeMap::new(),
            heard: now,
            ticked: None,
            draining: false,
            ended: false,
            prefetch: None,
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

    /// Handles one input and returns what follows from it.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        match input {
            Input::Hello {
                connection,
                protocol,
                hello,
            } => self.hello(now, connection, protocol, hello),
            Input::Received {
                connection,
                message,
            } => self.received(now, connection, message),
            Input::Broken { connection, reason } => self.disconnected(now, connection, reason),
            Input::Resumed {
                connection,
                attempts,
            } => self.resumed(now, connection, attempts),
            Input::Offer(offer) => self.offer(now, offer),
            Input::Cancel { token, order } => self.cancel(now, &token, order),
            Input::Retire { token } => self.retire(&token),
            Input::Drain => {
                self.draining = true;
                self.if_up(ToAgent::Drain)
            }
            Input::Prefetch { images } => {
                if self.is_up() {
                    return vec![Effect::Send(ToAgent::Prefetch { images })];
                }
                // Its Hello is being answered, or it is told anew after its next one.
                self.prefetch = Some(images);
                Vec::new()
            }
            Input::RemoveSnapshots { keys } => self.if_up(ToAgent::RemoveSnapshots { keys }),
            Input::Reconnect => {
                self.broken_off(now, "a run was recovered: say again what you hold")
            }
            Input::Durable { token, seq } => self.durable(token, seq),
            // The agent connects again and resends from the last durable sequence number.
            Input::NotDurable { connection, token } if self.current() == Some(connection) => {
                let reason = format!("the journal didn't take events of {token}");
                self.broken_off(now, &reason)
            }
            Input::NotDurable { .. } => Vec::new(),
            Input::Died { instance } => self.died(&instance),
            Input::Tick => self.tick(now),
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.connection, Connection::Up { .. })
    }

    fn if_up(&self, message: ToAgent) -> Effects {
        if self.is_up() {
            vec![Effect::Send(message)]
        } else {
            Vec::new()
        }
    }

    // ---- connections

    /// Handles a Hello on a new connection, which replaces the previous one.
    ///
    /// The Hello must come from the same process unless that process is gone: an identity that is held can't be taken
    /// over. Otherwise anyone who copies an agent's directory, or reads its id in a list, would get its offers, and
    /// each of the two would end the other's attempts.
    fn hello(&mut self, now: Duration, id: ConnectionId, protocol: u32, hello: Hello) -> Effects {
        if self.ended {
            return close(id, "the session is over, come again");
        }
        if self.is_held() && self.instance.as_ref() != Some(&hello.instance) {
            return close(id, HELD);
        }
        // A Hello from a connection that the agent has given up since then would unsay what the newer one said.
        let same = self.instance.as_ref() == Some(&hello.instance);
        if same && hello.number != 0 && hello.number <= self.number {
            return close(id, "a newer connection of the same agent is here");
        }
        let mut effects = Vec::new();
        if let Some(before) = self.current() {
            let reason = "a newer connection of the same agent takes its place";
            effects.extend(close(before, reason));
        }
        self.connection = Connection::Greeted { id };
        self.early.clear();
        self.prefetch = None;
        self.protocol = protocol;
        self.heard = now;
        self.instance = Some(hello.instance.clone());
        self.number = hello.number;
        let (mut agent, inventory) = take_apart(hello);
        if let Some(narrow) = &self.settings.policy {
            let own = agent.policy.take();
            agent.policy = Some(own.map_or_else(|| narrow.clone(), |own| own.narrowed_by(narrow)));
        }
        self.inventory = inventory.iter().map(|item| item.token.clone()).collect();
        self.settle_offers(now, &mut effects);
        effects.push(Effect::Connected {
            connection: id,
            agent,
            inventory,
        });
        effects
    }

    /// Settles the offers that were in flight when the connection broke: those that the agent holds arrived, the rest
    /// didn't.
    fn settle_offers(&mut self, now: Duration, effects: &mut Effects) {
        for token in self.tokens_where(Attempt::is_offered) {
            if self.inventory.contains(&token) {
                self.accepted(now, &token, effects);
            } else {
                self.declined(&token, DeclineReason::LostOffer, effects);
            }
        }
    }

    /// Handles the answer to a Hello: which attempts of the inventory continue, and each one's last durable sequence
    /// number. Ignores an answer to an earlier Hello.
    fn resumed(&mut self, now: Duration, id: ConnectionId, answer: Vec<GoesOn>) -> Effects {
        if self.connection != (Connection::Greeted { id }) {
            return Vec::new();
        }
        self.connection = Connection::Up { id };
        let resume: BTreeMap<Token, GoesOn> = answer
            .into_iter()
            .filter(|goes_on| self.inventory.contains(&goes_on.token))
            .map(|goes_on| (goes_on.token.clone(), goes_on))
            .collect();
        let mut effects = Vec::new();
        // Offers made since the Hello stay: they haven't been sent yet.
        let over = self
            .attempts
            .iter()
            .filter(|(token, attempt)| !resume.contains_key(*token) && !attempt.is_unsent());
        for token in over.map(|(token, _)| token.clone()).collect::<Vec<_>>() {
            self.close_gate(&token, &mut effects);
        }
        let margin = self.settings.attempt_margin;
        for (token, goes_on) in &resume {
            self.gate.lock().open(token.clone(), self.agent.clone());
            effects.push(Effect::Opened(token.clone()));
            let known = self.attempts.remove(token);
            let early = self.early.remove(token);
            let attempt = Attempt::resumed(goes_on, known, early, now, margin);
            self.attempts.insert(token.clone(), attempt);
        }
        let Settings {
            epoch,
            version,
            lease,
            heartbeat,
            policy,
            ..
        } = self.settings.clone();
        effects.push(Effect::Send(ToAgent::Welcome(Welcome {
            policy,
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

    /// Sends what couldn't be sent without a connection.
    fn catch_up(&mut self, now: Duration, effects: &mut Effects) {
        if self.draining {
            effects.push(Effect::Send(ToAgent::Drain));
        }
        if let Some(images) = self.prefetch.take() {
            effects.push(Effect::Send(ToAgent::Prefetch { images }));
        }
        let until = now + self.settings.accept_within;
        for (token, attempt) in &mut self.attempts {
            if let Some(offer) = attempt.send_offer(until) {
                effects.push(Effect::Send(ToAgent::Offer(offer)));
            }
            if let Some(order) = attempt.unconfirmed_cancel(now, false) {
                let token = token.clone();
                effects.push(Effect::Send(ToAgent::Cancel { token, order }));
            }
        }
    }

    /// Handles the end of a connection. Ignores connections other than the current one.
    fn disconnected(&mut self, now: Duration, id: ConnectionId, reason: String) -> Effects {
        if self.current() != Some(id) || self.ended {
            return Vec::new();
        }
        let until = self.patience().min(now + self.settings.reset_grace);
        self.connection = Connection::Down { until };
        vec![Effect::Disconnected { reason }]
    }

    /// Closes the current connection; the agent may reconnect.
    fn broken_off(&mut self, now: Duration, reason: &str) -> Effects {
        let Some(id) = self.current() else {
            return Vec::new();
        };
        let mut effects = close(id, reason);
        effects.extend(self.disconnected(now, id, reason.to_owned()));
        effects
    }

    /// Handles a report that a process of the agent ended. Ignores processes other than the newest one.
    fn died(&mut self, instance: &str) -> Effects {
        let mut effects = Vec::new();
        let newest = self.instance.as_deref() == Some(instance);
        if !self.ended && !instance.is_empty() && newest {
            self.lost(AgentGone::Died, &mut effects);
        }
        effects
    }

    /// Ends the session: the agent's attempts are over, and its later messages about them are stale.
    fn lost(&mut self, gone: AgentGone, effects: &mut Effects) {
        self.ended = true;
        for token in self.tokens_where(|_| true) {
            self.close_gate(&token, effects);
        }
        let reason = gone.to_string();
        effects.push(Effect::Lost { gone });
        if let Some(connection) = self.current() {
            effects.push(Effect::Close { connection, reason });
        }
        effects.push(Effect::End);
    }

    // ---- messages of the agent

    /// Handles a message. Ignores messages from a superseded connection.
    fn received(&mut self, now: Duration, id: ConnectionId, message: FromAgent) -> Effects {
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
            FromAgent::Draining => effects.push(Effect::Draining),
            FromAgent::Ahead { images } => effects.push(Effect::Ahead { images }),
            FromAgent::Snapshots(snapshots) => effects.push(Effect::Snapshots(snapshots)),
            FromAgent::Goodbye { reason } => self.lost(AgentGone::Left(reason), &mut effects),
            FromAgent::Accept { token } => {
                if self.passes(&token, &mut effects) {
                    self.accepted(now, &token, &mut effects);
                }
            }
            FromAgent::Decline { token, reason } => {
                if self.passes(&token, &mut effects) {
                    self.declined(&token, DeclineReason::ByAgent(reason), &mut effects);
                }
            }
            FromAgent::Cancelling { token } => {
                if self.passes(&token, &mut effects)
                    && let Some(attempt) = self.attempts.get_mut(&token)
                {
                    attempt.cancel_arrived();
                }
            }
            FromAgent::Events { token, events } => {
                if self.passes(&token, &mut effects)
                    && !self.events(now, &token, events, &mut effects)
                {
                    let reason = "sends more than it may without acknowledgement";
                    effects.extend(self.broken_off(now, reason));
                }
            }
        }
        effects
    }

    /// Returns whether a token passes the gate; otherwise answers with `Abandon`.
    fn passes(&self, token: &Token, effects: &mut Effects) -> bool {
        let verdict: Result<(), Stale> = self.gate.lock().check(&self.agent, token);
        if let Err(stale) = &verdict {
            effects.push(abandon(token, stale.to_string()));
        }
        verdict.is_ok()
    }

    fn accepted(&mut self, now: Duration, token: &Token, effects: &mut Effects) {
        let margin = self.settings.attempt_margin;
        if let Some(attempt) = self.attempts.get_mut(token)
            && attempt.accept(now, margin)
        {
            let token = token.clone();
            effects.push(Effect::Accepted { token });
        }
    }

    /// Closes an offer that was declined or failed. An accepted offer can't be declined any more.
    fn declined(&mut self, token: &Token, reason: DeclineReason, effects: &mut Effects) {
        if self.attempts.get(token).is_some_and(Attempt::is_offered) {
            effects.push(Effect::Declined {
                token: token.clone(),
                reason,
            });
            self.close_gate(token, effects);
        }
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
            self.revoke(token, LossCause::Lie(lie), effects);
            return true;
        }
        let token = token.clone();
        let Some(attempt) = self.attempts.get_mut(&token) else {
            // Reached only with the gate off.
            #[cfg(test)]
            effects.push(Effect::Events {
                token,
                events: InSequence::unchecked(events),
            });
            return true;
        };
        if !attempt.may_send_more() {
            return false;
        }
        match attempt.take(events) {
            Sequence::New(events) => {
                effects.push(Effect::Events { token, events });
                self.keep_budget(effects);
            }
            Sequence::Repeated => {
                // The acknowledgement may have been lost.
                let seq = attempt.durable();
                effects.push(Effect::Send(ToAgent::Ack { token, seq }));
            }
            Sequence::Hole => {
                let from_seq = attempt.next();
                effects.push(Effect::Send(ToAgent::Resend { token, from_seq }));
            }
        }
        true
    }

    /// Revokes attempts until the events of the rest fit the agent's budget. Each attempt has a budget of its own;
    /// without this one, an agent with many attempts could still send too much in total. The attempt with the most bytes
    /// goes first: it is the noisy one, even if another one sent the last batch.
    fn keep_budget(&mut self, effects: &mut Effects) {
        let budget = self.settings.agent_event_bytes;
        while self.attempts.values().map(Attempt::said).sum::<u64>() > budget {
            let noisiest = self.attempts.iter().max_by_key(|(_, a)| a.said());
            let Some(token) = noisiest.map(|(token, _)| token.clone()) else {
                return;
            };
            let mib = budget >> 20;
            self.revoke(&token, LossCause::AgentBudget { mib }, effects);
        }
    }

    /// Revokes an attempt from its agent and tells the agent to abandon it.
    fn revoke(&mut self, token: &Token, cause: LossCause, effects: &mut Effects) {
        let message = abandon(token, cause.to_string());
        effects.push(Effect::Revoked {
            token: token.clone(),
            cause,
        });
        self.close_gate(token, effects);
        effects.extend(Some(message).filter(|_| self.is_up()));
    }

    fn close_gate(&mut self, token: &Token, effects: &mut Effects) {
        self.attempts.remove(token);
        self.gate.lock().close(token);
        effects.push(Effect::Closed(token.clone()));
    }

    // ---- commands of the coordinator

    fn offer(&mut self, now: Duration, offer: Offer) -> Effects {
        let token = offer.token.clone();
        let refused = match self.connection {
            _ if self.ended => Some(DeclineReason::AgentLost),
            Connection::Down { .. } => Some(DeclineReason::NotConnected),
            _ => None,
        };
        if let Some(reason) = refused {
            let declined = token.clone();
            return vec![Effect::Declined { token, reason }, Effect::Closed(declined)];
        }
        let timeout = Duration::from_millis(offer.job.cell.timeout_ms);
        self.gate.lock().open(token.clone(), self.agent.clone());
        let mut effects = vec![Effect::Opened(token.clone())];
        let attempt = if self.is_up() {
            effects.push(Effect::Send(ToAgent::Offer(offer)));
            Attempt::offered(now + self.settings.accept_within, timeout)
        } else {
            Attempt::unsent(offer, timeout)
        };
        self.attempts.insert(token, attempt);
        effects
    }

    fn cancel(&mut self, now: Duration, token: &Token, order: CancelOrder) -> Effects {
        let up = self.is_up();
        let cancel = Cancel::new(order.clone(), up.then_some(now));
        let Some(attempt) = self.attempts.get_mut(token) else {
            // Each run answers a Hello on its own. One that has answered may already give orders.
            if self.inventory.contains(token) && !up {
                self.early.insert(token.clone(), cancel);
            }
            return Vec::new();
        };
        attempt.cancel(cancel, now, self.settings.attempt_margin);
        let token = token.clone();
        self.if_up(ToAgent::Cancel { token, order })
    }

    /// Retires an attempt: it is over for the coordinator and its token is closed. An agent that still runs it is told
    /// to abandon it.
    fn retire(&mut self, token: &Token) -> Effects {
        if !self.is_up() {
            self.inventory.remove(token);
        }
        let Some(attempt) = self.attempts.get(token) else {
            return Vec::new();
        };
        let over = attempt.is_over();
        let mut effects = Vec::new();
        self.close_gate(token, &mut effects);
        if !over && self.is_up() {
            effects.push(abandon(token, Stale::Over.to_string()));
        }
        effects
    }

    /// Acknowledges an attempt's events up to `seq`, which are on disk only now (I1). Also acknowledges after the
    /// attempt was retired, so that the agent can forget it.
    fn durable(&mut self, token: Token, seq: u64) -> Effects {
        let attempt = self.attempts.get_mut(&token);
        let seq = attempt.map_or(seq, |attempt| attempt.stored(seq));
        self.if_up(ToAgent::Ack { token, seq })
    }

    // ---- time

    fn tick(&mut self, now: Duration) -> Effects {
        let mut effects = Vec::new();
        if self.ended {
            return effects;
        }
        self.allow_for_own_sleep(now);
        match self.connection {
            Connection::Down { until } if now >= until => {
                self.lost(AgentGone::NotBack, &mut effects);
            }
            Connection::Greeted { .. } | Connection::Up { .. } if now >= self.patience() => {
                self.lost(AgentGone::Silent, &mut effects);
            }
            Connection::Up { .. } => {
                self.expire_offers(now, &mut effects);
                self.repeat_cancels(now, &mut effects);
                self.revoke_overdue(now, &mut effects);
            }
            Connection::Down { .. } | Connection::Greeted { .. } => {
                self.expire_offers(now, &mut effects);
            }
        }
        effects
    }

    /// Returns when a silent agent is considered lost.
    fn patience(&self) -> Duration {
        self.heard + self.settings.lease + self.settings.margin
    }

    /// Doesn't count time in which the coordinator itself was stopped (a suspended machine, a debugger) as an agent's
    /// silence.
    fn allow_for_own_sleep(&mut self, now: Duration) {
        let before = self.ticked.replace(now).unwrap_or(now);
        let slept = now.saturating_sub(before);
        if slept > self.settings.heartbeat {
            self.heard += slept;
            self.attempts.values_mut().for_each(|a| a.slept(slept));
            if let Connection::Down { until } = &mut self.connection {
                *until += slept;
            }
        }
    }

    fn expire_offers(&mut self, now: Duration, effects: &mut Effects) {
        for token in self.tokens_where(|attempt| attempt.is_expired(now)) {
            let within = self.settings.accept_within;
            self.declined(&token, DeclineReason::Unanswered(within), effects);
            if self.is_up() {
                // The offer may have arrived after all.
                effects.push(abandon(&token, Stale::Over.to_string()));
            }
        }
    }

    fn repeat_cancels(&mut self, now: Duration, effects: &mut Effects) {
        for (token, attempt) in &mut self.attempts {
            if let Some(order) = attempt.unconfirmed_cancel(now, true) {
                let token = token.clone();
                effects.push(Effect::Send(ToAgent::Cancel { token, order }));
            }
        }
    }

    /// Revokes attempts that should have ended long ago although their agent still answers heartbeats.
    fn revoke_overdue(&mut self, now: Duration, effects: &mut Effects) {
        let mut overdue = Vec::new();
        for (token, attempt) in &mut self.attempts {
            if attempt.is_overdue(now) {
                overdue.push((token.clone(), attempt.is_cancelled()));
            }
        }
        for (token, cancelled) in overdue {
            self.revoke(&token, LossCause::Overdue { cancelled }, effects);
        }
    }

    fn tokens_where(&self, condition: impl Fn(&Attempt) -> bool) -> Vec<Token> {
        let attempts = self.attempts.iter();
        let found = attempts.filter(|(_, attempt)| condition(attempt));
        found.map(|(token, _)| token.clone()).collect()
    }
}

/// Why a Hello from another process is rejected. It may try again: a dead process holds its identity at most until its
/// lease ends.
const HELD: &str = "another process is this agent, or was until a moment ago: each agent needs a directory of its own (--identity-dir), a copy of one is the same agent";

fn close(connection: ConnectionId, reason: &str) -> Effects {
    let reason = reason.to_owned();
    vec![Effect::Close { connection, reason }]
}

fn abandon(token: &Token, reason: String) -> Effect {
    let token = token.clone();
    Effect::Send(ToAgent::Abandon { token, reason })
}
