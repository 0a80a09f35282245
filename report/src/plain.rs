//! The progress of a run as lines, for logs and pipes: `CELL | PHASE > STEP ... passed 0.30s`.
//!
//! The words and their positions are stable, so that scripts can search for them: every line of a cell starts with its
//! name and ` | `, every ended step contains ` ... ` and its outcome, a skipped one contains `skipped: ` and its
//! reason. Lines are in the order of the events; lines of different cells are interleaved.

use super::style::Tone;
use super::text::{
    Line, captured, cases_text, clean, duration, plural, printed, restored, step_title,
};
use super::view::Counts;
use phalanx_shared::event::{CASE, Event, EventKind, StepResult};
use phalanx_shared::id::CellId;
use phalanx_shared::language::quantity::spelled_bytes;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, RunState};
use std::fmt::Write;

/// Returns the lines for an event. `state` is the run after the event was folded.
pub fn lines(state: &RunState, event: &Event, verbose: bool) -> Vec<Line> {
    match &event.attempt {
        Some(attempt) => {
            let name = cell_name(state, &attempt.cell);
            let attempts = state.cells.get(&attempt.cell).map(|cell| &cell.attempts);
            let folded =
                attempts.and_then(|all| all.iter().rev().find(|a| a.attempt == attempt.attempt));
            let texts = of_attempt(folded, attempt.attempt, &event.kind, verbose);
            texts
                .into_iter()
                .map(|line| Line::new(line.tone, format!("{name} | {}", line.text)))
                .collect()
        }
        None => of_run(state, event, verbose),
    }
}

/// Reports why cells that no agent holds are waiting: `2 cells wait: no agent offers label gpu`; a single cell by its
/// name.
pub fn waits(state: &RunState, cells: &[String], count: u32, reason: &str) -> Line {
    let reason = clean(reason);
    let text = match cells {
        [cell] => {
            let name = cell_name(state, &CellId::from(cell.clone()));
            format!("{name} | waits: {reason}")
        }
        _ => format!("{count} cells wait: {reason}"),
    };
    Line::new(Tone::Warn, text)
}

/// Reports what an agent does ahead for cells that wait: `ahead | pull postgres:17 on runner-1: ready`.
pub fn ahead(what: &str) -> Line {
    Line::new(Tone::Plain, format!("ahead | {}", clean(what)))
}

/// Reports a problem that keeps the coordinator from working.
pub fn problem(problem: &str) -> Line {
    Line::new(Tone::Warn, format!("coordinator | {}", clean(problem)))
}

/// Reports that a problem of the coordinator is over.
pub fn no_problem(problem: &str) -> Line {
    let text = format!("coordinator | over: {}", clean(problem));
    Line::new(Tone::Plain, text)
}

fn cell_name(state: &RunState, cell: &CellId) -> String {
    let name = state.planned(cell).map(|planned| clean(&planned.name));
    name.map_or_else(|| cell.to_string(), std::borrow::Cow::into_owned)
}

fn of_run(state: &RunState, event: &Event, verbose: bool) -> Vec<Line> {
    let line = match &event.kind {
        EventKind::RunSubmitted { plan, .. } => Line::new(
            Tone::Plain,
            format!(
                "run {} of {}: {}",
                event.run,
                clean(&plan.spec),
                plural(plan.cells.len(), "cell")
            ),
        ),
        EventKind::CellOffered {
            token, agent_name, ..
        } if verbose => Line::new(
            Tone::Dim,
            format!(
                "{} | offered to {}",
                cell_name(state, &token.cell),
                clean(agent_name)
            ),
        ),
        EventKind::CellReturned { token, reason } => Line::new(
            Tone::Warn,
            format!(
                "{} | waits again: {}",
                cell_name(state, &token.cell),
                clean(reason)
            ),
        ),
        EventKind::AttemptLost { token, reason } => Line::new(
            Tone::Bad,
            format!(
                "{} | attempt {} lost: {}",
                cell_name(state, &token.cell),
                token.attempt,
                clean(reason)
            ),
        ),
        EventKind::CellFinished {
            cell,
            outcome,
            reason,
            ..
        } => {
            let elapsed = cell_time(state, cell)
                .map(|time| format!(" {time}"))
                .unwrap_or_default();
            let reason = reason
                .as_deref()
                .map(|reason| format!(": {}", clean(reason)))
                .unwrap_or_default();
            let name = cell_name(state, cell);
            Line::new(
                (*outcome).into(),
                format!("{name} | cell ... {outcome}{elapsed}{reason}"),
            )
        }
        // A harsher order says nothing new to a reader, nor does one that only speeds up the clean-up.
        EventKind::CancelRequested { .. } if state.escalated || state.cancel.is_none() => {
            return Vec::new();
        }
        EventKind::CancelRequested { reason, .. } => Line::new(
            Tone::Warn,
            format!("run {} | cancelled: {}", event.run, clean(reason)),
        ),
        EventKind::RunFinished { outcome } => {
            let wall = state
                .submitted
                .map(|from| duration(super::view::micros(event.at.since(from))));
            let wall = wall.unwrap_or_default();
            Line::new(
                (*outcome).into(),
                format!("run {} | finished ... {outcome} {wall}", event.run),
            )
        }
        _ => return Vec::new(),
    };
    vec![line]
}

