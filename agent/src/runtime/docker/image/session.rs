//! The session of a build by BuildKit: a connection that the engine uses in the other direction. While it builds, it asks
//! here for the build's secrets, for SSH agents, and for registry credentials.
//!
//! The context and the answer don't pass through it; see [`super::build`]. What is asked for is looked up in what the
//! build's definition names, so a Dockerfile gets nothing else (I4).

use super::{auth, reference};
use crate::runtime::docker::client::Engine;
use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{
    BytesMessage, CheckAgentRequest, CheckAgentResponse,
};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use hyper::header;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// The methods that the engine may call. It calls only those that a session names.
const METHODS: [&str; 5] = [
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
];
/// Metadata in which the engine says which SSH agent it wants.
const SSH_ID: &str = "buildkit.ssh.id";
/// Maximum bytes of a message of the SSH agent's protocol, as in OpenSSH.
const LONGEST_MESSAGE: usize = 256 * 1024;
/// Messages of the SSH agent's protocol (draft-miller-ssh-agent): which keys there are, and to sign with one.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// The answer that a question is refused.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// What the engine may ask for.
pub(super) struct Given {
    /// Texts of the secrets, by id.
    pub secrets: HashMap<String, Vec<u8>>,
    /// Sockets of SSH agents, by id.
    pub agents: HashMap<String, PathBuf>,
    /// Docker's configuration directory, which holds the registry credentials.
    pub docker_config: Option<PathBuf>,
}

/// Why the engine could not be given a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("connecting to {0}: {1}")]
    Unreachable(String, io::Error),
    #[error("opening a session for BuildKit: {0}")]
    Broken(#[from] hyper::Error),
    #[error("opening a session for BuildKit: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the engine gives no session for BuildKit: it answered {0}")]
    Refused(hyper::StatusCode),
}

/// An open session. It ends when it is dropped.
pub(super) struct Session {
    /// Names the session in the build's request.
    pub id: String,
    /// Cuts the connection. The server has tasks of its own, which wouldn't end with the one that waits for it.
    _open: DropGuard,
}

impl Session {
    /// Opens a session.
    pub async fn open(engine: &Engine, given: Given) -> Result<Session, SessionError> {
        let stream = connect(&engine.host)
            .await
            .map_err(|error| SessionError::Unreachable(engine.host.clone(), error))?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driving = tokio::spawn(connection.with_upgrades());
        let mut request = hyper::Request::post("/session")
            .header(header::HOST, "docker")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "h2c")
            .header("X-Docker-Expose-Session-Uuid", &id)
            .header("X-Docker-Expose-Session-Name", "phalanx");
        for method in METHODS {
            request = request.header("X-Docker-Expose-Session-Grpc-Method", method);
        }
        let answer = sender.send_request(request.body(String::new())?).await?;
        if answer.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
            driving.abort();
            return Err(SessionError::Refused(answer.status()));
        }
        let upgraded = TokioIo::new(hyper::upgrade::on(answer).await?);
        let ended = CancellationToken::new();
        tokio::spawn(serve(upgraded, given, ended.clone()));
        let _open = ended.drop_guard();
        Ok(Session { id, _open })
    }
}

/// A connection to the engine.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn connect(host: &str) -> io::Result<Box<dyn Io>> {
    let (scheme, address) = host.split_once("://").unwrap_or(("unix", host));
    Ok(match scheme {
        "unix" => Box::new(UnixStream::connect(address).await?),
        _ => Box::new(TcpStream::connect(address.trim_end_matches('/')).await?),
    })
}

/// Answers the engine's calls until `ended` is cancelled.
async fn serve(connection: impl Io + 'static, given: Given, ended: CancellationToken) {
    let connection = Upgraded {
        io: connection,
        ended: Box::pin(ended.clone().cancelled_owned()),
    };
    // The stream stays open after its only connection: at its end the server would say goodbye to the engine.
    let one = stream::once(async { Ok::<_, io::Error>(connection) });
    let rest = stream::once(async move { ended.cancelled().await }).filter_map(|()| async { None });
    let given = std::sync::Arc::new(given);
    let served = tonic::transport::Server::builder()
        .add_service(HealthServer::new(Alive))
        .add_service(AuthServer::from_arc(given.clone()))
        .add_service(SecretsServer::from_arc(given.clone()))
        .add_service(SshServer::from_arc(given))
        .serve_with_incoming(one.chain(rest))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "session of a build");
    }
}

