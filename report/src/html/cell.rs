//! The detail of a cell: attempts, steps as a waterfall, checks with the values of their parts, services, clean-up, and
//! the commands that run it again.

use super::mark::{Mark, first_line, icon, lines};
use super::times::{piece, took};
use crate::artifacts::{Contents, Shown, shown};
use crate::text::{
    bytes, captured, cases_text, clean, duration, plural, restored, short_key, title_of_response,
};
use crate::view::coverage::axis_text;
use crate::view::{AttemptView, CellView, RunView, ServiceReport, StepKind, StepView, micros};
use maud::{Markup, html};
use phalanx_shared::event::{Artifact, CheckResult, Failure, Output, ServiceState};
use phalanx_shared::language::quantity::spelled_bytes;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;

/// Deepest indentation that the style sheet knows.
const DEEPEST: usize = 6;

/// States on a service's way up, and after it.
const UP: [ServiceState; 5] = [
    ServiceState::Pulled,
    ServiceState::Built,
    ServiceState::Created,
    ServiceState::Started,
    ServiceState::Ready,
];
const DOWN: [ServiceState; 3] = [
    ServiceState::Exited,
    ServiceState::Stopped,
    ServiceState::Removed,
];
/// Waits that are shorter than this are not mentioned.
const SHORT_US: u64 = 100_000;

/// Steps of an attempt that are shown.
const STEPS: usize = 5_000;
/// Artifacts of an attempt that are shown.
const ARTIFACTS: usize = 1_000;
/// Attempts of a cell that are shown, the newest ones.
const ATTEMPTS: usize = 50;

/// Returns the whole detail of a cell; its newest attempt is open.
pub fn detail(view: &RunView, cell: &CellView, contents: &Contents) -> Markup {
    html! {
        article class="cell" data-cell=(cell.id) {
            (header(cell))
            @for (index, attempt) in cell.attempts.iter().rev().take(ATTEMPTS).enumerate() { (attempt_of(view, cell, attempt, index == 0, contents)) }
            @if cell.attempts.len() > ATTEMPTS { p class="quiet" { (plural(cell.attempts.len() - ATTEMPTS, "earlier attempt")) " not shown." } }
            (again(view, cell))
        }
    }
}

/// Returns the head of a cell: name, outcome, reason, axis values, and offers that were returned.
pub fn header(cell: &CellView) -> Markup {
    let mark = Mark::of_cell(cell);
    html! {
        header {
            h1 tabindex="-1" { (icon(mark)) span { (clean(&cell.name)) } }
            p {
                strong class=(mark.class()) { (mark.word()) }
                @if let Some(elapsed) = cell.elapsed_us {
                    @let began = cell.attempts.first().and_then(|attempt| attempt.started);
                    @if cell.outcome.is_some() { " in " } @else { " for " }
                    (took(elapsed, began.filter(|_| cell.outcome.is_none())))
                }
                @if let Some(waited) = cell.waited_us.filter(|waited| *waited >= SHORT_US) { span class="quiet" { " after waiting for " (duration(waited)) } }
                @if cell.experimental { " " span class="tag" { "experimental" } }
            }
            @if let Some(reason) = &cell.reason { pre class="reason" { (lines(reason)) } }
            dl class="facts" {
                @for (axis, value) in &cell.matrix { dt { (clean(axis)) } dd { (clean(&axis_text(value))) } }
            }
        }
        @for reason in &cell.returned { p class="quiet" { "offer returned: " (first_line(reason)) } }
    }
}

fn attempt_of(
    view: &RunView,
    cell: &CellView,
    attempt: &AttemptView,
    open: bool,
    contents: &Contents,
) -> Markup {
    let start = attempt.started.unwrap_or(attempt.offered);
    html! {
        details class="attempt" open[open] data-attempt=(attempt.attempt) data-start=(start.0.div_euclid(1000)) {
            summary { (attempt_title(attempt)) }
            @if let Some(reason) = attempt.reason.as_ref().filter(|_| attempt.reason != cell.reason) { pre class="reason" { (lines(reason)) } }
            (steps(attempt))
            (artifacts(attempt, &|artifact| match contents.of(artifact) {
                Some(_) => Content::InFile,
                None => Content::Elsewhere,
            }))
            @if attempt.artifacts.iter().any(|artifact| artifact.is_kept() && contents.of(artifact).is_none()) {
                p class="quiet" { code {
                    "phalanx artifacts " (view.run) " " (cell.id)
                    @if !open { " --attempt " (attempt.attempt) }
                    " --out DIR"
                } " fetches them." }
            }
            div class="logs js" hidden {}
            (attempt_rest(attempt))
        }
    }
}

