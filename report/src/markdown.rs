//! `--report markdown=FILE`, and the summary of a GitHub job: the verdict, the coverage table, failures in full, skips,
//! times.
//!
//! If there are many cells, passed cells are only counted: readers look at the top of a page first.

use super::finding::findings;
use super::style::Style;
use super::text::{cell_title, counts, duration, entry_text, failure, lines_text, plural};
use super::view::{CellView, RunView, StepView};
use crate::view::coverage::{Coverage, CoverageState};
use phalanx_shared::outcome::Outcome;
use std::fmt::Write;

/// Maximum number of cells to list in full; larger runs list only cells that aren't ok.
const LIST_ALL: usize = 60;
/// Failures beyond this number are only named; GitHub limits a summary to 1 MiB.
const MAX_FAILURES: usize = 50;

/// Returns the report as Markdown.
pub fn render(view: &RunView) -> String {
    let mut out = String::new();
    head(&mut out, view);
    if let Some(table) = &view.coverage {
        coverage(&mut out, table);
    }
    failures(&mut out, view);
    cells(&mut out, view);
    skips(&mut out, view);
    timing(&mut out, view);
    out
}

fn head(out: &mut String, view: &RunView) {
    let outcome = view.outcome.map_or("unfinished", Outcome::as_str);
    let _ = writeln!(out, "# {}: {outcome}\n", escape(&view.spec));
    let summary: Vec<String> = counts(&view.cells_by_outcome)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let _ = writeln!(
        out,
        "{}: {}. Wall time {}, slowest cell {}, sum of cells {}.\n",
        plural(view.cells_by_outcome.total, "cell"),
        summary.join(", "),
        duration(view.timing.wall_us),
        view.timing.slowest.as_ref().map_or_else(
            || "–".to_owned(),
            |slowest| format!(
                "{} ({})",
                duration(slowest.elapsed_us),
                escape(&slowest.name)
            )
        ),
        duration(view.timing.sum_us),
    );
    if view.only_skips() {
        let _ = writeln!(out, "**Every step was skipped: nothing was tested.**\n");
    }
    if let Some(reason) = &view.cancelled {
        let _ = writeln!(out, "**Cancelled:** {}\n", escape(reason));
    }
    let _ = writeln!(
        out,
        "Run `{}`, plan `{}`\n",
        view.run,
        view.digest.get(..12).unwrap_or(&view.digest)
    );
}

fn coverage(out: &mut String, table: &Coverage) {
    let reasons = table.reasons();
    let _ = writeln!(out, "## What each cell verifies\n");
    let corner = if table.axis.is_empty() {
        "Row"
    } else {
        &table.axis
    };
    let columns: Vec<String> = table.columns.iter().map(|column| escape(column)).collect();
    let _ = writeln!(out, "| {} | {} |", escape(corner), columns.join(" | "));
    let _ = writeln!(out, "|---|{}", "---|".repeat(columns.len()));
    for row in &table.rows {
        let entries: Vec<String> = row
            .entries
            .iter()
            .map(|entry| format!("{} {}", mark(entry.state), entry_text(entry, &reasons)))
            .collect();
        let _ = writeln!(out, "| {} | {} |", escape(&row.title), entries.join(" | "));
    }
    out.push('\n');
    for (index, reason) in reasons.iter().enumerate() {
        let _ = writeln!(out, "\\[{}\\] {}  ", index + 1, escape(reason));
    }
    if !reasons.is_empty() {
        out.push('\n');
    }
}

fn mark(state: CoverageState) -> &'static str {
    match state {
        CoverageState::Absent => "",
        CoverageState::Passed => "✅",
        CoverageState::Flaky => "⚠️",
        CoverageState::Skipped => "➖",
        CoverageState::NotRun => "⬜",
        CoverageState::Cancelled => "🚫",
        CoverageState::Failed => "❌",
        CoverageState::Errored => "💥",
    }
}

fn failures(out: &mut String, view: &RunView) {
    let findings = findings(view);
    if findings.is_empty() {
        return;
    }
    let _ = writeln!(out, "## Failures\n");
    for finding in findings.iter().take(MAX_FAILURES) {
        if let Some((cell, others)) = finding.cells.split_first() {
            failed(out, cell, finding.step);
            also_in(out, others);
        }
    }
    if findings.len() > MAX_FAILURES {
        let more = findings.len() - MAX_FAILURES;
        let _ = writeln!(out, "… and {more} more: `phalanx show {}`\n", view.run);
    }
}

