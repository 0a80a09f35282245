//! Keeps the values of secrets out of everything that leaves a cell (I4): text, JSON and byte streams.
//!
//! A [`Masker`] learns values while a cell runs; [`Masks`] is an immutable, shared snapshot of what it knows.
//! A secret is found in its own form and in its encodings ([`encodings`]), also if occurrences overlap, if colours or
//! line breaks interrupt it ([`shown`]), or if a piece of a text cuts it. It is replaced by `***`. Texts that are shown
//! in part go through [`Masks::excerpt`].
//! Masks work on values and don't track taint: a program that hashes or cuts a secret must declare the result as a
//! secret.

mod encodings;
mod excerpt;
mod shown;
mod stream;

pub use excerpt::{Keep, Source, cut_head, cut_tail, shortened};
pub use shown::plain;
pub use stream::StreamMasker;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::{Map, Value};
use shown::Seen;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Minimum length of a masked value. Shorter values occur by chance, and a log full of `***` hides nothing.
pub const MIN_CHARS: usize = 8;

/// Text that replaces a secret.
pub const MASK: &str = "***";

/// Maximum invisible bytes that a stream holds back within the beginning of a secret.
const HIDDEN: usize = 1_024;

/// Minimum bytes of a secret at the edge of a piece to be masked; fewer match by chance.
const TORN: usize = 4;

/// Which ends of a piece are cuts, beyond which a secret may continue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Torn {
    /// Whether text before the piece was cut off.
    pub start: bool,
    /// Whether text after the piece was cut off.
    pub end: bool,
}

/// Why a value can't be masked. The error doesn't contain the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// The value is so short that it would match everywhere.
    #[error(
        "a secret needs at least {MIN_CHARS} characters to be masked, and this one has {chars}"
    )]
    TooShort {
        /// Length in characters, without surrounding white space.
        chars: usize,
    },
    /// The encodings of the value don't fit into a search automaton.
    #[error("a secret of {bytes} bytes is too long to be masked")]
    TooLong {
        /// Length in bytes.
        bytes: usize,
    },
}

/// Maximum length of a masked value, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// Learns the values to mask. All producers of a cell share it.
#[derive(Debug, Default)]
pub struct Masker {
    current: Mutex<Arc<Masks>>,
}

impl Masker {
    /// Returns a masker without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value, which is masked from now on.
    pub fn add(&self, value: &str) -> Result<(), MaskError> {
        self.add_all([value])
    }

    /// Adds values, which are masked from now on. Adds none of them if one can't be masked.
    pub fn add_all<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> Result<(), MaskError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut patterns = current.patterns.clone();
        for value in values {
            check(value)?;
            for form in encodings::of(value) {
                // Adds the visible form too: without line breaks and other invisible characters.
                let seen = Seen::of(&form).visible.into_owned();
                if seen.len() >= MIN_CHARS {
                    patterns.insert(seen);
                }
                patterns.insert(form);
            }
        }
        if patterns.len() > current.patterns.len() {
            *current = Arc::new(Masks::new(patterns)?);
        }
        Ok(())
    }

    /// Returns a snapshot of the values that are masked now.
    pub fn masks(&self) -> Arc<Masks> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Checks whether a value can be masked.
pub fn check(value: &str) -> Result<(), MaskError> {
    let chars = value.trim().chars().count();
    match (chars < MIN_CHARS, value.len() > MAX_BYTES) {
        (true, _) => Err(MaskError::TooShort { chars }),
        (_, true) => Err(MaskError::TooLong { bytes: value.len() }),
        _ => Ok(()),
    }
}

/// Masked values, with an automaton that searches for all of them at once.
#[derive(Default)]
pub struct Masks {
    patterns: BTreeSet<Vec<u8>>,
    search: Option<AhoCorasick>,
    longest: usize,
    /// Reversed patterns, to find secrets whose beginning is torn off.
    backwards: OnceLock<BTreeSet<Vec<u8>>>,
}

impl std::fmt::Debug for Masks {
    /// Prints only the count, because the patterns are the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masks({} patterns)", self.patterns.len())
    }
}

