//! Splits the stored log records of a run into lines, within a limit.
//!
//! Records come one attempt after the other, each in the order of arrival. A line may span several records, and the
//! records of other outputs may lie between them.

use super::{LogLine, Logs, ServiceLog};
use indexmap::IndexMap;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::CellId;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;

/// A longer line is continued as a further line.
const LINE_BYTES: usize = 64 << 10;

/// How much is gathered; what comes after it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Maximum number of lines of the whole run.
    pub lines: usize,
    /// Maximum bytes of all these lines.
    pub bytes: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Limit {
            lines: 2_000_000,
            bytes: 512 << 20,
        }
    }
}

/// The output that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Cell of the attempt.
    pub cell: &'a CellId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Name of the service.
    pub service: &'a str,
    /// Output stream.
    pub stream: LogStream,
}

/// Gathers lines from records.
#[derive(Debug)]
pub struct Gatherer {
    limit: Limit,
    logs: Logs,
    lines: usize,
    bytes: usize,
    /// The attempt whose records come.
    attempt: Option<(CellId, u32)>,
    services: IndexMap<String, Service>,
}

#[derive(Debug, Default)]
struct Service {
    lines: Vec<LogLine>,
    /// Lines without an end yet, by stream: when they began, and their bytes.
    open: BTreeMap<LogStream, (Timestamp, Vec<u8>)>,
    /// Bytes beyond the limit.
    left_out: usize,
}

impl Gatherer {
    /// Begins without any record.
    pub fn new(limit: Limit) -> Gatherer {
        Gatherer {
            limit,
            logs: Logs::default(),
            lines: 0,
            bytes: 0,
            attempt: None,
            services: IndexMap::new(),
        }
    }

    /// Takes bytes that arrived at a time.
    pub fn chunk(&mut self, from: Origin<'_>, at: Timestamp, bytes: &[u8]) {
        self.begin(from);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES) {
                self.part(from, at, part);
            }
        }
    }

    /// Takes the mark of bytes that could not be kept.
    pub fn gap(&mut self, from: Origin<'_>, at: Timestamp, bytes: u64, reason: &str) {
        self.begin(from);
        let at = self.end_line(from).unwrap_or(at);
        let text = format!("{bytes} bytes not kept: {reason}");
        let gap = LogLine {
            at,
            stream: from.stream,
            text,
            gap: true,
        };
        self.lines += 1;
        self.bytes += gap.text.len();
        self.service(from.service).lines.push(gap);
    }

    /// Returns whether the limit is reached.
    pub fn is_full(&self) -> bool {
        self.lines >= self.limit.lines || self.bytes >= self.limit.bytes
    }

    /// Marks that no more records are read, in the output of the first of them.
    pub fn cut(&mut self, from: Origin<'_>, at: Timestamp) {
        self.begin(from);
        let text = format!("the rest of the run's logs is left out: {}", self.most());
        self.service(from.service).lines.push(LogLine {
            at,
            stream: from.stream,
            text,
            gap: true,
        });
    }

    fn most(&self) -> String {
        let Limit { lines, bytes } = self.limit;
        format!(
            "at most {lines} lines and {} MiB are read here",
            bytes >> 20
        )
    }

    /// Returns everything gathered.
    pub fn finish(mut self) -> Logs {
        self.end_attempt();
        self.logs
    }

    fn begin(&mut self, from: Origin<'_>) {
        let same = |(cell, attempt): &(CellId, u32)| cell == from.cell && *attempt == from.attempt;
        if !self.attempt.as_ref().is_some_and(same) {
            self.end_attempt();
            self.attempt = Some((from.cell.clone(), from.attempt));
        }
    }

    fn service(&mut self, name: &str) -> &mut Service {
        if !self.services.contains_key(name) {
            self.services.insert(name.to_owned(), Service::default());
        }
        self.services.entry(name.to_owned()).or_default()
    }

    fn part(&mut self, from: Origin<'_>, at: Timestamp, part: &[u8]) {
        let full = self.is_full();
        let service = self.service(from.service);
        if full {
            service.left_out += part.len();
            return;
        }
        let (_, open) = service
            .open
            .entry(from.stream)
            .or_insert_with(|| (at, Vec::new()));
        open.extend_from_slice(part);
        if open.ends_with(b"\n") || open.len() >= LINE_BYTES {
            self.end_line(from);
        }
    }

    /// Ends the open line of an output. Returns the time at which it began.
    fn end_line(&mut self, from: Origin<'_>) -> Option<Timestamp> {
        let service = self.service(from.service);
        let (at, bytes) = service.open.remove(&from.stream)?;
        let line = line(at, from.stream, &bytes);
        let length = line.text.len();
        service.lines.push(line);
        self.lines += 1;
        self.bytes += length;
        Some(at)
    }

    fn end_attempt(&mut self) {
        let Some((cell, attempt)) = self.attempt.take() else {
            return;
        };
        for (name, mut service) in std::mem::take(&mut self.services) {
            let mut last = service.lines.last().map(|line| (line.at, line.stream));
            for (stream, (at, bytes)) in service.open {
                self.lines += 1;
                self.bytes += bytes.len();
                service.lines.push(line(at, stream, &bytes));
                last = Some((at, stream));
            }
            if service.left_out > 0 {
                let (at, stream) = last.unwrap_or((Timestamp(0), LogStream::Stdout));
                let text = format!("{} bytes left out: {}", service.left_out, self.most());
                service.lines.push(LogLine {
                    at,
                    stream,
                    text,
                    gap: true,
                });
            }
            self.logs.services.push(ServiceLog {
                cell: cell.clone(),
                attempt,
                service: name,
                lines: service.lines,
            });
        }
    }
}

