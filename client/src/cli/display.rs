//! Shows the progress of a run on standard error: a live table on a terminal, lines otherwise, nothing when quiet, or
//! the full-screen view on request.

use super::ahead;
use super::error::CliError;
use super::say::{self, Voice, to_stderr};
use super::screen::Screen;
use super::tui::{App, Asked, Full, Key};
use phalanx_proto::v1;
use phalanx_report::history::expected::{Forecast, Outlook};
use phalanx_report::live::{Size, Waits, frame};
use phalanx_report::plain;
use phalanx_report::still::Still;
use phalanx_report::style::{Style, Tone};
use phalanx_report::text::{Line, fit, lines_text};
use phalanx_shared::clock::Stopwatch;
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::mpsc;

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
    /// The full-screen view, instead of table and lines.
    full: Option<(Full, App)>,
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
    /// When the run is expected to finish.
    outlook: Outlook,
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
            full: None,
            lasting: Vec::new(),
            waits: Waits::new(),
            told: HashSet::new(),
            still: Still::default(),
            problems: Vec::new(),
            outlook: Outlook::default(),
        }
    }

    /// Creates the display with the full-screen view. Returns the keys that are pressed.
    ///
    /// # Errors
    /// Returns an error if standard error or standard input isn't a terminal.
    pub fn full(voice: Voice) -> Result<(Display, mpsc::UnboundedReceiver<Key>), CliError> {
        let (full, keys) = Full::take(voice.stderr_style().colors)?;
        say::hold();
        let mut display = Display::new(Voice {
            quiet: true,
            ..voice
        });
        display.full = Some((full, App::default()));
        Ok((display, keys))
    }

    /// Handles a key of the full-screen view and shows its effect.
    pub fn key(&mut self, key: Key, state: &RunState, now: Timestamp) -> Asked {
        let Some((full, app)) = &mut self.full else {
            return Asked::Nothing;
        };
        let asked = app.key(key.code, key.modifiers, state);
        full.draw(app, state, now);
        asked
    }

    /// Takes log lines for the full-screen view; they are shown with the next frame.
    pub fn log(&mut self, lines: Vec<String>) {
        if let Some((_, app)) = &mut self.full {
            app.log(lines);
        }
    }

    /// Takes the coordinator's reasons for waiting cells, and what is done ahead for them. Without a table, prints each
    /// once.
    pub fn waits(&mut self, state: &RunState, groups: &[v1::WaitingCells]) {
        self.waits.clear();
        for group in groups {
            let reason = group.reasons.join("; ");
            let cells = group.cells.iter().map(|cell| CellId::from(cell.clone()));
            let shown = match group.ahead.as_slice() {
                [] => reason.clone(),
                all => {
                    let all: Vec<String> = all.iter().map(ahead::text).collect();
                    format!("{reason}; ahead: {}", all.join(", "))
                }
            };
            self.waits.extend(cells.map(|cell| (cell, shown.clone())));
            if self.screen.is_none()
                && !self.voice.quiet
                && self.told.insert(without_numbers(&reason))
            {
                self.say(plain::waits(state, &group.cells, group.count, &reason));
            }
            for one in &group.ahead {
                let stage = ahead::stage(one).filter(|_| self.screen.is_none());
                if let Some(stage) = stage
                    && !self.voice.quiet
                    && self.told.insert(stage.clone())
                {
                    self.say(plain::ahead(&stage));
                }
            }
        }
        if let Some((_, app)) = &mut self.full {
            app.waits(self.waits.clone());
        }
    }

    /// Takes the coordinator's current problems. Without a table, prints each one when it begins and when it ends.
    pub fn problems(&mut self, problems: Vec<String>) {
        if let Some((_, app)) = &mut self.full {
            app.problems(problems.clone());
        }
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

    /// Takes what earlier runs say about the time that the run takes.
    pub fn forecast(&mut self, forecast: Forecast) {
        self.outlook = Outlook::new(forecast);
    }

    /// How often to call [`Display::tick`].
    pub fn pace(&self) -> Duration {
        match (&self.screen, &self.full) {
            (None, None) => LOOK,
            _ => FRAME,
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
        if let Some((_, app)) = &mut self.full {
            return app.say(line);
        }
        let text = self.style.paint(line.tone, &line.text);
        if self.screen.is_some() {
            self.lasting.push(text);
        } else {
            to_stderr(&(text + "\n"));
        }
    }

    /// Draws the table. Without a table, prints what takes long.
    pub fn tick(&mut self, state: &RunState, now: Timestamp) {
        if let Some((full, app)) = &mut self.full {
            app.look(state);
            let expected = self.outlook.expected(state, now);
            app.expect(expected.map(|expected| expected.text(now)));
            if app.wants_findings(state, now) {
                let making = Stopwatch::start();
                app.find(state, now);
                app.found_in(making.elapsed(), now);
            }
            for text in say::take_held() {
                app.say(Line::new(Tone::Warn, text));
            }
            return full.draw(app, state, now);
        }
        if self.screen.is_none() && !self.voice.quiet {
            let mut lines = self.still.lines(state, now);
            lines.extend(self.outlook.line(state, now));
            for line in lines {
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
            let expected = self.outlook.expected(state, now);
            lines.extend(expected.map(|expected| {
                let text = fit(&expected.text(now), size.width.saturating_sub(1).max(10));
                self.style.paint(Tone::Dim, &text)
            }));
            let rest = Size {
                height: size.height.saturating_sub(lines.len()),
                ..size
            };
            lines.extend(frame(state, &self.waits, now, rest, self.style));
            let mut lasting = std::mem::take(&mut self.lasting);
            lasting.extend(say::take_held());
            let _ = screen.draw(&lasting, &lines, size, &mut std::io::stderr().lock());
        }
    }

    /// Removes the table; lasting lines stay. After the full-screen view only serious messages are printed.
    pub fn finish(&mut self) {
        if let Some((full, app)) = self.full.take() {
            drop(full);
            say::release();
            for line in app.serious() {
                to_stderr(&(self.style.paint(line.tone, &line.text) + "\n"));
            }
        }
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
        EventKind::ArtifactCollected(artifact) => !artifact.is_kept(),
        EventKind::AttemptLost { .. }
        | EventKind::CancelRequested { .. }
        | EventKind::TornDown { .. }
        | EventKind::LogGap { .. }
        | EventKind::ArtifactLost { .. }
        | EventKind::Note { .. } => true,
        _ => false,
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}
