//! The spans of one attempt: its stack with its services, its phases, groups and steps, and its clean-up.

use super::convention::{self, ErrorType, RunState};
use super::span::{Attributes, moment, name_waits, number_of, of_kind, text};
use super::{AttemptTrace, Link, Span, SpanEvent, SpanId, SpanKind, Status, TraceId, Value};
use crate::event::{Event, EventKind, ServiceState, StepResult};
use crate::id::{AgentId, CellId};
use crate::outcome::Outcome;
use crate::time::Timestamp;
use indexmap::IndexMap;
use std::collections::HashMap;
use std::time::Duration;

/// An attempt that isn't cleaned up yet.
pub(super) struct Attempt {
    pub number: u32,
    ids: AttemptTrace,
    place: Place,
    attributes: Attributes,
    /// Attributes of the attempt's own span.
    own: Attributes,
    links: Vec<Link>,
    offered: Timestamp,
    started: Option<Timestamp>,
    /// Time at which its steps ended.
    ended: Option<Timestamp>,
    torn_down: bool,
    /// Whether the cell's time limit ended it.
    timed_out: bool,
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

/// Where an attempt is in its run.
pub(super) struct Place {
    /// Trace with the spans inside the attempt.
    pub trace: TraceId,
    /// Trace of the run, which has the attempt's own span.
    pub of_run: TraceId,
    /// Span of the cell.
    pub cell_span: SpanId,
    pub cell: CellId,
    pub cell_name: String,
}

/// An attempt that was offered.
pub(super) struct Offered<'a> {
    pub number: u32,
    pub agent: &'a AgentId,
    pub agent_name: &'a str,
    /// Span of the attempt before this one, if there was one.
    pub before: Option<SpanId>,
    pub at: Timestamp,
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
    /// Starts an attempt. `attributes` are those of its cell.
    pub fn offered(
        ids: AttemptTrace,
        place: Place,
        offered: &Offered<'_>,
        mut attributes: Attributes,
        mut own: Attributes,
    ) -> Attempt {
        attributes.push(number_of("phalanx.attempt", offered.number));
        attributes.push(text("phalanx.agent", offered.agent_name));
        let id = format!("{}/{}", place.cell, offered.number);
        own.extend(convention::task(&place.cell_name, &id));
        own.extend(convention::worker(offered.agent, offered.agent_name));
        own.push(convention::state(RunState::Executing));
        let before = offered.before.map(|span| Link {
            trace: place.of_run,
            span,
            what: "previous attempt",
        });
        Attempt {
            number: offered.number,
            ids,
            place,
            attributes,
            own,
            links: before.into_iter().collect(),
            offered: offered.at,
            started: None,
            ended: None,
            torn_down: false,
            timed_out: false,
            last_seq: 0,
            events: Vec::new(),
            open: IndexMap::new(),
            counts: HashMap::new(),
            newest: HashMap::new(),
            services: IndexMap::new(),
            stack_began: None,
        }
    }

    /// Returns the id of the attempt's own span.
    pub fn id(&self) -> SpanId {
        self.ids.attempt()
    }

