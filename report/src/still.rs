//! Reports now and then what slow cells are doing, where no table shows it: otherwise a step that takes minutes looks
//! like one that hangs.
//!
//! Pure: state and time are parameters, the lines are returned. A cell whose step keeps changing is not reported. A
//! cell that stays at a step is reported after a while, and then at growing intervals.

use super::live::where_it_is;
use super::style::Tone;
use super::text::{Line, clean, duration, step_title};
use super::view::micros;
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::{AttemptState, CellState, RunState};
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// Time after which a cell is first reported.
const FIRST: Duration = Duration::from_secs(30);
/// Longest interval between reports of a cell.
const LONGEST: Duration = Duration::from_secs(600);
/// Maximum number of cells to name at once.
const NAMED: usize = 5;

/// Reports made so far for each cell.
#[derive(Debug, Default)]
pub struct Still {
    told: HashMap<CellId, Told>,
}

#[derive(Debug)]
struct Told {
    since: Timestamp,
    next: Duration,
}

impl Still {
    /// Returns the lines that are due.
    pub fn lines(&mut self, state: &RunState, now: Timestamp) -> Vec<Line> {
        let mut due = Vec::new();
        for (id, cell) in &state.cells {
            let Some(place) = Place::of(cell) else {
                self.told.remove(id);
                continue;
            };
            let since = place.since();
            let new = || Told { since, next: FIRST };
            let told = self.told.entry(id.clone()).or_insert_with(new);
            if told.since != since {
                *told = new();
            }
            let waited = now.since(since);
            if waited >= told.next {
                // If calls come late, the missed reports are skipped.
                while told.next <= waited {
                    told.next += told.next.min(LONGEST);
                }
                due.push((id, place, waited));
            }
        }
        let mut lines: Vec<Line> = due
            .iter()
            .take(NAMED)
            .map(|(id, place, waited)| {
                let name = state.planned(id).map(|planned| clean(&planned.name));
                let name = name.unwrap_or_else(|| clean(id.as_str()));
                let waited = duration(micros(*waited));
                Line::new(
                    Tone::Dim,
                    format!("{name} | still {} after {waited}", place.text()),
                )
            })
            .collect();
        if let Some(more) = due.len().checked_sub(NAMED).filter(|more| *more > 0) {
            let text = match more {
                1 => "1 more cell takes as long".to_owned(),
                more => format!("{more} more cells take as long"),
            };
            lines.push(Line::new(Tone::Dim, text));
        }
        lines
    }
}

/// Current activity of a cell.
enum Place<'a> {
    Running(&'a AttemptState, Timestamp),
    CleaningUp(Timestamp),
}

impl<'a> Place<'a> {
    fn of(cell: &'a CellState) -> Option<Self> {
        let attempt = cell
            .attempts
            .last()
            .filter(|attempt| !attempt.returned && !attempt.gone)?;
        match (attempt.started?, attempt.finished) {
            (_, Some(finished)) if attempt.torn_down.is_none() => Some(Place::CleaningUp(finished)),
            (_, Some(_)) => None,
            (started, None) => {
                let step = attempt.step.as_ref().and_then(|at| attempt.steps.get(at));
                // Between two steps: the time since the last one ended.
                let ended = attempt.steps.values().filter_map(|step| {
                    let result = step.result.as_ref()?;
                    let took = i64::try_from(result.elapsed_us).ok()?;
                    Some(Timestamp(result.began.0.saturating_add(took)))
                });
                let idle = || ended.max().unwrap_or(started);
                Some(Place::Running(
                    attempt,
                    step.map_or_else(idle, |step| step.began),
                ))
            }
        }
    }

    fn since(&self) -> Timestamp {
        match self {
            Place::Running(_, since) | Place::CleaningUp(since) => *since,
        }
    }

