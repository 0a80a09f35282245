//! Handles what happens to attempts: offered, accepted, returned, reported on, lost. [`RunCore::holds`] rejects late
//! messages.

use super::core::{Decision, Effect, RunCore};
use crate::dispatch::budget::size;
use crate::dispatch::contract::{GoesOn, InventoryItem};
use phalanx_proto::limit::{ATTEMPT_EVENT_BYTES_TAKEN, ATTEMPT_EVENTS_TAKEN};
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::id::{AgentId, CellId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::CellStatus;
use phalanx_shared::time::Timestamp;
use std::time::Duration;

impl RunCore {
    pub(super) fn assigned(
        &mut self,
        token: Token,
        agent: AgentId,
        agent_name: String,
        now: Timestamp,
        d: &mut Decision,
    ) {
        if self.waiting.get(&token.cell) != Some(&token) {
            d.effects.push(Effect::Release(token));
            return;
        }
        self.waiting.remove(&token.cell);
        self.held.insert(token.cell.clone(), token.clone());
        self.said.remove(&token.cell);
        let offered = EventKind::CellOffered {
            token: token.clone(),
            agent: agent.clone(),
            agent_name,
        };
        self.record(offered, now, d);
        d.effects.push(Effect::Offer { token, agent });
    }

    /// Returns whether a token is that of its cell's newest attempt and an agent holds it. This is the run's check for
    /// stale tokens.
    fn holds(&self, token: &Token) -> bool {
        self.held.get(&token.cell) == Some(token)
    }

    pub(super) fn status(&self, cell: &CellId) -> Option<CellStatus> {
        Some(self.state.cells.get(cell)?.status)
    }

    pub(super) fn accepted(&mut self, token: Token, now: Timestamp, d: &mut Decision) {
        if self.holds(&token) && self.status(&token.cell) == Some(CellStatus::Offered) {
            let kind = EventKind::CellAccepted {
                token: token.clone(),
            };
            self.record(kind, now, d);
            d.effects.push(Effect::Accepted(token));
        }
    }

    pub(super) fn declined(
        &mut self,
        token: &Token,
        reason: String,
        now: Timestamp,
        d: &mut Decision,
    ) {
        let open = matches!(
            self.status(&token.cell),
            Some(CellStatus::Offered | CellStatus::Accepted)
        );
        if self.holds(token) && open {
            let reason_known = reason.clone();
            let token = token.clone();
            let scheduler = Effect::Declined {
                token: token.clone(),
                reason,
            };
            self.give_back(&token, reason_known, scheduler, now, d);
        }
    }

    /// Returns a cell whose offer failed to the queue, or finishes it if the run is cancelled.
    fn give_back(
        &mut self,
        token: &Token,
        reason: String,
        release: Effect,
        now: Timestamp,
        d: &mut Decision,
    ) {
        self.held.remove(&token.cell);
        let kind = EventKind::CellReturned {
            token: token.clone(),
            reason,
        };
        self.record(kind, now, d);
        d.effects.push(Effect::Retire(token.clone()));
        d.effects.push(release);
        match self.order.clone() {
            Some(order) => self.finish(&token.cell, Outcome::Cancelled, Some(order.reason), now, d),
            None => self.requeue(&token.cell, d),
        }
    }

    pub(super) fn agent_events(
        &mut self,
        token: &Token,
        events: Vec<Event>,
        now: Timestamp,
        d: &mut Decision,
    ) {
        if !self.holds(token) {
            d.effects.push(Effect::Retire(token.clone()));
            return;
        }
        let mut torn_down = false;
        let mut ended = false;
        for event in events {
            let last = self
                .state
                .cells
                .get(&token.cell)
                .and_then(|c| c.attempts.last());
            if last.is_none_or(|attempt| event.seq <= attempt.last_seq) {
                continue;
            }
            ended |= matches!(event.kind, EventKind::AttemptFinished { .. });
            torn_down |= matches!(event.kind, EventKind::TornDown { .. });
            if torn_down && last.is_some_and(|attempt| attempt.outcome.is_none()) {
                return self.lose(token, "its agent cleaned up without a verdict", now, d);
            }
            if let Some(reason) = self.too_much(token, &event) {
                return self.revoked(token, reason, now, d);
            }
            self.keep(event, d);
        }
        if torn_down {
            self.held.remove(&token.cell);
            d.effects.push(Effect::Retire(token.clone()));
            d.effects.push(Effect::Release(token.clone()));
        }
        if ended || torn_down {
            self.judge(&token.cell, now, d);
        }
    }

    /// Returns why an attempt must be revoked if it has sent more events than a correct agent allows.
    fn too_much(&mut self, token: &Token, event: &Event) -> Option<String> {
        let said = self.said.entry(token.cell.clone()).or_default();
        *said += size(&event.kind);
        if event.seq > ATTEMPT_EVENTS_TAKEN {
            return Some(format!(
                "its agent sent more than {ATTEMPT_EVENTS_TAKEN} events of it"
            ));
        }
        (*said > ATTEMPT_EVENT_BYTES_TAKEN).then(|| {
            let mib = ATTEMPT_EVENT_BYTES_TAKEN >> 20;
            format!("its agent sent more than {mib} MiB of events of it")
        })
    }

    /// Decides which attempts a connecting agent continues.
    pub(super) fn connected(
        &mut self,
        agent: AgentId,
        inventory: &[InventoryItem],
        now: Timestamp,
        d: &mut Decision,
    ) {
        let mut attempts = Vec::new();
        for token in self.held_by(&agent) {
            if !inventory.iter().any(|item| item.token == token) {
                self.lose(&token, "its agent came back without it", now, d);
                continue;
            }
            self.accepted(token.clone(), now, d);
            let seen = self.state.cells.get(&token.cell);
            let attempt = seen.and_then(|c| c.attempts.last());
            let running = attempt.is_some_and(|a| a.outcome.is_none());
            let planned = self.state.planned(&token.cell);
            attempts.push(GoesOn {
                token: token.clone(),
                durable_seq: attempt.map_or(0, |a| a.last_seq),
                timeout: Duration::from_millis(planned.map_or(0, |cell| cell.timeout_ms)),
            });
            // Force also shortens the clean-up of an attempt that has ended.
            if let Some(order) = self.order.clone().filter(|order| running || order.force) {
                d.effects.push(Effect::Cancel { token, order });
            }
        }
        // Before the cancels: the agent must know that it continues an attempt before it is told to cancel it.
        d.effects.insert(0, Effect::Resume { agent, attempts });
    }

    /// Handles an attempt that was revoked from its agent. The agent is alive, but gets no offers for a while.
    pub(super) fn revoked(
        &mut self,
        token: &Token,
        reason: String,
        now: Timestamp,
        d: &mut Decision,
    ) {
        if !self.holds(token) {
            return;
        }
        let scheduler = Effect::Declined {
            token: token.clone(),
            reason: reason.clone(),
        };
        self.lose_and(token, &reason, scheduler, now, d);
    }

    /// Handles an attempt whose agent is gone. An offer that was never accepted only returns the cell to the queue.
    pub(super) fn lose(&mut self, token: &Token, reason: &str, now: Timestamp, d: &mut Decision) {
        let release = Effect::Release(token.clone());
        self.lose_and(token, reason, release, now, d);
    }

    fn lose_and(
        &mut self,
        token: &Token,
        reason: &str,
        release: Effect,
        now: Timestamp,
        d: &mut Decision,
    ) {
        if self.status(&token.cell) == Some(CellStatus::Offered) {
            self.give_back(token, reason.to_owned(), release, now, d);
            return;
        }
        self.held.remove(&token.cell);
        let kind = EventKind::AttemptLost {
            token: token.clone(),
            reason: reason.to_owned(),
        };
        self.record(kind, now, d);
        d.effects.push(Effect::Retire(token.clone()));
        d.effects.push(release);
        self.judge(&token.cell, now, d);
    }
}
