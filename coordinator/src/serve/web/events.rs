//! The event stream of a page: patches, log records, and a sign of life.
//!
//! Each event has as its `id` the position in the run's journal that the page shows with it; on a page with logs, the
//! attempt and the number of its newest log record follow. A browser that connects again sends the last id that it got,
//! and receives exactly what it misses. What the journal doesn't contain (why cells wait) comes without an id, and whole
//! after a new connection.
//!
//! A reader that doesn't read holds two events. It is disconnected after a while.

use super::board::{Board, Change};
use super::feed::Feed;
use super::fold::Folded;
use super::logs::{Batch, Follow};
use super::pages::{self, Page};
use super::problem::Problem;
use super::waits::Waits;
use super::watched::{Rendered, Watched};
use crate::incoming::{Busy, Visit};
use crate::metrics::{METRICS, Present};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Events that may wait for a reader.
const AHEAD: usize = 1;
/// A reader that takes nothing for this long is disconnected; it may connect again.
const STALLED: Duration = Duration::from_secs(30);
/// Time between two signs of life. Proxies and browsers give up a connection without any.
const ALIVE: Duration = Duration::from_secs(10);
/// How long a reader waits for a shared page that is behind what it has seen.
const BEHIND: Duration = Duration::from_secs(5);
/// How long a browser waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 500;

/// The last event that a browser got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Position in the run's journal.
    pub seq: u64,
    /// Attempt and number of the newest log record; `None` for a page without logs, or before its first record.
    pub log: Option<(u32, u64)>,
}

impl Place {
    /// Reads an event's id.
    pub fn parse(text: &str) -> Option<Place> {
        let mut parts = text.trim().split('.').map(str::parse::<u64>);
        let seq = parts.next()?.ok()?;
        let log = match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => None,
            (Some(Ok(attempt)), Some(Ok(record)), None) => {
                Some((u32::try_from(attempt).ok()?, record))
            }
            _ => return None,
        };
        Some(Place { seq, log })
    }

    /// Returns the place that a request names: `Last-Event-ID` of a browser that connects again, else that of the page.
    pub fn of(headers: &HeaderMap, page: &str) -> Place {
        let last = headers.get("last-event-id").map(|id| id.to_str());
        let last = last.and_then(Result::ok).and_then(Place::parse);
        last.or_else(|| Place::parse(page)).unwrap_or_default()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.log {
            None => write!(f, "{}", self.seq),
            Some((attempt, record)) => write!(f, "{}.{attempt}.{record}", self.seq),
        }
    }
}

/// Encodes one event.
pub fn event(kind: &str, id: Option<Place>, data: &impl Serialize) -> Bytes {
    // JSON has no line breaks, and types of this folder can always be serialized.
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("event: {kind}\n{id}data: {data}\n\n"))
}

/// Answers with a stream of events.
pub fn streaming(events: mpsc::Receiver<Bytes>) -> Response {
    let hello = Bytes::from(format!("retry: {RETRY_MS}\n\n"));
    let events = tokio_stream::once(hello).chain(ReceiverStream::new(events));
    let body = Body::from_stream(events.map(Ok::<_, std::convert::Infallible>));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// Sends an event. Returns whether the reader is still connected.
pub async fn send(out: &mpsc::Sender<Bytes>, event: Bytes) -> bool {
    match out.send_timeout(event, STALLED).await {
        Ok(()) => true,
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
            METRICS.watchers_dropped.inc();
            false
        }
        Err(mpsc::error::SendTimeoutError::Closed(_)) => false,
    }
}

/// A page about a run, for its event stream.
pub struct OfRun {
    /// The run.
    pub feed: Arc<Feed>,
    /// The page.
    pub page: Page,
    /// The logs that the page shows.
    pub logs: Option<Follow>,
}

/// The reader of an event stream.
pub struct To {
    /// What it has already.
    pub place: Place,
    /// Its connection.
    pub visit: Visit,
    /// Ends the stream.
    pub stop: CancellationToken,
}

/// Starts to send the events of a page about a run.
pub async fn follow_run(of_run: OfRun, to: To) -> Result<Response, Problem> {
    let watched = of_run.feed.watch(&of_run.page).await?;
    let OfRun { feed, page, logs } = of_run;
    let passing = Passing {
        waits: feed.waits(),
        feed,
        page,
        shown: HashMap::new(),
    };
    start(watched, Some(passing), logs, to)
}

/// Starts to send the events of a list.
pub fn follow_list(watched: Arc<Watched>, to: To) -> Result<Response, Problem> {
    start(watched, None, None, to)
}

fn start(
    watched: Arc<Watched>,
    passing: Option<Passing>,
    logs: Option<Follow>,
    to: To,
) -> Result<Response, Problem> {
    let To { place, visit, stop } = to;
    let busy = Busy::of(Some(visit))?;
    let (out, events) = mpsc::channel(AHEAD);
    let stream = Stream {
        rendered: watched.rendered(),
        watched,
        passing,
        place,
        logs,
        out,
    };
    tokio::spawn(async move {
        let _busy = busy;
        let _present = Present::in_gauge(&METRICS.watchers);
        stop.run_until_cancelled(stream.run()).await;
    });
    Ok(streaming(events))
}

