//! The commands that the rest of the coordinator gives a session (offers, cancels, retirement) and its answers about
//! what is durable.

use super::attempt::{Attempt, Cancel, Stage};
use super::core::{AgentSession, Connection, Effect, Effects, Fact};
use super::gate::Stale;
use phalanx_proto::link::{Offer, ToAgent};
use phalanx_shared::cancel::CancelOrder;
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

    /// Cancels an attempt. The order is repeated until the agent confirms it.
    pub fn cancel(&mut self, now: Duration, token: &Token, order: CancelOrder) -> Effects {
        let up = self.is_up();
        let cancel = Cancel {
            order,
            sent: up.then_some(now),
            arrived: false,
        };
        let Some(attempt) = self.attempts.get_mut(token) else {
            // Runs answer a Hello one after the other. One that has answered may already give orders.
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

    /// Retires an attempt: it is over for the coordinator and its token is closed. An agent that still runs it is told
    /// to abandon it.
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

    /// Tells the agent to take no new attempts and to leave when it is done.
    pub fn drain(&mut self) -> Effects {
        self.draining = true;
        self.if_up(ToAgent::Drain)
    }

    /// Tells the agent to pull images that queued cells will need. Does nothing without a connection: prefetching is
    /// only an optimization.
    pub fn prefetch(&self, images: Vec<String>) -> Effects {
        self.if_up(ToAgent::Prefetch { images })
    }

    /// Acknowledges an attempt's events up to `seq`, which are on disk only now (I1). Also acknowledges after the
    /// attempt was retired, so that the agent can forget it.
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

    /// Handles events that could not be made durable: closes the connection, so that the agent resends them from the
    /// last durable sequence number.
    pub fn not_durable(&mut self, now: Duration, token: &Token) -> Effects {
        let reason = format!("the journal didn't take events of {token}");
        self.broken_off(now, &reason)
    }
}
