//! YAML 1.2 text → a tree with positions ([`Node`]).
//!
//! Reads no files and knows nothing of specs: what the tree means is [`super::decode`]'s. Anchors, aliases and
//! merge keys (`<<`) are resolved here, duplicate keys and everything that JSON couldn't hold are reported here.
//! All input is hostile: sizes, depth and the growth by aliases are bounded ([`Limits`]), and nothing recurses
//! deeper than the tree may be.

mod build;
mod explain;
mod position;
mod scalar;

use super::node::Node;
use crate::diagnostic::{Diagnostic, Span};
use build::Builder;
use position::Places;
use saphyr_parser::{Event, Parser};

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
    let mut builder = Builder::new(limits, &places, diagnostics);
    match drive(&places, &mut builder) {
        Ok(()) => builder.finish(),
        Err(error) => {
            diagnostics.push(*error);
            None
        }
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

fn drive<'a>(places: &Places<'a>, builder: &mut Builder<'a, '_>) -> Result<(), Box<Diagnostic>> {
    let mut parser = Parser::new_from_str(places.content());
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| Box::new(explain::syntax(places, &error)))?;
        let (start, end) = (span.start.index(), span.end.index());
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Box::new(
                        Diagnostic::error(
                            places.span(start, start + 3),
                            "a second YAML document starts here",
                        )
                        .with_help("a file holds one document: remove `---`, or make two files"),
                    ));
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
