//! The content of artifacts, for pages.
//!
//! It comes from the systems under test and is served beside pages with buttons, so nothing of it may run: only pictures
//! and videos keep their type, every other text is plain text, the rest can only be saved, and a policy forbids scripts
//! and everything else to whatever a browser takes it for.

use super::feed::Feed;
use super::problem::Problem;
use crate::dispatch::artifacts::ArtifactStore;
use axum::body::{Body, Bytes};
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use phalanx_report::artifacts::inline_type;
use phalanx_shared::event::Artifact;
use phalanx_shared::id::{CellId, RunId};
use std::io::ErrorKind;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// What a browser may do with an artifact that is opened: nothing.
const POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for a browser.
const WAITING: usize = 4;

/// Answers with the content of an artifact.
pub async fn artifact(
    feed: &Feed,
    artifacts: &ArtifactStore,
    run: RunId,
    cell: CellId,
    attempt: u32,
    id: u32,
) -> Result<Response, Problem> {
    let artifact = feed
        .now(move |folded| {
            let attempts = &folded.state.cells.get(&cell)?.attempts;
            let attempt = attempts.iter().find(|known| known.attempt == attempt)?;
            let mut known = attempt.artifacts.iter();
            known
                .find(|known| known.id == id && known.is_kept())
                .cloned()
        })
        .await;
    let missing = || Problem::missing("there is no such artifact");
    let artifact = artifact.ok_or_else(missing)?;
    // It becomes a file name.
    let is_digest = artifact.digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_digest {
        return Err(missing());
    }
    let (store, digest) = (artifacts.clone(), artifact.digest.clone());
    let opened = tokio::task::spawn_blocking(move || store.open(&run, &digest)).await;
    let failed = |error: &dyn std::error::Error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let file = match opened.map_err(|error| failed(&error))? {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(failed(&error)),
    };
    let length = file.metadata().map_err(|error| failed(&error))?.len();
    let mut response = Response::new(content(file));
    let headers = response.headers_mut();
    let (kind, disposition) = described(&artifact);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_DISPOSITION, disposition);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}

/// Returns the media type and how a browser shall take it.
fn described(artifact: &Artifact) -> (&'static str, HeaderValue) {
    let (kind, how) = match inline_type(artifact) {
        Some(kind) => (kind, "inline"),
        None => ("application/octet-stream", "attachment"),
    };
    let name = artifact.name.rsplit('/').next().unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ') => c,
            _ => '_',
        })
        .collect();
    let value = format!("{how}; filename=\"{name}\"");
    let value = HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("attachment"));
    (kind, value)
}

fn content(file: std::fs::File) -> Body {
    let mut file = tokio::fs::File::from_std(file);
    let (pieces, outgoing) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let mut piece = vec![0; PIECE];
            let piece = match file.read(&mut piece).await {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    Ok(Bytes::from(piece))
                }
                Err(error) => Err(error),
            };
            let last = piece.is_err();
            if pieces.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    Body::from_stream(ReceiverStream::new(outgoing))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_that_runs_keeps_its_type_and_no_name_breaks_its_header() {
        for (kind, name, expected_kind, expected) in [
            (
                "image/png",
                "a/shot 1.png",
                "image/png",
                "inline; filename=\"shot 1.png\"",
            ),
            (
                "text/html",
                "x.html",
                "text/plain; charset=utf-8",
                "inline; filename=\"x.html\"",
            ),
            (
                "image/svg+xml",
                "x.svg",
                "text/plain; charset=utf-8",
                "inline; filename=\"x.svg\"",
            ),
            (
                "application/pdf",
                "a\"b\r\nSet-Cookie: x",
                "application/octet-stream",
                "attachment; filename=\"a_b__Set-Cookie_ x\"",
            ),
        ] {
            let artifact = Artifact {
                digest: "ab".to_owned(),
                media_type: kind.to_owned(),
                name: name.to_owned(),
                ..Artifact::default()
            };
            let (kind, disposition) = described(&artifact);
            assert_eq!(kind, expected_kind);
            assert_eq!(disposition.to_str().unwrap(), expected);
        }
    }
}
