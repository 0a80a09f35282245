//! What the link knows of one attempt: how it is to end, what is held back, what is under way.

use super::budget::Budget;
use crate::cell_contract::CancelOrder;
use crate::sink::Stamped;
use phalanx_shared::event::EventKind;
use phalanx_shared::outcome::Outcome;
use std::collections::VecDeque;
use std::time::Duration;

/// Messages with events of one attempt that may be unacknowledged. What is made meanwhile waits and goes together.
const MESSAGES_UNDER_WAY: usize = 4;

/// One attempt on this agent.
#[derive(Debug, Default)]
pub struct Attempt {
    /// The harshest order so far.
    pub cancel: Option<CancelOrder>,
    /// Not the coordinator's any more: it ends, and its events vanish.
    pub abandoned: bool,
    /// `AttemptFinished` came: its slot is free, what follows is clean-up.
    pub finished: bool,
    /// `TornDown` came: nothing follows.
    pub torn_down: bool,
    /// Its logs are stored or declared lost.
    pub logs_over: bool,
    /// `AttemptFinished` and what follows, until its logs are over.
    held: VecDeque<Stamped>,
    /// What it has said.
    pub budget: Budget,
    /// Gaps of logs that were over before the verdict came.
    gaps: Vec<EventKind>,
    /// The last sequence of each message under way, and when it was sent.
    under_way: VecDeque<(u64, Duration)>,
}

impl Attempt {
    /// Takes an event; gives those that may be numbered now.
    pub fn take(&mut self, mut event: Stamped) -> Vec<Stamped> {
        if let Some(over) = self.budget.over() {
            match &mut event.kind {
                EventKind::AttemptFinished { outcome, reason } => {
                    (*outcome, *reason) = (Outcome::Errored, Some(over.to_owned()));
                }
                EventKind::TornDown { .. } => {}
                // It has said too much already.
                _ => return Vec::new(),
            }
        }
        match event.kind {
            EventKind::AttemptFinished { .. } => self.finished = true,
            EventKind::TornDown { .. } => self.torn_down = true,
            _ => {}
        }
        if self.finished && !self.logs_over {
            // A verdict waits for its logs.
            self.held.push_back(event);
            return Vec::new();
        }
        let mut numbered = before(&event, std::mem::take(&mut self.gaps));
        numbered.push(event);
        numbered
    }

    /// The logs are over: what waited for them may be numbered, after the gaps in them.
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

    /// Whether the cell has nothing more to say.
    pub fn is_over(&self) -> bool {
        self.torn_down
    }

    /// Whether all its events are numbered.
    pub fn is_told(&self) -> bool {
        self.torn_down && self.held.is_empty()
    }

    /// Whether an order is harsher than the one before; if so it replaces it.
    pub fn harsher(&mut self, order: &CancelOrder) -> bool {
        let harsher = self.cancel.as_ref().is_none_or(|before| {
            (order.force && !before.force)
                || (order.force == before.force && order.grace < before.grace)
        });
        if harsher {
            self.cancel = Some(order.clone());
        }
        harsher
    }

    /// Whether one more message may be under way.
    pub fn may_send(&self) -> bool {
        self.under_way.len() < MESSAGES_UNDER_WAY
    }

    /// A message up to this sequence was sent.
    pub fn sent(&mut self, seq: u64, now: Duration) {
        self.under_way.push_back((seq, now));
    }

    /// Everything up to this sequence is durable.
    pub fn acknowledged(&mut self, seq: u64) {
        self.under_way.retain(|(last, _)| *last > seq);
    }

    /// Nothing is under way any more: a new connection, or everything is to be sent again.
    pub fn nothing_under_way(&mut self) {
        self.under_way.clear();
    }

    /// When the oldest unacknowledged message was sent.
    pub fn waiting_since(&self) -> Option<Duration> {
        self.under_way.front().map(|(_, at)| *at)
    }
}

/// Events that are told just before another one.
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
