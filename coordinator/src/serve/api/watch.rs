//! Watch: streams a run's journal from a position on, then further events as they happen.
//!
//! Every watcher reads the journal at its own pace and is woken by the run's tail. A slow one holds up only itself.

use super::{find, status::of_store};
use crate::access::Caller;
use crate::incoming::Busy;
use crate::metrics::{METRICS, Present};
use crate::run::actor::RunTail;
use crate::supervisor::Handle;
use phalanx_proto::v1;
use phalanx_shared::id::RunId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Maximum number of events read at once.
const BATCH: u32 = 128;
/// Events that may wait for the client. Each watcher may hold these and a batch, so slow watchers must not hold many.
const AHEAD: usize = 16;

type Item = Result<v1::Recorded, Status>;

/// Returns a stream of events from a position on.
pub(super) async fn watch(
    handle: &Handle,
    caller: &Caller,
    request: v1::WatchRequest,
    busy: Busy,
) -> Result<ReceiverStream<Item>, Status> {
    let row = find::run(&**handle.journal.store(), caller, &request.run_id).await?;
    let run = row.new.run;
    let tail = handle.registry.get(&run).map(|run| run.tail);
    let (out, stream) = mpsc::channel(AHEAD);
    let reader = Reader {
        handle: handle.clone(),
        run,
        next: request.from_position.max(1),
        tail: tail.filter(|_| request.follow),
        out,
    };
    tokio::spawn(async move {
        let _busy = busy;
        let _present = Present::in_gauge(&METRICS.watchers);
        if !reader.read().await {
            METRICS.watchers_dropped.inc();
        }
    });
    Ok(ReceiverStream::new(stream))
}

struct Reader {
    handle: Handle,
    run: RunId,
    next: u64,
    /// Set while an open run is followed.
    tail: Option<watch::Receiver<RunTail>>,
    out: mpsc::Sender<Item>,
}

impl Reader {
    /// Streams the events. Returns whether the client received all of them.
    async fn read(mut self) -> bool {
        loop {
            // Marked as seen before reading: events that arrive in between are read now or wake the next round.
            let (settled, known) = match &mut self.tail {
                Some(tail) => {
                    let tail = tail.borrow_and_update();
                    (tail.settled, tail.position)
                }
                None => (true, u64::MAX),
            };
            while self.next <= known {
                match self.send_batch().await {
                    Some(0) => break,
                    Some(_) => {}
                    None => return false,
                }
            }
            if settled {
                return true;
            }
            if !self.wait().await {
                return false;
            }
        }
    }

    /// Sends the next events and returns their number; `None` if the client is gone or the journal can't be read.
    async fn send_batch(&mut self) -> Option<usize> {
        let store = self.handle.journal.store();
        let events = match store.events(&self.run, self.next, BATCH).await {
            Ok(events) => events,
            Err(error) => {
                let _ = self.out.send(Err(of_store(error))).await;
                return None;
            }
        };
        let count = events.len();
        for recorded in events {
            self.next = recorded.position + 1;
            self.out.send(Ok(recorded.into())).await.ok()?;
        }
        Some(count)
    }

    /// Waits for more events. Returns `false` if no more can come.
    async fn wait(&mut self) -> bool {
        let Some(tail) = &mut self.tail else {
            return false;
        };
        let out = &self.out;
        let gone = tokio::select! {
            changed = tail.changed() => changed.is_err(),
            () = out.closed() => return false,
        };
        if gone {
            // The run's actor is gone: the run settled, or a new actor has taken over.
            self.tail = self.handle.registry.get(&self.run).map(|run| run.tail);
        }
        true
    }
}
