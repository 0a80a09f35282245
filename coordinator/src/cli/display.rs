//! The course of a run on standard error: a live table on a terminal, lines otherwise, nothing when quiet.

use super::say::{self, Voice, to_stderr};
use super::screen::Screen;
use crate::report::live::frame;
use crate::report::plain;
use crate::report::style::Style;
use crate::report::text::{Line, lines_text};
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;

/// Shows a run while it goes on.
#[derive(Debug)]
pub struct Display {
    voice: Voice,
    style: Style,
    screen: Option<Screen>,
    /// Lines that go above the table with the next frame.
    lasting: Vec<String>,
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
        }
    }

    /// Whether frames are drawn, so that ticks are worth their time.
    pub fn is_live(&self) -> bool {
        self.screen.is_some()
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

    /// Draws the table as it is now.
    pub fn tick(&mut self, state: &RunState, now: Timestamp) {
        if let Some(screen) = &mut self.screen {
            let size = Screen::size();
            let lines = frame(state, now, size, self.style);
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
