//! A run as one trace: the spans that its events make, and the ids that every component derives alike.
//!
//! ```text
//! run ─ cell ─ attempt ─┬─ stack ─┬─ service ─ pull, build, create, start, ready
//!                       │         └─ clean-up
//!                       └─ phase ─ group ─ step
//! ```
//! Spans are made from journaled events only, so that a run that continues after a crash stays one trace. Their ids are
//! hashes of what they describe ([`id`]). So an agent can put a step's span id into a header before the coordinator,
//! which makes the span ([`spans`]), has received the step's event. The coordinator exports the spans
//! (`coordinator/src/trace/`).

mod attempt;
pub mod id;
pub mod span;
pub mod spans;

pub use id::{AttemptTrace, SpanId, TraceContext, TraceId};
pub use span::{Span, SpanEvent, Status, Value};
pub use spans::Spans;
