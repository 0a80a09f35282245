//! The logs of one attempt until the coordinator has stored them: the first half of the cap is sent as it comes, the
//! rest is kept as a tail and sent at the end.

use super::room::Room;
use super::segments::Segments;
use super::tail::Tail;
use crate::link::overflow::{Overflow, Place};
use phalanx_proto::limit::LOG_CHUNK_BYTES;
use phalanx_proto::log::{Body, Record, Source};
use phalanx_shared::event::EventKind;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The records of one attempt: numbers `acknowledged + 1 ..= acknowledged + queue.len()`.
#[derive(Debug)]
pub struct Attempt {
    name: String,
    queue: VecDeque<Entry>,
    acknowledged: u64,
    sent: usize,
    in_flight: u64,
    sources: BTreeMap<Source, Progress>,
    /// Number of bytes of each service that went into the queue.
    heads: BTreeMap<String, u64>,
    ended: bool,
    /// Set if the coordinator refused the logs: the reason.
    refused: Option<String>,
    gaps: Vec<EventKind>,
    /// Files in the overflow, which are removed with the attempt.
    files: BTreeSet<String>,
    /// Artifacts that are not complete yet.
    artifacts: BTreeMap<u32, Incomplete>,
    segments: Segments,
    /// Set if no more artifacts are sent: the reason.
    without_artifacts: Option<String>,
}

/// An artifact whose end hasn't come.
#[derive(Debug, Default)]
struct Incomplete {
    /// Number of its bytes so far.
    bytes: u64,
    /// Why it can't be kept.
    broken: Option<String>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Number of bytes produced.
    produced: u64,
    /// Set when the service's head is full: the offset where the tail began, and the tail.
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
    Artifact {
        id: u32,
        offset: u64,
        kept: Kept,
    },
    ArtifactEnd {
        id: u32,
        /// `None` if the artifact is given up.
        digest: Option<String>,
        size: u64,
    },
    End,
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    Overflow { file: String, place: Place },
}

impl Kept {
    fn len(&self) -> u64 {
        match self {
            Kept::Memory(bytes) => bytes.len() as u64,
            Kept::Overflow { place, .. } => place.len as u64,
        }
    }

    fn read<O: Overflow>(&self, overflow: &mut O) -> std::io::Result<Vec<u8>> {
        match self {
            Kept::Memory(bytes) => Ok(bytes.clone()),
            Kept::Overflow { file, place } => overflow.read(file, *place),
        }
    }
}

impl Entry {
    /// Returns the number of bytes that count against the credit.
    fn len(&self) -> u64 {
        match self {
            Entry::Chunk { kept, .. } | Entry::Artifact { kept, .. } => kept.len(),
            Entry::Gap { .. } | Entry::ArtifactEnd { .. } | Entry::End => 0,
        }
    }

    /// Returns the body of any record without bytes.
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
            Entry::ArtifactEnd { id, digest, size } => Body::ArtifactEnd {
                id: *id,
                digest: digest.clone(),
                size: *size,
            },
            Entry::End | Entry::Chunk { .. } | Entry::Artifact { .. } => Body::End,
        }
    }
}

