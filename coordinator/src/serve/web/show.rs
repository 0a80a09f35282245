//! Answers requests for pages and their event streams.

use super::board::Board;
use super::events::{OfRun, Place, To, follow_list, follow_run};
use super::feed::Feed;
use super::files;
use super::fold::Folded;
use super::guard::Actions;
use super::lists::{Kind, List};
use super::logs::{self, Batch, Follow};
use super::pages::frame::{Framed, framed};
use super::pages::{self, Page, cell as cell_page, errors as error_pages, run as run_page};
use super::problem::{Problem, apart};
use super::site::Site;
use crate::access::Caller;
use crate::incoming::Visit;
use crate::serve::api::find;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{Html, Response};
use axum::{Extension, Json};
use maud::{Markup, PreEscaped, html};
use phalanx_shared::id::{CellId, RunId};
use serde::Deserialize;
use std::sync::Arc;

type Here = State<Arc<Site>>;
type By = Extension<Caller>;
type Shown = Result<Html<String>, Problem>;
type Streamed = Result<Response, Problem>;

/// Parameters of pages.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    /// Show the page as it was after this event.
    at: Option<u64>,
    /// Show the logs of this attempt only.
    attempt: Option<u32>,
}

/// Parameters of event streams.
#[derive(Debug, Deserialize)]
pub struct From {
    /// The place that the page has reached.
    #[serde(default)]
    after: String,
    /// Follow the logs of this attempt only.
    attempt: Option<u32>,
}

/// Parameters of a request for earlier log records.
#[derive(Debug, Deserialize)]
pub struct Earlier {
    attempt: u32,
    /// Only records before this one.
    before: Option<u64>,
    /// Only records until the time of this event.
    at: Option<u64>,
}

/// The list of runs.
pub async fn runs(State(site): Here, Extension(caller): By) -> Shown {
    let seen = seen(&site, Kind::Runs, caller);
    list(&site, seen, "Runs", "runs").await
}

/// The events of the list of runs.
pub async fn runs_events(
    State(site): Here,
    Extension(caller): By,
    Query(from): Query<From>,
    ConnectInfo(visit): ConnectInfo<Visit>,
    headers: HeaderMap,
) -> Streamed {
    let list = seen(&site, Kind::Runs, caller);
    let watched = site.lists.watch(list).await?;
    let place = Place::of(&headers, &from.after);
    follow_list(watched, to(&site, place, visit))
}

/// The agents and the queue.
pub async fn agents(State(site): Here, Extension(caller): By) -> Shown {
    let seen = seen(&site, Kind::Agents, caller);
    list(&site, seen, "Agents", "agents").await
}

/// The events of the agents' page.
pub async fn agents_events(
    State(site): Here,
    Extension(caller): By,
    Query(from): Query<From>,
    ConnectInfo(visit): ConnectInfo<Visit>,
    headers: HeaderMap,
) -> Streamed {
    let list = seen(&site, Kind::Agents, caller);
    let watched = site.lists.watch(list).await?;
    let place = Place::of(&headers, &from.after);
    follow_list(watched, to(&site, place, visit))
}

fn to(site: &Site, place: Place, visit: Visit) -> To {
    To {
        place,
        visit,
        stop: site.stop.clone(),
    }
}

/// Returns a list as a caller sees it.
fn seen(site: &Site, kind: Kind, caller: Caller) -> List {
    let drains = site.options.actions.of(&caller).drain;
    List {
        kind,
        caller,
        drains,
    }
}

/// Returns the name of a caller's token.
fn name(caller: &Caller) -> Option<&str> {
    caller.identity().map(|who| who.name.as_str())
}

async fn list(site: &Site, list: List, title: &str, place: &'static str) -> Shown {
    let board = site.lists.now(&list).await?;
    Ok(Html(framed(Framed {
        title,
        place,
        path: Vec::new(),
        events: Some(format!("/{place}/events")),
        at: None,
        token: list.drains.then(|| site.token.as_str()),
        who: name(&list.caller),
        body: PreEscaped(board.html("page")),
    })))
}

/// Finds a run by its id or the beginning of one.
async fn found(site: &Site, caller: &Caller, text: &str) -> Result<(RunId, Arc<Feed>), Problem> {
    let row = find::run(&**site.handle.journal.store(), caller, text).await?;
    let run = row.new.run;
    let feed = site.feeds.of(&run).await?;
    Ok((run, feed))
}

/// Finds a cell of a run by its id, the beginning of one, or its name.
async fn found_cell(feed: &Feed, text: &str) -> Result<CellId, Problem> {
    let found = feed.now(|folded| {
        folded
            .state
            .plan
            .as_ref()
            .map(|plan| find::cell(plan, text))
    });
    let found = found.await;
    let found = found.ok_or_else(|| Problem::missing("the run has no plan in its journal"))?;
    Ok(found?)
}