fn cell_time(state: &RunState, cell: &CellId) -> Option<String> {
    let tries = || {
        state
            .cells
            .get(cell)
            .into_iter()
            .flat_map(|cell| &cell.attempts)
            .filter(|a| !a.returned)
    };
    let started = tries().find_map(|attempt| attempt.started)?;
    let ended = tries().next_back()?.finished?;
    Some(duration(super::view::micros(ended.since(started))))
}

fn of_attempt(
    folded: Option<&AttemptState>,
    attempt: u32,
    kind: &EventKind,
    verbose: bool,
) -> Vec<Line> {
    let line = match kind {
        EventKind::AttemptStarted { agent } => {
            let agent = folded.map_or(agent.as_str(), |attempt| attempt.agent_name.as_str());
            let which = if attempt > 1 {
                format!(" (attempt {attempt})")
            } else {
                String::new()
            };
            Line::new(Tone::Plain, format!("started on {}{which}", clean(agent)))
        }
        EventKind::ServiceChanged {
            service,
            state,
            detail,
            ..
        } if verbose => {
            let state = serde_json::to_value(state).ok();
            let state = state
                .as_ref()
                .and_then(serde_json::Value::as_str)
                .unwrap_or("changed");
            let detail = detail
                .as_deref()
                .map(|detail| format!(" ({})", clean(detail)))
                .unwrap_or_default();
            Line::new(
                Tone::Dim,
                format!("service {} {state}{detail}", clean(service)),
            )
        }
        EventKind::ServiceRestarted { service, code, .. } => Line::new(
            Tone::Dim,
            format!(
                "service {} exited with code {code}, starting again",
                clean(service)
            ),
        ),
        EventKind::ServiceProgress { service, doing } => Line::new(
            Tone::Dim,
            format!("service {}: {}", clean(service), clean(doing)),
        ),
        EventKind::SnapshotChanged {
            path,
            key,
            state,
            run,
            reason,
            ..
        } => {
            let state: &str = state.into();
            let mut text = format!("snapshot of {} {state}", clean(path));
            if let Some(key) = key.get(..12) {
                let _ = write!(text, ": {key}");
            }
            if let Some(run) = run {
                let _ = write!(text, " of run {}", clean(run.as_str()));
            }
            if let Some(reason) = reason {
                let _ = write!(text, ": {}", clean(reason));
            }
            Line::new(Tone::Dim, text)
        }
        EventKind::PhaseStarted { name, .. } if verbose => {
            Line::new(Tone::Dim, format!("phase {} began", clean(name)))
        }
        EventKind::PhaseFinished {
            name,
            outcome: Outcome::Skipped,
            reason,
            ..
        } => {
            let reason = reason.as_deref().unwrap_or("no reason given");
            Line::new(
                Tone::Warn,
                format!("phase {} ... skipped: {}", clean(name), clean(reason)),
            )
        }
        // A suite may have thousands of cases; its own line counts them.
        EventKind::StepFinished(result)
            if result.action == CASE && result.outcome == Outcome::Passed && !verbose =>
        {
            return Vec::new();
        }
        EventKind::StepFinished(result) => return step(folded, result, verbose),
        EventKind::TornDown { left, kept, .. } => {
            let mut lines = Vec::new();
            if !left.is_empty() {
                lines.push(Line::new(
                    Tone::Bad,
                    format!("clean-up could not remove {}", clean(&left.join(", "))),
                ));
            }
            lines.extend(kept.iter().map(|kept| {
                Line::new(
                    Tone::Busy,
                    format!("kept {} at {}", clean(&kept.service), clean(&kept.address)),
                )
            }));
            return lines;
        }
        EventKind::LogGap {
            service,
            from,
            to,
            reason,
            ..
        } => {
            let lost = to.saturating_sub(*from);
            Line::new(
                Tone::Warn,
                format!(
                    "{lost} bytes of the log of {} were not kept: {}",
                    clean(service),
                    clean(reason)
                ),
            )
        }
        EventKind::ArtifactCollected(artifact) => match &artifact.lack {
            Some(lack) => Line::new(
                Tone::Warn,
                format!("artifact not kept: {}", clean(&lack.reason)),
            ),
            None if verbose => Line::new(
                Tone::Dim,
                format!(
                    "artifact {} ({})",
                    clean(&artifact.name),
                    spelled_bytes(artifact.size)
                ),
            ),
            None => return Vec::new(),
        },
        EventKind::ArtifactLost { reason, .. } => {
            Line::new(Tone::Warn, format!("artifact not kept: {}", clean(reason)))
        }
        EventKind::Note { message } => Line::new(Tone::Plain, format!("note: {}", clean(message))),
        _ => return Vec::new(),
    };
    vec![line]
}

