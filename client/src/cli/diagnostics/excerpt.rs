//! A finding for miette: the message, and an excerpt of the file around its place.
//!
//! The excerpt is cut by the line numbers of the spans instead of searching the file for line breaks. So a thousand
//! findings in a big file take no longer than a thousand in a small one.

use miette::{
    Diagnostic as Report, LabeledSpan, MietteError, MietteSpanContents, Severity as Level,
    SourceCode, SourceSpan, SpanContents,
};
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources, Span};
use std::fmt;

/// Maximum number of bytes of a line to show around a place.
const MOST_OF_A_LINE: usize = 160;
/// How far to search for line breaks around a place, in bytes. A longer line is shown in part anyway.
const REACH: usize = 4 * MOST_OF_A_LINE;

/// One finding with its excerpt.
#[derive(Debug)]
pub struct Shown {
    message: String,
    help: Option<String>,
    level: Level,
    place: Option<Excerpt>,
    label: Option<LabeledSpan>,
}

impl Shown {
    pub fn new(diagnostic: &Diagnostic, sources: &Sources) -> Self {
        let source = |span: &Span| sources.files.get(span.file as usize);
        let place = diagnostic
            .span
            .and_then(|span| Some(Excerpt::new(span, source(&span)?)));
        let label = place.as_ref().map(|place| {
            let range = (place.span.offset as usize, place.span.len as usize);
            LabeledSpan::new_primary_with_span(None, range)
        });
        let related = diagnostic.related.as_ref().map(|(span, label)| {
            let name = source(span).map_or("", |source| source.name.as_str());
            format!("{label}: {name}:{}:{}", span.line, span.column)
        });
        let help: Vec<&str> = [related.as_deref(), diagnostic.help.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        Shown {
            message: printable(&diagnostic.message),
            help: (!help.is_empty()).then(|| printable(&help.join("\n"))),
            level: match diagnostic.severity {
                Severity::Error => Level::Error,
                Severity::Warning => Level::Warning,
            },
            place,
            label,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl Report for Shown {
    fn severity(&self) -> Option<Level> {
        Some(self.level)
    }
    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        let help = self.help.as_ref()?;
        Some(Box::new(help))
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.label.iter().cloned()))
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| place as &dyn SourceCode)
    }
}

/// The place of a finding in its file, and the text shown around it.
#[derive(Debug)]
struct Excerpt {
    name: String,
    span: Span,
    /// The excerpt without control characters; as many bytes as in the file, so that the place matches.
    shown: String,
    /// Offset of the excerpt in the file, in bytes.
    from: usize,
    /// Zero-based line and column of that offset.
    line: usize,
    column: usize,
}

impl Excerpt {
    fn new(span: Span, source: &Source) -> Self {
        let text = source.text.as_str();
        let span = clipped(span, source);
        let start = span.offset as usize;
        let (from, to, above) = window(text, start, start + span.len as usize);
        let shift = text.get(from..start).map_or(0, |part| part.chars().count());
        let column = if above > 0 || Some(from) == start_of_line(text, start) {
            0
        } else {
            (span.column as usize).saturating_sub(1 + shift)
        };
        Excerpt {
            name: printable(&source.name),
            shown: harmless(text.get(from..to).unwrap_or_default()),
            from,
            line: (span.line as usize).saturating_sub(1 + above),
            column,
            span,
        }
    }
}

impl SourceCode for Excerpt {
    fn read_span<'b>(
        &'b self,
        asked: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        if before == 0 && after == 0 {
            // miette asks for the place alone to name line and column.
            let start = (self.span.offset as usize).saturating_sub(self.from);
            let place = start..start + self.span.len as usize;
            let data = self.shown.as_bytes().get(place).unwrap_or_default();
            let line = (self.span.line as usize).saturating_sub(1);
            let column = (self.span.column as usize).saturating_sub(1);
            return Ok(self.contents(data, *asked, line, column));
        }
        let all = (self.from, self.shown.len()).into();
        Ok(self.contents(self.shown.as_bytes(), all, self.line, self.column))
    }
}

impl Excerpt {
    fn contents<'b>(
        &'b self,
        data: &'b [u8],
        span: SourceSpan,
        line: usize,
        column: usize,
    ) -> Box<dyn SpanContents<'b> + 'b> {
        let name = self.name.clone();
        Box::new(MietteSpanContents::new_named(
            name, data, span, line, column, 1,
        ))
    }
}

/// Returns the start and end of the excerpt, and the number of lines above the place. The excerpt includes one line
/// before and after if they are short, and only a part of a long line. It searches only as far around the place as it
/// would show, however long the line is.
fn window(text: &str, start: usize, end: usize) -> (usize, usize, usize) {
    let (first, last) = match (start_of_line(text, start), end_of_line(text, end)) {
        (Some(first), Some(last)) if last - first <= 2 * MOST_OF_A_LINE => (first, last),
        (first, last) => {
            let half = MOST_OF_A_LINE / 2;
            let from = floor(text, start.saturating_sub(half)).max(first.unwrap_or(0));
            let to = floor(text, end + half).min(last.unwrap_or(text.len()));
            return (from, to, 0);
        }
    };
    let above = first
        .checked_sub(1)
        .and_then(|at| start_of_line(text, at))
        .filter(|at| first - at <= MOST_OF_A_LINE);
    let below = text
        .get(last..)
        .filter(|rest| rest.len() > 1)
        .and_then(|_| end_of_line(text, last + 1))
        .filter(|at| at - last <= MOST_OF_A_LINE);
    (
        above.unwrap_or(first),
        below.unwrap_or(last),
        usize::from(above.is_some()),
    )
}

/// Clips a span to its file and to one line. The excerpt shows the rest of what it covers.
fn clipped(span: Span, source: &Source) -> Span {
    let text = source.text.as_str();
    let start = floor(text, (span.offset as usize).min(text.len()));
    let end = floor(text, (start + span.len as usize).min(text.len()));
    let covered = text.get(start..end).unwrap_or_default();
    let line = covered.lines().next().unwrap_or_default().trim_end();
    Span {
        offset: start as u32,
        len: floor(line, MOST_OF_A_LINE) as u32,
        ..span
    }
}

/// Returns the start of the line if it is near. A file may be one line of megabytes with a thousand findings.
fn start_of_line(text: &str, at: usize) -> Option<usize> {
    let from = at.saturating_sub(REACH);
    let near = text.as_bytes().get(from..at)?;
    match near.iter().rposition(|byte| *byte == b'\n') {
        Some(found) => Some(from + found + 1),
        None => (from == 0).then_some(0),
    }
}

/// Returns the end of the line if it is near.
fn end_of_line(text: &str, at: usize) -> Option<usize> {
    let to = text.len().min(at + REACH);
    let near = text.as_bytes().get(at..to)?;
    match near.iter().position(|byte| *byte == b'\n') {
        Some(found) => Some(at + found),
        None => (to == text.len()).then_some(to),
    }
}

/// Returns the nearest character boundary at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Removes characters that a terminal would interpret.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Replaces such characters by as many bytes, so that offsets stay the same. Tabs and line breaks are kept.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\r' => ' ',
            // ASCII controls take one byte, U+0080 to U+009F two, and marks that change the text direction three.
            c if c.is_ascii_control() => '?',
            c if c.is_control() => '¿',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_harmless_keeps_its_length() {
        let text = "a\u{1b}[31m\u{9b}b\u{202e}c\r\n\td";
        let shown = harmless(text);
        assert_eq!(shown, "a?[31m¿b\u{fffd}c \n\td");
        assert_eq!(shown.len(), text.len());
    }
}
