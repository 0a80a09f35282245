//! Marks of outcomes, links, and pieces of text that all components share.
//!
//! A mark differs by shape as well as by colour: check, cross, exclamation mark in a diamond, wave in a circle, dash,
//! stroke, ring, dot, arrow back.

use crate::text::clean;
use crate::view::coverage::CoverageState;
use crate::view::{CellView, StepView};
use maud::{Markup, PreEscaped, html};
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::CellStatus;

/// What a mark shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Mark {
    Passed,
    Flaky,
    Skipped,
    /// A step that a snapshot restored.
    Restored,
    /// A step that was never reached.
    NotRun,
    Cancelled,
    Failed,
    Errored,
    Running,
    Queued,
}

impl Mark {
    /// Returns the mark of a cell.
    pub fn of_cell(cell: &CellView) -> Mark {
        match (cell.outcome, cell.status) {
            (Some(outcome), _) => outcome.into(),
            (None, CellStatus::Queued | CellStatus::Ended) => Mark::Queued,
            (None, _) => Mark::Running,
        }
    }

    /// Returns the mark of a step.
    pub fn of_step(step: &StepView) -> Mark {
        match step.outcome {
            Some(_) if step.unreached => Mark::NotRun,
            Some(_) if step.is_restored() => Mark::Restored,
            Some(outcome) => outcome.into(),
            None => Mark::Running,
        }
    }

    /// Returns the word for people.
    pub fn word(self) -> &'static str {
        match self {
            Mark::NotRun => "not run",
            other => other.class(),
        }
    }

    /// Returns the class in the style sheet, which is also the end of the symbol's id.
    pub fn class(self) -> &'static str {
        match self {
            Mark::Passed => "passed",
            Mark::Flaky => "flaky",
            Mark::Skipped => "skipped",
            Mark::Restored => "restored",
            Mark::NotRun => "notrun",
            Mark::Cancelled => "cancelled",
            Mark::Failed => "failed",
            Mark::Errored => "errored",
            Mark::Running => "running",
            Mark::Queued => "queued",
        }
    }

    /// Returns whether the mark means failed or errored.
    pub fn is_bad(self) -> bool {
        matches!(self, Mark::Failed | Mark::Errored)
    }
}

impl From<Outcome> for Mark {
    fn from(outcome: Outcome) -> Mark {
        match outcome {
            Outcome::Passed => Mark::Passed,
            Outcome::Flaky => Mark::Flaky,
            Outcome::Skipped => Mark::Skipped,
            Outcome::Cancelled => Mark::Cancelled,
            Outcome::Failed => Mark::Failed,
            Outcome::Errored => Mark::Errored,
        }
    }
}

impl Mark {
    /// Returns the mark of a state in the coverage table; `None` for a column without cells.
    pub fn of_coverage(state: CoverageState) -> Option<Mark> {
        Some(match state {
            CoverageState::Absent => return None,
            CoverageState::Passed => Mark::Passed,
            CoverageState::Flaky => Mark::Flaky,
            CoverageState::Skipped => Mark::Skipped,
            CoverageState::NotRun => Mark::NotRun,
            CoverageState::Cancelled => Mark::Cancelled,
            CoverageState::Failed => Mark::Failed,
            CoverageState::Errored => Mark::Errored,
        })
    }
}

/// Returns the drawing of a mark. It is hidden from screen readers: a word stands beside it.
pub fn icon(mark: Mark) -> Markup {
    let class = mark.class();
    html! {
        svg class=(format!("m {class}")) aria-hidden="true" { use href=(format!("#m-{class}")) {} }
    }
}

