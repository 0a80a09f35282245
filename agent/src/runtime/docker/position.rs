//! How far an output was forwarded, counted so that the place can be found again in the engine's log file.
//!
//! A log file is text. Bytes that aren't UTF-8 are stored as replacement characters of three bytes each, and a
//! character across the border of two chunks becomes several. ASCII bytes always stay the same, so those are counted,
//! and after the last of them only the bytes that follow it.

/// How many of the last ASCII bytes are kept for a comparison.
const LAST: usize = 4096;

/// A place in one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    ascii: u64,
    /// Number of other bytes since the last ASCII byte.
    others: u64,
}

impl Position {
    /// Advances past the bytes.
    pub fn pass(&mut self, bytes: &[u8]) {
        let others = bytes.iter().rev().take_while(|b| !b.is_ascii()).count();
        if others == bytes.len() {
            self.others += others as u64;
            return;
        }
        self.ascii += ascii(bytes);
        self.others = others as u64;
    }

    /// Returns how many of the bytes, which come next in a repetition, lie before this place. Subtracts them.
    pub fn known(&mut self, bytes: &[u8]) -> usize {
        let all = ascii(bytes);
        if all < self.ascii {
            self.ascii -= all;
            return bytes.len();
        }
        let mut at = 0;
        while self.ascii > 0 && at < bytes.len() {
            self.ascii -= u64::from(bytes[at].is_ascii());
            at += 1;
        }
        while self.others > 0 && at < bytes.len() {
            if bytes[at].is_ascii() {
                self.others = 0;
            } else {
                self.others -= 1;
                at += 1;
            }
        }
        at
    }
}

fn ascii(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| b.is_ascii()).count() as u64
}

/// The last ASCII bytes of an output.
#[derive(Clone, Debug, Default)]
pub(super) struct Last(Vec<u8>);

impl Last {
    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let newest = bytes.iter().rev().filter(|b| b.is_ascii()).take(LAST);
        let mut newest: Vec<u8> = newest.copied().collect();
        newest.reverse();
        let keep = LAST - newest.len();
        self.0.drain(..self.0.len().saturating_sub(keep));
        self.0.append(&mut newest);
    }

    /// Returns whether both end in the same bytes, as far as the shorter one reaches.
    pub fn ends_like(&self, other: &Last) -> bool {
        let length = self.0.len().min(other.0.len());
        self.0[self.0.len() - length..] == other.0[other.0.len() - length..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the new part of a file's text after `carried` was forwarded; the file comes in pieces of `size`.
    fn fresh(carried: &[u8], file: &[u8], size: usize) -> Vec<u8> {
        let mut position = Position::default();
        for piece in carried.chunks(3) {
            position.pass(piece);
        }
        let mut fresh = Vec::new();
        for piece in file.chunks(size) {
            let known = position.known(piece);
            fresh.extend_from_slice(&piece[known..]);
        }
        fresh
    }

    #[test]
    fn what_was_handed_over_is_skipped_wherever_the_pieces_end() {
        let text = "first\nzweite, größer\n三\n".as_bytes();
        for cut in 0..=text.len() {
            for size in 1..=text.len() {
                assert_eq!(
                    fresh(&text[..cut], text, size),
                    &text[cut..],
                    "{cut} {size}"
                );
            }
        }
    }

    #[test]
    fn bytes_that_the_file_writes_otherwise_shift_nothing() {
        let said = b"a\xff\xfe\nb\xe4\nend\n";
        let file = "a\u{fffd}\u{fffd}\nb\u{fffd}\nend\n".as_bytes();
        // Cut after `b\xe4\n`.
        assert_eq!(fresh(&said[..7], file, 4), b"end\n");
        assert_eq!(fresh(said, file, 4), b"");
    }

    #[test]
    fn a_file_that_is_shorter_has_nothing_fresh() {
        assert_eq!(fresh(b"0123456789", b"012345", 2), b"");
    }

    #[test]
    fn ends_are_compared_as_far_as_both_reach() {
        let last = |text: &[u8]| {
            let mut last = Last::default();
            for piece in text.chunks(5) {
                last.push(piece);
            }
            last
        };
        let long: Vec<u8> = (0..3000)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        assert!(last(&long).ends_like(&last(b"2998\n2999\n")));
        assert!(!last(&long).ends_like(&last(b"2999\n3000\n")));
        assert!(last(b"").ends_like(&last(b"x")));
        assert_eq!(last(&long).0, long[long.len() - LAST..]);
    }
}
