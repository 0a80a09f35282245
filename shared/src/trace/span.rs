//! A span as data: what every tracing backend knows, without any of their libraries.

use super::{SpanId, TraceId};
use crate::time::Timestamp;

/// Something that took time.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace.
    pub trace: TraceId,
    /// Its id.
    pub id: SpanId,
    /// The span around it; `None` at the root.
    pub parent: Option<SpanId>,
    /// For people.
    pub name: String,
    /// Whether it calls another program that may continue the trace (HTTP).
    pub client: bool,
    /// When it began.
    pub start: Timestamp,
    /// When it ended; never before `start`.
    pub end: Timestamp,
    /// What is known of it.
    pub attributes: Vec<(String, Value)>,
    /// Moments in it.
    pub events: Vec<SpanEvent>,
    /// How it ended.
    pub status: Status,
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

/// A moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// What.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// More of it.
    pub attributes: Vec<(String, Value)>,
}

/// How a span ended, as backends colour it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Neither good nor bad: skipped, cancelled.
    Unset,
    /// Good.
    Ok,
    /// Bad, and why.
    Error(String),
}

impl Span {
    /// The value of an attribute.
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
