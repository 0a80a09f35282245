//! Lets requests over HTTP in: by the header of a program, or by the cookie of a person who logged in on a page.

use crate::access::Access;
use crate::access::core::Refusal;
use crate::access::gate::Brought;
use crate::access::needs::{self, Kind};
use crate::incoming::Visit;
use crate::serve::web::sessions::Sessions;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use futures::StreamExt;
use std::sync::Arc;

/// Who is let in.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) access: Access,
    pub(super) sessions: Arc<Sessions>,
}

/// Checks who makes a request, and ends an answer that lasts with its caller's token.
pub(super) async fn enter(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let visit = request.extensions().get::<ConnectInfo<Visit>>().cloned();
    let visit = visit.map(|ConnectInfo(visit)| visit);
    let headers = request.headers();
    let session = door.sessions.of(headers);
    let authorization = headers.get(AUTHORIZATION);
    let brought = Brought {
        authorization: authorization.map(|value| value.to_str().unwrap_or("?")),
        session: session.as_ref(),
        ..Brought::default()
    }
    .by(visit.as_ref());
    let path = request.uri().path().to_owned();
    let row = needs::of_request(request.method().as_str(), &path);
    let need = row.map(|(need, _)| need);
    let what = format!("{} {path}", request.method());
    let caller = match door.access.enter(&what, need, brought).await {
        Ok(caller) => caller,
        Err(refusal) => return refused(&refusal, &request),
    };
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    if row.is_some_and(|(_, kind)| kind == Kind::Changes) {
        let from = visit.map(|visit| visit.address());
        let status = response.status();
        let result = match status.is_client_error() || status.is_server_error() {
            true => Err(status.to_string()),
            false => Ok(()),
        };
        door.access.note(&caller, &what, from, result).await;
    }
    // What has a length is sent at once.
    let lasts = response.body().size_hint().exact().is_none();
    if caller.identity().is_none() || !lasts {
        return response;
    }
    let over = Box::pin(door.access.until_over(caller));
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(over)))
}

/// Says why not: to a browser by the login page, to a program by the status and a sentence.
fn refused(refusal: &Refusal, request: &Request) -> Response {
    let status = match refusal {
        Refusal::NoToken | Refusal::BadToken | Refusal::Over => StatusCode::UNAUTHORIZED,
        Refusal::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Unreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::NoNamespace(_) => StatusCode::BAD_REQUEST,
        Refusal::Role { .. }
        | Refusal::Everywhere { .. }
        | Refusal::Namespace { .. }
        | Refusal::Unlisted(_) => StatusCode::FORBIDDEN,
    };
    if status == StatusCode::UNAUTHORIZED && is_for_a_person(request.method(), request.headers()) {
        let to = request.uri().path();
        return Redirect::to(&format!("/login?to={to}")).into_response();
    }
    let mut response = (status, format!("{refusal}\n")).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer realm=\"phalanx\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    response
}

/// Returns whether a request is for a page that a browser shows.
fn is_for_a_person(method: &Method, headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let html = accept.is_some_and(|accept| accept.contains("text/html"));
    method == Method::GET && html && !headers.contains_key(AUTHORIZATION)
}
