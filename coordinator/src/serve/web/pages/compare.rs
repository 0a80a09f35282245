//! Two runs compared, and the choice of the two. The lists are those of `phalanx compare`, as tables with links.

use super::frame::moment;
use super::runs::short;
use maud::{Markup, html};
use phalanx_report::compare::{
    Change, ChangeKind, Comparison, Gone, Head, NewFailure, NoLonger, OnPath, PathChange,
    TimeChange, Times, text,
};
use phalanx_report::html::mark::{Links, Mark, icon};
use phalanx_report::text::{clean, duration, plural};
use phalanx_report::view::RunView;
use phalanx_shared::id::CellId;
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;

/// Rows of a table.
const ROWS: usize = 100;
/// Cells that a row names.
const CELLS: usize = 12;

/// A run to choose.
pub struct Choice {
    /// Id of the run.
    pub run: String,
    /// Name of its spec.
    pub spec: String,
    /// Time of its submission.
    pub submitted: Timestamp,
}

/// Two runs compared, and where their cells are.
pub struct Compared {
    /// What changed.
    pub comparison: Comparison,
    /// Cells of the earlier run.
    pub before: Cells,
    /// Cells of the later run.
    pub after: Cells,
}

/// The cells of a run by name.
pub struct Cells {
    links: Links,
    ids: HashMap<String, CellId>,
}

impl Cells {
    /// Returns the cells of a run.
    pub fn of(view: &RunView) -> Cells {
        let cells = view.cells.iter();
        Cells {
            links: Links::of_pages(format!("/runs/{}/cells/", view.run)),
            ids: cells
                .map(|cell| (cell.name.clone(), cell.id.clone()))
                .collect(),
        }
    }

    fn named(&self, names: &[String]) -> Markup {
        html! {
            @for (index, name) in names.iter().take(CELLS).enumerate() {
                @if index > 0 { ", " }
                @match self.ids.get(name) {
                    Some(id) => { a href=(self.links.cell(id)) { (clean(name)) } }
                    None => { (clean(name)) }
                }
            }
            @if names.len() > CELLS { span.quiet { " and " (names.len() - CELLS) " more" } }
        }
    }
}

/// Returns the form, with the two runs that are chosen, and their comparison.
pub fn page(
    choices: &[Choice],
    before: Option<&str>,
    after: Option<&str>,
    compared: Option<&Compared>,
) -> Markup {
    html! {
        section #compare {
            h1 { "Compare" }
            form.choose method="get" action="/compare" {
                (select("before", "before", choices, before))
                (select("after", "after", choices, after))
                button type="submit" { "Compare" }
            }
        }
        @if choices.is_empty() { p.quiet { "There is no run yet." } }
        @if after.is_some() && before.is_none() {
            p.quiet { "No run of the same spec finished before this one: choose the run to compare with." }
        }
        @if let Some(compared) = compared { (changed(compared)) }
    }
}

fn select(name: &str, title: &str, choices: &[Choice], chosen: Option<&str>) -> Markup {
    html! {
        label { (title) " "
            select name=(name) {
                @for choice in choices {
                    option value=(choice.run) selected[chosen == Some(choice.run.as_str())] {
                        (clean(&choice.spec)) " " (short(&choice.run)) ", " (choice.submitted.to_rfc3339())
                    }
                }
            }
        }
    }
}

fn changed(compared: &Compared) -> Markup {
    let Compared {
        comparison,
        before,
        after,
    } = compared;
    let whole = comparison.regression().map_or(Mark::Passed, Mark::from);
    let only = [
        (
            "only in the earlier run",
            &comparison.cells.only_before,
            before,
        ),
        ("only in the later run", &comparison.cells.only_after, after),
    ];
    let only: Vec<_> = only
        .into_iter()
        .filter(|(_, cells, _)| !cells.is_empty())
        .collect();
    html! {
        section #comparison aria-labelledby="comparison-title" {
            h2 #comparison-title { "What changed" }
            p.verdict { (icon(whole)) strong { (text::verdict(comparison)) } }
            table.list {
                thead { tr {
                    th scope="col" { "run" } th scope="col" { "spec" } th scope="col" { "outcome" }
                    th scope="col" .n { "ok" } th scope="col" { "submitted" }
                } }
                tbody { (head("before", &comparison.before)) (head("after", &comparison.after)) }
            }
        }
        (table("new", "New failures", &["outcome", "what", "cells"], &comparison.new, |one| failure(one, after)))
        (table("no-longer", "No longer run", &["step", "why", "cells"], &comparison.no_longer, no_longer))
        (table("changes", "Inputs, images, spec and agents", &["of", "what", "before", "after"], &comparison.changes, change))
        (times(&comparison.times))
        (table("path", "Critical path of the slowest cell", &["change", "what", "before", "after"], &comparison.critical_path, path_change))
        (table("fixed", "Fixed", &["what", "cells"], &comparison.gone, |one| gone(one, after)))
        (table("cells", "Cells", &["where", "cells"], &only, |(place, names, cells)| html! {
            th scope="row" { (place) } td { (cells.named(names)) }
        }))
    }
}

