//! Masks long texts and then shortens them. In the other order, a secret that the cut goes through would no longer be
//! found.
//!
//! Every excerpt of an output, a response or a value is made here. Only the shown piece of a long text is examined, and
//! parts of secrets that the edges of the piece tear off are masked too.

use super::shown::plain;
use super::{MASK, Masks, Torn};

/// Which part of a long text to keep, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Keeps the beginning.
    Head(usize),
    /// Keeps the end, which says more about an output than its beginning.
    Tail(usize),
    /// Keeps both ends, half of the characters each.
    Ends(usize),
}

/// Bytes to excerpt: all of them, or those that were kept.
#[derive(Clone, Copy, Debug)]
pub struct Source<'b> {
    head: &'b [u8],
    tail: Option<&'b [u8]>,
    total: u64,
}

impl<'b> Source<'b> {
    /// All bytes.
    pub fn whole(bytes: &'b [u8]) -> Self {
        Source {
            head: bytes,
            tail: None,
            total: bytes.len() as u64,
        }
    }

    /// The first bytes of `total`.
    pub fn beginning(bytes: &'b [u8], total: u64) -> Self {
        Source {
            head: bytes,
            tail: None,
            total,
        }
    }

    /// The first and the last bytes of `total`.
    pub fn ends(head: &'b [u8], tail: &'b [u8], total: u64) -> Self {
        Source {
            head,
            tail: Some(tail),
            total,
        }
    }

    /// Returns whether some bytes were not kept.
    pub fn is_cut(&self) -> bool {
        (self.head.len() + self.tail.map_or(0, <[u8]>::len)) as u64 != self.total
    }
}

impl Masks {
    /// Returns a part of the text, masked and without escape sequences. If something is left out, the excerpt says so
    /// and gives the total number of bytes.
    pub fn excerpt(&self, source: Source<'_>, keep: Keep) -> String {
        self.excerpt_saying(source, keep, &format!("{} bytes in all", source.total))
    }

    /// Does the same as [`Masks::excerpt`]; `all` describes the total size.
    pub fn excerpt_saying(&self, source: Source<'_>, keep: Keep, all: &str) -> String {
        match keep {
            Keep::Head(limit) => match self.head(source, limit) {
                (text, true) => text,
                (text, false) => format!("{text}… ({all})"),
            },
            Keep::Tail(limit) => match self.tail(source, limit) {
                (text, true) => text,
                (text, false) => format!("({all}) …{text}"),
            },
            Keep::Ends(limit) => match self.head(source, limit) {
                (text, true) => text,
                _ => format!(
                    "{}\n[… {all} …]\n{}",
                    self.head(source, limit / 2).0,
                    self.tail(source, limit / 2).0
                ),
            },
        }
    }

    /// Returns the first characters of a text, masked and without escape sequences, and whether that is the whole text.
    pub fn first_chars(&self, text: &str, limit: usize) -> (String, bool) {
        self.head(Source::whole(text.as_bytes()), limit)
    }

    fn head(&self, source: Source<'_>, limit: usize) -> (String, bool) {
        let whole = match source.tail {
            Some(_) if !source.is_cut() => &source.joined(),
            _ => source.head,
        };
        let mut window = limit.saturating_mul(4).saturating_add(1_024);
        loop {
            let piece = whole.get(..window).map_or(whole, before_a_torn_character);
            let all = piece.len() == whole.len();
            let end = !all || source.is_cut();
            let text = self.piece(piece, Torn { start: false, end });
            match cut_head(&text, limit) {
                Some(short) => return (short.to_owned(), false),
                None if all => return (text, !end),
                None => window = window.saturating_mul(4),
            }
        }
    }

