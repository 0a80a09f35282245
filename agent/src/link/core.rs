//! The link's decisions: greets the coordinator, accepts or declines offers, numbers and sends events, keeps the lease,
//! and gives up attempts that no longer belong to this agent.
//!
//! It is pure: inputs come with the time, and effects are returned as data, which `actor.rs` performs. It never waits
//! and never loses an event; when [`Link::has_room`] turns false, the producers have to wait.
//!
//! stage: accepted: the agent has a slot and answers; the cell starts

use super::attempt::Attempt;
use super::lease::Lease;
use super::logs::spool::Over;
use super::overflow::Overflow;
use super::spool::Spool;
use super::stay::{Stay, Stayed};
use crate::sink::Stamped;
use phalanx_proto::PROTOCOLS;
use phalanx_proto::link::{Ahead, FromAgent, Held, Hello, Offer, Snapshots, ToAgent, Welcome};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::EventKind;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Resources, WantedImage};
use phalanx_shared::policy::Rules;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// The agent's description in each Hello.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// The agent's id.
    pub agent: AgentId,
    /// Display name.
    pub name: String,
    /// Program version.
    pub version: String,
    /// Labels that it offers.
    pub labels: Vec<String>,
    /// Maximum number of concurrent attempts.
    pub slots: u32,
    /// Capacity of the machine.
    pub resources: Resources,
    /// Names of the images that its engine holds.
    pub images: Vec<String>,
    /// What its policy allows.
    pub policy: Option<Rules>,
    /// Maximum number of images that it pulls and builds ahead at the same time.
    pub ahead: u32,
    /// The snapshots that it keeps; `None` if it keeps none at all.
    pub snapshots: Option<Snapshots>,
}

/// Effects that the link wants performed.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send a message to the coordinator.
    Send(FromAgent),
    /// Run an attempt.
    Start(Box<Offer>),
    /// Send a cancel order to a cell.
    Cancel { token: Token, order: CancelOrder },
    /// Drop an attempt's logs, because they are no longer wanted.
    DropLogs { token: Token, reason: String },
    /// Prepare these images ahead, and no others.
    Prefetch(Vec<WantedImage>),
    /// Remove the snapshots with these keys, and report what is kept then.
    RemoveSnapshots(Vec<String>),
    /// Drop the connection and open a new one.
    Reconnect(String),
    /// Last effect: every attempt is over and every event is delivered.
    Leave,
}

/// State of the connection.
#[derive(Debug)]
pub(super) enum Connection {
    Down,
    /// A Hello was sent at this time and isn't answered yet.
    Greeting {
        since: Duration,
    },
    Up,
}

/// The link's core; see the module.
#[derive(Debug)]
pub struct Link<O> {
    pub(super) about: About,
    pub(super) spool: Spool<O>,
    pub(super) attempts: BTreeMap<Token, Attempt>,
    pub(super) connection: Connection,
    pub(super) lease: Option<Lease>,
    pub(super) draining: bool,
    pub(super) left: bool,
    pub(super) stayed: Stayed,
    /// How many Hellos were sent.
    pub(super) hellos: u64,
    /// How far the images are that are prepared ahead.
    ahead: Vec<Ahead>,
    /// Whether the snapshots have changed since the Hello that isn't answered yet.
    snapshots_untold: bool,
}

pub(super) type Effects = Vec<Effect>;

impl<O: Overflow> Link<O> {
    /// Creates the link of an agent that has no attempts.
    pub fn new(about: About, spool: Spool<O>) -> Self {
        Link {
            about,
            spool,
            attempts: BTreeMap::new(),
            connection: Connection::Down,
            lease: None,
            draining: false,
            left: false,
            stayed: Stayed::new(Stay::default()),
            hellos: 0,
            ahead: Vec::new(),
            snapshots_untold: false,
        }
    }

    /// Limits how long the agent stays.
    #[must_use]
    pub fn staying(self, stay: Stay) -> Self {
        Link {
            stayed: Stayed::new(stay),
            ..self
        }
    }

    /// Returns whether cells may continue to emit events.
    pub fn has_room(&self) -> bool {
        self.spool.has_room()
    }

    /// Returns the attempts whose clean-up isn't over.
    pub fn live(&self) -> impl Iterator<Item = &Token> {
        let live = |(token, attempt): (_, &Attempt)| (!attempt.is_over()).then_some(token);
        self.attempts.iter().filter_map(live)
    }

