//! Reads one run's journal as it grows and passes its spans to the queue.
//!
//! It reads from the first event, also after a restart. Spans sent before the restart are sent again under the same
//! ids, since it is unknown which ones the backend had received.

use super::annotate::{Annotations, name_finding};
use crate::journal::Store;
use crate::registry::{Registry, RunHandle};
use crate::run::actor::RunTail;
use phalanx_otlp::Tracer;
use phalanx_report::finding::findings;
use phalanx_report::view::RunView;
use phalanx_shared::event::EventKind;
use phalanx_shared::id::RunId;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::trace::{Span, Spans, TraceContext, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Maximum number of events read at once.
const BATCH: u32 = 512;
/// Time that annotations may still take when the program ends.
const HURRIED: Duration = Duration::from_secs(2);

struct Reader {
    tracer: Tracer,
    store: Arc<dyn Store>,
    registry: Registry,
    run: RunId,
    within: Option<TraceContext>,
    tail: watch::Receiver<RunTail>,
    /// Spans of cells that ended, until the run ends: what only the whole run can tell is added to them.
    held: Vec<Span>,
}

/// Follows a run's journal to its end. Does nothing if the run is already followed or its trace isn't sampled.
pub fn follow(
    tracer: &Tracer,
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
    tracer.read(run, |tracer| {
        let reader = Reader {
            tracer,
            store,
            registry,
            run: of,
            within,
            tail,
            held: Vec::new(),
        };
        reader.read()
    });
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
                self.send(spans.finish()).await;
                return self.release(None).await;
            }
            if stopping {
                return self.release(None).await;
            }
            gone = self.wait().await;
        }
    }

    /// Processes a batch of events. Returns the position after it, or `None` if the journal can't be read.
    async fn batch(&mut self, spans: &mut Spans, from: u64) -> Option<u64> {
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
            let over = matches!(recorded.event.kind, EventKind::RunFinished { .. });
            let mut ended = spans.apply(&recorded.event);
            for span in &mut ended {
                name_finding(span, &recorded.event);
            }
            let (own, rest): (Vec<Span>, Vec<Span>) = ended.into_iter().partition(is_whole);
            self.send(rest).await;
            self.held.extend(own);
            if over {
                let annotations = self.annotated(recorded.event.at).await;
                self.release(annotations).await;
            }
        }
        Some(next)
    }

    async fn send(&self, spans: Vec<Span>) {
        for span in spans {
            self.tracer.send(span).await;
        }
    }

    /// Sends the spans that were held back, with what the whole run tells about them.
    async fn release(&mut self, annotations: Option<Annotations>) {
        let mut spans = std::mem::take(&mut self.held);
        if let Some(annotations) = annotations {
            spans.iter_mut().for_each(|span| annotations.add(span));
        }
        self.send(spans).await;
    }

    /// Like [`Reader::annotations`], but gives up soon after the program wants to end: then the run's spans go without.
    async fn annotated(&self, now: Timestamp) -> Option<Annotations> {
        let hurried = async {
            self.tracer.stopping().await;
            tokio::time::sleep(HURRIED).await;
        };
        tokio::select! {
            made = self.annotations(now) => made,
            () = hurried => None,
        }
    }

    /// Folds the whole run once more. Returns `None` if its journal can't be read.
    async fn annotations(&self, now: Timestamp) -> Option<Annotations> {
        let state = self.state().await?;
        // Findings of a large run take a moment, in which this thread could serve others.
        let made = tokio::task::spawn_blocking(move || {
            let view = RunView::of(&state, now, None);
            Annotations::of(&view, &findings(&view, None))
        });
        made.await.ok()
    }

    async fn state(&self) -> Option<RunState> {
        let mut state = RunState::new(self.run.clone());
        let mut next = 1;
        loop {
            let events = match self.store.events(&self.run, next, BATCH).await {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(run = %self.run, %error, "the run's spans don't name its findings: can't read its journal");
                    return None;
                }
            };
            let Some(last) = events.last() else {
                return Some(state);
            };
            next = last.position + 1;
            for recorded in &events {
                state.apply_without_output(&recorded.event);
            }
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

/// Returns whether the whole run tells something about a span: that of a cell, or the run's own.
fn is_whole(span: &Span) -> bool {
    let kind = span.attribute("phalanx.kind");
    ["cell", "run"]
        .iter()
        .any(|of| kind == Some(&Value::from(*of)))
}
