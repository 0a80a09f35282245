//! Exit codes of the program, documented in docs/cli.md.

use phalanx_report::view::RunView;
use phalanx_shared::outcome::Outcome;

/// Success.
pub const OK: u8 = 0;
/// The system under test is wrong: a cell failed, or every step was skipped and so nothing was tested.
pub const FAILED: u8 = 1;
/// The call or an input is wrong; nothing was run.
pub const USAGE: u8 = 2;
/// The result is unknown: a cell errored, or the coordinator could not be reached.
pub const ERRORED: u8 = 3;
/// Cancelled, by Ctrl-C or `phalanx cancel`.
pub const INTERRUPTED: u8 = 130;

/// Returns the exit code of a run.
pub fn of_run(view: &RunView) -> u8 {
    match view.outcome {
        Some(Outcome::Errored) => ERRORED,
        Some(Outcome::Failed) => FAILED,
        Some(Outcome::Cancelled) | None => INTERRUPTED,
        Some(Outcome::Skipped) => FAILED,
        Some(Outcome::Passed | Outcome::Flaky) if view.only_skips() => FAILED,
        Some(Outcome::Passed | Outcome::Flaky) => OK,
    }
}
