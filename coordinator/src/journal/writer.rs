//! The one writer: takes what waits, commits it in one transaction, tells everybody at once (group commit).
//!
//! A full or failing disk stops nothing but time: the writer says so once, tries again until it works, and the bounded channel
//! slows everybody down meanwhile. Nothing is dropped.

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

/// Appends taken into one commit.
const BATCH: usize = 1_024;
/// Appends that may wait; more slow their callers down.
const QUEUE: usize = 4_096;
/// Pause before a failed commit is tried again: from the first to the second, doubling.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why the journal isn't written at the moment; `None` while all is well.
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
    /// What was found in its file while it was in use.
    damage: Arc<OnceLock<String>>,
    epoch: u64,
}

/// Comes when an append is on disk.
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
    /// Begins a term on a store and starts its writer. The writer ends when every handle is gone.
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

    /// A handle that only reads: every append is refused.
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

    /// The term of office that began with this handle.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Queues writes, in the order of calls; they become durable together. Waits only while the queue is full.
    pub async fn append(&self, writes: Vec<Write>) -> Durable {
        let (done, durable) = oneshot::channel();
        // A writer that is gone drops `done`, which `Durable` reports.
        let _ = self.appends.send(Append { writes, done }).await;
        Durable(durable)
    }

    /// For reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Damage that was found in its file since the start.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Damage was found.
    pub fn report_damage(&self, found: String) {
        // The first finding stays.
        let _ = self.damage.set(found);
    }

    /// Whether it can be written at the moment.
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
            // One of them contradicts the database. Each by itself, so that it takes no other down with it.
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

/// Commits, however long the disk takes. Only a contradiction is an error.
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
                METRICS.events.add(events.count() as u64);
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
