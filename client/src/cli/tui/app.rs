//! What the full-screen view shows, and what its keys do. Pure: no terminal, no clock.

use super::grid::Grid;
use phalanx_report::finding::{Findings, findings};
use phalanx_report::live::Waits;
use phalanx_report::style::Tone;
use phalanx_report::text::Line;
use phalanx_report::view::RunView;
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::{CellState, CellStatus, RunState};
use phalanx_shared::time::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Log lines that are kept for the pane.
const LOG_LINES: usize = 5_000;
/// Messages of the client that are kept.
const MESSAGES: usize = 50;
/// Findings are made again after this many times the time that making them took, so that they never take more than a
/// small part of the time.
const PAUSE: u32 = 20;

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// The grid, the findings and the chosen cell in short.
    Overview,
    /// The steps of the chosen cell.
    Cell,
    /// The logs of the chosen cell.
    Logs,
    /// The keys.
    Help,
}

/// Which cells can be chosen with `j` and `k`, and are bright in the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    All,
    Red,
    Running,
    Waiting,
}

impl Filter {
    fn next(self) -> Filter {
        match self {
            Filter::All => Filter::Red,
            Filter::Red => Filter::Running,
            Filter::Running => Filter::Waiting,
            Filter::Waiting => Filter::All,
        }
    }

    /// Returns the name for the title.
    pub(super) fn name(self) -> &'static str {
        match self {
            Filter::All => "all",
            Filter::Red => "red",
            Filter::Running => "running",
            Filter::Waiting => "waiting",
        }
    }

    /// Returns whether a cell passes.
    pub(super) fn holds(self, cell: &CellState) -> bool {
        match self {
            Filter::All => true,
            Filter::Red => cell.outcome.is_some_and(|outcome| !outcome.is_ok()),
            Filter::Running => {
                cell.outcome.is_none()
                    && !matches!(cell.status, CellStatus::Queued | CellStatus::Ended)
            }
            Filter::Waiting => {
                cell.outcome.is_none()
                    && matches!(cell.status, CellStatus::Queued | CellStatus::Ended)
            }
        }
    }
}

/// What the caller has to do after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing but a new frame.
    Nothing,
    /// As if Ctrl-C had reached the program as a signal.
    Interrupt,
    /// Cancel the run.
    Cancel,
    /// Follow the logs of this cell from now on.
    Logs(CellId),
    /// Follow no logs any more.
    NoLogs,
}

/// State of the view.
#[derive(Debug)]
pub struct App {
    /// What fills the screen.
    pub(super) pane: Pane,
    /// The pane to return to from the help.
    before: Pane,
    pub(super) filter: Filter,
    /// Position of the column axis.
    axis: usize,
    pub(super) grid: Grid,
    /// The chosen cell.
    pub(super) chosen: Option<CellId>,
    /// First line shown in the panes of a cell; counted from the end for logs.
    pub(super) scroll: usize,
    /// How far the steps can be scrolled, as far as they were drawn.
    pub(super) reach: AtomicUsize,
    /// Whether `x` waits for `y`.
    pub(super) asks_cancel: bool,
    /// Lines of the chosen cell's logs.
    pub(super) logs: VecDeque<String>,
    pub(super) messages: VecDeque<Line>,
    pub(super) waits: Waits,
    pub(super) problems: Vec<String>,
    /// The expected finish, as a sentence.
    pub(super) expected: Option<String>,
    pub(super) found: Findings,
    /// The view that `found` refers to.
    pub(super) view: Option<RunView>,
    /// Number of finished cells when the findings were made.
    known: Option<u32>,
    /// How long making them took, and when.
    cost: (Duration, Timestamp),
}

