//! The program `phalanx-agent` exports its own spans.
#![allow(clippy::unwrap_used)]

use axum::body::Bytes;
use axum::routing::post;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A child process that ends with the test.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_agent_sends_its_own_spans_under_its_own_name() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let take = move |body: Bytes| {
        let _ = sender.send(body);
        std::future::ready(())
    };
    let router = axum::Router::new().route("/v1/traces", post(take));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let place = tempfile::tempdir().unwrap();
    // Nothing listens there: each attempt to connect is a span.
    let agent = Command::new(env!("CARGO_BIN_EXE_phalanx-agent"))
        .args(["--coordinator", "http://127.0.0.1:1", "--state-dir"])
        .arg(place.path())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", place.path())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = Kept(agent);
    // A bound against hanging.
    let body = tokio::time::timeout(Duration::from_secs(120), received.recv());
    let body = body.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("phalanx-agent") && text.contains("connect"));
}
