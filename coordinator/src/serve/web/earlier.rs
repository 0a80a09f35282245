//! Earlier runs of a spec: for their history, for comparisons, and for the expected finish of a running one.

use crate::journal::{RunHead, Store, StoreError};
use crate::supervisor::replay;
use phalanx_report::history::expected::{Forecast, RUNS};
use phalanx_report::history::{History, Short};
use phalanx_shared::id::RunId;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::time::Timestamp;
use tokio::sync::Semaphore;

/// Runs among which those of a spec are looked for.
const AMONG: u32 = 2_000;
/// Cells of all runs that are read at once: of a spec with very many cells, fewer runs are read.
const CELLS: u32 = 40_000;
/// Limits how many histories are read at once.
static READERS: Semaphore = Semaphore::const_new(1);

/// Returns the newest runs of a namespace or of all, of one spec or of all.
pub async fn heads(
    store: &dyn Store,
    within: Option<&Namespace>,
    spec: Option<&str>,
) -> Result<Vec<RunHead>, StoreError> {
    let mut heads = store.runs(AMONG, false, within).await?;
    heads.retain(|head| spec.is_none_or(|spec| head.spec == spec));
    Ok(heads)
}

/// Returns the newest finished runs of a spec in a namespace or in all, at most so many, except for one. Runs that can't
/// be read are left out.
pub async fn history(
    store: &dyn Store,
    within: Option<&Namespace>,
    spec: &str,
    most: usize,
    except: Option<&RunId>,
) -> Result<History, StoreError> {
    let _turn = READERS.acquire().await;
    let mut history = History::default();
    let (mut cells, mut taken) = (0, 0);
    let heads = heads(store, within, Some(spec)).await?;
    let finished = |head: &RunHead| head.end.is_some() && Some(&head.run) != except;
    for head in heads.into_iter().filter(finished) {
        cells += head.cells;
        if taken == most || (cells > CELLS && taken > 0) {
            break;
        }
        let Ok((state, _)) = replay(store, &head.run).await else {
            continue;
        };
        taken += 1;
        let now = state.finished.unwrap_or(Timestamp(0));
        let Ok(short) = tokio::task::spawn_blocking(move || Short::of(&state, now)).await else {
            continue;
        };
        history.add(short);
    }
    Ok(history)
}

/// Returns what earlier runs of its spec say about a run. Without any that can be read, it says nothing.
pub async fn forecast(store: &dyn Store, run: &RunId, spec: &str) -> Forecast {
    // Of the run's own namespace: others' times are theirs.
    let Ok(Some(row)) = store.run(run).await else {
        return Forecast::of(&History::default(), run.as_str());
    };
    let within = Some(&row.new.namespace);
    let history = history(store, within, spec, RUNS, Some(run)).await;
    Forecast::of(&history.unwrap_or_default(), run.as_str())
}