    /// Returns the attempts that run and may continue: neither finished nor abandoned.
    pub fn running(&self) -> impl Iterator<Item = &Token> {
        let running = |(token, attempt): (_, &Attempt)| {
            (!attempt.finished && !attempt.abandoned).then_some(token)
        };
        self.attempts.iter().filter_map(running)
    }

    /// Returns whether the link still holds an attempt, so that the next Hello lists it.
    pub fn answers_for(&self, token: &Token) -> bool {
        self.attempts
            .get(token)
            .is_some_and(|attempt| !attempt.abandoned)
    }

    /// Returns the spool of unacknowledged events.
    pub fn spool(&self) -> &Spool<O> {
        &self.spool
    }

    /// Sets the images that the next Hello lists.
    pub fn holds_images(&mut self, images: Vec<String>) {
        self.about.images = images;
    }

    /// Handles a report on the images that are prepared ahead.
    pub fn prepares(&mut self, ahead: Vec<Ahead>) -> Effects {
        self.ahead = ahead;
        match self.connection {
            Connection::Up => vec![self.tell_ahead()],
            _ => Vec::new(),
        }
    }

    fn tell_ahead(&self) -> Effect {
        let images = self.ahead.clone();
        Effect::Send(FromAgent::Ahead { images })
    }

    /// Handles a change of the snapshots that the agent keeps.
    pub fn keeps(&mut self, snapshots: Snapshots) -> Effects {
        self.about.snapshots = Some(snapshots);
        match self.connection {
            Connection::Up => self.tell_snapshots().into_iter().collect(),
            Connection::Greeting { .. } => {
                self.snapshots_untold = true;
                Vec::new()
            }
            // The next Hello lists them.
            Connection::Down => Vec::new(),
        }
    }

    fn tell_snapshots(&mut self) -> Option<Effect> {
        self.snapshots_untold = false;
        let snapshots = self.about.snapshots.clone();
        snapshots.map(|snapshots| Effect::Send(FromAgent::Snapshots(snapshots)))
    }

    /// Handles a new connection: sends the Hello.
    pub fn connected(&mut self, now: Duration) -> Effects {
        self.end_if_ran_out(now, |link| {
            link.connection = Connection::Greeting { since: now };
            link.hellos += 1;
            link.snapshots_untold = false;
            vec![Effect::Send(FromAgent::Hello(Box::new(link.hello())))]
        })
    }

    fn hello(&self) -> Hello {
        let About {
            agent,
            name,
            version,
            labels,
            slots,
            resources,
            images,
            policy,
            ahead,
            snapshots,
        } = self.about.clone();
        let held = |(token, attempt): (&Token, &Attempt)| Held {
            token: token.clone(),
            last_seq: self.spool.last(token),
            finished: attempt.is_told(),
        };
        Hello {
            agent,
            name,
            version,
            protocols: (*PROTOCOLS.start(), *PROTOCOLS.end()),
            labels,
            slots,
            resources,
            images,
            inventory: self
                .attempts
                .iter()
                .filter(|(_, attempt)| !attempt.abandoned)
                .map(held)
                .collect(),
            // The actor fills this in when it sends the Hello.
            instance: String::new(),
            number: self.hellos,
            policy,
            ahead: Some(ahead),
            snapshots,
        }
    }

    /// Handles the loss of the connection. Attempts continue while the lease lasts.
    pub fn disconnected(&mut self) {
        self.connection = Connection::Down;
    }

    /// Handles a message from the coordinator.
    pub fn received(&mut self, now: Duration, message: ToAgent) -> Effects {
        match (&self.connection, message) {
            (Connection::Greeting { since }, ToAgent::Welcome(welcome)) => {
                let asked = *since;
                self.welcomed(now, asked, welcome)
            }
            (Connection::Up, message) => self.ordered(now, message),
            // Messages before the Welcome are ignored; the coordinator repeats the important ones.
            _ => Vec::new(),
        }
    }

