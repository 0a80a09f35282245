//! The verdict at the top, the list of cells, skips, and the run's own data at the end.

use super::mark::{Links, Mark, first_line, icon};
use crate::finding::{Findings, sentence};
use crate::text::{clean, duration, plural, too_many_skips};
use crate::view::{CellView, RunView};
use maud::{Markup, html};
use phalanx_shared::outcome::Outcome;

/// If a run has more cells, those that passed are only in the grid.
const LIST_ALL: usize = 100;
/// Maximum number of cells in the list.
const LIST_MOST: usize = 1000;
/// Reasons of skips that are listed, and steps of each.
const SKIPS: usize = 200;
/// Inputs that are listed.
const INPUTS: usize = 200;

/// Returns the head of a run's page: its name, the verdict in a sentence, and the counts.
pub fn header(view: &RunView, findings: &Findings) -> Markup {
    let mark = view.outcome.map_or(Mark::Running, Mark::from);
    html! {
        header class="top" {
            p class="run" {
                strong { (clean(&view.spec)) }
                " run " code title=(view.run) { (short(view.run.as_str())) }
                @if let Some(submitted) = view.submitted { " · " time { (submitted.to_rfc3339()) } }
            }
            h1 class=(format!("verdict {}", mark.class())) { (icon(mark)) span { (verdict(view)) } }
            @if let Some(first) = sentence::verdict(findings) { p class="lead" { (clean(&first)) "." } }
            (counts(view))
        }
    }
}

/// Returns the verdict in a sentence; what to fix first is another one.
pub fn verdict(view: &RunView) -> String {
    let counts = &view.cells_by_outcome;
    let total = counts.total;
    let wall = duration(view.timing.wall_us);
    if let Some(reason) = &view.cancelled {
        return format!(
            "Cancelled after {wall}: {}.",
            first_line(reason).trim_end_matches('.')
        );
    }
    let bad = counts.failed + counts.errored;
    if view.outcome.is_none() {
        let (over, all) = (total - counts.unfinished, plural(total, "cell"));
        return match bad {
            0 => format!("Running: {over} of {all} finished."),
            bad => format!("Running: {over} of {all} finished, {bad} of them failed or errored."),
        };
    }
    if view.only_skips() {
        return "Every step was skipped: nothing was tested.".to_owned();
    }
    if let Some(why) = too_many_skips(view) {
        return format!("{why}.");
    }
    if bad == 0 {
        let flaky = match counts.flaky {
            0 => String::new(),
            flaky => format!(", {flaky} of them only after another try"),
        };
        let skipped = match counts.skipped {
            0 => String::new(),
            skipped => format!("; {skipped} skipped"),
        };
        let passed = counts.passed + counts.flaky;
        return format!(
            "{passed} of {} passed in {wall}{flaky}{skipped}.",
            plural(total, "cell")
        );
    }
    let words = match (counts.failed, counts.errored) {
        (failed, 0) => format!("{failed} of {} failed", plural(total, "cell")),
        (0, errored) => format!("{errored} of {} errored", plural(total, "cell")),
        (failed, errored) => format!(
            "{failed} of {} failed, {errored} errored",
            plural(total, "cell")
        ),
    };
    format!("{words}.")
}

/// Returns the counts of cells by outcome; the script makes filters of them.
pub fn counts(view: &RunView) -> Markup {
    let counts = &view.cells_by_outcome;
    let shown = [
        (Mark::Failed, counts.failed),
        (Mark::Errored, counts.errored),
        (Mark::Flaky, counts.flaky),
        (Mark::Passed, counts.passed),
        (Mark::Skipped, counts.skipped),
        (Mark::Cancelled, counts.cancelled),
    ];
    html! {
        div class="counts" role="group" aria-label="Cells by outcome" {
            @for (mark, count) in shown.into_iter().filter(|(_, count)| *count > 0) {
                button type="button" class="chip" data-show=(mark.class()) aria-pressed="false" {
                    (icon(mark)) b { (count) } " " (mark.word())
                }
            }
            @if counts.unfinished > 0 { span class="chip" { b { (counts.unfinished) } " unfinished" } }
            input class="js" hidden type="search" id="filter" placeholder="filter cells" aria-label="Filter cells by name" autocomplete="off" spellcheck="false";
        }
    }
}

