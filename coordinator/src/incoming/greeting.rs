//! Reads the beginning of a connection far enough to tell whether the peer makes requests. The server behind it
//! interprets and validates them.

use super::Speech;

/// Length of the HTTP/2 preface: `PRI * HTTP/2.0` and `SM`, each followed by a blank line.
const PREFACE: u64 = 24;
/// Length of an HTTP/2 frame header in bytes.
const HEAD: usize = 9;
/// Type of the frame that begins a call.
const HEADERS: u8 = 1;

/// State of reading a connection's beginning.
#[derive(Debug)]
pub(super) enum Greeting {
    Frames(Frames),
    Lines(Lines),
}

impl Greeting {
    pub fn new(speech: Speech) -> Self {
        match speech {
            Speech::Http2 => Greeting::Frames(Frames {
                skip: PREFACE,
                head: [0; HEAD],
                read: 0,
                asked: 0,
            }),
            Speech::Http1 => Greeting::Lines(Lines::default()),
        }
    }

    /// Processes further bytes.
    pub fn hear(&mut self, bytes: &[u8]) {
        match self {
            Greeting::Frames(frames) => frames.hear(bytes),
            Greeting::Lines(lines) => lines.hear(bytes),
        }
    }

    /// Returns the number of requests so far.
    pub fn asked(&self) -> u64 {
        match self {
            Greeting::Frames(frames) => frames.asked,
            Greeting::Lines(lines) => lines.asked,
        }
    }

    /// Returns whether the peer has made a request.
    pub fn is_over(&self) -> bool {
        self.asked() > 0
    }
}

/// Counts the HTTP/2 frames that begin calls.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes before the next frame header.
    skip: u64,
    head: [u8; HEAD],
    /// Bytes of the header read so far.
    read: usize,
    asked: u64,
}

impl Frames {
    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let over = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            self.skip -= over as u64;
            bytes = bytes.get(over..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else {
                return;
            };
            if let Some(place) = self.head.get_mut(self.read) {
                *place = *byte;
            }
            bytes = rest;
            self.read += 1;
            if self.read == HEAD {
                let [a, b, c, kind, ..] = self.head;
                self.read = 0;
                self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
                self.asked += u64::from(kind == HEADERS);
            }
        }
    }
}

/// Counts blank lines in HTTP/1, which end the headers of requests.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// How many bytes of `\r\n\r\n` have matched.
    matched: usize,
    asked: u64,
}

impl Lines {
    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.matched = match (self.matched, byte) {
                (0 | 2, b'\r') | (1 | 3, b'\n') => self.matched + 1,
                (_, b'\r') => 1,
                _ => 0,
            };
            if self.matched == 4 {
                self.matched = 0;
                self.asked += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(speech: Speech, bytes: &[u8], piece: usize) -> u64 {
        let mut greeting = Greeting::new(speech);
        bytes.chunks(piece).for_each(|piece| greeting.hear(piece));
        greeting.asked()
    }

    #[test]
    fn calls_are_counted_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let frame = |kind: u8, payload: &[u8]| {
            let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap_or(0), kind];
            frame.extend([0, 0, 0, 0, 1]);
            frame.extend(payload);
            frame
        };
        bytes.extend(frame(4, &[]));
        let greeted = bytes.len();
        // A payload that looks like the header of a HEADERS frame.
        bytes.extend(frame(0, &frame(1, &[])));
        bytes.extend(frame(1, b"headers"));
        bytes.extend(frame(1, b"more"));
        for piece in 1..bytes.len() {
            assert_eq!(heard(Speech::Http2, &bytes, piece), 2, "{piece}");
            assert_eq!(heard(Speech::Http2, &bytes[..greeted], piece), 0);
        }
    }

    #[test]
    fn a_request_without_its_blank_line_asks_for_nothing() {
        let half = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: ";
        let whole = b"GET / HTTP/1.1\r\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for piece in 1..whole.len() {
            assert_eq!(heard(Speech::Http1, half, piece), 0);
            assert_eq!(heard(Speech::Http1, whole, piece), 2);
        }
    }
}