/// Returns the title of an attempt: its number, agent, outcome and time.
pub fn attempt_title(attempt: &AttemptView) -> Markup {
    let mark = attempt.outcome.map_or(Mark::Running, Mark::from);
    html! {
        h2 { (icon(mark)) " Attempt " (attempt.attempt) span class="quiet" { " on " (clean(&attempt.agent)) } }
        " " (mark.word())
        @if let Some(elapsed) = attempt.elapsed_us {
            @if attempt.finished.is_some() { " in " } @else { " for " }
            (took(elapsed, attempt.started.filter(|_| attempt.finished.is_none())))
        }
    }
}

/// Where a page finds the content of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In the page itself.
    InFile,
    /// At an address.
    At(String),
    /// At an address, unless it is still on its way, or was lost there.
    Maybe(String),
    /// Not within reach.
    Elsewhere,
}

/// Returns the artifacts of an attempt: pictures and videos shown, others named, and why some aren't kept.
pub fn artifacts(attempt: &AttemptView, content: &dyn Fn(&Artifact) -> Content) -> Markup {
    html! {
        @if !attempt.artifacts.is_empty() {
            details class="artifacts" open {
                summary { (plural(attempt.artifacts.len(), "artifact")) }
                ul { @for artifact in attempt.artifacts.iter().take(ARTIFACTS) { li { (artifact_of(artifact, &content(artifact))) } } }
                @if attempt.artifacts.len() > ARTIFACTS {
                    p class="quiet" { (plural(attempt.artifacts.len() - ARTIFACTS, "more artifact")) " not shown." }
                }
            }
        }
    }
}

fn artifact_of(artifact: &Artifact, content: &Content) -> Markup {
    let name = clean(&artifact.name);
    if let Some(lack) = &artifact.lack {
        return html! { span class="warn" { (clean(&artifact.from)) " not kept: " (first_line(&lack.reason)) } };
    }
    let (address, data) = match content {
        Content::At(address) | Content::Maybe(address) => (Some(address.as_str()), None),
        Content::InFile => (None, Some(artifact.digest.as_str())),
        Content::Elsewhere => (None, None),
    };
    // A picture that isn't there yet would stay broken.
    let shown = match content {
        Content::Elsewhere | Content::Maybe(_) => None,
        Content::InFile | Content::At(_) => shown(artifact),
    };
    let kind = match shown {
        Some(Shown::Image(kind) | Shown::Video(kind)) => Some(kind),
        None => None,
    };
    let data_type = kind.filter(|_| data.is_some());
    html! {
        @match address {
            Some(address) => { a href=(address) { (name) } }
            None => { (name) }
        }
        span class="quiet" {
            " " (spelled_bytes(artifact.size)) ", from " (clean(&artifact.from))
            @if let Some(step) = &artifact.step { ", step " (clean(step)) }
        }
        @match shown {
            Some(Shown::Image(_)) => { img class="shot" alt=(name) loading="lazy" src=[address] data-file=[data] data-type=[data_type]; }
            Some(Shown::Video(_)) => { video class="shot" controls preload="metadata" src=[address] data-file=[data] data-type=[data_type] {} }
            None => {}
        }
    }
}

/// Returns what follows the steps of an attempt: clean-up and notes.
pub fn attempt_rest(attempt: &AttemptView) -> Markup {
    html! {
        (snapshots(attempt))
        (clean_up(attempt))
        @if !attempt.notes.is_empty() {
            details { summary { (plural(attempt.notes.len(), "note")) }
                ul { @for note in &attempt.notes { li { (lines(note)) } } }
            }
        }
    }
}

