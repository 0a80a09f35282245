//! Copies a journal into another storage.

use super::store::{RunHead, RunRow, Store, StoreError, Write};
use phalanx_shared::id::RunId;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeSet;

/// Events in one commit.
const EVENTS: u32 = 1_000;

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Number of runs.
    pub runs: u64,
    /// Number of events.
    pub events: u64,
    /// Runs that can't be read, with the reason. They weren't copied.
    pub unread: Vec<(RunId, String)>,
}

/// Copies all runs with their events, and the durations of cells, into an empty storage. Terms there are later than all
/// terms here, so nothing that agents hold is taken for something of a later term.
///
/// # Errors
/// The target isn't empty, or one of them fails. What was copied until then stays in the target.
pub async fn copy(from: &dyn Store, to: &dyn Store, now: Timestamp) -> Result<Copied, StoreError> {
    if !to.runs(1, false, None).await?.is_empty() {
        let why = "it has runs already: copy into an empty one".to_owned();
        return Err(StoreError::Refused(why));
    }
    to.raise_epoch(from.newest_epoch().await?).await?;
    to.begin_term(now).await?;
    let mut copied = Copied::default();
    let mut specs = BTreeSet::new();
    let mut heads = from.runs(u32::MAX, false, None).await?;
    heads.reverse();
    for head in heads {
        specs.insert(head.spec.clone());
        match copy_run(from, to, &head).await {
            Ok(events) => {
                copied.runs += 1;
                copied.events += events;
            }
            Err(StoreError::Read(why)) => {
                let run = head.run.clone();
                to.commit(&[Write::Forget { run }]).await?;
                copied.unread.push((head.run, why));
            }
            Err(error) => return Err(error),
        }
    }
    for spec in specs {
        let past = from.history(&spec).await?.into_iter();
        // The order is all that matters of their times.
        let durations = past.zip(0..).map(|(past, at)| Write::Duration {
            spec: spec.clone(),
            past,
            at: Timestamp(at),
        });
        to.commit(&durations.collect::<Vec<_>>()).await?;
    }
    Ok(copied)
}

/// Copies a run. Returns the number of its events.
async fn copy_run(from: &dyn Store, to: &dyn Store, head: &RunHead) -> Result<u64, StoreError> {
    let gone = || StoreError::Read("it is gone".to_owned());
    let row = from.run(&head.run).await?.ok_or_else(gone)?;
    let RunRow {
        new,
        end,
        settled,
        problem,
    } = row;
    if let Some(problem) = problem {
        return Err(StoreError::Read(problem));
    }
    let run = new.run.clone();
    to.commit(&[Write::Run(Box::new(new))]).await?;
    let mut count = 0;
    loop {
        let events = from.events(&run, count + 1, EVENTS).await?;
        if events.is_empty() {
            break;
        }
        count += events.len() as u64;
        let events: Vec<Write> = events.into_iter().map(Write::Event).collect();
        to.commit(&events).await?;
    }
    let mut last = Vec::new();
    if let Some(end) = end {
        let run = run.clone();
        last.push(Write::Finished { run, end });
    }
    if settled {
        last.push(Write::Settled { run });
    }
    to.commit(&last).await?;
    Ok(count)
}