fn failed(out: &mut String, cell: &CellView, step: Option<&StepView>) {
    let title = cell_title(cell);
    let Some(step) = step else {
        let reason = cell.reason.as_deref().unwrap_or("no reason given");
        let outcome = cell.outcome.map_or("", Outcome::as_str);
        let _ = writeln!(
            out,
            "**{}** {outcome}: {}\n",
            escape(&title),
            escape(reason)
        );
        return;
    };
    let _ = writeln!(
        out,
        "<details><summary>{}: {} &gt; {} ({} after {})</summary>\n",
        html(&title),
        html(&step.phase),
        html(&step.name),
        step.outcome.map_or("", Outcome::as_str),
        duration(step.elapsed_us),
    );
    fenced(out, &lines_text(&failure(step), Style::PLAIN));
    let _ = writeln!(out, "</details>\n");
}

fn also_in(out: &mut String, others: &[&CellView]) {
    if others.is_empty() {
        return;
    }
    let names: Vec<String> = others
        .iter()
        .take(LIST_ALL)
        .map(|cell| escape(&cell_title(cell)))
        .collect();
    let more = others.len().saturating_sub(LIST_ALL);
    let more = if more > 0 {
        format!("; … ({more} more)")
    } else {
        String::new()
    };
    let count = plural(others.len(), "other cell");
    let _ = writeln!(out, "The same in {count}: {}{more}\n", names.join("; "));
}

fn cells(out: &mut String, view: &RunView) {
    let listed = |cell: &&CellView| {
        view.cells.len() <= LIST_ALL
            || !matches!(cell.outcome, Some(Outcome::Passed | Outcome::Skipped))
    };
    let _ = writeln!(out, "## Cells\n");
    let _ = writeln!(
        out,
        "| Cell | Outcome | Time | Attempts | Agent | Reason |\n|---|---|---|---|---|---|"
    );
    for cell in view.cells.iter().filter(listed) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            escape(&cell_title(cell)),
            cell.outcome.map_or("unfinished", Outcome::as_str),
            cell.elapsed_us.map(duration).unwrap_or_default(),
            cell.attempts.len(),
            cell.newest()
                .map(|attempt| escape(&attempt.agent))
                .unwrap_or_default(),
            cell.reason
                .as_deref()
                .map(|reason| escape(reason.lines().next().unwrap_or_default()))
                .unwrap_or_default(),
        );
    }
    let hidden = view.cells.iter().filter(|cell| !listed(cell)).count();
    if hidden > 0 {
        let _ = writeln!(
            out,
            "\n{} that passed or were skipped are not listed.",
            plural(hidden, "cell")
        );
    }
    out.push('\n');
}

fn skips(out: &mut String, view: &RunView) {
    if view.skips.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "## Skipped steps\n\n| Reason | Steps | Cells |\n|---|---|---|"
    );
    for group in &view.skips {
        let steps: Vec<String> = group.steps.keys().map(|step| escape(step)).collect();
        let cells: std::collections::HashSet<&String> = group.steps.values().flatten().collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            escape(&group.reason),
            steps.join("<br>"),
            cells.len()
        );
    }
    out.push('\n');
}

fn timing(out: &mut String, view: &RunView) {
    let _ = writeln!(out, "## Where the time went\n");
    let _ = writeln!(
        out,
        "| Phase | Cells | Sum | Longest | In cell |\n|---|---|---|---|---|"
    );
    for phase in &view.timing.phases {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            escape(&phase.name),
            phase.cells,
            duration(phase.sum_us),
            duration(phase.max_us),
            escape(&phase.max_cell)
        );
    }
    let Some(slowest) = &view.timing.slowest else {
        return;
    };
    let _ = writeln!(out, "\nCritical path of {}:\n", escape(&slowest.name));
    let _ = writeln!(out, "| From | What | Time |\n|---:|---|---:|");
    for segment in &slowest.critical_path {
        let what = match &segment.phase {
            Some(phase) => format!("{phase} > {}", segment.what),
            None => format!("({})", segment.what),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            duration(segment.began_us),
            escape(&what),
            duration(segment.elapsed_us)
        );
    }
}

/// Writes a code block with a fence longer than any run of backticks in the text.
fn fenced(out: &mut String, text: &str) {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(out, "{fence}text\n{}\n{fence}", text.trim_end());
}

/// Escapes text so that Markdown shows it literally, also within a table.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in html(text).chars() {
        if matches!(c, '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn html(text: &str) -> String {
    super::text::clean(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
