//! Colours by meaning. The caller decides once whether colours are used (`--color`, `NO_COLOR`, a terminal or not).

use crate::view::coverage::CoverageState;
use phalanx_shared::outcome::Outcome;

/// Meaning of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Bad,
    Warn,
    Busy,
}

impl From<Outcome> for Tone {
    fn from(outcome: Outcome) -> Tone {
        match outcome {
            Outcome::Passed => Tone::Good,
            Outcome::Flaky | Outcome::Skipped | Outcome::Cancelled => Tone::Warn,
            Outcome::Failed | Outcome::Errored => Tone::Bad,
        }
    }
}

impl From<CoverageState> for Tone {
    fn from(state: CoverageState) -> Tone {
        match state {
            CoverageState::Passed => Tone::Good,
            CoverageState::Failed | CoverageState::Errored => Tone::Bad,
            CoverageState::Absent => Tone::Plain,
            CoverageState::Flaky
            | CoverageState::Skipped
            | CoverageState::NotRun
            | CoverageState::Cancelled => Tone::Warn,
        }
    }
}

/// Writes tones as terminal colours, or as plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences are written.
    pub colors: bool,
}

impl Style {
    /// Text without escape sequences.
    pub const PLAIN: Style = Style { colors: false };

    /// Returns the text in its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Warn => "33",
            Tone::Busy => "36",
        };
        if self.colors && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
