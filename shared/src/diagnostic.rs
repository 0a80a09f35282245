//! What is wrong with an input, where, and how to fix it. Rendering is at the bottom; nothing here reads files.

use serde::{Deserialize, Serialize};

/// A place in one of the source files of a spec. Lines and columns count from 1, columns in characters;
/// `offset` and `len` are bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "[u32; 5]", into = "[u32; 5]")]
pub struct Span {
    /// Index into [`Sources`].
    pub file: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Byte offset of the first byte.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

impl From<[u32; 5]> for Span {
    fn from([file, line, column, offset, len]: [u32; 5]) -> Self {
        Span {
            file,
            line,
            column,
            offset,
            len,
        }
    }
}

impl From<Span> for [u32; 5] {
    fn from(span: Span) -> Self {
        [span.file, span.line, span.column, span.offset, span.len]
    }
}

/// The text of a file of a spec, under the name that messages show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The path as the user wrote it, or relative to the including file.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// All files of a spec; `Span::file` is an index into it. The first is the main file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// In the order of inclusion.
    pub files: Vec<Source>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Frowned upon, but works.
    Warning,
    /// Can't be run.
    Error,
}

/// One finding about an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: lower case, no full stop, names the thing.
    pub message: String,
    /// Where; `None` when it concerns the whole input.
    pub span: Option<Span>,
    /// How to fix it.
    pub help: Option<String>,
    /// A second place that matters ("first written here").
    pub related: Option<(Span, String)>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            span: Some(span),
            help: None,
            related: None,
        }
    }

    /// A warning at a place.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Warning,
            ..Self::error(span, message)
        }
    }

    /// The same with advice on how to fix it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with a second place.
    #[must_use]
    pub fn with_related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }
}
