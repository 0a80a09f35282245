//! Numbers the events of each attempt and keeps each one until the coordinator has it on disk (I1).
//!
//! Numbers count from 1 per attempt, in order of arrival, without holes. Entries are removed only when they are
//! acknowledged or the attempt is forgotten. Memory is bounded: further events go to the overflow. When that is full or
//! fails, [`Spool::has_room`] turns false and the producers wait. No event is lost and [`Spool::push`] never fails,
//! because each producer may have one event in flight.
//!
//! stage: on its way: numbered, kept until the coordinator acknowledges it

use super::budget::slim;
use super::overflow::{Overflow, Place};
use phalanx_proto::limit::{BATCH_BYTES, BATCH_EVENTS, EVENT_MADE_BYTES};
use phalanx_shared::event::{AttemptRef, Event, EventKind};
use phalanx_shared::id::Token;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Limits for events.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum size in bytes of the events in memory, for all attempts together.
    pub memory_bytes: usize,
    /// Maximum size in bytes of the events in the overflow, for all attempts together.
    pub overflow_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: 16 << 20,
            overflow_bytes: 1 << 30,
        }
    }
}

/// The unacknowledged events of all attempts of an agent.
#[derive(Debug)]
pub struct Spool<O> {
    overflow: O,
    limits: Limits,
    attempts: BTreeMap<Token, Attempt>,
    /// The attempts with events that weren't sent yet: with a thousand attempts, few have any at a time.
    unsent: BTreeSet<Token>,
    memory_bytes: usize,
    overflow_bytes: usize,
    /// The overflow is full or failed; it is tried again after an acknowledgement.
    refused: bool,
}

/// One attempt: sequence numbers `durable + 1 ..= durable + entries.len()`.
#[derive(Debug, Default)]
struct Attempt {
    durable: u64,
    sent: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Memory(Box<Event>),
    Overflow(Place),
}

impl Attempt {
    fn last(&self) -> u64 {
        self.durable + self.entries.len() as u64
    }
}

/// Returns the name of an attempt's file in the overflow.
fn file_name(token: &Token) -> String {
    format!(
        "{}_{}_{}_{}.events",
        token.run, token.cell, token.attempt, token.epoch
    )
}

impl<O: Overflow> Spool<O> {
    /// Creates an empty spool.
    pub fn new(overflow: O, limits: Limits) -> Self {
        Spool {
            overflow,
            limits,
            attempts: BTreeMap::new(),
            unsent: BTreeSet::new(),
            memory_bytes: 0,
            overflow_bytes: 0,
            refused: false,
        }
    }

    /// Starts to keep an attempt's events.
    pub fn open(&mut self, token: Token) {
        self.attempts.entry(token).or_default();
    }

    /// Returns whether producers may continue.
    pub fn has_room(&self) -> bool {
        self.memory_bytes < self.limits.memory_bytes || !self.refused
    }

    /// Numbers an event and keeps it. Reduces it first if it is too large. Returns its original size in bytes. Drops
    /// events of an attempt that isn't open.
    pub fn push(&mut self, token: &Token, at: Timestamp, mono_us: u64, kind: EventKind) -> usize {
        let Some(attempt) = self.attempts.get_mut(token) else {
            return 0;
        };
        let mut event = Event {
            run: token.run.clone(),
            attempt: Some(AttemptRef {
                cell: token.cell.clone(),
                attempt: token.attempt,
            }),
            seq: attempt.last() + 1,
            at,
            mono_us,
            kind,
        };
        let mut json = serde_json::to_vec(&event).unwrap_or_default();
        let made = json.len();
        if made > EVENT_MADE_BYTES {
            event.kind = slim(event.kind);
            json = serde_json::to_vec(&event).unwrap_or_default();
        }
        let bytes = json.len();
        let kept = if self.memory_bytes + bytes <= self.limits.memory_bytes {
            None
        } else if self.overflow_bytes + bytes <= self.limits.overflow_bytes {
            self.overflow.append(&file_name(token), &json).ok()
        } else {
            None
        };
        let kept = match kept {
            Some(place) => {
                self.overflow_bytes += bytes;
                Kept::Overflow(place)
            }
            None => {
                self.memory_bytes += bytes;
                self.refused |= self.memory_bytes > self.limits.memory_bytes;
                Kept::Memory(Box::new(event))
            }
        };
        attempt.entries.push_back(Entry { bytes, kept });
        if !self.unsent.contains(token) {
            self.unsent.insert(token.clone());
        }
        made
    }

