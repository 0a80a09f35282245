//! An OTLP collector in the test's own process: stores everything that it receives.
#![allow(dead_code, clippy::unwrap_used)]

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

pub struct Collector {
    pub endpoint: String,
    received: Received,
    _runtime: tokio::runtime::Runtime,
}

struct Taking(Received);

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub fn start() -> Collector {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let received = Received::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(Taking(received.clone()));
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Collector {
            endpoint,
            received,
            _runtime: runtime,
        }
    }

    /// Returns every byte received.
    pub fn bytes(&self) -> Vec<u8> {
        let received = self.received.lock().unwrap();
        received.iter().flat_map(Message::encode_to_vec).collect()
    }

    /// Returns the spans of a scope: `phalanx.run` for those of runs, `phalanx` for the program's own.
    pub fn spans(&self, scope: &str) -> Vec<Span> {
        let received = self.received.lock().unwrap();
        let of_scope = received
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans)
            .filter(|spans| spans.scope.as_ref().is_some_and(|of| of.name == scope));
        of_scope.flat_map(|spans| spans.spans.clone()).collect()
    }
}

/// Returns the value of an attribute if it is a text.
pub fn text(span: &Span, key: &str) -> Option<String> {
    let mut found = span.attributes.iter().filter(|of| of.key == key);
    match found.next()?.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}