    /// Returns whether the cell's time limit ended it.
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Returns when the cell began to wait again after this attempt.
    pub fn over_at(&self) -> Option<Timestamp> {
        self.ended
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
                ..
            } => return self.service_changed(service, *state, *began, at, detail.as_deref()),
            EventKind::PhaseStarted { path, name } => self.begin(path, name, "phase", at),
            EventKind::StepStarted { path, name, action } => self.begin(path, name, action, at),
            EventKind::PhaseFinished {
                path,
                name,
                outcome,
                reason,
                timed_out,
                began,
            } => {
                let verdict = (*outcome, reason.as_deref(), by_time(*timed_out));
                return self.phase_ended(path, name, verdict, *began, at);
            }
            EventKind::StepFinished(result) => return vec![self.step_ended(result)],
            EventKind::AttemptFinished {
                outcome,
                reason,
                timed_out,
                culprit: _,
            } => {
                return self.ended(*outcome, reason.as_deref(), by_time(*timed_out), at);
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
            EventKind::SnapshotChanged {
                path,
                key,
                state,
                began,
                run,
                bytes,
                reason,
            } => {
                let state: &str = state.into();
                let mut event = moment("snapshot", at, "phalanx.snapshot.state", state);
                let attributes = &mut event.attributes;
                attributes.push(text("phalanx.step.path", path));
                attributes.push(text("phalanx.snapshot.key", key));
                let took = i64::try_from(at.since(*began).as_micros()).unwrap_or(i64::MAX);
                attributes.push(("phalanx.snapshot.elapsed_us".to_owned(), Value::Int(took)));
                if let Some(run) = run {
                    attributes.push(text("phalanx.snapshot.run", run.as_str()));
                }
                if *bytes > 0 {
                    let bytes = i64::try_from(*bytes).unwrap_or(i64::MAX);
                    attributes.push(("phalanx.snapshot.bytes".to_owned(), Value::Int(bytes)));
                }
                if let Some(reason) = reason {
                    attributes.push(text("phalanx.reason", reason));
                }
                self.events.push(event);
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
    pub fn ended(
        &mut self,
        outcome: Outcome,
        reason: Option<&str>,
        error: ErrorType,
        at: Timestamp,
    ) -> Vec<Span> {
        if self.ended.is_some() {
            return Vec::new();
        }
        self.ended = Some(at);
        self.timed_out = error == ErrorType::Timeout;
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
            self.as_task(&mut span, &open.name, &path);
            convention::judge_task(&mut span, outcome, reason, error);
            spans.push(span);
        }
        for (name, service) in std::mem::take(&mut self.services) {
            spans.extend(self.service_ended(&name, service, outcome, at));
        }
        spans.extend(self.own_spans(outcome, reason, error, at));
        spans
    }

    /// Returns the attempt's own span; twice if its cell has a trace of its own.
    fn own_spans(
        &mut self,
        outcome: Outcome,
        reason: Option<&str>,
        error: ErrorType,
        at: Timestamp,
    ) -> Vec<Span> {
        let start = self.started.unwrap_or(self.offered);
        let name = format!("attempt {}", self.number);
        let (id, parent) = (self.ids.attempt(), self.place.cell_span);
        let mut span = self.span(id, parent, &name, "attempt", (start, at));
        span.trace = self.place.of_run;
        span.attributes.append(&mut self.own);
        span.links = std::mem::take(&mut self.links);
        span.events = std::mem::take(&mut self.events);
        convention::judge_task(&mut span, outcome, reason, error);
        twice(span, self.place.trace)
    }

    /// Adds the attributes of a task inside the attempt.
    fn as_task(&self, span: &mut Span, name: &str, path: &str) {
        let of = format!("{}/{}/{path}", self.place.cell, self.number);
        // A step that runs again has a span of its own, so the id of the span tells its runs apart.
        let id = format!("{of}#{}", span.id);
        span.attributes.extend(convention::task(name, &id));
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
        span.attributes
            .push(convention::state(RunState::Finalizing));
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
            trace: self.place.trace,
            id,
            parent: Some(parent),
            name: name.to_owned(),
            kind: SpanKind::Internal,
            start,
            end: end.max(start),
            attributes: of_kind(kind, &self.attributes),
            events: Vec::new(),
            links: Vec::new(),
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
        (outcome, reason, error): (Outcome, Option<&str>, ErrorType),
        began: Timestamp,
        at: Timestamp,
    ) -> Vec<Span> {
        let (id, _) = self.ending(path);
        let mut span = self.span(id, self.ids.attempt(), name, "phase", (began, at));
        span.attributes.push(text("phalanx.step.path", path));
        self.as_task(&mut span, name, path);
        convention::judge_task(&mut span, outcome, reason, error);
        vec![span]
    }

    fn step_ended(&mut self, result: &StepResult) -> Span {
        let (id, group) = self.ending(&result.path);
        let phase = self.phase_of(&result.path);
        let parent = self.around(&result.path);
        let began = result.began;
        let took = Duration::from_micros(result.elapsed_us);
        let end = after(began, took);
        let kind = if group { "group" } else { kind(&result.action) };
        let mut span = self.span(id, parent, &result.name, kind, (began, end));
        if !group && matches!(result.action.as_str(), "http" | "sse") {
            span.kind = SpanKind::Client;
        }
        let attributes = &mut span.attributes;
        attributes.push(text("phalanx.step.path", &result.path));
        attributes.push(text("phalanx.step.action", &result.action));
        if let Some(id) = &result.id {
            attributes.push(text("phalanx.step.id", id));
        }
        if result.unreached {
            attributes.push(("phalanx.unreached".to_owned(), true.into()));
        }
        if let Some(of) = &result.restored {
            attributes.push(text("phalanx.restored.snapshot", &of.key));
            attributes.push(text("phalanx.restored.run", of.run.as_str()));
        }
        name_waits(&mut span, &result.waits);
        let attributes = &mut span.attributes;
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
        self.as_task(&mut span, &result.name, &result.path);
        if !group {
            convention::case(&mut span, &phase, &result.name, result.outcome);
        }
        let error = convention::error_of(result);
        convention::judge_task(&mut span, result.outcome, result.reason.as_deref(), error);
        span
    }

    /// Returns the name of the phase around a path.
    fn phase_of(&self, path: &str) -> String {
        let outermost = path.split(['/', '[']).next().unwrap_or(path);
        let open = self.open.get(outermost).map(|open| open.name.clone());
        open.unwrap_or_else(|| outermost.to_owned())
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

/// Returns a span of a run's trace, and if its cell has a trace of its own, the same span there. Each links to the other.
pub(super) fn twice(mut span: Span, detail: TraceId) -> Vec<Span> {
    if span.trace == detail {
        return vec![span];
    }
    let mut inner = span.clone();
    inner.trace = detail;
    let link = |trace, what| Link {
        trace,
        span: span.id,
        what,
    };
    inner.links = vec![link(span.trace, "overview")];
    let to_detail = link(detail, "detail");
    span.links.push(to_detail);
    vec![span, inner]
}

/// Maximum number of prefixes of a path to look up, as its keys may contain any number of slashes.
const AROUND: usize = 128;

/// Returns the prefixes of a path that may enclose it, innermost first, bounded.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let cuts = path.char_indices().rev();
    cuts.filter(|(_, c)| matches!(c, '/' | '['))
        .take(AROUND)
        .filter_map(move |(at, _)| path.get(..at))
}

/// Returns the class of the error of a phase or an attempt.
pub(super) fn by_time(timed_out: bool) -> ErrorType {
    match timed_out {
        true => ErrorType::Timeout,
        false => ErrorType::Outcome,
    }
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
