//! Decides whether an offer is accepted, or why not.

use super::attempt::Attempt;
use super::core::{Effect, Effects, Link};
use super::overflow::Overflow;
use phalanx_proto::link::{FromAgent, Offer};
use phalanx_shared::id::Token;
use std::time::Duration;

impl<O: Overflow> Link<O> {
    /// Accepts an offer if there is room, else declines it with the reason.
    pub(super) fn offered(&mut self, now: Duration, offer: Offer, effects: &mut Effects) {
        let token = offer.token.clone();
        if self.attempts.get(&token).is_some_and(|a| !a.abandoned) {
            effects.push(Effect::Send(FromAgent::Accept { token }));
            return;
        }
        if let Some(reason) = self.refusal(now, &token) {
            effects.push(Effect::Send(FromAgent::Decline { token, reason }));
            return;
        }
        self.attempts.insert(token.clone(), Attempt::default());
        self.spool.open(token.clone());
        effects.push(Effect::Send(FromAgent::Accept { token }));
        effects.push(Effect::Start(Box::new(offer)));
        if self.stayed.accepted() {
            self.accept_no_more(effects);
        }
    }

    fn refusal(&self, now: Duration, token: &Token) -> Option<String> {
        // Clean-up is off the critical path: an attempt frees its slot with its verdict.
        let busy = self.attempts.values().filter(|a| !a.finished).count();
        if self.draining {
            Some("the agent is draining".to_owned())
        } else if self.lease.as_ref().is_none_or(|lease| lease.ran_out(now)) {
            Some("the agent's lease has run out".to_owned())
        } else if self.attempts.contains_key(token) {
            Some("the attempt was abandoned and is still being torn down".to_owned())
        } else if busy >= self.about.slots as usize {
            Some(match self.about.slots {
                1 => "its only slot is taken".to_owned(),
                slots => format!("all {slots} slots are taken"),
            })
        } else {
            None
        }
    }
}
