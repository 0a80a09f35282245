//! The end of a log that exceeds its cap: the newest bytes in two files. When the newer file is full, the older one is
//! removed.

use crate::link::overflow::{Overflow, Place};
use phalanx_shared::time::Timestamp;
use std::collections::VecDeque;

/// The newest bytes of one source.
#[derive(Debug)]
pub struct Tail {
    name: String,
    segment_bytes: u64,
    /// Number of the current file, and the bytes in it.
    segment: u64,
    filled: u64,
    pieces: VecDeque<(u64, Piece)>,
}

/// Bytes that are still kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset of the first byte in the source's stream.
    pub offset: u64,
    /// Time of arrival.
    pub at: Timestamp,
    /// File in the overflow.
    pub file: String,
    /// Position in the file.
    pub place: Place,
}

impl Tail {
    /// Creates an empty tail that keeps between one and two times `segment_bytes`, in files whose names begin with
    /// `name`.
    pub fn new(name: String, segment_bytes: u64) -> Self {
        Tail {
            name,
            segment_bytes,
            segment: 0,
            filled: 0,
            pieces: VecDeque::new(),
        }
    }

    /// Takes bytes. Bytes that the overflow refuses are missing later; the offsets show the gap.
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

    /// Returns the kept pieces, oldest first. The files stay until they are removed by name.
    pub fn into_pieces(self) -> impl Iterator<Item = Piece> {
        self.pieces.into_iter().map(|(_, piece)| piece)
    }

    fn file(&self, segment: u64) -> String {
        format!("{}.{segment}", self.name)
    }
}
