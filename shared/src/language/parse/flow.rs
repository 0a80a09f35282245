//! Lists and maps in brackets whose lines are indented less than the parser requires.
//!
//! YAML requires an indentation inside brackets too, but other parsers don't enforce it: go-yaml, libyaml, PyYAML,
//! SnakeYAML and YamlDotNet accept a `]` in the column of its key. Our parser does so after some values and not after
//! others (saphyr-rs/saphyr#73). Where it reports an error, this module moves the line to the right and parses the text
//! again. The amount makes no difference inside brackets. Positions are translated back, so that every place refers to
//! the original file.

use super::position::Places;
use saphyr_parser::ScanError;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Maximum number of characters to parse again because of moved lines, over all attempts.
const MOST_READ: usize = 16 << 20;

/// Maximum number of spaces by which a line is moved.
const FARTHEST: usize = 1024;

/// Lines that are moved, and how far.
#[derive(Default)]
pub struct Moved {
    /// Number of spaces to insert before a character, by the character's index.
    spaces: BTreeMap<usize, usize>,
    /// For each move: its index in the file, the index after it in the moved text, and the number of spaces inserted so
    /// far.
    shifts: Vec<(usize, usize, usize)>,
    read: usize,
    /// First error at anything but a closing bracket. If the rest can't be parsed either, this is the error to report.
    doubt: Option<(String, usize)>,
}

impl Moved {
    /// Returns the error to report if no move helped: message and index in the file.
    pub fn complaint(&self, last: &ScanError) -> (String, usize) {
        let last = || (last.info().to_owned(), self.original(last.marker().index()));
        self.doubt.clone().unwrap_or_else(last)
    }

    /// Returns the text with its lines moved.
    pub fn text<'a>(&self, places: &Places<'a>) -> Cow<'a, str> {
        if self.spaces.is_empty() {
            return Cow::Borrowed(places.content());
        }
        let mut text = String::with_capacity(places.content().len() + self.total());
        let mut from = 0;
        for (&at, &count) in &self.spaces {
            text.push_str(places.slice(from, at));
            text.extend(std::iter::repeat_n(' ', count));
            from = at;
        }
        text.push_str(places.slice(from, usize::MAX));
        Cow::Owned(text)
    }

    /// Returns the index in the file of a character of the moved text.
    pub fn original(&self, index: usize) -> usize {
        let before = self.shifts.partition_point(|(_, after, _)| *after <= index);
        let shift = match before.checked_sub(1).and_then(|at| self.shifts.get(at)) {
            Some((.., shift)) => *shift,
            None => 0,
        };
        // An index within inserted spaces refers to the character after them.
        match self.shifts.get(before) {
            Some((at, ..)) => (index - shift).min(*at),
            None => index - shift,
        }
    }

    /// Moves the line that the parser's error refers to. Returns `false` if moving lines doesn't help.
    pub fn remedy(&mut self, places: &Places<'_>, error: &ScanError) -> bool {
        let complaint = matches!(
            error.info(),
            "invalid indentation" | "invalid indentation in flow construct"
        );
        self.read = self
            .read
            .saturating_add(places.content().len() + self.total());
        if !complaint || self.read > MOST_READ {
            return false;
        }
        let at = self.original(error.marker().index());
        if self.doubt.is_none() && !places.slice(at, at + 1).starts_with([']', '}']) {
            self.doubt = Some((error.info().to_owned(), at));
        }
        let spaces = self.spaces.entry(at).or_insert(0);
        *spaces = (*spaces * 2).max(1);
        if *spaces > FARTHEST {
            return false;
        }
        let mut shift = 0;
        self.shifts = self
            .spaces
            .iter()
            .map(|(at, count)| {
                shift += count;
                (*at, at + shift, shift)
            })
            .collect();
        true
    }

    fn total(&self) -> usize {
        self.shifts.last().map_or(0, |(.., shift)| *shift)
    }
}
