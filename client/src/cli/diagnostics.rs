//! Shows findings: with the text underlined for people, as JSON, or as annotations for GitHub Actions.

mod excerpt;
mod github;
mod json;

pub use github::github;
pub use json::json;

use excerpt::Shown;
use miette::{GraphicalReportHandler, GraphicalTheme, ThemeCharacters, ThemeStyles};
use phalanx_shared::diagnostic::{Diagnostic, Severity, Sources};
use phalanx_shared::error_code::ErrorCode;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::io::IsTerminal;

/// Maximum number of findings to show; further ones are only counted.
const MOST: usize = 1000;

/// What the output can display.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether to use colours.
    pub colour: bool,
    /// Whether to use line-drawing characters.
    pub unicode: bool,
    /// Width in columns.
    pub width: usize,
}

impl Style {
    /// Returns the style for a stream of this process.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let terminal = stream.is_terminal();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_lowercase();
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Style {
            colour: terminal && !dumb && !set("NO_COLOR"),
            unicode: !dumb && (locale.contains("utf-8") || locale.contains("utf8")),
            width: columns(terminal),
        }
    }

    /// No colours, no special characters, 100 columns: for tests and files.
    pub fn plain() -> Self {
        Style {
            colour: false,
            unicode: false,
            width: 100,
        }
    }
}

/// Returns the width of the terminal, at least 40 columns.
fn columns(terminal: bool) -> usize {
    let known = std::env::var("COLUMNS").ok();
    let known = known.and_then(|columns| columns.parse().ok());
    let measured = || console::Term::stderr().size_checked().filter(|_| terminal);
    let width = known.or_else(|| measured().map(|(_, columns)| usize::from(columns)));
    width.unwrap_or(100).clamp(40, 160)
}

/// Renders all findings in the given order (file and place), each with its text underlined.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, style: Style) -> String {
    let handler = handler(style);
    let mut out = String::new();
    let shown = grouped(diagnostics, sources);
    for diagnostic in shown.iter().take(MOST) {
        let report = Shown::new(diagnostic, sources);
        if handler.render_report(&mut out, &report).is_err() {
            let _ = writeln!(out, "{}", diagnostic.message);
        }
        out.push('\n');
    }
    if shown.len() > MOST {
        let _ = writeln!(out, "… and {} more\n", shown.len() - MOST);
    }
    out
}

/// Merges warnings with the same text at several places into one, shown at the first place with a list of the others.
fn grouped(diagnostics: &[Diagnostic], sources: &Sources) -> Vec<Diagnostic> {
    const LISTED: usize = 12;
    let repeats = |diagnostic: &Diagnostic| {
        diagnostic.severity == Severity::Warning && diagnostic.related.is_none()
    };
    let mut places: HashMap<(&str, Option<&str>), Vec<&Diagnostic>> = HashMap::new();
    for diagnostic in diagnostics.iter().filter(|diagnostic| repeats(diagnostic)) {
        let same = (diagnostic.message.as_str(), diagnostic.help.as_deref());
        places.entry(same).or_default().push(diagnostic);
    }
    let place = |diagnostic: &&Diagnostic| {
        let span = diagnostic.span?;
        let name = &sources.files.get(span.file as usize)?.name;
        Some(format!("{name}:{}", span.line))
    };
    let one = |diagnostic: &Diagnostic| {
        let same = (diagnostic.message.as_str(), diagnostic.help.as_deref());
        let all = places
            .get(&same)
            .filter(|all| all.len() > 1 && repeats(diagnostic));
        let Some(all) = all else {
            return Some(diagnostic.clone());
        };
        all.first()
            .filter(|first| std::ptr::eq(**first, diagnostic))?;
        let others: Vec<String> = all.iter().skip(1).take(LISTED).filter_map(place).collect();
        let more = if all.len() > LISTED + 1 { ", …" } else { "" };
        let also = format!("also at {}{more}", others.join(", "));
        let help = diagnostic
            .help
            .as_deref()
            .map_or(also.clone(), |help| format!("{help}\n{also}"));
        Some(Diagnostic {
            message: format!("{}, {} places", diagnostic.message, all.len()),
            help: Some(help),
            ..diagnostic.clone()
        })
    };
    diagnostics.iter().filter_map(one).collect()
}

/// "2 errors, 1 warning (phalanx explain PHX0011)", or an empty text.
pub fn count(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    let counts = [(errors, "error"), (diagnostics.len() - errors, "warning")];
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    let codes: BTreeSet<ErrorCode> = diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .filter_map(|found| found.code)
        .collect();
    let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
    match codes.as_slice() {
        [] => words.join(", "),
        codes => format!(
            "{} (phalanx explain {})",
            words.join(", "),
            codes.join(", ")
        ),
    }
}

fn handler(style: Style) -> GraphicalReportHandler {
    let theme = GraphicalTheme {
        characters: if style.unicode {
            ThemeCharacters::unicode()
        } else {
            ThemeCharacters::ascii()
        },
        styles: if style.colour {
            ThemeStyles::ansi()
        } else {
            ThemeStyles::none()
        },
    };
    GraphicalReportHandler::new_themed(theme)
        .with_width(style.width)
        .with_links(false)
        .without_syntax_highlighting()
        .with_context_lines(1)
}

#[cfg(test)]
mod tests;
