//! The live table: renders one frame from the state of a run, the time and the size of the screen. The CLI draws it.
//!
//! If all cells fit they are in plan order, so that no line moves. If not, failed and running cells are shown and the
//! others are summarized. A frame is never higher than the screen nor wider than its columns.

use super::style::{Style, Tone};
use super::text::{clean, duration, fit, plural};
use super::view::micros;
use console::measure_text_width;
use phalanx_shared::event::ServiceState;
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, CellState, CellStatus, RunState};
use phalanx_shared::time::Timestamp;
use std::borrow::Cow;
use std::collections::HashMap;

/// Why cells that no agent holds are waiting, as reported by the coordinator.
pub type Waits = HashMap<CellId, String>;

/// Size of a screen in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
}

/// Maximum number of services in a cell's line.
const NAMED: usize = 3;

/// A cell's line before layout.
struct Row<'a> {
    name: &'a str,
    state: &'static str,
    tone: Tone,
    phase: &'a str,
    step: Cow<'a, str>,
    elapsed: String,
    rank: u8,
}

/// Returns the frame: a headline and a line for each cell worth showing.
pub fn frame(
    state: &RunState,
    waits: &Waits,
    now: Timestamp,
    size: Size,
    style: Style,
) -> Vec<String> {
    let width = size.width.saturating_sub(1).max(10); // the last column would wrap on some terminals
    let rows: Vec<Row<'_>> = state
        .cells
        .iter()
        .map(|(id, cell)| row(state, waits, id, cell, now))
        .collect();
    let room = size.height.saturating_sub(4).max(1); // headline, column titles, the summary of the others, the cursor's line
    let shown = choose(&rows, room);
    let layout = Layout::of(&rows, width);
    let mut lines = vec![headline(state, &rows, now, width, style)];
    if size.height > 5 {
        lines.push(style.paint(
            Tone::Dim,
            &layout.line("CELL", "STATE", "PHASE", "STEP", "TIME", |text| {
                text.to_owned()
            }),
        ));
    }
    for row in shown.iter().filter_map(|index| rows.get(*index)) {
        let paint = |text: &str| style.paint(row.tone, text);
        lines.push(layout.line(
            row.name,
            row.state,
            row.phase,
            &row.step,
            &row.elapsed,
            paint,
        ));
    }
    if shown.len() < rows.len() {
        lines.push(style.paint(Tone::Dim, &rest(&rows, &shown, width)));
    }
    lines.truncate(size.height.saturating_sub(1).max(1));
    lines
}

fn row<'a>(
    state: &'a RunState,
    waits: &'a Waits,
    id: &'a CellId,
    cell: &'a CellState,
    now: Timestamp,
) -> Row<'a> {
    let name = state
        .planned(id)
        .map_or(id.as_str(), |planned| planned.name.as_str());
    let attempt = cell.attempts.iter().rev().find(|attempt| !attempt.returned);
    let elapsed = attempt.and_then(|attempt| {
        let ended = attempt.finished.or(cell.finished).unwrap_or(now);
        attempt
            .started
            .map(|started| duration(micros(ended.since(started))))
    });
    let (word, tone, rank) = match (cell.outcome, cell.status) {
        (Some(outcome), _) => (outcome.as_str(), outcome.into(), rank_of(outcome)),
        (None, CellStatus::Queued) => ("queued", Tone::Dim, 5),
        (None, CellStatus::Offered | CellStatus::Accepted) => ("offered", Tone::Dim, 3),
        (None, CellStatus::Running) => ("running", Tone::Busy, 2),
        (None, CellStatus::Ended | CellStatus::Finished) => ("ended", Tone::Busy, 2),
    };
    let why = waits.get(id).map(String::as_str);
    let (phase, step) = match (attempt, cell.status, cell.outcome) {
        (_, _, Some(_)) => (
            "",
            Cow::Borrowed(cell.reason.as_deref().unwrap_or_default()),
        ),
        (_, CellStatus::Queued, None) => ("", Cow::Borrowed(why.unwrap_or_default())),
        (Some(attempt), ..) => where_it_is(attempt),
        (None, ..) => ("", Cow::Borrowed("")),
    };
    Row {
        name,
        state: word,
        tone,
        phase,
        step,
        elapsed: elapsed.unwrap_or_default(),
        rank,
    }
}

