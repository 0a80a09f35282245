//! `sse`: reads one event stream until a condition holds or the stream ends.

use super::answer::{Answer, Compute, Extent, Fault, Implied};
use super::event_stream::{Event, Reader};
use super::exhibit::Exhibit;
use super::http::{self, MAX_BODY, header_lines, header_map, since};
use crate::context::CellContext;
use crate::context::client::cause;
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::Sse;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Number of events that a failure shows.
const SHOWN_EVENTS: usize = 5;
/// Maximum number of characters of each shown event.
const SHOWN: usize = 500;

/// The events collected so far, also available to a failure after a timeout.
#[derive(Clone, Default)]
pub struct Collected(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    request: Option<Exhibit>,
    head: String,
    events: Vec<Arc<Value>>,
}

impl Collected {
    /// Returns the excerpt that a failure shows.
    pub fn shown(&self) -> Answer {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = state.events.len().saturating_sub(SHOWN_EVENTS);
        let head = format!(
            "{}\n{} events, the last ones:",
            state.head,
            state.events.len()
        );
        let response = state
            .events
            .iter()
            .skip(skip)
            .fold(Exhibit::from(head), |shown, event| {
                shown.text("\n").json(Arc::clone(event), SHOWN)
            });
        let size = state
            .events
            .iter()
            .map(|event| event.to_string().len())
            .sum();
        Answer {
            request: state.request.clone(),
            response: Some(response),
            size,
            ..Answer::default()
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens the stream and collects its events. `collected` stays usable if this future is dropped before it completes.
pub async fn perform(
    context: &CellContext,
    sse: &Sse,
    scope: &Scope,
    traceparent: Option<&str>,
    collected: &Collected,
) -> Result<Answer, Fault> {
    let sent = http::send(
        context,
        &sse.request,
        scope,
        (Some("text/event-stream"), traceparent),
    )
    .await?;
    let (status, headers) = (sent.response.status(), sent.response.headers().clone());
    let head = format!(
        "{:?} {status}\n{}",
        sent.response.version(),
        header_lines(&headers)
    );
    let content_type = headers.get(reqwest::header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or("none");
    let is_stream = content_type.trim_start().starts_with("text/event-stream");
    collected.with(|state| {
        state.request = Some(sent.request.clone());
        state.head.clone_from(&head);
    });
    if !status.is_success() || !is_stream {
        let body = http::read(sent.response)
            .await
            .unwrap_or_else(|(body, _)| body);
        let elapsed = since(context, sent.began);
        let plain = http::answer(status.as_u16(), &headers, body, sent.cookies, elapsed);
        let answer = Answer {
            request: Some(sent.request),
            response: Some(Exhibit::from(head).with(plain.response.unwrap_or_default())),
            ..results(status.as_u16(), header_map(&headers), &[], elapsed)
        };
        if status.is_success() {
            return Err(Fault::Failed {
                reason: format!(
                    "{}: content type {content_type}, not text/event-stream",
                    sent.url
                ),
                answer: Box::new(answer),
            });
        }
        return Ok(answer);
    }
    let stream = Stream {
        context,
        sse,
        scope,
        status: status.as_u16(),
        headers: header_map(&headers),
        began: sent.began,
        url: sent.url,
        collected,
    };
    let answer = stream.collect(sent.response).await?;
    let shown = collected.shown();
    Ok(Answer {
        request: shown.request,
        response: shown.response,
        size: shown.size,
        ..answer
    })
}

struct Stream<'a> {
    context: &'a CellContext,
    sse: &'a Sse,
    scope: &'a Scope,
    status: u16,
    headers: Value,
    began: Duration,
    url: String,
    collected: &'a Collected,
}

impl Stream<'_> {
    async fn collect(&self, mut response: reqwest::Response) -> Result<Answer, Fault> {
        let (mut reader, mut size) = (Reader::default(), 0usize);
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return self.ended(None),
                Err(error) => return self.ended(Some(cause(&error))),
            };
            for event in reader.push(&chunk) {
                size += event.data.len();
                if let Some(answer) = self.took(event)? {
                    return Ok(answer);
                }
            }
            if size + reader.held() > MAX_BODY {
                let why = Extent::More.cut_at(MAX_BODY).unwrap_or_default();
                return Err(Fault::Cut {
                    reason: format!("{}: the stream {why}", self.url),
                    answer: Box::new(self.collected.shown()),
                });
            }
        }
    }

    /// Handles an event. Returns the answer if `until` holds now.
    fn took(&self, event: Event) -> Result<Option<Answer>, Fault> {
        let data = serde_json::from_str::<Value>(&event.data).unwrap_or(Value::Null);
        let value = json!({"event": event.event, "id": event.id, "data": event.data, "json": data});
        let events = self.collected.with(|state| {
            state.events.push(Arc::new(value));
            self.sse.until.as_ref().map(|_| state.events.clone())
        });
        let (Some(until), Some(events)) = (&self.sse.until, events) else {
            return Ok(None);
        };
        let answer = results(self.status, self.headers.clone(), &events, self.elapsed());
        let scope = self.scope.with(answer.layer());
        // An error counts as "not yet": most events lack fields that the last one has.
        let holds = self.context.evaluate(&scope).holds(until).unwrap_or(false);
        Ok(holds.then_some(answer))
    }

    fn ended(&self, broken: Option<String>) -> Result<Answer, Fault> {
        let events = self.collected.with(|state| state.events.clone());
        let how = match &broken {
            None => "ended".to_owned(),
            Some(error) => format!("broke off ({error})"),
        };
        match (&self.sse.until, broken) {
            (None, None) => Ok(results(
                self.status,
                self.headers.clone(),
                &events,
                self.elapsed(),
            )),
            (None, Some(_)) => Err(self.failed(format!("the stream {how}"))),
            (Some(until), _) => Err(self.failed(format!(
                "the stream {how} after {} events before `{}` held",
                events.len(),
                until.text
            ))),
        }
    }

    fn elapsed(&self) -> Duration {
        since(self.context, self.began)
    }

    fn failed(&self, what: String) -> Fault {
        Fault::Failed {
            reason: format!("{}: {what}", self.url),
            answer: Box::new(self.collected.shown()),
        }
    }
}

/// Returns the results. `event` is the last event: if `until` holds, it is the one that satisfied it.
fn results(status: u16, headers: Value, events: &[Arc<Value>], elapsed: Duration) -> Answer {
    let last = events.last().map_or(Value::Null, |event| (**event).clone());
    let events: Vec<Arc<Value>> = events.to_vec();
    let all: Compute = Arc::new(move || Ok(events.iter().map(|e| (**e).clone()).collect()));
    Answer {
        implied: Some(Implied::Status(status)),
        ..Answer::default()
            .value("status", status)
            .value("headers", headers)
            .value("event", last)
            .lazy("events", move || all())
            .value("elapsed", json!(elapsed.as_secs_f64()))
    }
}
