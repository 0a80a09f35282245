//! A complete coordinator behind one listener: the engine, the sessions of agents, the control service, health and
//! reflection.
//!
//! `phalanx serve` and local mode use it with different listeners. All of its files are below one directory.

use crate::access::Access;
use crate::access::core::{Role, Scope};
use crate::access::layer::AccessLayer;
use crate::access::tokens::{NotMade, Tokens, Wish};
use crate::clock::{Clock, SystemClock};
use crate::dispatch::artifacts::ArtifactStore;
use crate::dispatch::core::Settings as SessionSettings;
use crate::dispatch::logs::store::{Limits as LogLimits, LogStore};
use crate::dispatch::server as dispatch;
use crate::identity::{self, Identities};
use crate::incoming::{Guard, Room, Speech};
use crate::journal::{Database, Journal, SqliteStore, Store, StoreError};
use crate::private;
use crate::serve::api::gc::{self, LOGS, WORKSPACES};
use crate::serve::api::tokens::AccessApi;
use crate::serve::api::{Api, REQUEST_BYTES};
use crate::serve::clients::Clients;
use crate::serve::enrolment::Office;
use crate::serve::web;
use crate::submission::SpecPlanner;
use crate::supervisor::{self, Begin, Handle, OwnSecrets, Settings};
use crate::workspace::Workspaces;
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Router;

/// File that records which process is which agent.
const HOLDERS: &str = "holders";
/// How long exporting the rest of the traces may take at shutdown.
const TRACE_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait for open connections at shutdown.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Settings of the operator.
#[derive(Clone)]
pub struct Options {
    /// Directory for the journal, logs and workspaces.
    pub directory: PathBuf,
    /// Settings of the engine.
    pub settings: Settings,
    /// Limits on stored logs.
    pub logs: LogLimits,
    /// Settings of the sessions. The epoch comes from the journal instead.
    pub sessions: SessionSettings,
    /// Provides the secrets that a submission doesn't include.
    pub own_secrets: OwnSecrets,
    /// Bytes of large submissions that may arrive concurrently.
    pub submission_bytes: u64,
    /// Whether agents outlive the coordinator and reconnect to the next one in the same directory.
    pub agents_return: bool,
    /// Maximum number of cells of a run; `None` for no limit.
    pub max_cells: Option<usize>,
    /// How the coordinator starts.
    pub begin: Begin,
    /// Where the journal is; `None` for a SQLite file in the directory.
    pub store: Option<Arc<dyn Store>>,
    /// Whether callers need tokens.
    pub access: bool,
    /// Settings of TLS; `None` if no port has it.
    pub tls: Option<identity::Settings>,
    /// From where clients are served.
    pub clients: Clients,
}

impl Options {
    /// Returns the default options for this directory.
    pub fn below(directory: impl Into<PathBuf>) -> Self {
        Options {
            directory: directory.into(),
            settings: Settings::default(),
            logs: LogLimits::default(),
            sessions: SessionSettings::default(),
            own_secrets: Arc::new(|_, _| None),
            submission_bytes: REQUEST_BYTES,
            agents_return: false,
            max_cells: None,
            begin: Begin::default(),
            store: None,
            access: false,
            tls: None,
            clients: Clients::default(),
        }
    }
}

/// A coordinator can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] StoreError),
    /// TLS and identities.
    #[error("TLS can't be used: {0}")]
    Tls(#[from] identity::OpenError),
    /// A port with TLS without its settings.
    #[error("a port with TLS needs the settings of TLS")]
    NoSettings,
}

/// The socket that clients and agents connect to.
pub enum Listener {
    /// A socket of this machine.
    Unix(UnixListener),
    /// A network port without TLS: whoever reaches it is an agent.
    Tcp(TcpListener),
    /// A network port with TLS, on which agents have identities.
    Tls(TcpListener),
}

/// A running coordinator.
pub struct Server {
    /// Handle to the engine.
    pub handle: Handle,
    logs: LogStore,
    access: Access,
    identities: Option<Identities>,
    stop: CancellationToken,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
    writer: JoinHandle<()>,
}

/// Returns the path of the journal in a coordinator's directory.
pub fn journal_path(directory: &Path) -> PathBuf {
    directory.join("journal.db")
}

