//! The server side of `phalanx.v1.Control`: one file per client request.
//!
//! Reads come from the journal and from actors; changes go to the supervisor and the runs. This module makes no
//! decisions. All clients use `Control`, including the CLI in local mode.

pub(in crate::serve) mod agents;
mod artifact;
pub(in crate::serve) mod cancel;
pub(in crate::serve) mod find;
pub mod gc;
mod intake;
pub(in crate::serve) mod list;
mod logs;
pub(in crate::serve) mod rerun;
mod snapshots;
mod status;
mod submission;
pub(in crate::serve) mod submit;
pub mod tokens;
mod watch;
pub(in crate::serve) mod why;
mod workspace;

pub use cancel::cancel_all;
pub use submit::SECRETS;

use crate::access::layer::AccessLayer;
use crate::access::{Access, Caller};
use crate::dispatch::logs::store::LogStore;
use crate::incoming::{Busy, Visit};
use crate::supervisor::Handle;
use crate::workspace::Workspaces;
use futures::StreamExt;
use intake::{Intake, Turns};
use phalanx_proto::v1;
use phalanx_proto::v1::control_server::{Control, ControlServer};
use phalanx_proto::{fitting, limit};
use std::path::PathBuf;
use std::pin::Pin;
use tokio::io::DuplexStream;
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Default for the bytes of large requests that may arrive concurrently.
pub const REQUEST_BYTES: u64 = 256 << 20;

/// Implements the `Control` service.
#[derive(Clone)]
pub struct Api {
    handle: Handle,
    logs: LogStore,
    workspaces: Workspaces,
    claims: workspace::Claims,
    /// The coordinator's state directory, for `gc`.
    state_dir: PathBuf,
}

impl Api {
    /// Creates the API of a coordinator.
    pub fn new(handle: Handle, logs: LogStore, workspaces: Workspaces, state_dir: PathBuf) -> Self {
        Api {
            handle,
            logs,
            workspaces,
            claims: workspace::Claims::default(),
            state_dir,
        }
    }

    /// Converts the API to a service for a tonic server. Large requests share `request_bytes` of memory.
    pub fn into_service(self, request_bytes: u64) -> Intake<ControlServer<Api>> {
        let service = ControlServer::new(self)
            .max_decoding_message_size(limit::CLIENT_REQUEST_BYTES)
            .max_encoding_message_size(limit::CLIENT_ANSWER_BYTES);
        Intake::new(service, Turns::new(request_bytes))
    }

    /// Answers over one connection, until the handle is dropped.
    pub fn answer(self, connection: DuplexStream) -> AbortOnDropHandle<()> {
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(connection));
        let mut server = Server::builder().layer(AccessLayer::new(Access::off()));
        let router = server.add_service(self.into_service(REQUEST_BYTES));
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = router.serve_with_incoming(incoming).await {
                tracing::debug!(%error, "answering over one connection ended");
            }
        }))
    }
}

/// Wraps a result for the client, and shortens an error to what the client can receive.
fn answer<T>(result: Result<T, Status>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(fitting)
}

