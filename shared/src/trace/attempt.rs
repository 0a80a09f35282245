//! The spans of one attempt: its stack with its services, its phases, groups and steps, and its clean-up.

use super::span::{Attributes, judge, moment, number_of, of_kind, text};
use super::{AttemptTrace, Span, SpanEvent, SpanId, Status, TraceId, Value};
use crate::event::{Event, EventKind, ServiceState, StepResult};
use crate::outcome::Outcome;
use crate::time::Timestamp;
use indexmap::IndexMap;
use std::collections::HashMap;
use std::time::Duration;

/// An attempt that isn't cleaned up yet.
pub(super) struct Attempt {
    pub number: u32,
    ids: AttemptTrace,
    trace: TraceId,
    /// Span of the cell.
    parent: SpanId,
    attributes: Attributes,
    offered: Timestamp,
    started: Option<Timestamp>,
    /// Time at which its steps ended.
    ended: Option<Timestamp>,
    torn_down: bool,
    /// `seq` of the last event taken; events up to it are duplicates.
    last_seq: u64,
    events: Vec<SpanEvent>,
    /// Phases, groups and steps in progress, by path.
    open: IndexMap<String, Open>,
    /// Number of times that each path began and was skipped.
    counts: HashMap<String, (u32, u32)>,
    /// Newest span of each path, which is the parent of spans inside it.
    newest: HashMap<String, SpanId>,
    services: IndexMap<String, Service>,
    /// Time at which work on the first service began.
    stack_began: Option<Timestamp>,
}

struct Open {
    id: SpanId,
    name: String,
    action: String,
    began: Timestamp,
    /// Whether something began inside it.
    group: bool,
}

struct Service {
    began: Timestamp,
    /// Time of its last event.
    last: Timestamp,
    /// Whether it was running at that time.
    runs: bool,
    /// Number of times that it reached each stage.
    stages: HashMap<&'static str, u32>,
    /// Number and time of the start that isn't ready yet.
    waits: Option<(u32, Timestamp)>,
    detail: Option<String>,
    events: Vec<SpanEvent>,
}

impl Attempt {
    pub fn offered(
        ids: AttemptTrace,
        trace: TraceId,
        parent: SpanId,
        number: u32,
        attributes: Attributes,
        at: Timestamp,
    ) -> Attempt {
        Attempt {
            number,
            ids,
            trace,
            parent,
            attributes,
            offered: at,
            started: None,
            ended: None,
            torn_down: false,
            last_seq: 0,
            events: Vec::new(),
            open: IndexMap::new(),
            counts: HashMap::new(),
            newest: HashMap::new(),
            services: IndexMap::new(),
            stack_began: None,
        }
    }

    /// Returns the spans that end with this event.
    pub fn apply(&mut self, event: &Event) -> Vec<Span> {
        // After the attempt's end only its clean-up may follow.
        let late = self.ended.is_some() && !matches!(event.kind, EventKind::TornDown { .. });
        if late || event.seq <= self.last_seq {
            return Vec::new();
        }
        self.last_seq = event.seq;
        let at = event.at;
        match &event.kind {
            EventKind::AttemptStarted { .. } => {
                self.started.get_or_insert(at);
            }
            EventKind::ServiceChanged {
                service,
                state,
                began,
                detail,
            } => return self.service_changed(service, *state, *began, at, detail.as_deref()),
            EventKind::PhaseStarted { path, name } => self.begin(path, name, "phase", at),
            EventKind::StepStarted { path, name, action } => self.begin(path, name, action, at),
            EventKind::PhaseFinished {
                path,
                name,
                outcome,
                reason,
                began,
            } => return self.phase_ended(path, name, *outcome, reason.as_deref(), *began, at),
            EventKind::StepFinished(result) => return vec![self.step_ended(result)],
            EventKind::AttemptFinished { outcome, reason } => {
                return self.ended(*outcome, reason.as_deref(), at);
            }
            EventKind::TornDown {
                removed,
                left,
                began,
                ..
            } => return self.torn_down(*removed, left, *began, at),
            EventKind::LogGap {
                service, reason, ..
            } => {
                let mut gap = moment("log gap", at, "phalanx.reason", reason);
                gap.attributes.push(text("phalanx.service", service));
                self.events.push(gap);
            }
            EventKind::Note { message } => {
                self.events
                    .push(moment("note", at, "phalanx.message", message));
            }
            _ => {}
        }
        Vec::new()
    }

