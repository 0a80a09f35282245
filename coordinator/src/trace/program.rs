//! The inside of this program: its `tracing` spans (a submission, an offer, a commit of the journal) on the same way out.
//!
//! They are diagnostics, each a trace of its own. When the queue is full they are dropped and counted; they never wait.

use super::pipeline::Tracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The scope of these spans.
const SCOPE: &str = "phalanx";

/// Hands finished spans to the queue.
struct Queue(Tracer);

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.offer(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Tracer {
    /// A layer that takes the program's spans.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue(self.clone()))
            .build();
        tracing_opentelemetry::layer().with_tracer(provider.tracer(SCOPE))
    }
}