    fn text(&self) -> String {
        match self {
            Place::CleaningUp(_) => "cleaning up".to_owned(),
            Place::Running(attempt, _) => match where_it_is(attempt) {
                ("", step) if step.is_empty() || step == "…" => "running".to_owned(),
                ("", step) => format!("waiting for {}", clean(&step)),
                (phase, step) => format!("at {}", step_title(phase, &step)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::live::tests::{of_cells, told};
    use super::*;
    use phalanx_shared::event::{EventKind, ServiceState};
    use phalanx_shared::id::Token;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn offered(cell: &str) -> (bool, EventKind) {
        let offered = EventKind::CellOffered {
            token: Token {
                run: "r".into(),
                cell: cell.into(),
                attempt: 1,
                epoch: 1,
            },
            agent: "a".into(),
            agent_name: "a".to_owned(),
            placement: Default::default(),
        };
        (false, offered)
    }

    fn in_a_step() -> Vec<(bool, EventKind)> {
        let (path, name) = ("sync".to_owned(), "sync".to_owned());
        vec![
            offered("c"),
            (true, EventKind::AttemptStarted { agent: "a".into() }),
            (true, EventKind::PhaseStarted { path, name }),
            (
                true,
                EventKind::StepStarted {
                    path: "sync/0".to_owned(),
                    name: "migrate".to_owned(),
                    action: "exec".to_owned(),
                },
            ),
            (
                true,
                EventKind::ServiceChanged {
                    service: "db".to_owned(),
                    state: ServiceState::Started,
                    began: at(0),
                    detail: None,
                    image: None,
                    queued_us: 0,
                    reference: None,
                },
            ),
        ]
    }

    #[test]
    fn a_long_step_is_told_with_what_it_waits_for_and_pauses_grow() {
        let state = told(in_a_step());
        let mut still = Still::default();
        let mut said = Vec::new();
        for second in 0..3_600 {
            for line in still.lines(&state, at(second)) {
                said.push((second, line.text));
            }
        }
        let times: Vec<i64> = said.iter().map(|(second, _)| *second).collect();
        assert_eq!(
            times,
            [30, 60, 120, 240, 480, 960, 1_560, 2_160, 2_760, 3_360]
        );
        assert_eq!(
            said.get(2).unwrap().1,
            "cell | still at sync > migrate (db: not ready yet) after 2m00s"
        );
        let mut late = Still::default();
        assert_eq!(late.lines(&state, at(500)).len(), 1);
        assert_eq!(late.lines(&state, at(501)).len(), 0);
    }

    #[test]
    fn a_service_before_the_first_step_and_clean_up_are_told_and_an_ended_cell_is_not() {
        let mut events = in_a_step();
        events.drain(2..4);
        let state = told(events.clone());
        let line = |state: &RunState| Still::default().lines(state, at(31)).pop();
        assert_eq!(
            line(&state).unwrap().text,
            "cell | still waiting for db: not ready yet after 31.0s"
        );
        events.push((
            true,
            EventKind::AttemptFinished {
                outcome: phalanx_shared::outcome::Outcome::Passed,
                reason: None,
                timed_out: false,
                culprit: None,
            },
        ));
        let text = line(&told(events.clone())).unwrap().text;
        assert_eq!(text, "cell | still cleaning up after 31.0s");
        events.push((
            true,
            EventKind::TornDown {
                removed: 1,
                left: Vec::new(),
                kept: Vec::new(),
                began: at(0),
            },
        ));
        assert_eq!(line(&told(events)), None);
        assert_eq!(
            line(&told(Vec::new())),
            None,
            "a queued one says why it waits"
        );
    }

    #[test]
    fn of_many_cells_some_are_named() {
        let names: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
        let mut events = Vec::new();
        for name in &names {
            events.push((name.as_str(), offered(name)));
            let started = EventKind::AttemptStarted { agent: "a".into() };
            events.push((name.as_str(), (true, started)));
        }
        let cells: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), n.as_str())).collect();
        let state = of_cells(&cells, events);
        let lines = Still::default().lines(&state, at(40));
        assert_eq!(lines.len(), 6);
        assert_eq!(lines.last().unwrap().text, "7 more cells take as long");
    }
}