/// Counts the test cases that the program of a step ran; `None` if there are none.
fn cases_of(attempt: &AttemptState, path: &str) -> Option<Counts> {
    // The cases come directly before the end of their step.
    let inside = format!("{path}/");
    let cases = attempt
        .steps
        .iter()
        .rev()
        .take_while(|(path, step)| step.action == CASE && path.starts_with(&inside));
    let mut counts = Counts::default();
    for (_, step) in cases {
        counts.add(step.result.as_ref().map(|result| result.outcome));
    }
    (counts.total > 0).then_some(counts)
}

fn step(folded: Option<&AttemptState>, result: &StepResult, verbose: bool) -> Vec<Line> {
    let phase_path = result.path.split('/').next().unwrap_or_default();
    let phase = folded.and_then(|attempt| attempt.steps.get(phase_path));
    let phase = phase.map_or(phase_path, |phase| phase.name.as_str());
    let title = step_title(phase, &result.name);
    let elapsed = duration(result.elapsed_us);
    // The reason of a failed suite counts its cases itself.
    let cases = folded.filter(|_| result.outcome.is_ok());
    let cases = cases.and_then(|attempt| cases_of(attempt, &result.path));
    let cases = cases.map_or(String::new(), |cases| format!(", {}", cases_text(&cases)));
    let elapsed = format!("{elapsed}{cases}");
    let reason = result.reason.as_deref().map(clean);
    let text = match (result.outcome, &reason) {
        (Outcome::Skipped, reason) => {
            let reason = reason.as_deref().unwrap_or("no reason given");
            let word = if result.unreached {
                "not run"
            } else {
                "skipped"
            };
            format!("{title} ... {word}: {reason}")
        }
        (Outcome::Passed, _) => match &result.restored {
            Some(of) => format!("{title} ... {}", restored(of)),
            None => format!("{title} ... passed {elapsed}"),
        },
        (outcome, Some(reason)) => format!("{title} ... {outcome} {elapsed}: {reason}"),
        (outcome, None) => format!("{title} ... {outcome} {elapsed}"),
    };
    let mut lines = vec![Line::new(result.outcome.into(), text)];
    for check in &result.checks {
        if verbose || !check.passed {
            let (tone, word) = if check.passed {
                (Tone::Dim, "held")
            } else {
                (Tone::Bad, "failed")
            };
            lines.push(Line::new(
                tone,
                format!("    check {word}: {}", clean(&check.expression)),
            ));
        }
    }
    if verbose {
        let captured = captured(&result.captured, true).into_iter();
        lines.extend(captured.map(|line| Line::new(line.tone, format!("    {}", line.text))));
    }
    if verbose && let Some(output) = &result.output {
        let printed = printed(output, true).into_iter();
        lines.extend(printed.map(|line| Line::new(line.tone, format!("    {}", line.text))));
    }
    lines
}
