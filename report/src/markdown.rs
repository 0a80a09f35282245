//! `--report markdown=FILE`, and the summary of a GitHub job: the verdict, the causes, the coverage table, failures in
//! full, cells, skips, times.
//!
//! If there are many cells, passed cells are only counted: readers look at the top of a page first. The page keeps to a
//! number of bytes, because GitHub shows nothing of a page that is too long. Each section may fill the page up to a
//! share of them; what doesn't fit is left out as a whole row or block, and the section says how much that is.

mod page;

use super::artifacts;
use super::finding::{Finding, Findings, findings, sentence};
use super::logs::Logs;
use super::style::Style;
use super::text::{
    cell_title, counts, duration, entry_text, failure, lines_text, plural, snapshots,
    too_many_skips,
};
use super::view::{CellView, RunView, StepView};
use crate::view::coverage::{Coverage, CoverageState};
use page::Page;
use phalanx_shared::outcome::Outcome;
use std::fmt::Write;

/// Bytes that GitHub shows of the summary of a step; of a longer one it shows nothing.
pub const GITHUB: usize = 1 << 20;
/// Maximum number of cells to list in full; larger runs list only cells that aren't ok.
const LIST_ALL: usize = 60;
/// Bytes of one failure's details.
const DETAILS: usize = 24 << 10;
/// Bytes of a name or a reason.
const TEXT: usize = 1_000;

/// Returns the report as Markdown, of at most `budget` bytes.
pub fn render(view: &RunView, budget: usize) -> String {
    render_with(view, None, budget)
}

/// Returns the report with differences in the logs of [`compared`](crate::finding::compared) cells.
pub fn render_with(view: &RunView, logs: Option<&Logs>, budget: usize) -> String {
    let found = findings(view, logs);
    let more = format!("`phalanx show {}` shows all", view.run);
    let mut page = Page::new(budget, more);
    head(&mut page, view, &found);
    causes(&mut page, &found);
    if let Some(table) = &view.coverage {
        coverage(&mut page, table);
    }
    unverified(&mut page, view);
    failures(&mut page, view, &found);
    cells(&mut page, view);
    skips(&mut page, view);
    restored(&mut page, view);
    timing(&mut page, view, &found);
    page.finish()
}

fn head(page: &mut Page, view: &RunView, found: &Findings) {
    let mut out = String::new();
    let outcome = view.outcome.map_or("unfinished", Outcome::as_str);
    let _ = writeln!(out, "# {}: {outcome}\n", escape(&view.spec));
    if let Some(verdict) = sentence::verdict(found) {
        let _ = writeln!(out, "**{}.**\n", escape(&verdict));
    }
    let summary: Vec<String> = counts(&view.cells_by_outcome)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let slowest = view.timing.slowest.as_ref().map_or_else(
        || "–".to_owned(),
        |slowest| {
            let name = escape(&slowest.name);
            format!("{} ({name})", duration(slowest.elapsed_us))
        },
    );
    let _ = writeln!(
        out,
        "{}: {}. Wall time {}, slowest cell {slowest}.\n",
        plural(view.cells_by_outcome.total, "cell"),
        summary.join(", "),
        duration(view.timing.wall_us),
    );
    if let Some(text) = too_many_skips(view) {
        let _ = writeln!(out, "**{}**\n", escape(&text));
    }
    if view.only_skips() {
        let _ = writeln!(out, "**Every step was skipped: nothing was tested.**\n");
    }
    if let Some(reason) = &view.cancelled {
        let _ = writeln!(out, "**Cancelled:** {}\n", escape(reason));
    }
    if let Some(text) = artifacts::summary(view) {
        let _ = writeln!(out, "{}\n", escape(&text));
    }
    let _ = writeln!(
        out,
        "Run `{}`, plan `{}`\n",
        view.run,
        view.digest.get(..12).unwrap_or(&view.digest)
    );
    page.head(&out);
}

/// Lists what earlier runs verified and this one didn't.
fn unverified(page: &mut Page, view: &RunView) {
    if view.unverified.is_empty() {
        return;
    }
    let lines = view.unverified.iter();
    let lines: String = lines.map(|text| format!("- {}\n", escape(text))).collect();
    page.head(&format!("{lines}\n"));
}

