//! Converts the parser's character indices into [`Span`]s with line, column and byte offset.

use crate::diagnostic::Span;

/// Number of characters between two stored byte offsets. A lookup scans at most this many.
const STRIDE: usize = 128;
const BOM: &str = "\u{feff}";

/// A text, with the positions of its characters.
pub struct Places<'a> {
    file: u32,
    /// Text without its byte order mark.
    content: &'a str,
    /// Size of the byte order mark in bytes.
    skipped: usize,
    /// Byte offsets of characters 0, STRIDE, 2·STRIDE …; empty if the whole text is ASCII.
    checkpoints: Vec<usize>,
    /// Byte offset and character index of each line's first character.
    lines: Vec<(usize, usize)>,
}

impl<'a> Places<'a> {
    pub fn new(file: u32, text: &'a str) -> Self {
        let content = text.strip_prefix(BOM).unwrap_or(text);
        let ascii = content.is_ascii();
        let mut checkpoints = Vec::new();
        let mut lines = vec![(0, 0)];
        for (index, (byte, character)) in content.char_indices().enumerate() {
            if !ascii && index % STRIDE == 0 {
                checkpoints.push(byte);
            }
            if character == '\n' {
                lines.push((byte + 1, index + 1));
            }
        }
        Places {
            file,
            content,
            skipped: text.len() - content.len(),
            checkpoints,
            lines,
        }
    }

    /// Returns the file's index in the spec's sources.
    pub fn file(&self) -> u32 {
        self.file
    }

    /// Returns the text of a span that these places returned.
    pub fn text_of(&self, span: Span) -> &'a str {
        let start = (span.offset as usize).saturating_sub(self.skipped);
        self.content
            .get(start..start + span.len as usize)
            .unwrap_or_default()
    }

    /// Returns the text that the indices refer to.
    pub fn content(&self) -> &'a str {
        self.content
    }

    /// Returns the byte offset of a character in [`Self::content`], at most the length of the text.
    pub fn byte(&self, index: usize) -> usize {
        if self.checkpoints.is_empty() {
            return index.min(self.content.len());
        }
        let Some(&start) = self.checkpoints.get(index / STRIDE) else {
            return self.content.len();
        };
        let tail = self.content.get(start..).unwrap_or_default();
        tail.char_indices()
            .nth(index % STRIDE)
            .map_or(self.content.len(), |(byte, _)| start + byte)
    }

    /// Returns the text from one character up to another.
    pub fn slice(&self, start: usize, end: usize) -> &'a str {
        self.content
            .get(self.byte(start)..self.byte(end.max(start)))
            .unwrap_or_default()
    }

    /// Returns the span from one character up to another.
    pub fn span(&self, start: usize, end: usize) -> Span {
        let len = self.byte(end.max(start)) - self.byte(start);
        self.span_of(start, len)
    }

    /// Returns the span of `len` bytes from a character.
    pub fn span_of(&self, start: usize, len: usize) -> Span {
        let byte = self.byte(start);
        let line = self.lines.partition_point(|&(first, _)| first <= byte);
        let first = self.lines.get(line - 1).map_or(0, |&(_, index)| index);
        Span {
            file: self.file,
            line: narrow(line),
            column: narrow(start.saturating_sub(first) + 1),
            offset: narrow(byte + self.skipped),
            len: narrow(len.min(self.content.len() - byte)),
        }
    }

    /// Returns the line of a character, without its line break.
    pub fn line(&self, index: usize) -> &'a str {
        let byte = self.byte(index);
        let line = self.lines.partition_point(|&(first, _)| first <= byte);
        let start = self.lines.get(line - 1).map_or(0, |&(first, _)| first);
        let rest = self.content.get(start..).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }
}

/// Converts an offset. This loses nothing, because the file's size is limited far below 4 GiB.
fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
