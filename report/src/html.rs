//! `--report html=FILE`: a run as one HTML file that needs nothing else: no server, no network, no other file.
//!
//! The first screen (verdict, grid, findings, times, coverage) is plain HTML and readable without JavaScript. The detail
//! of each cell and its logs are compressed blocks ([`block`]) that the page's script inflates when a cell is opened, so
//! that a run with 500 cells and a million log lines opens at once. The components are functions that the live pages
//! use as well: [`frame`], [`grid`], [`mod@findings`], [`times`], [`coverage`], [`cell`].
//!
//! Everything from outside goes through maud's escaping and [`clean`](crate::text::clean), and the page's policy allows
//! only its own script and style.

pub mod block;
pub mod cell;
pub mod coverage;
pub mod findings;
pub mod frame;
pub mod grid;
pub mod mark;
mod packed;
pub mod summary;
pub mod timeline;
pub mod times;

use crate::artifacts::Contents;
use crate::finding::{Findings, findings};
use crate::logs::Logs;
use crate::text::plural;
use crate::view::RunView;
use mark::Links;
use maud::{Markup, PreEscaped, html};

const STYLE: &str = include_str!("html/report.css");
const SCRIPT: &str = concat!(include_str!("html/grid.js"), include_str!("html/report.js"));
const WORKER: &str = include_str!("html/worker.js");

/// Maximum size of all log blocks together, in bytes of the file. Cells that aren't ok come first; what doesn't fit is
/// named on the cell's page.
pub const LOG_BYTES: usize = 13_000_000;

/// Maximum size of the details of all cells together, in bytes of the file. Cells that aren't ok come first.
pub const CELL_BYTES: usize = 24_000_000;

/// Returns the style sheet of all components.
pub fn style() -> &'static str {
    STYLE
}

/// Returns the script of the grid, which the script of a page follows.
pub fn grid_script() -> &'static str {
    include_str!("html/grid.js")
}

/// Returns the report as one HTML document.
pub fn render(view: &RunView, logs: Option<&Logs>) -> String {
    render_with(view, logs, &Contents::default())
}

/// Returns the report with these artifacts inside it.
pub fn render_with(view: &RunView, logs: Option<&Logs>, artifacts: &Contents) -> String {
    page(view, logs, artifacts, CELL_BYTES, LOG_BYTES)
}

/// Returns the report with other limits for the details of its cells and for its log blocks, in bytes.
pub fn render_within(
    view: &RunView,
    logs: Option<&Logs>,
    cell_bytes: usize,
    log_bytes: usize,
) -> String {
    page(view, logs, &Contents::default(), cell_bytes, log_bytes)
}

fn page(
    view: &RunView,
    logs: Option<&Logs>,
    artifacts: &Contents,
    cell_bytes: usize,
    log_bytes: usize,
) -> String {
    let packed = packed::pack(view, logs, artifacts, cell_bytes, log_bytes);
    let findings = findings(view, logs);
    let body = html! {
        main id="overview" tabindex="-1" data-run=(view.run) {
            (overview(view, &findings, &Links::of_report()))
            @let lacking = view.cells.len() - packed.cells();
            @if lacking > 0 {
                p class="note" {
                    "The steps of " (plural(lacking, "cell")) " are not in this file, which keeps to a limit: "
                    code { "phalanx show " (view.run) " --cell CELL" } " prints them."
                }
            }
        }
        main id="cell" tabindex="-1" hidden {}
        script type="text/plain" id="worker" { (PreEscaped(WORKER)) }
    };
    let title = format!("{} – Phalanx", view.spec);
    frame::alone(&title, STYLE, SCRIPT, &body, &packed.markup())
}

/// Returns the first screen and what follows it: everything that needs no cell to be opened.
fn overview(view: &RunView, findings: &Findings, links: &Links) -> Markup {
    html! {
        (summary::header(view, findings))
        noscript {
            p class="note" {
                "Without JavaScript this page shows everything but the steps and logs of single cells: "
                code { "phalanx show " (view.run) " --cell CELL" } " prints those."
            }
        }
        div class="first" {
            div {
                (grid::section(&view.cells, &findings::axes(findings), links))
                (times::section(view, links))
            }
            (findings::section(view, findings, links))
        }
        @if let Some(table) = &view.coverage { (coverage::section(table, &view.unverified)) }
        (search())
        (summary::cells(view, links))
        (summary::skips(view))
        (summary::footer(view))
    }
}

/// The search over the logs of all cells; the script shows it if the file has logs.
fn search() -> Markup {
    html! {
        section id="search" hidden {
            h2 { "Search all logs" }
            form role="search" {
                label class="sr" for="all-logs" { "Text to search in the logs of all cells" }
                input id="all-logs" type="search" name="q" placeholder="text in any log" autocomplete="off" spellcheck="false";
                button { "Search" }
                output id="found" {}
            }
            ol id="hits" {}
        }
    }
}
