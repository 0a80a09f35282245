//! Findings as workflow commands of GitHub Actions, which shows them beside the lines.

use phalanx_shared::diagnostic::{Diagnostic, Sources};
use std::fmt::Write;

/// Formats each finding as one `::error` or `::warning` line.
pub fn github(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let command = diagnostic.severity.as_str();
        let _ = write!(out, "::{command} ");
        let place = diagnostic
            .span
            .and_then(|span| Some((span, sources.files.get(span.file as usize)?)));
        if let Some((span, source)) = place {
            let file = property(&source.name);
            let _ = write!(out, "file={file},line={},col={},", span.line, span.column);
        }
        let mut message = diagnostic.message.clone();
        if let Some(help) = &diagnostic.help {
            let _ = write!(message, "\n{help}");
        }
        let _ = writeln!(out, "title=phalanx validate::{}", data(&message));
    }
    out
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
