//! The single writer: it takes the waiting appends, commits them in one transaction, and notifies all callers at once
//! (group commit). Agents' events carry a [`Receipt`], by which the writer tells their session directly.
//!
//! A full or failing disk only causes delay: the writer logs it once and retries until it works, while the bounded
//! channel slows the callers down. Nothing is dropped.
//!
//! stage: durable: group commit; the acknowledgement comes after it

use super::store::{FULL, Store, StoreError, Write};
use crate::metrics::METRICS;
use phalanx_shared::clock::Stopwatch;
use phalanx_shared::time::Timestamp;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Maximum number of appends in one commit.
const BATCH: usize = 1_024;
/// Maximum number of waiting appends. Further callers wait.
const QUEUE: usize = 4_096;
/// Pause before a failed commit is retried: doubles from the first value up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why the journal can't be written at the moment; `None` while it can.
pub type Health = Option<String>;

struct Append {
    writes: Vec<Write>,
    receipt: Option<Receipt>,
    done: oneshot::Sender<Result<(), StoreError>>,
    line: Line,
}

impl Append {
    fn end(self, result: Result<(), StoreError>) {
        if let Some(receipt) = self.receipt {
            receipt.give(result.is_ok());
        }
        // The receiver is gone if its run is.
        let _ = self.done.send(result);
    }
}

/// Tells the sender of events once whether they are on disk. A receipt that is lost on the way says that they aren't.
pub struct Receipt(Option<Box<dyn FnOnce(bool) + Send>>);

impl Receipt {
    /// Creates a receipt. `tell` must not wait: the writer calls it between commits.
    pub fn new(tell: impl FnOnce(bool) + Send + 'static) -> Self {
        Receipt(Some(Box::new(tell)))
    }

    /// Says whether the events are on disk.
    pub fn give(mut self, stored: bool) {
        if let Some(tell) = self.0.take() {
            tell(stored);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(false);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// Appends that build on each other, such as those of a run. Once one is refused, so are all later ones: otherwise
/// events after a gap would be committed, and acknowledged (I1).
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<AtomicBool>);

impl Line {
    fn is_broken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn break_off(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A handle to the journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    appends: mpsc::Sender<Append>,
    store: Arc<dyn Store>,
    health: watch::Receiver<Health>,
    /// Damage found in the database file since the start.
    damage: Arc<OnceLock<String>>,
    epoch: u64,
}

/// Resolves when an append is on disk.
pub struct Durable(oneshot::Receiver<Result<(), StoreError>>);

impl Future for Durable {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stopped = || Err(StoreError::Unavailable("the journal has stopped".into()));
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.unwrap_or_else(|_| stopped()))
    }
}

impl Journal {
    /// Begins a term on a store and starts its writer. The writer ends when every handle is dropped.
    pub async fn start(
        store: Arc<dyn Store>,
        now: Timestamp,
    ) -> Result<(Journal, JoinHandle<()>), StoreError> {
        let epoch = store.begin_term(now).await?;
        let (appends, queue) = mpsc::channel(QUEUE);
        let (health_out, health) = watch::channel(None);
        let writer = tokio::spawn(write(store.clone(), queue, health_out));
        let journal = Journal {
            appends,
            store,
            health,
            damage: Arc::default(),
            epoch,
        };
        Ok((journal, writer))
    }

    /// Returns a handle that only reads: every append fails.
    pub fn read_only(store: Arc<dyn Store>) -> Journal {
        let (appends, _) = mpsc::channel(1);
        let (_, health) = watch::channel(Some("the journal is open for reading only".to_owned()));
        Journal {
            appends,
            store,
            health,
            damage: Arc::default(),
            epoch: 0,
        }
    }

    /// Returns the epoch of the term that began with this handle.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Queues writes in the order of calls; they become durable together. Waits only while the queue is full.
    pub async fn append(&self, writes: Vec<Write>) -> Durable {
        self.append_to(&Line::default(), writes, None).await
    }

    /// Queues writes that build on earlier ones of the same line. Gives the receipt as soon as they are on disk, before
    /// `Durable` resolves; with no writes, as soon as everything queued before is.
    pub async fn append_to(
        &self,
        line: &Line,
        writes: Vec<Write>,
        receipt: Option<Receipt>,
    ) -> Durable {
        let (done, durable) = oneshot::channel();
        let append = Append {
            writes,
            receipt,
            done,
            line: line.clone(),
        };
        // If the writer has stopped, the append is dropped, which both the receipt and `Durable` report.
        let _ = self.appends.send(append).await;
        Durable(durable)
    }

    /// Returns whether nothing is written any more: the journal was opened for reading only, or the writer has stopped.
    pub fn is_closed(&self) -> bool {
        self.appends.is_closed()
    }

    /// Returns the store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns the damage found in the database file since the start.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Records damage that was found.
    pub fn report_damage(&self, found: String) {
        // The first finding stays.
        let _ = self.damage.set(found);
    }

    /// Returns whether the journal can be written at the moment, as a watch channel.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

async fn write(
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<Append>,
    health: watch::Sender<Health>,
) {
    let mut appends = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut appends, BATCH).await > 0 {
        let mut writes = Vec::new();
        let mut waiting = Vec::with_capacity(appends.len());
        for mut append in appends.drain(..) {
            if append.line.is_broken() {
                append.end(refused());
                continue;
            }
            let from = writes.len();
            writes.append(&mut append.writes);
            waiting.push((from..writes.len(), append));
        }
        if writes.is_empty() || commit(&*store, &writes, &health).await.is_ok() {
            waiting
                .into_iter()
                .for_each(|(_, append)| append.end(Ok(())));
            continue;
        }
        // One append contradicts the database. Commit each separately, so that the others succeed.
        for (range, append) in waiting {
            let own = writes.get(range).unwrap_or_default();
            let result = match append.line.is_broken() {
                true => refused(),
                false if own.is_empty() => Ok(()),
                false => commit(&*store, own, &health).await,
            };
            if result.is_err() {
                append.line.break_off();
            }
            append.end(result);
        }
    }
    store.close().await;
}

fn refused() -> Result<(), StoreError> {
    let why = "it builds on an earlier write that was refused".to_owned();
    Err(StoreError::Refused(why))
}

/// Commits, however long the disk takes. Returns an error only if the writes contradict the database.
#[tracing::instrument(level = "debug", name = "commit", skip_all, fields(writes = writes.len()))]
async fn commit(
    store: &dyn Store,
    writes: &[Write],
    health: &watch::Sender<Health>,
) -> Result<(), StoreError> {
    let mut pause = RETRY.0;
    loop {
        let began = Stopwatch::start();
        match store.commit(writes).await {
            Ok(()) => {
                METRICS.journal_commit.observe(began.elapsed());
                let events = writes.iter().filter(|w| matches!(w, Write::Event(_)));
                METRICS.events.inc_by(events.count() as u64);
                if health.send_replace(None).is_some() {
                    tracing::info!("the journal is written again");
                }
                return Ok(());
            }
            Err(error @ (StoreError::Full | StoreError::Unavailable(_))) => {
                let reason = match error {
                    StoreError::Unavailable(reason) => reason,
                    _ => FULL.to_owned(),
                };
                if health.send_replace(Some(reason.clone())).is_none() {
                    tracing::error!(reason, "can't write to the journal, trying until it works");
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(RETRY.1);
            }
            Err(error) => {
                tracing::error!(%error, "the journal refused a write");
                return Err(error);
            }
        }
    }
}
