//! Trace and span ids, and the W3C `traceparent` that carries them.
//!
//! An id is a hash of what its span describes and never random: coordinator and agent derive the same id, before and
//! after a restart.

use crate::id::{CellId, RunId, Token};
use sha2::{Digest, Sha256};
use std::fmt;

/// Flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// Id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Id of a span within a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Returns the trace of a run: the 16 bytes of its UUID, so that people recognise it, or a hash for an id that
    /// isn't a UUID.
    pub fn of_run(run: &RunId) -> TraceId {
        match uuid::Uuid::try_parse(run.as_str()) {
            Ok(uuid) if !uuid.is_nil() => TraceId(*uuid.as_bytes()),
            _ => TraceId(hash(&["trace", run.as_str()])),
        }
    }

    /// Returns the trace of a cell whose run is split.
    pub fn of_cell(run: &RunId, cell: &CellId) -> TraceId {
        TraceId(hash(&["trace", run.as_str(), cell.as_str()]))
    }

    /// Parses 32 hexadecimal digits. Returns `None` for anything else.
    pub fn parse(text: &str) -> Option<TraceId> {
        bytes(text).map(TraceId)
    }
}

impl SpanId {
    fn of(parts: &[&str]) -> SpanId {
        let id = SpanId(hash(parts));
        // All zeroes means "no span", and one hash in 2^64 is all zeroes.
        if id.0 == [0; 8] { SpanId([1; 8]) } else { id }
    }

    /// Returns the span of a run.
    pub fn of_run(run: &RunId) -> SpanId {
        SpanId::of(&["run", run.as_str()])
    }

    /// Returns the span of a cell.
    pub fn of_cell(run: &RunId, cell: &CellId) -> SpanId {
        SpanId::of(&["cell", run.as_str(), cell.as_str()])
    }
}

/// Returns the first bytes of a hash over parts. Each part is preceded by its length, so different lists of parts never
/// have the same input.
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

/// A position in a trace, as in `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Id of the trace.
    pub trace: TraceId,
    /// Span that is the parent of what comes next.
    pub span: SpanId,
    /// Bit 0: the trace is recorded.
    pub flags: u8,
}

impl TraceContext {
    /// Parses a `traceparent` (<https://www.w3.org/TR/trace-context/>). Returns `None` for anything invalid, which
    /// callers must ignore.
    pub fn parse(text: &str) -> Option<TraceContext> {
        let mut fields = text.trim().split('-');
        let (version, trace, span, flags) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        // A later version may have further fields; version 255 is forbidden.
        let version = byte(version)?;
        if version == 0xff || (version == 0 && fields.next().is_some()) {
            return None;
        }
        let (trace, span) = (TraceId(bytes(trace)?), SpanId(bytes(span)?));
        let flags = byte(flags)?;
        (trace.0 != [0; 16] && span.0 != [0; 8]).then_some(TraceContext { trace, span, flags })
    }

    /// Returns the position of a run: below the span in which it was submitted, or at the root of its own trace.
    pub fn of_run(run: &RunId, within: Option<TraceContext>) -> TraceContext {
        TraceContext {
            trace: within.map_or_else(|| TraceId::of_run(run), |within| within.trace),
            span: SpanId::of_run(run),
            flags: within.map_or(SAMPLED, |within| within.flags),
        }
    }

    /// Returns whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns the same trace with another span.
    #[must_use]
    pub fn at(self, span: SpanId) -> TraceContext {
        TraceContext { span, ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the flag that version 0 defines is passed on.
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.trace,
            self.span,
            self.flags & SAMPLED
        )
    }
}

/// The traces of a run: where its own spans are, and where those of its cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTrace {
    /// The run's own span.
    pub context: TraceContext,
    /// Whether each cell has a trace of its own.
    pub split: bool,
}

impl RunTrace {
    /// Returns the context of a cell's attempts.
    pub fn of_cell(&self, run: &RunId, cell: &CellId) -> TraceContext {
        match self.split {
            false => self.context,
            true => TraceContext {
                trace: TraceId::of_cell(run, cell),
                ..self.context
            },
        }
    }
}

fn byte(text: &str) -> Option<u8> {
    bytes::<1>(text).map(|[byte]| byte)
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let upper = |c: char| c.is_ascii_uppercase();
    // The standard requires lower case.
    if text.contains(upper) {
        return None;
    }
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// Derives the span ids of one attempt. The agent, which passes them to services, and the exporter derive the same ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptTrace {
    context: TraceContext,
    /// Prefix of all ids of the attempt.
    base: [String; 3],
}

impl AttemptTrace {
    /// Returns the ids of an attempt in a trace.
    pub fn new(context: TraceContext, token: &Token) -> AttemptTrace {
        Self::of(context, &token.run, &token.cell, token.attempt)
    }

    /// Does the same as [`AttemptTrace::new`], with the parts of the token.
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

    /// Returns the attempt's own span.
    pub fn attempt(&self) -> SpanId {
        self.id(&[])
    }

    /// Returns the span of the wait before the attempt.
    pub fn queue(&self) -> SpanId {
        self.id(&["queue"])
    }

    /// Returns the span of the stack, from the start of the first service until everything is removed.
    pub fn stack(&self) -> SpanId {
        self.id(&["stack"])
    }

    /// Returns the span of the stack's removal.
    pub fn clean_up(&self) -> SpanId {
        self.id(&["clean-up"])
    }

    /// Returns the span of a service's whole life.
    pub fn service(&self, service: &str) -> SpanId {
        self.id(&["service", service])
    }

    /// Returns the span of a stage of a service, the `n`-th time that the service reaches it. `ready` has the number of
    /// the start before it.
    pub fn stage(&self, service: &str, stage: &str, n: u32) -> SpanId {
        self.id(&["service", service, stage, &n.to_string()])
    }

    /// Returns the span of a phase, group or step, the `n`-th time that it runs: a retried group runs its steps again.
    pub fn step(&self, path: &str, n: u32) -> SpanId {
        self.id(&["step", path, &n.to_string()])
    }

    /// Returns the span of a skipped step, the `n`-th time that it is skipped.
    pub fn skipped(&self, path: &str, n: u32) -> SpanId {
        self.id(&["skipped", path, &n.to_string()])
    }

    /// Returns the `traceparent` for requests that a span's work makes.
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
        // A later version may have more fields.
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
            one.queue(),
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

    #[test]
    fn a_split_run_gives_each_cell_a_trace_and_keeps_its_own() {
        let run = RunId::from("01a20310-164b-7535-9778-e12d19df3ce8");
        let context = TraceContext::of_run(&run, None);
        let of = |split, cell: &str| RunTrace { context, split }.of_cell(&run, &cell.into());
        assert_eq!(of(false, "a"), context);
        let (a, b) = (of(true, "a"), of(true, "b"));
        assert!(a.trace != b.trace && a.trace != context.trace);
        assert_eq!((a, a.flags), (of(true, "a"), context.flags));
        assert_eq!(TraceId::parse(&a.trace.to_string()), Some(a.trace));
        assert_eq!(TraceId::parse("no trace"), None);
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
