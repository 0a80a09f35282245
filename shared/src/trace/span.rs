//! A span as plain data that every tracing backend understands, without depending on their libraries.

use super::{SpanId, TraceId};
use crate::outcome::Outcome;
use crate::time::Timestamp;
use crate::wait::Wait;

/// An operation that took time.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Id of the trace.
    pub trace: TraceId,
    /// Id of the span.
    pub id: SpanId,
    /// Enclosing span; `None` at the root.
    pub parent: Option<SpanId>,
    /// Display name.
    pub name: String,
    /// Role of the span between two programs.
    pub kind: SpanKind,
    /// Time at which it began.
    pub start: Timestamp,
    /// Time at which it ended; never before `start`.
    pub end: Timestamp,
    /// Attributes, as keys and values.
    pub attributes: Vec<(String, Value)>,
    /// Events within the span.
    pub events: Vec<SpanEvent>,
    /// Other spans that it belongs with, in this trace or another one.
    pub links: Vec<Link>,
    /// Final status.
    pub status: Status,
}

/// Role of a span between two programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within one program.
    #[default]
    Internal,
    /// A call of another program that may continue the trace (HTTP).
    Client,
    /// Work that another program asked for: a run.
    Server,
}

/// A reference to another span.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Trace of the other span.
    pub trace: TraceId,
    /// Id of the other span.
    pub span: SpanId,
    /// What the other span is to this one: `previous attempt`, `original`, `detail`, `overview`.
    pub what: &'static str,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
    Texts(Vec<String>),
}

/// An event within a span, at one point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// Name of the event.
    pub name: String,
    /// Time of the event.
    pub at: Timestamp,
    /// Attributes, as keys and values.
    pub attributes: Vec<(String, Value)>,
}

/// Status of a span, as backends colour it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// No error. The convention leaves the status of a success unset.
    Unset,
    /// The span failed, with the reason.
    Error(String),
}

impl Span {
    /// Returns the value of an attribute.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        let mut found = self.attributes.iter().filter(|(name, _)| name == key);
        found.next().map(|(_, value)| value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Int(i64::from(number))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Value::Bool(truth)
    }
}

impl From<Vec<String>> for Value {
    fn from(texts: Vec<String>) -> Self {
        Value::Texts(texts)
    }
}

/// Attributes that every span of a run, or below a cell, carries to show where it belongs.
pub(super) type Attributes = Vec<(String, Value)>;

pub(super) fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), value.into())
}

pub(super) fn number_of(key: &str, value: u32) -> (String, Value) {
    (key.to_owned(), value.into())
}

/// Returns the attributes of a span: its kind, then where it belongs.
pub(super) fn of_kind(kind: &str, attributes: &Attributes) -> Attributes {
    let mut all = vec![text("phalanx.kind", kind)];
    all.extend(attributes.iter().cloned());
    all
}

pub(super) fn moment(name: &str, at: Timestamp, key: &str, value: &str) -> SpanEvent {
    SpanEvent {
        name: name.to_owned(),
        at,
        attributes: vec![text(key, value)],
    }
}

/// Adds what a span's time was spent waiting for: the time of each cause, and the cause of the longest wait.
pub(super) fn name_waits(span: &mut Span, waits: &[Wait]) {
    if let Some(longest) = waits.iter().max_by_key(|wait| wait.us) {
        let cause = longest.cause.as_str();
        span.attributes.push(text("phalanx.wait.cause", cause));
    }
    for wait in waits {
        let key = format!("phalanx.wait.{}_us", wait.cause.as_str());
        let us = i64::try_from(wait.us).unwrap_or(i64::MAX);
        span.attributes.push((key, Value::Int(us)));
    }
}

/// Sets a span's outcome, reason and status, without the attributes of a convention.
pub(super) fn judge(span: &mut Span, outcome: Outcome, reason: Option<&str>) {
    span.attributes
        .push(text("phalanx.outcome", outcome.as_str()));
    if let Some(reason) = reason {
        let key = match outcome {
            Outcome::Skipped => "phalanx.skip.reason",
            _ => "phalanx.reason",
        };
        span.attributes.push(text(key, reason));
    }
    span.status = match outcome {
        Outcome::Passed | Outcome::Flaky | Outcome::Skipped | Outcome::Cancelled => Status::Unset,
        Outcome::Failed | Outcome::Errored => {
            Status::Error(reason.unwrap_or(outcome.as_str()).to_owned())
        }
    };
}