    /// Ends the attempt: its steps are over, or its agent is lost. Spans that are still open end too.
    pub fn ended(&mut self, outcome: Outcome, reason: Option<&str>, at: Timestamp) -> Vec<Span> {
        if self.ended.is_some() {
            return Vec::new();
        }
        self.ended = Some(at);
        let mut spans = Vec::new();
        while let Some((path, open)) = self.open.pop() {
            let mut span = self.span(
                open.id,
                self.around(&path),
                &open.name,
                kind(&open.action),
                (open.began, at),
            );
            span.attributes.push(text("phalanx.step.path", &path));
            judge(&mut span, outcome, reason);
            spans.push(span);
        }
        for (name, service) in std::mem::take(&mut self.services) {
            spans.extend(self.service_ended(&name, service, outcome, at));
        }
        let start = self.started.unwrap_or(self.offered);
        let name = format!("attempt {}", self.number);
        let mut span = self.span(
            self.ids.attempt(),
            self.parent,
            &name,
            "attempt",
            (start, at),
        );
        span.events = std::mem::take(&mut self.events);
        judge(&mut span, outcome, reason);
        spans.push(span);
        spans
    }

    /// Ends the attempt's spans when no more events will come.
    pub fn finish(mut self) -> Vec<Span> {
        match self.ended {
            Some(at) if !self.torn_down => self.stack_ended(at).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn torn_down(
        &mut self,
        removed: u32,
        left: &[String],
        began: Timestamp,
        at: Timestamp,
    ) -> Vec<Span> {
        if std::mem::replace(&mut self.torn_down, true) {
            return Vec::new();
        }
        let parent = match self.stack_began {
            Some(_) => self.ids.stack(),
            None => self.ids.attempt(),
        };
        let id = self.ids.clean_up();
        let mut span = self.span(id, parent, "clean-up", "clean-up", (began, at));
        span.attributes.push(number_of("phalanx.removed", removed));
        if !left.is_empty() {
            let left_over = ("phalanx.left".to_owned(), Value::from(left.to_vec()));
            span.attributes.push(left_over);
            span.status = Status::Error(format!("{} left", left.len()));
        }
        let stack = self.stack_ended(at);
        [span].into_iter().chain(stack).collect()
    }

    /// Returns the stack's span, if there was a stack.
    fn stack_ended(&mut self, at: Timestamp) -> Option<Span> {
        let began = self.stack_began?;
        let (id, parent) = (self.ids.stack(), self.ids.attempt());
        Some(self.span(id, parent, "stack", "stack", (began, at)))
    }

    fn span(
        &self,
        id: SpanId,
        parent: SpanId,
        name: &str,
        kind: &str,
        (start, end): (Timestamp, Timestamp),
    ) -> Span {
        Span {
            trace: self.trace,
            id,
            parent: Some(parent),
            name: name.to_owned(),
            client: false,
            start,
            end: end.max(start),
            attributes: of_kind(kind, &self.attributes),
            events: Vec::new(),
            status: Status::Unset,
        }
    }
}

/// Spans of phases, groups and steps.
impl Attempt {
    fn begin(&mut self, path: &str, name: &str, action: &str, at: Timestamp) {
        let (began, _) = self.counts.entry(path.to_owned()).or_default();
        *began += 1;
        let id = self.ids.step(path, *began);
        self.newest.insert(path.to_owned(), id);
        self.mark_group(path);
        let open = Open {
            id,
            name: name.to_owned(),
            action: action.to_owned(),
            began: at,
            group: false,
        };
        self.open.insert(path.to_owned(), open);
    }

    /// Marks the innermost open span around this path as a group.
    fn mark_group(&mut self, path: &str) {
        let around = prefixes(path).find(|prefix| self.open.contains_key(*prefix));
        if let Some(open) = around.and_then(|prefix| self.open.get_mut(prefix)) {
            open.group = true;
        }
    }

    /// Returns the id of the span that ends (open or just skipped), and whether it is a group.
    fn ending(&mut self, path: &str) -> (SpanId, bool) {
        if let Some(open) = self.open.shift_remove(path) {
            return (open.id, open.group);
        }
        self.mark_group(path);
        let (_, skipped) = self.counts.entry(path.to_owned()).or_default();
        *skipped += 1;
        let id = self.ids.skipped(path, *skipped);
        self.newest.insert(path.to_owned(), id);
        (id, false)
    }

    fn phase_ended(
        &mut self,
        path: &str,
        name: &str,
        outcome: Outcome,
        reason: Option<&str>,
        began: Timestamp,
        at: Timestamp,
    ) -> Vec<Span> {
        let (id, _) = self.ending(path);
        let mut span = self.span(id, self.ids.attempt(), name, "phase", (began, at));
        span.attributes.push(text("phalanx.step.path", path));
        judge(&mut span, outcome, reason);
        vec![span]
    }

    fn step_ended(&mut self, result: &StepResult) -> Span {
        let (id, group) = self.ending(&result.path);
        let parent = self.around(&result.path);
        let began = result.began;
        let took = Duration::from_micros(result.elapsed_us);
        let end = after(began, took);
        let kind = if group { "group" } else { kind(&result.action) };
        let mut span = self.span(id, parent, &result.name, kind, (began, end));
        span.client = !group && matches!(result.action.as_str(), "http" | "sse");
        let attributes = &mut span.attributes;
        attributes.push(text("phalanx.step.path", &result.path));
        attributes.push(text("phalanx.step.action", &result.action));
        if let Some(id) = &result.id {
            attributes.push(text("phalanx.step.id", id));
        }
        if result.unreached {
            attributes.push(("phalanx.unreached".to_owned(), true.into()));
        }
        if result.tries > 1 {
            attributes.push(number_of("phalanx.tries", result.tries));
        }
        if result.polls > 1 {
            attributes.push(number_of("phalanx.polls", result.polls));
        }
        if !result.verifies.is_empty() {
            let rows = result.verifies.clone().into();
            attributes.push(("phalanx.verifies".to_owned(), rows));
        }
        if !result.checks.is_empty() {
            let held = result.checks.iter().filter(|check| check.passed).count();
            let all = result.checks.len();
            attributes.push(("phalanx.checks".to_owned(), all.into()));
            attributes.push(("phalanx.checks.held".to_owned(), held.into()));
        }
        for check in result.checks.iter().filter(|check| !check.passed) {
            let check = moment("check failed", end, "phalanx.check", &check.expression);
            span.events.push(check);
        }
        judge(&mut span, result.outcome, result.reason.as_deref());
        span
    }

    /// Returns the span of the group or phase around a path, or the attempt's if there is none. A `foreach` key may
    /// contain a slash, so a prefix counts only if it is known.
    fn around(&self, path: &str) -> SpanId {
        let known = prefixes(path).find_map(|prefix| self.newest.get(prefix).copied());
        known.unwrap_or_else(|| self.ids.attempt())
    }
}

/// Spans of services.
impl Attempt {
    fn service_changed(
        &mut self,
        name: &str,
        state: ServiceState,
        began: Timestamp,
        at: Timestamp,
        detail: Option<&str>,
    ) -> Vec<Span> {
        self.stack_began = Some(self.stack_began.map_or(began, |first| first.min(began)));
        let service = self
            .services
            .entry(name.to_owned())
            .or_insert_with(|| Service::since(began));
        service.began = service.began.min(began);
        service.last = at;
        if let Some(detail) = detail {
            service.detail = Some(detail.to_owned());
        }
        let mut spans = Vec::new();
        let stage = match state {
            ServiceState::Pulled => "pull",
            ServiceState::Built => "build",
            ServiceState::Created => "create",
            ServiceState::Started => "start",
            ServiceState::Ready => "ready",
            ServiceState::Exited | ServiceState::Stopped | ServiceState::Removed => {
                service.runs = false;
                let what = state.as_str();
                let said = detail.unwrap_or_default();
                service
                    .events
                    .push(moment(what, at, "phalanx.service.detail", said));
                if let Some(waits) = service.waits.take() {
                    let why = format!("{what} before it was ready");
                    spans.push(self.never_ready(name, waits, at, Status::Error(why)));
                }
                return spans;
            }
        };
        let count = service.stages.entry(stage).or_default();
        *count += 1;
        let mut n = *count;
        match state {
            ServiceState::Started => {
                service.runs = true;
                service.waits = Some((n, at));
            }
            // `ready` has the number of the start before it, because the agent uses this span's id while it polls for
            // readiness.
            ServiceState::Ready => {
                n = service.stages.get("start").copied().unwrap_or(1);
                service.waits = None;
            }
            _ => {}
        }
        let (id, parent) = (self.ids.stage(name, stage, n), self.ids.service(name));
        let mut span = self.span(id, parent, stage, stage, (began, at));
        span.attributes.push(text("phalanx.service", name));
        if let Some(detail) = detail {
            span.attributes.push(text("phalanx.service.detail", detail));
        }
        spans.push(span);
        spans
    }

    fn never_ready(
        &self,
        name: &str,
        (n, since): (u32, Timestamp),
        at: Timestamp,
        status: Status,
    ) -> Span {
        let (id, parent) = (self.ids.stage(name, "ready", n), self.ids.service(name));
        let mut span = self.span(id, parent, "ready", "ready", (since, at));
        span.attributes.push(text("phalanx.service", name));
        span.status = status;
        span
    }

    /// Returns a service's own span once the attempt is over. It ends with the attempt, or with the service's last
    /// event.
    fn service_ended(
        &self,
        name: &str,
        mut service: Service,
        outcome: Outcome,
        at: Timestamp,
    ) -> Vec<Span> {
        let mut spans = Vec::new();
        if let Some(waits) = service.waits.take() {
            let status = match outcome {
                Outcome::Failed | Outcome::Errored => Status::Error("not ready".to_owned()),
                _ => Status::Unset,
            };
            spans.push(self.never_ready(name, waits, at, status));
        }
        let end = if service.runs { at } else { service.last };
        let (id, parent) = (self.ids.service(name), self.ids.stack());
        let mut span = self.span(id, parent, name, "service", (service.began, end));
        span.attributes.push(text("phalanx.service", name));
        if let Some(detail) = &service.detail {
            span.attributes.push(text("phalanx.service.detail", detail));
        }
        span.events = service.events;
        spans.push(span);
        spans
    }
}

impl Service {
    fn since(began: Timestamp) -> Service {
        Service {
            began,
            last: began,
            runs: false,
            stages: HashMap::new(),
            waits: None,
            detail: None,
            events: Vec::new(),
        }
    }
}

/// Returns the prefixes of a path that may enclose it, innermost first.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let cuts = path.char_indices().rev();
    cuts.filter(|(_, c)| matches!(c, '/' | '['))
        .filter_map(move |(at, _)| path.get(..at))
}

/// Returns the kind of span for an action.
fn kind(action: &str) -> &'static str {
    match action {
        "phase" => "phase",
        "steps" | "parallel" | "use" | "else" => "group",
        _ => "step",
    }
}

fn after(began: Timestamp, took: Duration) -> Timestamp {
    let took = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
    Timestamp(began.0.saturating_add(took))
}
