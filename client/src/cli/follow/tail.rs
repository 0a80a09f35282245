//! The logs of one cell as they are written, in lines, for the full-screen view.

use crate::credential::Client;
use phalanx_proto::v1;
use phalanx_shared::id::{CellId, RunId};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Batches of lines that may wait for the screen; a full channel slows the stream down.
const WAITING: usize = 16;
/// A longer line is shown in pieces.
const LINE_BYTES: usize = 4 << 10;

/// Follows the logs of a cell's newest attempt until it is dropped.
pub(super) struct Tail {
    lines: mpsc::Receiver<Vec<String>>,
    _reading: AbortOnDropHandle<()>,
}

impl Tail {
    pub(super) fn begin(client: Client, run: &RunId, cell: &CellId) -> Tail {
        let (sender, lines) = mpsc::channel(WAITING);
        let request = v1::LogsRequest {
            run_id: run.to_string(),
            cell: cell.to_string(),
            follow: true,
            ..v1::LogsRequest::default()
        };
        Tail {
            lines,
            _reading: AbortOnDropHandle::new(tokio::spawn(read(client, request, sender))),
        }
    }
}

/// Returns the next lines of a tail; waits forever without one, or after its end.
pub(super) async fn next(tail: &mut Option<Tail>) -> Vec<String> {
    let next = match tail {
        Some(tail) => tail.lines.recv().await,
        None => None,
    };
    match next {
        Some(lines) => lines,
        None => std::future::pending().await,
    }
}

async fn read(mut client: Client, request: v1::LogsRequest, sender: mpsc::Sender<Vec<String>>) {
    let mut lines = Lines::default();
    let ended = match client.logs(request).await {
        Err(status) => Err(status),
        Ok(answer) => {
            let mut records = answer.into_inner();
            loop {
                match records.message().await {
                    Ok(Some(record)) => {
                        let lines = lines.of(&record);
                        if !lines.is_empty() && sender.send(lines).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            }
        }
    };
    let mut last = lines.rest();
    last.push(match ended {
        Ok(()) => "(end)".to_owned(),
        Err(status) => format!("({})", phalanx_proto::broken(&status)),
    });
    let _ = sender.send(last).await;
}

/// Splits records into lines.
#[derive(Default)]
struct Lines {
    /// Lines without an end, by service and stream.
    open: HashMap<(String, i32), Vec<u8>>,
}

impl Lines {
    fn of(&mut self, record: &v1::LogRecord) -> Vec<String> {
        let service = &record.service;
        if let Some(to) = record.gap_to {
            let lost = to.saturating_sub(record.offset);
            return vec![format!(
                "{service} | [{lost} bytes not kept: {}]",
                record.gap_reason
            )];
        }
        let open = self.open.entry((service.clone(), record.stream));
        let open = open.or_default();
        let mut lines = Vec::new();
        for piece in record.data.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || open.len() >= LINE_BYTES {
                lines.push(line(service, open));
                open.clear();
            }
        }
        lines
    }

    /// Returns the lines that never got an end.
    fn rest(self) -> Vec<String> {
        let open = self.open.into_iter().filter(|(_, text)| !text.is_empty());
        let mut lines: Vec<String> = open
            .map(|((service, _), text)| line(&service, &text))
            .collect();
        lines.sort_unstable();
        lines
    }
}

fn line(service: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    format!("{service} | {}", text.trim_end_matches(['\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_two_services_become_lines() {
        let record = |service: &str, data: &str| v1::LogRecord {
            service: service.to_owned(),
            data: data.as_bytes().to_vec(),
            ..v1::LogRecord::default()
        };
        let mut lines = Lines::default();
        assert!(lines.of(&record("a", "one ")).is_empty());
        assert_eq!(lines.of(&record("b", "x\ny")), ["b | x"]);
        assert_eq!(lines.of(&record("a", "line\r\n")), ["a | one line"]);
        assert!(lines.of(&record("a", "no end")).is_empty());
        assert_eq!(lines.rest(), ["a | no end", "b | y"]);
    }
}