fn causes(page: &mut Page, found: &Findings) {
    let roots: Vec<&Finding> = found.roots().collect();
    if roots.len() < 2 {
        return;
    }
    let rows = roots.iter().enumerate().map(|(index, cause)| {
        format!(
            "| {} | {} | {} | {} |\n",
            index + 1,
            cause.cells.len(),
            escape(&sentence::headline(cause)),
            escape(&sentence::explained(cause)),
        )
    });
    let header = "| | Cells | Cause | Where |\n|---:|---:|---|---|\n";
    page.table(15, "Causes", header, rows, "cause");
}

fn coverage(page: &mut Page, table: &Coverage) {
    let reasons = table.reasons();
    let corner = if table.axis.is_empty() {
        "Row"
    } else {
        &table.axis
    };
    let columns: Vec<String> = table.columns.iter().map(|column| escape(column)).collect();
    let header = format!(
        "| {} | {} |\n|---|{}\n",
        escape(corner),
        columns.join(" | "),
        "---|".repeat(columns.len())
    );
    let rows = table.rows.iter().map(|row| {
        let entries: Vec<String> = row
            .entries
            .iter()
            .map(|entry| format!("{} {}", mark(entry.state), entry_text(entry, &reasons)))
            .collect();
        format!("| {} | {} |\n", escape(&row.title), entries.join(" | "))
    });
    page.table(30, "What each cell verifies", &header, rows, "row");
    let notes = reasons.iter().enumerate();
    let notes = notes.map(|(index, reason)| format!("\\[{}\\] {}  \n", index + 1, escape(reason)));
    page.lines(35, notes, "reason");
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

fn failures(page: &mut Page, view: &RunView, found: &Findings) {
    if found.findings.is_empty() {
        return;
    }
    let details = found.findings.iter().filter_map(|finding| {
        let cell = finding.cell(view)?;
        let mut out = failed(cell, finding.step(view), &about(view, finding));
        let others = finding.cells(view).filter(|other| other.id != cell.id);
        also_in(&mut out, &others.collect::<Vec<_>>());
        Some(out)
    });
    let left_out = (found.left_out > 0).then(|| {
        let more = plural(found.left_out, "other failure");
        format!("{more}, too many to tell apart\n\n")
    });
    page.blocks(70, "Failures", details.chain(left_out), "failure");
}

/// Returns what findings know of a failure beyond its own cell.
fn about(view: &RunView, finding: &Finding) -> Vec<String> {
    let mut lines = Vec::new();
    if finding.follows.is_some() {
        lines.push(sentence::follower(finding));
    }
    if view.cells.len() > 1 {
        lines.push(sentence::explained(finding));
    }
    lines.extend(sentence::stopped(finding));
    lines.extend(sentence::nearest(view, finding));
    lines
}

fn failed(cell: &CellView, step: Option<&StepView>, about: &[String]) -> String {
    let mut out = String::new();
    let title = cell_title(cell);
    let about: Vec<String> = about.iter().map(|line| escape(line.trim())).collect();
    let about = about.join("  \n");
    let Some(step) = step else {
        let reason = cell.reason.as_deref().unwrap_or("no reason given");
        let outcome = cell.outcome.map_or("", Outcome::as_str);
        let _ = writeln!(
            out,
            "**{}** {outcome}: {}\n\n{about}\n",
            escape(&title),
            escape(reason)
        );
        return out;
    };
    let _ = writeln!(
        out,
        "<details><summary>{}: {} &gt; {} ({} after {})</summary>\n\n{about}\n",
        html(&title),
        html(&step.phase),
        html(&step.name),
        step.outcome.map_or("", Outcome::as_str),
        duration(step.elapsed_us),
    );
    fenced(&mut out, &lines_text(&failure(step), Style::PLAIN));
    let _ = writeln!(out, "</details>\n");
    out
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

fn cells(page: &mut Page, view: &RunView) {
    let listed = |cell: &&CellView| {
        view.cells.len() <= LIST_ALL
            || !matches!(cell.outcome, Some(Outcome::Passed | Outcome::Skipped))
    };
    let header =
        "| Cell | Outcome | Time | Attempts | Agent | Reason |\n|---|---|---|---|---|---|\n";
    let rows = view.cells.iter().filter(listed).map(|cell| {
        let reason = cell.reason.as_deref().unwrap_or_default();
        let agent = cell.newest().map(|attempt| escape(&attempt.agent));
        format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            escape(&cell_title(cell)),
            cell.outcome.map_or("unfinished", Outcome::as_str),
            cell.elapsed_us.map(duration).unwrap_or_default(),
            cell.attempts.len(),
            agent.unwrap_or_default(),
            escape(reason.lines().next().unwrap_or_default()),
        )
    });
    page.table(88, "Cells", header, rows, "cell");
    let hidden = view.cells.iter().filter(|cell| !listed(cell)).count();
    if hidden > 0 {
        let text = plural(hidden, "cell") + " that passed or were skipped are not listed.\n\n";
        page.lines(89, [text].into_iter(), "line");
    }
}

fn skips(page: &mut Page, view: &RunView) {
    let rows = view.skips.iter().map(|group| {
        let steps: Vec<String> = group.steps.keys().map(|step| escape(step)).collect();
        let cells: std::collections::HashSet<&String> = group.steps.values().flatten().collect();
        format!(
            "| {} | {} | {} |\n",
            escape(&group.reason),
            steps.join("<br>"),
            cells.len()
        )
    });
    let header = "| Reason | Steps | Cells |\n|---|---|---|\n";
    page.table(94, "Skipped steps", header, rows, "reason");
}

/// Lists what was restored from snapshots, and what was saved.
fn restored(page: &mut Page, view: &RunView) {
    let lines = snapshots(view);
    let lines = lines
        .into_iter()
        .map(|line| format!("- snapshot: {}\n", escape(&line)));
    page.lines(95, lines, "snapshot");
}

fn timing(page: &mut Page, view: &RunView, found: &Findings) {
    let rows = view.timing.phases.iter().map(|phase| {
        format!(
            "| {} | {} | {} | {} |\n",
            escape(&phase.name),
            phase.cells,
            duration(phase.max_us),
            escape(&phase.max_cell)
        )
    });
    let header = "| Phase | Cells | Longest | In cell |\n|---|---|---|---|\n";
    page.table(96, "Where the time went", header, rows, "phase");
    let slow = found.slow.iter().map(sentence::slow);
    let flaky = found
        .flakes
        .iter()
        .map(|flake| format!("flaky: {}", sentence::flake(flake)));
    let facts = slow
        .chain(flaky)
        .map(|fact| format!("- {}\n", escape(&fact)));
    page.lines(98, facts, "fact");
    let Some(slowest) = &view.timing.slowest else {
        return;
    };
    let title = format!("Critical path of {}", escape(&slowest.name));
    let telling = slowest.critical_path.iter().filter(|s| s.is_telling());
    let rows = telling.map(|segment| {
        let what = match &segment.phase {
            Some(phase) => format!("{phase} > {}", segment.what),
            None => format!("({})", segment.what),
        };
        format!(
            "| {} | {} | {} |\n",
            duration(segment.began_us),
            escape(&what),
            duration(segment.elapsed_us)
        )
    });
    let header = "| From | What | Time |\n|---:|---|---:|\n";
    page.table(100, &title, header, rows, "segment");
}

/// Writes a code block with a fence longer than any run of backticks in the text. A long text is cut after a line, and
/// says so.
fn fenced(out: &mut String, text: &str) {
    let mut text = text.trim_end();
    let mut more = String::new();
    if text.len() > DETAILS {
        let head = text
            .get(..text.floor_char_boundary(DETAILS))
            .unwrap_or_default();
        let head = head.rsplit_once('\n').map_or(head, |(whole, _)| whole);
        let left = text.lines().count().saturating_sub(head.lines().count());
        more = format!("\n… ({} more)", plural(left, "line"));
        text = head;
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(out, "{fence}text\n{text}{more}\n{fence}");
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

/// Escapes text for HTML, and shortens it: names and reasons come from outside.
fn html(text: &str) -> String {
    let short = text.get(..text.floor_char_boundary(TEXT));
    let short = short.unwrap_or_default();
    let text = match short.len() < text.len() {
        true => format!("{short}…"),
        false => text.to_owned(),
    };
    super::text::clean(&text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
