//! Sends spans and metrics to an OTLP backend, over gRPC or HTTP, if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! ```text
//! spans of runs (shared::trace) ─▶ convert.rs ─┐
//!                                              ├─▶ pipeline.rs: queue ─▶ exporter.rs ─▶ backend
//! `tracing` spans of this program ─▶ program.rs┘                           ▲
//! instruments of this program ─▶ meters.rs: collected at an interval ──────┘
//! ```
//! This crate knows neither journal nor runs: the coordinator reads those and hands spans over. Coordinator and agents
//! both export, and may not use each other, so the way out is a crate of its own. Without an endpoint there is neither a
//! [`Tracer`] nor [`Meters`], and none of this is started.

mod convert;
mod exporter;
mod meters;
mod pipeline;
mod program;
mod settings;

pub use convert::SCOPE;
pub use meters::Meters;
pub use pipeline::{Delivery, Tracer};
pub use settings::{Protocol, Signal, Target};
