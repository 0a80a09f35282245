//! Pages for people: runs as they go, their cells with logs, agents and the queue, and buttons to act on them.
//!
//! ```text
//! journal ─▶ feed (one fold per watched run) ─▶ watched page (regions) ─▶ event stream × n ─▶ browser
//!            lists (what the coordinator says now) ─┘
//! ```
//!
//! A page is rendered here, and shows the state of its time without JavaScript. Its script keeps it up to date with patches
//! from one event stream, and adds logs and buttons. Without access control, pages are served on loopback
//! only, and to this machine's own pages only ([`guard`]); with it, to who logged in ([`login`]). Each caller sees its
//! namespaces, and the buttons that its role allows.

mod action;
mod board;
mod earlier;
mod events;
mod feed;
mod files;
mod fold;
mod guard;
mod lists;
mod login;
mod logs;
mod pages;
mod past;
mod problem;
pub mod sessions;
mod shelf;
mod show;
mod site;
mod waits;
mod watched;

pub use guard::Actions;
pub use site::Options;

use crate::access::Access;
use crate::dispatch::logs::store::LogStore;
use crate::supervisor::Handle;
use axum::Router;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use sessions::Sessions;
use site::Site;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SCRIPT: &str = include_str!("web/live.js");
const STYLE: &str = include_str!("web/live.css");

/// Returns the pages of a coordinator; their event streams end with `stop`. The router needs the visit of each connection
/// (`ConnectInfo<Visit>`), and who makes each request
/// (`Extension<Caller>`).
pub fn router(
    handle: Handle,
    logs: LogStore,
    (access, sessions): (Access, Arc<Sessions>),
    options: Options,
    stop: CancellationToken,
) -> Router {
    let passwords = access.is_on();
    Router::new()
        .route("/login", get(login::form))
        .route("/login", post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/", get(async || Redirect::to("/runs")))
        .route("/runs", get(show::runs))
        .route("/runs/events", get(show::runs_events))
        .route("/runs/{run}", get(show::run))
        .route("/runs/{run}/events", get(show::run_events))
        .route("/runs/{run}/timing", get(show::timing))
        .route("/runs/{run}/timing/events", get(show::timing_events))
        .route("/runs/{run}/cancel", post(action::cancel))
        .route("/runs/{run}/rerun", post(action::rerun))
        .route("/runs/{run}/cells/{cell}", get(show::cell))
        .route("/runs/{run}/cells/{cell}/events", get(show::cell_events))
        .route("/runs/{run}/cells/{cell}/log", get(show::cell_log))
        .route(
            "/runs/{run}/cells/{cell}/artifacts/{attempt}/{id}",
            get(show::artifact),
        )
        .route("/agents", get(show::agents))
        .route("/agents/events", get(show::agents_events))
        .route("/agents/{agent}/drain", post(action::drain))
        .route("/compare", get(past::compare))
        .route("/history", get(past::history))
        .route("/explain", get(show::errors))
        .route("/explain/{code}", get(show::error))
        .route("/static/live.js", get(async || script()))
        .route("/static/live.css", get(async || style()))
        .layer(from_fn_with_state(passwords, guard::guard))
        .with_state(Site::new(handle, logs, (access, sessions), options, stop))
}

fn script() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (
        kind,
        format!("{}{SCRIPT}", phalanx_report::html::grid_script()),
    )
}

fn style() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, format!("{}\n{STYLE}", phalanx_report::html::style()))
}