/// Returns the priority of a finished cell's row when not all rows fit. Failures come first, then running, waiting and
/// finished cells.
fn rank_of(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Failed | Outcome::Errored => 1,
        Outcome::Cancelled => 6,
        Outcome::Flaky => 7,
        Outcome::Skipped | Outcome::Passed => 8,
    }
}

/// Returns phase and step of an attempt; services that aren't ready are added to the step.
pub fn where_it_is(attempt: &AttemptState) -> (&str, Cow<'_, str>) {
    let phase = name_of(attempt, attempt.phase.as_deref());
    let runs = attempt.started.is_some() && attempt.finished.is_none();
    let services = if runs {
        not_ready(attempt)
    } else {
        String::new()
    };
    let step = match &attempt.step {
        Some(step) if services.is_empty() => Cow::Borrowed(name_of(attempt, Some(step))),
        Some(step) => Cow::Owned(format!("{} ({services})", name_of(attempt, Some(step)))),
        None if !services.is_empty() => Cow::Owned(services),
        None if runs => Cow::Borrowed("…"),
        None => Cow::Borrowed(""),
    };
    (phase, step)
}

/// Returns the services that aren't ready, each with its activity or state: `web: unhealthy, db: not ready yet`.
fn not_ready(attempt: &AttemptState) -> String {
    let state = |state: ServiceState| match state {
        ServiceState::Pulled | ServiceState::Built => Some("being created"),
        ServiceState::Created => Some("starting"),
        ServiceState::Started => Some("not ready yet"),
        ServiceState::Ready
        | ServiceState::Exited
        | ServiceState::Stopped
        | ServiceState::Removed => None,
    };
    let told = attempt
        .progress
        .iter()
        .map(|(name, doing)| format!("{name}: {doing}"));
    let quiet = attempt
        .services
        .iter()
        .filter(|(name, _)| !attempt.progress.contains_key(*name))
        .filter_map(|(name, view)| Some(format!("{name}: {}", state(view.state)?)));
    let mut named: Vec<String> = told.chain(quiet).collect();
    if named.len() > NAMED {
        let more = named.len() - NAMED;
        named.truncate(NAMED);
        named.push(format!("{more} more"));
    }
    named.join(", ")
}

fn name_of<'a>(attempt: &'a AttemptState, path: Option<&'a str>) -> &'a str {
    let path = path.unwrap_or_default();
    attempt
        .steps
        .get(path)
        .map_or(path, |step| step.name.as_str())
}

