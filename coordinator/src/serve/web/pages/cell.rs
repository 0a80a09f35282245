//! A cell: its attempts with steps and services. Each step is a region, so that a long attempt doesn't travel again with
//! every step.

use super::super::board::{Region, slot};
use super::super::fold::Folded;
use super::super::guard::Actions;
use super::super::waits::Waits;
use super::frame::element_id;
use maud::{Markup, html};
use phalanx_report::html::cell::{self as detail, Content};
use phalanx_report::html::mark::lines;
use phalanx_report::text::clean;
use phalanx_report::view::{AttemptView, CellView};
use phalanx_shared::event::Artifact;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::run_state::CellStatus;
use phalanx_shared::time::Timestamp;

/// The logs that a page shows.
pub struct Logs {
    /// Address of earlier records.
    pub address: String,
    /// Only records until this event.
    pub at: Option<u64>,
    /// Only this attempt.
    pub attempt: Option<u32>,
}

/// Returns the title of a cell's page.
pub fn title(folded: &Folded, id: &CellId) -> String {
    let planned = folded.state.planned(id);
    planned.map_or_else(|| id.to_string(), |cell| cell.name.clone())
}

/// Puts the regions in their place, with buttons and logs.
pub fn body(
    folded: &Folded,
    id: &CellId,
    inner: Markup,
    logs: &Logs,
    actions: Option<Actions>,
) -> Markup {
    html! {
        @if actions.is_some_and(|actions| actions.rerun) {
            div #actions {
                form.action.js hidden method="post" action={ "/runs/" (folded.state.run) "/rerun" } {
                    input type="hidden" name="cell" value=(id);
                    button type="submit" { "Run this cell again" }
                }
            }
        }
        (inner)
        (log(folded, id, logs))
    }
}

