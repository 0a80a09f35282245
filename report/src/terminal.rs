//! The summary of a run for a terminal: failures in full, skips by reason, the coverage table, and where the time went.
//!
//! The same failure in many cells is shown once, with the cells that share it: 500 equal failures are one finding.

use super::finding::findings;
use super::style::{Style, Tone};
use super::table::coverage_lines;
use super::text::{Line, cell_title, clean, counts, duration, failure, plural, step_title};
use super::view::{CellView, RunView, SkipGroup, StepView};
use phalanx_shared::outcome::Outcome;

/// Level of detail and format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Width of the terminal in columns.
    pub width: usize,
    /// Whether colours are used.
    pub style: Style,
    /// Whether to name all cells of a group and every segment of the critical path.
    pub verbose: bool,
}

/// Returns failures, skips, coverage and summary, each after a blank line.
pub fn render(view: &RunView, detail: Detail) -> String {
    let mut out = Vec::new();
    failures(&mut out, view, detail);
    skips(&mut out, view, detail);
    if let Some(coverage) = &view.coverage {
        out.push(String::new());
        out.extend(coverage_lines(coverage, detail.style, detail.width));
    }
    summary(&mut out, view, detail);
    out.iter().map(|line| format!("{line}\n")).collect()
}

fn failures(out: &mut Vec<String>, view: &RunView, detail: Detail) {
    let findings = findings(view);
    if findings.is_empty() {
        return;
    }
    out.push(String::new());
    out.push(detail.style.paint(Tone::Strong, "failures:"));
    for finding in &findings {
        let Some(cell) = finding.cells.first() else {
            continue;
        };
        out.push(String::new());
        out.push(headline(cell, finding.step, detail.style));
        let lines = match finding.step {
            Some(step) => failure(step),
            None => Vec::new(),
        };
        for Line { tone, text } in lines {
            out.push(format!("      {}", detail.style.paint(tone, &text)));
        }
        also_in(out, &finding.cells, detail);
        let hint = format!("again: phalanx rerun {} --cell {}", view.run, cell.id);
        out.push(format!("      {}", detail.style.paint(Tone::Dim, &hint)));
    }
}

fn headline(cell: &CellView, step: Option<&StepView>, style: Style) -> String {
    let outcome = step.map_or(cell.outcome, |step| step.outcome);
    let word = outcome.map_or("", Outcome::as_str).to_uppercase();
    let tone = outcome.map_or(Tone::Plain, Tone::from);
    let cell_name = style.paint(Tone::Strong, &cell_title(cell));
    let word = style.paint(tone, &word);
    match step {
        Some(step) => {
            let title = style.paint(Tone::Strong, &step_title(&step.phase, &step.name));
            let tries = match step.tries {
                0 | 1 => String::new(),
                tries => format!(", {tries} tries"),
            };
            let polls = match step.polls {
                0 | 1 => String::new(),
                polls => format!(", {polls} polls"),
            };
            format!(
                "  {word} {cell_name} | {title} ({}{tries}{polls})",
                duration(step.elapsed_us)
            )
        }
        None => {
            let reason = cell.reason.as_deref().unwrap_or("no reason given");
            format!("  {word} {cell_name}: {}", clean(reason))
        }
    }
}

fn also_in(out: &mut Vec<String>, cells: &[&CellView], detail: Detail) {
    let others = cells.get(1..).unwrap_or_default();
    if others.is_empty() {
        return;
    }
    let shown = if detail.verbose { others.len() } else { 6 };
    let mut line = format!("the same in {}:", plural(others.len(), "other cell"));
    for cell in others.iter().take(shown) {
        line += &format!(" {};", cell_title(cell));
    }
    if others.len() > shown {
        line += &format!(" … ({} more)", others.len() - shown);
    }
    let line = detail.style.paint(Tone::Warn, line.trim_end_matches(';'));
    out.push(format!("      {line}"));
}

fn skips(out: &mut Vec<String>, view: &RunView, detail: Detail) {
    if view.skips.is_empty() {
        return;
    }
    out.push(String::new());
    out.push(detail.style.paint(Tone::Strong, "skipped:"));
    for group in &view.skips {
        let text = clean(&group.reason);
        let reason = detail
            .style
            .paint(Tone::Warn, text.lines().next().unwrap_or_default());
        out.push(format!("  {reason} ({})", skip_extent(group, view)));
        for (step, cells) in &group.steps {
            // A cell appears once for each item of a `foreach`, one after the other.
            let mut names = cells.clone();
            names.dedup();
            let in_cells = match names.as_slice() {
                // In a run of one cell, the cell needs no mention.
                [_] if view.cells.len() == 1 => None,
                [cell] => Some(clean(cell).into_owned()),
                names if detail.verbose => Some(clean(&names.join("; ")).into_owned()),
                names => Some(plural(names.len(), "cell")),
            };
            let times = (cells.len() > names.len()).then(|| format!("{} times", cells.len()));
            let extent: Vec<String> = in_cells.into_iter().chain(times).collect();
            let step = clean(step);
            out.push(match extent.as_slice() {
                [] => format!("      {step}"),
                extent => format!("      {step} ({})", extent.join(", ")),
            });
        }
    }
}