/// Returns the indices of the rows to show, in plan order.
fn choose(rows: &[Row<'_>], room: usize) -> Vec<usize> {
    if rows.len() <= room {
        return (0..rows.len()).collect();
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|index| rows.get(*index).map_or(u8::MAX, |row| row.rank));
    let failed = rows.iter().filter(|row| row.rank == 1).count();
    let most_failed = failed.min((room / 3).max(1)); // running cells stay visible, however many failed
    let mut shown: Vec<usize> = order.iter().take(most_failed).copied().collect();
    shown.extend(order.iter().skip(failed).take(room - most_failed));
    let missing = room - shown.len();
    shown.extend(
        order
            .iter()
            .skip(most_failed)
            .take(missing.min(failed - most_failed)),
    );
    shown.sort_by_key(|index| (rows.get(*index).map_or(u8::MAX, |row| row.rank), *index));
    shown
}

fn rest(rows: &[Row<'_>], shown: &[usize], width: usize) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for (_, row) in rows
        .iter()
        .enumerate()
        .filter(|(index, _)| !shown.contains(index))
    {
        match counts.iter_mut().find(|(word, _)| *word == row.state) {
            Some((_, count)) => *count += 1,
            None => counts.push((row.state, 1)),
        }
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    fit(&format!("… and {}", parts.join(", ")), width)
        .trim_end()
        .to_owned()
}

fn headline(
    state: &RunState,
    rows: &[Row<'_>],
    now: Timestamp,
    width: usize,
    style: Style,
) -> String {
    let done = rows
        .iter()
        .filter(|row| matches!(row.rank, 1 | 6..))
        .count();
    let spec = state.plan.as_ref().map_or("", |plan| plan.spec.as_str());
    let wall = state
        .submitted
        .map(|from| duration(micros(now.since(from))))
        .unwrap_or_default();
    let mut parts = vec![
        (
            Tone::Strong,
            format!("{} {done}/{}", clean(spec), rows.len()),
        ),
        (Tone::Plain, wall),
    ];
    for (word, tone) in [
        ("failed", Tone::Bad),
        ("errored", Tone::Bad),
        ("running", Tone::Busy),
        ("offered", Tone::Dim),
        ("queued", Tone::Dim),
        ("passed", Tone::Good),
        ("flaky", Tone::Warn),
        ("skipped", Tone::Warn),
        ("cancelled", Tone::Warn),
    ] {
        let count = rows.iter().filter(|row| row.state == word).count();
        if count > 0 {
            parts.push((tone, format!("{count} {word}")));
        }
    }
    let held = state
        .cells
        .values()
        .filter(|cell| cell.outcome.is_some() && cell.holds_agent())
        .count();
    if state.is_finished() && held > 0 {
        parts.push((Tone::Busy, format!("cleaning up {}", plural(held, "cell"))));
    } else if state.cancel.is_some() {
        parts.push((Tone::Warn, "cancelling".to_owned()));
    }
    let mut line = String::new();
    let mut used = 0;
    for (tone, text) in parts {
        let needs = measure_text_width(&text) + if used == 0 { 0 } else { 2 };
        if used + needs > width {
            break;
        }
        if used > 0 {
            line += "  ";
        }
        line += &style.paint(tone, &text);
        used += needs;
    }
    line
}

/// Widths of the columns; a narrow screen drops the phase first, then the step.
struct Layout {
    name: usize,
    phase: Option<usize>,
    step: Option<usize>,
}

const STATE: usize = 9;
const TIME: usize = 7;

impl Layout {
    fn of(rows: &[Row<'_>], width: usize) -> Layout {
        let widest = |of: fn(&Row<'_>) -> usize, least: usize| {
            rows.iter().map(of).max().unwrap_or(0).max(least)
        };
        let fixed = STATE + TIME + 4;
        let name = widest(|row| measure_text_width(&clean(row.name)), 4);
        if width < 50 {
            let name = name.min(width.saturating_sub(fixed)).max(1);
            return Layout {
                name,
                phase: None,
                step: None,
            };
        }
        let name = name.min(width * 2 / 5);
        let left = width.saturating_sub(fixed + name);
        if width < 72 {
            return Layout {
                name,
                phase: None,
                step: Some(left.saturating_sub(2)),
            };
        }
        let phase = widest(|row| measure_text_width(&clean(row.phase)), 5).min(16);
        let step = widest(|row| measure_text_width(&clean(&row.step)), 4);
        Layout {
            name,
            phase: Some(phase),
            step: Some(step.min(left.saturating_sub(phase + 4))),
        }
    }

    fn line(
        &self,
        name: &str,
        state: &str,
        phase: &str,
        step: &str,
        time: &str,
        paint: impl Fn(&str) -> String,
    ) -> String {
        let mut line = fit(&clean(name), self.name);
        line += "  ";
        line += &paint(&fit(state, STATE));
        if let Some(width) = self.phase {
            line += &format!("  {}", fit(&clean(phase), width));
        }
        if let Some(width) = self.step {
            line += &format!("  {}", fit(&clean(step), width));
        }
        line += &format!("  {time:>TIME$}");
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::event::{AttemptRef, Event, EventKind};
    use phalanx_shared::id::Token;

    /// Returns a run of one cell after events of the run (`false`) and of its attempt (`true`).
    pub fn told(kinds: Vec<(bool, EventKind)>) -> RunState {
        let kinds = kinds.into_iter().map(|kind| ("c", kind)).collect();
        of_cells(&[("c", "cell")], kinds)
    }

    /// Returns a run with cells given by id and name.
    pub fn of_cells(cells: &[(&str, &str)], kinds: Vec<(&str, (bool, EventKind))>) -> RunState {
        let mut state = RunState::new("r".into());
        let cells: Vec<_> = cells
            .iter()
            .map(|(id, name)| {
                serde_json::json!({
                    "id": id, "name": name, "matrix": {}, "runs_on": [], "experimental": false, "timeout_ms": 1, "attempts": 1,
                    "retries": 0, "resources": { "millicpus": 0, "memory_bytes": 0, "subnets": 0 },
                })
            })
            .collect();
        let plan = serde_json::json!({
            "digest": "", "spec": "shop", "inputs": {}, "axes": [], "coverage": [], "max_parallel": null, "fail_fast": false,
            "cells": cells,
        });
        let submitted = EventKind::RunSubmitted {
            plan: serde_json::from_value(plan).unwrap(),
            origin: serde_json::Map::new(),
        };
        let all = std::iter::once(("", (false, submitted))).chain(kinds);
        for (seq, (cell, (of_agent, kind))) in all.enumerate() {
            state.apply(&Event {
                run: "r".into(),
                attempt: of_agent.then(|| AttemptRef {
                    cell: cell.into(),
                    attempt: 1,
                }),
                seq: u64::try_from(seq).unwrap(),
                at: Timestamp(0),
                mono_us: 0,
                kind,
            });
        }
        state
    }

    fn shown(state: &RunState, waits: &Waits) -> String {
        let size = Size {
            width: 120,
            height: 20,
        };
        frame(state, waits, Timestamp(0), size, Style::PLAIN).join("\n")
    }

    #[test]
    fn a_queued_cell_says_why_it_waits() {
        let why = "no agent offers label gpu";
        let waits = Waits::from([("c".into(), why.to_owned())]);
        let text = shown(&told(Vec::new()), &waits);
        assert!(text.contains(why), "{text}");
    }

    #[test]
    fn a_running_cell_says_which_services_it_waits_for() {
        let service = |service: &str, state| {
            let changed = EventKind::ServiceChanged {
                service: service.to_owned(),
                state,
                began: Timestamp(0),
                detail: None,
                image: None,
                queued_us: 0,
                reference: None,
            };
            (true, changed)
        };
        let progress = |service: &str, doing: &str| {
            let (service, doing) = (service.to_owned(), doing.to_owned());
            (true, EventKind::ServiceProgress { service, doing })
        };
        let offered = EventKind::CellOffered {
            token: Token {
                run: "r".into(),
                cell: "c".into(),
                attempt: 1,
                epoch: 1,
            },
            agent: "a".into(),
            agent_name: "a".to_owned(),
            placement: Default::default(),
        };
        let mut events = vec![
            (false, offered),
            (true, EventKind::AttemptStarted { agent: "a".into() }),
            progress("db", "pulling postgres:17"),
            service("web", ServiceState::Started),
            service("other", ServiceState::Ready),
        ];
        let text = shown(&told(events.clone()), &Waits::new());
        let both = "db: pulling postgres:17, web: not ready yet";
        assert!(text.contains(both), "{text}");
        events.push((
            true,
            EventKind::StepStarted {
                path: "t/0".to_owned(),
                name: "orders a book".to_owned(),
                action: "exec".to_owned(),
            },
        ));
        events.push(service("db", ServiceState::Ready));
        let text = shown(&told(events.clone()), &Waits::new());
        assert!(
            text.contains("orders a book (web: not ready yet)"),
            "{text}"
        );
        events.push(service("web", ServiceState::Ready));
        let text = shown(&told(events), &Waits::new());
        assert!(
            text.contains("orders a book") && !text.contains('('),
            "{text}"
        );
    }
}
