//! The fold of a run that all of its pages share, and the pages that are being watched.
//!
//! One task per watched run reads the journal as it grows. One task per watched page renders what changed, at most ten
//! times a second and for at most a fifth of the time. Hundreds of browsers that watch the same page cost a channel
//! each.

use super::board::{Board, Region};
use super::earlier::forecast;
use super::fold::Folded;
use super::pages::{self, Page};
use super::problem::{Problem, apart};
use super::shelf::Shelf;
use super::waits::{self, Waits};
use super::watched::{Brush, Rendered, Watched};
use crate::dispatch::logs::store::LogStore;
use crate::journal::{Store, StoreError};
use crate::run::actor::RunTail;
use crate::supervisor::Handle;
use axum::http::StatusCode;
use phalanx_report::history::expected::Forecast;
use phalanx_shared::clock::{Clock, Stopwatch};
use phalanx_shared::id::{CellId, RunId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

/// Events read at once.
const BATCH: u32 = 1_000;
/// Time between two patches of a page.
const PACE: Duration = Duration::from_millis(100);
/// Time between two questions to the coordinator.
const QUESTIONS: Duration = Duration::from_secs(2);
/// A page is rendered again after this many times the time that rendering took.
const REST: u32 = 4;
/// Time between two looks for the actor of an open run that has none, and how many there are.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = 120;
/// Maximum number of runs, and of pages of a run, that are in memory.
const RUNS: usize = 64;
const PAGES: usize = 64;
/// Limits how many journals are read at once to show a run as it was.
static PAST: Semaphore = Semaphore::const_new(2);

/// How far a feed is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Position of the newest event.
    seq: u64,
    /// Everything that was durable when the feed began has been read.
    ready: bool,
    /// Nothing more will come.
    pub over: bool,
    /// Why the journal can't be read.
    problem: Option<String>,
}

/// The runs that pages show.
pub struct Feeds {
    handle: Handle,
    logs: LogStore,
    open: Mutex<Shelf<RunId, Feed>>,
}

impl Feeds {
    /// Creates the feeds of a coordinator.
    pub fn new(handle: Handle, logs: LogStore) -> Feeds {
        Feeds {
            handle,
            logs,
            open: Mutex::new(Shelf::new(RUNS)),
        }
    }

    fn open(&self) -> MutexGuard<'_, Shelf<RunId, Feed>> {
        // Nothing panics while it is locked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the feed of a run, once it has read what the journal has.
    pub async fn of(&self, run: &RunId) -> Result<Arc<Feed>, Problem> {
        let now = self.handle.clock.monotonic();
        let feed = self.known(run, now).ok_or_else(|| {
            let text = format!("{RUNS} runs are being watched, that is the limit: close a page");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let mut reached = feed.inner.reached.subscribe();
        let reached = reached
            .wait_for(|reached| reached.ready || reached.problem.is_some())
            .await
            .map(|reached| reached.clone())
            .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the coordinator stops"))?;
        match reached.problem {
            Some(problem) => {
                self.open().remove(run, &feed);
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, problem))
            }
            None => Ok(feed),
        }
    }

    /// Returns the feed of a run, begun anew if its journal couldn't be read.
    fn known(&self, run: &RunId, now: Duration) -> Option<Arc<Feed>> {
        let mut open = self.open();
        let known = open.get(run, now);
        let Some(broken) = known.as_ref().filter(|feed| feed.is_broken()) else {
            return known.or_else(|| {
                let feed = Feed::begin(&self.handle, &self.logs, run);
                open.put(run.clone(), feed, now)
            });
        };
        open.remove(run, broken);
        open.put(run.clone(), Feed::begin(&self.handle, &self.logs, run), now)
    }

    /// Removes what nobody watches any more.
    pub fn sweep(&self) {
        let now = self.handle.clock.monotonic();
        // Dropped without the lock, since a large run takes a while.
        let gone = self.open().sweep(now);
        drop(gone);
        let left = self.open().all();
        for feed in left {
            let gone = feed.pages().sweep(now);
            drop(gone);
        }
    }
}

