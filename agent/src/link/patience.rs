//! Handles the passing of time: heartbeats, the end of the lease, retransmission, and the end of the link itself.

use super::core::{Connection, Effect, Effects, Link};
use super::overflow::Overflow;
use phalanx_proto::link::FromAgent;
use phalanx_shared::cancel::CancelOrder;
use std::time::Duration;

/// Events that aren't acknowledged within this time are sent again; the coordinator drops the ones that it has.
const SEND_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// If a Hello isn't answered within this time, the connection is dead.
const GREETING_WITHIN: Duration = Duration::from_secs(5);

impl<O: Overflow> Link<O> {
    /// Handles the passing of time.
    pub fn tick(&mut self, now: Duration) -> Effects {
        self.end_if_ran_out(now, |link| {
            let mut effects = Vec::new();
            if link.stayed.idles_too_long(now, !link.attempts.is_empty()) {
                link.accept_no_more(&mut effects);
                link.leave_if_done(&mut effects);
            }
            match link.connection {
                Connection::Down => {}
                Connection::Greeting { since } => {
                    if now >= since + GREETING_WITHIN {
                        effects.push(Effect::Reconnect("no Welcome came".to_owned()));
                    }
                }
                Connection::Up => link.beat(now, &mut effects),
            }
            effects
        })
    }

    fn beat(&mut self, now: Duration, effects: &mut Effects) {
        let Some(lease) = &mut self.lease else { return };
        if lease.silent(now) {
            effects.push(Effect::Reconnect("the coordinator is silent".to_owned()));
            return;
        }
        if let Some(number) = lease.beat(now) {
            effects.push(Effect::Send(FromAgent::Heartbeat { number }));
        }
        for (token, attempt) in &mut self.attempts {
            if attempt
                .waiting_since()
                .is_some_and(|at| now >= at + SEND_AGAIN_AFTER)
            {
                attempt.nothing_under_way();
                let durable = self.spool.durable(token);
                self.spool.rewind(token, durable + 1);
            }
        }
        self.flush(now, effects);
        self.leave_if_done(effects);
    }

    /// Ends everything if the agent's own lease has expired, connected or not: the agent stops before the coordinator
    /// gives it up.
    pub(super) fn end_if_ran_out(
        &mut self,
        now: Duration,
        go_on: impl FnOnce(&mut Self) -> Effects,
    ) -> Effects {
        let mut effects = Vec::new();
        if self.lease.as_ref().is_some_and(|lease| lease.ran_out(now)) {
            self.lease = None;
            for token in self.attempts.keys().cloned().collect::<Vec<_>>() {
                self.abandon(&token, "the agent's lease has run out", &mut effects);
            }
            // This also applies while a Welcome is awaited: the Hello listed attempts that are over now.
            if !matches!(self.connection, Connection::Down) {
                effects.push(Effect::Reconnect("the lease has run out".to_owned()));
                return effects;
            }
        }
        effects.extend(go_on(self));
        effects
    }

    /// Accepts no new offers; sends a Goodbye when all attempts are over.
    pub fn drain(&mut self, now: Duration) -> Effects {
        let mut effects = Vec::new();
        self.accept_no_more(&mut effects);
        self.flush(now, &mut effects);
        self.leave_if_done(&mut effects);
        effects
    }

    pub(super) fn accept_no_more(&mut self, effects: &mut Effects) {
        if self.draining {
            return;
        }
        self.draining = true;
        if matches!(self.connection, Connection::Up) {
            effects.push(Effect::Send(FromAgent::Draining));
        }
        effects.push(Effect::Prefetch(Vec::new()));
    }

    /// Cancels every attempt, because the agent is to stop soon (`force`: at once).
    pub fn cancel_all(&mut self, order: &CancelOrder) -> Effects {
        let mut effects = Vec::new();
        for token in self.attempts.keys().cloned().collect::<Vec<_>>() {
            self.cancel(&token, order.clone(), &mut effects);
        }
        effects
    }

    pub(super) fn leave_if_done(&mut self, effects: &mut Effects) {
        if !self.draining || self.left || !self.attempts.is_empty() {
            return;
        }
        self.left = true;
        if matches!(self.connection, Connection::Up) {
            let reason = "drained".to_owned();
            effects.push(Effect::Send(FromAgent::Goodbye { reason }));
        }
        effects.push(Effect::Leave);
    }
}
