//! A small HTTP server with answers of every kind.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(Default)]
struct Shared {
    count: AtomicU64,
}

/// Starts it; the URL. It ends with the test's runtime.
pub async fn start() -> String {
    let shared = Arc::new(Shared::default());
    let app = Router::new()
        .route("/echo", any(echo))
        .route("/status/{code}", any(status))
        .route("/count", get(count))
        .route("/error/{kind}", get(error))
        .route("/seen", get(seen))
        .route("/jump", get(jump))
        .route("/after/{n}", get(after))
        .route("/text", get(|| async { "just text" }))
        .route(
            "/page",
            get(|| async { axum::response::Html("<html><body>being serviced</body></html>\n") }),
        )
        .route("/big", get(big))
        .route("/endless", get(endless))
        .route("/latin", get(latin))
        .route("/marked", get(marked))
        .route("/utf16", get(utf16))
        .route("/slow/{ms}", get(slow))
        .route("/redirect", get(redirect))
        .route("/login", get(login))
        .route(
            "/key",
            get(|| async { axum::Json(json!({"key": "made-at-run-time-0815"})) }),
        )
        .route("/drop", get(drop_connection))
        .route("/events", get(events))
        .with_state(shared);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let seen: Map<String, Value> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap_or(""))))
        .collect();
    let body = String::from_utf8_lossy(&body).into_owned();
    let answer = json!({
        "method": method.as_str(), "uri": uri.to_string(), "headers": seen, "body": body,
    });
    let mut response = axum::Json(answer).into_response();
    response.headers_mut().append("x-two", "a".parse().unwrap());
    response.headers_mut().append("x-two", "b".parse().unwrap());
    response
}

async fn status(Path(code): Path<u16>) -> Response {
    let code = StatusCode::from_u16(code).unwrap();
    (code, axum::Json(json!({"code": code.as_u16()}))).into_response()
}

async fn count(State(shared): State<Arc<Shared>>) -> Response {
    let n = shared.count.fetch_add(1, Ordering::SeqCst) + 1;
    axum::Json(json!({"n": n})).into_response()
}

/// The answer of a server that broke, as a page, as JSON or empty.
async fn error(Path(kind): Path<String>) -> Response {
    let (kind, body) = match kind.as_str() {
        "page" => (
            "text/html; charset=utf-8",
            "<html><head><style>p { }</style></head>\n<body><h1>Server Error</h1>\n<p>it&#x27;s\n<pre>&lt;class 'Gone'&gt;\n\nthe connection is closed</pre></body></html>",
        ),
        "json" => (
            "application/json",
            "{\n  \"error\": \"the connection is closed\",\n  \"key\": \"a-key-of-some-length\"\n}",
        ),
        _ => ("text/plain", ""),
    };
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        [(header::CONTENT_TYPE, kind)],
        body,
    )
        .into_response()
}

/// The calls so far, without this one.
async fn seen(State(shared): State<Arc<Shared>>) -> Response {
    axum::Json(json!({"n": shared.count.load(Ordering::SeqCst)})).into_response()
}

/// A million calls at once.
async fn jump(State(shared): State<Arc<Shared>>) -> Response {
    shared.count.fetch_add(1_000_000, Ordering::SeqCst);
    "jumped".into_response()
}

/// 500 for the first calls, then 200.
async fn after(Path(n): Path<u64>, State(shared): State<Arc<Shared>>) -> Response {
    let calls = shared.count.fetch_add(1, Ordering::SeqCst) + 1;
    if calls <= n {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("call {calls}")).into_response();
    }
    axum::Json(json!({"calls": calls})).into_response()
}

/// More than is kept of a body; its end is what a test would look for. Its length is announced.
async fn big() -> Vec<u8> {
    let mut body = vec![b'x'; 17 * 1024 * 1024];
    body.extend_from_slice(b" status=ERROR");
    body
}

async fn endless() -> Body {
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let pieces = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
    Body::from_stream(pieces)
}

async fn latin() -> Response {
    let body = b"{\"name\":\"caf\xe9\"}".to_vec();
    (
        [(header::CONTENT_TYPE, "application/json; charset=ISO-8859-1")],
        body,
    )
        .into_response()
}

async fn marked() -> Response {
    let body = "\u{feff}{\"name\":\"café\"}";
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn utf16() -> Response {
    let body: Vec<u8> = "\u{feff}{\"name\":\"café\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    (
        [(header::CONTENT_TYPE, "application/json; charset=utf-16")],
        body,
    )
        .into_response()
}

async fn slow(Path(ms): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "at last"
}

async fn redirect() -> Response {
    (StatusCode::FOUND, [(header::LOCATION, "/text")]).into_response()
}

async fn login() -> Response {
    ([(header::SET_COOKIE, "session=abc123; Path=/")], "welcome").into_response()
}

/// The body breaks off.
async fn drop_connection() -> Response {
    let pieces = futures::stream::unfold(0, |n| async move {
        match n {
            0 => Some((Ok(Bytes::from("half of ")), 1)),
            _ => {
                // After the first piece has left.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Err(std::io::Error::other("gone")), 2))
            }
        }
    });
    Body::from_stream(pieces).into_response()
}

/// `?n=3` events, the last one with `ok`; `?hang` keeps the stream open.
async fn events(Query(query): Query<HashMap<String, String>>) -> Response {
    let n: u64 = query.get("n").and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut text = String::from(": welcome\n\n");
    for i in 1..=n {
        let data = json!({"i": i, "ok": i == n});
        text.push_str(&format!("event: step\nid: {i}\ndata: {data}\n\n"));
    }
    let hang = query.contains_key("hang");
    let body = futures::stream::unfold(Some(text), move |text| async move {
        match text {
            Some(text) => Some((Ok::<_, std::io::Error>(Bytes::from(text)), None)),
            None if hang => std::future::pending().await,
            None => None,
        }
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(body),
    )
        .into_response()
}

/// A TLS server with a certificate that nobody knows: its URL, and the certificate.
pub async fn start_tls() -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer =
                    "HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nover tls";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (url, signed.cert.pem())
}
