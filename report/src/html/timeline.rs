//! The times of a run in full: the critical path with what each piece could save, waits by cause, the use of slots, and
//! the attempts by agent and slot.

use super::mark::{Links, Mark, icon};
use super::times::piece;
use crate::text::{clean, duration, plural, step_title};
use crate::timing::{Lane, LaneBar, Segment, SlotUse, Timing};
use maud::{Markup, html};
use phalanx_shared::id::CellId;
use phalanx_shared::wait::WaitCause;

/// Segments that are listed; the shortest are left out.
const SEGMENTS: usize = 200;
/// Segments that take less than this part of the wall time are left out, and so are savings.
const SHORT: u64 = 500;
/// Lanes that are drawn.
const LANES: usize = 512;
/// Bars that are drawn in all lanes together.
const BARS: usize = 20_000;
/// Height of the chart of slots, in units of its view box.
const HIGH: u32 = 100;

/// Returns the figures of a run in a line each.
pub fn figures(timing: &Timing) -> Markup {
    html! {
        section id="figures" aria-labelledby="figures-title" {
            h2 id="figures-title" { "Time" }
            dl class="facts" {
                dt { "wall" } dd { (duration(timing.wall_us)) }
                @if let Some(slowest) = &timing.slowest { dt { "slowest cell" } dd { (duration(slowest.elapsed_us)) " " (clean(&slowest.name)) } }
                @if let Some(efficiency) = timing.efficiency { dt { "efficiency" } dd { (format!("{:.0} %", efficiency * 100.0)) } }
                dt { "overhead of Phalanx" } dd { (duration(timing.overhead_us)) }
                dt { "sum of all cells" } dd { (duration(timing.sum_us)) }
            }
        }
    }
}

/// Returns the critical path as a bar and a table. `name` returns the name of a cell.
pub fn critical_path(timing: &Timing, links: &Links, name: impl Fn(&CellId) -> String) -> Markup {
    let path = &timing.critical_path;
    let least_us = timing.wall_us / SHORT;
    let long = |segment: &&Segment| segment.elapsed_us >= least_us;
    let mut listed: Vec<&Segment> = path.iter().filter(long).collect();
    listed.sort_by_key(|segment| std::cmp::Reverse(segment.elapsed_us));
    listed.truncate(SEGMENTS);
    listed.sort_by_key(|segment| segment.began_us);
    let rest = path.len() - listed.len();
    html! {
        section id="critical-path" aria-labelledby="path-title" {
            h2 id="path-title" { "Critical path" }
            @if path.is_empty() { p class="quiet" { "Nothing has started yet." } } @else {
                svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                    @for (index, segment) in path.iter().enumerate() {
                        @let class = match (segment.wait, index % 2) { (Some(_), _) => "wait", (None, 0) => "even", (None, _) => "odd" };
                        (piece(segment.began_us, segment.elapsed_us, timing.wall_us, class))
                    }
                }
                div class="scroll" { table class="list" {
                    thead { tr {
                        th scope="col" class="n" { "from" } th scope="col" class="n" { "takes" }
                        th scope="col" class="n" title="Time the run would save if this took none" { "could save" }
                        th scope="col" { "what" } th scope="col" { "cell" }
                    } }
                    tbody { @for segment in listed { (row(segment, least_us, links, &name)) } }
                } }
                @if rest > 0 { p class="quiet" { (plural(rest, "shorter segment")) " not listed." } }
            }
        }
    }
}

fn row(
    segment: &Segment,
    least_us: u64,
    links: &Links,
    name: &dyn Fn(&CellId) -> String,
) -> Markup {
    let what = match &segment.phase {
        Some(phase) => step_title(phase, &segment.what),
        None => clean(&segment.what).into_owned(),
    };
    html! {
        tr {
            td class="n" { (duration(segment.began_us)) }
            td class="n" { (duration(segment.elapsed_us)) }
            td class="n" { @if segment.potential_us > least_us { (duration(segment.potential_us)) } }
            td {
                (what)
                @if let Some(cause) = segment.wait { " " span class="tag" { (words(cause)) } }
            }
            td { @if let Some(cell) = &segment.cell {
                @match &segment.step { Some(step) => a href=(links.step(cell, step)) { (clean(&name(cell))) }, None => a href=(links.cell(cell)) { (clean(&name(cell))) } }
            } }
        }
    }
}

fn words(cause: WaitCause) -> String {
    format!("waits: {}", cause.as_str().replace('_', " "))
}

