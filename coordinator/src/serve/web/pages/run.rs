//! A run: its verdict, the grid of cells, why cells wait, findings, times and coverage.

use super::super::board::Region;
use super::super::fold::Folded;
use super::super::guard::Actions;
use super::super::waits::{Group, Waits};
use super::frame::elapsed;
use maud::{Markup, html};
use phalanx_report::finding;
use phalanx_report::html::mark::Links;
use phalanx_report::html::{coverage, findings, grid, summary, times};
use phalanx_report::text::{clean, plural};
use phalanx_report::view::{CellView, RunView};
use phalanx_shared::id::CellId;

/// Waiting cells that are named per reason.
const NAMED: usize = 12;

/// Returns the prefix of the addresses of a run's cells.
pub fn links(folded: &Folded) -> Links {
    Links::of_pages(format!("/runs/{}/cells/", folded.state.run))
}

/// Returns the title of a run's page.
pub fn title(folded: &Folded) -> String {
    let plan = folded.state.plan.as_ref();
    plan.map_or_else(String::new, |plan| plan.spec.clone())
}

/// Returns the regions that may have changed after an event; all of them without one. The marks of the grid are part of
/// its frame when the page is made, and regions of their own afterwards.
pub fn regions(folded: &Folded, actions: Actions, since: Option<u64>) -> Vec<Region> {
    let links = links(folded);
    let judged = since.is_none_or(|since| folded.judged > since);
    let mut regions = match judged {
        true => judged_regions(folded, actions, &links, since.is_none()),
        false => Vec::new(),
    };
    for (number, id) in folded.state.cells.keys().enumerate() {
        let touched = folded.touched.get(id).copied().unwrap_or(0);
        if since.is_none_or(|since| touched > since)
            && let Some(cell) = CellView::of(&folded.state, id, folded.at)
        {
            regions.push(mark(&cell, &links, number));
        }
    }
    regions
}

fn mark(cell: &CellView, links: &Links, number: usize) -> Region {
    let mark = grid::cell_mark(cell, links, number, "");
    Region::part(grid::mark_id(&cell.id), "", mark)
}

/// Returns the regions that only change with a result.
fn judged_regions(folded: &Folded, actions: Actions, links: &Links, all: bool) -> Vec<Region> {
    let view = RunView::of(&folded.state, folded.at, None);
    let found = finding::findings(&view, None);
    let part = |id: &str, html: Markup| Region::part(id, "page", html);
    let mut regions = vec![
        part("state", state(&view, actions)),
        part(
            "top",
            html! { div #top { (summary::header(&view, &found)) } },
        ),
        Region::frame("live", "page", html! { div #live {} }),
    ];
    if all {
        let grid = html! { div #map { div.first { (grid::section(&view.cells, &[], links)) div #aside { (super::super::board::slot("aside")) } } } };
        regions.push(Region::frame("map", "page", grid));
    }
    let causes = findings::section(&view, &found, links);
    regions.push(Region::part("findings", "aside", causes));
    regions.push(part("times", times::section(&view, links)));
    if let Some(table) = &view.coverage {
        regions.push(part("coverage", coverage::section(table, &view.unverified)));
    }
    regions.push(part("cells", summary::cells(&view, links)));
    let skips = html! { div #skipped { (summary::skips(&view)) } };
    regions.push(part("skipped", skips));
    regions
}

/// How long the run takes, and the buttons that fit its state. The page's script adds the token to the buttons, so that
/// one rendering serves every page, and shows them.
fn state(view: &RunView, actions: Actions) -> Markup {
    let open = view.outcome.is_none();
    let again = view.outcome.is_some_and(|outcome| !outcome.is_ok());
    html! {
        div #state data-open[open] {
            span.quiet {
                @if open { "running for " } @else { "took " }
                (elapsed(view.submitted, view.finished))
            }
            a.button href={ "/runs/" (view.run) "/timing" } { "Timing" }
            a.button href={ "/compare?after=" (view.run) } title="Compare with the run before" { "Compare" }
            @if actions.cancel && open && view.cancelled.is_none() {
                form.action.js hidden method="post" action={ "/runs/" (view.run) "/cancel" } {
                    button #cancel.danger type="submit" { "Cancel the run" }
                }
            }
            @if actions.rerun && again {
                form.action.js hidden method="post" action={ "/runs/" (view.run) "/rerun" } {
                    button type="submit" { "Run failed cells again" }
                }
            }
        }
    }
}

/// Returns the regions that the journal doesn't tell: the expected finish, why cells wait, and the coordinator's problems.
/// They are empty once the run is finished.
pub fn passing(folded: &Folded, waits: &Waits) -> Vec<Region> {
    let none = Waits::default();
    let waits = match folded.state.is_finished() {
        true => &none,
        false => waits,
    };
    let expected = html! { p #expected { @if let Some(text) = &waits.expected { (text) } } };
    vec![
        Region::part("expected", "live", expected),
        Region::part("waits", "live", waiting(folded, waits)),
    ]
}

fn waiting(folded: &Folded, waits: &Waits) -> Markup {
    html! {
        section #waits {
            @for problem in &waits.problems { p.bad role="alert" { (clean(problem)) } }
            @if !waits.groups.is_empty() {
                h2 { "Waiting" }
                ul { @for group in &waits.groups { li { (group_of(folded, group)) } } }
            }
        }
    }
}

fn group_of(folded: &Folded, group: &Group) -> Markup {
    let links = links(folded);
    let named = group.cells.iter().take(NAMED).map(|id| {
        let id = CellId::from(id.as_str());
        let name = folded.state.planned(&id).map(|cell| cell.name.clone());
        (links.cell(&id), name.unwrap_or_else(|| id.to_string()))
    });
    let more = group.count.saturating_sub(NAMED.min(group.cells.len()));
    html! {
        strong { (plural(group.count, "cell")) } ": " (clean(&group.reasons.join("; ")))
        details {
            summary { "which" }
            @for (index, (link, name)) in named.enumerate() {
                @if index > 0 { ", " }
                a href=(link) { (clean(&name)) }
            }
            @if more > 0 { " and " (more) " more" }
        }
    }
}