    fn tail(&self, source: Source<'_>, limit: usize) -> (String, bool) {
        let whole = match source.tail {
            Some(_) if !source.is_cut() => &source.joined(),
            Some(tail) => tail,
            None => source.head,
        };
        // If only the beginning was kept, the tail shown is the end of that beginning.
        let end = source.is_cut() && source.tail.is_none();
        let mut window = limit.saturating_mul(4).saturating_add(1_024);
        loop {
            let from = whole.len().saturating_sub(window);
            let piece = whole.get(from..).unwrap_or(whole);
            let piece = if from > 0 {
                after_a_torn_character(piece)
            } else {
                piece
            };
            let all = piece.len() == whole.len();
            let start = !all || (source.is_cut() && source.tail.is_some());
            let text = self.piece(piece, Torn { start, end });
            match cut_tail(&text, limit) {
                Some(short) => return (short.to_owned(), false),
                None if all => return (text, !source.is_cut()),
                None => window = window.saturating_mul(4),
            }
        }
    }

    fn piece(&self, bytes: &[u8], torn: Torn) -> String {
        let masked = self.bytes_of(bytes, torn);
        plain(&String::from_utf8_lossy(&masked)).into_owned()
    }
}

impl Source<'_> {
    fn joined(&self) -> Vec<u8> {
        [self.head, self.tail.unwrap_or_default()].concat()
    }
}

/// Drops an incomplete UTF-8 character at the end.
fn before_a_torn_character(bytes: &[u8]) -> &[u8] {
    let lead = (1..=3).find(|back| {
        let at = bytes.len().checked_sub(*back);
        at.and_then(|at| bytes.get(at))
            .is_some_and(|byte| byte & 0xc0 == 0xc0)
    });
    match lead {
        Some(back) => bytes.get(..bytes.len() - back).unwrap_or(bytes),
        None => bytes,
    }
}

fn after_a_torn_character(bytes: &[u8]) -> &[u8] {
    let rest = bytes
        .iter()
        .take(3)
        .take_while(|byte| **byte & 0xc0 == 0x80);
    bytes.get(rest.count()..).unwrap_or(bytes)
}

/// Returns the first characters of a masked text, or `None` if it isn't longer. A mask is kept whole or dropped.
pub fn cut_head(masked: &str, limit: usize) -> Option<&str> {
    let (at, _) = masked.char_indices().nth(limit)?;
    let at = in_mask(masked, at).map_or(at, |mask| mask.start);
    masked.get(..at)
}

/// Returns the last characters of a masked text, or `None` if it isn't longer. A mask is kept whole or dropped.
pub fn cut_tail(masked: &str, limit: usize) -> Option<&str> {
    let at = match limit {
        0 if !masked.is_empty() => masked.len(),
        0 => return None,
        limit => masked.char_indices().rev().nth(limit - 1)?.0,
    };
    if at == 0 {
        return None;
    }
    let at = in_mask(masked, at).map_or(at, |mask| mask.end);
    masked.get(at..)
}

/// Returns a masked text of at most `limit` characters; if it was longer, the last one is an ellipsis.
pub fn shortened(masked: &str, limit: usize) -> std::borrow::Cow<'_, str> {
    match masked.char_indices().nth(limit) {
        None => masked.into(),
        Some(_) => {
            let head = cut_head(masked, limit.saturating_sub(1)).unwrap_or_default();
            format!("{head}…").into()
        }
    }
}

