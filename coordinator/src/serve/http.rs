//! The HTTP side of a coordinator: `/healthz` and Prometheus' `/metrics` for monitoring, and the pages for people.
//!
//! Pages have buttons and no passwords, so they are served on loopback only. At any other address there is only
//! monitoring, and a page's address says why.

mod scrape;

use crate::dispatch::logs::store::LogStore;
use crate::incoming::{Guard, Room, Speech, Visit};
use crate::serve::health::problems;
use crate::serve::web;
use crate::supervisor::Handle;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use scrape::{Format, scrape};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a visitor of a page reads where there are none.
const NO_PAGES: &str = "pages are served on loopback only, because they have buttons and no passwords: open them on the coordinator's machine, or through ssh -L 7181:127.0.0.1:7181\n";

/// Serves monitoring until `stop` is cancelled, and pages if there are options for them and the address is loopback.
pub async fn serve(
    handle: Handle,
    logs: LogStore,
    pages: Option<web::Options>,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let here = listener.local_addr()?.ip().to_canonical().is_loopback();
    let pages = match pages {
        Some(options) if here => web::router(handle.clone(), logs.clone(), options, stop.clone()),
        Some(_) => Router::new().fallback(async || (StatusCode::FORBIDDEN, NO_PAGES)),
        None => Router::new(),
    };
    let health = handle.clone();
    let healthz = get(move || {
        let told = healthz(&health, &logs);
        async move { told }
    });
    let router = Router::new()
        .route("/healthz", healthz)
        .route("/metrics", get(metrics))
        .with_state(handle)
        .merge(pages)
        .into_make_service_with_connect_info::<Visit>();
    let guard = Guard::new(listener, Speech::Http1, Room::here(Speech::Http1));
    axum::serve(guard, router)
        .with_graceful_shutdown(stop.cancelled_owned())
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
