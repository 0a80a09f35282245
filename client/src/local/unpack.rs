//! Opens an exported run: unpacks it into a directory of its own, like that of a local run, and reads it there. So the
//! same server answers about a file as about a run of this machine.
//!
//! The directory is private, in the system's temporary directory, and is removed when the reader is dropped.

use super::Error;
use super::look::{Look, read};
use super::place::{Place, Temporary, at};
use phalanx_coordinator::dispatch::artifacts;
use phalanx_coordinator::dispatch::logs::store::{Limits, LogStore, Stored};
use phalanx_coordinator::journal::{
    NewRun, RunEnd, SqliteStore, Store, StoreError, Submission, Write,
};
use phalanx_coordinator::serve::api::gc::LOGS;
use phalanx_coordinator::serve::server::journal_path;
use phalanx_proto::limit::LOG_CHUNK_BYTES;
use phalanx_proto::log::{Body, Record, Source};
use phalanx_report::archive::{self, ArtifactPiece, Decoder, Entry, Head, LogBody, LogRecord};
use phalanx_shared::event::{EventKind, Recorded};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::namespace::Namespace;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::Handle;

/// Events and log records that are written at once.
const BATCH: usize = 1_000;
/// Bytes of events or log records that are written at once.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes that a log record takes beside its content.
const RECORD_BYTES: usize = size_of::<Record>();

/// Time that a stopped unpacking gets to remove what it made; the next one removes what is left.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Opens an exported run.
pub async fn open_file(file: &Path) -> Result<Look, Error> {
    let file = file.to_owned();
    let runtime = Handle::current();
    let stop = Arc::new(AtomicBool::new(false));
    let (over, ended) = mpsc::channel::<()>();
    let stopper = Stopper {
        stop: Arc::clone(&stop),
        ended,
    };
    // Inflating and writing block.
    let unpacking = tokio::task::spawn_blocking(move || {
        // Dropped when the directory is gone, or when it is the reader's.
        let _over = over;
        let unpacked = unpack(&file, &runtime, &stop);
        unpacked.and_then(|unpacked| match stop.load(Ordering::Relaxed) {
            true => Err(stopped()),
            false => Ok(unpacked),
        })
    });
    let unpacked = unpacking.await;
    drop(stopper);
    let (run, place, temporary) = unpacked.map_err(|error| Error::Unpack(error.to_string()))??;
    let reached = read(&place).await?;
    Ok(Look::unpacked(reached, run, temporary))
}

/// Stops the unpacking when it is dropped, and waits a little until it has removed what it made.
struct Stopper {
    stop: Arc<AtomicBool>,
    ended: mpsc::Receiver<()>,
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.ended.recv_timeout(STOP_WITHIN);
    }
}

fn stopped() -> Error {
    Error::Unpack("it was interrupted".to_owned())
}

fn unpack(
    file: &Path,
    runtime: &Handle,
    stop: &AtomicBool,
) -> Result<(RunId, Place, Temporary), Error> {
    let of_file = |error: archive::Error| Error::File {
        path: file.to_owned(),
        error,
    };
    let opened = File::open(file).map_err(|error| of_file(archive::Error::Io(error)))?;
    let (head, mut decoder) = Decoder::open(opened).map_err(of_file)?;
    let run = head.id.clone();
    let temporary = Temporary::make()?;
    let place = Place::of_run(temporary.directory(), &run);
    phalanx_coordinator::private::directory(place.directory()).map_err(at(place.directory()))?;
    let path = journal_path(place.directory());
    let store = runtime.block_on(SqliteStore::open(&path))?;
    let mut journal = Journal::new(&store, runtime, head);
    let mut logs = Logs::new(place.directory().join(LOGS), run.clone());
    while let Some(entry) = decoder.next().map_err(of_file)? {
        if stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        match entry {
            Entry::Event(recorded) => journal.add(recorded, decoder.line_bytes())?,
            Entry::Log(record) => logs.add(record)?,
            Entry::Artifact(piece) => logs.artifact(piece)?,
        }
    }
    journal.finish()?;
    logs.flush()?;
    runtime.block_on(store.close());
    Ok((run, place, temporary))
}

/// Writes the events of one run.
struct Journal<'s> {
    store: &'s SqliteStore,
    runtime: &'s Handle,
    /// Until the first event says when it was submitted.
    head: Option<Head>,
    state: RunState,
    waiting: Vec<Write>,
    /// Bytes of the waiting events' lines.
    bytes: usize,
}

