//! When a running run is expected to finish, from earlier runs of its spec.
//!
//! Each earlier run is one scenario: the remaining cells take the time that they took there, and the waiting ones go,
//! the longest first, to the places that become free. The scenarios' finishes give the expectation (their median) and
//! its spread (their 10 % and 90 % quantiles). A whole run is one scenario, so a machine that was slow for all cells
//! stays slow for all.

use super::band::{median, quantile};
use super::{History, later, most_at_once};
use crate::style::Tone;
use crate::text::{Line, duration, plural};
use crate::view::micros;
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::{CellState, RunState};
use phalanx_shared::time::Timestamp;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// Number of earlier runs that are used, the newest ones.
pub const RUNS: usize = 10;

/// When a run is expected to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Median of the scenarios.
    pub finish: Timestamp,
    /// Their 10 % quantile.
    pub earliest: Timestamp,
    /// Their 90 % quantile.
    pub latest: Timestamp,
    /// Number of earlier runs that it is made from.
    pub runs: usize,
}

impl Expected {
    /// Formats the time left: `about 2m10s left (1m50s to 3m00s, from 8 runs)`.
    pub fn text(&self, now: Timestamp) -> String {
        let left = |at: Timestamp| duration(micros(at.since(now)));
        let runs = plural(self.runs, "run");
        if self.finish <= now {
            return format!("about to finish, as {runs} did by now");
        }
        let (earliest, latest) = (left(self.earliest), left(self.latest));
        match earliest == latest {
            true => format!("about {} left (from {runs})", left(self.finish)),
            false => format!(
                "about {} left ({earliest} to {latest}, from {runs})",
                left(self.finish)
            ),
        }
    }
}

/// Pause between two computations.
const LOOK: Duration = Duration::from_secs(1);
/// Least time left from which on lines tell it, and the first pause between two lines; pauses double.
const TOLD: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(60);

/// The expected finish of one run while it is followed.
#[derive(Debug, Default)]
pub struct Outlook {
    forecast: Forecast,
    /// The last result, and when it was computed.
    last: Option<(Timestamp, Option<Expected>)>,
    /// When the next line is due, and the pause after it.
    next: Option<(Timestamp, Duration)>,
}

impl Outlook {
    /// Starts with a forecast.
    pub fn new(forecast: Forecast) -> Outlook {
        Outlook {
            forecast,
            ..Outlook::default()
        }
    }

    /// Returns when the run is expected to finish, computed at most once a second.
    pub fn expected(&mut self, state: &RunState, now: Timestamp) -> Option<Expected> {
        let fresh = |at: Timestamp| now >= at && now.since(at) < LOOK;
        match self.last {
            Some((at, expected)) if fresh(at) && !state.is_finished() => expected,
            _ => {
                let expected = self.forecast.expected(state, now);
                self.last = Some((now, expected));
                expected
            }
        }
    }

    /// Returns the line that is due, where no table shows the expected finish: at once, and then at growing pauses.
    pub fn line(&mut self, state: &RunState, now: Timestamp) -> Option<Line> {
        let (due, pause) = self.next.unwrap_or((now, FIRST));
        if now < due {
            return None;
        }
        let expected = self.expected(state, now)?;
        if expected.finish.since(now) < TOLD {
            return None;
        }
        self.next = Some((later(now, micros(pause)), pause.saturating_mul(2)));
        Some(Line::new(Tone::Dim, expected.text(now)))
    }
}

/// How long a cell took.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Took {
    /// From its start to its outcome, in microseconds.
    elapsed_us: u64,
    /// Clean-up after it, in which its place stays taken.
    clean_up_us: u64,
}

/// What earlier runs say about the duration of a spec's cells.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    runs: Vec<HashMap<CellId, Took>>,
    /// Medians over the runs, for cells that a run doesn't have.
    usual: HashMap<CellId, Took>,
    /// Median over all cells, for cells that no run has.
    any: Option<Took>,
    /// Most cells that ran at the same time in the newest run.
    abreast: usize,
}

impl Forecast {
    /// Returns the forecast from the newest judged runs of a history, except for the run itself.
    pub fn of(history: &History, except: &str) -> Forecast {
        let judged = history.judged().rev();
        let newest: Vec<_> = judged
            .filter(|run| run.run.as_str() != except)
            .take(RUNS)
            .collect();
        let mut runs = Vec::new();
        let mut all: HashMap<CellId, Vec<Took>> = HashMap::new();
        for run in &newest {
            let mut cells = HashMap::new();
            for cell in &run.cells {
                // A cell that failed ended early, or waited for its timeout.
                let ok = cell.outcome.is_some_and(|outcome| outcome.is_ok());
                let (Some(elapsed_us), Some((id, _)), true) =
                    (cell.elapsed_us, history.cell(cell.cell), ok)
                else {
                    continue;
                };
                let took = Took {
                    elapsed_us,
                    clean_up_us: cell.clean_up_us,
                };
                cells.insert(id.clone(), took);
                all.entry(id.clone()).or_default().push(took);
            }
            if !cells.is_empty() {
                runs.push(cells);
            }
        }
        let every: Vec<Took> = all.values().flatten().copied().collect();
        let usual = all.into_iter();
        Forecast {
            runs,
            usual: usual
                .filter_map(|(id, times)| Some((id, middle(&times)?)))
                .collect(),
            any: middle(&every),
            abreast: newest.first().map_or(0, |run| run.abreast),
        }
    }

