//! Exports runs as OTLP traces if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! ```text
//! journal ─▶ reader (one per run) ─▶ shared::trace::Spans ─┐
//!                                                          ├─▶ queue ─▶ exporter ─▶ OTLP
//! tracing spans of this program ─▶ program.rs ─────────────┘
//! ```
//! A run's spans are made only from durable events. The reader is a watcher like any other, so a slow backend slows
//! down the reader and never a run. Without an endpoint there is no [`Tracer`], and none of this is started.

mod convert;
mod pipeline;
mod program;
mod reader;
pub mod settings;

pub use pipeline::{Delivery, Tracer};
pub use settings::Target;
