//! What a session knows about one attempt of its agent: its stage, the events received, and which of them are durable.

use super::contract::GoesOn;
use super::sequence::{Received, Sequence};
use super::size::size;
use phalanx_proto::link::Offer;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{Event, EventKind};
use std::time::Duration;

/// Upper limit on the time allowed for preparation before the cell's own time starts, whatever the cell's timeout is.
const PREPARATION: Duration = Duration::from_secs(600);
/// Time after which an unconfirmed cancel is repeated.
const REPEAT_CANCEL_AFTER: Duration = Duration::from_secs(2);
/// Minimum time that an attempt still gets to end once the journal has stored all events received so far.
const AFTER_OUR_DISK: Duration = Duration::from_secs(60);
/// Batches of one attempt that may wait for the journal. A well-behaved agent has at most four in flight.
const MAX_PENDING: usize = 64;

/// An attempt that is offered to an agent or held by it.
#[derive(Debug)]
pub struct Attempt {
    stage: Stage,
    /// The events that passed the gate.
    received: Received,
    /// Last sequence number on disk.
    durable: u64,
    cancel: Option<Cancel>,
    /// `TornDown` passed the gate: nothing follows.
    over: bool,
    /// Batches that passed the gate and aren't durable yet.
    pending: usize,
    /// Timeout of its cell.
    timeout: Duration,
    /// When the attempt is revoked from its agent; none until the agent holds it.
    overdue: Option<Duration>,
    /// Bytes of its events since this term began.
    said: u64,
}

#[derive(Debug)]
enum Stage {
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
    order: CancelOrder,
    /// When it was last sent; none while it couldn't be sent for lack of a connection.
    sent: Option<Duration>,
    /// Whether the agent confirmed it.
    arrived: bool,
}

impl Cancel {
    /// Creates an order that was sent at this time, or not yet.
    pub fn new(order: CancelOrder, sent: Option<Duration>) -> Self {
        Cancel {
            order,
            sent,
            arrived: false,
        }
    }
}

impl Attempt {
    fn at(stage: Stage, timeout: Duration) -> Self {
        Attempt {
            stage,
            received: Received::up_to(0),
            durable: 0,
            cancel: None,
            over: false,
            pending: 0,
            timeout,
            overdue: None,
            said: 0,
        }
    }

    /// Creates an attempt whose offer can't be sent yet.
    pub fn unsent(offer: Offer, timeout: Duration) -> Self {
        Attempt::at(Stage::Unsent(Box::new(offer)), timeout)
    }

    /// Creates an attempt whose offer is sent now and expires at `until`.
    pub fn offered(until: Duration, timeout: Duration) -> Self {
        Attempt::at(Stage::Offered { until }, timeout)
    }

    /// Creates an attempt that continues. `known` is what the session knew about it, `early` an order that came before
    /// the answer to the Hello. The time allowed keeps counting; for an attempt from an earlier term, it starts again.
    pub fn resumed(
        goes_on: &GoesOn,
        known: Option<Attempt>,
        early: Option<Cancel>,
        now: Duration,
        margin: Duration,
    ) -> Self {
        let mut attempt = Attempt {
            received: Received::up_to(goes_on.durable_seq),
            durable: goes_on.durable_seq,
            ..Attempt::at(Stage::Held, goes_on.timeout)
        };
        let mut cancel = early;
        if let Some(known) = known {
            attempt.overdue = known.overdue;
            attempt.said = known.said;
            cancel = cancel.or(known.cancel);
        }
        attempt.count_from(now, margin);
        if let Some(cancel) = cancel {
            attempt.cancel(cancel, now, margin);
        }
        attempt
    }

    /// Returns whether the offer isn't answered yet.
    pub fn is_offered(&self) -> bool {
        !matches!(self.stage, Stage::Held)
    }

    /// Returns whether the offer waits for the Welcome.
    pub fn is_unsent(&self) -> bool {
        matches!(self.stage, Stage::Unsent(_))
    }

    /// Returns whether the time to answer the offer is over.
    pub fn is_expired(&self, now: Duration) -> bool {
        matches!(self.stage, Stage::Offered { until } if now >= until)
    }