    /// Returns when the run is expected to finish; `None` if it is finished, or no earlier run is known. Takes
    /// O(cells × log cells) time for each earlier run.
    pub fn expected(&self, state: &RunState, now: Timestamp) -> Option<Expected> {
        if state.is_finished() || state.cells.is_empty() || self.runs.is_empty() {
            return None;
        }
        let places = self.places(state, now);
        let ends: Vec<u64> = self
            .runs
            .iter()
            .map(|run| self.left_us(run, state, now, places))
            .collect();
        let at = |share: f64| quantile(&ends, share).map(|left| later(now, left));
        Some(Expected {
            finish: at(0.5)?,
            earliest: at(0.1)?,
            latest: at(0.9)?,
            runs: ends.len(),
        })
    }

    /// Returns how many cells can run at the same time: as many as did in this run, or, while no cell has ended, as did
    /// in the run before.
    fn places(&self, state: &RunState, now: Timestamp) -> usize {
        let attempts = state.cells.values().flat_map(|cell| &cell.attempts);
        let seen = most_at_once(attempts.filter_map(|attempt| {
            let ended = attempt.torn_down.as_ref().map_or(now, |done| done.ended);
            let began = attempt.started?;
            Some((began, ended.max(later(began, 1))))
        }));
        let beginning = state.cells.values().all(|cell| cell.outcome.is_none());
        let places = if beginning {
            seen.max(self.abreast)
        } else {
            seen
        };
        let limit = state.plan.as_ref().and_then(|plan| plan.max_parallel);
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        places.min(limit).max(1)
    }

    /// Returns the microseconds until the last outcome if every cell takes the time of one earlier run.
    fn left_us(
        &self,
        run: &HashMap<CellId, Took>,
        state: &RunState,
        now: Timestamp,
        places: usize,
    ) -> u64 {
        let mut end = 0;
        let mut busy: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
        let mut waiting: Vec<Took> = Vec::new();
        for (id, cell) in &state.cells {
            let took = run
                .get(id)
                .or_else(|| self.usual.get(id))
                .or(self.any.as_ref());
            let Some(took) = took.copied() else {
                continue;
            };
            match Place::of(cell, now) {
                Place::Waiting => waiting.push(took),
                Place::Running { since_us } => {
                    let left = took.elapsed_us.saturating_sub(since_us);
                    end = end.max(left);
                    busy.push(Reverse(left + took.clean_up_us));
                }
                Place::CleaningUp { since_us } => {
                    busy.push(Reverse(took.clean_up_us.saturating_sub(since_us)));
                }
                Place::Gone => {}
            }
        }
        while busy.len() > places {
            busy.pop();
        }
        busy.extend(std::iter::repeat_n(Reverse(0), places - busy.len()));
        waiting.sort_unstable_by_key(|took| Reverse(took.elapsed_us));
        for took in waiting {
            let Reverse(free) = busy.pop().unwrap_or_default();
            end = end.max(free + took.elapsed_us);
            busy.push(Reverse(free + took.elapsed_us + took.clean_up_us));
        }
        end
    }
}

/// What a cell still has before it.
enum Place {
    Waiting,
    Running { since_us: u64 },
    CleaningUp { since_us: u64 },
    Gone,
}

impl Place {
    fn of(cell: &CellState, now: Timestamp) -> Place {
        let held = cell.attempts.last().filter(|attempt| attempt.is_held());
        let since = |at: Option<Timestamp>| at.map_or(0, |at| micros(now.since(at)));
        match (held, cell.outcome) {
            (Some(attempt), _) if attempt.finished.is_some() => Place::CleaningUp {
                since_us: since(attempt.finished),
            },
            (_, Some(_)) => Place::Gone,
            (Some(attempt), None) => Place::Running {
                since_us: since(attempt.started),
            },
            (None, None) => Place::Waiting,
        }
    }
}

