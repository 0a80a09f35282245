//! Reads an archive, one entry after the other, and trusts nothing in it.
//!
//! The limits hold while the file is inflated: a line is refused before it is longer than its kind may be, and before it
//! is parsed if it has more values than any run needs. Ids become names of directories, so they may only have letters,
//! digits and hyphens.

use super::measure::Measure;
use super::{
    ARTIFACTS_BYTES, ArtifactLine, ArtifactPiece, End, Entry, Error, Head, LOGS_BYTES, Line,
    LogBody, LogLine, LogRecord, PIECE_BYTES, TOTAL_BYTES, VERSION,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use phalanx_shared::event::{AttemptRef, EventKind, Recorded};
use phalanx_shared::id::{CellId, RunId};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read};

/// Maximum bytes of the first three lines: the spec's files and the plan. A plan of 100,000 cells takes 50 MB.
const HEAD_LINE_BYTES: u64 = 160 << 20;
/// Maximum bytes of the line of another event. An agent's event has at most 8 MiB of payload.
const EVENT_LINE_BYTES: u64 = 24 << 20;
/// Maximum bytes of the line of a log record: a chunk of 64 KiB in which each byte is escaped.
pub(super) const LOG_LINE_BYTES: u64 = 1 << 20;
/// Maximum JSON values in one of the first three lines. Each takes some tens of bytes of memory. A plan of 100,000 cells
/// has two million.
const HEAD_VALUES: usize = 8_000_000;
/// Maximum JSON values in another line: as many as an event of 2 MiB, the largest that an agent makes, can have.
const VALUES: usize = 1 << 20;
/// Maximum characters of an id.
const ID_CHARS: usize = 128;

/// Reads an archive from `R`.
#[derive(Debug)]
pub struct Decoder<R: Read> {
    lines: BufReader<GzDecoder<R>>,
    bytes: u64,
    read: End,
    run: RunId,
    /// The cells that the plan has.
    cells: HashSet<CellId>,
    /// Digests of the artifacts that the journal names.
    digests: HashSet<String>,
    artifact_bytes: u64,
    journal: Measure,
    /// Bytes of the last line.
    line_bytes: u64,
    over: bool,
}

impl<R: Read> Decoder<R> {
    /// Reads the beginning of an archive.
    ///
    /// # Errors
    /// Returns an error if it isn't an archive that this version can read.
    pub fn open(input: R) -> Result<(Head, Self), Error> {
        let mut decoder = Decoder {
            lines: BufReader::new(GzDecoder::new(input)),
            bytes: 0,
            read: End::default(),
            run: RunId::from(""),
            cells: HashSet::new(),
            digests: HashSet::new(),
            artifact_bytes: 0,
            journal: Measure::default(),
            line_bytes: 0,
            over: false,
        };
        let first = decoder.line(LOG_LINE_BYTES, VALUES);
        let first = first.map_err(|error| match error {
            Error::Damaged(_) | Error::TooLarge(_) => Error::NotAnArchive,
            other => other,
        })?;
        match first.phalanx_run {
            None => return Err(Error::NotAnArchive),
            Some(found) if found > VERSION => {
                return Err(Error::Version {
                    found,
                    by: first.by.map(|by| by.chars().take(ID_CHARS).collect()),
                });
            }
            Some(_) => {}
        }
        let head = decoder.line(HEAD_LINE_BYTES, HEAD_VALUES)?.run;
        let head = head.ok_or_else(|| damaged("the run's description is missing"))?;
        checked(head.id.as_str())?;
        decoder.run = head.id.clone();
        Ok((head, decoder))
    }

