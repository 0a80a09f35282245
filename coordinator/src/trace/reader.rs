//! Reads one run's journal as it grows and passes its spans to the queue.
//!
//! It reads from the first event, also after a restart. Spans sent before the restart are sent again under the same
//! ids, since it is unknown which ones the backend had received.

use super::convert::span_data;
use super::pipeline::Tracer;
use crate::journal::Store;
use crate::registry::{Registry, RunHandle};
use crate::run::actor::RunTail;
use phalanx_shared::id::RunId;
use phalanx_shared::trace::{Span, Spans, TraceContext};
use std::sync::Arc;
use tokio::sync::watch;

/// Maximum number of events read at once.
const BATCH: u32 = 512;

struct Reader {
    tracer: Tracer,
    store: Arc<dyn Store>,
    registry: Registry,
    run: RunId,
    within: Option<TraceContext>,
    tail: watch::Receiver<RunTail>,
}

impl Tracer {
    /// Follows a run's journal to its end. Does nothing if the run is already followed or its trace isn't sampled.
    pub fn follow(
        &self,
        run: &RunId,
        within: Option<TraceContext>,
        store: Arc<dyn Store>,
        registry: Registry,
        handle: &RunHandle,
    ) {
        if !TraceContext::of_run(run, within).is_sampled() {
            return;
        }
        let (of, tail) = (run.clone(), handle.tail.clone());
        self.read(run, |tracer| {
            let reader = Reader {
                tracer,
                store,
                registry,
                run: of,
                within,
                tail,
            };
            reader.read()
        });
    }
}

impl Reader {
    /// Reads until the run is settled or the tracer stops.
    async fn read(mut self) {
        let mut spans = Spans::new(self.run.clone(), self.within);
        let mut next = 1;
        let mut gone = false;
        loop {
            // Marked as seen before reading: events that arrive in between are read now or wake the next round.
            let stopping = self.tracer.is_stopping();
            let (settled, known) = match gone {
                true => (true, u64::MAX),
                false => {
                    let tail = self.tail.borrow_and_update();
                    (tail.settled, tail.position)
                }
            };
            while next <= known {
                match self.batch(&mut spans, next).await {
                    Some(after) if after > next => next = after,
                    _ => break,
                }
            }
            if settled {
                return self.send(spans.finish()).await;
            }
            if stopping {
                return;
            }
            gone = self.wait().await;
        }
    }

    /// Processes a batch of events. Returns the position after it, or `None` if the journal can't be read.
    async fn batch(&self, spans: &mut Spans, from: u64) -> Option<u64> {
        let events = match self.store.events(&self.run, from, BATCH).await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(run = %self.run, %error, "the run's trace ends here: can't read its journal");
                return None;
            }
        };
        let mut next = from;
        for recorded in events {
            next = recorded.position + 1;
            self.send(spans.apply(&recorded.event)).await;
        }
        Some(next)
    }

    async fn send(&self, spans: Vec<Span>) {
        for span in spans {
            self.tracer.send(span_data(span)).await;
        }
    }

    /// Waits for more events. Returns whether no more can come.
    async fn wait(&mut self) -> bool {
        let closed = tokio::select! {
            changed = self.tail.changed() => changed.is_err(),
            () = self.tracer.stopping() => false,
        };
        if !closed {
            return false;
        }
        // The run's actor is gone: the run settled, or a new actor has taken over.
        match self.registry.get(&self.run) {
            Some(run) => {
                self.tail = run.tail;
                false
            }
            None => true,
        }
    }
}