fn middle(times: &[Took]) -> Option<Took> {
    let of = |field: fn(&Took) -> u64| median(&times.iter().map(field).collect::<Vec<_>>());
    Some(Took {
        elapsed_us: of(|took| took.elapsed_us)?,
        clean_up_us: of(|took| took.clean_up_us)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::planted::{Cell, Random, Run, history};
    use super::*;
    use phalanx_shared::outcome::Outcome;

    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

    /// A run of twelve cells on three places, as the scheduler would have run it.
    fn run(number: usize, random: &mut Random) -> Run {
        let mut free = [0.0_f64; 3];
        let mut cells = Vec::new();
        for (index, name) in NAMES.iter().enumerate().rev() {
            let seconds = random.around(20.0 + 5.0 * index as f64, 1.0);
            let place = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            let mut cell = Cell::of(&[("db", name)], Outcome::Passed, seconds);
            (cell.began, cell.clean_up) = (*place, 2.0);
            *place += seconds + 2.0;
            cells.push(cell);
        }
        Run::of(number, cells)
    }

    /// Returns the run as it was after some seconds.
    fn cut(run: &Run, seconds: f64) -> Run {
        let mut cut = run.clone();
        cut.finished = false;
        for cell in &mut cut.cells {
            let took: f64 = cell.steps.iter().map(|step| step.2).sum();
            if cell.began > seconds {
                cell.steps.clear();
                cell.outcome = None;
            } else if cell.began + took > seconds {
                cell.steps = vec![("check", Outcome::Cancelled, 0.0)];
                cell.outcome = None;
            } else if cell.began + took + cell.clean_up > seconds {
                cell.clean_up = 1e9;
            }
        }
        cut
    }

    #[test]
    fn the_expected_finish_is_within_a_few_percent_at_any_time_of_the_run() {
        let mut random = Random(7);
        let past: Vec<Run> = (0..8).map(|number| run(number, &mut random)).collect();
        let forecast = Forecast::of(&history(&past), "");
        let (mut within, mut tried) = (0, 0);
        for number in 10..30 {
            let run = run(number, &mut random);
            let wall = run.view().timing.wall_us as f64 / 1e6;
            for at in [1.0, 0.25 * wall, 0.5 * wall, 0.9 * wall] {
                let state = cut(&run, at).state();
                let now = run.at(at);
                let expected = forecast.expected(&state, now).unwrap();
                let finish = expected.finish.0 as f64 / 1e6 - run.submitted;
                assert!(
                    (finish - wall).abs() < 0.08 * wall,
                    "{finish} instead of {wall} at {at}"
                );
                let (earliest, latest) = (expected.earliest, expected.latest);
                assert!(earliest <= expected.finish && expected.finish <= latest);
                tried += 1;
                within += usize::from(
                    (earliest.0 - 500_000..=latest.0 + 500_000).contains(&run.at(wall).0),
                );
            }
        }
        assert!(
            within * 10 >= tried * 6,
            "{within} of {tried} in the spread"
        );
    }

    #[test]
    fn without_an_earlier_run_and_after_the_end_nothing_is_expected() {
        let mut random = Random(1);
        let runs = [run(0, &mut random)];
        let state = runs[0].state();
        let forecast = Forecast::of(&history(&runs), "");
        assert_eq!(forecast.expected(&state, runs[0].at(1.0)), None, "finished");
        let state = cut(&runs[0], 1.0).state();
        assert_eq!(Forecast::default().expected(&state, runs[0].at(1.0)), None);
        let own = Forecast::of(&history(&runs), "run-000");
        assert_eq!(
            own.expected(&state, runs[0].at(1.0)),
            None,
            "not from itself"
        );
    }

    #[test]
    fn lines_tell_it_at_growing_pauses_and_not_near_the_end() {
        let run = Run::of(1, vec![Cell::of(&[("db", "a")], Outcome::Passed, 400.0)]);
        let mut outlook = Outlook::new(Forecast::of(&history(std::slice::from_ref(&run)), ""));
        let state = cut(&run, 1.0).state();
        let mut told = Vec::new();
        for second in 1..400 {
            let now = run.at(f64::from(second));
            told.extend(outlook.line(&state, now).map(|line| (second, line.text)));
        }
        let times: Vec<i32> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(times, [1, 61, 181]);
        assert_eq!(told[1].1, "about 5m39s left (from 1 run)");
    }

    #[test]
    fn a_cell_that_takes_longer_than_ever_is_about_to_finish() {
        let run = Run::of(1, vec![Cell::of(&[("db", "a")], Outcome::Passed, 10.0)]);
        let forecast = Forecast::of(&history(std::slice::from_ref(&run)), "");
        let state = cut(&run, 5.0).state();
        let text = |seconds: f64| {
            let now = run.at(seconds);
            forecast.expected(&state, now).unwrap().text(now)
        };
        assert_eq!(text(5.0), "about 5.00s left (from 1 run)");
        assert_eq!(text(12.0), "about to finish, as 1 run did by now");
    }
}