/// A page about a run: now or at a position, with the links and the events that belong to it.
struct OfRunPage<'a> {
    site: &'a Site,
    caller: &'a Caller,
    feed: &'a Feed,
    page: Page,
    /// Address of the page without parameters.
    address: String,
    asked: &'a Asked,
}

impl OfRunPage<'_> {
    /// Renders the page. `around` puts the regions in their place, given the run, the regions' HTML, and whether the
    /// page is live.
    async fn show(
        self,
        title: impl Fn(&Folded) -> String + Send + 'static,
        path: Vec<(String, String)>,
        around: impl Fn(&Folded, Markup, bool) -> Markup + Send + 'static,
    ) -> Shown {
        if self.asked.at.is_none() {
            // Begins before the page is made, so that its event stream finds what changed since. Without room for one more,
            // the stream says so.
            let _ = self.feed.watch(&self.page).await;
        }
        let newest = self.feed.now(|folded| folded.seq).await;
        let past = match self.asked.at {
            Some(at) => Some(self.feed.past(at).await?),
            None => None,
        };
        let (page, live) = (self.page, past.is_none());
        let render = move |folded: &Folded| {
            let regions = pages::regions(&page, folded, None);
            let inner = PreEscaped(Board::new(folded.seq, regions).html("page"));
            let body = around(folded, inner, live);
            (title(folded), body, folded.seq, folded.at)
        };
        let (title, body, seq, at) = match past {
            Some(folded) => apart(move || render(&folded)).await?,
            None => self.feed.render(render).await?,
        };
        let attempt = self.asked.attempt;
        let attempt = attempt.map_or_else(String::new, |n| format!("&attempt={n}"));
        let events = format!("{}/events?after={seq}{attempt}", self.address);
        let travel = pages::travel::bar(&self.address, seq, newest, (!live).then_some(at));
        Ok(Html(framed(Framed {
            title: &title,
            place: "runs",
            path,
            events: live.then_some(events),
            at: (!live).then_some(at),
            token: self
                .site
                .options
                .actions
                .of(self.caller)
                .any()
                .then(|| self.site.token.as_str()),
            who: name(self.caller),
            body: html! { (body) (travel) },
        })))
    }
}

/// A run.
pub async fn run(
    State(site): Here,
    Extension(caller): By,
    Path(run): Path<String>,
    Query(asked): Query<Asked>,
) -> Shown {
    let (run, feed) = found(&site, &caller, &run).await?;
    let actions = match asked.at {
        Some(_) => Actions::NONE,
        None => site.options.actions.of(&caller),
    };
    let page = OfRunPage {
        site: &site,
        caller: &caller,
        feed: &feed,
        address: format!("/runs/{run}"),
        page: Page::Run(actions),
        asked: &asked,
    };
    let path = vec![("Runs".to_owned(), "/runs".to_owned())];
    let spec = |folded: &Folded| run_page::title(folded);
    page.show(spec, path, |_, inner, _| inner).await
}

/// The events of a run's page.
pub async fn run_events(
    State(site): Here,
    Extension(caller): By,
    Path(run): Path<String>,
    Query(from): Query<From>,
    ConnectInfo(visit): ConnectInfo<Visit>,
    headers: HeaderMap,
) -> Streamed {
    let place = Place::of(&headers, &from.after);
    let page = Page::Run(site.options.actions.of(&caller));
    of_run_events(&site, &caller, &run, page, place, visit).await
}

async fn of_run_events(
    site: &Site,
    caller: &Caller,
    run: &str,
    page: Page,
    place: Place,
    visit: Visit,
) -> Streamed {
    let (_, feed) = found(site, caller, run).await?;
    let of_run = OfRun {
        feed,
        page,
        logs: None,
    };
    follow_run(of_run, to(site, place, visit)).await
}

/// The times of a run.
pub async fn timing(
    State(site): Here,
    Extension(caller): By,
    Path(run): Path<String>,
    Query(asked): Query<Asked>,
) -> Shown {
    let (run, feed) = found(&site, &caller, &run).await?;
    let page = OfRunPage {
        site: &site,
        caller: &caller,
        feed: &feed,
        address: format!("/runs/{run}/timing"),
        page: Page::Timing,
        asked: &asked,
    };
    let spec = feed.now(run_page::title).await;
    let path = vec![
        ("Runs".to_owned(), "/runs".to_owned()),
        (spec, format!("/runs/{run}")),
    ];
    let title = |folded: &Folded| format!("Timing of {}", run_page::title(folded));
    page.show(title, path, |_, inner, _| inner).await
}

