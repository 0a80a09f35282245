//! `http`: sends one request and reads its response.

use super::answer::{Answer, Compute, Extent, Fault, Implied, LastWords};
use super::exhibit::Exhibit;
use super::references::{is_whole_url, session};
use crate::charset;
use crate::context::CellContext;
use crate::context::client::{NoClient, Way, cause, set_by};
use crate::context::gate;
use crate::limits;
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::language::model::{Body, Http, Session};
use phalanx_shared::mask::Keep;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of bytes of a body that are kept.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// Maximum size of a body whose text is in the reason of a failure, in bytes. A longer one isn't a message.
const MESSAGE: usize = 256 * 1024;
/// Maximum number of characters of a body that a failure shows.
const SHOWN: usize = 4_096;

/// A body that has been read.
#[derive(Debug, Default)]
pub struct Taken {
    /// The bytes, at most [`MAX_BODY`].
    pub bytes: Vec<u8>,
    /// Total size of the body.
    pub extent: Extent,
}

/// A request that has been sent, with the information about it.
pub struct Sent {
    /// The head of the response.
    pub response: reqwest::Response,
    /// The request as text, for failures.
    pub request: Exhibit,
    /// The session's cookies after the response; without a session, the cookies that the response set.
    pub cookies: Compute,
    /// The URL of the request.
    pub url: String,
    /// Time when it was sent, by the agent's monotonic clock.
    pub began: Duration,
    /// Additional notes for a failure.
    pub notes: Vec<Exhibit>,
}

/// Sends a request and reads the whole response.
pub async fn perform(
    context: &CellContext,
    http: &Http,
    scope: &Scope,
    traceparent: Option<&str>,
) -> Result<Answer, Fault> {
    let sent = send(context, http, scope, (None, traceparent)).await?;
    let (status, headers) = (sent.response.status(), sent.response.headers().clone());
    let version = sent.response.version();
    let began = sent.began;
    let body = read(sent.response).await;
    let elapsed = since(context, began);
    let head = Exhibit::from(format!("{version:?} {status}\n{}", header_lines(&headers)));
    let (body, broken) = match body {
        Ok(body) => (body, None),
        Err((body, error)) => (body, Some(error)),
    };
    let mut answer = answer(status.as_u16(), &headers, body, sent.cookies, elapsed);
    answer.notes.extend(sent.notes);
    let answer = Answer {
        request: Some(sent.request),
        response: Some(head.with(answer.response.unwrap_or_default())),
        ..answer
    };
    match broken {
        None => Ok(answer),
        Some(error) => Err(Fault::Failed {
            reason: format!("{}: the answer broke off: {error}", sent.url),
            answer: Box::new(answer),
        }),
    }
}

/// Sends a request. Adds `accept` and the trace context unless the step sets these headers itself.
pub async fn send(
    context: &CellContext,
    http: &Http,
    scope: &Scope,
    (accept, traceparent): (Option<&str>, Option<&str>),
) -> Result<Sent, Fault> {
    let session = session(&context.spec, &http.session);
    let evaluate = context.evaluate(scope);
    let url = url(context, http, session, scope)?;
    let way = way(context, http, session, scope)?;
    let client = context.clients.client(&way).map_err(|why| match why {
        NoClient::Wrong(why) => EvalError::new(http.span, why).into(),
        NoClient::Unable(why) => Fault::Errored(why),
    })?;
    let mut builder = client
        .request(method(http), url.clone())
        .query(&evaluate.pairs(http.query.as_ref(), "query")?);
    builder = match &http.body {
        Body::None => builder,
        Body::Json(node) => builder.json(&evaluate.value(node)?),
        Body::Form(node) => builder.form(&evaluate.pairs(Some(node), "form")?),
        Body::Text(text) => builder.body(evaluate.text(text)?),
    };
    let headers = headers(
        context,
        http,
        session,
        scope,
        [("accept", accept), ("traceparent", traceparent)],
    )?;
    let mut request = builder
        .build()
        .map_err(|error| EvalError::new(http.span, format!("{url}: {}", cause(&error))))?;
    // The step's own headers take precedence over those that come with the body.
    for (name, value) in &headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    let text = request_text(&request);
    let (url, began) = (request.url().to_string(), context.clock.monotonic());
    let cookies = way
        .session
        .as_ref()
        .map(|name| context.clients.cookies(name));
    let held_back = cookies
        .as_ref()
        .map(|jar| jar.held_back(request.url()))
        .unwrap_or_default();
    let notes = match held_back.as_slice() {
        [] => Vec::new(),
        names => {
            let names = names.join(", ");
            vec![format!("not sent over plain HTTP, since they are Secure: cookies {names}").into()]
        }
    };
    let admitted = context.clients.gate().admit(request.url()).await;
    admitted.map_err(|refused| Fault::Errored(format!("{url}: {refused}")))?;
    let response = client.execute(request).await.map_err(|error| {
        if let Some(refused) = gate::refused(&error) {
            return Fault::Errored(format!("{url}: {refused}"));
        }
        let reason = transport(&url, &error);
        if limits::is_exhausted(&error) {
            return Fault::Errored(reason);
        }
        Fault::Failed {
            reason,
            answer: Box::new(Answer {
                request: Some(text.clone()),
                ..Answer::default()
            }),
        }
    })?;
    let set = set_by(response.headers());
    Ok(Sent {
        cookies: match cookies {
            Some(jar) => Arc::new(move || Ok(jar.all())),
            None => Arc::new(move || Ok(set.clone())),
        },
        response,
        request: text,
        url,
        began,
        notes,
    })
}