impl<'s> Journal<'s> {
    fn new(store: &'s SqliteStore, runtime: &'s Handle, head: Head) -> Self {
        Journal {
            store,
            runtime,
            state: RunState::new(head.id.clone()),
            head: Some(head),
            waiting: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, recorded: Recorded, bytes: usize) -> Result<(), StoreError> {
        if let (EventKind::RunSubmitted { plan, .. }, Some(head)) =
            (&recorded.event.kind, self.head.take())
        {
            let new = NewRun {
                run: head.id.clone(),
                submitted: recorded.event.at,
                spec: plan.spec.clone(),
                digest: plan.digest.clone(),
                cells: u32::try_from(plan.cells.len()).unwrap_or(u32::MAX),
                submission: submission(head),
                namespace: Namespace::default(),
                owner: String::new(),
            };
            self.waiting.push(Write::Run(Box::new(new)));
        }
        self.state.apply_without_output(&recorded.event);
        self.waiting.push(Write::Event(recorded));
        self.bytes = self.bytes.saturating_add(bytes);
        match self.waiting.len() < BATCH && self.bytes < BATCH_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn finish(mut self) -> Result<(), StoreError> {
        let state = &self.state;
        let run = state.run.clone();
        if let (Some(finished), Some(outcome)) = (state.finished, state.outcome) {
            let end = RunEnd {
                finished,
                outcome,
                counts: state.counts(),
                cancel: state.cancel.clone(),
            };
            let settled = state.is_settled();
            self.waiting.push(Write::Finished {
                run: run.clone(),
                end,
            });
            if settled {
                self.waiting.push(Write::Settled { run });
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let writes = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        self.runtime.block_on(self.store.commit(&writes))
    }
}

fn submission(head: Head) -> Submission {
    let Head {
        id: _,
        files,
        inputs,
        only,
        cells,
        keep,
        fail_fast,
        max_parallel,
        priority,
        workspace,
        images,
        origin,
    } = head;
    Submission {
        files,
        inputs,
        only,
        cells,
        keep,
        fail_fast,
        max_parallel,
        priority,
        traceparent: None,
        read: std::collections::BTreeMap::new(),
        workspace_digest: workspace,
        images,
        snapshots: Default::default(),
        origin,
    }
}

/// Writes the logs of one run, attempt by attempt.
struct Logs {
    store: LogStore,
    run: RunId,
    token: Option<Token>,
    number: u64,
    waiting: Vec<Record>,
    bytes: usize,
    /// Number of the artifact that is being stored, and its digest.
    artifact: u32,
    digest: String,
}

impl Logs {
    fn new(root: PathBuf, run: RunId) -> Logs {
        let limits = Limits {
            // The archive has a limit of its own.
            attempt_bytes: u64::MAX,
            agent_bytes: u64::MAX,
            reserve_bytes: None,
            artifacts: artifacts::Limits {
                file_bytes: u64::MAX,
                attempt_bytes: u64::MAX,
                run_bytes: u64::MAX,
            },
        };
        Logs {
            store: LogStore::with_limits(root, limits).temporary(),
            run,
            token: None,
            number: 0,
            waiting: Vec::new(),
            bytes: 0,
            artifact: 1,
            digest: String::new(),
        }
    }

    fn add(&mut self, record: LogRecord) -> Result<(), Error> {
        let LogRecord {
            cell,
            attempt,
            service,
            stream,
            offset,
            at_us,
            body,
        } = record;
        self.begin(cell, attempt)?;
        let source = Source { service, stream };
        match body {
            LogBody::Gap { to, reason } => self.push(Body::Gap {
                source,
                from: offset,
                to,
                reason,
            }),
            LogBody::Bytes(bytes) => {
                let mut offset = offset;
                for piece in bytes.chunks(LOG_CHUNK_BYTES) {
                    self.push(Body::Chunk {
                        source: source.clone(),
                        offset,
                        at: Timestamp(at_us),
                        bytes: piece.to_vec(),
                    });
                    offset += piece.len() as u64;
                }
            }
        }
        match self.waiting.len() < BATCH && self.bytes < BATCH_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn push(&mut self, body: Body) {
        let (source, content) = match &body {
            Body::Chunk { source, bytes, .. } => (source, bytes.len()),
            Body::Gap { source, reason, .. } => (source, reason.len()),
            Body::Artifact { .. } | Body::ArtifactEnd { .. } | Body::End => return,
        };
        self.bytes += RECORD_BYTES + source.service.len() + content;
        self.number += 1;
        let number = self.number;
        self.waiting.push(Record { number, body });
    }

    /// Stores a piece of an artifact. Equal files of several attempts are in the archive once.
    fn artifact(&mut self, piece: ArtifactPiece) -> Result<(), Error> {
        let ArtifactPiece {
            digest,
            size,
            offset,
            bytes,
        } = piece;
        let token = |attempt| Token {
            run: self.run.clone(),
            cell: CellId::from("unpacked"),
            attempt,
            epoch: 0,
        };
        if self.digest != digest {
            // The one before may not be whole.
            self.store.artifacts().close(&token(self.artifact));
            self.artifact += 1;
            self.digest.clone_from(&digest);
        }
        let token = token(self.artifact);
        let artifacts = self.store.artifacts();
        artifacts.accept(&token);
        let end = offset + bytes.len() as u64;
        if !bytes.is_empty() {
            artifacts.chunk(&token, 1, offset, &bytes, None);
        }
        if end == size {
            artifacts.end(&token, 1, Some(&digest), size);
        }
        if let Some((_, reason)) = artifacts.take_refusals(&token).pop() {
            return Err(Error::Unpack(format!("the artifact {digest}: {reason}")));
        }
        Ok(())
    }

    fn begin(&mut self, cell: CellId, attempt: u32) -> Result<(), Error> {
        let same = |token: &Token| token.cell == cell && token.attempt == attempt;
        if self.token.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.flush()?;
        let token = Token {
            run: self.run.clone(),
            cell,
            attempt,
            epoch: 0,
        };
        if let Some(before) = self.token.take() {
            self.store.close(&before);
        }
        self.store.open(&token, &AgentId::from("file"));
        self.token = Some(token);
        self.number = 0;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let records = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let Some(token) = self.token.as_ref().filter(|_| !records.is_empty()) else {
            return Ok(());
        };
        match self
            .store
            .append(token, records)
            .map_err(at(self.store.root()))?
        {
            Stored::Kept => Ok(()),
            Stored::Over => Err(Error::Unpack("its logs are closed".to_owned())),
            Stored::Refused(why) => Err(Error::Unpack(why)),
        }
    }
}
