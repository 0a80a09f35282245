//! An OTLP collector in the test's own process: stores everything that it receives, by gRPC or HTTP, with or without TLS.
#![allow(dead_code, clippy::unwrap_used)]

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Grpc,
    GrpcTls,
    Http,
    HttpTls,
}

#[derive(Clone, Default)]
struct Received {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    /// Values of the header `x-tenant`, one for each request.
    tenants: Arc<Mutex<Vec<String>>>,
}

pub struct Collector {
    pub endpoint: String,
    /// The certificate to trust, as PEM, with TLS.
    pub certificate: String,
    received: Received,
    _runtime: tokio::runtime::Runtime,
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let tenant = request.metadata().get("x-tenant");
        let tenant = tenant.map(|value| value.to_str().unwrap().to_owned());
        self.tenants.lock().unwrap().extend(tenant);
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn traces(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let tenant = headers.get("x-tenant");
    let tenant = tenant.map(|value| value.to_str().unwrap().to_owned());
    received.tenants.lock().unwrap().extend(tenant);
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    received.traces.lock().unwrap().push(request);
}

async fn metrics(State(received): State<Received>, body: Bytes) {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    received.metrics.lock().unwrap().push(request);
}

/// Accepts TLS connections. One that fails is dropped.
struct Encrypted {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Collector {
    pub fn start() -> Collector {
        Collector::spoken_to(Way::Grpc)
    }

    pub fn spoken_to(way: Way) -> Collector {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let received = Received::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let scheme = match way {
            Way::Grpc | Way::Http => "http",
            Way::GrpcTls | Way::HttpTls => "https",
        };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let router = axum::Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(received.clone());
        match way {
            Way::Grpc | Way::GrpcTls => {
                let mut server = Server::builder();
                if way == Way::GrpcTls {
                    let identity = Identity::from_pem(&certificate, &key);
                    let tls = ServerTlsConfig::new().identity(identity);
                    server = server.tls_config(tls).unwrap();
                }
                let server = server
                    .add_service(TraceServiceServer::new(received.clone()))
                    .add_service(MetricsServiceServer::new(received.clone()));
                runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            }
            Way::Http => {
                runtime.spawn(async move { axum::serve(listener, router).await });
            }
            Way::HttpTls => {
                let key = own.signing_key.serialize_der().try_into().unwrap();
                let config = rustls::ServerConfig::builder()
                    .with_no_client_auth()
                    .with_single_cert(vec![own.cert.der().clone()], key)
                    .unwrap();
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
                let listener = Encrypted { listener, acceptor };
                runtime.spawn(async move { axum::serve(listener, router).await });
            }
        }
        Collector {
            endpoint,
            certificate,
            received,
            _runtime: runtime,
        }
    }

    /// Returns every byte received.
    pub fn bytes(&self) -> Vec<u8> {
        let traces = self.received.traces.lock().unwrap();
        let metrics = self.received.metrics.lock().unwrap();
        let mut bytes: Vec<u8> = traces.iter().flat_map(Message::encode_to_vec).collect();
        bytes.extend(metrics.iter().flat_map(Message::encode_to_vec));
        bytes
    }

    /// Returns the header `x-tenant` of each request that had one.
    pub fn tenants(&self) -> Vec<String> {
        self.received.tenants.lock().unwrap().clone()
    }

    /// Returns the spans of a scope: `phalanx.run` for those of runs, `phalanx` for the program's own.
    pub fn spans(&self, scope: &str) -> Vec<Span> {
        let received = self.received.traces.lock().unwrap();
        let of_scope = received
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans)
            .filter(|spans| spans.scope.as_ref().is_some_and(|of| of.name == scope));
        of_scope.flat_map(|spans| spans.spans.clone()).collect()
    }

    /// Returns the names of the services that sent spans.
    pub fn services(&self) -> Vec<String> {
        let received = self.received.traces.lock().unwrap();
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        let attributes = resources.flat_map(|spans| &spans.resource.as_ref().unwrap().attributes);
        let names = attributes.filter(|attribute| attribute.key == "service.name");
        let text = |value: &Value| match value {
            Value::StringValue(text) => text.clone(),
            other => format!("{other:?}"),
        };
        names
            .filter_map(|name| Some(text(name.value.as_ref()?.value.as_ref()?)))
            .collect()
    }

    /// Returns the metrics of the newest export.
    pub fn metrics(&self) -> Vec<Metric> {
        let received = self.received.metrics.lock().unwrap();
        let newest = received.last().into_iter();
        let scopes = newest.flat_map(|request| {
            let resources = request.resource_metrics.iter();
            resources.flat_map(|resource| &resource.scope_metrics)
        });
        scopes.flat_map(|scope| scope.metrics.clone()).collect()
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
