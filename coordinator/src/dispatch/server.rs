//! The gRPC service that agents call. It reads the Hello, then passes messages to sessions and log stores.
//!
//! Invalid messages are rejected here with a reason, before any session sees them. The caller adds the service to a
//! tonic router; [`service`] sets the limits of message sizes.

use super::actor::{Dispatch, Greet, Session, Shared, ToSession, WAITING};
use super::contract::{FromAgents, ToAgents};
use super::core::{ConnectionId, Settings};
use super::gate::SharedGate;
use super::heard::Heard;
use super::holders::Holders;
use super::logs::receive;
use super::logs::store::LogStore;
use crate::clock::Clock;
use crate::identity::{Identities, PeerAgent};
use crate::incoming::{Busy, Visit};
use crate::metrics::METRICS;
use crate::workspace::Workspaces;
use kameo::actor::{ActorRef, Spawn};
use kameo::mailbox;
use phalanx_proto::convert::{InvalidFromAgent, workspace_digest};
use phalanx_proto::limit::{CHUNK_BYTES, FROM_AGENT_BYTES, STREAM_WINDOW_BYTES, TO_AGENT_BYTES};
use phalanx_proto::link::{FromAgent, Hello, Obituary};
use phalanx_proto::v1;
use phalanx_proto::v1::agent_link_server::{AgentLink, AgentLinkServer};
use phalanx_proto::{PROTOCOLS, broken};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

/// Messages to one agent that may wait for it to read. A well-behaved agent leaves far fewer unread.
const UNREAD: usize = 4096;
/// Messages that may wait for [`Dispatch`].
const DISPATCH_MAILBOX: usize = 4096;
/// Time within which a new connection must send its Hello.
const GREET_WITHIN: Duration = Duration::from_secs(10);

/// Time after which a silent HTTP/2 peer is pinged. It is dropped if it stays silent for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Maximum concurrent calls over one connection. Agents and clients need a few.
const CALLS_AT_ONCE: u32 = 128;

/// Arguments of [`service`].
pub struct Args {
    /// Time and size limits of sessions.
    pub settings: Settings,
    /// Clock for all deadlines and timestamps.
    pub clock: Arc<dyn Clock>,
    /// Receives the changes of agents.
    pub agents: mpsc::UnboundedSender<FromAgents>,
    /// Commands to agents.
    pub commands: mpsc::UnboundedReceiver<ToAgents>,
    /// Store for the logs of attempts.
    pub logs: LogStore,
    /// The workspaces that agents may fetch.
    pub workspaces: Workspaces,
    /// Records when each agent last sent a message.
    pub heard: Heard,
    /// File that records across restarts which process is which agent; `None` disables this.
    pub holders: Option<PathBuf>,
    /// Identities that callers must have; `None` if whoever reaches the port is an agent.
    pub identities: Option<Identities>,
}

/// Stands in front of every call of agents, also of those that come later: without an identity nobody gets further. The
/// agent that calls is in the request's extensions.
#[derive(Clone)]
pub struct Admission(Option<Identities>);

impl Interceptor for Admission {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(identities) = &self.0 else {
            return Ok(request);
        };
        let visit = Visit::of(&request);
        let presented = visit.as_ref().and_then(Visit::presented);
        let peer = identities.admit(presented).inspect_err(|refusal| {
            METRICS.agents_refused.inc();
            let from = visit.as_ref().map(|visit| visit.address().to_string());
            tracing::warn!(from, reason = %refusal, "a call was refused");
        })?;
        request.extensions_mut().insert(peer);
        Ok(request)
    }
}

/// Returns the authenticated agent of a call; `None` if the coordinator has no identities.
fn peer<T>(request: &Request<T>) -> Option<PeerAgent> {
    request.extensions().get::<PeerAgent>().cloned()
}