/// Reads a body up to [`MAX_BODY`] and leaves the rest unread, because it may be endless. An error comes with the bytes
/// read so far.
pub async fn read(mut response: reqwest::Response) -> Result<Taken, (Taken, String)> {
    let announced = response.content_length();
    let mut taken = Taken::default();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MAX_BODY.saturating_sub(taken.bytes.len());
                let fits = chunk.len() <= room;
                taken
                    .bytes
                    .extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if !fits {
                    taken.extent = announced.map_or(Extent::More, Extent::Of);
                    return Ok(taken);
                }
            }
            Ok(None) => return Ok(taken),
            Err(error) => return Err((taken, cause(&error))),
        }
    }
}

/// Returns the results of a response. Its `response` is the beginning of the body, and its `notes` explain the body.
pub fn answer(
    status: u16,
    headers: &HeaderMap,
    body: Taken,
    cookies: Compute,
    elapsed: Duration,
) -> Answer {
    let content_type = headers
        .get(reqwest::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map_or_else(|| "no content type".to_owned(), str::to_owned);
    let Taken { bytes, extent } = body;
    let size = bytes.len();
    let text: Arc<str> = charset::text(&content_type, &bytes).into();
    let mut notes = Vec::new();
    if let Err(unknown) = charset::detect(&content_type, &bytes) {
        let what = format!("the charset {unknown} isn't known here, the body is read as UTF-8");
        notes.push(what.into());
    }
    let (cut, all) = (extent.cut_at(MAX_BODY), extent.text(size));
    let mut no_json = None;
    if let Some(cut) = &cut {
        notes.push(format!("the body {cut}").into());
    } else if size == 0 {
        no_json = Some("the body is empty".to_owned().into());
    } else if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
        let what = format!("the body isn't JSON: {content_type}, {size} bytes, beginning ");
        no_json = Some(Exhibit::from(what).quoted(Arc::<[u8]>::from(Arc::clone(&text)), 60));
    }
    notes.extend(no_json.clone());
    let last_words = (status >= 400 && cut.is_none() && (1..=MESSAGE).contains(&size)).then(|| {
        match is_page(&content_type, &text) {
            true => LastWords::Page(Arc::clone(&text)),
            false => LastWords::Body(Arc::clone(&text)),
        }
    });
    let answer = Answer::default()
        .value("status", status)
        .value("headers", header_map(headers))
        .lazy("cookies", move || cookies())
        .value("elapsed", json!(elapsed.as_secs_f64()));
    let answer = match &cut {
        Some(why) => answer
            .cut("body", why.clone())
            .cut("json", format!("has no value: the body {why}")),
        None => {
            let (body, tree) = (Arc::clone(&text), Arc::clone(&text));
            answer
                .lazy("body", move || Ok(Value::from(&*body)))
                .lazy("json", move || {
                    Ok(serde_json::from_str(&tree).unwrap_or(Value::Null))
                })
        }
    };
    let answer = match no_json {
        Some(why) => answer.null("json", why),
        None => answer,
    };
    Answer {
        implied: Some(Implied::Status(status)),
        last_words,
        response: Some(match size {
            0 => Exhibit::new(),
            _ => Exhibit::new()
                .text("\n")
                .part_of(Arc::<[u8]>::from(text), Keep::Head(SHOWN), all),
        }),
        size,
        notes,
        ..answer
    }
}

fn is_page(content_type: &str, text: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") || text.trim_start().starts_with("<!DOCTYPE")
}

