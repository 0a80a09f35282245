//! Parses YAML 1.2 text into a tree with positions ([`Node`]).
//!
//! Reads no files and knows nothing about specs; [`super::decode`] interprets the tree. Anchors, aliases and merge keys
//! (`<<`) are resolved here. Duplicate keys, and everything that JSON couldn't hold, are reported here. All input is
//! treated as hostile: size, depth and growth by aliases are bounded ([`Limits`]), and no recursion is deeper than the
//! maximum depth of the tree.
//!
//! stage: a tree with positions: YAML within bounds: depth, size, aliases

mod build;
mod explain;
mod flow;
mod position;
mod scalar;

use crate::diagnostic::{Diagnostic, Span};
use crate::node::Node;
use build::Builder;
use flow::Moved;
use position::Places;
use saphyr_parser::{Event, Parser, ScanError};
use std::collections::HashMap;

/// Limits on the cost of a file. They are enough for any spec that a person or a generator would write.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum size of the text in bytes.
    pub bytes: usize,
    /// Maximum number of nodes in the tree, with aliases expanded.
    pub nodes: usize,
    /// Maximum size of all scalars in bytes, with aliases expanded.
    pub scalar_bytes: usize,
    /// Maximum number of levels of lists and maps.
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

/// Parses one document and reports every error in `diagnostics`. Returns `None` if the text is not YAML. `file` is the
/// file's index in the spans.
pub fn parse(file: u32, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    parse_within(Limits::default(), file, text, diagnostics)
}

/// Parses one document like [`parse`], with other limits.
pub fn parse_within(
    limits: Limits,
    file: u32,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Node> {
    document(limits, file, text, None, diagnostics)
}

/// How a value of a Compose file replaces the one of an earlier file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `!reset`: neither value remains.
    Reset,
    /// `!override`: the earlier value goes.
    Override,
}

/// Marked values by their places; a copy made by an alias has the place of the original.
pub type Marks = HashMap<Span, Mark>;

/// Parses a Compose file, in which values may have the tags `!reset` and `!override`.
pub fn parse_compose(
    file: u32,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(Node, Marks)> {
    let mut marks = Marks::new();
    let node = document(Limits::default(), file, text, Some(&mut marks), diagnostics)?;
    Some((node, marks))
}

fn document(
    limits: Limits,
    file: u32,
    text: &str,
    mut marks: Option<&mut Marks>,
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
        let mut builder = Builder::new(limits, &places, marks.as_deref_mut(), &mut found);
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

/// Reason why parsing ended early.
enum Stop {
    /// The text is not YAML, according to the parser.
    Syntax(ScanError),
    Other(Box<Diagnostic>),
}

impl From<Box<Diagnostic>> for Stop {
    fn from(problem: Box<Diagnostic>) -> Self {
        Stop::Other(problem)
    }
}

/// Returns an empty span at the first character of a file.
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