impl Default for App {
    /// Starts with the overview.
    fn default() -> App {
        App {
            pane: Pane::Overview,
            before: Pane::Overview,
            filter: Filter::All,
            axis: 0,
            grid: Grid::default(),
            chosen: None,
            scroll: 0,
            reach: AtomicUsize::new(0),
            asks_cancel: false,
            logs: VecDeque::new(),
            messages: VecDeque::new(),
            waits: Waits::new(),
            problems: Vec::new(),
            expected: None,
            found: Findings::default(),
            view: None,
            known: None,
            cost: (Duration::ZERO, Timestamp(0)),
        }
    }
}

impl App {
    /// Takes a message of the client.
    pub fn say(&mut self, line: Line) {
        if self.messages.len() == MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(line);
    }

    /// Returns the messages that must not be lost with the screen.
    pub fn serious(&self) -> impl Iterator<Item = &Line> {
        self.messages.iter().filter(|line| line.tone == Tone::Bad)
    }

    /// Takes the reasons why cells wait.
    pub fn waits(&mut self, waits: Waits) {
        self.waits = waits;
    }

    /// Takes the coordinator's current problems.
    pub fn problems(&mut self, problems: Vec<String>) {
        self.problems = problems;
    }

    /// Takes the expected finish, as a sentence.
    pub fn expect(&mut self, expected: Option<String>) {
        self.expected = expected;
    }

