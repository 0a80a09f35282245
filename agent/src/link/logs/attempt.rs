//! The logs of one attempt until the coordinator has them: the first half of the cap as it comes, the rest as a tail at the end.

use super::tail::Tail;
use crate::link::overflow::{Overflow, Place};
use phalanx_proto::limit::LOG_CHUNK_BYTES;
use phalanx_proto::log::{Body, Record, Source};
use phalanx_shared::event::EventKind;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What attempts share: the overflow and the room in memory.
#[derive(Debug)]
pub struct Room<O> {
    /// For what doesn't fit.
    pub overflow: O,
    /// Bytes in memory now.
    pub memory_bytes: usize,
    /// Bytes allowed.
    pub memory_limit: usize,
    /// Bytes kept of one service: head and tail.
    pub cap_bytes: u64,
}

/// The records of one attempt: numbers `acknowledged + 1 ..= acknowledged + queue.len()`.
#[derive(Debug)]
pub struct Attempt {
    name: String,
    queue: VecDeque<Entry>,
    acknowledged: u64,
    sent: usize,
    in_flight: u64,
    sources: BTreeMap<Source, Progress>,
    /// Bytes of each service that went into the queue.
    heads: BTreeMap<String, u64>,
    ended: bool,
    /// The coordinator keeps nothing of it, and why.
    refused: Option<String>,
    gaps: Vec<EventKind>,
    /// Names in the overflow, removed with the attempt.
    files: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Bytes produced.
    produced: u64,
    /// Set when the service's head is full: where it began, and what it kept.
    tail: Option<(u64, Tail)>,
}

#[derive(Debug)]
enum Entry {
    Chunk {
        source: Source,
        offset: u64,
        at: Timestamp,
        kept: Kept,
    },
    Gap {
        source: Source,
        from: u64,
        to: u64,
        reason: String,
    },
    End,
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    Overflow { file: String, place: Place },
}

impl Kept {
    fn read<O: Overflow>(&self, overflow: &mut O) -> std::io::Result<Vec<u8>> {
        match self {
            Kept::Memory(bytes) => Ok(bytes.clone()),
            Kept::Overflow { file, place } => overflow.read(file, *place),
        }
    }
}

impl Entry {
    /// Bytes that count against the credit.
    fn len(&self) -> u64 {
        match self {
            Entry::Chunk {
                kept: Kept::Memory(bytes),
                ..
            } => bytes.len() as u64,
            Entry::Chunk {
                kept: Kept::Overflow { place, .. },
                ..
            } => place.len as u64,
            Entry::Gap { .. } | Entry::End => 0,
        }
    }

    /// What goes over the wire, of everything but a chunk.
    fn body(&self) -> Body {
        match self {
            Entry::Gap {
                source,
                from,
                to,
                reason,
            } => Body::Gap {
                source: source.clone(),
                from: *from,
                to: *to,
                reason: reason.clone(),
            },
            Entry::End | Entry::Chunk { .. } => Body::End,
        }
    }
}

impl<O> Room<O> {
    fn release(&mut self, entry: &Entry) {
        if let Entry::Chunk {
            kept: Kept::Memory(bytes),
            ..
        } = entry
        {
            self.memory_bytes -= bytes.len();
        }
    }
}

fn gap_event(source: &Source, from: u64, to: u64, reason: String) -> EventKind {
    EventKind::LogGap {
        service: source.service.clone(),
        stream: source.stream,
        from,
        to,
        reason,
    }
}

impl Attempt {
    /// No logs yet. `name` begins the names of its files.
    pub fn new(name: String) -> Self {
        Attempt {
            name,
            queue: VecDeque::new(),
            acknowledged: 0,
            sent: 0,
            in_flight: 0,
            sources: BTreeMap::new(),
            heads: BTreeMap::new(),
            ended: false,
            refused: None,
            gaps: Vec::new(),
            files: BTreeSet::new(),
        }
    }

    /// Takes bytes of any length.
    pub fn write<O: Overflow>(
        &mut self,
        room: &mut Room<O>,
        source: Source,
        at: Timestamp,
        bytes: &[u8],
    ) {
        for piece in bytes.chunks(LOG_CHUNK_BYTES) {
            self.write_piece(room, &source, at, piece);
        }
    }

