//! A whole coordinator behind one listener: the engine, the sessions of agents, the control service, health and reflection.
//!
//! `phalanx serve` and local mode are this with different listeners. Everything of it is below one directory.

use crate::api::gc::{self, LOGS, WORKSPACES};
use crate::api::{Api, REQUEST_BYTES};
use crate::clock::{Clock, SystemClock};
use crate::dispatch::core::Settings as SessionSettings;
use crate::dispatch::logs::store::{Limits as LogLimits, LogStore};
use crate::dispatch::server as dispatch;
use crate::incoming::{Guard, Room, Speech};
use crate::journal::{Journal, SqliteStore, StoreError};
use crate::private;
use crate::submission::SpecPlanner;
use crate::supervisor::{self, Begin, Handle, OwnSecrets, Settings};
use crate::workspace::Workspaces;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

/// The file that tells which process is which agent.
const HOLDERS: &str = "holders";
/// Facts of agents that may wait for the engine; sessions wait beyond that.
const FACTS: usize = 1_024;
/// How long the rest of a trace may take at the end.
const TRACE_WITHIN: Duration = Duration::from_secs(5);
/// How long open connections are waited for at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What an operator decides.
#[derive(Clone)]
pub struct Options {
    /// Journal, logs and workspaces are below it.
    pub directory: PathBuf,
    /// Of the engine.
    pub settings: Settings,
    /// How much of logs is kept.
    pub logs: LogLimits,
    /// Of the sessions; the epoch is the journal's.
    pub sessions: SessionSettings,
    /// Values for secrets that a submission doesn't bring.
    pub own_secrets: OwnSecrets,
    /// Bytes of large submissions that may come in at the same time.
    pub submission_bytes: u64,
    /// Whether agents outlive it and come back to the next one of the same directory.
    pub agents_return: bool,
    /// The most cells of a run, if that is limited.
    pub max_cells: Option<usize>,
    /// How it begins.
    pub begin: Begin,
}

impl Options {
    /// Everything by default.
    pub fn below(directory: impl Into<PathBuf>) -> Self {
        Options {
            directory: directory.into(),
            settings: Settings::default(),
            logs: LogLimits::default(),
            sessions: SessionSettings::default(),
            own_secrets: Arc::new(|_| None),
            submission_bytes: REQUEST_BYTES,
            agents_return: false,
            max_cells: None,
            begin: Begin::default(),
        }
    }
}

/// Where connections come from.
pub enum Listener {
    /// From this machine.
    Unix(UnixListener),
    /// From a network.
    Tcp(TcpListener),
}

/// A running coordinator.
pub struct Server {
    /// The engine.
    pub handle: Handle,
    logs: LogStore,
    stop: CancellationToken,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
    writer: JoinHandle<()>,
}

/// The journal's file in a coordinator's directory.
pub fn journal_path(directory: &Path) -> PathBuf {
    directory.join("journal.db")
}