fn refusal_in_answer(options: Option<&v1::Options>) -> bool {
    options.is_some_and(|options| options.refusal_in_answer)
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Api {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let whole = refusal_in_answer(request.options.as_ref());
        let submitted = submit::submit(&self.handle, &caller, &self.claims, request).await;
        answer(submit::answered(submitted, whole))
    }

    type WatchStream = Streamed<v1::Recorded>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (busy, caller) = (Busy::with(&request)?, Caller::of(&request)?);
        let stream = watch::watch(&self.handle, &caller, request.into_inner(), busy);
        let stream = stream.await.map_err(fitting)?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(list::list_runs(&self.handle, &caller, request.into_inner()).await)
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(cancel::cancel(&self.handle, &caller, request.into_inner()).await)
    }

    async fn rerun(
        &self,
        request: Request<v1::RerunRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let whole = refusal_in_answer(request.options.as_ref());
        let started = rerun::rerun(&self.handle, &caller, request).await;
        answer(submit::answered(started, whole))
    }

    type LogsStream = Streamed<v1::LogRecord>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let (busy, caller) = (Busy::with(&request)?, Caller::of(&request)?);
        let records = logs::logs(&self.handle, &caller, &self.logs, request.into_inner());
        let stream = records.await.map_err(fitting)?.inspect(move |_| {
            let _present = &busy;
        });
        Ok(Response::new(Box::pin(stream)))
    }

    type ArtifactStream = Streamed<v1::Chunk>;

    async fn artifact(
        &self,
        request: Request<v1::ArtifactRequest>,
    ) -> Result<Response<Self::ArtifactStream>, Status> {
        let (busy, caller) = (Busy::with(&request)?, Caller::of(&request)?);
        let (artifacts, request) = (self.logs.artifacts(), request.into_inner());
        let pieces = artifact::artifact(&self.handle, &caller, artifacts, request);
        let stream = pieces.await.map_err(fitting)?.inspect(move |_| {
            let _present = &busy;
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_submission(
        &self,
        request: Request<v1::GetSubmissionRequest>,
    ) -> Result<Response<v1::GetSubmissionResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(submission::get(&self.handle, &caller, request.into_inner()).await)
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(agents::list(&self.handle, &caller).await)
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(agents::drain(&self.handle, &caller, request.into_inner()).await)
    }

    async fn why(
        &self,
        request: Request<v1::WhyRequest>,
    ) -> Result<Response<v1::WhyResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(why::why(&self.handle, &caller, request.into_inner()).await)
    }

    async fn waiting(
        &self,
        request: Request<v1::WaitingRequest>,
    ) -> Result<Response<v1::WaitingResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(why::waiting(&self.handle, &caller, &self.logs, request.into_inner()).await)
    }

    async fn demand(
        &self,
        _: Request<v1::DemandRequest>,
    ) -> Result<Response<v1::DemandResponse>, Status> {
        answer(agents::demand(&self.handle).await)
    }

    async fn gc(
        &self,
        request: Request<v1::GcRequest>,
    ) -> Result<Response<v1::GcResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let removed = gc::gc(
            &self.handle,
            &self.workspaces,
            self.logs.artifacts(),
            &self.state_dir,
            request,
        )
        .await;
        answer(removed.inspect(|answer| {
            caller.about(format!("{} removed", answer.removed.len()));
        }))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        Caller::of(&request)?;
        answer(Ok(snapshots::list(&self.handle.registry)))
    }

    async fn remove_snapshots(
        &self,
        request: Request<v1::RemoveSnapshotsRequest>,
    ) -> Result<Response<v1::RemoveSnapshotsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        caller.about(format!("{} snapshots", request.keys.len()));
        answer(snapshots::remove(&self.handle, request).await)
    }

    async fn has_workspace(
        &self,
        request: Request<v1::HasWorkspaceRequest>,
    ) -> Result<Response<v1::HasWorkspaceResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (claims, workspaces) = (&self.claims, &self.workspaces);
        let request = request.into_inner();
        answer(workspace::has(&self.handle, &caller, claims, workspaces, request).await)
    }

    async fn put_workspace(
        &self,
        request: Request<Streaming<v1::WorkspacePart>>,
    ) -> Result<Response<v1::PutWorkspaceResponse>, Status> {
        let (_busy, caller) = (Busy::with(&request)?, Caller::of(&request)?);
        let peer = Visit::of(&request).map(|visit| visit.peer());
        let put = workspace::put(&self.workspaces, peer, request.into_inner()).await;
        answer(put.map(|digest| {
            let now = self.handle.clock.monotonic();
            caller.about(format!("workspace {digest}"));
            self.claims.add(&caller, digest, now);
            v1::PutWorkspaceResponse {}
        }))
    }
}
