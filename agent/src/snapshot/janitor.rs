//! The task that keeps a store within its bounds while the agent runs: when it starts, after a snapshot was kept, and now and
//! then. No cell waits for it.

use super::store::Store;
use super::tidy::{Wish, tidy};
use crate::clock::Clock;
use crate::runtime::docker::DockerRuntime;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Time between two passes if nothing happens: snapshots grow old by themselves.
const EVERY: Duration = Duration::from_secs(3600);

/// The running task.
pub struct Janitor {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Janitor {
    /// Starts the task.
    pub fn start(engine: Arc<DockerRuntime>, store: Store, clock: Arc<dyn Clock>) -> Janitor {
        let (end, ended) = oneshot::channel();
        Janitor {
            end,
            task: tokio::spawn(run(engine, store, clock, ended)),
        }
    }

    /// Ends the task after what it still has to do, within a time. What it doesn't finish, the next start does.
    pub async fn finish(mut self, within: Duration) {
        let _ = self.end.send(());
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }

    /// Ends the task at once.
    pub fn abort(self) {
        self.task.abort();
    }
}

async fn run(
    engine: Arc<DockerRuntime>,
    store: Store,
    clock: Arc<dyn Clock>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut changes = store.contents();
    loop {
        changes.mark_unchanged();
        let wish = Wish {
            bounds: *store.bounds(),
            now: clock.wall(),
            dry_run: false,
        };
        let tidied = tidy(Some(&engine), &store, wish).await;
        for removed in tidied.removed {
            tracing::info!(what = removed.what, bytes = removed.bytes, "removed");
        }
        for problem in tidied.problems {
            tracing::warn!(problem, "snapshots aren't tidy");
        }
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            _ = &mut ended => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
