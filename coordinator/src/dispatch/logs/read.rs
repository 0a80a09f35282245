//! Reads the logs of one attempt in the order of arrival: from any record or offset, of some or all services, and on while they are written.

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

/// Records that may wait for a reader; a slow one slows nothing but itself.
const WAITING: usize = 16;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The run.
    pub run: RunId,
    /// The cell.
    pub cell: CellId,
    /// The try, from 1.
    pub attempt: u32,
    /// All services without one.
    pub service: Option<String>,
    /// Both streams without one.
    pub stream: Option<LogStream>,
    /// The first byte wanted of each chosen stream.
    pub offset: u64,
    /// The first record wanted; 0 and 1 are the start.
    pub from_record: u64,
    /// Go on until nothing follows.
    pub follow: bool,
}

/// A record as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the order of arrival, from 1.
    pub record: u64,
    /// The output it is of.
    pub source: Source,
    /// Of the first byte.
    pub offset: u64,
    /// Microseconds since the epoch; 0 of a gap.
    pub at_us: i64,
    /// What it holds.
    pub piece: Piece,
}

/// Bytes, or word of missing ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Piece {
    Bytes(Vec<u8>),
    Gap { to: u64, reason: String },
}

impl Entry {
    /// As clients get it.
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
        }
    }
}

/// Reads as the receiver takes; ends when nothing follows, or at the present without `follow`. Logs that don't exist are empty.
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
        // Before reading: what comes while we read is news afterwards.
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
            // Closed and forgotten: what is left is read once more, without waiting.
            news = news.changed() => if news.is_err() { progress = None },
            () = sender.closed() => return,
        }
    }
}

/// A place in the index.
struct Reader {
    directory: PathBuf,
    query: Query,
    position: u64,
    record: u64,
    files: BTreeMap<String, File>,
}

impl Reader {
    /// Gives every whole record from here on until `take` refuses.
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
                // Half a line is being written.
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

    /// The entry of a line, if it is wanted, without the bytes before the wanted offset.
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
