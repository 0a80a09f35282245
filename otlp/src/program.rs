//! Exports this program's own `tracing` spans (a submission, an offer, a journal commit) through the same queue.
//!
//! They are diagnostics, each in a trace of its own. They never wait: when the queue is full, they are dropped and
//! counted.

use super::pipeline::Tracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

/// Instrumentation scope of these spans.
const SCOPE: &str = "phalanx";

/// Passes finished spans to the queue.
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
    /// Returns a `tracing` layer that exports Phalanx's own spans: those of level info, and finer ones up to `most`. The
    /// spans of libraries are left out, because the exporter's would be traced while they export.
    pub fn layer_of_phalanx<S>(&self, most: LevelFilter) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let most = most.max(LevelFilter::INFO);
        let ours = filter_fn(move |of| of.target().starts_with("phalanx") && *of.level() <= most);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue(self.clone()))
            .build();
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SCOPE))
            .with_filter(ours)
    }
}
