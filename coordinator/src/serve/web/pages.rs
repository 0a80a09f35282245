//! The pages, rendered from what their callers read. Pure.

pub mod agents;
pub mod cell;
pub mod compare;
pub mod errors;
pub mod frame;
pub mod history;
pub mod run;
pub mod runs;
pub mod timing;
pub mod travel;

use super::board::Region;
use super::fold::Folded;
use super::guard::Actions;
use super::waits::Waits;
use phalanx_shared::id::CellId;

/// A page about one run whose regions change with the run's events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// The run: verdict, grid, findings, and buttons for these actions.
    Run(Actions),
    /// A cell: attempts with services and steps.
    Cell(CellId),
    /// The run's times.
    Timing,
}

/// Returns the regions of a page that may have changed after an event; all of them without one. They are made from the
/// fold alone, so the same events give the same page.
pub fn regions(page: &Page, folded: &Folded, since: Option<u64>) -> Vec<Region> {
    match page {
        Page::Run(actions) => run::regions(folded, *actions, since),
        Page::Cell(cell) => cell::regions(folded, cell, since),
        Page::Timing => timing::regions(folded, since),
    }
}

/// Returns the regions of a page that don't come from the journal.
pub fn passing(page: &Page, folded: &Folded, waits: &Waits) -> Vec<Region> {
    match page {
        Page::Run(_) => run::passing(folded, waits),
        Page::Cell(cell) => cell::passing(folded, cell, waits),
        Page::Timing => Vec::new(),
    }
}
