//! Builds the exporters of OpenTelemetry's library for a [`Target`]: the transport, its TLS and its time limit.
//!
//! The library itself reads headers and compression from the environment.

use super::settings::{Protocol, Target};
use opentelemetry_otlp::{
    MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use std::path::Path;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Builds an exporter of spans. Must be called within a tokio runtime.
pub(super) fn spans(target: &Target) -> Result<SpanExporter, String> {
    let builder = SpanExporter::builder();
    match target.protocol {
        Protocol::Grpc => tonic(builder.with_tonic(), target)?.build(),
        Protocol::HttpProtobuf => http(builder.with_http(), target)?.build(),
    }
    .map_err(|error| error.to_string())
}

/// Builds an exporter of metrics. Must be called within a tokio runtime.
pub(super) fn metrics(target: &Target) -> Result<MetricExporter, String> {
    let builder = MetricExporter::builder();
    match target.protocol {
        Protocol::Grpc => tonic(builder.with_tonic(), target)?.build(),
        Protocol::HttpProtobuf => http(builder.with_http(), target)?.build(),
    }
    .map_err(|error| error.to_string())
}

fn tonic<B: WithExportConfig + WithTonicConfig>(builder: B, target: &Target) -> Result<B, String> {
    let builder = builder
        .with_endpoint(&target.endpoint)
        .with_timeout(target.timeout);
    if !target.is_tls() {
        return Ok(builder);
    }
    let tls = ClientTlsConfig::new();
    let mut tls = match &target.certificate {
        Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
        None => tls.with_enabled_roots(),
    };
    if let Some((certificate, key)) = &target.client {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(builder.with_tls_config(tls))
}

fn http<B: WithExportConfig + WithHttpConfig>(builder: B, target: &Target) -> Result<B, String> {
    let refused = |file: &Path, error: reqwest::Error| format!("{}: {error}", file.display());
    let mut client = reqwest::Client::builder().timeout(target.timeout);
    if let Some(file) = &target.certificate {
        let trusted = reqwest::Certificate::from_pem_bundle(&read(file)?)
            .map_err(|error| refused(file, error))?;
        client = client.tls_certs_only(trusted);
    }
    if let Some((certificate, key)) = &target.client {
        let mut pem = read(certificate)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let identity =
            reqwest::Identity::from_pem(&pem).map_err(|error| refused(certificate, error))?;
        client = client.identity(identity);
    }
    let client = client.build().map_err(|error| error.to_string())?;
    Ok(builder
        .with_http_client(client)
        .with_endpoint(&target.endpoint)
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_timeout(target.timeout))
}

/// Reads a small file. It is read once, before anything is sent, so it may block.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("can't read {}: {error}", file.display()))
}
