//! The list of runs, newest first.

use super::super::board::Region;
use super::frame::{elapsed, moment};
use maud::{Markup, html};
use phalanx_proto::convert::outcome_from_wire;
use phalanx_proto::v1;
use phalanx_report::html::mark::{Mark, icon};
use phalanx_report::text::{clean, plural};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;

/// Returns the one region of the list.
pub fn regions(runs: &[v1::RunSummary]) -> Vec<Region> {
    vec![Region::part("runs", "page", list(runs))]
}

fn list(runs: &[v1::RunSummary]) -> Markup {
    html! {
        section #runs {
            h1 { "Runs" }
            @if runs.is_empty() {
                p.quiet { "There is no run yet: " code { "phalanx submit SPEC" } " starts one." }
            } @else {
                table.list {
                    thead { tr {
                        th scope="col" { "spec" }
                        th scope="col" { "outcome" }
                        th scope="col" { "cells" }
                        th scope="col" { "submitted" }
                        th scope="col" .n { "time" }
                    } }
                    tbody { @for run in runs { (row(run)) } }
                }
            }
        }
    }
}

fn row(run: &v1::RunSummary) -> Markup {
    let outcome = outcome_from_wire(run.outcome).unwrap_or(None);
    let mark = match outcome {
        Some(outcome) => Mark::from(outcome),
        None if run.running == 0 => Mark::Queued,
        None => Mark::Running,
    };
    let ended = run.finished_us.map(Timestamp);
    html! {
        tr {
            th scope="row" {
                a href={ "/runs/" (run.run_id) } { (clean(&run.spec)) }
                " " code.quiet title=(run.run_id) { (short(&run.run_id)) }
            }
            td {
                (icon(mark)) " " (mark.word())
                @if let Some(reason) = run.cancel.as_ref().filter(|_| outcome.is_none()) {
                    span.quiet { " (cancelling: " (clean(reason)) ")" }
                }
                @if !run.problem.is_empty() { p.bad { (clean(&run.problem)) } }
            }
            td { (cells(run)) }
            td { (moment(Timestamp(run.submitted_us))) }
            td.n { (elapsed(Some(Timestamp(run.submitted_us)), ended)) }
        }
    }
}

fn cells(run: &v1::RunSummary) -> Markup {
    let count = |cells: u32| usize::try_from(cells).unwrap_or(usize::MAX);
    let counts = run.counts.iter().filter_map(|counted| {
        let outcome: Outcome = outcome_from_wire(counted.outcome).ok()??;
        Some((Mark::from(outcome), counted.cells))
    });
    html! {
        span.quiet { (plural(count(run.cells), "cell")) ": " }
        @for (mark, cells) in counts { span.count { (icon(mark)) " " (cells) span.sr { " " (mark.word()) } } " " }
        @if run.running > 0 { span.count { (icon(Mark::Running)) " " (run.running) span.sr { " running" } } " " }
        @if run.queued > 0 { span.count { (icon(Mark::Queued)) " " (run.queued) span.sr { " queued" } } }
    }
}

/// Returns the end of a run's id, which tells runs of one hour apart.
pub fn short(run: &str) -> &str {
    run.rsplit('-').next().unwrap_or(run)
}
