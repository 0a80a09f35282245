//! Shows the progress of a run on standard error: a live table on a terminal, lines otherwise, nothing when quiet.

use super::say::{self, Voice, to_stderr};
use super::screen::Screen;
use phalanx_proto::v1;
use phalanx_report::live::{Size, Waits, frame};
use phalanx_report::plain;
use phalanx_report::still::Still;
use phalanx_report::style::Style;
use phalanx_report::text::{Line, fit, lines_text};
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use std::collections::HashSet;
use std::time::Duration;

/// Time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Time between two checks for slow steps and services.
const LOOK: Duration = Duration::from_secs(1);

/// Shows a run in progress.
#[derive(Debug)]
pub struct Display {
    voice: Voice,
    style: Style,
    screen: Option<Screen>,
    /// Lines to print above the table with the next frame.
    lasting: Vec<String>,
    /// The reasons why cells wait, from the coordinator's last answer.
    waits: Waits,
    /// Reasons that were already printed as lines.
    told: HashSet<String>,
    /// Tracks what cells are still at.
    still: Still,
    /// The coordinator's problems, from its last answer.
    problems: Vec<String>,
}

impl Display {
    /// Creates the display for the terminal and the flags.
    pub fn new(voice: Voice) -> Display {
        let live = voice.is_live();
        if live {
            say::hold();
        }
        Display {
            voice,
            style: voice.stderr_style(),
            screen: live.then(Screen::default),
            lasting: Vec::new(),
            waits: Waits::new(),
            told: HashSet::new(),
            still: Still::default(),
            problems: Vec::new(),
        }
    }

    /// Takes the coordinator's reasons for waiting cells. Without a table, prints each reason once.
    pub fn waits(&mut self, state: &RunState, groups: &[v1::WaitingCells]) {
        self.waits.clear();
        for group in groups {
            let reason = group.reasons.join("; ");
            let cells = group.cells.iter().map(|cell| CellId::from(cell.clone()));
            self.waits.extend(cells.map(|cell| (cell, reason.clone())));
            if self.screen.is_none()
                && !self.voice.quiet
                && self.told.insert(without_numbers(&reason))
            {
                self.say(plain::waits(state, &group.cells, group.count, &reason));
            }
        }
    }

    /// Takes the coordinator's current problems. Without a table, prints each one when it begins and when it ends.
    pub fn problems(&mut self, problems: Vec<String>) {
        let before = std::mem::replace(&mut self.problems, problems);
        if self.screen.is_some() || self.voice.quiet {
            return;
        }
        let unknown = |of: &[String], among: &[String]| -> Vec<String> {
            let known: HashSet<String> = among.iter().map(|p| without_numbers(p)).collect();
            let these = of.iter().filter(|p| !known.contains(&without_numbers(p)));
            these.cloned().collect()
        };
        for begun in unknown(&self.problems, &before) {
            self.say(plain::problem(&begun));
        }
        for over in unknown(&before, &self.problems) {
            self.say(plain::no_problem(&over));
        }
    }

    /// How often to call [`Display::tick`].
    pub fn pace(&self) -> Duration {
        match self.screen {
            Some(_) => FRAME,
            None => LOOK,
        }
    }

    /// Shows an event that is already folded into the state.
    pub fn event(&mut self, state: &RunState, event: &Event) {
        if self.voice.quiet {
            return;
        }
        let lines = || plain::lines(state, event, self.voice.verbose);
        if self.screen.is_none() {
            to_stderr(&lines_text(&lines(), self.style));
        } else if self.voice.verbose || is_lasting(&event.kind) {
            let painted = lines()
                .into_iter()
                .map(|Line { tone, text }| self.style.paint(tone, &text));
            let painted: Vec<String> = painted.collect();
            self.lasting.extend(painted);
        }
    }

    /// Prints a message of the client, above the table if there is one.
    pub fn say(&mut self, line: Line) {
        let text = self.style.paint(line.tone, &line.text);
        if self.screen.is_some() {
            self.lasting.push(text);
        } else {
            to_stderr(&(text + "\n"));
        }
    }

    /// Draws the table. Without a table, prints what takes long.
    pub fn tick(&mut self, state: &RunState, now: Timestamp) {
        if self.screen.is_none() && !self.voice.quiet {
            for line in self.still.lines(state, now) {
                self.say(line);
            }
        }
        if let Some(screen) = &mut self.screen {
            let size = Screen::size();
            let problems = self.problems.iter().map(|problem| {
                let Line { tone, text } = plain::problem(problem);
                let width = size.width.saturating_sub(1).max(10);
                self.style.paint(tone, &fit(&text, width))
            });
            let mut lines: Vec<String> = problems.take(size.height / 4).collect();
            let rest = Size {
                height: size.height - lines.len(),
                ..size
            };
            lines.extend(frame(state, &self.waits, now, rest, self.style));
            let mut lasting = std::mem::take(&mut self.lasting);
            lasting.extend(say::take_held());
            let _ = screen.draw(&lasting, &lines, size, &mut std::io::stderr().lock());
        }
    }

    /// Removes the table; lasting lines stay.
    pub fn finish(&mut self) {
        if let Some(mut screen) = self.screen.take() {
            let mut lasting = std::mem::take(&mut self.lasting);
            lasting.extend(say::take_held());
            let _ = screen.draw(&lasting, &[], Screen::size(), &mut std::io::stderr().lock());
            say::release();
        }
    }
}

/// Removes digits, so that a reason counts as the same if only its numbers changed.
fn without_numbers(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Whether an event also gets a line because the table doesn't show it, or not for long.
fn is_lasting(kind: &EventKind) -> bool {
    match kind {
        EventKind::CellFinished { outcome, .. } => {
            !matches!(outcome, Outcome::Passed | Outcome::Skipped)
        }
        EventKind::AttemptLost { .. }
        | EventKind::CancelRequested { .. }
        | EventKind::TornDown { .. }
        | EventKind::LogGap { .. }
        | EventKind::Note { .. } => true,
        _ => false,
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}