/// A run that is being watched.
pub struct Feed {
    inner: Arc<Inner>,
    /// Why cells wait, as the coordinator says now.
    waits: watch::Receiver<Arc<Waits>>,
    pages: Mutex<Shelf<Page, Watched>>,
    clock: Arc<dyn Clock>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

struct Inner {
    folded: RwLock<Folded>,
    reached: watch::Sender<Reached>,
    store: Arc<dyn Store>,
}

impl Feed {
    fn begin(handle: &Handle, logs: &LogStore, run: &RunId) -> Feed {
        let inner = Arc::new(Inner {
            folded: RwLock::new(Folded::new(run.clone())),
            reached: watch::channel(Reached::default()).0,
            store: handle.journal.store().clone(),
        });
        let reader = Reader {
            inner: Arc::clone(&inner),
            handle: handle.clone(),
            run: run.clone(),
            tail: handle.registry.get(run).map(|run| run.tail),
        };
        let (sender, waits) = watch::channel(Arc::default());
        let asker = Asker {
            inner: Arc::clone(&inner),
            handle: handle.clone(),
            logs: logs.clone(),
            run: run.clone(),
            sender,
        };
        Feed {
            inner,
            waits,
            pages: Mutex::new(Shelf::new(PAGES)),
            clock: handle.clock.clone(),
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(reader.read())),
                AbortOnDropHandle::new(tokio::spawn(asker.keep_asking())),
            ],
        }
    }

    fn pages(&self) -> MutexGuard<'_, Shelf<Page, Watched>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_broken(&self) -> bool {
        self.inner.reached.borrow().problem.is_some()
    }

    /// Calls a function with the run as it is now.
    pub async fn now<T>(&self, read: impl FnOnce(&Folded) -> T) -> T {
        read(&*self.inner.folded.read().await)
    }

    /// Calls a function that takes long with the run as it is now.
    pub async fn render<T: Send + 'static>(
        &self,
        render: impl FnOnce(&Folded) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let inner = Arc::clone(&self.inner);
        apart(move || render(&inner.folded.blocking_read())).await
    }

    /// Returns the number of a cell's newest attempt that counts.
    pub async fn newest_attempt(&self, cell: &CellId) -> Option<u32> {
        self.now(|folded| {
            let newest = folded.state.cells.get(cell)?.newest();
            newest.map(|attempt| attempt.attempt)
        })
        .await
    }

    /// Returns how far the feed is, and its changes.
    pub fn reached(&self) -> watch::Receiver<Reached> {
        self.inner.reached.subscribe()
    }

    /// Returns why cells wait, and its changes.
    pub fn waits(&self) -> watch::Receiver<Arc<Waits>> {
        self.waits.clone()
    }

    /// Returns a page of the run that is rendered while it is held.
    pub async fn watch(&self, page: &Page) -> Result<Arc<Watched>, Problem> {
        let now = self.clock.monotonic();
        if let Some(watched) = self.pages().get(page, now) {
            return Ok(watched);
        }
        let watched = watched(Arc::clone(&self.inner), page.clone()).await;
        let mut pages = self.pages();
        // Another request may have been quicker.
        let watched = match pages.get(page, now) {
            Some(watched) => Some(watched),
            None => pages.put(page.clone(), watched, now),
        };
        watched.ok_or_else(|| {
            let text = format!(
                "{PAGES} pages of this run are being watched, that is the limit: close one"
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }

    /// Returns the run as it was after the event at a position.
    pub async fn past(&self, seq: u64) -> Result<Folded, Problem> {
        let _turn = PAST.acquire().await;
        let run = self.now(|folded| folded.state.run.clone()).await;
        let mut folded = Folded::new(run);
        while folded.seq < seq {
            let from = folded.seq + 1;
            let left = u32::try_from(seq - folded.seq).unwrap_or(u32::MAX);
            let events = self
                .inner
                .store
                .events(&folded.state.run, from, left.min(BATCH))
                .await
                .map_err(unreadable)?;
            if events.is_empty() {
                break;
            }
            events.iter().for_each(|recorded| folded.apply(recorded));
        }
        Ok(folded)
    }

    /// Returns a page as it was after the event at a position.
    pub async fn past_page(&self, page: &Page, seq: u64) -> Result<Board, Problem> {
        let folded = self.past(seq).await?;
        let page = page.clone();
        apart(move || Board::new(folded.seq, pages::regions(&page, &folded, None))).await
    }
}

fn unreadable(error: StoreError) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Reads a run's journal into its feed.
struct Reader {
    inner: Arc<Inner>,
    handle: Handle,
    run: RunId,
    tail: Option<watch::Receiver<RunTail>>,
}

impl Reader {
    /// Reads until nothing more will come.
    async fn read(mut self) {
        let (mut next, mut looks) = (1, 0);
        loop {
            // Marked as seen before reading: events that arrive in between are read now or wake the next round.
            let (settled, known) = match &mut self.tail {
                Some(tail) => {
                    let tail = tail.borrow_and_update();
                    (tail.settled, tail.position)
                }
                None => (false, u64::MAX),
            };
            while next <= known {
                match self.batch(next).await {
                    Ok(after) if after > next => next = after,
                    Ok(_) => break,
                    Err(error) => {
                        let problem = error.to_string();
                        let tell = |reached: &mut Reached| reached.problem = Some(problem);
                        self.inner.reached.send_modify(tell);
                        return;
                    }
                }
            }
            looks = match &self.tail {
                Some(_) => 0,
                None => looks + 1,
            };
            let over = settled || (self.tail.is_none() && self.is_over(looks).await);
            self.inner.reached.send_modify(|reached| {
                (reached.ready, reached.over) = (true, over);
            });
            if over {
                return;
            }
            self.wait().await;
        }
    }

    /// Folds a batch of events. Returns the position after it.
    async fn batch(&self, from: u64) -> Result<u64, StoreError> {
        let events = self.inner.store.events(&self.run, from, BATCH).await?;
        let Some(last) = events.last() else {
            return Ok(from);
        };
        let seq = last.position;
        let mut folded = self.inner.folded.write().await;
        events.iter().for_each(|recorded| folded.apply(recorded));
        drop(folded);
        self.inner.reached.send_modify(|reached| reached.seq = seq);
        Ok(seq + 1)
    }

    /// Returns whether nothing more will come for a run without an actor. A run whose actor crashed has none until it is
    /// brought back.
    async fn is_over(&self, looks: u32) -> bool {
        looks > LOOKS
            || self.handle.journal.is_closed()
            || self.handle.registry.parked(&self.run).is_some()
            || self.inner.folded.read().await.state.is_settled()
    }

    async fn wait(&mut self) {
        let gone = match &mut self.tail {
            Some(tail) => tail.changed().await.is_err(),
            None => {
                tokio::time::sleep(LOOK).await;
                true
            }
        };
        if gone {
            // The run's actor is gone: the run settled, or a new actor has taken over or will.
            self.tail = self.handle.registry.get(&self.run).map(|run| run.tail);
        }
    }
}

/// Asks at intervals what the journal doesn't tell, while the run is open.
struct Asker {
    inner: Arc<Inner>,
    handle: Handle,
    logs: LogStore,
    run: RunId,
    sender: watch::Sender<Arc<Waits>>,
}

impl Asker {
    async fn keep_asking(self) {
        let mut earlier: Option<Forecast> = None;
        while self.goes_on() {
            if self.handle.registry.get(&self.run).is_none() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            if let Some(mut waits) = waits::ask(&self.handle, &self.logs, &self.run).await {
                waits.expected = self.expected(earlier.as_ref()).await;
                self.tell(waits);
            }
            match earlier {
                // Earlier runs take a while to read, and why cells wait comes first.
                None => earlier = self.forecast().await,
                Some(_) => tokio::time::sleep(QUESTIONS).await,
            }
        }
        self.tell(Waits::default());
    }

    fn goes_on(&self) -> bool {
        let reached = self.inner.reached.borrow();
        !reached.over && reached.problem.is_none()
    }

    async fn forecast(&self) -> Option<Forecast> {
        let spec = {
            let folded = self.inner.folded.read().await;
            folded.state.plan.as_ref().map(|plan| plan.spec.clone())
        };
        match spec {
            Some(spec) => Some(forecast(&*self.inner.store, &self.run, &spec).await),
            None => {
                tokio::time::sleep(PACE).await;
                None
            }
        }
    }

    async fn expected(&self, forecast: Option<&Forecast>) -> Option<String> {
        let now = self.handle.clock.wall();
        let folded = self.inner.folded.read().await;
        let expected = forecast?.expected(&folded.state, now)?;
        Some(expected.text(now))
    }

    fn tell(&self, waits: Waits) {
        self.sender.send_if_modified(|known| {
            let news = **known != waits;
            if news {
                *known = Arc::new(waits);
            }
            news
        });
    }
}

async fn watched(feed: Arc<Inner>, page: Page) -> Watched {
    let mut reached = feed.reached.subscribe();
    let over = reached.borrow_and_update().over;
    let (seq, regions) = render(&feed, &page, None).await;
    Watched::begin(Rendered { seq, over }, regions, |brush| {
        paint(feed, page, reached, brush)
    })
}

/// Renders a page whenever its run has news. Ends with a run that can't be read, and with it the page's event streams:
/// the browsers connect again, to a new feed.
async fn paint(feed: Arc<Inner>, page: Page, mut reached: watch::Receiver<Reached>, brush: Brush) {
    while !brush.rendered().over {
        if reached.borrow().problem.is_some() || reached.changed().await.is_err() {
            return;
        }
        let over = reached.borrow_and_update().over;
        let took = Stopwatch::start();
        let since = brush.rendered().seq;
        let (seq, regions) = render(&feed, &page, Some(since)).await;
        let took = took.elapsed();
        brush.paint(Rendered { seq, over }, regions);
        tokio::time::sleep(PACE.max(took * REST)).await;
    }
}

/// Renders the regions that may have changed after an event; all of them without one.
async fn render(feed: &Arc<Inner>, page: &Page, since: Option<u64>) -> (u64, Vec<Region>) {
    let (feed, page) = (Arc::clone(feed), page.clone());
    let rendered = tokio::task::spawn_blocking(move || {
        let folded = feed.folded.blocking_read();
        (folded.seq, pages::regions(&page, &folded, since))
    });
    // Only a bug or the end of the runtime ends such a task: then nothing changes on the page.
    rendered.await.unwrap_or((since.unwrap_or(0), Vec::new()))
}
