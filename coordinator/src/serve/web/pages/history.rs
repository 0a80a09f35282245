//! A spec, a cell or a step over its runs, and the choice of what to show. The lists are those of `phalanx history`.

use super::frame::moment;
use super::runs::short;
use maud::{Markup, html};
use phalanx_report::history::History;
use phalanx_report::history::detail::{CellHistory, CellRun, Pick, Series, StepHistory};
use phalanx_report::history::detail::{cell_history, step_history};
use phalanx_report::history::overview::{Overview, RunLine, Trouble, overview};
use phalanx_report::history::series::{Shift, Verdict, blocks};
use phalanx_report::history::text::{self, verdict_text};
use phalanx_report::html::mark::{Links, Mark, encoded, icon};
use phalanx_report::text::{clean, duration, plural};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;

/// Rows of a table.
const ROWS: usize = 100;
/// Cells that a row names.
const CELLS: usize = 12;

/// What a page shows of a spec.
pub enum Shown {
    /// The spec at a glance, with the names of its cells.
    Spec(Box<Overview>, Vec<(CellId, String)>),
    /// One cell.
    Cell(Box<CellHistory>),
    /// One step.
    Step(Box<StepHistory>),
    /// Several cells or steps have this in their name.
    Several(Vec<String>),
    /// Nothing is called like this.
    Nothing,
}

impl Shown {
    /// Returns what a text names; without a text the spec at a glance.
    pub fn of(spec: &str, history: &History, of: Option<&str>, now: Timestamp) -> Shown {
        let Some(of) = of else {
            let cells = history.cells().iter();
            let names = cells.map(|(id, cell)| (id.clone(), cell.name.clone()));
            return Shown::Spec(Box::new(overview(spec, history, now)), names.collect());
        };
        match history.pick(of) {
            Pick::Cell(cell) => cell_history(history, cell)
                .map_or(Shown::Nothing, |cell| Shown::Cell(Box::new(cell))),
            Pick::Step(step) => Shown::Step(Box::new(step_history(history, step))),
            Pick::Several(names) => Shown::Several(names),
            Pick::Nothing => Shown::Nothing,
        }
    }
}

/// Returns the choice of specs, and the history of one or of a part of it.
pub fn page(
    specs: &[String],
    spec: Option<&str>,
    of: Option<&str>,
    shown: Option<&Shown>,
) -> Markup {
    html! {
        section #specs {
            h1 { "History" }
            @if specs.is_empty() { p.quiet { "No run has finished yet." } }
            form.choose method="get" action="/history" {
                label { "spec "
                    select name="spec" {
                        @for known in specs {
                            option value=(known) selected[spec == Some(known.as_str())] { (clean(known)) }
                        }
                    }
                }
                label { "cell or step " input name="of" type="search" value=[of]; }
                button type="submit" { "Show" }
            }
        }
        @if let (Some(spec), Some(shown)) = (spec, shown) {
            @match shown {
                Shown::Spec(overview, cells) => { (of_spec(&Spec { name: spec, cells }, overview)) }
                Shown::Cell(cell) => { (of_cell(spec, cell)) }
                Shown::Step(step) => { (of_step(spec, step)) }
                Shown::Several(names) => {
                    section { p { "Several have this in their name: "
                        @for (index, name) in names.iter().enumerate() {
                            @if index > 0 { "; " }
                            (part(spec, name, name))
                        }
                    } }
                }
                Shown::Nothing => { p.note { "The last runs of " (clean(spec)) " have no such cell and no such step." } }
            }
        }
    }
}

/// A spec and the names of its cells.
struct Spec<'a> {
    name: &'a str,
    cells: &'a [(CellId, String)],
}

impl Spec<'_> {
    fn cell(&self, id: &CellId) -> Markup {
        let known = self.cells.iter().find(|(known, _)| known == id);
        let name = known.map_or(id.as_str(), |(_, name)| name);
        part(self.name, id.as_str(), name)
    }
}

/// Returns a link to the history of a cell or a step.
fn part(spec: &str, of: &str, name: &str) -> Markup {
    let address = format!("/history?spec={}&of={}", encoded(spec), encoded(of));
    html! { a href=(address) { (clean(name)) } }
}

