//! Log records for pages: as they come, and earlier ones on request.
//!
//! Records go to the browser with their bytes as they are, and the browser makes lines of them. A line may be cut
//! anywhere between two records, so nothing here keeps half a line, and a browser that connects again continues with the
//! next record. A page gets the end of a log first: the log of one attempt may have half a gigabyte.

use super::feed::{Feed, Reached};
use super::problem::Problem;
use crate::dispatch::logs::index::INDEX;
use crate::dispatch::logs::read::{Entry, Piece, Query, read};
use crate::dispatch::logs::store::LogStore;
use axum::http::StatusCode;
use phalanx_shared::id::{CellId, RunId};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of a log that a page gets at once: at the beginning, and for each request of earlier ones.
const TAIL_BYTES: u64 = 4 << 20;
/// Records that a page gets at once.
const TAIL_RECORDS: usize = 20_000;
/// Bytes of log in one event. With ten events a second, a log of 10 MiB/s is followed.
const EVENT_BYTES: usize = 1 << 20;
/// Time between two events with log records.
const PACE: Duration = Duration::from_millis(100);

/// Log records of one attempt for a browser.
#[derive(Debug, Serialize)]
pub struct Batch {
    /// Number of the attempt.
    pub attempt: u32,
    /// Services with their streams, which records refer to by position.
    sources: Vec<(String, &'static str)>,
    /// Records in the order of their arrival.
    records: Vec<Item>,
    #[serde(skip)]
    bytes: usize,
}

/// A record: its number, the position of its source, Unix time in milliseconds, its bytes, and whether it is a gap, in
/// which case the text says why.
#[derive(Debug, Serialize)]
struct Item(u64, usize, i64, Bytewise, bool);

/// Bytes as a text whose characters have the values of the bytes. JSON has no shorter form for a text in ASCII.
#[derive(Debug)]
struct Bytewise(Vec<u8>);

impl Serialize for Bytewise {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| char::from(*byte)).collect();
        serializer.serialize_str(&text)
    }
}

impl Batch {
    fn new(attempt: u32) -> Batch {
        Batch {
            attempt,
            sources: Vec::new(),
            records: Vec::new(),
            bytes: 0,
        }
    }

    /// Returns the number of the newest record; 0 without records.
    pub fn last(&self) -> u64 {
        self.records.last().map_or(0, |item| item.0)
    }

    fn add(&mut self, entry: Entry) {
        let Entry {
            record,
            source,
            offset,
            at_us,
            piece,
        } = entry;
        let source = (source.service, source.stream.as_str());
        let known = self.sources.iter().position(|known| *known == source);
        let position = known.unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        });
        let (bytes, gap) = match piece {
            Piece::Bytes(bytes) => (bytes, false),
            Piece::Gap { to, reason } => {
                let missing = to.saturating_sub(offset);
                let text = format!("{missing} bytes are missing: {reason}");
                (text.into_bytes(), true)
            }
        };
        self.bytes += bytes.len();
        let item = Item(record, position, at_us / 1_000, Bytewise(bytes), gap);
        self.records.push(item);
    }
}

/// The logs of a cell as they come: of one attempt, or of each newest one.
pub struct Follow {
    store: LogStore,
    feed: Arc<Feed>,
    run: RunId,
    cell: CellId,
    /// The only attempt to follow.
    only: Option<u32>,
    /// The attempt that is being read, or was.
    attempt: u32,
    entries: Option<ReceiverStream<io::Result<Entry>>>,
    reached: watch::Receiver<Reached>,
    pending: Batch,
    pace: Interval,
    over: bool,
}

impl Follow {
    /// Starts at the place that a browser has reached, else at the end of the log.
    pub async fn begin(
        store: LogStore,
        feed: Arc<Feed>,
        (run, cell): (RunId, CellId),
        only: Option<u32>,
        place: Option<(u32, u64)>,
    ) -> Result<Follow, Problem> {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut follow = Follow {
            reached: feed.reached(),
            store,
            feed,
            run,
            cell,
            only,
            attempt: 0,
            entries: None,
            pending: Batch::new(0),
            pace,
            over: false,
        };
        match place.filter(|(attempt, _)| only.is_none_or(|only| only == *attempt)) {
            Some((attempt, record)) => follow.open(attempt, record.saturating_add(1)),
            None => {
                let newest = follow.feed.newest_attempt(&follow.cell).await;
                if let Some(attempt) = only.or(newest) {
                    let query = follow.query(attempt, 1);
                    let from = first_of_tail(&follow.store, &query, None, None).await?;
                    follow.open(attempt, from);
                }
            }
        }
        Ok(follow)
    }

