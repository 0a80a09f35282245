//! What a session knows about one attempt of its agent: its stage, the events received, and which of them are durable.

use phalanx_proto::link::{Offer, ToAgent};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::id::Token;
use std::time::Duration;

/// Upper limit on the time allowed for preparation before the cell's own time starts, whatever the cell's timeout is.
const PREPARATION: Duration = Duration::from_secs(600);

/// An attempt that is offered to an agent or held by it.
#[derive(Debug)]
pub struct Attempt {
    /// Stage of the attempt.
    pub stage: Stage,
    /// Last sequence number that passed the gate.
    pub received: u64,
    /// Last sequence number on disk.
    pub durable: u64,
    /// The order to cancel it, if there is one.
    pub cancel: Option<Cancel>,
    /// `TornDown` passed the gate: nothing follows.
    pub over: bool,
    /// Batches that passed the gate and aren't durable yet.
    pub pending: usize,
    /// Timeout of its cell.
    pub timeout: Duration,
    /// When the attempt is revoked from its agent; none until the agent holds it.
    pub overdue: Option<Duration>,
    /// Bytes of its events since this term began.
    pub said: u64,
}

/// Stage of an attempt.
#[derive(Debug)]
pub enum Stage {
    /// The offer waits for the Welcome to be sent.
    Unsent(Box<Offer>),
    /// The offer was sent and expires at `until`.
    Offered { until: Duration },
    /// The agent accepted the offer.
    Held,
}

/// A cancel order on its way to the agent, repeated until the agent confirms it.
#[derive(Debug)]
pub struct Cancel {
    /// The order.
    pub order: CancelOrder,
    /// When it was last sent; none while it couldn't be sent for lack of a connection.
    pub sent: Option<Duration>,
    /// Whether the agent confirmed it.
    pub arrived: bool,
}

/// How a batch of events relates to those received before.
#[derive(Debug, PartialEq)]
pub enum Sequence {
    /// These events are new and follow without a gap.
    New(Vec<Event>),
    /// All of these events were received before.
    Repeated,
    /// Events before this batch are missing.
    Hole,
}

impl Attempt {
    /// Creates an attempt at this stage without any events.
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

    /// Creates an attempt that continues after this sequence number.
    pub fn resumed(durable: u64, timeout: Duration) -> Self {
        Attempt {
            received: durable,
            durable,
            ..Attempt::at(Stage::Held, timeout)
        }
    }

    /// Starts counting the time allowed, since the agent holds the attempt. Before the cell's own time begins, stacks
    /// are opened and workspaces copied, within the same timeout; `margin` covers everything that follows a timeout.
    pub fn count_from(&mut self, now: Duration, margin: Duration) {
        let preparation = self.timeout.min(PREPARATION);
        let allowed = self
            .timeout
            .saturating_add(preparation)
            .saturating_add(margin);
        self.overdue.get_or_insert(now.saturating_add(allowed));
    }

    /// Shortens the time allowed.
    pub fn end_by(&mut self, until: Duration) {
        self.overdue = self.overdue.map(|known| known.min(until));
    }

    /// Takes the new events out of a batch, which must be in sequence.
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
    /// Returns when an attempt cancelled at `now` has to be over.
    pub fn end_by(&self, now: Duration, margin: Duration) -> Duration {
        now.saturating_add(self.order.grace).saturating_add(margin)
    }

    /// Returns the message for the agent.
    pub fn message(&self, token: &Token) -> ToAgent {
        ToAgent::Cancel {
            token: token.clone(),
            order: self.order.clone(),
        }
    }
}