/// Returns services and steps of an attempt as rows, each with its place in the attempt's time.
pub fn steps(attempt: &AttemptView) -> Markup {
    let start = attempt.started.unwrap_or(attempt.offered);
    let ends = attempt
        .steps
        .iter()
        .map(|step| micros(step.began.since(start)).saturating_add(step.elapsed_us));
    let length = ends.max().unwrap_or(0).max(attempt.elapsed_us.unwrap_or(0));
    html! {
        @if attempt.steps.is_empty() { p class="quiet" { "No step ran." } }
        div class="steps" {
            @for service in &attempt.services { (service_row(service, start, length)) }
            @for step in attempt.steps.iter().take(STEPS) { (step_row(step, start, length)) }
        }
        @if attempt.steps.len() > STEPS {
            p class="quiet" { (plural(attempt.steps.len() - STEPS, "more step")) " not shown: the command below prints them." }
        }
    }
}

/// Returns the row of a service: the stages until it was ready, and from then on. `start` and `length` are as in
/// [`step_row`].
pub fn service_row(service: &ServiceReport, start: Timestamp, length: u64) -> Markup {
    let at = |time: Timestamp| micros(time.since(start));
    let first = service.history.first().map_or(start, |stage| stage.began);
    let ready = service
        .history
        .iter()
        .find(|stage| stage.state == ServiceState::Ready);
    let up = service
        .history
        .iter()
        .rfind(|stage| UP.contains(&stage.state));
    let until = service
        .history
        .iter()
        .find(|stage| DOWN.contains(&stage.state));
    let until = until.map_or(length, |stage| at(stage.ended));
    html! {
        details class="step service d0" data-from=(at(first) / 1000) data-to=(up.map_or(at(first), |stage| at(stage.ended)).div_ceil(1000)) {
            summary {
                span class="name" { span class="tag" { "service" } span { (clean(&service.name)) } }
                span class="n" { @if let Some(ready) = ready { (duration(micros(ready.ended.since(first)))) } @else { (service.state.as_str()) } }
                svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                    @if let Some(up) = up { (piece(at(up.ended), until.saturating_sub(at(up.ended)), length, "up")) }
                    @for stage in service.history.iter().filter(|stage| UP.contains(&stage.state)) {
                        (piece(at(stage.began), micros(stage.ended.since(stage.began)), length, stage.state.as_str()))
                    }
                }
            }
            div class="body" {
                @if let Some(detail) = &service.detail { p { code { (lines(detail)) } } }
                @if let Some(restarted) = service.restarted() { p { (restarted) } }
                table class="list" {
                    thead { tr { th scope="col" { "state" } th scope="col" class="n" { "reached at" } th scope="col" class="n" { "took" } } }
                    tbody { @for stage in &service.history { tr {
                        th scope="row" { (stage.state.as_str()) }
                        td class="n" { (duration(at(stage.ended))) }
                        td class="n" { (duration(micros(stage.ended.since(stage.began)))) }
                    } } }
                }
            }
        }
    }
}

/// Returns the row of a step: its name, time and place in the attempt, which began at `start` and takes `length`
/// microseconds; opened, its checks and output.
pub fn step_row(step: &StepView, start: Timestamp, length: u64) -> Markup {
    let mark = Mark::of_step(step);
    let from = micros(step.began.since(start));
    let kind = match step.kind {
        StepKind::Phase => "phase",
        StepKind::Group => "group",
        StepKind::Step => "leaf",
    };
    let class = format!("step {kind} d{}", step.depth.min(DEEPEST));
    html! {
        details class=(class) data-path=(clean(&step.path)) data-o=(mark.class()) data-from=(from / 1000) data-to=((from + step.elapsed_us).div_ceil(1000)) {
            summary {
                span class="name" { (icon(mark)) span { (clean(&step.name)) } span class="sr" { " " (mark.word()) } }
                span class="n" { @if !step.unreached && step.outcome != Some(Outcome::Skipped) { (took(step.elapsed_us, Some(step.began).filter(|_| step.outcome.is_none()))) } }
                svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                    (piece(from, step.elapsed_us, length, mark.class()))
                }
            }
            div class="body" { (step_body(step)) }
        }
    }
}

fn step_body(step: &StepView) -> Markup {
    let passed: Vec<&CheckResult> = step.checks.iter().filter(|check| check.passed).collect();
    html! {
        p class="quiet" {
            code { (clean(&step.path)) } " " (clean(&step.action))
            @if step.tries > 1 { " · " (step.tries) " tries" }
            @if step.polls > 1 { " · " (plural(step.polls as usize, "poll")) }
            @if let Some(cases) = &step.cases { " · " (cases_text(cases)) }
            @if let Some(of) = &step.restored { " · " (restored(of)) ", took " (duration(of.elapsed_us)) " then" }
            @if !step.verifies.is_empty() { " · verifies " (clean(&step.verifies.join(", "))) }
        }
        (failure(step))
        @if !passed.is_empty() {
            ul class="checks" { @for check in passed { li { (icon(Mark::Passed)) code { (clean(&check.expression)) } } } }
        }
        @for line in captured(&step.captured, true) { p class="quiet" { code { (lines(&line.text)) } } }
        @if let Some(output) = &step.output { (printed(output)) }
    }
}