/// Starts dispatch and returns its gRPC service. Dispatch runs as long as the channels exist.
pub fn service(args: Args) -> InterceptedService<AgentLinkServer<Service>, Admission> {
    let Args {
        settings,
        clock,
        agents,
        mut commands,
        logs,
        workspaces,
        heard,
        holders: file,
        identities,
    } = args;
    let holders = file.as_deref().map(Holders::load).unwrap_or_default();
    if let Some(file) = file {
        let lease = settings.lease + settings.margin;
        tokio::spawn(holders.clone().keep(file, clock.clone(), lease));
    }
    let shared = Shared {
        settings,
        clock,
        gate: SharedGate::default(),
        logs,
        agents,
        heard,
        holders,
    };
    let (gate, logs) = (shared.gate.clone(), shared.logs.clone());
    let dispatch = Dispatch::spawn_with_mailbox(shared, mailbox::bounded(DISPATCH_MAILBOX));
    let commanded = dispatch.clone();
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            if commanded.tell(command).await.is_err() {
                return;
            }
        }
    });
    let service = Service {
        dispatch,
        gate,
        logs,
        workspaces,
        connections: Arc::default(),
    };
    let service = AgentLinkServer::new(service)
        .max_decoding_message_size(FROM_AGENT_BYTES)
        .max_encoding_message_size(TO_AGENT_BYTES);
    InterceptedService::new(service, Admission(identities))
}

/// Returns a server builder with the flow control that byte streams need. The caller adds services and limits.
pub fn transport() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES * 2)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .max_concurrent_streams(CALLS_AT_ONCE)
        .tcp_nodelay(true)
}

