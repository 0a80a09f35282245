//! Trace and span ids, and the W3C `traceparent` that carries them.
//!
//! An id is a hash of what its span is of, never random: coordinator and agent derive the same one, before and after a restart.

use crate::id::{CellId, RunId, Token};
use sha2::{Digest, Sha256};
use std::fmt;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// A trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span within a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// The trace of a run: its UUID's 16 bytes, so that a person recognises it; a hash for an id that is no UUID.
    pub fn of_run(run: &RunId) -> TraceId {
        match uuid::Uuid::try_parse(run.as_str()) {
            Ok(uuid) if !uuid.is_nil() => TraceId(*uuid.as_bytes()),
            _ => TraceId(hash(&["trace", run.as_str()])),
        }
    }
}

impl SpanId {
    fn of(parts: &[&str]) -> SpanId {
        let id = SpanId(hash(parts));
        // All zeroes means no span; one hash in 2^64 is that.
        if id.0 == [0; 8] { SpanId([1; 8]) } else { id }
    }

    /// The span of a run.
    pub fn of_run(run: &RunId) -> SpanId {
        SpanId::of(&["run", run.as_str()])
    }

    /// The span of a cell.
    pub fn of_cell(run: &RunId, cell: &CellId) -> SpanId {
        SpanId::of(&["cell", run.as_str(), cell.as_str()])
    }
}

