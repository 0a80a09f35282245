//! Starts cells and forwards their output to the link: events to the agent's actor, bytes to the logs.

use super::connect::{Coordinator, FetchError};
use super::input::Input;
use super::logs::actor::{Input as LogInput, Logs};
use crate::cell_contract::Assignment;
use crate::clock::Clock;
use crate::sink::{ArtifactPiece, LogChunk, Stamped};
use crate::workspace::{self, Workspaces};
use kameo::actor::Recipient;
use phalanx_proto::link::Offer;
use phalanx_proto::log::Source;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::EventKind;
use phalanx_shared::id::Token;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::policy::Rules;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;

/// Number of events of one cell that may wait for the spool.
const EVENTS: usize = 64;
/// Number of chunks of one cell that may wait for the log spool.
const CHUNKS: usize = 64;
/// Number of pieces of artifacts of one cell that may wait for the log spool.
const PIECES: usize = 8;

/// Runs attempts: real cells, or scripted ones in tests.
pub trait CellSpawner: Send + Sync + 'static {
    /// Starts an attempt and returns immediately. The attempt reports through the assignment's channels.
    fn spawn(&self, assignment: Assignment);
    /// Takes the rules by which the coordinator narrows the agent's policy, for attempts that start from now on.
    fn narrow(&self, rules: Option<Rules>) {
        drop(rules);
    }
}

/// Why a workspace isn't available.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NoWorkspace {
    #[error("reading the workspace: {0}")]
    Reading(JoinError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("unpacking the workspace: {0}")]
    Unpacking(JoinError),
    #[error("{0}")]
    Invalid(workspace::Error),
}

/// Provides workspaces.
#[derive(Clone)]
pub(super) struct Files {
    pub coordinator: Coordinator,
    pub workspaces: Workspaces,
    pub clock: Arc<dyn Clock>,
}

impl Files {
    /// Returns the directory of a workspace, which is fetched if it isn't here.
    pub async fn get(&self, digest: &str) -> Result<PathBuf, NoWorkspace> {
        let now = self.clock.wall();
        let (workspaces, name) = (self.workspaces.clone(), digest.to_owned());
        let held = tokio::task::spawn_blocking(move || workspaces.get(&name, now)).await;
        if let Some(path) = held.map_err(NoWorkspace::Reading)? {
            return Ok(path);
        }
        let archive = self.coordinator.workspace(digest).await?;
        let (workspaces, digest) = (self.workspaces.clone(), digest.to_owned());
        let unpack = move || {
            let unpacked = workspaces.unpack(&digest, archive);
            workspaces.prune(now);
            unpacked
        };
        tokio::task::spawn_blocking(unpack)
            .await
            .map_err(NoWorkspace::Unpacking)?
            .map_err(NoWorkspace::Invalid)
    }
}

/// The parts needed to start a cell.
#[derive(Clone)]
pub(super) struct Starter {
    pub cells: Arc<dyn CellSpawner>,
    pub files: Files,
    pub clock: Arc<dyn Clock>,
    pub logs: Logs,
    /// Whether the spool accepts more events.
    pub room: watch::Receiver<bool>,
}

impl Starter {
    /// Starts a cell in the background. Its cancel order can be sent at once.
    pub fn start(
        &self,
        agent: Recipient<Input>,
        offer: Offer,
    ) -> watch::Sender<Option<CancelOrder>> {
        let (order, cancel) = watch::channel(None);
        let (events, emitted) = mpsc::channel(EVENTS);
        let (logs, chunks) = mpsc::channel(CHUNKS);
        let (artifacts, pieces) = mpsc::channel(PIECES);
        let token = offer.token.clone();
        tokio::spawn(take_events(
            agent,
            self.clock.clone(),
            self.room.clone(),
            token.clone(),
            emitted,
        ));
        tokio::spawn(take_bytes(self.logs.clone(), token, chunks, pieces));
        let starter = self.clone();
        tokio::spawn(async move {
            let assignment = Assignment {
                token: offer.token,
                job: offer.job,
                secrets: Arc::unwrap_or_clone(offer.secrets),
                workspace: None,
                traceparent: offer.traceparent,
                events,
                logs,
                artifacts,
                cancel,
            };
            starter.with_workspace(assignment).await;
        });
        order
    }

    /// Fetches the job's workspace, if it has one, and starts the cell. If that fails, the attempt is errored.
    async fn with_workspace(&self, mut assignment: Assignment) {
        let digest = assignment.job.workspace.get("digest");
        let digest = digest.and_then(|digest| digest.as_str()).map(str::to_owned);
        if let Some(digest) = digest {
            match self.files.get(&digest).await {
                Ok(path) => assignment.workspace = Some(path),
                Err(error) => return self.give_up(assignment, error.to_string()).await,
            }
        }
        self.cells.spawn(assignment);
    }

    async fn give_up(&self, assignment: Assignment, reason: String) {
        let Assignment {
            token,
            events,
            logs,
            artifacts,
            ..
        } = assignment;
        drop((logs, artifacts));
        let at = self.clock.wall();
        let finished = EventKind::AttemptFinished {
            outcome: Outcome::Errored,
            reason: Some(reason),
            timed_out: false,
            culprit: None,
        };
        let torn_down = EventKind::TornDown {
            removed: 0,
            left: Vec::new(),
            kept: Vec::new(),
            began: at,
        };
        for kind in [finished, torn_down] {
            let token = token.clone();
            let stamped = Stamped {
                token,
                at,
                mono_us: 0,
                kind,
            };
            // The receiver belongs to the link and lives as long as the channel.
            let _ = events.send(stamped).await;
        }
    }
}

/// Forwards a cell's events while there is room, then reports that the cell is gone.
async fn take_events(
    agent: Recipient<Input>,
    clock: Arc<dyn Clock>,
    mut room: watch::Receiver<bool>,
    token: Token,
    mut emitted: mpsc::Receiver<Stamped>,
) {
    while let Some(event) = emitted.recv().await {
        // Without room the cell waits; no event is lost. A closed channel means that the agent is shutting down.
        if room.wait_for(|room| *room).await.is_err()
            || agent.tell(Input::Emitted(event)).await.is_err()
        {
            return;
        }
    }
    let at = clock.wall();
    let _ = agent.tell(Input::CellGone { token, at }).await;
}

/// Forwards a cell's logs and artifacts until both are over.
async fn take_bytes(
    logs: Logs,
    token: Token,
    chunks: mpsc::Receiver<LogChunk>,
    pieces: mpsc::Receiver<ArtifactPiece>,
) {
    tokio::join!(take_logs(&logs, chunks), take_artifacts(&logs, pieces));
    logs.tell(LogInput::End(token)).await;
}

async fn take_artifacts(logs: &Logs, mut pieces: mpsc::Receiver<ArtifactPiece>) {
    while let Some(piece) = pieces.recv().await {
        logs.tell(LogInput::Artifact(piece)).await;
    }
}

async fn take_logs(logs: &Logs, mut chunks: mpsc::Receiver<LogChunk>) {
    while let Some(chunk) = chunks.recv().await {
        let LogChunk {
            token,
            service,
            stream,
            at,
            bytes,
        } = chunk;
        let source = Source { service, stream };
        logs.tell(LogInput::Write {
            token,
            source,
            at,
            bytes,
        })
        .await;
    }
}
