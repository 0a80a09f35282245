//! The HTTP side of a coordinator: `/healthz` and Prometheus' `/metrics` for monitoring, and the pages for people.
//!
//! Pages have buttons. Without access control there are no passwords, so pages are then served on loopback only: at any
//! other address there is only monitoring, and a page's address says why.

mod enter;
mod scrape;

use crate::access::core::Role;
use crate::access::{Access, Caller};
use crate::dispatch::logs::store::LogStore;
use crate::incoming::{Guard, Room, Secured, Speech, Visit};
use crate::serve::health::problems;
use crate::serve::web;
use crate::serve::web::sessions::Sessions;
use crate::supervisor::Handle;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use enter::{Door, enter};
use scrape::{Format, scrape};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a visitor of a page reads where there are none.
const NO_PAGES: &str = "pages are served on loopback only, because they have buttons and no passwords: open them on the coordinator's machine, or through ssh -L 7181:127.0.0.1:7181; with access control (serve.access = true) they are served anywhere\n";

/// Serves monitoring until `stop` is cancelled, and pages if there are options for them and either callers need tokens
/// or the address is loopback.
pub async fn serve(
    handle: Handle,
    logs: LogStore,
    access: Access,
    pages: Option<web::Options>,
    listener: TcpListener,
    secured: Option<Secured>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let here = listener.local_addr()?.ip().to_canonical().is_loopback();
    let sessions = Arc::new(Sessions::default());
    let pages = match pages {
        Some(options) if here || access.is_on() => web::router(
            handle.clone(),
            logs.clone(),
            (access.clone(), sessions.clone()),
            options,
            stop.clone(),
        ),
        Some(_) => Router::new().fallback(async || (StatusCode::FORBIDDEN, NO_PAGES)),
        None => Router::new(),
    };
    let health = handle.clone();
    let told = move |Extension(caller): Extension<Caller>| {
        let told = healthz(&health, &logs, &caller);
        async move { told }
    };
    let door = Door { access, sessions };
    let router = Router::new()
        .route("/healthz", get(told))
        .route("/metrics", get(metrics))
        .with_state(handle)
        .merge(pages)
        .layer(from_fn_with_state(door, enter))
        .into_make_service_with_connect_info::<Visit>();
    let mut guard = Guard::new(listener, Speech::Http1, Room::here(Speech::Http1));
    if let Some(secured) = secured {
        guard = guard.secured(secured);
    }
    axum::serve(guard, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Returns 200 while the coordinator can work, otherwise 503 with the reasons. Parked runs are listed but don't count
/// as a problem, because they hold up nothing else. Reasons and runs are told to those who see all runs.
fn healthz(handle: &Handle, logs: &LogStore, caller: &Caller) -> (StatusCode, String) {
    let problems = problems(handle, logs);
    let told = caller.has_everywhere(Role::Read);
    let parked = handle.registry.all_parked().into_iter();
    let parked: String = parked
        .filter(|_| told)
        .map(|(run, reason)| format!("run {run} is parked: {reason}\n"))
        .collect();
    if problems.is_empty() {
        return (StatusCode::OK, format!("ok\n{parked}"));
    }
    if !told {
        let short = "the coordinator has a problem: its log tells it, and /healthz with a token\n";
        return (StatusCode::SERVICE_UNAVAILABLE, short.to_owned());
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
