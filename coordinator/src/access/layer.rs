//! Stands in front of every gRPC call. A call that lasts ends when its token does.

use super::caller::Caller;
use super::core::{Need, Refusal};
use super::gate::{Access, Brought};
use super::needs::{self, Kind};
use crate::incoming::Visit;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::{Code, Status};
use tower::Layer;

/// Metadata that narrows a call to one namespace.
pub const NAMESPACE: &str = "phalanx-namespace";

/// Puts [`Checked`] in front of services.
#[derive(Clone)]
pub struct AccessLayer(Access);

impl AccessLayer {
    /// Creates the layer.
    pub fn new(access: Access) -> AccessLayer {
        AccessLayer(access)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked {
            inner,
            access: self.0.clone(),
        }
    }
}

/// A service whose callers are checked.
#[derive(Clone)]
pub struct Checked<S> {
    inner: S,
    access: Access,
}

impl<S> Service<Request<Body>> for Checked<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        // Call the instance that was polled ready, not its clone.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let access = self.access.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let visit = request.extensions().get::<Visit>().cloned();
            let from = visit.as_ref().map(Visit::address);
            let row = needs::of_call(&path);
            // A body can't be shared between threads, so only the headers are.
            let headers = request.headers().clone();
            let caller = match enter(&access, &path, row, &headers, visit.as_ref()).await {
                Ok(caller) => caller,
                Err(refusal) => return Ok(Status::from(refusal).into_http()),
            };
            request.extensions_mut().insert(caller.clone());
            if caller.identity().is_none() {
                return inner.call(request).await;
            }
            let mut over: Over = Box::pin(access.clone().until_over(caller.clone()));
            let answer = tokio::select! {
                answered = inner.call(request) => answered?.map(|inner| {
                    Body::new(Lasting { inner, over: Some(over) })
                }),
                refusal = &mut over => Status::from(refusal).into_http(),
            };
            if row.is_some_and(|(_, kind)| kind == Kind::Changes) {
                access.note(&caller, &path, from, result(&answer)).await;
            }
            Ok(answer)
        })
    }
}

async fn enter(
    access: &Access,
    path: &str,
    row: Option<(Need, Kind)>,
    headers: &HeaderMap,
    visit: Option<&Visit>,
) -> Result<Caller, Refusal> {
    let brought = Brought {
        authorization: text(headers, "authorization"),
        session: None,
        namespace: text(headers, NAMESPACE),
        ..Brought::default()
    };
    let need = row.map(|(need, _)| need);
    access.enter(path, need, brought.by(visit)).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // What isn't text is no token and no namespace.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Returns how a call ended, as far as its answer's head says: errors of calls with one answer are in it.
fn result(answer: &Response<Body>) -> Result<(), String> {
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok => {
            Err(format!("{:?}: {}", status.code(), status.message()))
        }
        _ => Ok(()),
    }
}

type Over = Pin<Box<dyn Future<Output = Refusal> + Send>>;

/// An answer that ends when its caller's token does.
struct Lasting {
    inner: Body,
    /// `None` after the end.
    over: Option<Over>,
}

impl HttpBody for Lasting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(over) = &mut self.over else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(refusal) = over.as_mut().poll(cx) {
            self.over = None;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(match Status::from(refusal).add_header(&mut trailers) {
                Ok(()) => Some(Ok(Frame::trailers(trailers))),
                Err(status) => Some(Err(status)),
            });
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over.is_none() || self.inner.is_end_stream()
    }
}
