//! What a session does as time passes: offers expire, cancels are repeated, silent agents are lost.

use super::attempt::{Attempt, Stage};
use super::core::{AgentSession, Connection, Effect, Effects};
use super::gate::Stale;
use phalanx_proto::link::ToAgent;
use phalanx_shared::id::Token;
use std::time::Duration;

/// Time after which an unconfirmed cancel is repeated.
const REPEAT_CANCEL_AFTER: Duration = Duration::from_secs(2);
/// Minimum time that an attempt still gets to end once the journal has stored all events received so far.
const AFTER_OUR_DISK: Duration = Duration::from_secs(60);

impl AgentSession {
    /// Handles the passing of time.
    pub fn tick(&mut self, now: Duration) -> Effects {
        let mut effects = Vec::new();
        if self.ended {
            return effects;
        }
        self.allow_for_own_sleep(now);
        match self.connection {
            Connection::Down { until } if now >= until => {
                self.lost(
                    "it didn't come back after its connection broke",
                    &mut effects,
                );
            }
            Connection::Greeted { .. } | Connection::Up { .. } if now >= self.patience() => {
                self.lost("it fell silent", &mut effects);
            }
            Connection::Up { .. } => {
                self.expire_offers(now, &mut effects);
                self.repeat_cancels(now, &mut effects);
                self.revoke_overdue(now, &mut effects);
            }
            Connection::Down { .. } | Connection::Greeted { .. } => {
                self.expire_offers(now, &mut effects)
            }
        }
        effects
    }

    /// Revokes attempts that should have ended long ago although their agent still answers heartbeats.
    fn revoke_overdue(&mut self, now: Duration, effects: &mut Effects) {
        let mut overdue = Vec::new();
        for (token, attempt) in &mut self.attempts {
            let Some(until) = &mut attempt.overdue else {
                continue;
            };
            if attempt.pending > 0 {
                // Its events wait for the coordinator's disk, and the agent may be waiting for that: not its fault.
                *until = (*until).max(now + AFTER_OUR_DISK);
            }
            if now >= *until {
                overdue.push((token.clone(), attempt.cancel.is_some()));
            }
        }
        for (token, cancelled) in overdue {
            let since = match cancelled {
                true => "it was told to end",
                false => "its cell's timeout was over",
            };
            let reason = format!("its agent didn't end it, long after {since}");
            self.revoke(&token, reason, effects);
        }
    }

    /// Doesn't count time in which the coordinator itself was stopped (a suspended machine, a debugger) as an agent's
    /// silence.
    fn allow_for_own_sleep(&mut self, now: Duration) {
        let before = self.ticked.replace(now).unwrap_or(now);
        let slept = now.saturating_sub(before);
        if slept > self.settings.heartbeat {
            self.heard += slept;
            for attempt in self.attempts.values_mut() {
                attempt.overdue = attempt.overdue.map(|until| until + slept);
            }
            if let Connection::Down { until } = &mut self.connection {
                *until += slept;
            }
        }
    }

    fn expire_offers(&mut self, now: Duration, effects: &mut Effects) {
        let expired = |a: &Attempt| matches!(a.stage, Stage::Offered { until } if now >= until);
        let tokens: Vec<Token> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| expired(attempt))
            .map(|(token, _)| token.clone())
            .collect();
        for token in tokens {
            let within = self.settings.accept_within;
            self.declined(
                &token,
                &format!("the agent didn't answer within {within:?}"),
                effects,
            );
            // The offer may have arrived after all.
            let reason = Stale::Over.to_string();
            effects.extend(self.if_up(ToAgent::Abandon { token, reason }));
        }
    }

    fn repeat_cancels(&mut self, now: Duration, effects: &mut Effects) {
        for (token, attempt) in &mut self.attempts {
            let due =
                |sent: Option<Duration>| sent.is_none_or(|at| now >= at + REPEAT_CANCEL_AFTER);
            if let Some(cancel) = attempt
                .cancel
                .as_mut()
                .filter(|c| !c.arrived && due(c.sent))
            {
                cancel.sent = Some(now);
                effects.push(Effect::Send(cancel.message(token)));
            }
        }
    }
}
