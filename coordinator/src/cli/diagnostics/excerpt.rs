//! A finding as miette shows it: the message, and an excerpt of the file around its place.
//!
//! The excerpt is cut by the spans' own line numbers instead of searching the file for line breaks, so that a
//! thousand findings in a big file take no longer than a thousand in a small one.

use miette::{
    Diagnostic as Report, LabeledSpan, MietteError, MietteSpanContents, Severity as Level,
    SourceCode, SourceSpan, SpanContents,
};
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources, Span};
use std::fmt;

/// So much of a line is shown around a place.
const MOST_OF_A_LINE: usize = 160;
/// So far around a place line breaks are looked for: a line of which more is unknown is shown in part anyway.
const REACH: usize = 4 * MOST_OF_A_LINE;

/// One finding with its excerpt.
#[derive(Debug)]
pub struct Shown<'a> {
    message: String,
    help: Option<String>,
    level: Level,
    place: Option<Excerpt<'a>>,
    label: Option<LabeledSpan>,
}

impl<'a> Shown<'a> {
    pub fn new(diagnostic: &Diagnostic, sources: &'a Sources) -> Self {
        let source = |span: &Span| sources.files.get(span.file as usize);
        let place = diagnostic.span.and_then(|span| {
            let source = source(&span)?;
            Some(Excerpt {
                source,
                span: clipped(span, source),
            })
        });
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

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Report for Shown<'_> {
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

/// The place of a finding in its file.
#[derive(Debug)]
struct Excerpt<'a> {
    source: &'a Source,
    span: Span,
}

impl SourceCode for Excerpt<'_> {
    fn read_span<'b>(
        &'b self,
        asked: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let text = self.source.text.as_str();
        let start = self.span.offset as usize;
        let end = start + self.span.len as usize;
        let line = (self.span.line as usize).saturating_sub(1);
        let column = (self.span.column as usize).saturating_sub(1);
        if before == 0 && after == 0 {
            // Asked for the place alone, to name line and column.
            let data = text.as_bytes().get(start..end).unwrap_or_default();
            return Ok(self.contents(data, *asked, line, column));
        }
        let (from, to, above) = window(text, start, end);
        let shift = text.get(from..start).map_or(0, |part| part.chars().count());
        let column = if above > 0 || Some(from) == start_of_line(text, start) {
            0
        } else {
            column.saturating_sub(shift)
        };
        let data = text.as_bytes().get(from..to).unwrap_or_default();
        Ok(self.contents(
            data,
            (from, to - from).into(),
            line.saturating_sub(above),
            column,
        ))
    }
}

impl Excerpt<'_> {
    fn contents<'b>(
        &'b self,
        data: &'b [u8],
        span: SourceSpan,
        line: usize,
        column: usize,
    ) -> Box<dyn SpanContents<'b> + 'b> {
        let name = printable(&self.source.name);
        Box::new(MietteSpanContents::new_named(
            name, data, span, line, column, 1,
        ))
    }
}

/// From where to where a file is shown, and how many lines above the place: one before and after, where they are
/// short; of a long line a part. Looks only so far around the place as it would show, however long the line is.
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

/// A span within its file and within one line: the rest of what it covers follows visibly.
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

/// Where the line begins, if that is near: a file may be one line of megabytes, with a thousand findings in it.
fn start_of_line(text: &str, at: usize) -> Option<usize> {
    let from = at.saturating_sub(REACH);
    let near = text.as_bytes().get(from..at)?;
    match near.iter().rposition(|byte| *byte == b'\n') {
        Some(found) => Some(from + found + 1),
        None => (from == 0).then_some(0),
    }
}

/// Where the line ends, if that is near.
fn end_of_line(text: &str, at: usize) -> Option<usize> {
    let to = text.len().min(at + REACH);
    let near = text.as_bytes().get(at..to)?;
    match near.iter().position(|byte| *byte == b'\n') {
        Some(found) => Some(at + found),
        None => (to == text.len()).then_some(to),
    }
}

/// The nearest character boundary at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A text without what a terminal would obey.
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
