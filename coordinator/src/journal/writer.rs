//! The single writer: it takes the waiting appends, commits them in one transaction, and notifies all callers at once
//! (group commit).
//!
//! A full or failing disk only causes delay: the writer logs it once and retries until it works, while the bounded
//! channel slows the callers down. Nothing is dropped.
//!
//! stage: durable: group commit; the acknowledgement comes after it

use super::store::{Store, StoreError, Write};
use crate::metrics::METRICS;
use phalanx_shared::clock::Stopwatch;
use phalanx_shared::time::Timestamp;
use std::future::Future;
use std::pin::Pin;
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
    done: oneshot::Sender<Result<(), StoreError>>,
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
        let (done, durable) = oneshot::channel();
        // If the writer has stopped, `done` is dropped, which `Durable` reports as an error.
        let _ = self.appends.send(Append { writes, done }).await;
        Durable(durable)
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
        for append in appends.drain(..) {
            let from = writes.len();
            writes.extend(append.writes);
            waiting.push((from..writes.len(), append.done));
        }
        match commit(&*store, &writes, &health).await {
            Ok(()) => waiting.into_iter().for_each(|(_, done)| {
                let _ = done.send(Ok(()));
            }),
            // One append contradicts the database. Commit each separately, so that the others succeed.
            Err(_) => {
                for (range, done) in waiting {
                    let own = writes.get(range).unwrap_or_default();
                    let _ = done.send(commit(&*store, own, &health).await);
                }
            }
        }
    }
    store.close().await;
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
            Err(StoreError::Unavailable(reason)) => {
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
