//! Where the time went: wall time against the slowest cell, slots over time, the critical path with what each piece of it
//! could save, waits by cause, and the phases.

use super::mark::Links;
use crate::text::{clean, duration, plural, step_title};
use crate::timing::{Segment, SegmentKind, SlotUse, Timing};
use crate::view::{CellView, RunView};
use maud::{Markup, html};
use phalanx_shared::id::CellId;
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;

/// Segments of the critical path that are listed, those that could save most.
const LISTED: usize = 12;

/// Pieces of the critical path's bar; of more, those that are too short to be seen are left out.
const PIECES: usize = 2_000;
/// Phases that are listed, the first ones.
const PHASES: usize = 100;

/// Returns the section with the times of a run.
pub fn section(view: &RunView, links: &Links) -> Markup {
    let timing = &view.timing;
    html! {
        section id="times" aria-labelledby="times-title" {
            h2 id="times-title" { "Time" }
            table class="bars" {
                caption class="sr" { "Wall time, the slowest cell and the use of slots" }
                tr { th scope="row" { "wall" } td class="n" { (duration(timing.wall_us)) } td { (path(timing)) } }
                @if let Some(slowest) = &timing.slowest {
                    tr {
                        th scope="row" { "slowest cell" } td class="n" { (duration(slowest.elapsed_us)) }
                        td { (bar(began(view, &slowest.id), slowest.elapsed_us, timing.wall_us, "wall"))
                            p class="quiet" { a href=(links.cell(&slowest.id)) { (clean(&slowest.name)) } (share(timing)) } }
                    }
                }
                @if timing.slots.peak > 1 {
                    tr { th scope="row" { "slots" } td class="n" { (timing.slots.peak) } td { (slots(&timing.slots, timing.wall_us))
                        p class="quiet" { (format!("{:.1}", timing.slots.mean)) " in use on average; one cell after the other would have taken " (duration(timing.sum_us)) } } }
                }
            }
            (segments(view, links))
            (waits(timing))
            (phases(timing))
        }
    }
}

/// Returns the time from submission to a cell's first start, in microseconds.
fn began(view: &RunView, cell: &CellId) -> u64 {
    let found = view.cells.iter().find(|known| known.id == *cell);
    found.and_then(|cell| cell.waited_us).unwrap_or(0)
}

fn share(timing: &Timing) -> Markup {
    html! {
        @if let Some(efficiency) = timing.efficiency { ", " (format!("{:.0} %", efficiency * 100.0)) " of the wall time" }
    }
}

/// Returns a duration; of something that goes on, with the time since when, so that the script of a live page counts on.
pub fn took(elapsed_us: u64, goes_on_since: Option<Timestamp>) -> Markup {
    html! {
        @match goes_on_since {
            Some(since) => span class="time" data-since=(since.0) { (duration(elapsed_us)) },
            None => (duration(elapsed_us)),
        }
    }
}

/// Returns a bar from `from` to `from + length` of `of`, all in microseconds.
pub fn bar(from: u64, length: u64, of: u64, class: &str) -> Markup {
    html! {
        svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" { (piece(from, length, of, class)) }
    }
}

/// Returns a piece of a bar that is 1000 units wide.
pub fn piece(from: u64, length: u64, of: u64, class: &str) -> Markup {
    // A short piece stays visible, at the end of the bar too.
    let width = thousandths(length, of).max(2.0);
    let x = thousandths(from, of).min(1000.0 - width);
    html! { rect class=(class) x=(x) y="0" width=(width) height="10" {} }
}

fn thousandths(part: u64, of: u64) -> f64 {
    (part.min(of) as f64 / of.max(1) as f64 * 10_000.0).round() / 10.0
}

/// The critical path of the run as a bar: work, and waits in a paler colour.
fn path(timing: &Timing) -> Markup {
    let telling = || {
        timing
            .critical_path
            .iter()
            .filter(|segment| segment.is_telling())
    };
    let least_us = match telling().count() > PIECES {
        true => timing.wall_us / PIECES as u64,
        false => 0,
    };
    let drawn = telling().filter(|segment| segment.elapsed_us >= least_us);
    html! {
        svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            @for (index, segment) in drawn.enumerate() {
                (piece(segment.began_us, segment.elapsed_us, timing.wall_us, class_of(segment, index)))
            }
        }
    }
}

