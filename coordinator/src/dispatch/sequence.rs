//! The one check of sequence numbers. It stands behind the gate: only a batch from the holder of an attempt gets here,
//! and only [`InSequence`] goes further, so that no later stage has to check again.

use phalanx_shared::event::Event;

/// Events of one attempt that are new and follow the ones before without a gap. Only [`Received::take`] makes them.
#[derive(Clone, Debug, PartialEq)]
pub struct InSequence(Vec<Event>);

impl InSequence {
    /// Returns the sequence number of the last event.
    pub fn last(&self) -> u64 {
        self.0.last().map_or(0, |event| event.seq)
    }

    /// Returns the events.
    pub fn events(&self) -> &[Event] {
        &self.0
    }

    /// Returns the events.
    pub fn into_events(self) -> Vec<Event> {
        self.0
    }

    /// Passes a batch on without the check, to show that the simulator detects what the gate prevents.
    #[cfg(test)]
    pub(crate) fn unchecked(events: Vec<Event>) -> Self {
        InSequence(events)
    }
}

/// How a batch of events relates to those received before.
#[derive(Debug, PartialEq)]
pub enum Sequence {
    /// The new events of the batch.
    New(InSequence),
    /// All of these events were received before.
    Repeated,
    /// Events are missing before the batch or within it.
    Hole,
}

/// The last sequence number that was received of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received(u64);

impl Received {
    /// Continues after this sequence number.
    pub fn up_to(seq: u64) -> Self {
        Received(seq)
    }

    /// Returns the sequence number of the next event.
    pub fn next(self) -> u64 {
        self.0 + 1
    }

    /// Takes the new events out of a batch.
    pub fn take(&mut self, mut events: Vec<Event>) -> Sequence {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Sequence::Repeated;
        };
        if last.seq <= self.0 {
            return Sequence::Repeated;
        }
        let consecutive = |pair: &[Event]| matches!(pair, [a, b] if a.seq + 1 == b.seq);
        if first.seq > self.next() || !events.windows(2).all(consecutive) {
            return Sequence::Hole;
        }
        let before = std::mem::replace(&mut self.0, last.seq);
        events.retain(|event| event.seq > before);
        Sequence::New(InSequence(events))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use phalanx_shared::event::EventKind;

    fn batch(seqs: &[u64]) -> Vec<Event> {
        let event = |seq: &u64| Event {
            run: "r".into(),
            attempt: None,
            seq: *seq,
            at: Default::default(),
            mono_us: 0,
            kind: EventKind::Note {
                message: String::new(),
            },
        };
        seqs.iter().map(event).collect()
    }

    #[test]
    fn only_new_events_pass_and_only_without_a_gap() {
        let mut received = Received::up_to(3);
        assert_eq!(received.take(batch(&[2, 3])), Sequence::Repeated);
        assert_eq!(received.take(batch(&[])), Sequence::Repeated);
        assert_eq!(received.take(batch(&[5])), Sequence::Hole);
        assert_eq!(received.take(batch(&[4, 6])), Sequence::Hole);
        assert_eq!(received.take(batch(&[6, 5])), Sequence::Hole);
        assert_eq!(received.next(), 4, "a refused batch leaves no trace");
        let Sequence::New(new) = received.take(batch(&[3, 4, 5])) else {
            panic!("new events are refused");
        };
        let seqs: Vec<u64> = new.events().iter().map(|event| event.seq).collect();
        assert_eq!((seqs, new.last(), received.next()), (vec![4, 5], 5, 6));
    }
}
