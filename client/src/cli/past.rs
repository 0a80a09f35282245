//! Earlier runs of a spec, from the coordinator or from this machine's journals.
//!
//! Each run's journal is read and folded once, a few at a time, and only the short form is kept. Finished runs don't
//! change, so a run that can't be read is left out with a message, and the others are shown.

use super::connect::{self, Connection};
use super::error::CliError;
use super::{follow, now};
use crate::config::Settings;
use crate::config::place::STATE_DIR;
use crate::config::server::COORDINATOR;
use crate::local;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use phalanx_proto::v1::RunSummary;
use phalanx_report::history::{History, Short};
use phalanx_shared::id::RunId;
use std::time::Duration;

/// Pause before a run in progress reads earlier runs.
const PAUSE: Duration = Duration::from_secs(1);
/// Number of runs that are read at the same time.
const AT_ONCE: usize = 2;
/// Number of the newest runs of this machine among which a run in progress looks for earlier ones of its spec.
const NEWEST: usize = 50;
/// The same for a coordinator, whose list is one query.
const LISTED: u32 = 500;

/// Returns the newest runs of a spec among these summaries, newest first, that are finished and readable.
pub fn of_spec<'a>(
    runs: &'a [RunSummary],
    spec: &'a str,
    most: usize,
) -> impl Iterator<Item = &'a RunSummary> {
    let finished = move |run: &&RunSummary| {
        run.spec == spec && run.finished_us.is_some() && run.problem.is_empty()
    };
    runs.iter().filter(finished).take(most)
}

/// Reads runs. Returns their history, and the runs that can't be read with the reason.
pub async fn read(
    settings: &Settings,
    runs: impl Iterator<Item = &RunSummary>,
) -> Result<(History, Vec<(RunId, String)>), CliError> {
    let source = Source::of(settings).await?;
    let ids: Vec<RunId> = runs.map(|run| RunId::from(run.run_id.as_str())).collect();
    let mut shorts = stream::iter(ids)
        .map(|run| {
            let source = &source;
            async move { (run.clone(), source.short(run).await) }
        })
        .buffer_unordered(AT_ONCE);
    let (mut history, mut unreadable) = (History::default(), Vec::new());
    while let Some((run, short)) = shorts.next().await {
        match short {
            Ok(short) => history.add(short),
            Err(error) => unreadable.push((run, error.message)),
        }
    }
    Ok((history, unreadable))
}

/// Returns the history of the spec of a run in progress, from the newest runs that finished before it; `None` if there is
/// none. Begins after a pause, because short runs don't need it.
pub fn before(settings: Settings, run: RunId, most: usize) -> BoxFuture<'static, Option<History>> {
    Box::pin(async move {
        tokio::time::sleep(PAUSE).await;
        earlier(&settings, &run, most).await
    })
}

async fn earlier(settings: &Settings, run: &RunId, most: usize) -> Option<History> {
    let runs = match settings.get(&COORDINATOR) {
        address if address.is_empty() => local::newest(&settings.get(&STATE_DIR), NEWEST).await,
        address => {
            let connection = connect::remote(settings, &address).await.ok()?;
            connect::list_of(&connection, LISTED, false).await.ok()?
        }
    };
    let own = runs.iter().find(|known| known.run_id == run.as_str())?;
    let (spec, submitted) = (own.spec.clone(), own.submitted_us);
    let earlier: Vec<RunSummary> = of_spec(&runs, &spec, usize::MAX)
        .filter(|known| known.submitted_us < submitted)
        .take(most)
        .cloned()
        .collect();
    let (history, _) = read(settings, earlier.iter()).await.ok()?;
    (!history.runs().is_empty()).then_some(history)
}

/// Where runs are read from.
enum Source {
    /// A coordinator.
    Remote(Box<Connection>),
    /// This machine's journals.
    Local(std::path::PathBuf),
}

impl Source {
    async fn of(settings: &Settings) -> Result<Source, CliError> {
        let address = settings.get(&COORDINATOR);
        if address.is_empty() {
            return Ok(Source::Local(settings.get(&STATE_DIR)));
        }
        let connection = connect::remote(settings, &address).await?;
        Ok(Source::Remote(Box::new(connection)))
    }

    async fn short(&self, run: RunId) -> Result<Short, CliError> {
        let (state, at) = match self {
            Source::Remote(connection) => follow::fetch(connection.client(), run).await?,
            Source::Local(state_dir) => {
                let look = local::open(state_dir, run.as_str()).await?;
                follow::fetch(look.client(), run).await?
            }
        };
        // Looking at thousands of cells takes a while, so it must not block a runtime thread.
        let short = tokio::task::spawn_blocking(move || Short::of(&state, at.min(now())));
        short
            .await
            .map_err(|error| CliError::errored(format!("can't read a run: {error}")))
    }
}
