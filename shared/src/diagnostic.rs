//! Diagnostics: what is wrong with an input, where, and how to fix it. Nothing here reads files.

use crate::error_code::ErrorCode;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// Place in one of the source files of a spec. Lines and columns count from 1, columns in characters; `offset` and
/// `len` are in bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "[u32; 5]", into = "[u32; 5]")]
pub struct Span {
    /// Index into [`Sources::files`].
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

/// Text of one file of a spec, with the name that messages show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Path as the user wrote it, or relative to the including file.
    pub name: String,
    /// Whole text of the file.
    pub text: String,
}

/// All files of a spec, indexed by [`Span::file`]. The first is the main file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Files in the order of inclusion.
    pub files: Vec<Source>,
}

/// Severity of a diagnostic.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Severity {
    /// Discouraged, but the spec can run.
    Warning,
    /// The spec cannot run.
    Error,
}

impl Severity {
    /// Returns the name in lower case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One finding about an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Severity of the finding.
    pub severity: Severity,
    /// What is wrong, naming the thing concerned: lower case, no full stop.
    pub message: String,
    /// Place of the problem; `None` if it concerns the whole input.
    pub span: Option<Span>,
    /// Advice on how to fix it.
    pub help: Option<String>,
    /// Related place and its label (such as "first written here").
    pub related: Option<(Span, String)>,
    /// Code of the page that explains this kind of problem.
    #[serde(skip)]
    pub code: Option<ErrorCode>,
}

impl Diagnostic {
    /// Returns an error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            span: Some(span),
            help: None,
            related: None,
            code: None,
        }
    }

    /// Returns a warning at `span`.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Warning,
            ..Self::error(span, message)
        }
    }

    /// Adds advice on how to fix the problem.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the code of findings that have none yet.
    pub fn mark(findings: &mut [Diagnostic], code: ErrorCode) {
        for finding in findings {
            finding.code.get_or_insert(code);
        }
    }

    /// Adds a related place.
    #[must_use]
    pub fn with_related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }
}
