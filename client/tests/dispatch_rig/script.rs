//! Cells that follow a script.

use phalanx_agent::cell_contract::Assignment;
use phalanx_agent::link::CellSpawner;
use phalanx_agent::sink::{LogChunk, Stamped};
use phalanx_shared::event::{EventKind, LogStream};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Clone, Copy)]
enum Plot {
    Passing,
    Steps(u32),
    UntilCancelled,
    /// Endless notes of this many bytes.
    Notes(usize),
}

#[derive(Clone)]
pub struct Script {
    plot: Plot,
    cancelled: watch::Sender<bool>,
    workspace: Arc<Mutex<Option<String>>>,
}

impl Script {
    fn new(plot: Plot) -> Script {
        Script {
            plot,
            cancelled: watch::channel(false).0,
            workspace: Arc::default(),
        }
    }

    pub fn passing() -> Script {
        Script::new(Plot::Passing)
    }

    pub fn steps(count: u32) -> Script {
        Script::new(Plot::Steps(count))
    }

    pub fn notes_without_end(bytes: usize) -> Script {
        Script::new(Plot::Notes(bytes))
    }

    pub fn until_cancelled() -> Script {
        Script::new(Plot::UntilCancelled)
    }

    pub async fn wait_cancelled(&self) {
        let mut cancelled = self.cancelled.subscribe();
        let waiting = cancelled.wait_for(|cancelled| *cancelled);
        tokio::time::timeout(super::HANG, waiting)
            .await
            .unwrap()
            .unwrap();
    }

    /// Returns what the last cell read in its workspace.
    pub fn workspace_text(&self) -> Option<String> {
        self.workspace.lock().unwrap().clone()
    }
}

impl CellSpawner for Script {
    fn spawn(&self, assignment: Assignment) {
        let script = self.clone();
        tokio::spawn(async move { play(script, assignment).await });
    }
}

async fn play(script: Script, assignment: Assignment) {
    let Assignment {
        token,
        events,
        logs,
        workspace,
        mut cancel,
        ..
    } = assignment;
    let emit = async |kind| {
        let stamped = Stamped {
            token: token.clone(),
            at: Timestamp(1),
            mono_us: 1,
            kind,
        };
        let _ = events.send(stamped).await;
    };
    let log = async |text: String| {
        let chunk = LogChunk {
            token: token.clone(),
            service: "db".to_owned(),
            stream: LogStream::Stdout,
            at: Timestamp(1),
            bytes: text.into_bytes(),
        };
        let _ = logs.send(chunk).await;
    };
    if let Some(path) = workspace {
        *script.workspace.lock().unwrap() = std::fs::read_to_string(path.join("file")).ok();
    }
    let agent = "agent-1".into();
    emit(EventKind::AttemptStarted { agent }).await;
    let mut outcome = Outcome::Passed;
    match script.plot {
        Plot::Passing => {
            log("hello\n".to_owned()).await;
            let message = "step".to_owned();
            emit(EventKind::Note { message }).await;
            log("world\n".to_owned()).await;
        }
        Plot::Steps(count) => {
            for n in 0..count {
                let message = format!("step {n}");
                emit(EventKind::Note { message }).await;
                log(format!("line {n}\n")).await;
                // Some work, so that cuts happen in the middle of it.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Plot::Notes(bytes) => {
            while cancel.borrow().is_none() {
                let message = "n".repeat(bytes);
                emit(EventKind::Note { message }).await;
            }
            script.cancelled.send_replace(true);
        }
        Plot::UntilCancelled => {
            let _ = cancel.wait_for(Option::is_some).await;
            script.cancelled.send_replace(true);
            outcome = Outcome::Cancelled;
        }
    }
    drop(logs);
    let reason = None;
    emit(EventKind::AttemptFinished {
        outcome,
        reason,
        timed_out: false,
        culprit: None,
    })
    .await;
    emit(EventKind::TornDown {
        removed: 1,
        left: vec![],
        kept: vec![],
        began: Timestamp(1),
    })
    .await;
}
