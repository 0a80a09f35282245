//! The HTTP endpoints for monitoring: `/healthz` and Prometheus' `/metrics`. They are read-only.

mod scrape;

use crate::dispatch::logs::store::LogStore;
use crate::incoming::{Guard, Room, Speech};
use crate::serve::health::problems;
use crate::supervisor::Handle;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use scrape::{Format, scrape};
use std::future::Future;
use tokio::net::TcpListener;

/// Serves the endpoints until `stopped` completes.
pub async fn serve(
    handle: Handle,
    logs: LogStore,
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let health = handle.clone();
    let healthz = get(move || {
        let told = healthz(&health, &logs);
        async move { told }
    });
    let router = Router::new()
        .route("/healthz", healthz)
        .route("/metrics", get(metrics))
        .with_state(handle);
    let guard = Guard::new(listener, Speech::Http1, Room::here(Speech::Http1));
    axum::serve(guard, router)
        .with_graceful_shutdown(stopped)
        .await
}

/// Returns 200 while the coordinator can work, otherwise 503 with the reasons. Parked runs are listed but don't count
/// as a problem, because they hold up nothing else.
fn healthz(handle: &Handle, logs: &LogStore) -> (StatusCode, String) {
    let problems = problems(handle, logs);
    let parked = handle.registry.all_parked().into_iter();
    let parked: String = parked
        .map(|(run, reason)| format!("run {run} is parked: {reason}\n"))
        .collect();
    if problems.is_empty() {
        return (StatusCode::OK, format!("ok\n{parked}"));
    }
    let problems: String = problems.into_iter().map(|p| p + "\n").collect();
    (StatusCode::SERVICE_UNAVAILABLE, problems + &parked)
}

async fn metrics(State(handle): State<Handle>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).map(|value| value.to_str());
    let format = Format::accepted(accept.and_then(Result::ok).unwrap_or_default());
    let kind = [(header::CONTENT_TYPE, format.content_type())];
    (kind, scrape(&handle, format).await)
}
