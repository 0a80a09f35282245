//! Why a page can't be shown, as a page that says so.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, html};
use tonic::{Code, Status};

/// A request that isn't carried out.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    /// Creates a problem with an HTTP status and a sentence for the reader.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Problem {
        Problem {
            status,
            text: text.into(),
        }
    }

    /// Returns a problem with something that doesn't exist.
    pub fn missing(text: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, text)
    }
}

/// Does work that takes long, as rendering does, on a thread where nothing waits for it.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    // Only a bug or the end of the runtime ends such a task.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

impl From<Status> for Problem {
    fn from(status: Status) -> Problem {
        let code = match status.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::FailedPrecondition | Code::AlreadyExists => StatusCode::CONFLICT,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(code, status.message())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    title { "Phalanx: " (self.status.canonical_reason().unwrap_or("problem")) }
                    link rel="stylesheet" href="/static/live.css";
                }
                body {
                    main.problem {
                        h1 { (self.status.canonical_reason().unwrap_or("Problem")) }
                        p { (self.text) }
                        p { a href="/runs" { "All runs" } }
                    }
                }
            }
        };
        (self.status, Html(page.into_string())).into_response()
    }
}