    fn query(&self, attempt: u32, from_record: u64) -> Query {
        Query {
            run: self.run.clone(),
            cell: self.cell.clone(),
            attempt,
            service: None,
            stream: None,
            offset: 0,
            from_record,
            follow: true,
        }
    }

    fn open(&mut self, attempt: u32, from_record: u64) {
        self.attempt = attempt;
        self.pending = Batch::new(attempt);
        self.entries = Some(read(&self.store, self.query(attempt, from_record)));
    }

    /// Returns whether no more records will come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Returns the next records, gathered for a tenth of a second; `None` once there are no more. May be dropped and
    /// called again without losing a record.
    pub async fn next(&mut self) -> Option<Batch> {
        loop {
            if self.pending.bytes >= EVENT_BYTES {
                self.pace.tick().await;
                return Some(self.take());
            }
            let Some(entries) = &mut self.entries else {
                if !self.pending.records.is_empty() {
                    return Some(self.take());
                }
                if !self.open_next().await {
                    return None;
                }
                continue;
            };
            let waiting = !self.pending.records.is_empty();
            tokio::select! {
                biased;
                _ = self.pace.tick(), if waiting => return Some(self.take()),
                entry = entries.next() => match entry {
                    Some(Ok(entry)) => self.pending.add(entry),
                    Some(Err(error)) => {
                        tracing::warn!(run = %self.run, cell = %self.cell, %error, "a log can't be read for a page");
                        self.entries = None;
                    }
                    None => self.entries = None,
                },
            }
        }
    }

    fn take(&mut self) -> Batch {
        std::mem::replace(&mut self.pending, Batch::new(self.attempt))
    }

    /// Waits for the next attempt and opens its logs. Returns `false` if there won't be one.
    async fn open_next(&mut self) -> bool {
        while self.only.is_none() {
            let over = self.reached.borrow_and_update().over;
            let newest = self.feed.newest_attempt(&self.cell).await;
            if let Some(newest) = newest.filter(|newest| *newest > self.attempt) {
                self.open(newest, 1);
                return true;
            }
            if over || self.reached.changed().await.is_err() {
                break;
            }
        }
        self.over = true;
        false
    }
}

/// Returns the records before one, or the last ones before a time in microseconds: as many as a page gets at once.
pub async fn earlier(
    store: &LogStore,
    (run, cell, attempt): (RunId, CellId, u32),
    before: Option<u64>,
    until_us: Option<i64>,
) -> Result<Batch, Problem> {
    let mut query = Query {
        run,
        cell,
        attempt,
        service: None,
        stream: None,
        offset: 0,
        from_record: 1,
        follow: false,
    };
    query.from_record = first_of_tail(store, &query, before, until_us).await?;
    let mut entries = read(store, query);
    let mut batch = Batch::new(attempt);
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(unreadable)?;
        let is_later = before.is_some_and(|before| entry.record >= before)
            || until_us.is_some_and(|until| entry.at_us > until);
        if is_later || batch.records.len() >= TAIL_RECORDS {
            break;
        }
        batch.add(entry);
    }
    Ok(batch)
}