/// Starts a coordinator. Refused while another one has the directory's journal.
pub async fn start(options: Options, listener: Listener) -> Result<Server, StoreError> {
    let directory = options.directory;
    private::directory(&directory).map_err(|error| StoreError::Unusable {
        path: directory.clone(),
        reason: error.to_string(),
    })?;
    let store = SqliteStore::open(&journal_path(&directory)).await?;
    let workspaces = Workspaces::new(directory.join(WORKSPACES));
    workspaces.clear();
    if let Some(tracer) = &options.settings.tracer {
        tracer.start();
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let (facts, from_agents) = mpsc::channel(FACTS);
    let (to_agents, commands) = mpsc::unbounded_channel();
    let (handle, writer) = supervisor::start(supervisor::Args {
        store: Arc::new(store),
        planner: Arc::new(SpecPlanner {
            workspaces: workspaces.clone(),
            max_cells: options.max_cells,
        }),
        own_secrets: options.own_secrets,
        from_agents,
        to_agents,
        clock: clock.clone(),
        settings: Settings {
            trials: Some(directory.join("bringing")),
            ..options.settings
        },
        begin: options.begin,
    })
    .await?;
    look_at_pages(handle.journal.clone());
    let logs = LogStore::with_limits(directory.join(LOGS), options.logs);
    let sessions = dispatch::service(dispatch::Args {
        settings: SessionSettings {
            epoch: handle.journal.epoch(),
            ..options.sessions
        },
        clock,
        facts,
        commands,
        logs: logs.clone(),
        workspaces: workspaces.clone(),
        heard: handle.registry.heard().clone(),
        holders: options.agents_return.then(|| directory.join(HOLDERS)),
    });
    let stop = CancellationToken::new();
    if let Some(keep) = handle.settings.keep_runs_for {
        let tidying = tidy(handle.clone(), workspaces.clone(), directory.clone(), keep);
        tokio::spawn(stop.clone().run_until_cancelled_owned(tidying));
    }
    let api = Api::new(handle.clone(), logs.clone(), workspaces, directory);
    let router = dispatch::transport().add_service(sessions);
    let router =
        with_standard_services(router.add_service(api.into_service(options.submission_bytes)));
    let stopped = stop.clone().cancelled_owned();
    let served = match listener {
        Listener::Unix(listener) => tokio::spawn(
            router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped),
        ),
        Listener::Tcp(listener) => {
            let guard = Guard::new(listener, Speech::Http2, Room::here(Speech::Http2));
            tokio::spawn(router.serve_with_incoming_shutdown(Box::pin(guard.stream()), stopped))
        }
    };
    Ok(Server {
        handle,
        logs,
        stop,
        served,
        writer,
    })
}

/// Forgets old runs and removes what they left, again and again.
async fn tidy(handle: Handle, workspaces: Workspaces, directory: PathBuf, keep: Duration) {
    loop {
        match gc::tidy(&handle, &workspaces, &directory, keep).await {
            Ok(gone) if !gone.removed.is_empty() => {
                tracing::info!(removed = gone.removed.len(), "forgot old runs");
            }
            Ok(_) => {}
            Err(status) => tracing::warn!(reason = status.message(), "can't forget old runs"),
        }
        tokio::time::sleep(handle.settings.tidy_every).await;
    }
}

/// Looks for damage in a journal that is too large to be looked at before the start.
fn look_at_pages(journal: Journal) {
    tokio::spawn(async move {
        if let Err(found) = journal.store().check().await {
            tracing::error!(found, "the journal is damaged: restore it from a backup");
            journal.report_damage(found);
        }
    });
}

/// Health and reflection, as gRPC's tools expect them.
fn with_standard_services(router: Router) -> Router {
    let (health, service) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        let status = tonic_health::ServingStatus::Serving;
        health.set_service_status("", status).await;
        for name in ["phalanx.v1.Control", "phalanx.v1.AgentLink"] {
            health.set_service_status(name, status).await;
        }
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(phalanx_proto::DESCRIPTOR_SET)
        .build_v1();
    let router = router.add_service(service);
    match reflection {
        Ok(reflection) => router.add_service(reflection),
        Err(error) => {
            tracing::warn!(%error, "no reflection");
            router
        }
    }
}

impl Server {
    /// Answers `/healthz` and `/metrics` as well, until it is stopped.
    pub fn observe(&self, listener: TcpListener) {
        let stopped = self.stop.clone().cancelled_owned();
        let serving = crate::http::serve(self.handle.clone(), self.logs.clone(), listener, stopped);
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "no metrics any more");
            }
        });
    }

    /// Ends it: nothing new is taken, connections are closed, the journal is left whole. Open runs go on at the next start.
    pub async fn stop(self) {
        let Server {
            handle,
            logs: _,
            stop,
            mut served,
            writer,
        } = self;
        stop.cancel();
        if tokio::time::timeout(CLOSE_WITHIN, &mut served)
            .await
            .is_err()
        {
            served.abort();
            // An aborted task's error says only that.
            let _ = served.await;
        }
        // While the journal can still be read.
        if let Some(tracer) = &handle.settings.tracer {
            tracer.finish(TRACE_WITHIN).await;
        }
        handle.stop().await;
        let store = handle.journal.store().clone();
        drop(handle);
        // Queries of clients that are gone may hold handles for a moment; the journal is whole either way.
        let _ = tokio::time::timeout(CLOSE_WITHIN, writer).await;
        store.close().await;
    }
}