/// Gives back the room of an entry in memory.
fn release<O>(room: &mut Room<O>, entry: &Entry) {
    if let Entry::Chunk {
        kept: Kept::Memory(bytes),
        ..
    } = entry
    {
        room.memory_bytes -= bytes.len();
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
    /// Creates an attempt without logs. The names of its files begin with `name`.
    pub fn new(name: String) -> Self {
        Attempt {
            segments: Segments::new(&name),
            without_artifacts: None,
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
            artifacts: BTreeMap::new(),
        }
    }

    /// Takes bytes of an artifact. They wait on the agent's disk, because logs need the memory.
    pub fn artifact<O: Overflow>(&mut self, room: &mut Room<O>, id: u32, bytes: &[u8]) {
        if self.ended || self.refused.is_some() {
            return;
        }
        let incomplete = self.artifacts.entry(id).or_default();
        for piece in bytes.chunks(LOG_CHUNK_BYTES) {
            if incomplete.broken.is_some() || self.without_artifacts.is_some() {
                return;
            }
            match self.segments.append(room, piece) {
                Ok((file, place)) => {
                    self.queue.push_back(Entry::Artifact {
                        id,
                        offset: incomplete.bytes,
                        kept: Kept::Overflow { file, place },
                    });
                    incomplete.bytes += piece.len() as u64;
                }
                Err(why) => incomplete.broken = Some(why),
            }
        }
    }

    /// Handles the end of an artifact; without a digest it is given up.
    pub fn artifact_end(&mut self, id: u32, digest: Option<String>, size: u64) {
        let incomplete = self.artifacts.remove(&id).unwrap_or_default();
        let broken = incomplete.broken.or_else(|| self.refused.clone());
        let broken = broken.or_else(|| self.without_artifacts.clone());
        let broken = broken.or_else(|| self.ended.then(|| "it came too late".to_owned()));
        let digest = match (digest, broken) {
            (Some(_), Some(reason)) => {
                self.artifact_lost(id, &reason);
                None
            }
            (digest, _) => digest,
        };
        if !self.ended && self.refused.is_none() {
            self.queue
                .push_back(Entry::ArtifactEnd { id, digest, size });
        }
    }

    /// Handles the coordinator's refusal of an artifact: it is lost, and bytes that aren't sent yet needn't be.
    pub fn artifact_refused<O: Overflow>(&mut self, room: &mut Room<O>, id: u32, reason: &str) {
        self.artifact_lost(id, reason);
        if let Some(incomplete) = self.artifacts.get_mut(&id) {
            incomplete.broken.get_or_insert_with(|| reason.to_owned());
        }
        self.give_up_unsent(room, |of| of == id);
    }

    /// Sends no more artifacts: those whose end isn't sent yet are lost.
    pub fn give_up_artifacts<O: Overflow>(&mut self, room: &mut Room<O>, reason: &str) {
        if self.refused.is_some() || self.without_artifacts.is_some() {
            return;
        }
        self.without_artifacts = Some(reason.to_owned());
        for lost in self.give_up_unsent(room, |_| true) {
            self.artifact_lost(lost, reason);
        }
    }

    /// Gives up the unsent rest of artifacts. Returns the numbers of those that were complete.
    fn give_up_unsent<O: Overflow>(
        &mut self,
        room: &mut Room<O>,
        given_up: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        let mut complete = Vec::new();
        for entry in self.queue.iter_mut().skip(self.sent) {
            let id = match entry {
                Entry::Artifact { id, kept, .. } if given_up(*id) => {
                    if let Kept::Overflow { file, .. } = kept {
                        self.segments.release(room, file);
                    }
                    *id
                }
                Entry::ArtifactEnd {
                    id,
                    digest: Some(_),
                    ..
                } if given_up(*id) => {
                    complete.push(*id);
                    *id
                }
                _ => continue,
            };
            // The number of each record is given by its place in the queue, so none may be taken out.
            *entry = Entry::ArtifactEnd {
                id,
                digest: None,
                size: 0,
            };
        }
        complete
    }

    /// Declares an artifact lost, once.
    fn artifact_lost(&mut self, id: u32, reason: &str) {
        let told = |gap: &EventKind| matches!(gap, EventKind::ArtifactLost { id: lost, .. } if *lost == id);
        if !self.gaps.iter().any(told) {
            let reason = reason.to_owned();
            self.gaps.push(EventKind::ArtifactLost { id, reason });
        }
    }

    /// Declares the artifact of an entry lost, if its end is what the entry holds.
    fn artifact_of_lost(&mut self, entry: &Entry, reason: &str) {
        if let Entry::ArtifactEnd {
            id,
            digest: Some(_),
            ..
        } = entry
        {
            self.artifact_lost(*id, reason);
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
        // Once the head is full, whichever stream filled it, it stays full: later output of a stream with a tail must
        // go into its tail.
        *head = room.cap_bytes / 2;
        let (_, tail) = progress.tail.get_or_insert_with(|| {
            // Two streams with two files each share the other half of the cap.
            let name = format!("{}.tail{index}", self.name);
            (offset, Tail::new(name, room.cap_bytes / 8))
        });
        tail.push(&mut room.overflow, offset, at, bytes);
    }

    /// Appends to the last record if the bytes continue it and it isn't sent yet, else to a new one. Keeps the bytes in
    /// memory if they fit.
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

    /// Declares bytes lost, as a record and as an event.
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

    /// Handles the end of the output: queues the content of the tails, with gaps where bytes are missing.
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
        for (id, _) in std::mem::take(&mut self.artifacts) {
            self.queue.push_back(Entry::ArtifactEnd {
                id,
                digest: None,
                size: 0,
            });
        }
        self.queue.push_back(Entry::End);
    }

    /// Handles the coordinator's refusal: all bytes that it hasn't stored, and all later ones, become one gap per
    /// stream.
    pub fn refuse<O: Overflow>(&mut self, room: &mut Room<O>, reason: &str) {
        if self.refused.is_some() {
            return;
        }
        self.refused = Some(reason.to_owned());
        for entry in std::mem::take(&mut self.queue) {
            release(room, &entry);
            if let Entry::Chunk { source, offset, .. } = &entry {
                self.lost(source, *offset, *offset + entry.len());
            }
            self.artifact_of_lost(&entry, reason);
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
        self.segments.clear(room);
        self.rewind();
    }

    /// Returns whether no record of it is left to be sent.
    pub fn is_over(&self) -> bool {
        self.ended && self.queue.is_empty()
    }

    /// Records refused bytes: extends the stream's last gap or begins a new one.
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

    /// Returns the next record that may be sent with this much credit, and marks it as sent.
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
                    // The numbers must have no hole: the record becomes a gap, which is also reported as an event of
                    // the run.
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
            Entry::Artifact { id, offset, kept } => match kept.read(&mut room.overflow) {
                Ok(bytes) => Body::Artifact {
                    id: *id,
                    offset: *offset,
                    bytes,
                },
                Err(error) => {
                    let id = *id;
                    *entry = Entry::ArtifactEnd {
                        id,
                        digest: None,
                        size: 0,
                    };
                    let body = entry.body();
                    self.artifact_lost(id, &format!("the agent's disk: {error}"));
                    body
                }
            },
            other => other.body(),
        };
        self.sent += 1;
        // A record whose bytes can't be read weighs less than what it replaced.
        self.in_flight += self.queue.get(self.sent - 1).map_or(0, Entry::len);
        Some(Record {
            number: self.acknowledged + self.sent as u64,
            body,
        })
    }

    /// Drops the records up to and including this number. Returns whether all of the attempt's logs are stored.
    pub fn acknowledge<O: Overflow>(&mut self, room: &mut Room<O>, number: u64) -> bool {
        while self.acknowledged < number && self.sent > 0 {
            let Some(entry) = self.queue.pop_front() else {
                break;
            };
            self.acknowledged += 1;
            self.sent -= 1;
            self.in_flight -= entry.len();
            release(room, &entry);
            if let Entry::Artifact {
                kept: Kept::Overflow { file, .. },
                ..
            } = &entry
            {
                self.segments.release(room, file);
            }
        }
        self.is_over()
    }

    /// Handles a new connection: all unacknowledged records are sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
        self.in_flight = 0;
    }

    /// Drops everything. Unacknowledged bytes become gaps with this reason.
    pub fn give_up<O: Overflow>(&mut self, room: &mut Room<O>, reason: &str) {
        self.end(room.cap_bytes);
        for entry in std::mem::take(&mut self.queue) {
            release(room, &entry);
            if let Entry::Chunk { source, offset, .. } = &entry {
                let to = offset + entry.len();
                let event = gap_event(source, *offset, to, reason.to_owned());
                self.gaps.push(event);
            }
            self.artifact_of_lost(&entry, reason);
        }
        self.rewind();
    }

    /// Returns the gaps, as events for the run, and removes the files. Call it when the logs are over.
    pub fn finish<O: Overflow>(mut self, room: &mut Room<O>) -> Vec<EventKind> {
        for entry in &self.queue {
            release(room, entry);
        }
        for file in &self.files {
            room.overflow.remove(file);
        }
        self.segments.clear(room);
        self.gaps
    }
}
