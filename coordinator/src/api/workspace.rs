//! The files that clients send: asked for by digest, taken in part by part.
//!
//! Parts are checked here one by one; what they make together is for `workspace::receive`, which writes in a thread of its own. A client that
//! goes away ends both, and nothing is left.

use crate::workspace::{Refused, Workspaces};
use phalanx_proto::convert::{InvalidPart, workspace_digest};
use phalanx_proto::v1;
use phalanx_proto::workspace::Part;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

/// Parts that may wait to be written; a client waits beyond that.
const WAITING: usize = 8;
/// A client that sends nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Whether a workspace is here; if so, it stays for a while.
pub(super) async fn has(
    workspaces: &Workspaces,
    request: v1::HasWorkspaceRequest,
) -> Result<v1::HasWorkspaceResponse, Status> {
    let v1::HasWorkspaceRequest { digest } = request;
    let digest = workspace_digest(digest).map_err(invalid)?;
    let held = held(workspaces, digest).await?;
    Ok(v1::HasWorkspaceResponse { held })
}

async fn held(workspaces: &Workspaces, digest: String) -> Result<bool, Status> {
    let workspaces = workspaces.clone();
    let held = tokio::task::spawn_blocking(move || workspaces.hold(&digest)).await;
    let held = held.map_err(|error| Status::internal(error.to_string()))?;
    held.map_err(|error| refusal(Refused::Io(error)))
}

/// Takes a workspace in.
pub(super) async fn put(
    workspaces: &Workspaces,
    mut parts: impl Stream<Item = Result<v1::WorkspacePart, Status>> + Unpin,
) -> Result<v1::PutWorkspaceResponse, Status> {
    let Some(Part::Digest(digest)) = next(&mut parts, SILENCE).await? else {
        return Err(Status::invalid_argument(
            "the first message of a workspace isn't its digest",
        ));
    };
    let _turn = workspaces.turn().await;
    let (wire, mut received) = mpsc::channel(WAITING);
    let (store, named) = (workspaces.clone(), digest.clone());
    let taking =
        tokio::task::spawn_blocking(move || store.take(&named, &mut || received.blocking_recv()));
    let fed = feed(&mut parts, wire).await;
    let taken = taking
        .await
        .map_err(|error| Status::internal(format!("taking in a workspace failed: {error}")))?;
    // What broke off is the cause; that it wasn't whole follows from it.
    fed?;
    taken.map_err(refusal)?;
    tracing::info!(digest, "a workspace came");
    Ok(v1::PutWorkspaceResponse {})
}

/// Hands all parts on, as long as they are wanted.
async fn feed(
    parts: &mut (impl Stream<Item = Result<v1::WorkspacePart, Status>> + Unpin),
    wire: mpsc::Sender<Part>,
) -> Result<(), Status> {
    while let Some(part) = next(parts, SILENCE).await? {
        if wire.send(part).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The next part; `None` after the last.
async fn next(
    parts: &mut (impl Stream<Item = Result<v1::WorkspacePart, Status>> + Unpin),
    within: Duration,
) -> Result<Option<Part>, Status> {
    match tokio::time::timeout(within, parts.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(part)) => Part::try_from(part?).map(Some).map_err(invalid),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "nothing more of the workspace came for {} s",
            within.as_secs()
        ))),
    }
}

fn invalid(error: InvalidPart) -> Status {
    Status::invalid_argument(error.to_string())
}

fn refusal(refused: Refused) -> Status {
    let code = match &refused {
        Refused::Io(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
            _ => Code::Unavailable,
        },
        Refused::OtherDigest { .. } => Code::Aborted,
        _ => Code::InvalidArgument,
    };
    let message = match &refused {
        Refused::Io(error) => format!("the coordinator can't keep the workspace: {error}"),
        other => other.to_string(),
    };
    Status::new(code, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn part(part: Part) -> Result<v1::WorkspacePart, Status> {
        Ok(part.into())
    }

    #[tokio::test]
    async fn a_call_that_breaks_leaves_nothing_and_says_what_broke() {
        let folder = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(folder.path());
        let digest = || part(Part::Digest("0".repeat(64)));
        let file = || {
            part(Part::File {
                path: "a".to_owned(),
                executable: false,
                size: 2,
            })
        };
        for (parts, code, said) in [
            (vec![], Code::InvalidArgument, "isn't its digest"),
            (vec![file()], Code::InvalidArgument, "isn't its digest"),
            (
                vec![digest(), file(), Err(Status::unavailable("cut"))],
                Code::Unavailable,
                "cut",
            ),
            (vec![digest(), file()], Code::InvalidArgument, "not whole"),
            (
                vec![digest(), Ok(v1::WorkspacePart { part: None })],
                Code::InvalidArgument,
                "no part",
            ),
            (vec![digest()], Code::Aborted, "have the digest"),
        ] {
            let stream = tokio_stream::iter(parts);
            let status = put(&workspaces, stream).await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(said), "{status}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn a_client_that_falls_silent_is_given_up() {
        let mut silent = tokio_stream::pending();
        let status = next(&mut silent, Duration::from_millis(1))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let full = Refused::Io(io::ErrorKind::StorageFull.into());
        assert_eq!(refusal(full).code(), Code::ResourceExhausted);
        let other = Refused::Io(io::ErrorKind::PermissionDenied.into());
        assert_eq!(refusal(other).code(), Code::Unavailable);
    }
}