    fn write_piece<O: Overflow>(
        &mut self,
        room: &mut Room<O>,
        source: &Source,
        at: Timestamp,
        bytes: &[u8],
    ) {
        let index = self.sources.len();
        let progress = self.sources.entry(source.clone()).or_default();
        let offset = progress.produced;
        progress.produced += bytes.len() as u64;
        if self.refused.is_some() {
            let to = progress.produced;
            self.lost(source, offset, to);
            return;
        }
        let head = self.heads.entry(source.service.clone()).or_default();
        if progress.tail.is_none() && *head + bytes.len() as u64 <= room.cap_bytes / 2 {
            *head += bytes.len() as u64;
            self.enqueue(room, source, offset, at, bytes);
            return;
        }
        // The head is full for good, whichever stream filled it: what a stream says once it is in its tail stays in its tail.
        *head = room.cap_bytes / 2;
        let (_, tail) = progress.tail.get_or_insert_with(|| {
            // Two streams with two files each share the other half of the cap.
            let name = format!("{}.tail{index}", self.name);
            (offset, Tail::new(name, room.cap_bytes / 8))
        });
        tail.push(&mut room.overflow, offset, at, bytes);
    }

    /// Into the last record if it continues it and isn't sent yet, else into a new one; in memory if there is room.
    fn enqueue<O: Overflow>(
        &mut self,
        room: &mut Room<O>,
        source: &Source,
        offset: u64,
        at: Timestamp,
        bytes: &[u8],
    ) {
        let fits = room.memory_bytes + bytes.len() <= room.memory_limit;
        let unsent = self.queue.len() > self.sent;
        if let Some(Entry::Chunk {
            source: last,
            kept: Kept::Memory(kept),
            ..
        }) = self.queue.back_mut()
            && unsent
            && fits
            && last == source
            && kept.len() + bytes.len() <= LOG_CHUNK_BYTES
        {
            kept.extend_from_slice(bytes);
            room.memory_bytes += bytes.len();
            return;
        }
        let kept = if fits {
            room.memory_bytes += bytes.len();
            Kept::Memory(bytes.to_vec())
        } else {
            let file = format!("{}.head", self.name);
            match room.overflow.append(&file, bytes) {
                Ok(place) => {
                    self.files.insert(file.clone());
                    Kept::Overflow { file, place }
                }
                Err(error) => {
                    let to = offset + bytes.len() as u64;
                    self.gap(source, offset, to, format!("the agent's disk: {error}"));
                    return;
                }
            }
        };
        self.queue.push_back(Entry::Chunk {
            source: source.clone(),
            offset,
            at,
            kept,
        });
    }

    /// Declares bytes lost, here and as an event.
    fn gap(&mut self, source: &Source, from: u64, to: u64, reason: String) {
        let unsent = self.queue.len() > self.sent;
        if let Some(Entry::Gap {
            source: last,
            to: end,
            ..
        }) = self.queue.back_mut()
            && unsent
            && last == source
            && *end == from
        {
            *end = to;
            if let Some(EventKind::LogGap { to: end, .. }) = self.gaps.last_mut() {
                *end = to;
            }
            return;
        }
        self.gaps.push(gap_event(source, from, to, reason.clone()));
        self.queue.push_back(Entry::Gap {
            source: source.clone(),
            from,
            to,
            reason,
        });
    }

    /// Nothing follows: what the tails kept goes into the queue, with gaps where something is missing.
    pub fn end(&mut self, cap_bytes: u64) {
        if self.ended {
            return;
        }
        self.ended = true;
        if self.refused.is_some() {
            return;
        }
        for (source, progress) in std::mem::take(&mut self.sources) {
            let Some((mut expected, tail)) = progress.tail else {
                continue;
            };
            let reason = || format!("over the cap of {cap_bytes} bytes for one service");
            for piece in tail.into_pieces() {
                if piece.offset > expected {
                    self.gap(&source, expected, piece.offset, reason());
                }
                expected = piece.offset + piece.place.len as u64;
                self.files.insert(piece.file.clone());
                self.queue.push_back(Entry::Chunk {
                    source: source.clone(),
                    offset: piece.offset,
                    at: piece.at,
                    kept: Kept::Overflow {
                        file: piece.file,
                        place: piece.place,
                    },
                });
            }
            if progress.produced > expected {
                self.gap(&source, expected, progress.produced, reason());
            }
        }
        self.queue.push_back(Entry::End);
    }