/// Returns the symbols that [`icon`] refers to; once per page.
pub fn symbols() -> Markup {
    PreEscaped(
        concat!(
            r#"<svg class="sr" aria-hidden="true">"#,
            r#"<symbol id="m-passed" viewBox="0 0 16 16"><rect x="1" y="1" width="14" height="14" rx="3.5" class="fill"/><path d="M4.6 8.4 7 10.8l4.5-5.3" class="ink"/></symbol>"#,
            r#"<symbol id="m-failed" viewBox="0 0 16 16"><rect x="1" y="1" width="14" height="14" rx="3.5" class="fill"/><path d="m5.2 5.2 5.6 5.6m0-5.6-5.6 5.6" class="ink"/></symbol>"#,
            r#"<symbol id="m-errored" viewBox="0 0 16 16"><path d="M8 .4 15.6 8 8 15.6.4 8Z" class="fill"/><path d="M8 4.4v4.2m0 2.5v.4" class="ink"/></symbol>"#,
            r#"<symbol id="m-flaky" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" class="fill"/><path d="M4 9c1.3-2.6 2.7-2.6 4-1s2.700 1.600 4-1" class="ink"/></symbol>"#,
            r#"<symbol id="m-skipped" viewBox="0 0 16 16"><rect x="1.75" y="1.75" width="12.5" height="12.5" rx="3" class="line"/><path d="M5 8h6" class="ink"/></symbol>"#,
            r#"<symbol id="m-restored" viewBox="0 0 16 16"><rect x="1.75" y="1.75" width="12.5" height="12.5" rx="3" class="line"/><path d="M11.5 10.5V9a2 2 0 0 0-2-2H5m2-2.500L4.500 7 7 9.500" class="ink"/></symbol>"#,
            r#"<symbol id="m-notrun" viewBox="0 0 16 16"><rect x="1.75" y="1.75" width="12.5" height="12.5" rx="3" class="line dash"/></symbol>"#,
            r#"<symbol id="m-cancelled" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.250" class="line"/><path d="m4.500 11.500 7-7" class="ink"/></symbol>"#,
            r#"<symbol id="m-running" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.250" class="line"/><path d="M8 3.500a4.500 4.500 0 0 1 0 9Z" class="fill"/></symbol>"#,
            r#"<symbol id="m-queued" viewBox="0 0 16 16"><circle cx="8" cy="8" r="2.500" class="fill"/></symbol>"#,
            "</svg>"
        )
        .to_owned(),
    )
}

/// Addresses of cells and steps: within the report, or pages of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    before_cell: String,
    before_step: &'static str,
}

impl Links {
    /// Links within the report: `#/cells/C/steps/PATH`.
    pub fn of_report() -> Links {
        Links {
            before_cell: "#/cells/".to_owned(),
            before_step: "/steps/",
        }
    }

    /// Links to pages: `PREFIX` + `C#/steps/PATH`; the prefix ends with a slash.
    pub fn of_pages(prefix: impl Into<String>) -> Links {
        Links {
            before_cell: prefix.into(),
            before_step: "#/steps/",
        }
    }

    /// Returns the address of a cell.
    pub fn cell(&self, cell: &CellId) -> String {
        format!("{}{}", self.before_cell, encoded(cell.as_str()))
    }

    /// Returns the address of a step in a cell.
    pub fn step(&self, cell: &CellId, path: &str) -> String {
        format!(
            "{}{}{}",
            self.cell(cell),
            self.before_step,
            encoded(&clean(path))
        )
    }
}

/// Encodes all but unreserved characters and slashes with `%`.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Returns a text of several lines without control characters.
pub fn lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(clean).collect();
    lines.join("\n")
}

/// Maximum characters of a text in one line.
const LINE: usize = 2_000;

/// Returns the first line of a text without control characters; a very long one is cut.
pub fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", clean(line.get(..end).unwrap_or_default())),
        None => clean(line).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_no_character_that_could_end_it() {
        let links = Links::of_report();
        assert_eq!(
            links.step(&CellId::from("a1"), "sync/2[a/b?\"<é]/1"),
            "#/cells/a1/steps/sync/2%5Ba/b%3F%22%3C%C3%A9%5D/1"
        );
        assert_eq!(
            Links::of_pages("/runs/r/cells/").step(&CellId::from("a1"), "s/0"),
            "/runs/r/cells/a1#/steps/s/0"
        );
    }
}
