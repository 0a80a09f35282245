//! What the link knows of one attempt: how it is to end, what is held back, what is under way.

use crate::cell_contract::CancelOrder;
use crate::sink::Stamped;
use phalanx_shared::event::EventKind;
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
    /// The last sequence of each message under way, and when it was sent.
    under_way: VecDeque<(u64, Duration)>,
}

impl Attempt {
    /// Takes an event; gives those that may be numbered now.
    pub fn take(&mut self, event: Stamped) -> Vec<Stamped> {
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
        vec![event]
    }

    /// The logs are over: what waited for them may be numbered, after the gaps in them.
    pub fn release(&mut self, gaps: Vec<EventKind>) -> Vec<Stamped> {
        self.logs_over = true;
        let Some(verdict) = self.held.front() else {
            return Vec::new();
        };
        let stamp = |kind| Stamped {
            kind,
            ..verdict.clone()
        };
        let mut released: Vec<Stamped> = gaps.into_iter().map(stamp).collect();
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
