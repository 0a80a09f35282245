//! A run as one trace: the spans that its events make, and the ids that every component derives alike.
//!
//! ```text
//! run ─ cell ─┬─ queue
//!             └─ attempt ─┬─ stack ─┬─ service ─ pull, build, create, start, ready
//!                         │         └─ clean-up
//!                         └─ phase ─ group ─ step
//! ```
//! A run with more spans than a backend takes in one trace is split ([`RunTrace`]): its own trace ends at attempts, and
//! each cell has a trace of its own, with links both ways.
//!
//! Spans are made from journaled events only, so that a run that continues after a crash stays one trace. Their ids are
//! hashes of what they describe ([`id`]). So an agent can put a step's span id into a header before the coordinator,
//! which makes the span ([`spans`]), has received the step's event. The coordinator exports the spans
//! (`coordinator/src/trace/`).

mod attempt;
mod convention;
mod estimate;
pub mod id;
pub mod span;
pub mod spans;

pub use convention::result;
pub use estimate::spans as estimated_spans;
pub use id::{AttemptTrace, RunTrace, SpanId, TraceContext, TraceId};
pub use span::{Link, Span, SpanEvent, SpanKind, Status, Value};
pub use spans::Spans;