/// A connection that tonic serves. It breaks when the session ends.
struct Upgraded<T> {
    io: T,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> Upgraded<T> {
    /// Returns an error once the session has ended, and otherwise wakes the task when it does.
    fn broken(&mut self, context: &mut Context<'_>) -> Option<io::Error> {
        let ended = self.ended.as_mut().poll(context).is_ready();
        ended.then(|| io::ErrorKind::ConnectionAborted.into())
    }
}

impl<T> Connected for Upgraded<T> {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl<T: AsyncRead + Unpin> AsyncRead for Upgraded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.broken(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Upgraded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Answers the engine's health checks; without an answer it ends the session.
struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = ServingStatus::Serving.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("list"))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

#[tonic::async_trait]
impl Secrets for Given {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.secrets.get(&id) {
            Some(data) => Ok(Response::new(GetSecretResponse { data: data.clone() })),
            None => Err(Status::not_found(format!(
                "there is no secret `{id}`: name it in the service's `build: {{ secrets: … }}`"
            ))),
        }
    }
}

#[tonic::async_trait]
impl Auth for Given {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let registry = reference::key(&host);
        let found = auth::credentials(self.docker_config.as_deref(), registry)
            .await
            .map_err(|why| Status::failed_precondition(why.to_string()))?;
        // Without credentials the engine pulls anonymously.
        let found = found.map(|found| CredentialsResponse {
            // An identity token goes without a user.
            username: found.username.unwrap_or_default(),
            secret: found.identitytoken.or(found.password).unwrap_or_default(),
        });
        Ok(Response::new(found.unwrap_or_default()))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("fetch_token"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("get_token_authority"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("verify_token_authority"))
    }
}

impl Given {
    fn agent(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = match id {
            "" => "default",
            id => id,
        };
        self.agents.get(id).ok_or_else(|| {
            Status::not_found(format!(
                "there is no SSH agent `{id}`: name it in the service's `build: {{ ssh: [\"{id}=/path/of/its/socket\"] }}`"
            ))
        })
    }
}

#[tonic::async_trait]
impl Ssh for Given {
    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.agent(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request
            .metadata()
            .get(SSH_ID)
            .and_then(|id| id.to_str().ok());
        let socket = self.agent(id.unwrap_or_default())?;
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| Status::unavailable(format!("{}: {error}", socket.display())))?;
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let questions = request.into_inner();
        // Ends with the engine's stream, which ends with the session at the latest.
        tokio::spawn(async move {
            // An error ends both streams, which is all that the engine's side of an agent can be told.
            let _ = relay(questions, stream, send).await;
        });
        let answers = tokio_stream::wrappers::ReceiverStream::new(receive);
        Ok(Response::new(answers.boxed()))
    }
}

