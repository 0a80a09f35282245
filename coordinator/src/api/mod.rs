//! The server side of `phalanx.v1.Control`: what clients ask, one file per question.
//!
//! Reads come from the journal and from what actors say of themselves; changes go to the supervisor and the runs. Nothing here decides.
//! `Control` is behind every client, the CLI in local mode included.

mod agents;
mod cancel;
mod find;
pub(crate) mod gc;
mod list;
mod logs;
mod rerun;
mod status;
mod submit;
mod watch;
mod why;
mod workspace;

pub use cancel::cancel_all;

use crate::dispatch::logs::store::LogStore;
use crate::supervisor::Handle;
use crate::workspace::Workspaces;
use phalanx_proto::limit;
use phalanx_proto::v1;
use phalanx_proto::v1::control_server::{Control, ControlServer};
use std::path::PathBuf;
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Answers clients.
#[derive(Clone)]
pub struct Api {
    handle: Handle,
    logs: LogStore,
    workspaces: Workspaces,
    /// Where logs are, for `gc`.
    state_dir: PathBuf,
}

impl Api {
    /// An API of a coordinator.
    pub fn new(handle: Handle, logs: LogStore, workspaces: Workspaces, state_dir: PathBuf) -> Self {
        Api {
            handle,
            logs,
            workspaces,
            state_dir,
        }
    }

    /// As a service for a tonic server.
    pub fn into_service(self) -> ControlServer<Api> {
        ControlServer::new(self)
            .max_decoding_message_size(limit::CLIENT_REQUEST_BYTES)
            .max_encoding_message_size(limit::CLIENT_ANSWER_BYTES)
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Api {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        submit::submit(&self.handle, request.into_inner())
            .await
            .map(Response::new)
    }

    type WatchStream = Streamed<v1::Recorded>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let stream = watch::watch(&self.handle, request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        list::list_runs(&self.handle, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        cancel::cancel(&self.handle, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn rerun(
        &self,
        request: Request<v1::RerunRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        rerun::rerun(&self.handle, request.into_inner())
            .await
            .map(Response::new)
    }

    type LogsStream = Streamed<v1::LogRecord>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let stream = logs::logs(&self.handle, &self.logs, request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        agents::list(&self.handle).await.map(Response::new)
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        agents::drain(&self.handle, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn why(
        &self,
        request: Request<v1::WhyRequest>,
    ) -> Result<Response<v1::WhyResponse>, Status> {
        why::why(&self.handle, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn gc(
        &self,
        request: Request<v1::GcRequest>,
    ) -> Result<Response<v1::GcResponse>, Status> {
        let request = request.into_inner();
        gc::gc(&self.handle, &self.workspaces, &self.state_dir, request)
            .await
            .map(Response::new)
    }

    async fn has_workspace(
        &self,
        request: Request<v1::HasWorkspaceRequest>,
    ) -> Result<Response<v1::HasWorkspaceResponse>, Status> {
        workspace::has(&self.workspaces, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn put_workspace(
        &self,
        request: Request<Streaming<v1::WorkspacePart>>,
    ) -> Result<Response<v1::PutWorkspaceResponse>, Status> {
        workspace::put(&self.workspaces, request.into_inner())
            .await
            .map(Response::new)
    }
}