    /// Takes lines of the chosen cell's logs.
    pub fn log(&mut self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            if self.logs.len() == LOG_LINES {
                self.logs.pop_front();
            }
            self.logs.push_back(line);
            if self.pane == Pane::Logs && self.scroll > 0 {
                // What is read stays where it is.
                self.scroll = (self.scroll + 1).min(LOG_LINES);
            }
        }
    }

    /// Returns whether the findings are out of date and may be made again.
    pub fn wants_findings(&self, state: &RunState, now: Timestamp) -> bool {
        let (cost, at) = self.cost;
        self.known != Some(finished(state)) && now.since(at) >= cost * PAUSE
    }

    /// Makes the findings again; `cost` is how long the last ones took.
    pub fn find(&mut self, state: &RunState, now: Timestamp) {
        let view = RunView::of(state, now, None);
        self.found = findings(&view, None);
        self.view = Some(view);
        self.known = Some(finished(state));
    }

    /// Records how long making the findings took.
    pub fn found_in(&mut self, cost: Duration, now: Timestamp) {
        self.cost = (cost, now);
    }

    /// Lays out the grid if the plan has just become known.
    pub fn look(&mut self, state: &RunState) {
        if self.grid.rows.is_empty() {
            self.grid = Grid::of(state, self.axis);
            self.chosen = state.cells.keys().next().cloned();
        }
    }

    /// Handles a key.
    pub fn key(&mut self, code: KeyCode, modifiers: KeyModifiers, state: &RunState) -> Asked {
        if modifiers.contains(KeyModifiers::CONTROL) {
            return match code {
                KeyCode::Char('c') => Asked::Interrupt,
                _ => Asked::Nothing,
            };
        }
        if std::mem::take(&mut self.asks_cancel) {
            return match code {
                KeyCode::Char('y') => Asked::Cancel,
                _ => Asked::Nothing,
            };
        }
        match code {
            KeyCode::Char('j') | KeyCode::Down => self.step(state, true),
            KeyCode::Char('k') | KeyCode::Up => self.step(state, false),
            KeyCode::Char('n') => return self.next_red(state, true),
            KeyCode::Char('N') => return self.next_red(state, false),
            KeyCode::Char('f') => self.filter = self.filter.next(),
            KeyCode::Char('x') => self.asks_cancel = !state.is_finished(),
            KeyCode::Char('c') => {
                self.axis += 1;
                self.grid = Grid::of(state, self.axis);
            }
            KeyCode::Char('?') if self.pane != Pane::Help => {
                self.before = self.pane;
                self.pane = Pane::Help;
            }
            KeyCode::Enter if self.chosen.is_some() => {
                let left = self.pane == Pane::Logs;
                self.show(Pane::Cell);
                if left {
                    self.logs.clear();
                    return Asked::NoLogs;
                }
            }
            KeyCode::Char('l') => return self.follow(),
            KeyCode::Esc | KeyCode::Char('q' | '?') | KeyCode::Backspace => return self.back(),
            _ => {}
        }
        Asked::Nothing
    }

    /// Shows the logs of the chosen cell from now on.
    fn follow(&mut self) -> Asked {
        let Some(cell) = self.chosen.clone() else {
            return Asked::Nothing;
        };
        self.show(Pane::Logs);
        self.logs.clear();
        Asked::Logs(cell)
    }

    /// Chooses the next or previous red cell; after the last one comes the first.
    fn next_red(&mut self, state: &RunState, forward: bool) -> Asked {
        let before = self.chosen.clone();
        self.choose(state, forward, Filter::Red);
        if self.chosen == before {
            let count = state.cells.len();
            let mut all: Box<dyn Iterator<Item = usize>> = match forward {
                true => Box::new(0..count),
                false => Box::new((0..count).rev()),
            };
            let red = all.find_map(|index| {
                let (id, cell) = state.cells.get_index(index)?;
                Filter::Red.holds(cell).then(|| id.clone())
            });
            self.chosen = red.or(self.chosen.take());
        }
        match self.pane {
            // The logs are those of the cell in the title.
            Pane::Logs if self.chosen != before => self.follow(),
            _ => Asked::Nothing,
        }
    }

    fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.scroll = 0;
    }

    fn back(&mut self) -> Asked {
        match self.pane {
            Pane::Help => self.pane = self.before,
            Pane::Logs => {
                self.show(Pane::Overview);
                self.logs.clear();
                return Asked::NoLogs;
            }
            Pane::Overview | Pane::Cell => self.show(Pane::Overview),
        }
        Asked::Nothing
    }

    /// Moves down or up: the choice in the overview, the text elsewhere.
    fn step(&mut self, state: &RunState, down: bool) {
        match self.pane {
            Pane::Overview => self.choose(state, down, self.filter),
            Pane::Cell if down => {
                self.scroll = (self.scroll + 1).min(self.reach.load(Ordering::Relaxed));
            }
            // The end of the logs is at the bottom.
            Pane::Logs if !down => self.scroll = (self.scroll + 1).min(self.logs.len()),
            Pane::Cell | Pane::Logs => self.scroll = self.scroll.saturating_sub(1),
            Pane::Help => {}
        }
    }

    /// Chooses the next or previous cell that passes a filter, in plan order.
    fn choose(&mut self, state: &RunState, forward: bool, filter: Filter) {
        let count = state.cells.len();
        let at = self.chosen.as_ref();
        let at = at
            .and_then(|cell| state.cells.get_index_of(cell))
            .unwrap_or(0);
        let passes = |index: &usize| {
            state
                .cells
                .get_index(*index)
                .is_some_and(|(_, cell)| filter.holds(cell))
        };
        let found = match forward {
            true => (at + 1..count).find(passes),
            false => (0..at).rev().find(passes),
        };
        if let Some((id, _)) = found.and_then(|index| state.cells.get_index(index)) {
            self.chosen = Some(id.clone());
            if self.pane == Pane::Cell {
                self.scroll = 0;
            }
        }
    }

    /// Returns the tone and the line at the bottom: a question, or the newest message.
    pub(super) fn bottom(&self) -> (Tone, String) {
        if self.asks_cancel {
            return (
                Tone::Warn,
                "cancel the run? y cancels, any other key goes on".to_owned(),
            );
        }
        match self.messages.back() {
            Some(line) => (line.tone, line.text.clone()),
            None => (
                Tone::Dim,
                "j k choose · enter steps · l logs · n N red cells · f filter · c columns · x cancel · ? help"
                    .to_owned(),
            ),
        }
    }
}

fn finished(state: &RunState) -> u32 {
    let counts = state.counts();
    counts.total - counts.queued - counts.running
}
