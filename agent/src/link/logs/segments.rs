//! The files in which an attempt's artifacts wait. There are several, so that the disk is free again as they are
//! acknowledged, and not only when the attempt is over.

use super::room::Room;
use crate::link::overflow::{Overflow, Place};
use phalanx_shared::language::quantity::spelled_bytes;
use std::collections::BTreeMap;

/// Bytes after which the next file begins.
const SEGMENT: u64 = 64 << 20;

/// The files of one attempt.
#[derive(Debug)]
pub struct Segments {
    name: String,
    /// Number of the file that grows.
    number: u32,
    files: BTreeMap<String, Segment>,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: u64,
    /// Number of pieces that are still needed.
    pieces: usize,
}

impl Segments {
    /// The names of the files begin with `name`.
    pub fn new(name: &str) -> Self {
        Segments {
            name: format!("{name}.artifacts"),
            number: 0,
            files: BTreeMap::new(),
        }
    }

    /// Appends a piece. The error is why the agent can't keep it.
    pub fn append<O: Overflow>(
        &mut self,
        room: &mut Room<O>,
        bytes: &[u8],
    ) -> Result<(String, Place), String> {
        let len = bytes.len() as u64;
        if room.artifact_bytes + len > room.artifact_limit {
            return Err(format!(
                "more than {} of artifacts wait on the agent for the coordinator",
                spelled_bytes(room.artifact_limit)
            ));
        }
        if let Some(full) = room.overflow.below_reserve() {
            return Err(full);
        }
        let full = |file: &Segment| file.bytes >= SEGMENT;
        if self.files.get(&self.growing()).is_some_and(full) {
            let before = self.growing();
            self.number += 1;
            self.remove_if_done(room, &before);
        }
        let file = self.growing();
        let place = room.overflow.append(&file, bytes);
        let place = place.map_err(|error| format!("the agent's disk: {error}"))?;
        let segment = self.files.entry(file.clone()).or_default();
        segment.bytes += len;
        segment.pieces += 1;
        room.artifact_bytes += len;
        Ok((file, place))
    }

    /// A piece of a file isn't needed any more.
    pub fn release<O: Overflow>(&mut self, room: &mut Room<O>, file: &str) {
        if let Some(segment) = self.files.get_mut(file) {
            segment.pieces = segment.pieces.saturating_sub(1);
        }
        self.remove_if_done(room, file);
    }

    /// Removes all files.
    pub fn clear<O: Overflow>(&mut self, room: &mut Room<O>) {
        for (file, segment) in std::mem::take(&mut self.files) {
            room.overflow.remove(&file);
            room.artifact_bytes -= segment.bytes;
        }
    }

    fn growing(&self) -> String {
        format!("{}{}", self.name, self.number)
    }

    fn remove_if_done<O: Overflow>(&mut self, room: &mut Room<O>, file: &str) {
        let is_done = self.files.get(file).is_some_and(|file| file.pieces == 0);
        if is_done && file != self.growing() {
            room.overflow.remove(file);
            let segment = self.files.remove(file).unwrap_or_default();
            room.artifact_bytes -= segment.bytes;
        }
    }
}