/// Takes questions to an SSH agent and its answers back, one after the other. A Dockerfile may be anybody's, so only the
/// two questions of a login are passed: which keys there are, and to sign with one. Others would let it remove or lock
/// the user's keys, and a socket of something that is no agent gets nothing that it understands.
async fn relay<S>(
    mut questions: S,
    mut agent: UnixStream,
    answers: tokio::sync::mpsc::Sender<Result<BytesMessage, Status>>,
) -> io::Result<()>
where
    S: Stream<Item = Result<BytesMessage, Status>> + Unpin,
{
    let mut received = Vec::new();
    while let Some(Ok(message)) = questions.next().await {
        received.extend_from_slice(&message.data);
        while let Some(question) = frame(&mut received)? {
            let data = match question.get(4) {
                Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                    agent.write_all(&question).await?;
                    answer_of(&mut agent).await?
                }
                _ => FAILURE.to_vec(),
            };
            if answers.send(Ok(BytesMessage { data })).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Takes the first whole message of the agent's protocol: four bytes with its length, then as many.
fn frame(received: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = received.first_chunk::<4>() else {
        return Ok(None);
    };
    let whole = 4 + length_of(*length)?;
    if received.len() < whole {
        return Ok(None);
    }
    let rest = received.split_off(whole);
    Ok(Some(std::mem::replace(received, rest)))
}

async fn answer_of(agent: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    agent.read_exact(&mut head).await?;
    let mut answer = head.to_vec();
    answer.resize(4 + length_of(head)?, 0);
    agent
        .read_exact(answer.get_mut(4..).unwrap_or_default())
        .await?;
    Ok(answer)
}

fn length_of(head: [u8; 4]) -> io::Result<usize> {
    match usize::try_from(u32::from_be_bytes(head)) {
        Ok(length) if (1..=LONGEST_MESSAGE).contains(&length) => Ok(length),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
    use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
    use bollard_buildkit_proto::moby::sshforward::v1::ssh_client::SshClient;
    use tonic::Code;
    use tonic::transport::{Channel, Endpoint};

    /// The engine's side of a session.
    async fn engine_of(given: Given) -> Channel {
        let (here, there) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(there, given, CancellationToken::new()));
        let mut here = Some(TokioIo::new(here));
        let connector = move |_| {
            let taken = here.take().ok_or_else(|| io::Error::other("one only"));
            async move { taken }
        };
        Endpoint::from_static("http://session")
            .connect_with_connector(tower::service_fn(connector))
            .await
            .unwrap()
    }

    fn nothing() -> Given {
        Given {
            secrets: HashMap::new(),
            agents: HashMap::new(),
            docker_config: None,
        }
    }

    #[tokio::test]
    async fn a_session_that_is_dropped_cuts_its_connection() {
        let (mut here, there) = tokio::io::duplex(64 * 1024);
        let ended = CancellationToken::new();
        let serving = tokio::spawn(serve(there, nothing(), ended.clone()));
        // The server's first frame: it serves now.
        let mut first = [0; 9];
        here.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        here.read_exact(&mut first).await.unwrap();
        drop(ended.drop_guard());
        let mut rest = Vec::new();
        let end = here.read_to_end(&mut rest);
        tokio::time::timeout(std::time::Duration::from_secs(60), end)
            .await
            .unwrap()
            .unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn only_secrets_that_the_build_names_are_given() {
        let given = Given {
            secrets: HashMap::from([("npm".to_owned(), b"text".to_vec())]),
            ..nothing()
        };
        let mut engine = SecretsClient::new(engine_of(given).await);
        let ask = |id: &str| GetSecretRequest {
            id: id.into(),
            ..GetSecretRequest::default()
        };
        let answer = engine.get_secret(ask("npm")).await.unwrap();
        assert_eq!(answer.into_inner().data, b"text");
        let refused = engine.get_secret(ask("other")).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }

    #[tokio::test]
    async fn an_agents_answers_come_back_and_unnamed_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 5];
            stream.read_exact(&mut question).await.unwrap();
            // Only the first and the last question come here.
            assert_eq!(question[4], REQUEST_IDENTITIES);
            stream.write_all(&[0, 0, 0, 2, 12, 7]).await.unwrap();
            stream.read_exact(&mut question).await.unwrap();
            assert_eq!(question[4], SIGN_REQUEST);
            stream.write_all(&[0, 0, 0, 1, 14]).await.unwrap();
        });
        let given = Given {
            agents: HashMap::from([("default".to_owned(), socket)]),
            ..nothing()
        };
        let mut engine = SshClient::new(engine_of(given).await);
        // A message may come in pieces. 19 would remove all keys.
        let pieces = [&[0, 0][..], &[0, 1, 11, 0, 0, 0, 1, 19, 0], &[0, 0, 1, 13]];
        let pieces = pieces.map(|data| BytesMessage {
            data: data.to_vec(),
        });
        let questions = stream::iter(pieces).chain(stream::pending());
        let answers = engine.forward_agent(questions).await.unwrap().into_inner();
        let said: Vec<Vec<u8>> = answers
            .take(3)
            .map(|message| message.unwrap().data)
            .collect()
            .await;
        assert_eq!(
            said,
            [&[0, 0, 0, 2, 12, 7][..], &FAILURE, &[0, 0, 0, 1, 14]]
        );
        let other = CheckAgentRequest { id: "other".into() };
        let refused = engine.check_agent(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }

    #[tokio::test]
    async fn credentials_are_those_of_dockers_configuration() {
        use base64::Engine;
        let dir = tempfile::tempdir().unwrap();
        let auth = base64::engine::general_purpose::STANDARD.encode("me:word");
        let config =
            format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}}}}}}"#);
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let given = Given {
            docker_config: Some(dir.path().to_owned()),
            ..nothing()
        };
        let mut engine = AuthClient::new(engine_of(given).await);
        let mut ask = async |host: &str| {
            let host = host.to_owned();
            let answer = engine.credentials(CredentialsRequest { host }).await;
            answer.unwrap().into_inner()
        };
        let hub = ask("registry-1.docker.io").await;
        assert_eq!((&*hub.username, &*hub.secret), ("me", "word"));
        assert_eq!(ask("ghcr.io").await, CredentialsResponse::default());
    }
}
