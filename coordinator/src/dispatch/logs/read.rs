//! Reads the logs of one attempt in the order of arrival, from any record or offset, of some or all services. It can
//! follow logs that are still being written.

use super::index::{Held, Line, file_name};
use super::store::{LogStore, Progress};
use phalanx_proto::convert::stream_to_wire;
use phalanx_proto::log::Source;
use phalanx_proto::v1;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::{CellId, RunId};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Records that may wait for a reader. A slow reader slows down only itself.
const WAITING: usize = 16;

/// Selects the log records to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Run of the attempt.
    pub run: RunId,
    /// Cell of the attempt.
    pub cell: CellId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Only this service; all services if `None`.
    pub service: Option<String>,
    /// Only this stream; both streams if `None`.
    pub stream: Option<LogStream>,
    /// Offset of the first byte to return, in each chosen stream.
    pub offset: u64,
    /// Number of the first record to return; 0 and 1 both mean the start.
    pub from_record: u64,
    /// Whether to follow the logs until they end.
    pub follow: bool,
}

/// A record as readers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the record in the order of arrival, from 1.
    pub record: u64,
    /// Output that the record belongs to.
    pub source: Source,
    /// Offset of the first byte in the stream.
    pub offset: u64,
    /// Unix time in microseconds; 0 for a gap.
    pub at_us: i64,
    /// Content of the record.
    pub piece: Piece,
}

/// Bytes of an output, or a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Piece {
    Bytes(Vec<u8>),
    Gap { to: u64, reason: String },
}

impl Entry {
    /// Converts the entry to the message that clients get.
    pub fn into_wire(self, attempt: u32) -> v1::LogRecord {
        let Entry {
            record,
            source: Source { service, stream },
            offset,
            at_us,
            piece,
        } = self;
        let (data, gap_to, gap_reason) = match piece {
            Piece::Bytes(bytes) => (bytes, None, String::new()),
            Piece::Gap { to, reason } => (Vec::new(), Some(to), reason),
        };
        v1::LogRecord {
            record,
            attempt,
            service,
            stream: stream_to_wire(Some(stream)).into(),
            offset,
            at_us,
            data,
            gap_to,
            gap_reason,
            cell: String::new(),
        }
    }
}

/// Starts to read; the receiver sets the pace. The stream ends at the end of the logs or, without `follow`, at the last
/// record written so far. Logs that don't exist are empty.
pub fn read(store: &LogStore, query: Query) -> ReceiverStream<io::Result<Entry>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let progress = store.follow(&query.run, &query.cell, query.attempt);
    let directory = store.directory(&query.run, &query.cell, query.attempt);
    tokio::spawn(pump(directory, query, progress, sender));
    ReceiverStream::new(receiver)
}

async fn pump(
    directory: PathBuf,
    query: Query,
    mut progress: Option<watch::Receiver<Progress>>,
    sender: mpsc::Sender<io::Result<Entry>>,
) {
    let follow = query.follow;
    let mut reader = Reader {
        directory,
        query,
        position: 0,
        record: 0,
        files: BTreeMap::new(),
    };
    loop {
        // Marked as seen before reading, so that records written during the read count as a change afterwards.
        let over = match &mut progress {
            Some(progress) => progress.borrow_and_update().over,
            None => true,
        };
        let to = sender.clone();
        let read = tokio::task::spawn_blocking(move || {
            let result = reader.read_on(|entry| to.blocking_send(Ok(entry)).is_ok());
            (reader, result)
        });
        let Ok((back, result)) = read.await else {
            return;
        };
        reader = back;
        if let Err(error) = result {
            let _ = sender.send(Err(error)).await;
            return;
        }
        if !follow || over {
            return;
        }
        let Some(news) = &mut progress else { return };
        tokio::select! {
            // The attempt was closed and forgotten: read the rest once more, without waiting.
            news = news.changed() => if news.is_err() { progress = None },
            () = sender.closed() => return,
        }
    }
}

/// A position in the index.
struct Reader {
    directory: PathBuf,
    query: Query,
    position: u64,
    record: u64,
    files: BTreeMap<String, File>,
}

impl Reader {
    /// Passes every complete record from here on to `take`, until it returns false.
    fn read_on(&mut self, mut take: impl FnMut(Entry) -> bool) -> io::Result<()> {
        let index = match File::open(self.directory.join(super::index::INDEX)) {
            Ok(index) => index,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut index = BufReader::new(index);
        index.seek(SeekFrom::Start(self.position))?;
        let mut text = Vec::new();
        loop {
            text.clear();
            let read = index.read_until(b'\n', &mut text)?;
            let line: Line = match serde_json::from_slice(&text) {
                Ok(line) if text.ends_with(b"\n") => line,
                // The last line is still being written.
                _ => return Ok(()),
            };
            self.position += read as u64;
            self.record += 1;
            if let Some(entry) = self.entry(line)?
                && !take(entry)
            {
                return Ok(());
            }
        }
    }

    /// Returns the entry of a line if it is wanted, without the bytes before the wanted offset.
    fn entry(&mut self, line: Line) -> io::Result<Option<Entry>> {
        let Some(source) = line.held.source() else {
            return Ok(None);
        };
        let query = &self.query;
        let wanted = self.record >= query.from_record
            && query.service.as_ref().is_none_or(|s| *s == source.service)
            && query.stream.is_none_or(|s| s == source.stream);
        if !wanted {
            return Ok(None);
        }
        let from = query.offset;
        Ok(match line.held {
            Held::Chunk {
                offset,
                len,
                position,
                at,
                ..
            } if offset + len > from => {
                let skipped = from.saturating_sub(offset);
                let bytes = self.bytes(&source, position + skipped, len - skipped)?;
                Some(Entry {
                    record: self.record,
                    source,
                    offset: offset + skipped,
                    at_us: at,
                    piece: Piece::Bytes(bytes),
                })
            }
            Held::Gap {
                from: offset,
                to,
                reason,
                ..
            } if to > from => Some(Entry {
                record: self.record,
                source,
                offset,
                at_us: 0,
                piece: Piece::Gap { to, reason },
            }),
            _ => None,
        })
    }

    fn bytes(&mut self, source: &Source, position: u64, len: u64) -> io::Result<Vec<u8>> {
        let name = file_name(source);
        let file = match self.files.get(&name) {
            Some(file) => file,
            None => {
                let file = File::open(self.directory.join(&name))?;
                self.files.entry(name).or_insert(file)
            }
        };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }
}
