//! The shop's HTTP: health, orders, streams and miscellaneous routes. Signing in is in [`super::account`].

use super::account;
use super::shop::{Order, Version};
use super::state::{State, refuse};
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures::Stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::time::Duration;

/// Pause between two events of the stream.
const EVENT_PAUSE: Duration = Duration::from_millis(20);
/// Maximum number of events in a stream.
const MOST_EVENTS: u64 = 100_000;

/// Returns the router with all routes.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/health", get(health))
        .route("/orders", post(place).get(list))
        .route("/orders/{id}", get(show).delete(remove))
        .route("/tokens", post(account::make_token))
        .route("/report", get(report))
        .route("/login", get(account::login_page).post(account::login))
        .route("/account", get(account::page))
        .route("/events", get(events))
        .route("/slow", get(slow))
        .route("/status/{code}", any(status))
        .route("/flaky/{key}", get(flaky))
        .route("/echo", any(echo))
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(state.clone(), log))
        .with_state(state)
}

async fn log(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let began = state.now();
    let line = format!("{} {}", request.method(), request.uri());
    let response = next.run(request).await;
    let took = state.now().saturating_sub(began);
    super::say(&format!(
        "{line} {} {:.1}ms",
        response.status().as_u16(),
        took.as_secs_f64() * 1000.0
    ));
    response
}

async fn root(Extract(state): Extract<State>) -> Json<Value> {
    Json(json!({ "service": "shop", "version": state.version.to_string() }))
}

async fn health(Extract(state): Extract<State>) -> Response {
    if state.now() < state.startup_delay {
        let starting = json!({ "status": "starting" });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(starting)).into_response();
    }
    Json(json!({ "status": "ok" })).into_response()
}

async fn place(Extract(state): Extract<State>, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Wish {
        sku: String,
        #[serde(default = "one")]
        quantity: u64,
    }
    fn one() -> u64 {
        1
    }
    let wish: Wish = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let placed = state.shop().order(&wish.sku, wish.quantity, state.now());
    match placed {
        Ok(order) => {
            let location = [("location", format!("/orders/{}", order.id))];
            (StatusCode::CREATED, location, Json(order)).into_response()
        }
        Err(error) => refuse(StatusCode::UNPROCESSABLE_ENTITY, error),
    }
}

#[derive(Deserialize)]
struct OfState {
    state: Option<String>,
}

async fn list(Extract(state): Extract<State>, Query(of): Query<OfState>) -> Json<Vec<Order>> {
    let (now, billing) = (state.now(), state.billing_delay);
    Json(state.shop().list(of.state.as_deref(), now, billing))
}

async fn show(Extract(state): Extract<State>, Path(id): Path<u64>) -> Response {
    match state.order(id) {
        Some(order) => Json(order).into_response(),
        None => refuse(StatusCode::NOT_FOUND, format!("there is no order {id}")),
    }
}

async fn remove(
    Extract(state): Extract<State>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = account::bearer(&state, &headers) {
        return *refused;
    }
    if state.shop().remove(id) {
        return StatusCode::NO_CONTENT.into_response();
    }
    refuse(StatusCode::NOT_FOUND, format!("there is no order {id}"))
}

async fn report(Extract(state): Extract<State>, headers: HeaderMap) -> Response {
    if let Err(refused) = account::bearer(&state, &headers) {
        return *refused;
    }
    let orders = state.shop().list(None, state.now(), state.billing_delay);
    let billed = orders
        .iter()
        .filter(|order| order.state == "billed")
        .count();
    Json(json!({ "orders": orders.len(), "billed": billed })).into_response()
}

#[derive(Deserialize)]
struct Count {
    count: Option<u64>,
}

async fn events(Extract(state): Extract<State>, Query(Count { count }): Query<Count>) -> Response {
    if state.version < Version::FIRST_WITH_EVENTS {
        let message = format!("{} has no event stream", state.version);
        return refuse(StatusCode::NOT_FOUND, message);
    }
    Sse::new(progress(count.unwrap_or(3).min(MOST_EVENTS))).into_response()
}

/// Returns `progress` events, numbered from 1, followed by one `summary`.
fn progress(count: u64) -> impl Stream<Item = Result<Event, Infallible>> {
    futures::stream::unfold(1u64, move |number| async move {
        if number > count + 1 {
            return None;
        }
        tokio::time::sleep(EVENT_PAUSE).await;
        let (name, data) = if number <= count {
            (
                "progress",
                json!({ "ok": true, "done": number, "of": count }),
            )
        } else {
            ("summary", json!({ "ok": true, "count": count }))
        };
        let event = Event::default()
            .event(name)
            .id(number.to_string())
            .data(data.to_string());
        Some((Ok(event), number + 1))
    })
}

#[derive(Deserialize)]
struct Late {
    #[serde(default)]
    ms: u64,
}

async fn slow(Query(Late { ms }): Query<Late>) -> Json<Value> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Json(json!({ "waited_ms": ms }))
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) if code >= 200 => (status, Json(json!({ "status": code }))).into_response(),
        _ => refuse(
            StatusCode::BAD_REQUEST,
            format!("{code} is no status to end with"),
        ),
    }
}

#[derive(Deserialize)]
struct Fails {
    #[serde(default)]
    fails: u64,
}

async fn flaky(
    Extract(state): Extract<State>,
    Path(key): Path<String>,
    Query(Fails { fails }): Query<Fails>,
) -> Response {
    let (works, attempt) = state.shop().try_flaky(&key, fails);
    let status = if works {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({ "attempt": attempt }))).into_response()
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let headers: Map<String, Value> = headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), Value::String(value))
        })
        .collect();
    Json(json!({
        "method": method.as_str(),
        "path": uri.path(),
        "query": uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

async fn nothing_here(uri: Uri) -> Response {
    refuse(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", uri.path()),
    )
}