/// The first bytes of a hash over parts, each with its length, so that no two lists of parts are alike.
fn hash<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut first = [0; N];
    first
        .iter_mut()
        .zip(digest.iter())
        .for_each(|(to, from)| *to = *from);
    first
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A place in a trace, as `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that what comes next is a child of.
    pub span: SpanId,
    /// Bit 0: the trace is recorded.
    pub flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent` (<https://www.w3.org/TR/trace-context/>); `None` for anything else, which is to be ignored.
    pub fn parse(text: &str) -> Option<TraceContext> {
        let mut fields = text.trim().split('-');
        let (version, trace, span, flags) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        // A later version may have further fields; 255 is forbidden.
        let version = byte(version)?;
        if version == 0xff || (version == 0 && fields.next().is_some()) {
            return None;
        }
        let (trace, span) = (TraceId(bytes(trace)?), SpanId(bytes(span)?));
        let flags = byte(flags)?;
        (trace.0 != [0; 16] && span.0 != [0; 8]).then_some(TraceContext { trace, span, flags })
    }

    /// Where a run stands: below the span it was submitted in, or at the root of a trace of its own.
    pub fn of_run(run: &RunId, within: Option<TraceContext>) -> TraceContext {
        TraceContext {
            trace: within.map_or_else(|| TraceId::of_run(run), |within| within.trace),
            span: SpanId::of_run(run),
            flags: within.map_or(SAMPLED, |within| within.flags),
        }
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, another span.
    #[must_use]
    pub fn at(self, span: SpanId) -> TraceContext {
        TraceContext { span, ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the flags only the one that version 0 knows is passed on.
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.trace,
            self.span,
            self.flags & SAMPLED
        )
    }
}

fn byte(text: &str) -> Option<u8> {
    bytes::<1>(text).map(|[byte]| byte)
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let upper = |c: char| c.is_ascii_uppercase();
    // The standard wants lower case.
    if text.contains(upper) {
        return None;
    }
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// Derives the spans of one attempt: the same on the agent, which tells services of them, and where spans are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptTrace {
    context: TraceContext,
    /// What all ids of the attempt begin with.
    base: [String; 3],
}

impl AttemptTrace {
    /// Of an attempt in a trace.
    pub fn new(context: TraceContext, token: &Token) -> AttemptTrace {
        Self::of(context, &token.run, &token.cell, token.attempt)
    }

    /// The same, of its parts.
    pub fn of(context: TraceContext, run: &RunId, cell: &CellId, attempt: u32) -> AttemptTrace {
        AttemptTrace {
            context,
            base: [run.to_string(), cell.to_string(), attempt.to_string()],
        }
    }

    fn id(&self, parts: &[&str]) -> SpanId {
        let base = self.base.iter().map(String::as_str);
        let all: Vec<&str> = ["attempt"]
            .into_iter()
            .chain(base)
            .chain(parts.iter().copied())
            .collect();
        SpanId::of(&all)
    }

    /// The attempt's own span.
    pub fn attempt(&self) -> SpanId {
        self.id(&[])
    }

    /// Its stack, from the first service's beginning until nothing is left.
    pub fn stack(&self) -> SpanId {
        self.id(&["stack"])
    }

    /// The removal of its stack.
    pub fn clean_up(&self) -> SpanId {
        self.id(&["clean-up"])
    }

    /// A service, as long as it lives.
    pub fn service(&self, service: &str) -> SpanId {
        self.id(&["service", service])
    }

    /// A stage of a service's life, the `n`-th time that it comes to it. `ready` counts as often as the start before it.
    pub fn stage(&self, service: &str, stage: &str, n: u32) -> SpanId {
        self.id(&["service", service, stage, &n.to_string()])
    }

    /// A phase, group or step, the `n`-th time that it runs: a retried group runs its steps again.
    pub fn step(&self, path: &str, n: u32) -> SpanId {
        self.id(&["step", path, &n.to_string()])
    }

    /// One that was skipped, the `n`-th time.
    pub fn skipped(&self, path: &str, n: u32) -> SpanId {
        self.id(&["skipped", path, &n.to_string()])
    }

    /// `traceparent` for whatever a span's work calls.
    pub fn parent(&self, span: SpanId) -> String {
        self.context.at(span).to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_the_standard_has_it() {
        let context = TraceContext::parse(PARENT).unwrap();
        assert_eq!(context.to_string(), PARENT);
        assert!(context.is_sampled());
        let unsampled = PARENT.replace("-01", "-00");
        assert!(!TraceContext::parse(&unsampled).unwrap().is_sampled());
        // A later version may say more.
        let later = format!("{}-more", PARENT.replacen("00-", "01-", 1));
        assert_eq!(TraceContext::parse(&later).unwrap(), context);
        for wrong in [
            "",
            "00",
            "00-1-2-3",
            &format!("{PARENT}-more"),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.to_uppercase(),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_run_is_a_trace_of_its_own_or_part_of_the_one_it_was_submitted_in() {
        let run = RunId::from("01a20310-164b-7535-9778-e12d19df3ce8");
        let own = TraceContext::of_run(&run, None);
        assert_eq!(own.trace.to_string(), "01a20310164b75359778e12d19df3ce8");
        assert!(own.is_sampled());
        let within = TraceContext::parse(PARENT).unwrap();
        let part = TraceContext::of_run(&run, Some(within));
        assert_eq!((part.trace, part.span), (within.trace, own.span));
    }

    #[test]
    fn no_two_things_of_a_run_share_a_span() {
        let run = RunId::from("run");
        let cell = CellId::from("cell");
        let context = TraceContext::of_run(&run, None);
        let one = AttemptTrace::of(context, &run, &cell, 1);
        let two = AttemptTrace::of(context, &run, &cell, 2);
        let mut ids = vec![
            SpanId::of_run(&run),
            SpanId::of_cell(&run, &cell),
            one.attempt(),
            two.attempt(),
            one.stack(),
            one.clean_up(),
            one.service("stack"),
            one.stage("db", "start", 1),
            one.stage("db", "start", 2),
            one.step("sync/1", 1),
            one.step("sync/1", 2),
            one.step("sync", 11),
            one.skipped("sync/1", 1),
            two.step("sync/1", 1),
        ];
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }

    proptest! {
        #[test]
        fn nothing_that_somebody_sends_as_traceparent_panics(text in "\\PC{0,80}|[0-9a-f-]{0,70}") {
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert!(TraceContext::parse(&context.to_string()).is_some());
            }
        }
    }
}