/// Neighbouring steps differ in shade.
fn class_of(segment: &Segment, index: usize) -> &'static str {
    match (segment.kind, index % 2) {
        (SegmentKind::Step, 0) => "even",
        (SegmentKind::Step, _) => "odd",
        _ => "wait",
    }
}

/// The slots that the run held, as an area.
fn slots(slots: &SlotUse, wall_us: u64) -> Markup {
    let height = |used: u32| 20.0 - 20.0 * f64::from(used) / f64::from(slots.peak.max(1));
    let mut outline = String::from("0,20");
    let mut before = 20.0;
    for point in &slots.points {
        let x = thousandths(point.at_us, wall_us);
        let y = (height(point.used) * 10.0).round() / 10.0;
        outline += &format!(" {x},{before} {x},{y}");
        before = y;
    }
    outline += &format!(" 1000,{before} 1000,20");
    html! {
        svg class="bar area" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true" { polygon points=(outline) {} }
    }
}

fn segments(view: &RunView, links: &Links) -> Markup {
    let path = &view.timing.critical_path;
    let names: HashMap<&CellId, &CellView> =
        view.cells.iter().map(|cell| (&cell.id, cell)).collect();
    let mut telling: Vec<&Segment> = path.iter().filter(|segment| segment.is_telling()).collect();
    telling.sort_by_key(|segment| std::cmp::Reverse((segment.potential_us, segment.elapsed_us)));
    let rest = telling.len().saturating_sub(LISTED);
    telling.truncate(LISTED);
    telling.sort_by_key(|segment| segment.began_us);
    html! {
        @if !telling.is_empty() {
            details {
                summary { "Critical path: what must become faster for the run to become faster" }
                div class="scroll" { table class="list" {
                    thead { tr { th scope="col" class="n" { "from" } th scope="col" class="n" { "takes" } th scope="col" class="n" { "could save" } th scope="col" { "what" } th scope="col" { "cell" } } }
                    tbody { @for segment in telling { (row(segment, &names, links)) } }
                } }
                @if rest > 0 { p class="quiet" { (plural(rest, "segment")) " that could save less not listed." } }
            }
        }
    }
}

fn row(segment: &Segment, names: &HashMap<&CellId, &CellView>, links: &Links) -> Markup {
    let cell = segment.cell.as_ref().and_then(|id| names.get(id));
    let what = match &segment.phase {
        Some(phase) => step_title(phase, &segment.what),
        None => clean(&segment.what).into_owned(),
    };
    html! {
        tr {
            td class="n" { (duration(segment.began_us)) }
            td class="n" { (duration(segment.elapsed_us)) }
            td class="n" { (duration(segment.potential_us)) }
            td { @match cell.zip(segment.step.as_ref()) {
                Some((cell, path)) => a href=(links.step(&cell.id, path)) { (what) },
                None => (what),
            } }
            td { @if let Some(cell) = cell { a href=(links.cell(&cell.id)) { (clean(&cell.name)) } } }
        }
    }
}

fn waits(timing: &Timing) -> Markup {
    html! {
        @if !timing.waits.is_empty() {
            details {
                summary { "Waits by cause" }
                table class="list" {
                    thead { tr { th scope="col" { "cause" } th scope="col" class="n" { "cells" } th scope="col" class="n" { "longest" } th scope="col" { "in" } } }
                    tbody { @for wait in &timing.waits { tr {
                        th scope="row" { (wait.cause.as_str().replace('_', " ")) }
                        td class="n" { (wait.cells) }
                        td class="n" { (duration(wait.max_us)) }
                        td { (clean(&wait.max_cell)) }
                    } } }
                }
                p class="quiet" { "Phalanx's own work on the critical path: " (duration(timing.overhead_us)) }
            }
        }
    }
}

fn phases(timing: &Timing) -> Markup {
    html! {
        @if !timing.phases.is_empty() {
            details {
                summary { "Time by phase" }
                table class="list" {
                    thead { tr { th scope="col" { "phase" } th scope="col" class="n" { "cells" } th scope="col" class="n" { "longest" } th scope="col" { "in" } } }
                    tbody { @for phase in timing.phases.iter().take(PHASES) { tr {
                        th scope="row" { (clean(&phase.name)) }
                        td class="n" { (phase.cells) }
                        td class="n" { (duration(phase.max_us)) }
                        td { (clean(&phase.max_cell)) }
                    } } }
                }
                @if timing.phases.len() > PHASES { p class="quiet" { (plural(timing.phases.len() - PHASES, "more phase")) " not listed." } }
            }
        }
    }
}
