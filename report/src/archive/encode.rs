//! Writes an archive, one entry after the other.

use super::measure::Measure;
use super::{
    ARTIFACTS_BYTES, ArtifactLine, ArtifactPiece, End, Error, Head, LOGS_BYTES, Line, LogBody,
    LogLine, LogRecord, TOTAL_BYTES, VERSION,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use phalanx_shared::event::{LogStream, Recorded};
use phalanx_shared::id::CellId;
use std::collections::BTreeMap;
use std::io::Write;

/// Why logs beyond the limit are missing.
const TOO_MANY_LOGS: &str = "not exported: a file takes at most 2 GiB of logs";

/// Writes an archive to `W`.
#[derive(Debug)]
pub struct Encoder<W: Write> {
    out: GzEncoder<W>,
    end: End,
    journal: Measure,
    bytes: u64,
    log_bytes: u64,
    artifact_bytes: u64,
    /// Maximum of `log_bytes`.
    log_limit: u64,
    /// Ranges of the current attempt's logs that are left out, by service and stream.
    left_out: BTreeMap<(String, LogStream), (u64, u64)>,
    attempt: Option<(CellId, u32)>,
}

impl<W: Write> Encoder<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    pub fn new(out: W, head: Head) -> Result<Self, Error> {
        // Neither a time nor a file name: the same run gives the same bytes.
        let out = GzBuilder::new().mtime(0).write(out, Compression::default());
        let mut encoder = Encoder {
            out,
            end: End::default(),
            journal: Measure::default(),
            bytes: 0,
            log_bytes: 0,
            artifact_bytes: 0,
            log_limit: LOGS_BYTES,
            left_out: BTreeMap::new(),
            attempt: None,
        };
        encoder.line(&Line {
            phalanx_run: Some(VERSION),
            by: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ..Line::default()
        })?;
        encoder.line(&Line {
            run: Some(head),
            ..Line::default()
        })?;
        Ok(encoder)
    }

    /// Adds an event. Events come first, in the order of the journal.
    ///
    /// # Errors
    /// Returns an error if writing fails or the journal is larger than an archive may be.
    pub fn event(&mut self, recorded: Recorded) -> Result<(), Error> {
        self.journal.add(&recorded.event)?;
        self.end.events += 1;
        self.line(&Line {
            event: Some(recorded),
            ..Line::default()
        })
    }

    /// Adds a log record. The records of an attempt follow each other, in the order of their arrival.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    pub fn log(&mut self, record: LogRecord) -> Result<(), Error> {
        let same =
            |(cell, attempt): &(CellId, u32)| *cell == record.cell && *attempt == record.attempt;
        if !self.attempt.as_ref().is_some_and(same) {
            self.tell_left_out()?;
            self.attempt = Some((record.cell.clone(), record.attempt));
        }
        if self.log_bytes >= self.log_limit {
            let key = (record.service, record.stream);
            let to = match &record.body {
                LogBody::Bytes(bytes) => record.offset + bytes.len() as u64,
                LogBody::Gap { to, .. } => *to,
            };
            let range = self.left_out.entry(key).or_insert((record.offset, to));
            range.1 = range.1.max(to);
            return Ok(());
        }
        self.write_log(record)
    }

    /// Returns whether an artifact of this size still fits. Each piece takes a third more than its bytes.
    pub fn has_room(&self, size: u64) -> bool {
        let encoded = size.saturating_add(size / 2).saturating_add(1 << 10);
        self.artifact_bytes.saturating_add(encoded) <= ARTIFACTS_BYTES
    }

    /// Adds a piece of an artifact for which there is room. Artifacts come after the logs.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    pub fn artifact(&mut self, piece: ArtifactPiece) -> Result<(), Error> {
        self.tell_left_out()?;
        let ArtifactPiece {
            digest,
            size,
            offset,
            bytes,
        } = piece;
        let before = self.bytes;
        self.end.artifacts += 1;
        self.line(&Line {
            artifact: Some(ArtifactLine {
                digest,
                size,
                offset,
                base64: STANDARD.encode(bytes),
            }),
            ..Line::default()
        })?;
        self.artifact_bytes += self.bytes - before;
        Ok(())
    }

    /// Ends the archive and returns the writer.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    pub fn finish(mut self) -> Result<W, Error> {
        self.tell_left_out()?;
        self.line(&Line {
            end: Some(self.end),
            ..Line::default()
        })?;
        self.out.finish().map_err(Error::Io)
    }

    fn tell_left_out(&mut self) -> Result<(), Error> {
        let Some((cell, attempt)) = self.attempt.clone() else {
            return Ok(());
        };
        for ((service, stream), (offset, to)) in std::mem::take(&mut self.left_out) {
            self.write_log(LogRecord {
                cell: cell.clone(),
                attempt,
                service,
                stream,
                offset,
                at_us: 0,
                body: LogBody::Gap {
                    to,
                    reason: TOO_MANY_LOGS.to_owned(),
                },
            })?;
        }
        Ok(())
    }

    fn write_log(&mut self, record: LogRecord) -> Result<(), Error> {
        let LogRecord {
            cell,
            attempt,
            service,
            stream,
            offset,
            at_us,
            body,
        } = record;
        let mut line = LogLine {
            cell,
            attempt,
            service,
            stream,
            offset,
            at_us,
            text: None,
            base64: None,
            gap_to: None,
            reason: None,
        };
        match body {
            LogBody::Gap { to, reason } => (line.gap_to, line.reason) = (Some(to), Some(reason)),
            LogBody::Bytes(bytes) => match String::from_utf8(bytes) {
                Ok(text) => line.text = Some(text),
                Err(error) => line.base64 = Some(STANDARD.encode(error.as_bytes())),
            },
        }
        let before = self.bytes;
        self.end.logs += 1;
        self.line(&Line {
            log: Some(line),
            ..Line::default()
        })?;
        self.log_bytes += self.bytes - before;
        Ok(())
    }

    fn line(&mut self, line: &Line) -> Result<(), Error> {
        let mut text = serde_json::to_vec(line).map_err(|error| Error::Io(error.into()))?;
        text.push(b'\n');
        self.bytes += text.len() as u64;
        // The logs, the artifacts and the end have room beyond the journal.
        let most = TOTAL_BYTES - LOGS_BYTES - ARTIFACTS_BYTES - 2 * super::decode::LOG_LINE_BYTES;
        if self.bytes - self.log_bytes - self.artifact_bytes > most {
            return Err(Error::TooLarge(format!(
                "a journal of more than {} MiB can't be exported",
                most >> 20
            )));
        }
        self.out.write_all(&text).map_err(Error::Io)
    }
}

#[cfg(test)]
impl<W: Write> Encoder<W> {
    /// Sets the limit on logs.
    pub(super) fn with_log_limit(mut self, bytes: u64) -> Self {
        self.log_limit = bytes;
        self
    }
}
