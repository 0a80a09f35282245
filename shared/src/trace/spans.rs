//! The fold of a run's events into spans: events come in, in journal order, and spans come out as they end.
//!
//! The fold is total, like the fold of the run's state: a late, repeated or unknown event makes no span, and no event
//! causes a panic. `attempt.rs` handles the events of an attempt.
//!
//! stage: traced: a second fold makes spans of the same events, if an endpoint is set

use super::attempt::{Attempt, Offered, Place, by_time, twice};
use super::convention::{self, ErrorType, RunState};
use super::span::{Attributes, moment, name_waits, number_of, of_kind, text};
use super::{
    AttemptTrace, Link, RunTrace, Span, SpanEvent, SpanId, SpanKind, Status, TraceContext, TraceId,
};
use crate::event::{Event, EventKind};
use crate::id::{AgentId, CellId, RunId, Token};
use crate::outcome::Outcome;
use crate::plan::PlannedCell;
use crate::time::Timestamp;
use crate::wait::Wait;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Key in a run's origin: the trace of the run of which this one is a rerun.
pub const RERUN_TRACE: &str = "rerun_trace";
/// Key in a run's origin: the run of which this one is a rerun.
pub const RERUN_OF: &str = "rerun_of";
/// Key in a run's origin: whether each cell has a trace of its own. It is decided at the submission, because agents pass
/// the trace on before the number of spans is known.
pub const SPLIT: &str = "trace_split";
/// Maximum number of spans of a run's trace, by an estimate; with more, each cell gets a trace of its own. Tempo refuses
/// traces above 5 MB, and a span takes about a kilobyte.
pub const MOST: u64 = 5_000;

/// Makes the spans of one run.
pub struct Spans {
    run: RunId,
    /// The run's own span, and where its cells' are.
    trace: RunTrace,
    /// Span in which the run was submitted.
    within: Option<SpanId>,
    submitted: Option<Timestamp>,
    spec: String,
    attributes: Attributes,
    events: Vec<SpanEvent>,
    cells: HashMap<CellId, Cell>,
    /// The run that this one runs again, and its trace.
    original: Option<(TraceId, RunId)>,
}

struct Cell {
    attributes: Attributes,
    name: String,
    events: Vec<SpanEvent>,
    attempt: Option<Attempt>,
    /// Time since which it waits for an agent; `None` while it has one.
    waits: Option<Timestamp>,
    finished: bool,
}

impl Spans {
    /// Starts before a run's first event. `within` is the trace in which the run was submitted.
    pub fn new(run: RunId, within: Option<TraceContext>) -> Spans {
        Spans {
            trace: RunTrace {
                context: TraceContext::of_run(&run, within),
                split: false,
            },
            within: within.map(|within| within.span),
            submitted: None,
            spec: String::new(),
            attributes: vec![text("phalanx.run.id", run.as_str())],
            events: Vec::new(),
            cells: HashMap::new(),
            original: None,
            run,
        }
    }

    /// Returns the spans that end with this event.
    pub fn apply(&mut self, event: &Event) -> Vec<Span> {
        if event.run != self.run {
            return Vec::new();
        }
        let Some(of) = &event.attempt else {
            return self.of_run(event);
        };
        let attempt = self
            .cells
            .get_mut(&of.cell)
            .and_then(|cell| cell.attempt.as_mut())
            .filter(|attempt| attempt.number == of.attempt);
        attempt.map_or_else(Vec::new, |attempt| attempt.apply(event))
    }

    /// Returns the remaining spans when no more events will come.
    pub fn finish(mut self) -> Vec<Span> {
        let attempts = self.cells.values_mut();
        let left = attempts.filter_map(|cell| cell.attempt.take());
        left.flat_map(Attempt::finish).collect()
    }

