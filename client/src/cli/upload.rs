//! Uploads a workspace to the coordinator, unless it already has it.

use super::error::CliError;
use super::say::Voice;
use crate::credential::Client;
use crate::workspace::Packed;
use phalanx_proto::v1;
use phalanx_report::text::plural;
use phalanx_shared::error_code::ErrorCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// Number of parts read ahead of the connection.
const AHEAD: usize = 8;

/// Uploads the files that the coordinator lacks. Prints a note if there is a voice.
pub async fn upload(
    mut client: Client,
    packed: Packed,
    voice: Option<Voice>,
) -> Result<(), CliError> {
    let digest = packed.digest.clone();
    let asked = client
        .has_workspace(v1::HasWorkspaceRequest { digest })
        .await;
    if asked.map_err(failed)?.into_inner().held {
        return Ok(());
    }
    if let Some(voice) = voice {
        let mebibytes = packed.bytes as f64 / f64::from(1 << 20);
        let files = plural(packed.files(), "file");
        voice.note(&format!(
            "sending the workspace: {files}, {mebibytes:.1} MiB"
        ));
    }
    let (wire, parts) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        packed.send(&mut |part| wire.blocking_send(part.into()).is_ok())
    });
    let sent = client.put_workspace(ReceiverStream::new(parts)).await;
    let read = reading.await;
    // If a file couldn't be read, that is the reason for the incomplete upload.
    read.map_err(|error| CliError::errored(format!("reading the workspace failed: {error}")))?
        .map_err(|error| CliError::errored(error.to_string()))?;
    sent.map(|_| ()).map_err(failed)
}

fn failed(status: Status) -> CliError {
    let help = match status.code() {
        Code::Unimplemented => {
            let message = "the coordinator is of an earlier version that takes no workspaces";
            return CliError::errored(message).with_help("upgrade it");
        }
        Code::ResourceExhausted => "make room on the coordinator's disk: phalanx gc",
        Code::Aborted => "let nothing write to the files of workspace.include meanwhile",
        Code::InvalidArgument => "workspace.include chooses the files",
        _ => "run it again: nothing is kept of half a workspace",
    };
    let mut error = CliError::from(status);
    error.message = format!("sending the workspace: {}", error.message);
    error.explained = None;
    error.with_help(help).explained_by(ErrorCode::Workspace)
}
