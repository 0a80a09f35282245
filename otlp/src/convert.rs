//! Converts Phalanx's spans to OpenTelemetry's.

use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use phalanx_shared::time::Timestamp;
use phalanx_shared::trace::{self, Span};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Instrumentation scope of runs' spans. The program's own spans have another scope.
pub const SCOPE: &str = "phalanx.run";

/// Converts one span.
pub fn span_data(span: Span) -> SpanData {
    let Span {
        trace,
        id,
        parent,
        name,
        kind,
        start,
        end,
        attributes,
        events,
        links,
        status,
    } = span;
    let mut of_span = SpanEvents::default();
    of_span.events = events
        .into_iter()
        .map(|event| {
            let attributes = key_values(event.attributes);
            Event::new(event.name, system_time(event.at), attributes, 0)
        })
        .collect();
    let mut linked = SpanLinks::default();
    linked.links = links
        .into_iter()
        .map(|link| {
            let what = KeyValue::new("phalanx.link", link.what);
            Link::new(context(link.trace, link.span), vec![what], 0)
        })
        .collect();
    SpanData {
        span_context: context(trace, id),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.0)),
        parent_span_is_remote: false,
        span_kind: match kind {
            trace::SpanKind::Internal => SpanKind::Internal,
            trace::SpanKind::Client => SpanKind::Client,
            trace::SpanKind::Server => SpanKind::Server,
        },
        name: name.into(),
        start_time: system_time(start),
        end_time: system_time(end),
        attributes: key_values(attributes),
        dropped_attributes_count: 0,
        events: of_span,
        links: linked,
        status: match status {
            trace::Status::Unset => Status::Unset,
            trace::Status::Error(why) => Status::error(why),
        },
        instrumentation_scope: InstrumentationScope::builder(SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn context(trace: trace::TraceId, span: trace::SpanId) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.0),
        SpanId::from_bytes(span.0),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    )
}

fn key_values(attributes: Vec<(String, trace::Value)>) -> Vec<KeyValue> {
    let attributes = attributes.into_iter();
    attributes
        .map(|(key, value)| KeyValue::new(key, of_value(value)))
        .collect()
}

fn of_value(value: trace::Value) -> Value {
    match value {
        trace::Value::Text(text) => Value::String(text.into()),
        trace::Value::Int(number) => Value::I64(number),
        trace::Value::Bool(truth) => Value::Bool(truth),
        trace::Value::Texts(texts) => {
            let texts = texts.into_iter().map(StringValue::from).collect();
            Value::Array(Array::String(texts))
        }
    }
}

/// Times before 1970 don't occur; one from a wrong clock becomes 1970.
fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}
