//! Exports runs as OTLP traces if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! ```text
//! journal ─▶ reader (one per run) ─▶ shared::trace::Spans ─▶ phalanx_otlp::Tracer ─▶ OTLP
//! ```
//! A run's spans are made only from durable events. The reader is a watcher like any other, so a slow backend slows
//! down the reader and never a run.

mod annotate;
mod reader;

pub use reader::follow;
