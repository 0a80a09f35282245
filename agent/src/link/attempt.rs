//! The link's state of one attempt: its cancel order, the events held back, and the messages in flight.

use super::budget::Budget;
use crate::sink::Stamped;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::EventKind;
use phalanx_shared::outcome::Outcome;
use std::collections::VecDeque;
use std::time::Duration;

/// Maximum number of unacknowledged messages with events of one attempt. Events emitted meanwhile wait and are sent
/// together.
const MESSAGES_UNDER_WAY: usize = 4;

/// One attempt on this agent.
#[derive(Debug, Default)]
pub struct Attempt {
    /// The harshest cancel order so far.
    pub cancel: Option<CancelOrder>,
    /// Whether the attempt no longer belongs to this agent: it is ended, and its events are dropped.
    pub abandoned: bool,
    /// Whether `AttemptFinished` was emitted: its slot is free, and only clean-up follows.
    pub finished: bool,
    /// Whether `TornDown` was emitted: no event follows.
    pub torn_down: bool,
    /// Whether its logs are stored or declared lost.
    pub logs_over: bool,
    /// `AttemptFinished` and all later events, held back until its logs are over.
    held: VecDeque<Stamped>,
    /// Events and bytes emitted so far.
    pub budget: Budget,
    /// Gaps in logs that were over before the verdict was emitted.
    gaps: Vec<EventKind>,
    /// For each message in flight, its last sequence number and when it was sent.
    under_way: VecDeque<(u64, Duration)>,
}

impl Attempt {
    /// Takes an event and returns the events that may be numbered now.
    pub fn take(&mut self, mut event: Stamped) -> Vec<Stamped> {
        if let Some(over) = self.budget.over() {
            match &mut event.kind {
                EventKind::AttemptFinished {
                    outcome, reason, ..
                } => {
                    (*outcome, *reason) = (Outcome::Errored, Some(over.to_owned()));
                }
                EventKind::TornDown { .. } => {}
                // It has exceeded its budget already.
                _ => return Vec::new(),
            }
        }
        match event.kind {
            EventKind::AttemptFinished { .. } => self.finished = true,
            EventKind::TornDown { .. } => self.torn_down = true,
            _ => {}
        }
        if self.finished && !self.logs_over {
            // All logs must precede the verdict.
            self.held.push_back(event);
            return Vec::new();
        }
        let mut numbered = before(&event, std::mem::take(&mut self.gaps));
        numbered.push(event);
        numbered
    }

    /// Handles the end of the logs: returns the events that were held back for them, preceded by the gaps.
    pub fn release(&mut self, gaps: Vec<EventKind>) -> Vec<Stamped> {
        self.logs_over = true;
        let Some(verdict) = self.held.front() else {
            self.gaps = gaps;
            return Vec::new();
        };
        let mut released = before(verdict, gaps);
        released.extend(std::mem::take(&mut self.held));
        released
    }

    /// Returns whether the cell will emit no more events.
    pub fn is_over(&self) -> bool {
        self.torn_down
    }

    /// Returns whether all its events are numbered.
    pub fn is_told(&self) -> bool {
        self.torn_down && self.held.is_empty()
    }

    /// Returns whether an order is harsher than the previous one, and replaces that if so.
    pub fn harsher(&mut self, order: &CancelOrder) -> bool {
        let harsher = self
            .cancel
            .as_ref()
            .is_none_or(|earlier| order.is_harsher_than(earlier));
        if harsher {
            self.cancel = Some(order.clone());
        }
        harsher
    }

    /// Returns whether one more message may be sent.
    pub fn may_send(&self) -> bool {
        self.under_way.len() < MESSAGES_UNDER_WAY
    }

    /// Records that a message up to this sequence number was sent.
    pub fn sent(&mut self, seq: u64, now: Duration) {
        self.under_way.push_back((seq, now));
    }

    /// Records that everything up to this sequence number is durable.
    pub fn acknowledged(&mut self, seq: u64) {
        self.under_way.retain(|(last, _)| *last > seq);
    }

    /// Forgets the messages in flight: there is a new connection, or everything is to be sent again.
    pub fn nothing_under_way(&mut self) {
        self.under_way.clear();
    }

    /// Returns when the oldest unacknowledged message was sent.
    pub fn waiting_since(&self) -> Option<Duration> {
        self.under_way.front().map(|(_, at)| *at)
    }
}

/// Returns events to be emitted just before another one.
fn before(event: &Stamped, kinds: Vec<EventKind>) -> Vec<Stamped> {
    let stamp = |kind| Stamped {
        kind,
        ..event.clone()
    };
    kinds.into_iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_shared::time::Timestamp;

    #[test]
    fn gaps_are_told_before_the_verdict_whichever_comes_first() {
        let event = |kind| Stamped {
            token: phalanx_shared::id::Token {
                run: "r".into(),
                cell: "c".into(),
                attempt: 1,
                epoch: 1,
            },
            at: Timestamp(1),
            mono_us: 1,
            kind,
        };
        let gap = || {
            let message = "a gap".to_owned();
            vec![EventKind::Note { message }]
        };
        let verdict = || {
            event(EventKind::AttemptFinished {
                outcome: Outcome::Passed,
                reason: None,
                timed_out: false,
                culprit: None,
            })
        };
        let kinds = |events: Vec<Stamped>| -> Vec<String> {
            let kinds = events.iter().map(|e| e.kind.name().to_owned());
            kinds.collect()
        };
        let mut attempt = Attempt::default();
        assert!(attempt.take(verdict()).is_empty());
        assert_eq!(kinds(attempt.release(gap())), ["note", "attempt_finished"]);
        let mut attempt = Attempt::default();
        assert!(attempt.release(gap()).is_empty());
        assert_eq!(kinds(attempt.take(verdict())), ["note", "attempt_finished"]);
    }
}
