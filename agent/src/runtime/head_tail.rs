//! Keeps a bounded part of an output: half head, half tail, with a line between that says how much is missing.

use std::collections::VecDeque;

/// Collects bytes and never holds more than its limit.
#[derive(Clone, Debug)]
pub struct HeadTail {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl HeadTail {
    /// Creates a buffer that keeps up to `limit` bytes.
    pub fn new(limit: usize) -> HeadTail {
        HeadTail {
            half: limit / 2,
            head: Vec::new(),
            tail: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.half.saturating_sub(self.head.len());
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        // Only the last `half` bytes of a large frame can be kept.
        let (skipped, kept) = rest.split_at(rest.len().saturating_sub(self.half));
        self.tail.extend(kept);
        let surplus = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..surplus);
        self.dropped += (skipped.len() + surplus) as u64;
    }

    /// Returns the total number of bytes pushed, if some of them were dropped.
    pub fn cut(&self) -> Option<u64> {
        let kept = (self.head.len() + self.tail.len()) as u64;
        (self.dropped > 0).then_some(kept + self.dropped)
    }

    /// Returns the kept bytes, with a marker line where bytes were dropped.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.head;
        if self.dropped > 0 {
            let marker = format!("\n[… {} bytes left out …]\n", self.dropped);
            bytes.extend_from_slice(marker.as_bytes());
        }
        bytes.extend(self.tail);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(limit: usize, frames: &[&str]) -> String {
        let mut kept = HeadTail::new(limit);
        for frame in frames {
            kept.push(frame.as_bytes());
        }
        String::from_utf8_lossy(&kept.finish()).into_owned()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        assert_eq!(kept(10, &["abc", "", "defghij"]), "abcdefghij");
        assert_eq!(kept(10, &[]), "");
    }

    #[test]
    fn of_more_head_and_tail_are_kept_and_the_gap_is_counted() {
        let expected = "abcde\n[… 3 bytes left out …]\nijklm";
        assert_eq!(kept(10, &["abcdefghijklm"]), expected);
        assert_eq!(kept(10, &["ab", "cdefg", "h", "ijk", "lm"]), expected);
    }

    #[test]
    fn what_was_cut_is_told_with_all_that_came() {
        let mut kept = HeadTail::new(10);
        kept.push(b"abcdefghij");
        assert_eq!(kept.cut(), None);
        kept.push(b"klm");
        assert_eq!(kept.cut(), Some(13));
    }

    #[test]
    fn no_limit_is_too_small() {
        assert_eq!(kept(0, &["abc"]), "\n[… 3 bytes left out …]\n");
    }
}
