//! YAML 1.2 text → a tree with positions ([`Node`]).
//!
//! Reads no files and knows nothing of specs: what the tree means is [`super::decode`]'s. Anchors, aliases and
//! merge keys (`<<`) are resolved here, duplicate keys and everything that JSON couldn't hold are reported here.
//! All input is hostile: sizes, depth and the growth by aliases are bounded ([`Limits`]), and nothing recurses
//! deeper than the tree may be.

mod build;
mod explain;
mod flow;
mod position;
mod scalar;

use super::node::Node;
use crate::diagnostic::{Diagnostic, Span};
use build::Builder;
use flow::Moved;
use position::Places;
use saphyr_parser::{Event, Parser, ScanError};

/// What a file may cost. Enough for any spec that a person or a generator would write.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the text.
    pub bytes: usize,
    /// Nodes of the tree after aliases were put in.
    pub nodes: usize,
    /// Bytes of all scalars after aliases were put in.
    pub scalar_bytes: usize,
    /// Levels of lists and maps.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bytes: 4 << 20,
            nodes: 500_000,
            scalar_bytes: 16 << 20,
            depth: 128,
        }
    }
}

/// Parses one document. `file` goes into the spans. Returns the tree unless the text is no YAML at all;
/// everything that is wrong with it is in `diagnostics`.
pub fn parse(file: u32, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    parse_within(Limits::default(), file, text, diagnostics)
}

/// [`parse`] with other limits.
pub fn parse_within(
    limits: Limits,
    file: u32,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Node> {
    if text.len() > limits.bytes {
        diagnostics.push(
            Diagnostic::error(
                start_of(file),
                format!(
                    "the file is too big: {} bytes, at most {} are read",
                    text.len(),
                    limits.bytes
                ),
            )
            .with_help("split it with `include`, or put big data into files of the workspace"),
        );
        return None;
    }
    let places = Places::new(file, text);
    let mut moved = Moved::default();
    loop {
        let mut found = Vec::new();
        let mut builder = Builder::new(limits, &places, &mut found);
        let root = match drive(&places, &moved, &mut builder) {
            Ok(()) => builder.finish(),
            Err(Stop::Syntax(error)) if moved.remedy(&places, &error) => continue,
            Err(Stop::Syntax(error)) => {
                let (info, index) = moved.complaint(&error);
                found.push(explain::syntax(&places, &info, index));
                None
            }
            Err(Stop::Other(problem)) => {
                found.push(*problem);
                None
            }
        };
        diagnostics.append(&mut found);
        return root;
    }
}

/// Why reading ended early.
enum Stop {
    /// It isn't YAML, or the parser thinks so.
    Syntax(ScanError),
    Other(Box<Diagnostic>),
}

impl From<Box<Diagnostic>> for Stop {
    fn from(problem: Box<Diagnostic>) -> Self {
        Stop::Other(problem)
    }
}

/// The first character of a file.
pub(crate) fn start_of(file: u32) -> Span {
    Span {
        file,
        line: 1,
        column: 1,
        offset: 0,
        len: 0,
    }
}

fn drive(places: &Places<'_>, moved: &Moved, builder: &mut Builder<'_, '_>) -> Result<(), Stop> {
    let text = moved.text(places);
    let mut parser = Parser::new_from_str(&text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(Stop::Syntax)?;
        let start = moved.original(span.start.index());
        let end = moved.original(span.end.index());
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    let problem = Diagnostic::error(
                        places.span(start, start + 3),
                        "a second YAML document starts here",
                    )
                    .with_help("a file holds one document: remove `---`, or make two files");
                    return Err(Stop::Other(Box::new(problem)));
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::Alias(anchor) => builder.alias(anchor, start, end)?,
            Event::Scalar(text, style, anchor, tag) => {
                builder.scalar(text, style, anchor, tag.as_deref(), start, end)?;
            }
            Event::SequenceStart(anchor, tag) => {
                builder.open(false, anchor, tag.as_deref(), start, end)?;
            }
            Event::MappingStart(anchor, tag) => {
                builder.open(true, anchor, tag.as_deref(), start, end)?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(start, end)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
