//! The summary of a run for a terminal: the causes, failures in full, skips by reason, the coverage table, and the times
//! that count.
//!
//! The same failure in many cells is shown once, with the rule that tells its cells from the others. The causes stand
//! both above the details and below them, because a terminal shows the end of a long text and a pager its beginning.

use super::artifacts;
use super::finding::{Finding, Findings, findings, sentence};
use super::logs::Logs;
use super::style::{Style, Tone};
use super::table::coverage_lines;
use super::text::{
    Line, cell_title, clean, counts, duration, failure, plural, snapshots, step_title,
    too_many_skips,
};
use super::view::{CellView, RunView, SkipGroup, StepView};
use console::{measure_text_width, truncate_str};
use phalanx_shared::outcome::Outcome;

/// Causes in the list of causes.
const CAUSES: usize = 10;
/// Causes after the first that the summary names.
const THEN: usize = 4;
/// Failures that are shown in full, unless all are wanted.
const IN_FULL: usize = 5;
/// Cells, reasons and other items of a list that are named, unless all are wanted.
const NAMED: usize = 6;

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

/// Returns the causes, failures, skips, coverage and summary, each after a blank line.
pub fn render(view: &RunView, detail: Detail) -> String {
    render_with(view, None, detail)
}

/// Returns the same with differences in the logs of [`compared`](crate::finding::compared) cells.
pub fn render_with(view: &RunView, logs: Option<&Logs>, detail: Detail) -> String {
    let found = findings(view, logs);
    let mut out = Vec::new();
    if found.roots().count() > 1 {
        out.push(String::new());
        out.push(detail.style.paint(Tone::Strong, "causes:"));
        out.extend(causes(&found, detail));
    }
    failures(&mut out, view, &found, detail);
    skips(&mut out, view, detail);
    if let Some(coverage) = &view.coverage {
        out.push(String::new());
        out.extend(coverage_lines(coverage, detail.style, detail.width));
    }
    unverified(&mut out, view, detail);
    summary(&mut out, view, &found, detail);
    out.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns two lines for each root: what went wrong, and in which cells.
fn causes(found: &Findings, detail: Detail) -> Vec<String> {
    let most = if detail.verbose { usize::MAX } else { CAUSES };
    let mut lines = Vec::new();
    for (index, cause) in found.roots().enumerate().take(most) {
        let headline = clean(&sentence::headline(cause)).into_owned();
        let headline = fitted(&headline, detail, 6);
        let headline = detail.style.paint(Tone::from(cause.outcome), &headline);
        lines.push(format!("  {}. {headline}", index + 1));
        let which = clean(&sentence::explained(cause)).into_owned();
        lines.push(format!("     {which}"));
    }
    let roots = found.roots().count();
    if roots > most {
        lines.push(format!("     … ({} more)", roots - most));
    }
    lines
}

/// Returns a line for each root after the first, whose sentence stands above.
fn further_causes(found: &Findings, detail: Detail) -> Vec<String> {
    let most = if detail.verbose { usize::MAX } else { THEN };
    let further = found.roots().skip(1);
    let mut lines: Vec<String> = further
        .take(most)
        .map(|cause| {
            let (place, what) = (sentence::place(cause), sentence::headline(cause));
            let text = format!("{place}: {what}");
            format!("  then   {}", fitted(&clean(&text), detail, 9))
        })
        .collect();
    let left = found.roots().skip(1).count().saturating_sub(most);
    if left > 0 {
        lines.push(format!("         … ({left} more)"));
    }
    lines
}

/// Cuts the end of a text that would not fit into the rest of a line.
fn fitted(text: &str, detail: Detail, used: usize) -> String {
    let room = detail.width.saturating_sub(used).max(30);
    if measure_text_width(text) <= room {
        return text.to_owned();
    }
    truncate_str(text, room, "…").into_owned()
}

fn failures(out: &mut Vec<String>, view: &RunView, found: &Findings, detail: Detail) {
    if found.findings.is_empty() {
        return;
    }
    out.push(String::new());
    out.push(detail.style.paint(Tone::Strong, "failures:"));
    let in_full = if detail.verbose { usize::MAX } else { IN_FULL };
    for (index, finding) in found.findings.iter().enumerate() {
        match finding.follows {
            None if index < in_full => {
                out.push(String::new());
                in_full_lines(out, view, finding, detail);
                followers(out, found, index, detail);
            }
            Some(_) if detail.verbose => {
                out.push(String::new());
                in_full_lines(out, view, finding, detail);
            }
            _ => {}
        }
    }
    let roots = found.roots().count();
    if roots > in_full {
        out.push(String::new());
        let more = plural(roots - in_full, "more failure");
        let text = format!("  … {more}: phalanx show {} --verbose", view.run);
        out.push(detail.style.paint(Tone::Dim, &text));
    }
    if found.left_out > 0 {
        let text = format!(
            "  … {}, too many to tell apart",
            plural(found.left_out, "other failure")
        );
        out.push(String::new());
        out.push(detail.style.paint(Tone::Dim, &text));
    }
}

fn in_full_lines(out: &mut Vec<String>, view: &RunView, finding: &Finding, detail: Detail) {
    let Some(cell) = finding.cell(view) else {
        return;
    };
    let style = detail.style;
    let step = finding.step(view);
    out.push(headline(cell, step, style));
    if view.cells.len() > 1 {
        let which = clean(&sentence::explained(finding)).into_owned();
        out.push(format!("      {}", style.paint(Tone::Strong, &which)));
    }
    if let Some(stopped) = sentence::stopped(finding) {
        out.push(format!("      {}", style.paint(Tone::Warn, &stopped)));
    }
    for Line { tone, text } in step.map(failure).unwrap_or_default() {
        out.push(format!("      {}", style.paint(tone, &text)));
    }
    for line in sentence::nearest(view, finding) {
        out.push(format!("      {}", style.paint(Tone::Dim, &clean(&line))));
    }
    let others = finding.cells(view).filter(|other| other.id != cell.id);
    also_in(out, &others.collect::<Vec<_>>(), detail);
    let hint = format!("again: phalanx rerun {} --cell {}", view.run, cell.id);
    out.push(format!("      {}", style.paint(Tone::Dim, &hint)));
}

/// Names the failures that follow from a root.
fn followers(out: &mut Vec<String>, found: &Findings, root: usize, detail: Detail) {
    let following: Vec<&Finding> = found
        .findings
        .iter()
        .filter(|finding| {
            finding
                .follows
                .is_some_and(|follows| follows.finding == root)
        })
        .collect();
    let named = if detail.verbose {
        following.len()
    } else {
        NAMED
    };
    for finding in following.iter().take(named) {
        let text = clean(&sentence::follower(finding)).into_owned();
        let text = fitted(&text, detail, 6);
        out.push(format!("      {}", detail.style.paint(Tone::Warn, &text)));
    }
    if following.len() > named {
        let text = format!("… ({} more follow)", following.len() - named);
        out.push(format!("      {}", detail.style.paint(Tone::Warn, &text)));
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

fn also_in(out: &mut Vec<String>, others: &[&CellView], detail: Detail) {
    if others.is_empty() {
        return;
    }
    let shown = if detail.verbose { others.len() } else { NAMED };
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
    let shown = match detail.verbose {
        true => view.skips.len(),
        false => NAMED,
    };
    for group in view.skips.iter().take(shown) {
        let text = clean(&group.reason);
        let reason = detail
            .style
            .paint(Tone::Warn, text.lines().next().unwrap_or_default());
        out.push(format!("  {reason} ({})", skip_extent(group, view)));
        if detail.verbose {
            out.extend(skipped_steps(group, view));
        }
    }
    if view.skips.len() > shown {
        let more = plural(view.skips.len() - shown, "more reason");
        out.push(format!("  … ({more}, with --verbose)"));
    }
}

fn skipped_steps(group: &SkipGroup, view: &RunView) -> Vec<String> {
    let line = |(step, cells): (&String, &Vec<String>)| {
        // A cell appears once for each item of a `foreach`, one after the other.
        let mut names = cells.clone();
        names.dedup();
        let in_cells = match names.as_slice() {
            // In a run of one cell, the cell needs no mention.
            [_] if view.cells.len() == 1 => None,
            names => Some(clean(&names.join("; ")).into_owned()),
        };
        let times = (cells.len() > names.len()).then(|| format!("{} times", cells.len()));
        let extent: Vec<String> = in_cells.into_iter().chain(times).collect();
        let step = clean(step);
        match extent.as_slice() {
            [] => format!("      {step}"),
            extent => format!("      {step} ({})", extent.join(", ")),
        }
    };
    group.steps.iter().map(line).collect()
}

fn skip_extent(group: &SkipGroup, view: &RunView) -> String {
    let steps = match group.steps.keys().next() {
        Some(step) if group.steps.len() == 1 => clean(step).into_owned(),
        _ => plural(group.steps.len(), "step"),
    };
    if view.cells.len() == 1 {
        return steps;
    }
    let cells: std::collections::HashSet<&String> = group.steps.values().flatten().collect();
    match cells.iter().next() {
        Some(cell) if cells.len() == 1 => format!("{steps} in {}", clean(cell)),
        _ => format!("{steps} in {}", plural(cells.len(), "cell")),
    }
}

fn summary(out: &mut Vec<String>, view: &RunView, found: &Findings, detail: Detail) {
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
    if let Some(verdict) = sentence::verdict(found)
        && view.cells.len() > 1
    {
        let verdict = clean(&verdict).into_owned();
        out.push(format!("  {}", style.paint(Tone::Strong, &verdict)));
        out.extend(further_causes(found, detail));
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
    for line in snapshots(view) {
        out.push(format!("  snapshot {line}"));
    }
    if let Some(text) = too_many_skips(view) {
        out.push(format!("  {}", style.paint(Tone::Bad, &text)));
    }
    if let Some(text) = artifacts::summary(view) {
        out.push(format!("  {text}"));
    }
    if view.only_skips() {
        let text = "every step was skipped: nothing was tested (phalanx explain PHX0003)";
        out.push(format!("  {}", style.paint(Tone::Bad, text)));
    }
    again(out, view, detail);
    flakes(out, found, detail);
    times(out, view, detail);
    slow(out, found, detail);
    kept(out, view, style);
}

/// Lists what earlier runs verified and this one didn't.
fn unverified(out: &mut Vec<String>, view: &RunView, detail: Detail) {
    if view.unverified.is_empty() {
        return;
    }
    if view.coverage.is_none() {
        out.push(String::new());
    }
    let lines = view.unverified.iter();
    out.extend(lines.map(|text| format!("  {}", detail.style.paint(Tone::Warn, &clean(text)))));
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
    let shown = if detail.verbose { earlier.len() } else { NAMED };
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
    out.push(line);
    if detail.verbose {
        phases(out, view, detail.style);
    }
    let Some(slowest) = timing
        .slowest
        .as_ref()
        .filter(|slowest| detail.verbose && !slowest.critical_path.is_empty())
    else {
        return;
    };
    out.push(format!("  critical path of {}", clean(&slowest.name)));
    let telling = slowest.critical_path.iter().filter(|s| s.is_telling());
    for segment in telling {
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

/// Names each phase with its longest cell. Sums over cells that ran side by side would say nothing.
fn phases(out: &mut Vec<String>, view: &RunView, style: Style) {
    for phase in &view.timing.phases {
        let cell = match view.cells.len() {
            1 => String::new(),
            _ => format!(" ({})", clean(&phase.max_cell)),
        };
        let text = format!(
            "         {} {}{cell}",
            clean(&phase.name),
            duration(phase.max_us)
        );
        out.push(style.paint(Tone::Dim, &text));
    }
}

fn flakes(out: &mut Vec<String>, found: &Findings, detail: Detail) {
    let all = found.flakes.iter().map(sentence::flake);
    listed(out, "flaky", all.collect(), detail);
}

fn slow(out: &mut Vec<String>, found: &Findings, detail: Detail) {
    let all = found.slow.iter().map(sentence::slow);
    listed(out, "slow", all.collect(), detail);
}

/// Shows sentences below a word, bounded.
fn listed(out: &mut Vec<String>, word: &str, sentences: Vec<String>, detail: Detail) {
    let shown = if detail.verbose { sentences.len() } else { 3 };
    for (index, sentence) in sentences.iter().take(shown).enumerate() {
        let word = if index == 0 { word } else { "" };
        let text = format!("  {word:<5}  {}", clean(sentence));
        out.push(detail.style.paint(Tone::Warn, &text));
    }
    if sentences.len() > shown {
        out.push(format!("         … ({} more)", sentences.len() - shown));
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