/// Returns the waits by cause.
pub fn waits(timing: &Timing) -> Markup {
    html! {
        section id="waited" aria-labelledby="waited-title" {
            h2 id="waited-title" { "Waits" }
            @if timing.waits.is_empty() { p class="quiet" { "Nothing waited." } } @else {
                table class="list" {
                    thead { tr {
                        th scope="col" { "cause" } th scope="col" class="n" { "cells" } th scope="col" class="n" { "longest" }
                        th scope="col" { "in" } th scope="col" class="n" { "sum" }
                    } }
                    tbody { @for wait in &timing.waits { tr {
                        th scope="row" { (wait.cause.as_str().replace('_', " ")) }
                        td class="n" { (wait.cells) }
                        td class="n" { (duration(wait.max_us)) }
                        td { (clean(&wait.max_cell)) }
                        td class="n" { (duration(wait.sum_us)) }
                    } } }
                }
            }
        }
    }
}

/// Returns the use of slots over time as a chart with a description.
pub fn slots(slots: &SlotUse, wall_us: u64) -> Markup {
    let most = slots
        .points
        .iter()
        .map(|point| point.used.max(point.queued))
        .max();
    let most = most.unwrap_or(0).max(1);
    html! {
        section id="slots" aria-labelledby="slots-title" {
            h2 id="slots-title" { "Slots" }
            p {
                "at most " (slots.peak) ", on average " (format!("{:.1}", slots.mean))
                span class="quiet" { " · " span class="key used" {} " held " span class="key queued" {} " cells that wait" }
            }
            svg class="chart" viewBox=(format!("0 0 1000 {HIGH}")) preserveAspectRatio="none" aria-hidden="true" {
                path class="used" d=(steps(slots, wall_us, most, |point| point.used)) {}
                path class="queued" d=(steps(slots, wall_us, most, |point| point.queued)) {}
            }
        }
    }
}

/// Returns a step chart as the path of an SVG.
fn steps(
    slots: &SlotUse,
    wall_us: u64,
    most: u32,
    of: impl Fn(&crate::timing::SlotPoint) -> u32,
) -> String {
    let x = |at: u64| at.min(wall_us) as f64 / wall_us.max(1) as f64 * 1000.0;
    let y = |value: u32| f64::from(HIGH) * (1.0 - f64::from(value) / f64::from(most));
    let mut path = format!("M0 {HIGH}");
    for point in &slots.points {
        path += &format!("H{:.1}V{:.1}", x(point.at_us), y(of(point)));
    }
    path + &format!("H1000V{HIGH}Z")
}

/// Returns the attempts by agent and slot, each a bar that leads to its cell.
pub fn lanes(lanes: &[Lane], wall_us: u64, links: &Links) -> Markup {
    let mut left = BARS;
    let drawn = lanes.iter().take(LANES).map(|lane| {
        let bars = lane.bars.iter().take(left);
        let bars: Vec<&LaneBar> = bars.collect();
        left -= bars.len();
        (lane, bars)
    });
    let drawn: Vec<(&Lane, Vec<&LaneBar>)> = drawn.collect();
    html! {
        section id="lanes" aria-labelledby="lanes-title" {
            h2 id="lanes-title" { "Agents" }
            table class="lanes" {
                caption class="sr" { "Attempts by agent and slot over time" }
                @for (lane, bars) in &drawn {
                    tr {
                        th scope="row" { (clean(&lane.agent)) " " span class="quiet" { (lane.slot) } }
                        td { svg class="lane" viewBox="0 0 1000 10" preserveAspectRatio="none" role="group" aria-label=(plural(lane.bars.len(), "attempt")) {
                            @for bar in bars { (lane_bar(bar, wall_us, links)) }
                        } }
                    }
                }
            }
            @if lanes.len() > LANES { p class="quiet" { (plural(lanes.len() - LANES, "more slot")) } }
        }
    }
}

fn lane_bar(bar: &LaneBar, wall_us: u64, links: &Links) -> Markup {
    let mark = bar.outcome.map_or(Mark::Running, Mark::from);
    let title = format!(
        "{}, attempt {}: {}, {}",
        clean(&bar.name),
        bar.attempt,
        mark.word(),
        duration(bar.steps_us)
    );
    html! {
        a href=(links.cell(&bar.cell)) aria-label=(title) {
            title { (title) }
            (piece(bar.began_us, bar.elapsed_us, wall_us, "rest"))
            (piece(bar.began_us, bar.steps_us, wall_us, mark.class()))
        }
    }
}

/// Returns what the colours of lanes mean.
pub fn legend() -> Markup {
    html! {
        p class="hint" {
            @for mark in [Mark::Passed, Mark::Failed, Mark::Errored, Mark::Running] { (icon(mark)) " " (mark.word()) " " }
            "· the pale end of a bar is clean-up"
        }
    }
}