    fn of_run(&mut self, event: &Event) -> Vec<Span> {
        let at = event.at;
        match &event.kind {
            EventKind::RunSubmitted { plan, origin } if self.submitted.is_none() => {
                self.submitted = Some(at);
                self.spec.clone_from(&plan.spec);
                self.attributes.push(text("phalanx.spec", &plan.spec));
                self.trace.split = origin.get(SPLIT).is_some_and(|split| *split == true);
                self.original = original(origin);
                let cells = plan.cells.iter();
                self.cells = cells
                    .map(|cell| (cell.id.clone(), Cell::new(&self.attributes, cell, at)))
                    .collect();
            }
            EventKind::CellOffered {
                token,
                agent,
                agent_name,
                placement,
            } => return self.offered(token, (agent, agent_name), &placement.waits, at),
            EventKind::CellReturned { token, reason } => {
                let Some(cell) = self.cells.get_mut(&token.cell) else {
                    return Vec::new();
                };
                let same = |attempt: &Attempt| attempt.number == token.attempt;
                if cell.attempt.as_ref().is_some_and(same) {
                    cell.attempt = None;
                    cell.waits = Some(at);
                    cell.events
                        .push(moment("offer returned", at, "phalanx.reason", reason));
                }
            }
            EventKind::AttemptLost { token, reason } => {
                let cell = self.cells.get_mut(&token.cell);
                let attempt = cell.and_then(|cell| cell.attempt.as_mut());
                let attempt = attempt.filter(|attempt| attempt.number == token.attempt);
                return attempt.map_or_else(Vec::new, |attempt| {
                    attempt.ended(Outcome::Errored, Some(reason), ErrorType::AgentLost, at)
                });
            }
            EventKind::CellFinished {
                cell,
                outcome,
                reason,
                attempts,
            } => return self.cell_finished(cell, *outcome, reason.as_deref(), *attempts, at),
            EventKind::CancelRequested { reason, .. } => {
                self.events
                    .push(moment("cancel requested", at, "phalanx.reason", reason));
            }
            EventKind::RunFinished { outcome } => {
                return self.run_finished(*outcome, at).into_iter().collect();
            }
            _ => {}
        }
        Vec::new()
    }

    fn offered(
        &mut self,
        token: &Token,
        (agent, agent_name): (&AgentId, &str),
        waits: &[Wait],
        at: Timestamp,
    ) -> Vec<Span> {
        let (trace, pipeline) = (self.trace, convention::pipeline(&self.spec, &self.run));
        let Some(cell) = self.cells.get_mut(&token.cell) else {
            return Vec::new();
        };
        let number = cell.attempt.as_ref().map_or(0, |before| before.number);
        if cell.finished || token.attempt <= number {
            return Vec::new();
        }
        let inner = trace.of_cell(&token.run, &token.cell);
        let place = Place {
            trace: inner.trace,
            of_run: trace.context.trace,
            cell_span: SpanId::of_cell(&token.run, &token.cell),
            cell: token.cell.clone(),
            cell_name: cell.name.clone(),
        };
        let offered = Offered {
            number: token.attempt,
            agent,
            agent_name,
            before: cell.attempt.as_ref().map(Attempt::id),
            at,
        };
        let ids = AttemptTrace::new(inner, token);
        let attributes = cell.attributes.clone();
        let next = Attempt::offered(ids, place, &offered, attributes, pipeline);
        let before = cell.attempt.replace(next);
        let over = before.as_ref().and_then(Attempt::over_at);
        let mut spans = before.map_or_else(Vec::new, Attempt::finish);
        if let Some(since) = cell.waits.take().or(over) {
            let ids = AttemptTrace::new(trace.context, token);
            let parent = SpanId::of_cell(&token.run, &token.cell);
            let mut span = cell.queued(&ids, trace.context, parent, (since, at));
            name_waits(&mut span, waits);
            spans.push(span);
        }
        spans
    }

