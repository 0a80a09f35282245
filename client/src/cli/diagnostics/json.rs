//! Findings as JSON, for editors and scripts.

use phalanx_shared::diagnostic::{Diagnostic, Sources, Span};
use serde_json::{Value, json};

/// Returns a list of findings. Lines and columns count from 1; columns are in characters, `offset` and `length` in
/// bytes.
pub fn json(diagnostics: &[Diagnostic], sources: &Sources) -> Value {
    let place = |span: &Span| {
        json!({
            "file": sources.files.get(span.file as usize).map(|source| source.name.as_str()),
            "line": span.line,
            "column": span.column,
            "offset": span.offset,
            "length": span.len,
        })
    };
    let one = |diagnostic: &Diagnostic| {
        let related = diagnostic.related.as_ref();
        json!({
            "severity": diagnostic.severity,
            "message": diagnostic.message,
            "place": diagnostic.span.as_ref().map(place),
            "help": diagnostic.help,
            "code": diagnostic.code.map(|code| code.to_string()),
            "related": related.map(|(span, label)| json!({ "place": place(span), "label": label })),
        })
    };
    diagnostics.iter().map(one).collect()
}
