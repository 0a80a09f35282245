//! A run as one trace: which spans its events make, and the ids that everybody derives alike.
//!
//! ```text
//! run ─ cell ─ attempt ─┬─ stack ─┬─ service ─ pull, build, create, start, ready
//!                       │         └─ clean-up
//!                       └─ phase ─ group ─ step
//! ```
//! Spans come from journalled events and nothing else, so that a run that goes on after a crash is the same trace. Their ids
//! are hashes of what they are of ([`id`]), so that an agent can name a step's span in a header before the coordinator, which
//! makes the span ([`spans`]), has heard of the step. Exporting is the coordinator's (`coordinator/src/trace/`).

mod attempt;
pub mod id;
pub mod span;
pub mod spans;

pub use id::{AttemptTrace, SpanId, TraceContext, TraceId};
pub use span::{Span, SpanEvent, Status, Value};
pub use spans::Spans;