    fn cell_finished(
        &mut self,
        id: &CellId,
        outcome: Outcome,
        reason: Option<&str>,
        attempts: u32,
        at: Timestamp,
    ) -> Vec<Span> {
        let start = self.submitted.unwrap_or(at);
        let context = self.trace.context;
        let detail = self.trace.of_cell(&self.run, id).trace;
        let Some(cell) = self.cells.get_mut(id).filter(|cell| !cell.finished) else {
            return Vec::new();
        };
        cell.finished = true;
        let mut span = Span {
            trace: context.trace,
            id: SpanId::of_cell(&self.run, id),
            parent: Some(context.span),
            name: cell.name.clone(),
            kind: SpanKind::Internal,
            start,
            end: at.max(start),
            attributes: of_kind("cell", &cell.attributes),
            events: std::mem::take(&mut cell.events),
            links: Vec::new(),
            status: Status::Unset,
        };
        if let Some((trace, run)) = &self.original {
            span.links.push(Link {
                trace: *trace,
                span: SpanId::of_cell(run, id),
                what: "original",
            });
        }
        span.attributes
            .push(number_of("phalanx.attempts", attempts));
        let of_run = convention::pipeline(&self.spec, &self.run);
        span.attributes.extend(of_run);
        let task = convention::task(&cell.name, id.as_str());
        span.attributes.extend(task);
        convention::suite(&mut span, &cell.name, outcome);
        let error = by_time(cell.attempt.as_ref().is_some_and(Attempt::timed_out));
        convention::judge_task(&mut span, outcome, reason, error);
        let mut spans = twice(span, detail);
        // In its own trace, the cell is the root.
        for inner in spans.iter_mut().skip(1) {
            inner.parent = None;
        }
        // A cell that never got an agent waited until its end.
        if let Some(since) = cell.waits.take() {
            let ids = AttemptTrace::of(context, &self.run, id, attempts.saturating_add(1));
            let parent = SpanId::of_cell(&self.run, id);
            spans.push(cell.queued(&ids, context, parent, (since, at)));
        }
        spans
    }

    fn run_finished(&mut self, outcome: Outcome, at: Timestamp) -> Option<Span> {
        let start = self.submitted?;
        let mut span = Span {
            trace: self.trace.context.trace,
            id: self.trace.context.span,
            parent: self.within,
            name: format!("RUN {}", self.spec),
            kind: SpanKind::Server,
            start,
            end: at.max(start),
            attributes: of_kind("run", &self.attributes),
            events: std::mem::take(&mut self.events),
            links: Vec::new(),
            status: Status::Unset,
        };
        if let Some((trace, run)) = &self.original {
            span.links.push(Link {
                trace: *trace,
                span: SpanId::of_run(run),
                what: "original",
            });
        }
        let cells = self.cells.len();
        span.attributes
            .push(("phalanx.cells".to_owned(), cells.into()));
        let of_run = convention::pipeline(&self.spec, &self.run);
        span.attributes.extend(of_run);
        span.attributes
            .push(text("cicd.pipeline.action.name", "RUN"));
        convention::judge_pipeline(&mut span, outcome);
        Some(span)
    }
}

/// Returns the trace and the run of which this run is a rerun.
fn original(origin: &Map<String, Value>) -> Option<(TraceId, RunId)> {
    let trace = origin.get(RERUN_TRACE)?.as_str()?;
    let run = origin.get(RERUN_OF)?.as_str()?;
    Some((TraceId::parse(trace)?, run.into()))
}

impl Cell {
    fn new(of_run: &Attributes, planned: &PlannedCell, submitted: Timestamp) -> Cell {
        let mut attributes = of_run.clone();
        attributes.push(text("phalanx.cell.id", planned.id.as_str()));
        attributes.push(text("phalanx.cell.name", &planned.name));
        for (axis, value) in &planned.matrix {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            attributes.push((format!("phalanx.matrix.{axis}"), value.into()));
        }
        Cell {
            attributes,
            name: planned.name.clone(),
            events: Vec::new(),
            attempt: None,
            waits: Some(submitted),
            finished: false,
        }
    }

    /// Returns the span of a wait for an agent.
    fn queued(
        &self,
        ids: &AttemptTrace,
        context: TraceContext,
        parent: SpanId,
        (start, end): (Timestamp, Timestamp),
    ) -> Span {
        let mut attributes = of_kind("queue", &self.attributes);
        attributes.push(convention::state(RunState::Pending));
        Span {
            trace: context.trace,
            id: ids.queue(),
            parent: Some(parent),
            name: "queue".to_owned(),
            kind: SpanKind::Internal,
            start,
            end: end.max(start),
            attributes,
            events: Vec::new(),
            links: Vec::new(),
            status: Status::Unset,
        }
    }
}

#[cfg(test)]
mod tests;