/// Returns the path of the database with the identities of agents in a coordinator's directory: the journal's, unless the
/// journal is elsewhere.
pub fn identities_path(directory: &Path, journal_is_elsewhere: bool) -> PathBuf {
    match journal_is_elsewhere {
        true => directory.join("identities.db"),
        false => journal_path(directory),
    }
}

/// Starts a coordinator. Returns an error while another one has the directory's journal open.
pub fn start(
    options: Options,
    listener: Listener,
) -> BoxFuture<'static, Result<Server, StartError>> {
    Box::pin(start_server(options, listener))
}

async fn start_server(options: Options, listener: Listener) -> Result<Server, StartError> {
    let directory = options.directory;
    private::directory(&directory).map_err(|error| StoreError::Unusable {
        path: directory.clone(),
        reason: error.to_string(),
    })?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let stop = CancellationToken::new();
    let (store, database, access) = match options.store {
        Some(store) => {
            // The database may be far and have several coordinators; tokens are with the files that these share.
            let access = match options.access {
                true => {
                    let tokens = Tokens::open(&journal_path(&directory)).await?;
                    Access::on(tokens, clock.clone())
                }
                false => Access::off(),
            };
            (store, None, access)
        }
        None => {
            let store = SqliteStore::open(&journal_path(&directory)).await?;
            let access = match options.access {
                true => Access::on(Tokens::of(&store)?, clock.clone()),
                false => Access::off(),
            };
            let database = store.database();
            (Arc::new(store) as Arc<dyn Store>, database, access)
        }
    };
    let identities = match options.tls {
        None if matches!(listener, Listener::Tls(_)) => return Err(StartError::NoSettings),
        None => None,
        Some(settings) => {
            let database = match database {
                Some(database) => database,
                None => identities_beside(&directory).await?,
            };
            Some(Identities::open(settings, database, clock.clone(), stop.clone()).await?)
        }
    };
    let workspaces = Workspaces::new(directory.join(WORKSPACES));
    workspaces.clear();
    if let Some(tracer) = &options.settings.tracer {
        tracer.start();
    }
    let (agents, from_agents) = mpsc::unbounded_channel();
    let (to_agents, commands) = mpsc::unbounded_channel();
    let (handle, writer) = supervisor::start(supervisor::Args {
        store,
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
    let of_agents = match &listener {
        Listener::Tls(_) => identities.clone(),
        Listener::Tcp(_) | Listener::Unix(_) => None,
    };
    let sessions = dispatch::service(dispatch::Args {
        settings: SessionSettings {
            epoch: handle.journal.epoch(),
            ..options.sessions
        },
        clock: clock.clone(),
        agents,
        commands,
        logs: logs.clone(),
        workspaces: workspaces.clone(),
        heard: handle.registry.heard().clone(),
        holders: options.agents_return.then(|| directory.join(HOLDERS)),
        identities: of_agents.clone(),
    });
    if let Some(keep) = handle.settings.keep_runs_for {
        let tidying = tidy(
            handle.clone(),
            workspaces.clone(),
            logs.artifacts().clone(),
            directory.clone(),
            keep,
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(tidying));
    }
    let api = Api::new(handle.clone(), logs.clone(), workspaces, directory);
    let tokens = AccessApi::service(access.clone(), clock);
    let office = Office::new(of_agents.clone());
    let mut transport = dispatch::transport().layer(AccessLayer::new(access.clone()));
    let router = transport
        .add_service(sessions)
        .add_service(tokens)
        .add_service(office.for_agents())
        .add_service(InterceptedService::new(
            office.for_administrators(),
            options.clients,
        ));
    let router = with_standard_services(router.add_service(InterceptedService::new(
        api.into_service(options.submission_bytes),
        options.clients,
    )));
    let stopped = stop.clone().cancelled_owned();
    let served = match listener {
        Listener::Unix(listener) => tokio::spawn(
            router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped),
        ),
        Listener::Tcp(listener) | Listener::Tls(listener) => {
            let mut guard = Guard::new(listener, Speech::Http2, Room::here(Speech::Http2));
            if let Some(identities) = &of_agents {
                identities.watch(guard.door());
                guard = guard.secured(identities.for_calls());
            }
            tokio::spawn(router.serve_with_incoming_shutdown(Box::pin(guard.stream()), stopped))
        }
    };
    Ok(Server {
        handle,
        logs,
        access,
        identities,
        stop,
        served,
        writer,
    })
}

/// Opens the database of identities of a coordinator whose journal is elsewhere. It isn't locked: only whoever leads on
/// the journal writes to it.
async fn identities_beside(directory: &Path) -> Result<Database, StartError> {
    let path = identities_path(directory, true);
    let opened = SqliteStore::open(&path).await?;
    let unusable = || StoreError::Unusable {
        path: path.clone(),
        reason: "it is open for reading only".to_owned(),
    };
    Ok(opened.database().ok_or_else(unusable)?)
}

/// Removes old runs and their files periodically.
async fn tidy(
    handle: Handle,
    workspaces: Workspaces,
    artifacts: ArtifactStore,
    directory: PathBuf,
    keep: Duration,
) {
    loop {
        match gc::tidy(&handle, &workspaces, &artifacts, &directory, keep).await {
            Ok(gone) if !gone.removed.is_empty() => {
                tracing::info!(removed = gone.removed.len(), "forgot old runs");
            }
            Ok(_) => {}
            Err(status) => tracing::warn!(reason = status.message(), "can't forget old runs"),
        }
        tokio::time::sleep(handle.settings.tidy_every).await;
    }
}

/// Checks a journal for damage in the background if it is too large to be checked before the start.
fn look_at_pages(journal: Journal) {
    tokio::spawn(async move {
        if let Err(found) = journal.store().check().await {
            tracing::error!(found, "the journal is damaged: restore it from a backup");
            journal.report_damage(found);
        }
    });
}

/// Adds health and reflection, as gRPC's tools expect them.
fn with_standard_services<L>(router: Router<L>) -> Router<L> {
    let (health, service) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        let status = tonic_health::ServingStatus::Serving;
        health.set_service_status("", status).await;
        for name in [
            "phalanx.v1.Control",
            "phalanx.v1.Access",
            "phalanx.v1.AgentLink",
        ] {
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

/// Name of the first administrator's token.
const FIRST: &str = "first admin";

impl Server {
    /// Returns the identities of agents, if the coordinator has TLS.
    pub fn identities(&self) -> Option<&Identities> {
        self.identities.as_ref()
    }

    /// Makes the first administrator's token, if callers need tokens and there has never been one. Returns its text, to be
    /// shown once.
    pub async fn first_admin(&self) -> Result<Option<String>, NotMade> {
        let Some(tokens) = self.access.tokens() else {
            return Ok(None);
        };
        if !tokens.is_empty().await? {
            return Ok(None);
        }
        let wish = Wish {
            name: FIRST.to_owned(),
            role: Role::Admin,
            scope: Scope::All,
            ttl: None,
            by: "the coordinator's first start".to_owned(),
            subject: None,
        };
        let by = wish.by.clone();
        let (fresh, token) = tokens.add(wish, self.handle.clock.wall()).await?;
        let about = format!("token {}", token.in_words());
        self.access.note_own(&by, "token create", about).await;
        Ok(Some(fresh.text))
    }

    /// Also serves `/healthz` and `/metrics`, and the pages if there are options for them, until the coordinator is
    /// stopped. By TLS if `secured`, and if the coordinator has settings for it.
    pub fn observe(&self, listener: TcpListener, pages: Option<web::Options>, secured: bool) {
        let (handle, logs, stop) = (self.handle.clone(), self.logs.clone(), self.stop.clone());
        let identities = self.identities.as_ref().filter(|_| secured);
        let secured = identities.map(Identities::for_pages);
        let access = self.access.clone();
        let serving =
            crate::serve::http::serve(handle, logs, access, pages, listener, secured, stop);
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "metrics and pages stopped");
            }
        });
    }

    /// Stops the coordinator: it accepts nothing new, closes connections and leaves the journal intact. Open runs
    /// continue at the next start.
    pub fn stop(self) -> BoxFuture<'static, ()> {
        Box::pin(self.close())
    }

    async fn close(self) {
        let Server {
            handle,
            logs: _,
            access: _,
            identities: _,
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
            // The error of an aborted task contains no more than that.
            let _ = served.await;
        }
        // While the journal can still be read.
        if let Some(tracer) = &handle.settings.tracer {
            tracer.finish(TRACE_WITHIN).await;
        }
        handle.stop().await;
        let store = handle.journal.store().clone();
        drop(handle);
        // Requests of disconnected clients may hold handles for a moment; the journal is intact either way.
        let _ = tokio::time::timeout(CLOSE_WITHIN, writer).await;
        store.close().await;
    }
}