fn run(run: &RunId) -> Markup {
    html! { a href={ "/runs/" (run) } title=(run) { (short(run.as_str())) } }
}

fn outcome(outcome: Option<Outcome>) -> Markup {
    let mark = outcome.map_or(Mark::Running, Mark::from);
    html! { (icon(mark)) " " (outcome.map_or("unfinished", Outcome::as_str)) }
}

/// Returns one character for each run, which a screen reader hears as words.
fn line(line: &str, what: &str) -> Markup {
    html! { code.line role="img" aria-label={ (what) ", one for each run, the oldest first: " (line) } { (line) } }
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
                    p.quiet { (rows.len() - ROWS) " more: " code { "phalanx history --format json" } " has all of them" }
                }
            }
        }
    }
}

fn of_spec(spec: &Spec<'_>, overview: &Overview) -> Markup {
    let walls: Vec<Option<u64>> = overview.runs.iter().map(|run| Some(run.wall_us)).collect();
    let marks: String = overview.runs.iter().map(text::mark).collect();
    let newest: Vec<&RunLine> = overview.runs.iter().rev().collect();
    let since = overview.wall_shift.as_ref().and_then(|shift| {
        let since = overview.runs.get(shift.since)?;
        Some((shift, &since.run))
    });
    html! {
        section #history aria-labelledby="history-title" {
            h2 #history-title { (clean(spec.name)) ": " (plural(overview.runs.len(), "run")) }
            dl.facts {
                dt { "outcomes" } dd { (line(&marks, "outcomes")) }
                dt { "time" } dd { (line(&blocks(&walls), "times")) " " (text::band(overview.wall.as_ref())) }
                @if let Some((shift, since)) = since { dt { "changed" } dd { (shifted(shift, since)) } }
            }
            @if overview.without_steps > 0 {
                p.warn { "The steps of " (plural(overview.without_steps, "run")) " are left out, there are too many." }
            }
        }
        (table("troubles", "What fails", &["what", "where", "outcomes", "verdict"], &overview.troubles, |one| trouble(spec, one)))
        (table("infrastructure", "Could not be judged", &["reason", "cells", "runs", "last in"], &overview.infrastructure, |one| html! {
            th scope="row" { (clean(&one.reason)) } td { (one.times) } td { (one.runs) } td { (run(&one.newest)) }
        }))
        (table("shifts", "Times that changed", &["of", "before", "after", "since"], &overview.shifts, |one| html! {
            @let name = one.step.as_deref().or(one.cell.as_deref()).unwrap_or_default();
            th scope="row" { (part(spec.name, name, name)) }
            td { (duration(one.shift.before_us)) } td { (duration(one.shift.after_us)) } td { (run(&one.run)) }
        }))
        (table("stale", "Not verified by the newest run", &["where", "coverage", "since", "days"], &overview.ledger.stale, |one| html! {
            th scope="row" { (clean(&one.place)) }
            td { (clean(&one.rows.join(", "))) } td { (run(&one.run)) } td { (one.days) }
        }))
        @if overview.ledger.never > 0 {
            p.note { (plural(overview.ledger.never, "pair")) " of coverage row and cell not verified by any of these runs." }
        }
        (table("runs-over-time", "Runs", &["run", "outcome", "ok", "time", "submitted"], &newest, |one| html! {
            th scope="row" { (run(&one.run)) @if one.changed { span.quiet { " another plan than before" } } }
            td { (outcome(one.outcome)) } td { (one.ok) " of " (one.cells) }
            td { (duration(one.wall_us)) } td { (moment(one.submitted)) }
        }))
        (table("all-cells", "Cells", &["cell"], spec.cells, |(id, _)| html! { th scope="row" { (spec.cell(id)) } }))
    }
}