/// The gRPC service. See the module documentation.
pub struct Service {
    dispatch: ActorRef<Dispatch>,
    gate: SharedGate,
    logs: LogStore,
    workspaces: Workspaces,
    connections: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl AgentLink for Service {
    type SessionStream = ReceiverStream<Result<v1::ToAgent, Status>>;
    type LogsStream = ReceiverStream<Result<v1::LogDown, Status>>;
    type WorkspaceStream = ReceiverStream<Result<v1::Chunk, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let busy = Busy::with(&request)?;
        let from = Visit::of(&request).map(|visit| visit.address());
        let peer = peer(&request);
        let mut incoming = request.into_inner();
        let refused = |status: &Status| {
            METRICS.agents_refused.inc();
            let from = from.map_or_else(|| "a socket".to_owned(), |a| a.to_string());
            tracing::warn!(from, reason = status.message(), "a connection was refused");
        };
        let hello = greeting(&mut incoming).await.inspect_err(refused)?;
        let hello = granted(hello, peer.as_ref()).inspect_err(refused)?;
        let protocol = agree(&hello).inspect_err(refused)?;
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (wire, outgoing) = mpsc::channel(UNREAD);
        let greet = Greet {
            connection,
            wire,
            protocol,
            hello,
        };
        let session = self
            .dispatch
            .ask(greet)
            .await
            .map_err(|_| Status::unavailable("the coordinator is going away"))?;
        tokio::spawn(async move {
            let _busy = busy;
            listen(session, connection, incoming).await;
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn logs(
        &self,
        request: Request<Streaming<v1::LogUp>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let busy = Busy::with(&request)?;
        let peer = peer(&request).map(|peer| peer.agent);
        let (wire, outgoing) = mpsc::channel(UNREAD);
        let (gate, logs) = (self.gate.clone(), self.logs.clone());
        tokio::spawn(async move {
            let _busy = busy;
            receive::serve(gate, logs, peer, request.into_inner(), wire).await;
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn died(
        &self,
        request: Request<v1::Obituary>,
    ) -> Result<Response<v1::Remembered>, Status> {
        let peer = peer(&request);
        let obituary = Obituary::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(peer) = peer {
            peer.is(&obituary.agent)?;
        }
        tracing::info!(agent = %obituary.agent, instance = obituary.instance, "an agent's process died");
        let told = self.dispatch.tell(obituary).await;
        told.map_err(|_| Status::unavailable("the coordinator is going away"))?;
        Ok(Response::new(v1::Remembered {}))
    }

    async fn workspace(
        &self,
        request: Request<v1::WorkspaceRequest>,
    ) -> Result<Response<Self::WorkspaceStream>, Status> {
        let busy = Busy::with(&request)?;
        let v1::WorkspaceRequest { digest } = request.into_inner();
        // The digest becomes a file name.
        let digest = workspace_digest(digest)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let file = tokio::fs::File::open(self.workspaces.path(&digest))
            .await
            .map_err(|error| Status::not_found(format!("workspace {digest}: {error}")))?;
        let (wire, outgoing) = mpsc::channel(4);
        tokio::spawn(async move {
            let _busy = busy;
            send_file(file, wire).await;
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Waits for the first message, which must be a Hello and arrive within [`GREET_WITHIN`].
async fn greeting(incoming: &mut Streaming<v1::FromAgent>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(GREET_WITHIN, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello came"))??
        .ok_or_else(|| Status::invalid_argument("the stream ended before a Hello"))?;
    match FromAgent::try_from(first) {
        Ok(FromAgent::Hello(hello)) => Ok(*hello),
        Ok(_) => Err(Status::invalid_argument("the first message isn't a Hello")),
        Err(error) => Err(Status::invalid_argument(error.to_string())),
    }
}

/// Checks that a Hello is of the authenticated agent. Adds what the agent's token gives it, and refuses what it doesn't.
fn granted(mut hello: Hello, peer: Option<&PeerAgent>) -> Result<Hello, Status> {
    let Some(peer) = peer else {
        return Ok(hello);
    };
    peer.is(&hello.agent)?;
    if let Some(grant) = &peer.grant {
        let applied = grant.apply(&hello.labels, hello.slots);
        let applied = applied.map_err(|error| Status::permission_denied(error.to_string()))?;
        (hello.labels, hello.slots) = applied;
    }
    Ok(hello)
}

/// Returns the highest protocol version that both sides support, or an error that says which side to upgrade.
fn agree(hello: &Hello) -> Result<u32, Status> {
    let (min, max) = hello.protocols;
    let (ours_min, ours_max) = (*PROTOCOLS.start(), *PROTOCOLS.end());
    let highest = max.min(ours_max);
    if highest >= min.max(ours_min) {
        return Ok(highest);
    }
    let who = if max < ours_min {
        "agent"
    } else {
        "coordinator"
    };
    Err(Status::failed_precondition(format!(
        "agent {} (version {}) speaks protocol {min} to {max}, this coordinator (version {}) {ours_min} to {ours_max}: upgrade the {who}",
        hello.name,
        hello.version,
        env!("CARGO_PKG_VERSION"),
    )))
}

/// Passes messages to the session until the stream ends or a message is invalid.
async fn listen(
    session: ActorRef<Session>,
    connection: ConnectionId,
    mut incoming: Streaming<v1::FromAgent>,
) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let reason = loop {
        let message = match incoming.message().await {
            Ok(Some(message)) => message,
            Ok(None) => break "the agent closed the connection".to_owned(),
            Err(status) => break format!("the connection broke: {}", broken(&status)),
        };
        match FromAgent::try_from(message) {
            Ok(message) => {
                let Ok(_room) = waiting.clone().acquire_owned().await else {
                    return;
                };
                let received = ToSession::Received {
                    connection,
                    message,
                    _room,
                };
                if session.tell(received).await.is_err() {
                    return;
                }
            }
            Err(InvalidFromAgent::Unknown) => tracing::debug!("a message of a later version"),
            Err(error) => break format!("the agent sent an invalid message: {error}"),
        }
    };
    // If the session is over, it doesn't need to know.
    let _ = session.tell(ToSession::Broken { connection, reason }).await;
}

async fn send_file(mut file: tokio::fs::File, wire: mpsc::Sender<Result<v1::Chunk, Status>>) {
    loop {
        let mut data = vec![0; CHUNK_BYTES];
        let message = match file.read(&mut data).await {
            Ok(0) => return,
            Ok(read) => {
                data.truncate(read);
                Ok(v1::Chunk { data })
            }
            Err(error) => Err(Status::data_loss(error.to_string())),
        };
        let last = message.is_err();
        if wire.send(message).await.is_err() || last {
            return;
        }
    }
}