fn unreadable(error: io::Error) -> Problem {
    let text = format!("the log can't be read: {error}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Returns the number of the record with which the last part before a record, or before a time, begins.
async fn first_of_tail(
    store: &LogStore,
    query: &Query,
    before: Option<u64>,
    until_us: Option<i64>,
) -> Result<u64, Problem> {
    let directory = store.directory(&query.run, &query.cell, query.attempt);
    let found = tokio::task::spawn_blocking(move || tail(&directory, before, until_us));
    match found.await {
        Ok(found) => found.map_err(unreadable),
        Err(error) => Err(unreadable(io::Error::other(error))),
    }
}

/// What is read of a line of the index.
#[derive(Deserialize)]
struct Measured {
    chunk: Option<Chunk>,
}

#[derive(Deserialize)]
struct Chunk {
    len: u64,
    at: i64,
}

fn tail(directory: &Path, before: Option<u64>, until_us: Option<i64>) -> io::Result<u64> {
    let index = match File::open(directory.join(INDEX)) {
        Ok(index) => index,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(1),
        Err(error) => return Err(error),
    };
    let mut sizes: VecDeque<u64> = VecDeque::new();
    let (mut first, mut bytes) = (1, 0);
    for (number, line) in (1..).zip(BufReader::new(index).split(b'\n')) {
        let line = line?;
        let chunk = serde_json::from_slice::<Measured>(&line).ok();
        let chunk = chunk.and_then(|measured| measured.chunk);
        let late = |chunk: &Chunk| until_us.is_some_and(|until| chunk.at > until);
        if before.is_some_and(|before| number >= before) || chunk.as_ref().is_some_and(late) {
            break;
        }
        let size = chunk.map_or(0, |chunk| chunk.len);
        sizes.push_back(size);
        bytes += size;
        while bytes > TAIL_BYTES || sizes.len() > TAIL_RECORDS {
            bytes -= sizes.pop_front().unwrap_or(0);
            first += 1;
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_proto::log::{Body, Record, Source};
    use phalanx_shared::event::LogStream;
    use phalanx_shared::id::Token;
    use phalanx_shared::time::Timestamp;

    /// A store with one attempt of `count` records of `bytes` bytes each, a second apart.
    fn stored(count: u64, bytes: usize) -> (tempfile::TempDir, LogStore) {
        let place = tempfile::tempdir().unwrap();
        let store = LogStore::with_limits(
            place.path().join("logs"),
            crate::dispatch::logs::store::Limits {
                reserve_bytes: Some(0),
                ..Default::default()
            },
        );
        let token = Token {
            run: "r".into(),
            cell: "c".into(),
            attempt: 1,
            epoch: 1,
        };
        store.open(&token, &"agent".into());
        let record = |n: u64| Record {
            number: n + 1,
            body: Body::Chunk {
                source: Source {
                    service: "web".to_owned(),
                    stream: LogStream::Stdout,
                },
                offset: n * bytes as u64,
                at: Timestamp(i64::try_from(n).unwrap() * 1_000_000),
                bytes: vec![0xc3; bytes],
            },
        };
        store
            .append(&token, (0..count).map(record).collect())
            .unwrap();
        (place, store)
    }

    async fn numbers(store: &LogStore, before: Option<u64>, until: Option<i64>) -> Vec<u64> {
        let of = ("r".into(), "c".into(), 1);
        let batch = earlier(store, of, before, until).await.unwrap();
        batch.records.iter().map(|item| item.0).collect()
    }

    #[tokio::test]
    async fn a_page_gets_the_end_of_a_log_and_then_what_is_before_it() {
        let (_place, store) = stored(10, 1 << 20);
        assert_eq!(numbers(&store, None, None).await, [7, 8, 9, 10]);
        assert_eq!(numbers(&store, Some(7), None).await, [3, 4, 5, 6]);
        assert_eq!(numbers(&store, Some(3), None).await, [1, 2]);
        assert_eq!(numbers(&store, Some(1), None).await, [] as [u64; 0]);
    }

    #[tokio::test]
    async fn a_page_of_the_past_gets_no_later_record() {
        let (_place, store) = stored(10, 1);
        assert_eq!(numbers(&store, None, Some(2_500_000)).await, [1, 2, 3]);
    }

    #[tokio::test]
    async fn bytes_reach_the_browser_as_they_are() {
        let (_place, store) = stored(1, 2);
        let of = ("r".into(), "c".into(), 1);
        let batch = earlier(&store, of, None, None).await.unwrap();
        let json = serde_json::to_value(&batch).unwrap();
        assert_eq!(json["records"][0][3], "\u{c3}\u{c3}");
        assert_eq!(json["sources"][0], serde_json::json!(["web", "stdout"]));
    }
}