impl Masks {
    fn new(patterns: BTreeSet<Vec<u8>>) -> Result<Self, MaskError> {
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&patterns)
            .map_err(|_| MaskError::TooLong { bytes: longest })?;
        Ok(Masks {
            patterns,
            search: Some(search),
            longest,
            backwards: OnceLock::new(),
        })
    }

    /// Returns whether nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns the text with each secret replaced by the mask.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.text_with(text, |_| MASK.to_owned())
    }

    /// Returns the text with each secret replaced by what `instead` returns.
    pub fn text_with<'t>(
        &self,
        text: &'t str,
        mut instead: impl FnMut(&str) -> String,
    ) -> Cow<'t, str> {
        let found = self.occurrences(text.as_bytes());
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for range in found {
            // Patterns consist of whole characters, except base64 and hex, which are ASCII. So ranges start and end at
            // character boundaries.
            out.push_str(text.get(at..range.start).unwrap_or_default());
            out.push_str(&instead(text.get(range.clone()).unwrap_or_default()));
            at = range.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// Returns the bytes with each secret masked. For a stream, use a [`StreamMasker`].
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        self.bytes_of(bytes, Torn::default())
    }

    /// Returns the bytes of a piece with each secret masked, including the parts of secrets at its cut ends.
    pub fn bytes_of(&self, bytes: &[u8], torn: Torn) -> Vec<u8> {
        let mut found = self.occurrences(bytes);
        if torn != Torn::default() && !self.is_empty() {
            self.tear(bytes, torn, &mut found);
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for range in found {
            out.extend_from_slice(bytes.get(at..range.start).unwrap_or_default());
            out.extend_from_slice(MASK.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
        out
    }

    /// Returns the value with secrets masked in texts, keys and the digits of numbers.
    pub fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text).into_owned()),
            Value::Number(number) => match self.text(&number.to_string()) {
                Cow::Borrowed(_) => value.clone(),
                Cow::Owned(masked) => Value::String(masked),
            },
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(key, item)| (self.text(key).into_owned(), self.json(item)))
                    .collect::<Map<_, _>>(),
            ),
            Value::Null | Value::Bool(_) => value.clone(),
        }
    }

    /// Returns the ranges of secrets in order; overlapping ranges are joined.
    fn occurrences(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        if self.is_empty() {
            return Vec::new();
        }
        let seen = Seen::of(bytes);
        let mut found = self.found_in(&seen.visible);
        for range in &mut found {
            *range = seen.range(range.clone());
        }
        if seen.sequences {
            found.extend(self.found_in(bytes));
            found = joined(found);
        }
        found
    }

    fn found_in(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let Some(search) = &self.search else {
            return Vec::new();
        };
        let mut joined: Vec<Range<usize>> = Vec::new();
        // Matches come in the order of their ends.
        for found in search.find_overlapping_iter(bytes) {
            let mut range = found.range();
            while let Some(last) = joined.pop_if(|last| range.start < last.end) {
                range.start = range.start.min(last.start);
            }
            joined.push(range);
        }
        joined
    }

    /// Adds the ranges of partial secrets at the cut ends of a piece.
    fn tear(&self, bytes: &[u8], torn: Torn, found: &mut Vec<Range<usize>>) {
        let seen = Seen::of(bytes);
        let visible = &*seen.visible;
        if torn.end {
            let from = self.open_end(visible, TORN);
            if from < visible.len() {
                found.push(seen.place(from)..bytes.len());
            }
        }
        if torn.start {
            let backwards = self.backwards.get_or_init(|| {
                let reversed = |pattern: &Vec<u8>| pattern.iter().rev().copied().collect();
                self.patterns.iter().map(reversed).collect()
            });
            let reach = visible.len().min(self.longest.saturating_sub(1));
            let mut start: Vec<u8> = visible.get(..reach).unwrap_or_default().to_vec();
            start.reverse();
            let left = (0..reach.saturating_sub(TORN - 1))
                .find(|at| begins(backwards, start.get(*at..).unwrap_or_default()));
            if let Some(at) = left {
                found.push(0..seen.place(reach - at - 1) + 1);
            }
        }
        *found = joined(std::mem::take(found));
    }

    /// Returns the first byte of a stream that must wait for the next bytes: from there the end may be the beginning of
    /// a secret. Before a line break, a beginning must have at least `TORN` bytes: if a line's last letter alone
    /// sufficed, most lines would be held up.
    fn waits_from(&self, bytes: &[u8]) -> usize {
        if self.is_empty() {
            return bytes.len();
        }
        let seen = Seen::of_beginning(bytes);
        let visible = &*seen.visible;
        let last_break = bytes.iter().rposition(|byte| *byte == b'\n');
        let earliest = bytes.len().saturating_sub(self.longest + HIDDEN);
        let from = visible.len().saturating_sub(self.longest.saturating_sub(1));
        let waits = |at: &usize| {
            let end = visible.get(*at..).unwrap_or_default();
            let place = seen.place(*at);
            let before_break = last_break.is_some_and(|line_break| place < line_break);
            place >= earliest && (end.len() >= TORN || !before_break) && begins(&self.patterns, end)
        };
        let seen_from = (from..visible.len()).find(waits).map(|at| seen.place(at));
        let whole_from = match seen.sequences {
            true => self.open_end(bytes, 1),
            false => bytes.len(),
        };
        seen_from.unwrap_or(bytes.len()).min(whole_from)
    }

    /// Returns the first byte from which the rest of `bytes`, at least `least` bytes, is the beginning of a pattern.
    fn open_end(&self, bytes: &[u8], least: usize) -> usize {
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        (from..(bytes.len() + 1).saturating_sub(least.max(1)))
            .find(|at| begins(&self.patterns, bytes.get(*at..).unwrap_or_default()))
            .unwrap_or(bytes.len())
    }
}

/// Returns whether a longer pattern has this beginning.
fn begins(patterns: &BTreeSet<Vec<u8>>, beginning: &[u8]) -> bool {
    use std::ops::Bound::{Excluded, Unbounded};
    patterns
        .range::<[u8], _>((Excluded(beginning), Unbounded))
        .next()
        .is_some_and(|pattern| pattern.starts_with(beginning))
}

/// Sorts ranges and joins overlapping ones.
fn joined(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in found {
        match joined.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
