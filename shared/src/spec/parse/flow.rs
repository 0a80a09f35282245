//! Lists and maps in brackets whose lines stand left of where the parser wants them.
//!
//! YAML asks for an indentation inside of brackets too, and nobody else insists: go-yaml, libyaml, PyYAML, SnakeYAML and
//! YamlDotNet read a `]` in the column of its key. Our parser does so after some values and not after others
//! (saphyr-rs/saphyr#73). Where it complains, the line is moved to the right and the text is read anew; nothing inside of
//! brackets depends on how far. Positions are translated back, so that every place is one of the file as it is.

use super::position::Places;
use saphyr_parser::ScanError;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Characters that may be read again because of moved lines, over all attempts.
const MOST_READ: usize = 16 << 20;

/// The farthest that a line is moved.
const FARTHEST: usize = 1024;

/// Which lines are moved, and how far.
#[derive(Default)]
pub struct Moved {
    /// Spaces to put before a character, by its index.
    spaces: BTreeMap<usize, usize>,
    /// Of each move: its index in the file, the index after it in the moved text, and how many spaces were put in up to there.
    shifts: Vec<(usize, usize, usize)>,
    read: usize,
    /// The first complaint of something else than a closing bracket: if the rest can't be read either, that was it.
    doubt: Option<(String, usize)>,
}

impl Moved {
    /// The complaint to report when nothing helped: what it says, and where in the file.
    pub fn complaint(&self, last: &ScanError) -> (String, usize) {
        let last = || (last.info().to_owned(), self.original(last.marker().index()));
        self.doubt.clone().unwrap_or_else(last)
    }

    /// The text with its lines moved.
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

    /// The index in the file of a character of the moved text.
    pub fn original(&self, index: usize) -> usize {
        let before = self.shifts.partition_point(|(_, after, _)| *after <= index);
        let shift = match before.checked_sub(1).and_then(|at| self.shifts.get(at)) {
            Some((.., shift)) => *shift,
            None => 0,
        };
        // Within the spaces that were put in, what follows them is meant.
        match self.shifts.get(before) {
            Some((at, ..)) => (index - shift).min(*at),
            None => index - shift,
        }
    }

    /// Moves the line that the parser complains of to the right; `false` if that is no remedy.
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