    /// Drops the events up to and including `seq`, which are durable.
    pub fn acknowledge(&mut self, token: &Token, seq: u64) {
        let Some(attempt) = self.attempts.get_mut(token) else {
            return;
        };
        let mut from_file = false;
        while attempt.durable < seq {
            let Some(entry) = attempt.entries.pop_front() else {
                break;
            };
            attempt.durable += 1;
            match entry.kept {
                Kept::Memory(_) => self.memory_bytes -= entry.bytes,
                Kept::Overflow(_) => {
                    self.overflow_bytes -= entry.bytes;
                    from_file = true;
                }
            }
            self.refused = false;
        }
        attempt.sent = attempt.sent.max(attempt.durable);
        if attempt.sent == attempt.last() {
            self.unsent.remove(token);
        }
        let in_file = |entry: &Entry| matches!(entry.kept, Kept::Overflow(_));
        if from_file && !attempt.entries.iter().any(in_file) {
            self.overflow.remove(&file_name(token));
        }
    }

    /// Marks the events from `seq` on as not sent. Returns `false` if they were dropped already, which no correct
    /// coordinator asks for.
    pub fn rewind(&mut self, token: &Token, seq: u64) -> bool {
        let Some(attempt) = self.attempts.get_mut(token) else {
            return true;
        };
        if seq <= attempt.durable {
            return false;
        }
        attempt.sent = attempt.sent.min(seq - 1);
        if attempt.sent < attempt.last() {
            self.unsent.insert(token.clone());
        }
        true
    }

    /// Returns the events that weren't sent yet, as many as fit into a message, and marks them as sent.
    pub fn next_batch(&mut self, token: &Token) -> Vec<Event> {
        let Some(attempt) = self.attempts.get_mut(token) else {
            return Vec::new();
        };
        let from = usize::try_from(attempt.sent - attempt.durable).unwrap_or(usize::MAX);
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (entry, seq) in attempt.entries.iter().skip(from).zip(attempt.sent + 1..) {
            let full = batch.len() >= BATCH_EVENTS || bytes + entry.bytes > BATCH_BYTES;
            if full && !batch.is_empty() {
                break;
            }
            bytes += entry.bytes;
            batch.push(match &entry.kept {
                Kept::Memory(event) => Event::clone(event),
                Kept::Overflow(place) => read_back(&mut self.overflow, token, seq, *place),
            });
        }
        attempt.sent += batch.len() as u64;
        if attempt.sent == attempt.last() {
            self.unsent.remove(token);
        }
        batch
    }

    /// Returns the attempts with events that weren't sent yet, in order.
    pub fn unsent(&self) -> Vec<Token> {
        self.unsent.iter().cloned().collect()
    }

    /// Returns the overflow.
    pub fn overflow(&self) -> &O {
        &self.overflow
    }

    /// Returns the last assigned sequence number, or 0 if there is none.
    pub fn last(&self, token: &Token) -> u64 {
        self.attempts.get(token).map_or(0, Attempt::last)
    }

    /// Returns the last acknowledged sequence number.
    pub fn durable(&self, token: &Token) -> u64 {
        self.attempts.get(token).map_or(0, |a| a.durable)
    }

    /// Returns the number of events that are sent but not acknowledged.
    pub fn in_flight(&self, token: &Token) -> u64 {
        self.attempts.get(token).map_or(0, |a| a.sent - a.durable)
    }

    /// Drops an attempt and all its events.
    pub fn forget(&mut self, token: &Token) {
        let last = self.last(token);
        self.acknowledge(token, last);
        self.attempts.remove(token);
        self.overflow.remove(&file_name(token));
    }
}