/// Returns the list of cells: all of a small run, of a large one those that didn't pass.
pub fn cells(view: &RunView, links: &Links) -> Markup {
    let all = view.cells.len() <= LIST_ALL;
    let isnt_green = |outcome| outcome != Outcome::Passed;
    let wanted = |cell: &&CellView| all || cell.outcome.is_some_and(isnt_green);
    let listed: Vec<&CellView> = view.cells.iter().filter(wanted).collect();
    let more = listed.len().saturating_sub(LIST_MOST);
    html! {
        section id="cells" aria-labelledby="cells-title" {
            h2 id="cells-title" { @if all { "All cells" } @else { "Cells that didn't pass" } }
            @if listed.is_empty() { p class="quiet" { "None." } } @else {
                div class="scroll" { table class="list" {
                    thead { tr { th scope="col" { "cell" } th scope="col" { "outcome" } th scope="col" class="n" { "time" } th scope="col" { "reason" } } }
                    tbody { @for cell in listed.iter().take(LIST_MOST) { (row(cell, links)) } }
                } }
                @if more > 0 { p class="quiet" { (plural(more, "more cell")) " in the grid." } }
            }
        }
    }
}

fn row(cell: &CellView, links: &Links) -> Markup {
    let mark = Mark::of_cell(cell);
    html! {
        tr data-o=(mark.class()) {
            th scope="row" { a href=(links.cell(&cell.id)) { (clean(&cell.name)) } @if cell.experimental { " " span class="tag" { "experimental" } } }
            td { (icon(mark)) " " (mark.word()) @if cell.attempts.len() > 1 { span class="quiet" { ", " (plural(cell.attempts.len(), "attempt")) } } }
            td class="n" { @if let Some(elapsed) = cell.elapsed_us { (duration(elapsed)) } }
            td { @if let Some(reason) = &cell.reason { (first_line(reason)) } }
        }
    }
}

/// Returns the skipped steps by reason.
pub fn skips(view: &RunView) -> Markup {
    html! {
        @if !view.skips.is_empty() {
            section id="skips" aria-labelledby="skips-title" {
                h2 id="skips-title" { "Skipped steps" }
                @for group in view.skips.iter().take(SKIPS) {
                    details {
                        summary { (first_line(&group.reason)) span class="quiet" { " " (plural(group.count(), "skip")) } }
                        ul { @for (step, cells) in group.steps.iter().take(SKIPS) {
                            li { (clean(step)) span class="quiet" { " in " (plural(cells.len(), "cell")) } }
                        } }
                        @if group.steps.len() > SKIPS { p class="quiet" { (plural(group.steps.len() - SKIPS, "more step")) " not listed." } }
                    }
                }
                @if view.skips.len() > SKIPS { p class="quiet" { (plural(view.skips.len() - SKIPS, "more reason")) " not listed." } }
            }
        }
    }
}

/// Returns what identifies the run.
pub fn footer(view: &RunView) -> Markup {
    html! {
        footer {
            dl class="facts" {
                dt { "run" } dd { code { (view.run) } }
                @if let Some(trace) = &view.trace { dt { "trace" } dd { code { (clean(trace)) } } }
                @if !view.path.is_empty() { dt { "spec" } dd { code { (clean(&view.path)) } } }
                dt { "plan" } dd { code { (view.digest.get(..12).unwrap_or(&view.digest)) } }
                @for (name, value) in view.inputs.iter().take(INPUTS) {
                    dt { "input " (clean(name)) } dd { code { (first_line(&value.to_string())) } }
                }
                @if view.inputs.len() > INPUTS { dt { "inputs" } dd { (view.inputs.len() - INPUTS) " more" } }
                dt { "steps" } dd { (view.steps_by_outcome.total) }
            }
        }
    }
}

fn short(run: &str) -> &str {
    run.rsplit('-').next().unwrap_or(run)
}