fn skip_extent(group: &SkipGroup, view: &RunView) -> String {
    let steps = plural(group.steps.len(), "step");
    if view.cells.len() == 1 {
        return steps;
    }
    let cells: std::collections::HashSet<&String> = group.steps.values().flatten().collect();
    format!("{steps} in {}", plural(cells.len(), "cell"))
}

fn summary(out: &mut Vec<String>, view: &RunView, detail: Detail) {
    let style = detail.style;
    let outcome = view.outcome.map_or("unfinished", Outcome::as_str);
    let tone = view.outcome.map_or(Tone::Warn, Tone::from);
    out.push(String::new());
    let verdict = style.paint(tone, &outcome.to_uppercase());
    out.push(format!(
        "{verdict} {} (run {})",
        style.paint(Tone::Strong, &clean(&view.spec)),
        view.run
    ));
    if let Some(reason) = &view.cancelled {
        out.push(format!("  cancelled: {}", clean(reason)));
    }
    for (title, counted) in [
        ("cells", &view.cells_by_outcome),
        ("steps", &view.steps_by_outcome),
    ] {
        let parts = counts(counted)
            .into_iter()
            .map(|(tone, text)| style.paint(tone, &text));
        let parts: Vec<String> = parts.collect();
        let line = match parts.as_slice() {
            [] => format!("  {title}  none"),
            parts => format!("  {title}  {}: {}", counted.total, parts.join(", ")),
        };
        out.push(line);
    }
    if view.only_skips() {
        let text = "every step was skipped: nothing was tested (phalanx explain PHX0003)";
        out.push(format!("  {}", style.paint(Tone::Bad, text)));
    }
    again(out, view, detail);
    times(out, view, detail);
    kept(out, view, style);
}

/// Lists attempts other than each cell's last one, and why they ended. So a run that passed although an agent was lost
/// says so.
fn again(out: &mut Vec<String>, view: &RunView, detail: Detail) {
    let earlier = view.cells.iter().flat_map(|cell| {
        let last = cell.attempts.len().saturating_sub(1);
        let attempts = cell.attempts.get(..last).unwrap_or_default();
        attempts.iter().map(move |attempt| (cell, attempt))
    });
    let earlier: Vec<_> = earlier.collect();
    let shown = if detail.verbose { earlier.len() } else { 6 };
    for (cell, attempt) in earlier.iter().take(shown) {
        let reason = attempt.reason.as_deref().unwrap_or("no reason given");
        let text = format!(
            "  again  {} | attempt {} on {}: {}",
            clean(&cell.name),
            attempt.attempt,
            clean(&attempt.agent),
            clean(reason.lines().next().unwrap_or_default())
        );
        out.push(detail.style.paint(Tone::Warn, &text));
    }
    if earlier.len() > shown {
        let text = format!("         … ({} more)", earlier.len() - shown);
        out.push(detail.style.paint(Tone::Warn, &text));
    }
}

fn times(out: &mut Vec<String>, view: &RunView, detail: Detail) {
    let timing = &view.timing;
    let mut line = format!("  time   wall {}", duration(timing.wall_us));
    if let Some(slowest) = &timing.slowest {
        line += &format!(
            ", slowest cell {} ({})",
            duration(slowest.elapsed_us),
            clean(&slowest.name)
        );
    }
    line += &format!(", sum of cells {}", duration(timing.sum_us));
    out.push(line);
    for phase in &timing.phases {
        let longest = if phase.cells > 1 {
            format!(
                ", longest {} ({})",
                duration(phase.max_us),
                clean(&phase.max_cell)
            )
        } else {
            String::new()
        };
        let text = format!(
            "         {} {}{longest}",
            clean(&phase.name),
            duration(phase.sum_us)
        );
        out.push(detail.style.paint(Tone::Dim, &text));
    }
    let Some(slowest) = timing
        .slowest
        .as_ref()
        .filter(|slowest| detail.verbose && !slowest.critical_path.is_empty())
    else {
        return;
    };
    out.push(format!("  critical path of {}", clean(&slowest.name)));
    for segment in &slowest.critical_path {
        let what = match &segment.phase {
            Some(phase) => step_title(phase, &segment.what),
            None => format!("({})", clean(&segment.what)),
        };
        out.push(format!(
            "    {:>7} +{:<7} {what}",
            duration(segment.began_us),
            duration(segment.elapsed_us)
        ));
    }
}

fn kept(out: &mut Vec<String>, view: &RunView, style: Style) {
    for cell in &view.cells {
        let Some(clean_up) = cell.newest().and_then(|attempt| attempt.clean_up.as_ref()) else {
            continue;
        };
        for kept in &clean_up.kept {
            out.push(format!(
                "  kept   {} | {} at {}",
                clean(&cell.name),
                clean(&kept.service),
                clean(&kept.address)
            ));
        }
        if !clean_up.left.is_empty() {
            let text = format!(
                "  left   {} | could not remove {}",
                clean(&cell.name),
                clean(&clean_up.left.join(", "))
            );
            out.push(style.paint(Tone::Bad, &text));
        }
    }
}
