//! The visible content of a text: without escape sequences and other invisible characters.
//!
//! A secret interrupted by a colour is readable again once the colour is removed. So masks search the visible text
//! ([`Seen`]), and all code that removes colours uses [`plain`].

use std::borrow::Cow;
use std::ops::Range;

/// Maximum length of an escape sequence; a longer one has lost its end and isn't treated as a sequence.
const LONGEST_SEQUENCE: usize = 4_096;

/// How the bytes at a position of a text appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// A byte of a visible character.
    Visible,
    /// A number of invisible bytes.
    Hidden(usize),
    /// A number of invisible bytes that form an escape sequence.
    Sequence(usize),
    /// The text ends before this can be decided.
    Unfinished,
}

fn look(bytes: &[u8]) -> Look {
    let second = bytes.get(1).copied();
    match bytes.first() {
        Some(0x1b) => sequence(bytes),
        Some(0x00..=0x1f | 0x7f) => Look::Hidden(1),
        Some(0xc2) => match second {
            None => Look::Unfinished,
            Some(0x9b) => parameters(bytes, 2),
            Some(0x80..=0x9f | 0xad) => Look::Hidden(2),
            Some(_) => Look::Visible,
        },
        Some(0xcd | 0xe1 | 0xe2 | 0xef) => shapeless(bytes),
        _ => Look::Visible,
    }
}

/// Recognises joiners, zero-width spaces, direction marks and variation selectors.
fn shapeless(bytes: &[u8]) -> Look {
    let long = match bytes {
        [0xcd, 0x8f, ..] => return Look::Hidden(2),
        [0xcd | 0xe1 | 0xe2 | 0xef] | [0xe1, 0xa0] | [0xe2, 0x80 | 0x81] | [0xef, 0xb8 | 0xbb] => {
            return Look::Unfinished;
        }
        [0xe1, 0xa0, 0x8e, ..]
        | [0xe2, 0x80, 0x8b..=0x8f | 0xaa..=0xae, ..]
        | [0xe2, 0x81, 0xa0..=0xaf, ..]
        | [0xef, 0xbb, 0xbf, ..]
        | [0xef, 0xb8, 0x80..=0x8f, ..] => true,
        _ => false,
    };
    if long { Look::Hidden(3) } else { Look::Visible }
}

/// Reads an escape sequence, as ECMA-48 defines them.
fn sequence(bytes: &[u8]) -> Look {
    match bytes.get(1) {
        None => Look::Unfinished,
        Some(b'[') => parameters(bytes, 2),
        Some(b']' | b'P' | b'^' | b'_' | b'X') => string(bytes),
        Some(0x20..=0x2f) => {
            let rest = bytes.get(1..).unwrap_or_default();
            let between = rest
                .iter()
                .take_while(|b| (0x20..=0x2f).contains(*b))
                .count();
            match rest.get(between) {
                None if rest.len() < LONGEST_SEQUENCE => Look::Unfinished,
                Some(0x30..=0x7e) => Look::Sequence(between + 2),
                _ => Look::Sequence(1),
            }
        }
        Some(0x30..=0x7e) => Look::Sequence(2),
        Some(_) => Look::Sequence(1),
    }
}

/// Reads the rest of a sequence `ESC [`: parameters, then a final byte.
fn parameters(bytes: &[u8], from: usize) -> Look {
    let rest = bytes.get(from..).unwrap_or_default();
    let count = rest
        .iter()
        .take_while(|b| (0x20..=0x3f).contains(*b))
        .count();
    match rest.get(count) {
        None if rest.len() < LONGEST_SEQUENCE => Look::Unfinished,
        Some(0x40..=0x7e) => Look::Sequence(from + count + 1),
        _ => Look::Sequence(from + count),
    }
}

/// Reads a title, a link or another string up to its terminator.
fn string(bytes: &[u8]) -> Look {
    let reach = bytes
        .get(..LONGEST_SEQUENCE.min(bytes.len()))
        .unwrap_or_default();
    let end = reach
        .windows(2)
        .enumerate()
        .skip(2)
        .find_map(|(at, pair)| match pair {
            [0x07, _] => Some(at + 1),
            [0x1b, b'\\'] | [0xc2, 0x9c] => Some(at + 2),
            _ => None,
        });
    let end = end.or_else(|| (reach.len() > 2 && reach.ends_with(&[0x07])).then_some(reach.len()));
    match end {
        Some(end) => Look::Sequence(end),
        None if bytes.len() < LONGEST_SEQUENCE => Look::Unfinished,
        None => Look::Sequence(2),
    }
}

/// The visible bytes of a text, and the position of each in the text.
pub(super) struct Seen<'t> {
    /// The visible bytes only.
    pub visible: Cow<'t, [u8]>,
    /// Whether escape sequences were left out. A match for one may be accidental and part of a secret.
    pub sequences: bool,
    /// Starts of runs: position among the visible bytes, position in the text.
    runs: Vec<(usize, usize)>,
}