    /// The coordinator keeps nothing of it: what it hasn't stored, and all that follows, is a gap of each output.
    pub fn refuse<O: Overflow>(&mut self, room: &mut Room<O>, reason: &str) {
        if self.refused.is_some() {
            return;
        }
        self.refused = Some(reason.to_owned());
        for entry in std::mem::take(&mut self.queue) {
            room.release(&entry);
            if let Entry::Chunk { source, offset, .. } = &entry {
                self.lost(source, *offset, *offset + entry.len());
            }
        }
        let mut tails = Vec::new();
        for (source, progress) in &mut self.sources {
            if let Some((from, tail)) = progress.tail.take() {
                let files = tail.into_pieces().map(|piece| piece.file);
                self.files.extend(files);
                tails.push((source.clone(), from, progress.produced));
            }
        }
        for (source, from, to) in tails {
            self.lost(&source, from, to);
        }
        self.rewind();
    }

    /// Whether nothing of it is left to be told.
    pub fn is_over(&self) -> bool {
        self.ended && self.queue.is_empty()
    }

    /// Bytes that were refused: the output's last gap grows, or begins.
    fn lost(&mut self, source: &Source, from: u64, to: u64) {
        let grown = self.gaps.iter_mut().rev().find_map(|gap| match gap {
            EventKind::LogGap {
                service,
                stream,
                to: end,
                reason,
                ..
            } if *service == source.service
                && *stream == source.stream
                && *end == from
                && Some(&*reason) == self.refused.as_ref() =>
            {
                Some(end)
            }
            _ => None,
        });
        match grown {
            Some(end) => *end = to,
            None => {
                let reason = self.refused.clone().unwrap_or_default();
                self.gaps.push(gap_event(source, from, to, reason));
            }
        }
    }

    /// The next record that may be sent with this much credit, marked as sent.
    pub fn next_record<O: Overflow>(
        &mut self,
        room: &mut Room<O>,
        window_bytes: u64,
    ) -> Option<Record> {
        let entry = self.queue.get_mut(self.sent)?;
        let len = entry.len();
        if self.in_flight > 0 && self.in_flight + len > window_bytes {
            return None;
        }
        let body = match entry {
            Entry::Chunk {
                source,
                offset,
                at,
                kept,
            } => match kept.read(&mut room.overflow) {
                Ok(bytes) => Body::Chunk {
                    source: source.clone(),
                    offset: *offset,
                    at: *at,
                    bytes,
                },
                Err(error) => {
                    // The numbers must have no hole: the record becomes a gap, and the run is told.
                    let to = *offset + len;
                    let reason = format!("the agent's disk: {error}");
                    self.gaps
                        .push(gap_event(source, *offset, to, reason.clone()));
                    let (source, from) = (source.clone(), *offset);
                    *entry = Entry::Gap {
                        source,
                        from,
                        to,
                        reason,
                    };
                    entry.body()
                }
            },
            other => other.body(),
        };
        self.sent += 1;
        self.in_flight += len;
        Some(Record {
            number: self.acknowledged + self.sent as u64,
            body,
        })
    }

    /// Drops what is stored up to and including a number. True when that was all there ever will be.
    pub fn acknowledge<O>(&mut self, room: &mut Room<O>, number: u64) -> bool {
        while self.acknowledged < number && self.sent > 0 {
            let Some(entry) = self.queue.pop_front() else {
                break;
            };
            self.acknowledged += 1;
            self.sent -= 1;
            self.in_flight -= entry.len();
            room.release(&entry);
        }
        self.is_over()
    }

    /// A new connection: everything unacknowledged is sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
        self.in_flight = 0;
    }

    /// Drops everything. What wasn't acknowledged becomes gaps of this reason.
    pub fn give_up<O: Overflow>(&mut self, room: &mut Room<O>, reason: &str) {
        self.end(room.cap_bytes);
        for entry in std::mem::take(&mut self.queue) {
            room.release(&entry);
            if let Entry::Chunk { source, offset, .. } = &entry {
                let to = offset + entry.len();
                let event = gap_event(source, *offset, to, reason.to_owned());
                self.gaps.push(event);
            }
        }
        self.rewind();
    }

    /// The gaps, as events for the run. Taken when the logs are over; the files go.
    pub fn finish<O: Overflow>(self, room: &mut Room<O>) -> Vec<EventKind> {
        for entry in &self.queue {
            room.release(entry);
        }
        for file in &self.files {
            room.overflow.remove(file);
        }
        self.gaps
    }
}