/// The events of the page of a run's times.
pub async fn timing_events(
    State(site): Here,
    Extension(caller): By,
    Path(run): Path<String>,
    Query(from): Query<From>,
    ConnectInfo(visit): ConnectInfo<Visit>,
    headers: HeaderMap,
) -> Streamed {
    let place = Place::of(&headers, &from.after);
    of_run_events(&site, &caller, &run, Page::Timing, place, visit).await
}

/// A cell.
pub async fn cell(
    State(site): Here,
    Extension(caller): By,
    Path((run, cell)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Shown {
    let (run, feed) = found(&site, &caller, &run).await?;
    let cell = found_cell(&feed, &cell).await?;
    let actions = site.options.actions.of(&caller);
    let address = format!("/runs/{run}/cells/{cell}");
    let spec = feed.now(run_page::title).await;
    let path = vec![
        ("Runs".to_owned(), "/runs".to_owned()),
        (spec, format!("/runs/{run}")),
    ];
    let page = OfRunPage {
        site: &site,
        caller: &caller,
        feed: &feed,
        page: Page::Cell(cell.clone()),
        address: address.clone(),
        asked: &asked,
    };
    let (attempt, named) = (asked.attempt, cell.clone());
    let around = move |folded: &Folded, inner: Markup, live: bool| {
        let logs = cell_page::Logs {
            address: format!("{address}/log"),
            at: (!live).then_some(folded.seq),
            attempt,
        };
        cell_page::body(folded, &cell, inner, &logs, live.then_some(actions))
    };
    let title = move |folded: &Folded| cell_page::title(folded, &named);
    page.show(title, path, around).await
}

/// The events of a cell's page, with its logs.
pub async fn cell_events(
    State(site): Here,
    Extension(caller): By,
    Path((run, cell)): Path<(String, String)>,
    Query(from): Query<From>,
    ConnectInfo(visit): ConnectInfo<Visit>,
    headers: HeaderMap,
) -> Streamed {
    let (run, feed) = found(&site, &caller, &run).await?;
    let cell = found_cell(&feed, &cell).await?;
    let place = Place::of(&headers, &from.after);
    let of = (run, cell.clone());
    let store = site.logs.clone();
    let logs = Follow::begin(store, Arc::clone(&feed), of, from.attempt, place.log).await?;
    let of_run = OfRun {
        feed,
        page: Page::Cell(cell),
        logs: Some(logs),
    };
    follow_run(of_run, to(&site, place, visit)).await
}

/// Log records before those that a page has, or those of a page of the past.
pub async fn cell_log(
    State(site): Here,
    Extension(caller): By,
    Path((run, cell)): Path<(String, String)>,
    Query(earlier): Query<Earlier>,
) -> Result<Json<Batch>, Problem> {
    let (run, feed) = found(&site, &caller, &run).await?;
    let cell = found_cell(&feed, &cell).await?;
    let until = match earlier.at {
        Some(at) => Some(feed.past(at).await?.at.0),
        None => None,
    };
    let of = (run, cell, earlier.attempt);
    let batch = logs::earlier(&site.logs, of, earlier.before, until).await?;
    Ok(Json(batch))
}

/// The content of an artifact.
pub async fn artifact(
    State(site): Here,
    Extension(caller): By,
    Path((run, cell, attempt, id)): Path<(String, String, u32, u32)>,
) -> Result<Response, Problem> {
    let (run, feed) = found(&site, &caller, &run).await?;
    let cell = found_cell(&feed, &cell).await?;
    files::artifact(&feed, site.logs.artifacts(), run, cell, attempt, id).await
}

/// The error codes.
pub async fn errors(State(site): Here, Extension(caller): By) -> Shown {
    Ok(Html(framed(Framed {
        title: "Errors",
        place: "explain",
        path: Vec::new(),
        events: None,
        at: None,
        token: None,
        who: name(&caller),
        body: error_pages::list(site.options.explained),
    })))
}

/// An error code.
pub async fn error(State(site): Here, Extension(caller): By, Path(code): Path<String>) -> Shown {
    let mut pages = site.options.explained.iter();
    let found = pages.find(|(known, _)| known.eq_ignore_ascii_case(&code));
    let (code, text) = found.ok_or_else(|| Problem::missing("there is no such error code"))?;
    Ok(Html(framed(Framed {
        title: code,
        place: "explain",
        path: vec![("Errors".to_owned(), "/explain".to_owned())],
        events: None,
        at: None,
        token: None,
        who: name(&caller),
        body: error_pages::page(text),
    })))
}
