//! Answers requests for pages about several runs: two compared, and a spec over its runs.

use super::earlier;
use super::pages::compare::{self, Cells, Choice, Compared};
use super::pages::frame::{Framed, framed};
use super::pages::history::{self as history_page, Shown};
use super::problem::{Problem, apart};
use super::site::Site;
use crate::access::Caller;
use crate::journal::{RunHead, RunRow, Store, StoreError};
use crate::serve::api::find;
use crate::supervisor::replay;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use maud::Markup;
use phalanx_report::compare::Side;
use phalanx_report::history::History;
use phalanx_report::view::RunView;
use phalanx_shared::run_state::RunState;
use serde::Deserialize;
use std::sync::Arc;

/// Runs to choose from.
const CHOICES: usize = 200;
/// Runs of a history.
const RUNS: usize = 30;
/// Earlier runs that say which times are usual.
const USUAL: usize = 20;

/// The two runs to compare. Without the earlier one, it is the newest finished run of the same spec before the later one.
#[derive(Debug, Deserialize)]
pub struct Two {
    before: Option<String>,
    after: Option<String>,
}

/// The spec to show, that of the newest run without a choice, and the cell or step of it.
#[derive(Debug, Deserialize)]
pub struct Chosen {
    spec: Option<String>,
    of: Option<String>,
}

fn unreadable(error: StoreError) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn page(caller: &Caller, title: &str, place: &'static str, body: Markup) -> Html<String> {
    Html(framed(Framed {
        title,
        place,
        path: Vec::new(),
        events: None,
        at: None,
        token: None,
        who: caller.identity().map(|who| who.name.as_str()),
        body,
    }))
}

/// Two runs compared.
pub async fn compare(
    State(site): State<Arc<Site>>,
    Extension(caller): Extension<Caller>,
    Query(two): Query<Two>,
) -> Result<Html<String>, Problem> {
    let store = site.handle.journal.store();
    let heads = earlier::heads(&**store, caller.only(), None).await;
    let heads = heads.map_err(unreadable)?;
    let before = chosen_run(&**store, &caller, two.before).await?;
    let after = chosen_run(&**store, &caller, two.after).await?;
    let before = before.or_else(|| previous(&heads, after.as_deref()?));
    let choices: Vec<Choice> = heads
        .into_iter()
        .take(CHOICES)
        .map(|head| Choice {
            run: head.run.to_string(),
            spec: head.spec,
            submitted: head.submitted,
        })
        .collect();
    let comparison = match (&before, &after) {
        (Some(before), Some(after)) => {
            Some(compared(&**store, &site, &caller, before, after).await?)
        }
        _ => None,
    };
    let render = move || {
        let (before, after) = (before.as_deref(), after.as_deref());
        compare::page(&choices, before, after, comparison.as_ref())
    };
    let body = apart(render).await?;
    Ok(page(&caller, "Compare", "compare", body))
}

/// Returns the whole id of a run that is named by the beginning of it.
async fn chosen_run(
    store: &dyn Store,
    caller: &Caller,
    text: Option<String>,
) -> Result<Option<String>, Problem> {
    match text.filter(|text| !text.trim().is_empty()) {
        Some(text) => {
            let row = find::run(store, caller, &text).await?;
            Ok(Some(row.new.run.to_string()))
        }
        None => Ok(None),
    }
}

/// Returns the newest finished run of the same spec before a run.
fn previous(heads: &[RunHead], run: &str) -> Option<String> {
    let at = heads.iter().position(|head| head.run.as_str() == run)?;
    let (run, earlier) = heads.get(at..)?.split_first()?;
    let mut earlier = earlier.iter();
    let found = earlier.find(|head| head.spec == run.spec && head.end.is_some());
    found.map(|head| head.run.to_string())
}

/// A run with what is needed to compare it.
struct Folded {
    state: RunState,
    view: RunView,
    files: Vec<(String, String)>,
}

impl Folded {
    async fn of(
        store: &dyn Store,
        site: &Site,
        caller: &Caller,
        run: &str,
    ) -> Result<Folded, Problem> {
        let row: RunRow = find::run(store, caller, run).await?;
        let (state, _) = replay(store, &row.new.run).await.map_err(unreadable)?;
        let now = state.finished.unwrap_or_else(|| site.handle.clock.wall());
        let files = row.new.submission.files.into_iter();
        let files = files.map(|file| (file.name, file.text)).collect();
        let folded = move || Folded {
            view: RunView::of(&state, now, None),
            state,
            files,
        };
        apart(folded).await
    }

    fn side(&self) -> Side<'_> {
        Side {
            view: &self.view,
            plan: self.state.plan.as_ref(),
            files: &self.files,
        }
    }
}

async fn compared(
    store: &dyn Store,
    site: &Site,
    caller: &Caller,
    before: &str,
    after: &str,
) -> Result<Compared, Problem> {
    let before = Folded::of(store, site, caller, before).await?;
    let after = Folded::of(store, site, caller, after).await?;
    let except = Some(&after.view.run);
    let history = earlier::history(store, caller.only(), &after.view.spec, USUAL, except).await;
    let history = history.map_err(unreadable)?;
    let compare = move || Compared {
        comparison: phalanx_report::compare::compare(&before.side(), &after.side(), &history),
        before: Cells::of(&before.view),
        after: Cells::of(&after.view),
    };
    apart(compare).await
}

/// A spec over its runs.
pub async fn history(
    State(site): State<Arc<Site>>,
    Extension(caller): Extension<Caller>,
    Query(chosen): Query<Chosen>,
) -> Result<Html<String>, Problem> {
    let store = site.handle.journal.store();
    let heads = earlier::heads(&**store, caller.only(), None).await;
    let heads = heads.map_err(unreadable)?;
    let mut specs: Vec<String> = Vec::new();
    for head in heads {
        if head.end.is_some() && !specs.contains(&head.spec) {
            specs.push(head.spec);
        }
    }
    let spec = chosen.spec.or_else(|| specs.first().cloned());
    let history = match &spec {
        None => History::default(),
        Some(spec) => earlier::history(&**store, caller.only(), spec, RUNS, None)
            .await
            .map_err(unreadable)?,
    };
    let now = site.handle.clock.wall();
    let of = chosen.of.map(|of| of.trim().to_owned());
    let of = of.filter(|of| !of.is_empty());
    let render = move || {
        let spec = spec.filter(|_| !history.runs().is_empty());
        let spec = spec.as_deref();
        let of = of.as_deref();
        let shown = spec.map(|spec| Shown::of(spec, &history, of, now));
        history_page::page(&specs, spec, of, shown.as_ref())
    };
    let body = apart(render).await?;
    Ok(page(&caller, "History", "history", body))
}
