//! The event stream of a run, resumed at the next position when the connection breaks.

use super::{CliError, Input};
use crate::credential::Client;
use phalanx_proto::{broken, v1};
use phalanx_shared::event::Recorded;
use phalanx_shared::id::RunId;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Code, Status};

/// Events buffered for a slow terminal; a full channel slows the stream down.
const BUFFER: usize = 256;
/// Pauses before resuming start at 0.2 s and double up to this.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Attempts to resume without a single event before giving up: about two minutes.
const ATTEMPTS: u32 = 30;

/// Streams the events from a position on. Ends with `Ended`.
pub fn watch(client: Client, run: RunId, from: u64, follow: bool) -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let ended = resume(client, &run, from, follow, &sender).await;
        let _ = sender.send(Input::Ended(ended.err())).await;
    });
    receiver
}

async fn resume(
    mut client: Client,
    run: &RunId,
    mut next: u64,
    follow: bool,
    sender: &mpsc::Sender<Input>,
) -> Result<(), CliError> {
    let mut failures = 0;
    let mut pause = Duration::from_millis(200);
    loop {
        let before = next;
        match read(&mut client, run, &mut next, follow, sender).await {
            Ok(()) => return Ok(()),
            Err(status) if is_passing(&status) && follow => {
                if next > before {
                    (failures, pause) = (0, Duration::from_millis(200));
                }
                failures += 1;
                if failures == ATTEMPTS {
                    let message = format!("the coordinator is gone: {}", broken(&status));
                    let help = format!("the run may go on without us: phalanx watch {run}");
                    return Err(CliError::errored(message).with_help(help));
                }
                if failures == 1 && sender.send(Input::Broken(broken(&status))).await.is_err() {
                    return Ok(());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(status) => return Err(status.into()),
        }
    }
}

fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::Cancelled
    )
}

async fn read(
    client: &mut Client,
    run: &RunId,
    next: &mut u64,
    follow: bool,
    sender: &mpsc::Sender<Input>,
) -> Result<(), Status> {
    let request = v1::WatchRequest {
        run_id: run.to_string(),
        from_position: *next,
        follow,
    };
    let mut stream = client.watch(request).await?.into_inner();
    while let Some(wire) = stream.message().await? {
        let recorded = Recorded::try_from(wire)
            .map_err(|error| Status::data_loss(format!("an event can't be read: {error}")))?;
        *next = recorded.position + 1;
        if sender.send(Input::Event(Box::new(recorded))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
