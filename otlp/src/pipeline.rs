//! The queue of spans and the task that exports them in batches: while one batch is being sent, the next one gathers.
//!
//! A slow or unreachable backend costs spans, never a run: readers wait for the queue, and nothing waits for readers.
//! Undelivered spans are counted and reported once at the end.

use super::convert::span_data;
use super::exporter;
use super::settings::Target;
use futures::future::BoxFuture;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use phalanx_shared::id::RunId;
use phalanx_shared::trace::Span;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Maximum number of spans that wait for the exporter.
const QUEUE: usize = 4_096;
/// Maximum number of spans per batch.
const BATCH: usize = 512;
/// Time that an exporter gets beyond its own limit before a batch is given up: it may hang outside its own timeouts.
const BEYOND: Duration = Duration::from_secs(1);

/// Input of the exporter's task.
enum Item {
    Span(Box<SpanData>),
    /// Answered when everything before it is sent or lost.
    Flush(oneshot::Sender<()>),
}

/// Sends spans to a backend. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    target: Target,
    /// Default for `service.name`; the environment may override it.
    service: &'static str,
    queue: mpsc::Sender<Item>,
    /// The queue's receiver until the exporter is started.
    waiting: Mutex<Option<mpsc::Receiver<Item>>>,
    readers: TaskTracker,
    following: Mutex<HashSet<RunId>>,
    stopping: CancellationToken,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    made: AtomicU64,
    delivered: AtomicU64,
    error: Mutex<Option<String>>,
}

/// Result of delivering the spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Number of spans that the backend accepted.
    pub delivered: u64,
    /// Number of spans that it didn't accept.
    pub lost: u64,
    /// Whether time ran out, so that further spans may never have been made.
    pub cut: bool,
    /// The last delivery error, if there was one.
    pub error: Option<String>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracer({})", self.0.target.shown())
    }
}

impl Tracer {
    /// Creates a tracer; it sends nothing before [`Tracer::start`].
    pub fn new(target: Target, service: &'static str) -> Tracer {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Tracer(Arc::new(Inner {
            target,
            service,
            queue,
            waiting: Mutex::new(Some(waiting)),
            readers: TaskTracker::new(),
            following: Mutex::default(),
            stopping: CancellationToken::new(),
            tally: Arc::default(),
        }))
    }

    /// Starts the exporter; later calls do nothing. Must be called within a tokio runtime.
    pub fn start(&self) {
        let Some(queue) = locked(&self.0.waiting).take() else {
            return;
        };
        let tally = self.0.tally.clone();
        match exporter::spans(&self.0.target) {
            Ok(mut exporter) => {
                exporter.set_resource(&resource(self.0.service));
                let within = self.0.target.timeout.saturating_add(BEYOND);
                tokio::spawn(export(queue, exporter, within, tally));
            }
            // The queue's receiver is dropped: nothing is accepted any more, and `finish` reports the error.
            Err(error) => *locked(&tally.error) = Some(error),
        }
    }

    /// Runs a reader of the run's journal to its end. Does nothing if the run has one already.
    pub fn read<Reading>(&self, run: &RunId, reader: impl FnOnce(Tracer) -> Reading)
    where
        Reading: Future<Output = ()> + Send + 'static,
    {
        if !locked(&self.0.following).insert(run.clone()) {
            return;
        }
        let reading = reader(self.clone());
        let (tracer, run) = (self.clone(), run.clone());
        self.0.readers.spawn(async move {
            reading.await;
            locked(&tracer.0.following).remove(&run);
        });
    }

    /// Queues a span. Waits while the exporter is behind.
    pub async fn send(&self, span: Span) {
        self.0.tally.made.fetch_add(1, Ordering::Relaxed);
        let span = Box::new(span_data(span));
        // Without an exporter, the span counts as lost.
        let _ = self.0.queue.send(Item::Span(span)).await;
    }

    /// Queues a span if there is room; otherwise drops it.
    pub(super) fn offer(&self, span: SpanData) {
        self.0.tally.made.fetch_add(1, Ordering::Relaxed);
        let _ = self.0.queue.try_send(Item::Span(Box::new(span)));
    }

    /// Returns whether readers should send what is there and end.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    /// Completes when [`Tracer::finish`] is called.
    pub async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }

    /// Sends the spans of all events journaled so far and stops, at most within `within`. Logs a warning if spans were
    /// lost.
    pub fn finish(&self, within: Duration) -> BoxFuture<'_, Delivery> {
        Box::pin(self.flush(within))
    }

    async fn flush(&self, within: Duration) -> Delivery {
        self.0.stopping.cancel();
        self.0.readers.close();
        let all = async {
            self.0.readers.wait().await;
            let (flushed, done) = oneshot::channel();
            if self.0.queue.send(Item::Flush(flushed)).await.is_ok() {
                // If the exporter is gone, it has dropped the sender.
                let _ = done.await;
            }
        };
        let cut = tokio::time::timeout(within, all).await.is_err();
        let tally = &self.0.tally;
        let delivered = tally.delivered.load(Ordering::Relaxed);
        let delivery = Delivery {
            delivered,
            lost: tally.made.load(Ordering::Relaxed).saturating_sub(delivered),
            cut,
            error: locked(&tally.error)
                .as_deref()
                .map(|why| self.0.target.hushed(why)),
        };
        if delivery.lost > 0 || cut {
            let at_least = if cut { "at least " } else { "" };
            let endpoint = self.0.target.shown();
            let why = delivery.error.as_deref().unwrap_or("no answer in time");
            tracing::warn!(
                "the trace is not whole: {at_least}{} of {} spans could not be sent to {endpoint}: {why}",
                delivery.lost,
                delivery.lost.saturating_add(delivered),
            );
        }
        delivery
    }
}

async fn export(
    mut queue: mpsc::Receiver<Item>,
    exporter: SpanExporter,
    within: Duration,
    tally: Arc<Tally>,
) {
    let mut items = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut items, BATCH).await > 0 {
        let (mut batch, mut flushed) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items.drain(..) {
            match item {
                Item::Span(span) => batch.push(*span),
                Item::Flush(done) => flushed.push(done),
            }
        }
        let many = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        if many > 0 {
            match tokio::time::timeout(within, exporter.export(batch)).await {
                Ok(Ok(())) => {
                    tally.delivered.fetch_add(many, Ordering::Relaxed);
                }
                Ok(Err(error)) => *locked(&tally.error) = Some(error.to_string()),
                Err(_) => {
                    *locked(&tally.error) = Some(format!("no answer within {within:?}"));
                }
            }
        }
        for done in flushed {
            // The receiver may have given up.
            let _ = done.send(());
        }
    }
}

/// Returns what the spans and metrics of this program say about it.
pub(super) fn resource(service: &'static str) -> Resource {
    let named = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let in_attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES")
        .is_ok_and(|attributes| attributes.contains("service.name="));
    let builder = Resource::builder();
    if named("OTEL_SERVICE_NAME") || in_attributes {
        return builder.build();
    }
    builder.with_service_name(service).build()
}

/// Nothing panics while one of these is locked; if something did, the data would still be consistent.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