fn head(which: &str, head: &Head) -> Markup {
    html! {
        tr {
            th scope="row" { (which) " " a href={ "/runs/" (head.run) } title=(head.run) { (short(head.run.as_str())) } }
            td { (clean(&head.spec)) }
            td {
                @match head.outcome {
                    Some(outcome) => { (icon(outcome.into())) " " (outcome.as_str()) }
                    None => { (icon(Mark::Running)) " unfinished" }
                }
                @if let Some(reason) = &head.reason { p.quiet { (clean(reason)) } }
            }
            td.n { (head.ok) " of " (head.cells) }
            td { @if let Some(at) = head.submitted { (moment(at)) } }
        }
    }
}

/// Returns a section with a table; nothing without rows. `row` returns the cells of a row, the first of which is its
/// header.
fn table<T>(
    id: &str,
    title: &str,
    columns: &[&str],
    rows: &[T],
    row: impl Fn(&T) -> Markup,
) -> Markup {
    let title_id = format!("{id}-title");
    html! {
        @if !rows.is_empty() {
            section id=(id) aria-labelledby=(title_id) {
                h2 id=(title_id) { (title) }
                div.scroll tabindex="0" role="region" aria-labelledby=(title_id) { table.list {
                    thead { tr { @for column in columns { th scope="col" { (column) } } } }
                    tbody { @for one in rows.iter().take(ROWS) { tr { (row(one)) } } }
                } }
                @if rows.len() > ROWS {
                    p.quiet { (rows.len() - ROWS) " more: " code { "phalanx compare --format json" } " has all of them" }
                }
            }
        }
    }
}

fn failure(one: &NewFailure, cells: &Cells) -> Markup {
    let reason = one.reason.lines().next().unwrap_or_default();
    html! {
        th scope="row" { (icon(one.outcome.into())) " " (one.outcome.as_str()) }
        td {
            strong { (clean(&one.cause)) }
            @if one.follows { span.quiet { " (follows from another)" } }
            p.reason { (clean(reason)) }
            p.quiet { (clean(&one.explained)) }
        }
        td {
            (plural(one.cells.len(), "cell"))
            @if one.new_cells > 0 { ", " (one.new_cells) " of them not in the earlier run" }
            ": " (cells.named(&one.cells))
        }
    }
}

fn no_longer(one: &NoLonger) -> Markup {
    html! {
        th scope="row" { (clean(&one.step)) }
        td { (clean(&one.reason)) }
        td { (plural(one.cells, "cell")) }
    }
}

fn gone(one: &Gone, cells: &Cells) -> Markup {
    html! {
        th scope="row" { (icon(Mark::Passed)) " " (clean(&one.cause)) }
        td { (cells.named(&one.cells)) }
    }
}

fn change(one: &Change) -> Markup {
    let kind = match one.kind {
        ChangeKind::Input => "input",
        ChangeKind::Image => "image",
        ChangeKind::Spec => "spec",
        ChangeKind::Agent => "agent",
    };
    let value = |text: &Option<String>| {
        html! {
            @match text {
                Some(text) => { (clean(text)) }
                None => { span.quiet { "nothing" } }
            }
        }
    };
    html! {
        th scope="row" { (kind) }
        td {
            (clean(&one.what))
            @if !one.lines.is_empty() {
                pre tabindex="0" { @for line in &one.lines { (clean(line)) "\n" } }
            }
        }
        td { (value(&one.before)) }
        td { (value(&one.after)) }
    }
}

fn times(times: &Times) -> Markup {
    let rows: Vec<&TimeChange> = std::iter::once(&times.wall).chain(&times.outside).collect();
    html! {
        (table("times", "Times", &["of", "before", "after", "usually"], &rows, |one| time(one)))
        @if times.runs < times.needed {
            p.note {
                "Too little history to tell noise from change: " (plural(times.runs, "earlier run"))
                " of this spec, " (times.needed) " are needed."
            }
        }
    }
}

fn time(one: &TimeChange) -> Markup {
    html! {
        th scope="row" { (clean(&one.what)) }
        td { @if let Some(before) = one.before_us { (duration(before)) } }
        td { (duration(one.after_us)) }
        td {
            @match &one.band {
                Some(band) if band.holds(one.after_us) => { span.quiet { "within " (duration(band.low_us)) " to " (duration(band.high_us)) } }
                Some(band) if one.after_us > band.high_us => {
                    span.bad { "slower" } " than " (duration(band.low_us)) " to " (duration(band.high_us))
                }
                Some(band) => { "faster than " (duration(band.low_us)) " to " (duration(band.high_us)) }
                None => { span.quiet { "not known" } }
            }
        }
    }
}

fn path_change(one: &PathChange) -> Markup {
    let (word, before, after) = match one.change {
        OnPath::Came => ("came", None, Some(one.after_us)),
        OnPath::Left => ("left", Some(one.before_us), None),
        OnPath::Differs => ("differs", Some(one.before_us), Some(one.after_us)),
    };
    html! {
        th scope="row" { (word) }
        td { (clean(&one.what)) }
        td { @if let Some(time) = before { (duration(time)) } }
        td { @if let Some(time) = after { (duration(time)) } }
    }
}