/// Reads an event from the overflow. If that fails, returns a note in its place, because the sequence must have no
/// hole.
fn read_back<O: Overflow>(overflow: &mut O, token: &Token, seq: u64, place: Place) -> Event {
    let read = overflow
        .read(&file_name(token), place)
        .and_then(|json| serde_json::from_slice(&json).map_err(std::io::Error::other));
    read.unwrap_or_else(|error| Event {
        run: token.run.clone(),
        attempt: Some(AttemptRef {
            cell: token.cell.clone(),
            attempt: token.attempt,
        }),
        seq,
        at: Timestamp::default(),
        mono_us: 0,
        kind: EventKind::Note {
            message: format!("event {seq} could not be read back from the agent's disk: {error}"),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::link::overflow::Directory;
    use proptest::prelude::*;

    fn token() -> Token {
        Token {
            run: "run".into(),
            cell: "cell".into(),
            attempt: 1,
            epoch: 1,
        }
    }

    fn spool(limits: Limits) -> (tempfile::TempDir, Spool<Directory>) {
        let place = tempfile::tempdir().unwrap();
        let files = Directory::create(place.path().join("spool")).unwrap();
        let mut spool = Spool::new(files, limits);
        spool.open(token());
        (place, spool)
    }

    fn note(spool: &mut Spool<Directory>, message: String) {
        spool.push(&token(), Timestamp(1), 1, EventKind::Note { message });
    }

    fn numbers(batch: &[Event]) -> Vec<u64> {
        batch.iter().map(|event| event.seq).collect()
    }

    const SMALL: Limits = Limits {
        memory_bytes: 400,
        overflow_bytes: 800,
    };

    #[test]
    fn events_are_numbered_from_one_and_kept_until_acknowledged() {
        let (_place, mut spool) = spool(Limits::default());
        for n in 0..3 {
            note(&mut spool, n.to_string());
        }
        assert_eq!(numbers(&spool.next_batch(&token())), [1, 2, 3]);
        assert!(spool.next_batch(&token()).is_empty());
        spool.acknowledge(&token(), 2);
        assert!(!spool.rewind(&token(), 2), "2 is dropped");
        assert!(spool.rewind(&token(), 3));
        assert_eq!(numbers(&spool.next_batch(&token())), [3]);
    }

    #[test]
    fn an_acknowledgement_beyond_the_last_event_drops_no_later_one() {
        let (_place, mut spool) = spool(Limits::default());
        note(&mut spool, String::new());
        spool.acknowledge(&token(), 99);
        note(&mut spool, String::new());
        assert_eq!(numbers(&spool.next_batch(&token())), [2]);
    }

    #[test]
    fn a_full_spool_makes_producers_wait_and_an_acknowledgement_lets_them_go_on() {
        let (_place, mut spool) = spool(SMALL);
        let mut made = 0;
        while spool.has_room() {
            note(&mut spool, "x".repeat(60));
            made += 1;
        }
        note(&mut spool, "under way".to_owned());
        assert!(made >= 4, "{made}");
        let sent = numbers(&spool.next_batch(&token()));
        assert_eq!(sent, (1..=made + 1).collect::<Vec<_>>());
        spool.acknowledge(&token(), made + 1);
        assert!(spool.has_room());
        assert_eq!((spool.memory_bytes, spool.overflow_bytes), (0, 0));
    }

    #[test]
    fn a_batch_is_bounded_in_events_and_bytes() {
        let (_place, mut spool) = spool(Limits::default());
        for _ in 0..BATCH_EVENTS + 10 {
            note(&mut spool, String::new());
        }
        assert_eq!(spool.next_batch(&token()).len(), BATCH_EVENTS);
        assert_eq!(spool.next_batch(&token()).len(), 10);
        for _ in 0..3 {
            note(&mut spool, "x".repeat(BATCH_BYTES / 2));
        }
        assert_eq!(spool.next_batch(&token()).len(), 1);
        assert_eq!(spool.in_flight(&token()), BATCH_EVENTS as u64 + 11);
    }

    #[test]
    fn a_lost_file_leaves_a_note_and_no_hole() {
        let (_place, mut spool) = spool(Limits {
            memory_bytes: 0,
            overflow_bytes: 4096,
        });
        note(&mut spool, "a".to_owned());
        spool.overflow.remove(&file_name(&token()));
        let batch = spool.next_batch(&token());
        assert_eq!(numbers(&batch), [1]);
        assert!(matches!(&batch[0].kind, EventKind::Note { message } if message.contains("disk")));
    }

    proptest! {
        /// After any pushes, sends, acknowledgements and rewinds, events come out as they went in, in order, from
        /// memory or disk.
        #[test]
        fn nothing_is_lost_or_reordered(actions in prop::collection::vec((0..4u8, 0..40u64), 1..80)) {
            let (_place, mut spool) = spool(SMALL);
            let (mut made, mut durable, mut sent) = (0, 0, 0);
            for (action, amount) in actions {
                match action {
                    0 => for _ in 0..amount % 5 {
                        made += 1;
                        note(&mut spool, format!("event {made}"));
                    },
                    1 => for event in spool.next_batch(&token()) {
                        sent += 1;
                        prop_assert_eq!(event.seq, sent);
                        prop_assert_eq!(event.kind, EventKind::Note { message: format!("event {sent}") });
                    },
                    2 => {
                        durable = (durable + amount % 4).min(sent);
                        spool.acknowledge(&token(), durable);
                    }
                    _ => {
                        sent = sent.min(durable + amount % 3);
                        prop_assert!(spool.rewind(&token(), sent + 1));
                    }
                }
                prop_assert_eq!(spool.last(&token()), made);
                prop_assert_eq!(spool.in_flight(&token()), sent - durable);
                prop_assert_eq!(spool.unsent().is_empty(), sent == made);
            }
        }
    }
}
