//! The course of a run on standard error: a live table on a terminal, lines otherwise, nothing when quiet.

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

/// Between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Between two looks at what takes long.
const LOOK: Duration = Duration::from_secs(1);

/// Shows a run while it goes on.
#[derive(Debug)]
pub struct Display {
    voice: Voice,
    style: Style,
    screen: Option<Screen>,
    /// Lines that go above the table with the next frame.
    lasting: Vec<String>,
    /// Why cells wait, as last heard.
    waits: Waits,
    /// The reasons that were told as lines.
    told: HashSet<String>,
    /// What cells are still at.
    still: Still,
    /// What keeps the coordinator from doing its work, as last heard.
    problems: Vec<String>,
}

impl Display {
    /// The display that suits the terminal and the flags.
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

    /// What the coordinator says of waiting cells. Without a table each reason is told once.
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

    /// What keeps the coordinator from doing its work at the moment. Without a table each is told when it begins and when it is over.
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

    /// How often [`Display::tick`] is worth its time.
    pub fn pace(&self) -> Duration {
        match self.screen {
            Some(_) => FRAME,
            None => LOOK,
        }
    }

    /// An event, already folded into the state.
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

    /// Words of ours, told above the table.
    pub fn say(&mut self, line: Line) {
        let text = self.style.paint(line.tone, &line.text);
        if self.screen.is_some() {
            self.lasting.push(text);
        } else {
            to_stderr(&(text + "\n"));
        }
    }

    /// Draws the table as it is now; without one, tells what takes long.
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

    /// Removes the table; what is to last stays.
    pub fn finish(&mut self) {
        if let Some(mut screen) = self.screen.take() {
            let mut lasting = std::mem::take(&mut self.lasting);
            lasting.extend(say::take_held());
            let _ = screen.draw(&lasting, &[], Screen::size(), &mut std::io::stderr().lock());
            say::release();
        }
    }
}

/// A reason whose numbers alone have changed is the same.
fn without_numbers(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// What a table can't show, or would soon forget.
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
