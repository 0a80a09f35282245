//! Keeps the values of secrets out of everything that leaves a cell (I4): text, JSON and byte streams.
//!
//! A [`Masker`] learns values while a cell runs; [`Masks`] is what it knows at one moment, immutable and shared.
//! A value is found in itself and in its encodings ([`encodings`]), also where occurrences overlap, and becomes `***`.
//! Masks work on values, not by taint: who hashes or cuts a secret has to declare the result.

mod encodings;
mod stream;

pub use stream::StreamMasker;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The shortest value that is masked: shorter ones occur by chance, and a log full of `***` hides nothing.
pub const MIN_CHARS: usize = 8;

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Why a value can't be masked. The value itself is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// It would be found everywhere.
    #[error(
        "a secret needs at least {MIN_CHARS} characters to be masked, and this one has {chars}"
    )]
    TooShort {
        /// Its length without surrounding white space.
        chars: usize,
    },
    /// Its encodings don't fit into a search automaton.
    #[error("a secret of {bytes} bytes is too long to be masked")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// The longest value that is masked.
pub const MAX_BYTES: usize = 64 * 1024;

/// Learns the values to mask. Shared by all producers of a cell.
#[derive(Debug, Default)]
pub struct Masker {
    current: Mutex<Arc<Masks>>,
}

impl Masker {
    /// Knows no value yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the value is masked.
    pub fn add(&self, value: &str) -> Result<(), MaskError> {
        self.add_all([value])
    }

    /// From now on all of the values are masked; nothing changes if one of them can't be.
    pub fn add_all<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> Result<(), MaskError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut patterns = current.patterns.clone();
        for value in values {
            check_length(value)?;
            patterns.extend(encodings::of(value));
        }
        if patterns.len() > current.patterns.len() {
            *current = Arc::new(Masks::new(patterns)?);
        }
        Ok(())
    }

    /// What is masked at this moment.
    pub fn masks(&self) -> Arc<Masks> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn check_length(value: &str) -> Result<(), MaskError> {
    let chars = value.trim().chars().count();
    match (chars < MIN_CHARS, value.len() > MAX_BYTES) {
        (true, _) => Err(MaskError::TooShort { chars }),
        (_, true) => Err(MaskError::TooLong { bytes: value.len() }),
        _ => Ok(()),
    }
}

/// The values that are masked, with a search for all of them at once.
#[derive(Default)]
pub struct Masks {
    patterns: BTreeSet<Vec<u8>>,
    search: Option<AhoCorasick>,
    longest: usize,
}

impl std::fmt::Debug for Masks {
    /// A count: the patterns are the secrets.
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
        })
    }

    /// Whether nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The text without any secret.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let found = self.occurrences(text.as_bytes());
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for range in found {
            // A pattern is whole characters, but for base64 and hex, which are ASCII: ranges are at their bounds.
            out.push_str(text.get(at..range.start).unwrap_or_default());
            out.push_str(MASK);
            at = range.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The bytes without any secret. Of a stream use a [`StreamMasker`].
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for range in self.occurrences(bytes) {
            out.extend_from_slice(bytes.get(at..range.start).unwrap_or_default());
            out.extend_from_slice(MASK.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
        out
    }

    /// The value without any secret: in texts, keys and the digits of numbers.
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

    /// Where secrets stand, overlapping ones joined, in order.
    fn occurrences(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let Some(search) = &self.search else {
            return Vec::new();
        };
        let mut found: Vec<Range<usize>> = search
            .find_overlapping_iter(bytes)
            .map(|m| m.start()..m.end())
            .collect();
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

    /// The first byte from which on the end of `bytes` is the beginning of a pattern.
    fn open_end(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        (from..bytes.len())
            .find(|at| self.begins_pattern(bytes.get(*at..).unwrap_or_default()))
            .unwrap_or(bytes.len())
    }

    fn begins_pattern(&self, end: &[u8]) -> bool {
        self.patterns
            .range::<[u8], _>((std::ops::Bound::Excluded(end), std::ops::Bound::Unbounded))
            .next()
            .is_some_and(|pattern| pattern.starts_with(end))
    }
}

#[cfg(test)]
mod tests;
