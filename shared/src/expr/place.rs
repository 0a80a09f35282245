//! Maps a position within the text of a scalar to a position in the file.
//!
//! A scalar's text is the source as parsed by YAML, so the two differ by quotes, escapes, folding and indentation.
//! Without the source, the mapping is exact for one-line scalars that are plain or quoted without escapes; for others
//! it returns the place of the whole scalar.

use crate::diagnostic::{Diagnostic, Span};
use std::ops::Range;

/// Returns the place of the bytes `range` of `text`, which is the content of the scalar at `scalar`.
pub fn place(scalar: Span, text: &str, range: &Range<usize>) -> Span {
    let quotes = match (scalar.len as usize).checked_sub(text.len()) {
        Some(0) => 0,
        Some(2) if !text.contains('\n') => 1,
        _ => return scalar,
    };
    let (Some(before), Some(inside)) = (text.get(..range.start), text.get(range.clone())) else {
        return scalar;
    };
    let lines = before.matches('\n').count() as u32;
    let last_line = before.rsplit('\n').next().unwrap_or_default();
    let column = last_line.chars().count() as u32;
    Span {
        file: scalar.file,
        line: scalar.line + lines,
        column: match lines {
            0 => scalar.column + quotes + column,
            _ => 1 + column,
        },
        offset: scalar.offset + quotes + range.start as u32,
        len: inside.len() as u32,
    }
}

/// Why an expression or a template has no value: the message (lower case, no full stop), the place, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// The problem, with the part that is missing or null and the values at hand.
    pub message: String,
    /// Place of the offending part.
    pub span: Span,
    /// Advice on how to fix it.
    pub help: Option<String>,
    /// Whether the expression read a value of which only a part is known, so that it can't be judged.
    pub incomplete: bool,
}

impl EvalError {
    /// Returns an error at a place.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        EvalError {
            message: message.into(),
            span,
            help: None,
            incomplete: false,
        }
    }

    /// Adds advice on how to fix the error.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<EvalError> for Diagnostic {
    fn from(error: EvalError) -> Self {
        Diagnostic {
            help: error.help,
            ..Diagnostic::error(error.span, error.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALAR: Span = Span {
        file: 1,
        line: 7,
        column: 5,
        offset: 100,
        len: 9,
    };

    #[test]
    fn plain_and_quoted_scalars_map_exactly() {
        let plain = place(SCALAR, "é + b.c", &(5..8));
        assert_eq!(
            (plain.line, plain.column, plain.offset),
            (7, 5, 100),
            "len differs: whole"
        );
        let plain = place(Span { len: 8, ..SCALAR }, "é + b.c", &(5..8));
        assert_eq!(
            (plain.line, plain.column, plain.offset, plain.len),
            (7, 9, 105, 3)
        );
        let quoted = place(Span { len: 10, ..SCALAR }, "é + b.c", &(5..8));
        assert_eq!((quoted.column, quoted.offset), (10, 106));
    }

    #[test]
    fn what_cannot_be_mapped_is_the_whole_scalar() {
        assert_eq!(place(Span { len: 40, ..SCALAR }, "a + b", &(0..1)).len, 40);
        assert_eq!(place(SCALAR, "a", &(5..9)), SCALAR);
    }
}
