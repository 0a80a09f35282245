//! The page where a person gives a token, and gets a cookie for it.

use super::pages::frame::bare;
use super::problem::Problem;
use super::site::Site;
use crate::access::core::Refusal;
use crate::incoming::Visit;
use axum::Form;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;
use std::sync::Arc;

/// Where a visitor wanted to go.
#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    to: String,
}

/// What the form sends.
#[derive(Deserialize)]
pub struct Given {
    token: String,
    #[serde(default)]
    to: String,
}

/// Returns an address of these pages, and the list of runs for any other.
fn inside(to: &str) -> &str {
    let plain = to.bytes().all(|c| c.is_ascii_graphic() && c != b'\\');
    let inside = to.starts_with('/') && !to.starts_with("//") && plain;
    if inside { to } else { "/runs" }
}

/// The form.
pub async fn form(State(site): State<Arc<Site>>, Query(wanted): Query<Wanted>) -> Response {
    if !site.access.is_on() {
        return Redirect::to(inside(&wanted.to)).into_response();
    }
    Html(page(&wanted.to, None)).into_response()
}

/// Checks the token, and begins a session.
pub async fn log_in(
    State(site): State<Arc<Site>>,
    ConnectInfo(visit): ConnectInfo<Visit>,
    Form(given): Form<Given>,
) -> Result<Response, Problem> {
    let checked = site.access.log_in(&given.token, &visit).await;
    let token = match checked {
        Ok(token) => token,
        Err(refusal) => {
            let status = match refusal {
                Refusal::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
                Refusal::Unreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNAUTHORIZED,
            };
            let text = match &refusal {
                Refusal::BadToken => "The token isn't valid: it was revoked, it has expired, or it is another coordinator's.".to_owned(),
                other => other.to_string(),
            };
            return Ok((status, Html(page(&given.to, Some(&text)))).into_response());
        }
    };
    let cookie = site.sessions.begin(token);
    let cookie =
        cookie.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let to = Redirect::to(inside(&given.to));
    Ok(([(SET_COOKIE, cookie)], to).into_response())
}

/// Ends the session.
pub async fn log_out(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let cookie = site.sessions.end(&headers);
    ([(SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

fn page(to: &str, problem: Option<&str>) -> String {
    let body = html! {
        main.login #page {
            h1 { "Phalanx" }
            p { "This coordinator needs a token. Who administers it makes one with " code { "phalanx token create client" } "." }
            @if let Some(problem) = problem {
                p.problem role="alert" { (problem) }
            }
            form method="post" action="/login" {
                input type="hidden" name="to" value=(inside(to));
                label for="token" { "Token" }
                " "
                input #token type="password" name="token" autocomplete="current-password" required autofocus;
                " "
                button type="submit" { "Log in" }
            }
        }
    };
    bare("Log in", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_pages_of_this_coordinator_only() {
        assert_eq!(inside("/runs/x?at=3"), "/runs/x?at=3");
        for to in [
            "",
            "runs",
            "//evil.example",
            "/\\evil.example",
            "https://x",
            "/a\nb",
        ] {
            assert_eq!(inside(to), "/runs", "{to}");
        }
    }
}