/// The frame of the logs; the script fills it.
fn log(folded: &Folded, id: &CellId, logs: &Logs) -> Markup {
    let newest = folded.state.cells.get(id).and_then(|cell| cell.newest());
    let attempt = logs.attempt.or(newest.map(|attempt| attempt.attempt));
    html! {
        section #log aria-labelledby="log-title" data-log=(logs.address) data-at=[logs.at] data-attempt=[attempt] {
            div.head {
                h2 #log-title { "Log" }
                form #log-search role="search" {
                    label { span.sr { "Search in the log" } input #log-query type="search" name="q" placeholder="Search" autocomplete="off" spellcheck="false"; }
                    button type="submit" title="Next hit (Enter)" { "Next" }
                    output #log-hits aria-live="polite" {}
                }
                label { "service " select #log-service { option value="" { "all" } } }
                label { input #log-follow type="checkbox" checked; " follow" }
                button #log-earlier type="button" hidden { "Load earlier lines" }
            }
            div #log-view tabindex="0" role="log" aria-live="off" aria-label="Log lines" { div #log-space { ol #log-lines {} } }
            noscript { p.quiet { "Logs need JavaScript here: " code { "phalanx logs " (folded.state.run) " " (id) } " prints them." } }
        }
    }
}

/// Returns the regions of a cell's page; none if it had no news after an event.
pub fn regions(folded: &Folded, id: &CellId, since: Option<u64>) -> Vec<Region> {
    let touched = folded.touched.get(id).copied().unwrap_or(0);
    if since.is_some_and(|since| touched <= since) {
        return Vec::new();
    }
    let Some(cell) = CellView::of(&folded.state, id, folded.at) else {
        return Vec::new();
    };
    let top = html! { div #cell-top { (detail::header(&cell)) } };
    let mut regions = vec![
        Region::part("cell-top", "page", top),
        Region::frame("live", "page", html! { div #live {} }),
        Region::frame(
            "attempts",
            "page",
            html! { div #attempts { (slot("attempts")) } },
        ),
    ];
    for attempt in &cell.attempts {
        attempt_regions(&folded.state.run, &cell, attempt, &mut regions);
    }
    regions
}

fn attempt_regions(run: &RunId, cell: &CellView, attempt: &AttemptView, regions: &mut Vec<Region>) {
    let id = |part: &str| format!("a{}-{part}", attempt.attempt);
    let (whole, top, steps, more) = (id("whole"), id("top"), id("steps"), id("more"));
    let frame = html! {
        section.attempt #(whole) data-attempt=(attempt.attempt) {
            div #(top) { (slot(&top)) }
            div.steps #(steps) { (slot(&steps)) }
            div #(more) { (slot(&more)) }
        }
    };
    regions.push(Region::frame(whole, "attempts", frame));
    let head = id("head");
    let html = html! {
        div.attempt-head #(head) {
            (detail::attempt_title(attempt))
            @if cell.attempts.len() > 1 {
                " " a href={ "?attempt=" (attempt.attempt) "#log" } { "its log" }
            }
            @if let Some(reason) = attempt.reason.as_ref().filter(|_| attempt.reason != cell.reason) {
                pre.reason { (lines(reason)) }
            }
        }
    };
    regions.push(Region::part(head, top, html));
    let (start, length) = scale(attempt);
    for service in &attempt.services {
        let row = element_id(&id("v"), &service.name);
        let html = html! { div.unit #(row) { (detail::service_row(service, start, length)) } };
        regions.push(Region::part(row, steps.clone(), html));
    }
    for step in &attempt.steps {
        let row = element_id(&id("s"), &step.path);
        let html = html! { div.unit #(row) { (detail::step_row(step, start, length)) } };
        regions.push(Region::part(row, steps.clone(), html));
    }
    let files = id("files");
    let address = |artifact: &Artifact| {
        let address = format!(
            "/runs/{run}/cells/{}/artifacts/{}/{}",
            cell.id, attempt.attempt, artifact.id
        );
        // The content follows the fact, and the verdict follows the content.
        match attempt.finished.is_some() && !attempt.lost {
            true => Content::At(address),
            false => Content::Maybe(address),
        }
    };
    let html = html! { div #(files) { (detail::artifacts(attempt, &address)) } };
    regions.push(Region::part(files, more.clone(), html));
    let rest = id("rest");
    let html = html! { div #(rest) { (detail::attempt_rest(attempt)) } };
    regions.push(Region::part(rest, more, html));
}

/// Returns the time at which the waterfall of an attempt begins, and its length in microseconds. While the attempt runs
/// the length grows by doubling, so that not every row changes with every event.
fn scale(attempt: &AttemptView) -> (Timestamp, u64) {
    let start = attempt.started.unwrap_or(attempt.offered);
    let ends = attempt.steps.iter().map(|step| {
        let began = u64::try_from(step.began.since(start).as_micros()).unwrap_or(u64::MAX);
        began.saturating_add(step.elapsed_us)
    });
    let length = ends.max().unwrap_or(0).max(attempt.elapsed_us.unwrap_or(0));
    match attempt.finished {
        Some(_) => (start, length),
        None => (start, length.max(8_000_000).next_power_of_two()),
    }
}

/// Returns the regions that the journal doesn't tell: why the cell waits.
pub fn passing(folded: &Folded, id: &CellId, waits: &Waits) -> Vec<Region> {
    let cell = folded.state.cells.get(id);
    let queued = cell.is_some_and(|cell| cell.status == CellStatus::Queued);
    let mine = |cells: &Vec<String>| cells.iter().any(|cell| cell == id.as_str());
    let group = waits.groups.iter().find(|group| mine(&group.cells));
    let reasons = group
        .filter(|_| queued)
        .map(|group| group.reasons.as_slice());
    vec![Region::part("waits", "live", waiting(reasons))]
}

fn waiting(reasons: Option<&[String]>) -> Markup {
    html! {
        section #waits {
            @if let Some(reasons) = reasons {
                h2 { "Why it waits" }
                ul { @for reason in reasons { li { (clean(reason)) } } }
            }
        }
    }
}