/// Returns why a step isn't ok: its reason, the failed checks with the value of each part, request, response, the last
/// log lines, notes. Empty for a step without such details.
pub fn failure(step: &StepView) -> Markup {
    let failed: Vec<&CheckResult> = step.checks.iter().filter(|check| !check.passed).collect();
    html! {
        @if let Some(reason) = &step.reason {
            @if !failed.iter().any(|check| check.is_reason(reason)) { pre class="reason" { (lines(reason)) } }
        }
        @for check in failed { (failed_check(check)) }
        @if let Some(details) = &step.failure { (details_of(details, title_of_response(step))) }
    }
}

fn failed_check(check: &CheckResult) -> Markup {
    html! {
        div class="check" {
            p { (icon(Mark::Failed)) code { (lines(&check.expression)) } }
            @if let Some(error) = &check.error { pre { (lines(error)) } }
            @if !check.parts.is_empty() {
                table class="parts" {
                    caption class="sr" { "Values of the parts of the check" }
                    @for part in &check.parts { tr { th scope="row" { code { (clean(&part.text)) } } td { code { (lines(&part.value)) } } } }
                }
            }
        }
    }
}

fn details_of(details: &Failure, response: &str) -> Markup {
    html! {
        @for (title, text) in [("request", &details.request), (response, &details.response)] {
            @if let Some(text) = text { h4 { (title) } pre tabindex="0" { (lines(text)) } }
        }
        @for tail in &details.logs {
            h4 { "last lines of " (clean(&tail.service)) }
            pre tabindex="0" { (lines(&tail.lines.join("\n"))) }
        }
        @for note in &details.notes { p class="quiet" { (lines(note)) } }
        @if let Some(place) = &details.place { p class="quiet" { "at " code { (clean(place)) } } }
    }
}

fn printed(output: &Output) -> Markup {
    html! {
        @for (title, text) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            @if !text.is_empty() { h4 { (title) } pre tabindex="0" { (lines(text)) } }
        }
        @if output.left_out > 0 { p class="quiet" { "printed " (output.left_out) " bytes that were not kept" } }
    }
}

/// Returns what became of snapshots in an attempt.
fn snapshots(attempt: &AttemptView) -> Markup {
    html! {
        @for seen in &attempt.snapshots {
            @let state: &str = seen.state.into();
            p class="quiet" {
                "Snapshot of " code { (clean(&seen.path)) } ": " (state)
                @if !seen.key.is_empty() { ", " code { (short_key(&seen.key)) } }
                @if let Some(run) = &seen.run { " of run " (clean(run.as_str())) }
                @if seen.bytes > 0 { ", " (bytes(seen.bytes)) }
                @if seen.elapsed_us > 0 { ", in " (duration(seen.elapsed_us)) }
                @if let Some(reason) = &seen.reason { ": " (first_line(reason)) }
            }
        }
    }
}

fn clean_up(attempt: &AttemptView) -> Markup {
    html! {
        @if let Some(done) = &attempt.clean_up {
            p class="quiet" { "Clean-up: " (plural(done.removed as usize, "object")) " removed in " (duration(done.elapsed_us)) "." }
            @for left in &done.left { p class="bad" { "Could not remove " (clean(left)) } }
            @for kept in &done.kept { p { "Kept: " (clean(&kept.service)) " at " code { (clean(&kept.address)) } } }
        }
    }
}

fn again(view: &RunView, cell: &CellView) -> Markup {
    html! {
        section class="again" {
            h2 { "Again" }
            dl class="commands" {
                @for (command, what) in [("repro", "runs exactly this cell on this machine"), ("logs", "prints its logs")] {
                    dt { code { "phalanx " (command) " " (view.run) " " (cell.id) } } dd { (what) }
                }
                dt { code { "phalanx rerun " (view.run) " --cell " (cell.id) } } dd { "runs it again as a new run" }
            }
        }
    }
}
