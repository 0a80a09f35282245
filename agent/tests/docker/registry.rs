//! A registry in the test: one image of one layer, behind a password, that fails as often as told.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A running registry.
pub struct Registry {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
}

pub struct Shared {
    /// Answers to manifests that are to fail, yet.
    pub fail: AtomicU32,
    /// Manifests given.
    pub given: AtomicU32,
    /// Requests of any kind.
    pub asked: AtomicU32,
    authorization: String,
    manifest: Vec<u8>,
    blobs: HashMap<String, Vec<u8>>,
}

/// The only user; the password's base64 has the characters in which the two alphabets differ.
pub const USER: &str = "tester";
pub const PASSWORD: &str = "pass?>~~~???>>>word";

impl Registry {
    pub async fn open(fail: u32) -> Registry {
        let layer = layer();
        let config = serde_json::to_vec(&json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", _ => "arm64" },
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer.0)]},
        }))
        .unwrap();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": digest(&config),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": layer.1.len(), "digest": digest(&layer.1),
            }],
        }))
        .unwrap();
        let shared = Arc::new(Shared {
            fail: AtomicU32::new(fail),
            given: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            authorization: format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}"))),
            manifest,
            blobs: [(digest(&config), config), (digest(&layer.1), layer.1)].into(),
        });
        let router = Router::new()
            .route("/v2/", get(root))
            .route(
                "/v2/phalanx-test/{image}/manifests/{reference}",
                get(manifest_of),
            )
            .route("/v2/phalanx-test/{image}/blobs/{digest}", get(blob))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Registry { address, shared }
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/phalanx-test/{name}:1", self.address)
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer with one file of random content, plain and compressed.
fn layer() -> (Vec<u8>, Vec<u8>) {
    let mut archive = tar::Builder::new(Vec::new());
    let content = uuid::Uuid::new_v4().to_string();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive
        .append_data(&mut header, "pulled", content.as_bytes())
        .unwrap();
    let plain = archive.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let compressed = gzip.finish().unwrap();
    (plain, compressed)
}

fn refused(shared: &Shared, headers: &HeaderMap) -> Option<Response<Body>> {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let given = headers.get("authorization").and_then(|v| v.to_str().ok());
    if given == Some(&shared.authorization) {
        return None;
    }
    let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
    Some(
        Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", "Basic realm=\"test\"")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap(),
    )
}

async fn root(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    refused(&shared, &headers).unwrap_or_else(|| Response::new(Body::empty()))
}

async fn manifest_of(
    State(shared): State<Arc<Shared>>,
    Path((image, _)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    if let Some(answer) = refused(&shared, &headers) {
        return answer;
    }
    let status = |status: StatusCode, body: String| {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap()
    };
    if image == "absent" {
        let body = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]});
        return status(StatusCode::NOT_FOUND, body.to_string());
    }
    if shared
        .fail
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
    {
        return status(StatusCode::INTERNAL_SERVER_ERROR, "{}".to_owned());
    }
    shared.given.fetch_add(1, Ordering::SeqCst);
    Response::builder()
        .header(
            "content-type",
            "application/vnd.docker.distribution.manifest.v2+json",
        )
        .header("docker-content-digest", digest(&shared.manifest))
        .body(Body::from(shared.manifest.clone()))
        .unwrap()
}

async fn blob(
    State(shared): State<Arc<Shared>>,
    Path((_, digest)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    if let Some(answer) = refused(&shared, &headers) {
        return answer;
    }
    match shared.blobs.get(&digest) {
        Some(bytes) => Response::new(Body::from(bytes.clone())),
        None => Response::builder().status(404).body(Body::empty()).unwrap(),
    }
}