    /// Returns whether the agent reported the end of its clean-up.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Returns whether there is an order to cancel it.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_some()
    }

    /// Returns the bytes of its events since this term began.
    pub fn said(&self) -> u64 {
        self.said
    }

    /// Returns the last sequence number on disk.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Returns the sequence number of the next event.
    pub fn next(&self) -> u64 {
        self.received.next()
    }

    /// Takes the offer that waits, which is sent now and expires at `until`.
    pub fn send_offer(&mut self, until: Duration) -> Option<Offer> {
        if !self.is_unsent() {
            return None;
        }
        match std::mem::replace(&mut self.stage, Stage::Offered { until }) {
            Stage::Unsent(offer) => Some(*offer),
            _ => None,
        }
    }

    /// Notes that the agent holds the attempt. Returns whether that is new.
    pub fn accept(&mut self, now: Duration, margin: Duration) -> bool {
        let new = self.is_offered();
        if new {
            self.stage = Stage::Held;
            self.count_from(now, margin);
        }
        new
    }

    /// Starts counting the time allowed, since the agent holds the attempt. Before the cell's own time begins, stacks
    /// are opened and workspaces copied, within the same timeout; `margin` covers everything that follows a timeout.
    fn count_from(&mut self, now: Duration, margin: Duration) {
        let preparation = self.timeout.min(PREPARATION);
        let allowed = self
            .timeout
            .saturating_add(preparation)
            .saturating_add(margin);
        self.overdue.get_or_insert(now.saturating_add(allowed));
    }

    /// Takes a cancel order, which also shortens the time allowed.
    pub fn cancel(&mut self, cancel: Cancel, now: Duration, margin: Duration) {
        let until = now
            .saturating_add(cancel.order.grace)
            .saturating_add(margin);
        self.overdue = self.overdue.map(|known| known.min(until));
        self.cancel = Some(cancel);
    }

    /// Returns the order that the agent hasn't confirmed, as sent now, if it wasn't sent before or `repeat` is due.
    pub fn unconfirmed_cancel(&mut self, now: Duration, repeat: bool) -> Option<CancelOrder> {
        let cancel = self.cancel.as_mut().filter(|cancel| !cancel.arrived)?;
        let due = cancel
            .sent
            .is_none_or(|sent| now >= sent + REPEAT_CANCEL_AFTER);
        if repeat && !due {
            return None;
        }
        cancel.sent = Some(now);
        Some(cancel.order.clone())
    }

    /// Notes that the agent confirmed the order to cancel.
    pub fn cancel_arrived(&mut self) {
        if let Some(cancel) = &mut self.cancel {
            cancel.arrived = true;
        }
    }

    /// Takes the new events out of a batch.
    pub fn take(&mut self, events: Vec<Event>) -> Sequence {
        let sequence = self.received.take(events);
        if let Sequence::New(new) = &sequence {
            let torn_down = |event: &Event| matches!(event.kind, EventKind::TornDown { .. });
            self.over |= new.events().iter().any(torn_down);
            self.said += new.events().iter().map(|e| size(&e.kind)).sum::<u64>();
            self.pending += 1;
        }
        sequence
    }

    /// Returns whether one more batch may wait for the journal.
    pub fn may_send_more(&self) -> bool {
        self.pending < MAX_PENDING
    }

    /// Notes that a batch up to this sequence number is on disk. Returns the last sequence number that is.
    pub fn stored(&mut self, seq: u64) -> u64 {
        self.pending = self.pending.saturating_sub(1);
        self.durable = self.durable.max(seq);
        self.durable
    }

    /// Returns whether the attempt should have ended long ago. While its events wait for the coordinator's disk, its
    /// agent may be waiting for that, which isn't its fault.
    pub fn is_overdue(&mut self, now: Duration) -> bool {
        let Some(until) = &mut self.overdue else {
            return false;
        };
        if self.pending > 0 {
            *until = (*until).max(now + AFTER_OUR_DISK);
        }
        now >= *until
    }

    /// Doesn't count time in which the coordinator was stopped.
    pub fn slept(&mut self, slept: Duration) {
        self.overdue = self.overdue.map(|until| until + slept);
    }
}