/// Returns the mask around a position, its ends excluded.
fn in_mask(masked: &str, at: usize) -> Option<std::ops::Range<usize>> {
    (1..MASK.len())
        .filter_map(|back| at.checked_sub(back))
        .find(|start| {
            masked
                .get(*start..)
                .is_some_and(|rest| rest.starts_with(MASK))
        })
        .map(|start| start..start + MASK.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Masker;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn masks(values: &[&str]) -> Arc<Masks> {
        let masker = Masker::new();
        masker.add_all(values.iter().copied()).unwrap();
        masker.masks()
    }

    #[test]
    fn what_fits_is_shown_whole_and_the_rest_is_counted_in_bytes() {
        let none = Masks::default();
        let of = |text: &str, keep| none.excerpt(Source::whole(text.as_bytes()), keep);
        assert_eq!(of("äöü", Keep::Head(3)), "äöü");
        assert_eq!(of("äöü", Keep::Tail(3)), "äöü");
        assert_eq!(of("äöüx", Keep::Head(3)), "äöü… (7 bytes in all)");
        assert_eq!(of("äöüx", Keep::Tail(3)), "(7 bytes in all) …öüx");
        assert_eq!(
            of("abcdefgh", Keep::Ends(4)),
            "ab\n[… 8 bytes in all …]\ngh"
        );
        assert_eq!(of("", Keep::Ends(4)), "");
    }

    #[test]
    fn what_was_not_kept_is_counted_too() {
        let none = Masks::default();
        let beginning = Source::beginning(b"abc", 900);
        assert_eq!(
            none.excerpt(beginning, Keep::Head(9)),
            "abc… (900 bytes in all)"
        );
        let ends = Source::ends(b"abc", b"xyz", 900);
        assert_eq!(none.excerpt(ends, Keep::Tail(2)), "(900 bytes in all) …yz");
        assert_eq!(
            none.excerpt(ends, Keep::Ends(6)),
            "abc\n[… 900 bytes in all …]\nxyz"
        );
        let both = Source::ends(b"abc", b"xyz", 6);
        assert_eq!(none.excerpt(both, Keep::Tail(9)), "abcxyz");
    }

    #[test]
    fn colours_are_taken_out_and_what_they_hid_is_masked() {
        let masks = masks(&["hunter2-secret"]);
        let text = "\u{1b}[31mhunter2\u{1b}[0m-secret and \u{1b}[1mmore";
        assert_eq!(
            masks.excerpt(Source::whole(text.as_bytes()), Keep::Head(90)),
            "*** and more"
        );
    }

    #[test]
    fn a_mask_is_never_torn() {
        assert_eq!(cut_head("ab***cd", 3), Some("ab"));
        assert_eq!(cut_head("ab***cd", 5), Some("ab***"));
        assert_eq!(cut_tail("ab***cd", 4), Some("cd"));
        assert_eq!(cut_tail("ab***cd", 5), Some("***cd"));
        assert_eq!(cut_tail("abc", 3), None);
        assert_eq!(cut_head("abc", 3), None);
        assert_eq!(shortened("ab***cd", 5), "ab…");
        assert_eq!(shortened("abc", 3), "abc");
    }

    #[test]
    fn what_an_early_cut_left_of_a_secret_is_masked() {
        let masks = masks(&["hunter2-secret"]);
        let of = |source, keep| masks.excerpt(source, keep);
        assert_eq!(
            of(Source::beginning(b"pass hunter2-s", 99), Keep::Head(90)),
            "pass ***… (99 bytes in all)"
        );
        assert_eq!(
            of(Source::ends(b"", b"2-secret, done", 99), Keep::Tail(90)),
            "(99 bytes in all) …***, done"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

        #[test]
        fn no_cut_at_any_place_shows_a_run_of_a_secret(
            // Most secrets are short, because the search automaton for a long one takes long to build.
            secret in prop_oneof![9 => "[a-z0-9]{8}[a-zA-Z0-9]{0,120}", 1 => "[a-z0-9]{8}[a-zA-Z0-9]{400,600}"],
            before in 0usize..1_500,
            after in 0usize..1_500,
            times in 1usize..8,
            limit in 1usize..300,
        ) {
            let masks = masks(&[&secret]);
            let text = format!("{}{}{}", "-".repeat(before), secret.repeat(times), "-".repeat(after));
            for keep in [Keep::Head(limit), Keep::Tail(limit), Keep::Ends(limit)] {
                let shown = masks.excerpt(Source::whole(text.as_bytes()), keep);
                for at in 0..=secret.len() - 8 {
                    prop_assert!(!shown.contains(&secret[at..at + 8]), "{keep:?}: {shown}");
                }
                prop_assert!(shown.chars().count() <= limit + 60);
            }
        }
    }
}