    fn welcomed(&mut self, now: Duration, asked: Duration, welcome: Welcome) -> Effects {
        self.connection = Connection::Up;
        self.lease = Some(Lease::new(welcome.lease, welcome.heartbeat, asked));
        let resume: BTreeMap<Token, u64> = welcome.resume.into_iter().collect();
        let mut effects = Vec::new();
        for token in self.attempts.keys().cloned().collect::<Vec<_>>() {
            let Some(durable) = resume.get(&token) else {
                self.abandon(&token, "the coordinator doesn't resume it", &mut effects);
                continue;
            };
            if let Some(attempt) = self.attempts.get_mut(&token) {
                attempt.nothing_under_way();
            }
            self.acknowledged(&token, *durable);
            if !self.spool.rewind(&token, durable + 1) {
                let reason = "events that it had acknowledged are missing at the coordinator";
                self.abandon(&token, reason, &mut effects);
            }
        }
        let here = |token: &Token| self.attempts.get(token).is_some_and(|a| !a.abandoned);
        if let Some(token) = resume.keys().find(|token| !here(token)) {
            // Only a new Hello can tell the coordinator so.
            let reason = format!("the coordinator resumes {token}, which isn't here");
            effects.push(Effect::Reconnect(reason));
            return effects;
        }
        if self.draining {
            effects.push(Effect::Send(FromAgent::Draining));
        }
        if !self.ahead.is_empty() {
            effects.push(self.tell_ahead());
        }
        if self.snapshots_untold {
            effects.extend(self.tell_snapshots());
        }
        self.flush(now, &mut effects);
        self.leave_if_done(&mut effects);
        effects
    }

    fn ordered(&mut self, now: Duration, message: ToAgent) -> Effects {
        let mut effects = Vec::new();
        match message {
            ToAgent::Offer(offer) => self.offered(now, offer, &mut effects),
            ToAgent::Ack { token, seq } => self.acknowledged(&token, seq),
            ToAgent::Resend { token, from_seq } => self.send_again(&token, from_seq, &mut effects),
            ToAgent::Cancel { token, order } => {
                // An order for an unknown attempt isn't confirmed, so the coordinator repeats it.
                if self.attempts.contains_key(&token) {
                    let token = token.clone();
                    effects.push(Effect::Send(FromAgent::Cancelling { token }));
                }
                self.cancel(&token, order, &mut effects);
            }
            ToAgent::Abandon { token, reason } => self.abandon(&token, &reason, &mut effects),
            ToAgent::Heartbeat { number } => {
                if let Some(lease) = &mut self.lease {
                    lease.answered(number);
                }
            }
            ToAgent::Drain => return self.drain(now),
            // No cell comes any more.
            ToAgent::Prefetch { .. } if self.draining => {}
            ToAgent::Prefetch { images } => effects.push(Effect::Prefetch(images)),
            ToAgent::RemoveSnapshots { keys } => effects.push(Effect::RemoveSnapshots(keys)),
            // There is one Welcome per connection; another one has no effect.
            ToAgent::Welcome(_) => {}
        }
        self.flush(now, &mut effects);
        self.leave_if_done(&mut effects);
        effects
    }

    fn acknowledged(&mut self, token: &Token, seq: u64) {
        self.spool.acknowledge(token, seq);
        let Some(attempt) = self.attempts.get_mut(token) else {
            return;
        };
        attempt.acknowledged(seq);
        if attempt.is_told() && self.spool.durable(token) == self.spool.last(token) {
            self.forget(token);
        }
    }

    fn send_again(&mut self, token: &Token, from_seq: u64, effects: &mut Effects) {
        if !self.spool.rewind(token, from_seq) {
            let reason = "the coordinator asks for events that it had acknowledged";
            self.abandon(token, reason, effects);
            // The next Hello tells the coordinator that the attempt is gone.
            effects.push(Effect::Reconnect(format!(
                "{reason}: {token} from {from_seq}"
            )));
        } else if let Some(attempt) = self.attempts.get_mut(token) {
            attempt.nothing_under_way();
        }
    }

    pub(super) fn cancel(&mut self, token: &Token, order: CancelOrder, effects: &mut Effects) {
        let Some(attempt) = self.attempts.get_mut(token) else {
            return;
        };
        if !attempt.is_over() && attempt.harsher(&order) {
            let token = token.clone();
            effects.push(Effect::Cancel { token, order });
        }
    }

