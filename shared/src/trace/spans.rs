//! The fold of a run's events into spans: events come in, in journal order, and spans come out as they end.
//!
//! The fold is total, like the fold of the run's state: a late, repeated or unknown event makes no span, and no event
//! causes a panic. `attempt.rs` handles the events of an attempt.
//!
//! stage: traced: a second fold makes spans of the same events, if an endpoint is set

use super::attempt::Attempt;
use super::span::{Attributes, judge, moment, number_of, of_kind, text};
use super::{AttemptTrace, Span, SpanEvent, SpanId, Status, TraceContext};
use crate::event::{Event, EventKind};
use crate::id::{CellId, RunId};
use crate::outcome::Outcome;
use crate::plan::PlannedCell;
use crate::time::Timestamp;
use std::collections::HashMap;

/// Makes the spans of one run.
pub struct Spans {
    run: RunId,
    /// The run's own span.
    context: TraceContext,
    /// Span in which the run was submitted.
    within: Option<SpanId>,
    submitted: Option<Timestamp>,
    spec: String,
    attributes: Attributes,
    events: Vec<SpanEvent>,
    cells: HashMap<CellId, Cell>,
}

struct Cell {
    attributes: Attributes,
    name: String,
    events: Vec<SpanEvent>,
    attempt: Option<Attempt>,
    finished: bool,
}

impl Spans {
    /// Starts before a run's first event. `within` is the trace in which the run was submitted.
    pub fn new(run: RunId, within: Option<TraceContext>) -> Spans {
        Spans {
            context: TraceContext::of_run(&run, within),
            within: within.map(|within| within.span),
            submitted: None,
            spec: String::new(),
            attributes: vec![text("phalanx.run.id", run.as_str())],
            events: Vec::new(),
            cells: HashMap::new(),
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
            EventKind::RunSubmitted { plan, .. } if self.submitted.is_none() => {
                self.submitted = Some(at);
                self.spec.clone_from(&plan.spec);
                self.attributes.push(text("phalanx.spec", &plan.spec));
                let cells = plan.cells.iter();
                self.cells = cells
                    .map(|cell| (cell.id.clone(), Cell::new(&self.attributes, cell)))
                    .collect();
            }
            EventKind::CellOffered {
                token, agent_name, ..
            } => {
                let context = self.context;
                let Some(cell) = self.cells.get_mut(&token.cell) else {
                    return Vec::new();
                };
                let number = cell.attempt.as_ref().map_or(0, |before| before.number);
                if cell.finished || token.attempt <= number {
                    return Vec::new();
                }
                let mut attributes = cell.attributes.clone();
                attributes.push(number_of("phalanx.attempt", token.attempt));
                attributes.push(text("phalanx.agent", agent_name));
                let parent = SpanId::of_cell(&token.run, &token.cell);
                let ids = AttemptTrace::new(context, token);
                let next = Attempt::offered(
                    ids,
                    context.trace,
                    parent,
                    token.attempt,
                    attributes,
                    event.at,
                );
                let before = cell.attempt.replace(next);
                return before.map_or_else(Vec::new, Attempt::finish);
            }
            EventKind::CellReturned { token, reason } => {
                let Some(cell) = self.cells.get_mut(&token.cell) else {
                    return Vec::new();
                };
                let same = |attempt: &Attempt| attempt.number == token.attempt;
                if cell.attempt.as_ref().is_some_and(same) {
                    cell.attempt = None;
                    cell.events
                        .push(moment("offer returned", at, "phalanx.reason", reason));
                }
            }
            EventKind::AttemptLost { token, reason } => {
                let cell = self.cells.get_mut(&token.cell);
                let attempt = cell.and_then(|cell| cell.attempt.as_mut());
                let attempt = attempt.filter(|attempt| attempt.number == token.attempt);
                return attempt.map_or_else(Vec::new, |attempt| {
                    attempt.ended(Outcome::Errored, Some(reason), at)
                });
            }
            EventKind::CellFinished {
                cell: id,
                outcome,
                reason,
                attempts,
            } => {
                let start = self.submitted.unwrap_or(at);
                let (trace, parent) = (self.context.trace, self.context.span);
                let Some(cell) = self.cells.get_mut(id).filter(|cell| !cell.finished) else {
                    return Vec::new();
                };
                cell.finished = true;
                let mut span = Span {
                    trace,
                    id: SpanId::of_cell(&self.run, id),
                    parent: Some(parent),
                    name: cell.name.clone(),
                    client: false,
                    start,
                    end: at.max(start),
                    attributes: of_kind("cell", &cell.attributes),
                    events: std::mem::take(&mut cell.events),
                    status: Status::Unset,
                };
                span.attributes
                    .push(number_of("phalanx.attempts", *attempts));
                judge(&mut span, *outcome, reason.as_deref());
                return vec![span];
            }
            EventKind::CancelRequested { reason, .. } => {
                self.events
                    .push(moment("cancel requested", at, "phalanx.reason", reason));
            }
            EventKind::RunFinished { outcome } => {
                let Some(start) = self.submitted else {
                    return Vec::new();
                };
                let mut span = Span {
                    trace: self.context.trace,
                    id: self.context.span,
                    parent: self.within,
                    name: self.spec.clone(),
                    client: false,
                    start,
                    end: at.max(start),
                    attributes: of_kind("run", &self.attributes),
                    events: std::mem::take(&mut self.events),
                    status: Status::Unset,
                };
                let cells = self.cells.len();
                span.attributes
                    .push(("phalanx.cells".to_owned(), cells.into()));
                judge(&mut span, *outcome, None);
                return vec![span];
            }
            _ => {}
        }
        Vec::new()
    }
}

impl Cell {
    fn new(of_run: &Attributes, planned: &PlannedCell) -> Cell {
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
            finished: false,
        }
    }
}

#[cfg(test)]
mod tests;