    /// Returns the next entry; none after the last.
    ///
    /// # Errors
    /// Returns an error if the archive ends too early, is damaged or exceeds a limit.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        while !self.over {
            let (most, values) = match (self.read.events, self.read.logs + self.read.artifacts) {
                (0, _) => (HEAD_LINE_BYTES, HEAD_VALUES),
                (_, 0) => (EVENT_LINE_BYTES, VALUES),
                // No event follows the logs.
                _ => (LOG_LINE_BYTES, VALUES),
            };
            let line = self.line(most, values)?;
            if let Some(recorded) = line.event {
                return self.event(recorded).map(Some);
            }
            if let Some(log) = line.log {
                if self.line_bytes > LOG_LINE_BYTES {
                    return Err(too_long(LOG_LINE_BYTES));
                }
                return self.log(log).map(Some);
            }
            if let Some(artifact) = line.artifact {
                if self.line_bytes > LOG_LINE_BYTES {
                    return Err(too_long(LOG_LINE_BYTES));
                }
                return self.artifact(artifact).map(Some);
            }
            if let Some(end) = line.end {
                self.end(end)?;
            }
        }
        Ok(None)
    }

    /// Returns the bytes of the last entry's line.
    pub fn line_bytes(&self) -> usize {
        usize::try_from(self.line_bytes).unwrap_or(usize::MAX)
    }

    fn event(&mut self, recorded: Recorded) -> Result<Entry, Error> {
        self.read.events += 1;
        let expected = self.read.events;
        if recorded.position != expected {
            return Err(damaged(&format!(
                "event {} follows event {}",
                recorded.position,
                expected - 1
            )));
        }
        if self.read.logs + self.read.artifacts > 0 {
            return Err(damaged("an event follows the logs or artifacts"));
        }
        if recorded.event.run != self.run {
            return Err(damaged("an event of another run"));
        }
        self.journal.add(&recorded.event)?;
        match &recorded.event.kind {
            EventKind::RunSubmitted { plan, .. } if expected == 1 => {
                for cell in &plan.cells {
                    checked(cell.id.as_str())?;
                    self.cells.insert(cell.id.clone());
                }
            }
            _ if expected == 1 => return Err(damaged("the journal doesn't begin with a plan")),
            EventKind::RunSubmitted { .. } => return Err(damaged("a second plan")),
            EventKind::ArtifactCollected(artifact) if artifact.is_kept() => {
                self.digests.insert(artifact.digest.clone());
            }
            _ => {}
        }
        Ok(Entry::Event(recorded))
    }

    fn artifact(&mut self, line: ArtifactLine) -> Result<Entry, Error> {
        self.read.artifacts += 1;
        self.artifact_bytes += self.line_bytes;
        if self.artifact_bytes > ARTIFACTS_BYTES {
            return Err(Error::TooLarge(format!(
                "more than {} MiB of artifacts",
                ARTIFACTS_BYTES >> 20
            )));
        }
        let ArtifactLine {
            digest,
            size,
            offset,
            base64,
        } = line;
        // It becomes a file name.
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digest.len() != 64 || !digest.bytes().all(digit) {
            return Err(damaged("the digest of an artifact is none"));
        }
        if !self.digests.contains(&digest) {
            return Err(damaged("an artifact that the journal doesn't have"));
        }
        let bytes = STANDARD
            .decode(base64)
            .map_err(|_| damaged("an artifact isn't base64"))?;
        let end = offset.checked_add(bytes.len() as u64);
        if bytes.len() > PIECE_BYTES || end.is_none_or(|end| end > size) {
            return Err(damaged("a piece of an artifact beyond its end"));
        }
        Ok(Entry::Artifact(ArtifactPiece {
            digest,
            size,
            offset,
            bytes,
        }))
    }

    fn log(&mut self, line: LogLine) -> Result<Entry, Error> {
        self.read.logs += 1;
        let LogLine {
            cell,
            attempt,
            service,
            stream,
            offset,
            at_us,
            text,
            base64,
            gap_to,
            reason,
        } = line;
        if !self.cells.contains(&cell) {
            return Err(damaged("logs of a cell that the plan doesn't have"));
        }
        let of = AttemptRef { cell, attempt };
        if !self.journal.knows(&of) {
            return Err(damaged("logs of an attempt that the journal doesn't have"));
        }
        let body = match (gap_to, text, base64) {
            (Some(to), _, _) if to < offset => return Err(damaged("a gap ends before it begins")),
            (Some(to), _, _) => LogBody::Gap {
                to,
                reason: reason.unwrap_or_default(),
            },
            (None, Some(text), _) => LogBody::Bytes(text.into_bytes()),
            (None, None, Some(text)) => LogBody::Bytes(
                STANDARD
                    .decode(text)
                    .map_err(|_| damaged("a log record isn't base64"))?,
            ),
            (None, None, None) => return Err(damaged("a log record without content")),
        };
        if let LogBody::Bytes(bytes) = &body
            && offset.checked_add(bytes.len() as u64).is_none()
        {
            return Err(damaged("a log record beyond all offsets"));
        }
        Ok(Entry::Log(LogRecord {
            cell: of.cell,
            attempt,
            service,
            stream,
            offset,
            at_us,
            body,
        }))
    }

    fn end(&mut self, end: End) -> Result<(), Error> {
        if end != self.read {
            return Err(damaged(&format!(
                "{} events, {} log records and {} pieces of artifacts of {}, {} and {}",
                self.read.events,
                self.read.logs,
                self.read.artifacts,
                end.events,
                end.logs,
                end.artifacts
            )));
        }
        if end.events == 0 {
            return Err(damaged("the journal is empty"));
        }
        // Reads the checksum, too.
        let mut rest = [0; 1];
        match self.lines.read(&mut rest).map_err(of_reading)? {
            0 => self.over = true,
            _ => return Err(damaged("something follows its end")),
        }
        Ok(())
    }

    /// Reads the next line, of at most `most` bytes and `most_values` values.
    fn line(&mut self, most: u64, most_values: usize) -> Result<Line, Error> {
        let mut text = Vec::new();
        let read = (&mut self.lines)
            .take(most + 1)
            .read_until(b'\n', &mut text);
        let read = read.map_err(of_reading)? as u64;
        self.bytes += read;
        self.line_bytes = read;
        if !text.ends_with(b"\n") {
            return Err(match read > most {
                true => too_long(most),
                false => Error::Truncated,
            });
        }
        if self.bytes > TOTAL_BYTES {
            return Err(Error::TooLarge(format!(
                "more than {} GiB after decompression",
                TOTAL_BYTES >> 30
            )));
        }
        if values(&text) > most_values {
            return Err(Error::TooLarge(format!(
                "a line of more than {most_values} values"
            )));
        }
        serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))
    }
}

fn too_long(most: u64) -> Error {
    Error::TooLarge(format!("a line of more than {} MiB", most >> 20))
}

fn damaged(found: &str) -> Error {
    Error::Damaged(found.to_owned())
}

/// Tells a damaged stream from a truncated one and from a failing disk.
fn of_reading(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::Truncated,
        ErrorKind::InvalidData | ErrorKind::InvalidInput => Error::Damaged(error.to_string()),
        _ => Error::Io(error),
    }
}

/// Returns an error for an id that can't be the name of a directory.
fn checked(id: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || id.len() > ID_CHARS || !id.chars().all(plain) {
        return Err(damaged(
            "an id has other characters than letters, digits and hyphens",
        ));
    }
    Ok(())
}

/// Returns an upper bound for the number of values in a JSON text.
fn values(text: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

// The archive of any run within the limits of writing can be read.
const _: () = assert!(LOGS_BYTES + ARTIFACTS_BYTES + HEAD_LINE_BYTES < TOTAL_BYTES);
