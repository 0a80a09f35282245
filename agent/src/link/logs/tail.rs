//! The end of a log that exceeds its cap: the newest bytes, in two files of which the older goes when the newer is full.

use crate::link::overflow::{Overflow, Place};
use phalanx_shared::time::Timestamp;
use std::collections::VecDeque;

/// The newest bytes of one source.
#[derive(Debug)]
pub struct Tail {
    name: String,
    segment_bytes: u64,
    /// Number of the file written to, and the bytes in it.
    segment: u64,
    filled: u64,
    pieces: VecDeque<(u64, Piece)>,
}

/// Bytes that are still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of the first byte in the source's stream.
    pub offset: u64,
    /// When it came.
    pub at: Timestamp,
    /// The overflow's file.
    pub file: String,
    /// Where in it.
    pub place: Place,
}

impl Tail {
    /// An empty tail that keeps between one and two times `segment_bytes` in files whose names begin with `name`.
    pub fn new(name: String, segment_bytes: u64) -> Self {
        Tail {
            name,
            segment_bytes,
            segment: 0,
            filled: 0,
            pieces: VecDeque::new(),
        }
    }

    /// Takes bytes. What the overflow refuses is missing afterwards; the offsets show it.
    pub fn push<O: Overflow>(
        &mut self,
        overflow: &mut O,
        offset: u64,
        at: Timestamp,
        bytes: &[u8],
    ) {
        if self.filled >= self.segment_bytes {
            self.segment += 1;
            self.filled = 0;
            if let Some(oldest) = self.segment.checked_sub(2) {
                overflow.remove(&self.file(oldest));
                self.pieces.retain(|(segment, _)| *segment != oldest);
            }
        }
        let file = self.file(self.segment);
        if let Ok(place) = overflow.append(&file, bytes) {
            self.filled += bytes.len() as u64;
            let piece = Piece {
                offset,
                at,
                file,
                place,
            };
            self.pieces.push_back((self.segment, piece));
        }
    }

    /// What is left, oldest first. The files stay until their names are removed.
    pub fn into_pieces(self) -> impl Iterator<Item = Piece> {
        self.pieces.into_iter().map(|(_, piece)| piece)
    }

    fn file(&self, segment: u64) -> String {
        format!("{}.{segment}", self.name)
    }
}