/// Returns the headers with names in lower case; values of a repeated name are joined by `, `.
pub fn header_map(headers: &HeaderMap) -> Value {
    let mut map = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        map.insert(name.as_str().to_owned(), Value::from(values.join(", ")));
    }
    Value::Object(map)
}

/// Formats the headers as `name: value` lines.
pub fn header_lines(headers: &HeaderMap) -> String {
    headers
        .iter()
        .fold(String::new(), |mut lines, (name, value)| {
            let _ = writeln!(
                lines,
                "{name}: {}",
                String::from_utf8_lossy(value.as_bytes())
            );
            lines
        })
}

/// Returns the time elapsed since `began` on the agent's clock.
pub fn since(context: &CellContext, began: Duration) -> Duration {
    context.clock.monotonic().saturating_sub(began)
}

fn method(http: &Http) -> reqwest::Method {
    reqwest::Method::from_bytes(http.method.as_str().as_bytes()).unwrap_or(reqwest::Method::GET)
}

fn url(
    context: &CellContext,
    http: &Http,
    session: Option<&Session>,
    scope: &Scope,
) -> Result<reqwest::Url, EvalError> {
    let evaluate = context.evaluate(scope);
    let written = evaluate.text(&http.url)?;
    let whole = if is_whole_url(&written) {
        written
    } else {
        let base = session.and_then(|session| session.base.as_ref());
        let Some(base) = evaluate.optional_text(base)? else {
            return Err(EvalError::new(
                http.url.span,
                format!("`{written}` is no whole URL, and there is no session with a base"),
            )
            .with_help("write ${{ services.NAME.url }} before it, or name a session"));
        };
        let slash = if written.is_empty() || written.starts_with(['/', '?']) {
            ""
        } else {
            "/"
        };
        format!("{}{slash}{written}", base.trim_end_matches('/'))
    };
    reqwest::Url::parse(&whole)
        .map_err(|error| EvalError::new(http.url.span, format!("`{whole}` is no URL: {error}")))
}

fn way(
    context: &CellContext,
    http: &Http,
    session: Option<&Session>,
    scope: &Scope,
) -> Result<Way, EvalError> {
    let evaluate = context.evaluate(scope);
    let both = [
        http.tls.as_ref(),
        session.and_then(|session| session.tls.as_ref()),
    ];
    let verify = both
        .iter()
        .find_map(|tls| tls.and_then(|tls| tls.verify.as_ref()));
    let ca = both
        .iter()
        .find_map(|tls| tls.and_then(|tls| tls.ca.as_ref()));
    Ok(Way {
        session: session.map(|session| session.name.text.clone()),
        verify: evaluate.switch(verify, "tls.verify", true)?,
        ca: evaluate.optional_text(ca)?,
        follow: evaluate.switch(http.follow_redirects.as_ref(), "follow-redirects", false)?,
    })
}

/// Merges the default headers, the session's and the step's own; among equal names the last one wins.
fn headers(
    context: &CellContext,
    http: &Http,
    session: Option<&Session>,
    scope: &Scope,
    usual: [(&'static str, Option<&str>); 2],
) -> Result<HeaderMap, EvalError> {
    let evaluate = context.evaluate(scope);
    let mut headers = HeaderMap::new();
    let own = [
        session.and_then(|session| session.headers.as_ref()),
        http.headers.as_ref(),
    ];
    for (name, value) in usual {
        if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    for node in own.into_iter().flatten() {
        for (name, value) in evaluate.pairs(Some(node), "headers")? {
            let wrong = |why: String| EvalError::new(node.span, format!("header {name}: {why}"));
            let parsed =
                HeaderName::from_bytes(name.as_bytes()).map_err(|e| wrong(e.to_string()))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                wrong("its value has a line break or another control character".to_owned())
            })?;
            headers.insert(parsed, value);
        }
    }
    Ok(headers)
}

/// Describes a request for failures.
fn request_text(request: &reqwest::Request) -> Exhibit {
    let mut text = format!("{} {}\n", request.method(), request.url());
    text.push_str(&header_lines(request.headers()));
    match request.body().and_then(reqwest::Body::as_bytes) {
        Some(body) => Exhibit::from(text + "\n").part(body, Keep::Head(SHOWN)),
        None => text.into(),
    }
}

/// Describes why a request got no response, with the cause last.
fn transport(url: &str, error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "can't connect"
    } else if error.is_redirect() {
        "too many redirects"
    } else {
        "no answer"
    };
    format!("{url}: {what}: {}", cause(error))
}