/// What a page about a run shows that isn't in the journal.
struct Passing {
    feed: Arc<Feed>,
    page: Page,
    waits: watch::Receiver<Arc<Waits>>,
    /// The regions that the reader has.
    shown: HashMap<String, String>,
}

impl Passing {
    /// Returns the regions that look different from what the reader has, as an event.
    async fn news(&mut self) -> Option<Bytes> {
        let waits = Arc::clone(&self.waits.borrow_and_update());
        let page = &self.page;
        let read = |folded: &Folded| pages::passing(page, folded, &waits);
        let mut regions = self.feed.now(read).await;
        regions.retain(|region| self.shown.get(&region.id) != Some(&region.html));
        let changes: Vec<Change<'_>> = regions
            .iter()
            .map(|region| Change(&region.id, &region.into, &region.html))
            .collect();
        let news = (!changes.is_empty()).then(|| event("patch", None, &changes));
        let shown = regions.into_iter().map(|region| (region.id, region.html));
        self.shown.extend(shown);
        news
    }
}

/// Waits for a change of what isn't in the journal. Never returns without that, or once there are no more changes.
async fn changed(passing: &mut Option<Passing>) {
    if let Some(passing) = passing
        && passing.waits.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

struct Stream {
    watched: Arc<Watched>,
    rendered: watch::Receiver<Rendered>,
    passing: Option<Passing>,
    place: Place,
    logs: Option<Follow>,
    out: mpsc::Sender<Bytes>,
}

impl Stream {
    /// Sends until the run and its logs are over, or the reader is gone.
    async fn run(mut self) {
        if !self.catch_up().await || !self.pass().await {
            return;
        }
        let mut alive = tokio::time::interval(ALIVE);
        alive.reset();
        loop {
            let over = self.rendered.borrow().over;
            let logged = self.logs.as_ref().is_none_or(Follow::is_over);
            if over && logged {
                send(&self.out, event("end", Some(self.place), &())).await;
                return;
            }
            let goes_on = tokio::select! {
                changed = self.rendered.changed(), if !over => match changed {
                    Ok(()) => self.patch().await && self.pass().await,
                    Err(_) => false,
                },
                () = changed(&mut self.passing), if !over => self.pass().await,
                batch = next(&mut self.logs), if !logged => match batch {
                    Some(batch) => self.log(batch).await,
                    None => true,
                },
                _ = alive.tick() => send(&self.out, Bytes::from_static(b":\n\n")).await,
                () = self.out.closed() => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Waits until the shared page shows what the reader has seen: older regions would take it back.
    async fn reach(&mut self, seen: u64) {
        while self.watched.read(|board| board.seq() < seen) {
            if self.rendered.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends what the reader misses. If the board is younger than what the reader saw, the page as it was is rendered
    /// once more to compare.
    async fn catch_up(&mut self) -> bool {
        let seen = self.place.seq;
        let _ = tokio::time::timeout(BEHIND, self.reach(seen)).await;
        if self.watched.read(|board| board.since(seen).is_some()) {
            return self.patch().await;
        }
        let Some(passing) = &self.passing else {
            return self.send_patch(Board::all).await;
        };
        match passing.feed.past_page(&passing.page, seen).await {
            Ok(before) => self.send_patch(|board| board.differing(&before)).await,
            Err(_) => false,
        }
    }

    async fn patch(&mut self) -> bool {
        let seen = self.place.seq;
        self.send_patch(|board| board.since(seen).unwrap_or_default())
            .await
    }

    async fn send_patch(
        &mut self,
        changes: impl for<'b> FnOnce(&'b Board) -> Vec<Change<'b>>,
    ) -> bool {
        self.rendered.mark_unchanged();
        let mut place = self.place;
        let patch = self.watched.read(|board| {
            place.seq = board.seq();
            let changes = changes(board);
            (!changes.is_empty()).then(|| event("patch", Some(place), &changes))
        });
        self.place = place;
        match patch {
            Some(patch) => send(&self.out, patch).await,
            None => true,
        }
    }

    /// Sends the news of what isn't in the journal.
    async fn pass(&mut self) -> bool {
        let news = match &mut self.passing {
            Some(passing) => passing.news().await,
            None => None,
        };
        match news {
            Some(news) => send(&self.out, news).await,
            None => true,
        }
    }

    async fn log(&mut self, batch: Batch) -> bool {
        self.place.log = Some((batch.attempt, batch.last()));
        let event = event("log", Some(self.place), &batch);
        send(&self.out, event).await
    }
}

/// Returns the next log records; never without logs to follow.
async fn next(logs: &mut Option<Follow>) -> Option<Batch> {
    match logs {
        Some(logs) => logs.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_says_where_a_reader_is() {
        for place in [
            Place { seq: 7, log: None },
            Place {
                seq: 7,
                log: Some((2, 90)),
            },
        ] {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
        for text in ["", "x", "7.1", "7.1.2.3", "-1", "7.1.x", "7.99999999999.1"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_event_is_three_lines_whatever_it_contains() {
        let place = Place { seq: 3, log: None };
        let bytes = event("patch", Some(place), &["a\nb", "\r"]);
        assert_eq!(bytes, "event: patch\nid: 3\ndata: [\"a\\nb\",\"\\r\"]\n\n");
    }
}
