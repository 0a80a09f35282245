//! How the program ends, for scripts. Documented in docs/cli.md.

use phalanx_report::view::RunView;
use phalanx_shared::outcome::Outcome;

/// Everything is fine.
pub const OK: u8 = 0;
/// The system under test is wrong: a cell failed. Also when every step was skipped, since nothing was tested.
pub const FAILED: u8 = 1;
/// The call or an input is wrong; nothing was run.
pub const USAGE: u8 = 2;
/// It could not be judged: a cell errored, or the coordinator could not be reached.
pub const ERRORED: u8 = 3;
/// Cancelled, by Ctrl-C or `phalanx cancel`.
pub const INTERRUPTED: u8 = 130;

/// The exit code of a run.
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
