//! What a session knows of one attempt of its agent: offered or held, what has come and what of it is durable.

use phalanx_proto::link::{Offer, ToAgent};
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::id::Token;
use std::time::Duration;

/// What comes before a cell's own time takes no longer, whatever its timeout is.
const PREPARATION: Duration = Duration::from_secs(600);

/// An attempt on its way to an agent, or with it.
#[derive(Debug)]
pub struct Attempt {
    /// Where it is.
    pub stage: Stage,
    /// The last sequence that passed the gate.
    pub received: u64,
    /// The last sequence on disk.
    pub durable: u64,
    /// The order to end it.
    pub cancel: Option<Cancel>,
    /// `TornDown` passed the gate: nothing follows.
    pub over: bool,
    /// Batches that passed the gate and aren't durable yet.
    pub pending: usize,
    /// The timeout of its cell.
    pub timeout: Duration,
    /// When its agent loses it; none until the agent holds it.
    pub overdue: Option<Duration>,
    /// Bytes of its events, since this term began.
    pub said: u64,
}

/// Where an attempt is.
#[derive(Debug)]
pub enum Stage {
    /// The Welcome isn't out yet, so neither is the offer.
    Unsent(Box<Offer>),
    /// Unanswered until this time.
    Offered { until: Duration },
    /// The agent took it.
    Held,
}

/// An order to end, repeated until the agent says that it arrived.
#[derive(Debug)]
pub struct Cancel {
    /// For `always` steps and stopping services.
    pub grace: Duration,
    /// Why.
    pub reason: String,
    /// Skips the `always` steps.
    pub force: bool,
    /// When it was sent last; none while there is no connection.
    pub sent: Option<Duration>,
    /// The agent said that it arrived.
    pub arrived: bool,
}

/// What a batch of events is.
#[derive(Debug, PartialEq)]
pub enum Sequence {
    /// These are new and follow without a hole.
    New(Vec<Event>),
    /// All of it came before.
    Repeated,
    /// Something between is missing.
    Hole,
}

impl Attempt {
    /// An attempt at this stage of which nothing came yet.
    pub fn at(stage: Stage, timeout: Duration) -> Self {
        Attempt {
            timeout,
            overdue: None,
            said: 0,
            stage,
            received: 0,
            durable: 0,
            cancel: None,
            over: false,
            pending: 0,
        }
    }

    /// An attempt that goes on after this sequence.
    pub fn resumed(durable: u64, timeout: Duration) -> Self {
        Attempt {
            received: durable,
            durable,
            ..Attempt::at(Stage::Held, timeout)
        }
    }

    /// Its agent has it: from now on time counts. Before the cell's own time begins, stacks are opened and workspaces copied, within the same
    /// timeout; `margin` is for everything that follows a timeout.
    pub fn count_from(&mut self, now: Duration, margin: Duration) {
        let preparation = self.timeout.min(PREPARATION);
        let allowed = self
            .timeout
            .saturating_add(preparation)
            .saturating_add(margin);
        self.overdue.get_or_insert(now.saturating_add(allowed));
    }

    /// It is to end sooner than it might.
    pub fn end_by(&mut self, until: Duration) {
        self.overdue = self.overdue.map(|known| known.min(until));
    }

    /// Sorts out what is new of a batch, which is in sequence and not empty.
    pub fn take(&mut self, mut events: Vec<Event>) -> Sequence {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Sequence::Repeated;
        };
        if last.seq <= self.received {
            return Sequence::Repeated;
        }
        if first.seq > self.received + 1 {
            return Sequence::Hole;
        }
        let before = self.received;
        self.received = last.seq;
        events.retain(|event| event.seq > before);
        self.over |= events
            .iter()
            .any(|event| matches!(event.kind, EventKind::TornDown { .. }));
        self.pending += 1;
        Sequence::New(events)
    }
}

impl Cancel {
    /// When an attempt that was ordered to end now has to be over.
    pub fn end_by(&self, now: Duration, margin: Duration) -> Duration {
        now.saturating_add(self.grace).saturating_add(margin)
    }

    /// As the agent hears it.
    pub fn message(&self, token: &Token) -> ToAgent {
        ToAgent::Cancel {
            token: token.clone(),
            grace: self.grace,
            reason: self.reason.clone(),
            force: self.force,
        }
    }
}