fn line(at: Timestamp, stream: LogStream, bytes: &[u8]) -> LogLine {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    LogLine {
        at,
        stream,
        text: String::from_utf8_lossy(text).into_owned(),
        gap: false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn gather(limit: Limit, records: &[(u32, &str, LogStream, &str)]) -> Logs {
        let cell = CellId::from("cell");
        let mut gatherer = Gatherer::new(limit);
        for (n, (attempt, service, stream, text)) in records.iter().enumerate() {
            let from = Origin {
                cell: &cell,
                attempt: *attempt,
                service,
                stream: *stream,
            };
            let at = Timestamp(i64::try_from(n).unwrap());
            match text.strip_prefix("GAP ") {
                Some(reason) => gatherer.gap(from, at, 7, reason),
                None => gatherer.chunk(from, at, text.as_bytes()),
            }
        }
        gatherer.finish()
    }

    fn shown(logs: &Logs) -> Vec<String> {
        let lines = logs.services.iter().flat_map(|log| {
            log.lines.iter().map(move |line| {
                let (attempt, service, at) = (log.attempt, &log.service, line.at.0);
                format!("{attempt} {service} {at} {}", line.text)
            })
        });
        lines.collect()
    }

    #[test]
    fn lines_in_pieces_are_joined_and_have_the_time_of_their_beginning() {
        use LogStream::{Stderr, Stdout};
        let logs = gather(
            Limit::default(),
            &[
                (1, "db", Stdout, "one\r\ntw"),
                (1, "web", Stdout, "hello\n"),
                (1, "db", Stderr, "GAP full"),
                (1, "db", Stdout, "o\nopen"),
                (2, "db", Stdout, "again\n"),
            ],
        );
        let expected = [
            "1 db 0 one",
            "1 db 2 7 bytes not kept: full",
            "1 db 0 two",
            "1 db 3 open",
            "1 web 1 hello",
            "2 db 4 again",
        ];
        assert_eq!(shown(&logs), expected);
        assert_eq!(logs.of(&CellId::from("cell"), 2).count(), 1);
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_a_line_without_end_is_cut() {
        let limit = Limit {
            lines: 2,
            bytes: 1 << 20,
        };
        let long = "x".repeat(LINE_BYTES + 5);
        let records = [
            (1, "db", LogStream::Stdout, long.as_str()),
            (1, "db", LogStream::Stdout, "\nmore\nand more\n"),
        ];
        let logs = gather(limit, &records);
        let lines = &logs.services[0].lines;
        assert_eq!(lines[0].text.len(), LINE_BYTES);
        assert_eq!(lines[1].text, "xxxxx");
        assert!(
            lines[2].gap && lines[2].text.starts_with("14 bytes left out"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
        let cell = CellId::from("cell");
        let from = Origin {
            cell: &cell,
            attempt: 1,
            service: "db",
            stream: LogStream::Stdout,
        };
        let mut gatherer = Gatherer::new(limit);
        gatherer.chunk(from, Timestamp(0), b"one\n");
        assert!(!gatherer.is_full());
        gatherer.gap(from, Timestamp(0), 7, "full");
        assert!(gatherer.is_full());
        gatherer.cut(from, Timestamp(0));
        let last = gatherer.finish().services.remove(0).lines.pop().unwrap();
        assert!(last.gap && last.text.starts_with("the rest"), "{last:?}");
    }
}
