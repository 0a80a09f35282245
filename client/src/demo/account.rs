//! Signing in to the shop: bearer tokens for programs; a form with CSRF protection and a session cookie for people.

use super::state::{State, refuse};
use super::{PASSWORD, USER};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Form, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

/// Name of the session's cookie.
const SESSION: &str = "sessionid";
/// Name of the cookie that the form's hidden field must repeat.
const CSRF: &str = "csrftoken";

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
}

/// Handles `POST /tokens`.
pub async fn make_token(Extract(state): Extract<State>, body: Bytes) -> Response {
    let credentials: Credentials = match serde_json::from_slice(&body) {
        Ok(credentials) => credentials,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if credentials.user != USER || credentials.password != PASSWORD {
        return refuse(StatusCode::UNAUTHORIZED, "unknown user or wrong password");
    }
    let token = Uuid::new_v4().simple().to_string();
    state.shop().admit(token.clone());
    (StatusCode::CREATED, Json(json!({ "token": token }))).into_response()
}

/// Requires a valid bearer token. Returns the 401 response otherwise.
pub fn bearer(state: &State, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if token.is_some_and(|token| state.shop().admits(token)) {
        return Ok(());
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"shop\"")];
    let refused = refuse(
        StatusCode::UNAUTHORIZED,
        "a bearer token is needed: POST /tokens",
    );
    Err(Box::new((challenge, refused).into_response()))
}

/// Handles `GET /login`: returns the form and its CSRF cookie.
pub async fn login_page() -> Response {
    let csrf = Uuid::new_v4().simple().to_string();
    let cookie = [(
        header::SET_COOKIE,
        format!("{CSRF}={csrf}; Path=/; SameSite=Lax"),
    )];
    let form = format!(
        r#"<!doctype html><title>Sign in</title>
<form method="post" action="/login">
<input type="hidden" name="csrf" value="{csrf}">
<input name="user"><input name="password" type="password"><button>Sign in</button>
</form>"#
    );
    (cookie, Html(form)).into_response()
}

#[derive(Deserialize)]
pub struct LoginForm {
    #[serde(default)]
    csrf: String,
    #[serde(flatten)]
    credentials: Credentials,
}

/// Handles `POST /login`: the form's CSRF field and the cookie must agree.
pub async fn login(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Response {
    if form.csrf.is_empty() || cookie(&headers, CSRF).as_deref() != Some(&form.csrf) {
        return refuse(StatusCode::FORBIDDEN, "the CSRF token is missing or wrong");
    }
    if form.credentials.user != USER || form.credentials.password != PASSWORD {
        return refuse(StatusCode::UNAUTHORIZED, "unknown user or wrong password");
    }
    let session = Uuid::new_v4().simple().to_string();
    state.shop().open_session(session.clone());
    let headers = [
        (
            header::SET_COOKIE,
            format!("{SESSION}={session}; Path=/; HttpOnly"),
        ),
        (header::LOCATION, "/account".to_owned()),
    ];
    (StatusCode::FOUND, headers).into_response()
}

/// Handles `GET /account`: returns a page if the user is signed in, else redirects to the form.
pub async fn page(Extract(state): Extract<State>, headers: HeaderMap) -> Response {
    match cookie(&headers, SESSION) {
        Some(session) if state.shop().has_session(&session) => Html(format!(
            "<!doctype html><title>Account</title><p>Signed in as {USER}</p>"
        ))
        .into_response(),
        _ => (StatusCode::FOUND, [(header::LOCATION, "/login")]).into_response(),
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.to_owned())
        })
}
