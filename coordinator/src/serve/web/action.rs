//! The buttons: cancel, run again, drain. Each checks the token, does what the command of its name does, and leads back to
//! a page.

use super::guard::ActionToken;
use super::problem::Problem;
use super::site::Site;
use crate::access::Caller;
use crate::serve::api::submit::NotStarted;
use crate::serve::api::{agents, cancel as api_cancel, rerun as api_rerun};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::{Extension, Form};
use phalanx_proto::v1;
use serde::Deserialize;
use std::sync::Arc;

/// Reason of a cancellation, for reports.
const REASON: &str = "cancelled on the run's page";

/// The fields of a form.
#[derive(Debug, Deserialize)]
pub struct Pressed {
    #[serde(default)]
    token: String,
    /// Cell to run again; empty for those that failed.
    #[serde(default)]
    cell: String,
}

fn check(allowed: bool, token: &ActionToken, pressed: &Pressed) -> Result<(), Problem> {
    if !allowed {
        let text = "these pages only show: use the commands of `phalanx` to act";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    token.check(&pressed.token)
}

/// Cancels a run.
pub async fn cancel(
    State(site): State<Arc<Site>>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    Form(pressed): Form<Pressed>,
) -> Result<Redirect, Problem> {
    check(
        site.options.actions.of(&caller).cancel,
        &site.token,
        &pressed,
    )?;
    let request = v1::CancelRequest {
        run_id: run.clone(),
        reason: REASON.to_owned(),
        force: false,
    };
    api_cancel::cancel(&site.handle, &caller, request).await?;
    Ok(Redirect::to(&format!("/runs/{run}")))
}

/// Runs the failed cells of a run again, or one cell, as a new run.
pub async fn rerun(
    State(site): State<Arc<Site>>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    Form(pressed): Form<Pressed>,
) -> Result<Redirect, Problem> {
    check(
        site.options.actions.of(&caller).rerun,
        &site.token,
        &pressed,
    )?;
    let cells: Vec<String> = Some(pressed.cell)
        .filter(|cell| !cell.is_empty())
        .into_iter()
        .collect();
    let request = v1::RerunRequest {
        run_id: run,
        failed: cells.is_empty(),
        cells,
        ..v1::RerunRequest::default()
    };
    let started = api_rerun::rerun(&site.handle, &caller, request).await;
    let started = started.map_err(|error| match error {
        NotStarted::Failed(status) => Problem::from(status),
        NotStarted::Refused(refusal) => Problem::from(refusal.into_status()),
    })?;
    Ok(Redirect::to(&format!("/runs/{}", started.run_id)))
}

/// Drains an agent.
pub async fn drain(
    State(site): State<Arc<Site>>,
    Extension(caller): Extension<Caller>,
    Path(agent): Path<String>,
    Form(pressed): Form<Pressed>,
) -> Result<Redirect, Problem> {
    check(
        site.options.actions.of(&caller).drain,
        &site.token,
        &pressed,
    )?;
    agents::drain(&site.handle, &caller, v1::DrainAgentRequest { agent }).await?;
    Ok(Redirect::to("/agents"))
}