fn trouble(spec: &Spec<'_>, one: &Trouble) -> Markup {
    html! {
        th scope="row" {
            @match &one.step {
                Some(step) => { (part(spec.name, step, step)) }
                None => { "outside the steps" }
            }
        }
        td {
            (clean(&one.place)) ": "
            @for (index, id) in one.cells.iter().take(CELLS).enumerate() { @if index > 0 { ", " } (spec.cell(id)) }
            @if one.cells.len() > CELLS { span.quiet { " and " (one.cells.len() - CELLS) " more" } }
        }
        td { (line(&one.line, "outcomes")) }
        td {
            (said(one.verdict, one.since.as_ref()))
            @match (&one.axis, one.verdict) {
                (Some(axis), _) => { p { (text::axis(axis)) } }
                (None, Verdict::Flaky { .. }) if one.cells.len() > 1 => { p.quiet { "on no axis value more than on others" } }
                _ => {}
            }
        }
    }
}

fn said(verdict: Verdict, since: Option<&RunId>) -> Markup {
    let class = match verdict {
        Verdict::Broken { .. } | Verdict::New { .. } | Verdict::Always => "bad",
        Verdict::Flaky { .. } => "warn",
        Verdict::Unknown | Verdict::Steady | Verdict::Fixed { .. } => "quiet",
    };
    html! { span class=(class) { (verdict_text(verdict, since)) } }
}

fn shifted(shift: &Shift, since: &RunId) -> Markup {
    html! { (text::change(shift)) " since " (run(since)) }
}

/// Columns of a table of series, without the first.
const SERIES: [&str; 4] = ["outcomes", "times", "usually", "verdict"];

fn series(one: &Series) -> Markup {
    html! {
        td { (line(&one.line, "outcomes")) }
        td { (line(&one.times, "times of passed ones")) }
        td { @if let Some(median) = one.median_us { (duration(median)) } }
        td {
            (said(one.verdict, one.since.as_ref()))
            @if let Some(shift) = &one.shift { p { (text::change(shift)) } }
        }
    }
}

fn of_cell(spec: &str, cell: &CellHistory) -> Markup {
    let newest: Vec<&CellRun> = cell.runs.iter().rev().collect();
    let link = |one: &CellRun| {
        let links = Links::of_pages(format!("/runs/{}/cells/", one.run));
        html! { a href=(links.cell(&cell.cell)) title=(one.run) { (short(one.run.as_str())) } }
    };
    let columns = [&["step"], &SERIES[..]].concat();
    html! {
        section #history aria-labelledby="history-title" {
            p { (whole_spec(spec)) }
            h2 #history-title { (clean(&cell.name)) }
            dl.facts {
                dt { "outcomes" } dd { (line(&cell.series.line, "outcomes")) }
                dt { "times" } dd { (line(&cell.series.times, "times of passed ones")) " " (text::band(cell.series.band.as_ref())) }
                dt { "verdict" } dd { (said(cell.series.verdict, cell.series.since.as_ref())) }
            }
        }
        (table("cell-runs", "Runs", &["run", "outcome", "time", "why", "submitted"], &newest, |one| html! {
            th scope="row" { (link(one)) }
            td { @match one.outcome { Some(_) => { (outcome(one.outcome)) } None => { "no outcome" } } }
            td { @if let Some(time) = one.elapsed_us { (duration(time)) } }
            td {
                @if let Some(step) = &one.step { (part(spec, step, step)) " " }
                @if let Some(reason) = &one.reason { span.quiet { (clean(reason)) } }
            }
            td { (moment(one.submitted)) }
        }))
        (table("steps", "Steps", &columns, &cell.steps, |one| html! {
            th scope="row" { (part(spec, &one.title, &one.title)) } (series(one))
        }))
    }
}

fn of_step(spec: &str, step: &StepHistory) -> Markup {
    let columns = [&["cell"], &SERIES[..]].concat();
    html! {
        section #history aria-labelledby="history-title" {
            p { (whole_spec(spec)) }
            h2 #history-title { (clean(&step.step)) }
            @if let Some(axis) = &step.axis { p.warn { "flaky " (text::axis(axis)) } }
            p.quiet { (plural(step.runs.len(), "run")) }
        }
        (table("step-cells", "Cells", &columns, &step.cells, |one| html! {
            th scope="row" { (part(spec, &one.title, &one.title)) } (series(one))
        }))
    }
}

fn whole_spec(spec: &str) -> Markup {
    html! { a href={ "/history?spec=" (encoded(spec)) } { "all of " (clean(spec)) } }
}
