//! The commands that the rest of the coordinator gives a session: offers, orders to end, retirement; and its answers about what is durable.

use super::attempt::{Attempt, Cancel, Stage};
use super::core::{AgentSession, Connection, Effect, Effects, Fact};
use super::gate::Stale;
use phalanx_proto::link::{Offer, ToAgent};
use phalanx_shared::id::Token;
use std::time::Duration;

impl AgentSession {
    /// Offers an attempt to the agent.
    pub fn offer(&mut self, now: Duration, offer: Offer) -> Effects {
        let token = offer.token.clone();
        let timeout = Duration::from_millis(offer.job.cell.timeout_ms);
        let declined = |reason: &str| {
            vec![Effect::Tell(Fact::Declined {
                token: token.clone(),
                reason: reason.to_owned(),
            })]
        };
        if self.ended {
            return declined("the agent is lost");
        }
        let until = now + self.settings.accept_within;
        let (stage, send) = match self.connection {
            Connection::Down { .. } => return declined("the agent isn't connected"),
            Connection::Greeted { .. } => (Stage::Unsent(Box::new(offer)), None),
            Connection::Up { .. } => (Stage::Offered { until }, Some(offer)),
        };
        self.gate.lock().open(token.clone(), self.agent.clone());
        self.attempts
            .insert(token.clone(), Attempt::at(stage, timeout));
        let mut effects = vec![Effect::Opened(token.clone())];
        effects.extend(send.map(|offer| Effect::Send(ToAgent::Offer(offer))));
        effects
    }

    /// Orders the end of an attempt; repeated until the agent says that the order arrived.
    pub fn cancel(
        &mut self,
        now: Duration,
        token: &Token,
        grace: Duration,
        reason: String,
        force: bool,
    ) -> Effects {
        let up = self.is_up();
        let cancel = Cancel {
            grace,
            reason,
            force,
            sent: up.then_some(now),
            arrived: false,
        };
        let Some(attempt) = self.attempts.get_mut(token) else {
            // Runs answer a Hello one after the other; one that has answered may go on to give orders.
            if self.inventory.contains(token) && !up {
                self.early.insert(token.clone(), cancel);
            }
            return Vec::new();
        };
        let message = cancel.message(token);
        attempt.end_by(cancel.end_by(now, self.settings.attempt_margin));
        attempt.cancel = Some(cancel);
        self.if_up(message)
    }

    /// The attempt is over for the coordinator: the gate closes. An agent that still runs it is told.
    pub fn retire(&mut self, token: &Token) -> Effects {
        if !self.is_up() {
            self.inventory.remove(token);
        }
        let Some(attempt) = self.attempts.get(token) else {
            return Vec::new();
        };
        let over = attempt.over;
        let mut effects = Vec::new();
        self.close_gate(token, &mut effects);
        if !over {
            let (token, reason) = (token.clone(), Stale::Over.to_string());
            effects.extend(self.if_up(ToAgent::Abandon { token, reason }));
        }
        effects
    }

    /// The agent is to take nothing new and go when it is done.
    pub fn drain(&mut self) -> Effects {
        self.draining = true;
        self.if_up(ToAgent::Drain)
    }

    /// Queued cells will need these images. Without a connection it doesn't matter.
    pub fn prefetch(&self, images: Vec<String>) -> Effects {
        self.if_up(ToAgent::Prefetch { images })
    }

    /// Events of an attempt are on disk up to a sequence: only now they are acknowledged (I1). Also after the attempt was retired,
    /// so that the agent can forget it.
    pub fn durable(&mut self, token: &Token, seq: u64) -> Effects {
        let mut seq = seq;
        if let Some(attempt) = self.attempts.get_mut(token) {
            attempt.pending = attempt.pending.saturating_sub(1);
            attempt.durable = attempt.durable.max(seq);
            seq = attempt.durable;
        }
        let token = token.clone();
        self.if_up(ToAgent::Ack { token, seq })
    }

    /// Events could not be made durable. The agent has to send them again: over a new connection, from what is durable then.
    pub fn not_durable(&mut self, now: Duration, token: &Token) -> Effects {
        let reason = format!("the journal didn't take events of {token}");
        self.broken_off(now, &reason)
    }
}