impl<'t> Seen<'t> {
    /// Reads a complete text.
    pub fn of(bytes: &'t [u8]) -> Seen<'t> {
        Seen::read(bytes, false)
    }

    /// Reads the beginning of a text; an unfinished sequence at its end may be a long one.
    pub fn of_beginning(bytes: &'t [u8]) -> Seen<'t> {
        Seen::read(bytes, true)
    }

    fn read(bytes: &'t [u8], goes_on: bool) -> Seen<'t> {
        let Some(first) = (0..bytes.len()).find(|at| hides(bytes, *at)) else {
            return Seen {
                visible: Cow::Borrowed(bytes),
                sequences: false,
                runs: vec![(0, 0)],
            };
        };
        let mut seen = Seen {
            visible: Cow::Borrowed(&[]),
            sequences: false,
            runs: Vec::new(),
        };
        let mut visible = bytes.get(..first).unwrap_or_default().to_vec();
        if first > 0 {
            seen.runs.push((0, 0));
        }
        let (mut at, mut broken) = (first, true);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let skipped = match look(rest) {
                Look::Visible => 0,
                Look::Hidden(count) => count,
                Look::Sequence(count) => {
                    seen.sequences = true;
                    count
                }
                Look::Unfinished => {
                    seen.sequences = true;
                    if goes_on {
                        rest.len()
                    } else {
                        unfinished(rest)
                    }
                }
            };
            if skipped > 0 {
                at += skipped;
                broken = true;
                continue;
            }
            if broken {
                seen.runs.push((visible.len(), at));
                broken = false;
            }
            visible.extend(rest.first());
            at += 1;
        }
        seen.visible = Cow::Owned(visible);
        seen
    }

    /// Returns the position of a visible byte in the text.
    pub fn place(&self, visible: usize) -> usize {
        let after = self.runs.partition_point(|(begin, _)| *begin <= visible);
        match after.checked_sub(1).and_then(|run| self.runs.get(run)) {
            Some((begin, at)) => at + (visible - begin),
            None => visible,
        }
    }

    /// Returns the range in the text for a range of visible bytes, which must not be empty.
    pub fn range(&self, visible: Range<usize>) -> Range<usize> {
        self.place(visible.start)..self.place(visible.end.saturating_sub(1)) + 1
    }
}

fn hides(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        Some(0x00..=0x1f | 0x7f | 0xc2 | 0xcd | 0xe1 | 0xe2 | 0xef) => {
            look(bytes.get(at..).unwrap_or_default()) != Look::Visible
        }
        _ => false,
    }
}

/// Returns how many bytes to hide of a sequence whose end is missing: only the first two of a string such as a title,
/// otherwise all bytes that could belong to it.
fn unfinished(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b']' | b'P' | b'^' | b'_' | b'X') if rest.first() == Some(&0x1b) => 2,
        _ => rest.len(),
    }
}

/// Returns the text without colours and other escape sequences. Other control characters stay; the code that displays
/// the text makes them visible.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(['\u{1b}', '\u{9b}']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let skipped = match look(rest.as_bytes()) {
            Look::Sequence(count) => count,
            Look::Unfinished if rest.starts_with(['\u{1b}', '\u{9b}']) => {
                unfinished(rest.as_bytes())
            }
            _ => 0,
        };
        if skipped > 0 {
            at += skipped;
            // A broken sequence may end inside a character; skip to the next boundary.
            while !text.is_char_boundary(at) {
                at += 1;
            }
            continue;
        }
        let next = rest.chars().next().map_or(1, char::len_utf8);
        out.push_str(rest.get(..next).unwrap_or_default());
        at += next;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(text: &str) -> String {
        String::from_utf8_lossy(&Seen::of(text.as_bytes()).visible).into_owned()
    }

    #[test]
    fn what_a_terminal_does_not_print_is_not_seen() {
        assert_eq!(seen("\u{1b}[1;31mhalf\u{1b}[0mhalf"), "halfhalf");
        assert_eq!(seen("a\u{1b}]8;;http://x\u{1b}\\b\u{1b}]0;t\u{7}c"), "abc");
        assert_eq!(seen("a\u{200b}b\u{ad}c\u{9b}1md\r\n\te\u{feff}"), "abcde");
        assert_eq!(seen("a\u{1b}(Bb\u{1b}cc\u{1b}[3"), "abc");
        assert_eq!(seen("ä\u{a0}€ß\u{e1a0}"), "ä\u{a0}€ß\u{e1a0}");
        assert_eq!(seen("\u{1b}]0;never ended"), "0;never ended");
    }

    #[test]
    fn plain_text_keeps_line_breaks_and_tabs() {
        assert_eq!(plain("\u{1b}[32mINFO\u{1b}[0m a\tb\nc"), "INFO a\tb\nc");
        assert_eq!(plain("nothing"), "nothing");
        assert_eq!(plain("a\u{1b}[3é"), "aé");
    }

    proptest! {
        #[test]
        fn every_visible_byte_is_found_where_it_stands(text in "[a-z\u{1b}\\[;m0-9\n\u{200b}é\u{9b}\\]\\\\]{0,40}") {
            let bytes = text.as_bytes();
            let seen = Seen::of(bytes);
            for (index, byte) in seen.visible.iter().enumerate() {
                prop_assert_eq!(bytes.get(seen.place(index)), Some(byte));
            }
            // Nothing left in the text looks like a sequence.
            let left = plain(&text).contains('\u{1b}');
            prop_assert!(!left);
        }
    }
}
