//! The HTTP side of a coordinator, for what watches over it: `/healthz` and Prometheus' `/metrics`. Nothing here changes anything.

use crate::incoming::{Guard, Room, Speech};
use crate::metrics::scrape::scrape;
use crate::supervisor::Handle;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::future::Future;
use tokio::net::TcpListener;

/// Serves until told to stop.
pub async fn serve(
    handle: Handle,
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(handle);
    let guard = Guard::new(listener, Speech::Http1, Room::here(Speech::Http1));
    axum::serve(guard, router)
        .with_graceful_shutdown(stopped)
        .await
}

/// 200 while work can go on, 503 with the reason while it can't.
async fn healthz(State(handle): State<Handle>) -> impl IntoResponse {
    let problem = handle.journal.health().borrow().clone();
    match problem {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the journal can't be written: {reason}\n"),
        ),
    }
}

async fn metrics(State(handle): State<Handle>) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], scrape(&handle).await)
}
