//! A coordinator that sends a fixed sequence of events to every watcher, and records its requests.
#![allow(dead_code)]

use phalanx_proto::v1::control_server::{Control, ControlServer};
use phalanx_proto::v1::*;
use phalanx_shared::event::{self, EventKind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// The server; dropping it ends the server.
pub struct Scripted {
    directory: tempfile::TempDir,
    script: Arc<Script>,
    _runtime: tokio::runtime::Runtime,
}

struct Script {
    run: String,
    spec: String,
    /// The events for watchers; a cancel adds some.
    events: watch::Sender<Vec<event::Event>>,
    sent: watch::Sender<usize>,
    after_cancel: Mutex<Vec<event::Event>>,
    break_after: Mutex<Option<u64>>,
    watched_from: Mutex<Vec<u64>>,
    cancels: Mutex<Vec<bool>>,
    submissions: Mutex<Vec<Options>>,
}

impl Scripted {
    pub fn start(events: Vec<event::Event>) -> Scripted {
        let directory = tempfile::tempdir().unwrap();
        let spec = match &events[0].kind {
            EventKind::RunSubmitted { plan, .. } => plan.spec.clone(),
            _ => String::new(),
        };
        let script = Arc::new(Script {
            run: events[0].run.to_string(),
            spec,
            events: watch::Sender::new(events),
            sent: watch::Sender::new(0),
            after_cancel: Mutex::default(),
            break_after: Mutex::default(),
            watched_from: Mutex::default(),
            cancels: Mutex::default(),
            submissions: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _context = runtime.enter();
            tokio::net::UnixListener::bind(directory.path().join("socket")).unwrap()
        };
        let service = ControlServer::from_arc(script.clone());
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Scripted {
            directory,
            script,
            _runtime: runtime,
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.directory.path().join("socket").display())
    }

    pub fn after_cancel(&self, events: Vec<event::Event>) {
        *self.script.after_cancel.lock().unwrap() = events;
    }

    /// Makes the first watcher lose its connection after this many events.
    pub fn break_after(&self, position: u64) {
        *self.script.break_after.lock().unwrap() = Some(position);
    }

    pub fn watched_from(&self) -> Vec<u64> {
        self.script.watched_from.lock().unwrap().clone()
    }

    pub fn cancels(&self) -> Vec<bool> {
        self.script.cancels.lock().unwrap().clone()
    }

    pub fn submissions(&self) -> usize {
        self.script.submissions.lock().unwrap().len()
    }

    /// Returns the options of each submission.
    pub fn options(&self) -> Vec<Options> {
        self.script.submissions.lock().unwrap().clone()
    }

    /// Returns the run's id.
    pub fn run(&self) -> &str {
        &self.script.run
    }

    pub fn wait_until_sent(&self, count: usize) {
        let mut sent = self.script.sent.subscribe();
        self._runtime
            .block_on(sent.wait_for(|sent| *sent >= count))
            .unwrap();
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for Script {
    type WatchStream = ReceiverStream<Result<Recorded, Status>>;
    type ArtifactStream = ReceiverStream<Result<phalanx_proto::v1::Chunk, Status>>;
    type LogsStream = ReceiverStream<Result<LogRecord, Status>>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Answer<SubmitResponse> {
        let options = request.into_inner().options;
        let mut submissions = self.submissions.lock().unwrap();
        submissions.push(options.unwrap_or_default());
        Ok(Response::new(SubmitResponse {
            run_id: self.run.clone(),
            warnings: Vec::new(),
            refusal: None,
        }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        let request = request.into_inner();
        let first = request.from_position.max(1);
        self.watched_from.lock().unwrap().push(first);
        let break_after = self.break_after.lock().unwrap().take();
        let (sender, receiver) = mpsc::channel(16);
        let mut events = self.events.subscribe();
        let sent = self.sent.clone();
        tokio::spawn(async move {
            let mut position = first;
            loop {
                let next = events
                    .borrow_and_update()
                    .get(usize::try_from(position - 1).unwrap())
                    .cloned();
                let Some(event) = next else {
                    let last = events.borrow().last().cloned().unwrap();
                    let over = events
                        .borrow()
                        .iter()
                        .any(|event| matches!(event.kind, EventKind::RunFinished { .. }));
                    if !request.follow || over || events.changed().await.is_err() {
                        drop(last);
                        return;
                    }
                    continue;
                };
                let recorded = event::Recorded { position, event };
                if sender.send(Ok(recorded.into())).await.is_err() {
                    return;
                }
                sent.send_replace(usize::try_from(position).unwrap());
                if break_after == Some(position) {
                    let _ = sender
                        .send(Err(Status::unavailable("connection reset")))
                        .await;
                    return;
                }
                position += 1;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_runs(&self, _: Request<ListRunsRequest>) -> Answer<ListRunsResponse> {
        let summary = RunSummary {
            run_id: self.run.clone(),
            spec: self.spec.clone(),
            cells: 27,
            ..RunSummary::default()
        };
        Ok(Response::new(ListRunsResponse {
            runs: vec![summary],
        }))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Answer<CancelResponse> {
        self.cancels
            .lock()
            .unwrap()
            .push(request.into_inner().force);
        let more = std::mem::take(&mut *self.after_cancel.lock().unwrap());
        self.events.send_modify(|events| events.extend(more));
        Ok(Response::new(CancelResponse { finished: false }))
    }

    async fn rerun(&self, request: Request<RerunRequest>) -> Answer<SubmitResponse> {
        let secrets: Vec<String> = request.into_inner().secrets.into_keys().collect();
        let said = format!("scripted, secrets: {}", secrets.join(", "));
        Err(Status::unimplemented(said))
    }

    async fn logs(&self, _: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        Err(Status::unimplemented("scripted"))
    }

    async fn artifact(
        &self,
        _: Request<phalanx_proto::v1::ArtifactRequest>,
    ) -> Answer<Self::ArtifactStream> {
        Err(Status::unimplemented("scripted"))
    }

    async fn get_submission(
        &self,
        _: Request<GetSubmissionRequest>,
    ) -> Answer<GetSubmissionResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Answer<ListAgentsResponse> {
        Ok(Response::new(ListAgentsResponse::default()))
    }

    async fn drain_agent(&self, _: Request<DrainAgentRequest>) -> Answer<DrainAgentResponse> {
        Err(Status::not_found("there is no such agent"))
    }

    async fn list_snapshots(
        &self,
        _: Request<phalanx_proto::v1::ListSnapshotsRequest>,
    ) -> Answer<phalanx_proto::v1::ListSnapshotsResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn remove_snapshots(
        &self,
        _: Request<phalanx_proto::v1::RemoveSnapshotsRequest>,
    ) -> Answer<phalanx_proto::v1::RemoveSnapshotsResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn has_workspace(&self, _: Request<HasWorkspaceRequest>) -> Answer<HasWorkspaceResponse> {
        Ok(Response::new(HasWorkspaceResponse { held: true }))
    }

    async fn put_workspace(
        &self,
        _: Request<Streaming<WorkspacePart>>,
    ) -> Answer<PutWorkspaceResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn waiting(
        &self,
        _: tonic::Request<phalanx_proto::v1::WaitingRequest>,
    ) -> Result<tonic::Response<phalanx_proto::v1::WaitingResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("an older coordinator"))
    }

    async fn why(&self, _: Request<WhyRequest>) -> Answer<WhyResponse> {
        Ok(Response::new(WhyResponse::default()))
    }

    async fn demand(&self, _: Request<DemandRequest>) -> Answer<DemandResponse> {
        Ok(Response::new(DemandResponse::default()))
    }

    async fn gc(&self, _: Request<GcRequest>) -> Answer<GcResponse> {
        Ok(Response::new(GcResponse::default()))
    }
}
