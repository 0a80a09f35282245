//! The compressed blocks of a report: one per cell with its detail, one per attempt with its logs; and the
//! artifacts that it shows.

use super::block::{compressed, log_text};
use super::cell;
use crate::artifacts::Contents;
use crate::logs::{Logs, ServiceLog};
use crate::view::{CellView, RunView};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped, html};
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use std::collections::HashMap;

/// Blocks of a report, in the order in which they stand in the file.
pub struct Packed {
    cells: Vec<(CellId, String)>,
    logs: Vec<LogBlock>,
    /// Artifacts in base64, by digest.
    artifacts: Vec<(String, String)>,
}

/// Logs of one attempt.
struct LogBlock {
    cell: CellId,
    attempt: u32,
    lines: usize,
    /// `None` if the block was left out to keep to the limit.
    content: Option<String>,
}

/// Packs as many details of cells and as many logs as fit: those of cells that aren't ok first, then in plan order.
pub fn pack(
    view: &RunView,
    logs: Option<&Logs>,
    artifacts: &Contents,
    cell_bytes: usize,
    log_bytes: usize,
) -> Packed {
    let cells = pack_cells(view, artifacts, cell_bytes);
    let logs = logs.map_or_else(Vec::new, |logs| pack_logs(view, logs, log_bytes));
    let artifacts = artifacts.all();
    let artifacts = artifacts.map(|(digest, bytes)| (digest.to_owned(), STANDARD.encode(bytes)));
    Packed {
        cells,
        logs,
        artifacts: artifacts.collect(),
    }
}

fn pack_cells(view: &RunView, artifacts: &Contents, cell_bytes: usize) -> Vec<(CellId, String)> {
    let mut room = cell_bytes;
    let mut cells = Vec::new();
    for cell in worst_first(view) {
        let detail = compressed(&cell::detail(view, cell, artifacts).into_string());
        match room.checked_sub(detail.len()) {
            Some(rest) => room = rest,
            // One that is far too large leaves room for others.
            None if detail.len() > cell_bytes / 10 => continue,
            None => break,
        }
        cells.push((cell.id.clone(), detail));
    }
    cells
}

/// Returns the cells that aren't ok, then the others, each in plan order.
fn worst_first(view: &RunView) -> impl Iterator<Item = &CellView> {
    let is_ok = |cell: &&CellView| cell.outcome.is_some_and(Outcome::is_ok);
    let (good, bad): (Vec<&CellView>, Vec<&CellView>) = view.cells.iter().partition(is_ok);
    bad.into_iter().chain(good)
}

fn pack_logs(view: &RunView, logs: &Logs, log_bytes: usize) -> Vec<LogBlock> {
    let mut of_attempt: HashMap<(&CellId, u32), Vec<&ServiceLog>> = HashMap::new();
    for log in logs.services.iter().filter(|log| !log.lines.is_empty()) {
        let services = of_attempt.entry((&log.cell, log.attempt)).or_default();
        services.push(log);
    }
    let mut room = log_bytes;
    let mut blocks = Vec::new();
    for cell in worst_first(view) {
        // The newest attempt counts, so its logs are the last to be left out.
        for attempt in cell.attempts.iter().rev() {
            let Some(services) = of_attempt.get(&(&cell.id, attempt.attempt)) else {
                continue;
            };
            // Nothing is compressed that could hardly fit any more.
            let content = (room > 0).then(|| compressed(&log_text(services)));
            let content = content.filter(|content| content.len() <= room);
            room = match &content {
                Some(content) => room - content.len(),
                None => 0,
            };
            blocks.push(LogBlock {
                cell: cell.id.clone(),
                attempt: attempt.attempt,
                lines: services.iter().map(|log| log.lines.len()).sum(),
                content,
            });
        }
    }
    blocks
}

impl Packed {
    /// Returns the number of cells with details.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Returns the blocks as elements that the browser doesn't run.
    pub fn markup(&self) -> Markup {
        html! {
            @for (cell, detail) in &self.cells {
                script type="text/plain" id=(format!("d-{cell}")) { (PreEscaped(detail)) }
            }
            @for (digest, content) in &self.artifacts {
                script type="text/plain" id=(format!("file-{digest}")) { (PreEscaped(content)) }
            }
            @for log in &self.logs {
                script type="text/plain" class="log" id=(format!("l-{}-{}", log.cell, log.attempt)) data-cell=(log.cell)
                    data-attempt=(log.attempt) data-lines=(log.lines) data-left-out[log.content.is_none()] {
                    @if let Some(content) = &log.content { (PreEscaped(content)) }
                }
            }
        }
    }
}