    /// Ends an attempt that no longer belongs to this agent. Its slot stays taken until its stack is gone (I3); its
    /// events are dropped.
    pub(super) fn abandon(&mut self, token: &Token, reason: &str, effects: &mut Effects) {
        let Some(attempt) = self.attempts.get_mut(token) else {
            return;
        };
        if attempt.abandoned {
            return;
        }
        attempt.abandoned = true;
        attempt.nothing_under_way();
        self.spool.forget(token);
        if !attempt.logs_over {
            effects.push(Effect::DropLogs {
                token: token.clone(),
                reason: reason.to_owned(),
            });
        }
        self.cancel(token, CancelOrder::at_once(reason), effects);
        if self.attempts.get(token).is_some_and(Attempt::is_over) {
            self.forget(token);
        }
    }

    fn forget(&mut self, token: &Token) {
        self.spool.forget(token);
        self.attempts.remove(token);
    }

    /// Handles an event of a cell.
    pub fn emitted(&mut self, now: Duration, event: Stamped) -> Effects {
        let token = event.token.clone();
        let mut effects = Vec::new();
        if let Some(attempt) = self.attempts.get_mut(&token) {
            let numbered = attempt.take(event);
            self.number(&token, numbered, &mut effects);
            self.flush(now, &mut effects);
            self.leave_if_done(&mut effects);
        }
        effects
    }

    fn number(&mut self, token: &Token, events: Vec<Stamped>, effects: &mut Effects) {
        let abandoned = self.attempts.get(token).is_none_or(|a| a.abandoned);
        if !abandoned {
            let mut over = None;
            for Stamped {
                at, mono_us, kind, ..
            } in events
            {
                let bytes = self.spool.push(token, at, mono_us, kind);
                if let Some(attempt) = self.attempts.get_mut(token)
                    && !attempt.finished
                {
                    over = over.or(attempt.budget.spend(bytes));
                }
            }
            if let Some(reason) = over {
                // Skip its `always` steps, which would emit even more.
                self.cancel(token, CancelOrder::at_once(reason), effects);
            }
        } else if self.attempts.get(token).is_some_and(Attempt::is_over) {
            self.forget(token);
        }
    }

    /// Handles the closing of a cell's channel. A cell that has emitted no verdict is a bug in the agent and is
    /// reported as one.
    pub fn cell_gone(&mut self, now: Duration, at: Timestamp, token: &Token) -> Effects {
        let mut effects = Vec::new();
        let Some(attempt) = self.attempts.get(token) else {
            return effects;
        };
        let mut missing = Vec::new();
        if !attempt.finished {
            missing.push(EventKind::AttemptFinished {
                outcome: Outcome::Errored,
                reason: Some("the cell ended without a verdict: a bug of the agent".to_owned()),
                timed_out: false,
                culprit: None,
            });
        }
        if !attempt.torn_down {
            missing.push(EventKind::TornDown {
                removed: 0,
                left: vec![
                    "unknown: the cell ended before its clean-up; the reaper looks for the rest"
                        .to_owned(),
                ],
                kept: Vec::new(),
                began: at,
            });
        }
        for kind in missing {
            let token = token.clone();
            effects.extend(self.emitted(
                now,
                Stamped {
                    token,
                    at,
                    mono_us: 0,
                    kind,
                },
            ));
        }
        effects
    }

    /// Handles the end of an attempt's logs, which are stored or declared lost: its verdict may be sent.
    pub fn logs_over(&mut self, now: Duration, over: Over) -> Effects {
        let mut effects = Vec::new();
        let Over { token, gaps } = over;
        if let Some(attempt) = self.attempts.get_mut(&token) {
            let released = attempt.release(gaps);
            self.number(&token, released, &mut effects);
            self.flush(now, &mut effects);
            self.leave_if_done(&mut effects);
        }
        effects
    }

    /// Sends the events that may be sent now.
    pub(super) fn flush(&mut self, now: Duration, effects: &mut Effects) {
        if !matches!(self.connection, Connection::Up) {
            return;
        }
        for token in self.spool.unsent() {
            let Some(attempt) = self.attempts.get_mut(&token) else {
                continue;
            };
            while attempt.may_send() {
                let events = self.spool.next_batch(&token);
                let Some(last) = events.last() else { break };
                attempt.sent(last.seq, now);
                let token = token.clone();
                effects.push(Effect::Send(FromAgent::Events { token, events }));
            }
        }
    }
}
