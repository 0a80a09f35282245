//! The log lines of a run, as reports with logs take them: already masked by the agents, split into lines by the reader.

mod gather;

pub use gather::{Gatherer, Limit, Origin};

use phalanx_shared::event::LogStream;
use phalanx_shared::id::CellId;
use phalanx_shared::time::Timestamp;

/// Logs of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// One entry per attempt and service, in plan order, then by attempt and in the order in which services wrote first.
    pub services: Vec<ServiceLog>,
}

/// What one service wrote during one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLog {
    /// Cell of the attempt.
    pub cell: CellId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Name of the service; `agent` for the agent's own notes.
    pub service: String,
    /// Lines of both streams in the order of their arrival.
    pub lines: Vec<LogLine>,
}

/// One line, or the mark of a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Wall time at which the chunk that holds the line's first byte arrived at the agent.
    pub at: Timestamp,
    /// Output stream.
    pub stream: LogStream,
    /// The line without its line break; for a gap, how many bytes are missing and why.
    pub text: String,
    /// Whether bytes are missing here.
    pub gap: bool,
}

impl Logs {
    /// Returns the logs of one attempt.
    pub fn of<'a>(
        &'a self,
        cell: &'a CellId,
        attempt: u32,
    ) -> impl Iterator<Item = &'a ServiceLog> {
        self.services
            .iter()
            .filter(move |log| log.cell == *cell && log.attempt == attempt)
    }

    /// Returns the number of lines of all services.
    pub fn lines(&self) -> usize {
        self.services.iter().map(|log| log.lines.len()).sum()
    }
}
