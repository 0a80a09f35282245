//! Sends the bytes of an artifact.

use super::find;
use crate::access::Caller;
use crate::dispatch::artifacts::ArtifactStore;
use crate::supervisor::Handle;
use futures::Stream;
use phalanx_proto::convert::workspace_digest;
use phalanx_proto::limit::CHUNK_BYTES;
use phalanx_proto::v1;
use std::io::ErrorKind;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Pieces that may wait for a client. A slow client slows down only itself.
const WAITING: usize = 4;

/// Returns the pieces of an artifact.
pub(super) async fn artifact(
    handle: &Handle,
    caller: &Caller,
    artifacts: &ArtifactStore,
    request: v1::ArtifactRequest,
) -> Result<impl Stream<Item = Result<v1::Chunk, Status>> + Send + use<>, Status> {
    let v1::ArtifactRequest { run_id, digest } = request;
    // The digest becomes a file name.
    let digest = workspace_digest(digest).map_err(|_| {
        Status::invalid_argument("the digest of an artifact has 64 hexadecimal digits")
    })?;
    let run = find::run(&**handle.journal.store(), caller, &run_id).await?;
    let run = run.new.run;
    let (of_run, name) = (artifacts.clone(), digest.clone());
    let opened = {
        let run = run.clone();
        tokio::task::spawn_blocking(move || of_run.open(&run, &name)).await
    };
    let opened = opened.map_err(|error| Status::internal(error.to_string()))?;
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Status::not_found(format!(
            "run {run} keeps no artifact with the digest {digest}"
        )),
        _ => Status::internal(format!("artifact {digest}: {error}")),
    })?;
    let mut file = tokio::fs::File::from_std(file);
    let (pieces, outgoing) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let mut data = vec![0; CHUNK_BYTES];
            let piece = match file.read(&mut data).await {
                Ok(0) => return,
                Ok(read) => {
                    data.truncate(read);
                    Ok(v1::Chunk { data })
                }
                Err(error) => Err(Status::data_loss(error.to_string())),
            };
            let last = piece.is_err();
            if pieces.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(outgoing))
}
