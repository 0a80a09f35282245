//! The steps of an attempt with times that fit together: events carry times of two clocks, which differ a little.

use phalanx_shared::event::ServiceState;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, StepState};
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::WaitCause;

/// Most groups around a step that are looked for.
pub(super) const DEPTH: usize = 128;

/// A step, group or phase. Times are in microseconds since the submission.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Index of the group or phase around it.
    pub parent: Option<usize>,
    pub begin: u64,
    pub end: u64,
    /// Time at its beginning in which it waited for services.
    pub readiness: u64,
    /// The last pause of its poll.
    pub poll: u64,
    /// The pauses between its tries.
    pub retry: u64,
    pub tries: u32,
    /// Something is inside it.
    pub group: bool,
    /// What is inside it begins at once.
    pub parallel: bool,
    /// It starts or stops services.
    pub container: bool,
    /// It did nothing.
    pub skipped: bool,
}

impl Row {
    /// Returns when its action began.
    pub fn acts(&self) -> u64 {
        self.begin.saturating_add(self.readiness).min(self.end)
    }
}

/// Returns the steps of an attempt in the order in which they began. Those that go on end at `until`.
pub(super) fn rows(attempt: &AttemptState, until: u64, us: impl Fn(Timestamp) -> u64) -> Vec<Row> {
    let ready = ready_times(attempt, &us);
    let mut rows: Vec<Row> = Vec::with_capacity(attempt.steps.len());
    for (index, (path, step)) in attempt.steps.iter().enumerate() {
        let parent = parent_of(attempt, path).filter(|parent| *parent < index);
        if let Some(around) = parent.and_then(|parent| rows.get_mut(parent)) {
            around.group = true;
        }
        rows.push(row(step, parent, until, &us));
    }
    // A journal without this event doesn't say how long its steps waited for services.
    if attempt.opened.is_none() {
        for row in rows.iter_mut().filter(|row| !row.container) {
            let within = ready.partition_point(|at| *at < row.end);
            let last = within.checked_sub(1).and_then(|last| ready.get(last));
            row.readiness = last.map_or(0, |last| last.saturating_sub(row.begin));
        }
    }
    for row in rows.iter_mut().filter(|row| row.group) {
        (row.readiness, row.poll) = (0, 0);
    }
    fit(&mut rows);
    rows
}

/// Returns the times at which services became ready, in order.
fn ready_times(attempt: &AttemptState, us: impl Fn(Timestamp) -> u64) -> Vec<u64> {
    let histories = attempt.services.values().flat_map(|view| &view.history);
    let ready = histories.filter(|(state, ..)| *state == ServiceState::Ready);
    let mut times: Vec<u64> = ready.map(|(_, _, at)| us(*at)).collect();
    times.sort_unstable();
    times
}

/// Returns the index of the nearest group or phase around a path. A `foreach` key may contain a slash, so a prefix
/// counts only if it is known.
pub(super) fn parent_of(attempt: &AttemptState, path: &str) -> Option<usize> {
    path.rmatch_indices(['/', '['])
        .take(DEPTH)
        .find_map(|(at, _)| attempt.steps.get_index_of(path.get(..at)?))
}

fn row(step: &StepState, parent: Option<usize>, until: u64, us: impl Fn(Timestamp) -> u64) -> Row {
    let begin = us(step.began);
    let result = step.result.as_ref();
    let end = result.map_or(until, |result| begin.saturating_add(result.elapsed_us));
    let waits = result.map(|result| result.waits.as_slice());
    let wait = |cause| {
        let waits = waits.unwrap_or_default().iter();
        let waits = waits.filter(|wait| wait.cause == cause);
        waits.fold(0, |sum: u64, wait| sum.saturating_add(wait.us))
    };
    let skipped = result.is_some_and(|result| result.outcome == Outcome::Skipped);
    Row {
        parent,
        begin,
        end: end.max(begin),
        readiness: wait(WaitCause::Readiness),
        poll: wait(WaitCause::PollInterval),
        retry: wait(WaitCause::RetryPause),
        tries: result.map_or(1, |result| result.tries),
        group: step.action == "phase",
        parallel: step.action == "parallel",
        container: step.action == "container",
        skipped: skipped && end <= begin,
    }
}

/// Moves beginnings behind the end of what runs before, and ends behind those of what is inside.
fn fit(rows: &mut [Row]) {
    for index in (0..rows.len()).rev() {
        let Some((parent, end)) = rows.get(index).map(|row| (row.parent, row.end)) else {
            continue;
        };
        if let Some(around) = parent.and_then(|parent| rows.get_mut(parent)) {
            around.end = around.end.max(end);
        }
    }
    let mut ends = vec![None; rows.len()];
    let mut phases = None;
    for index in 0..rows.len() {
        let Some(parent) = rows.get(index).map(|row| row.parent) else {
            continue;
        };
        let around = parent.and_then(|parent| rows.get(parent));
        let parallel = around.is_some_and(|around| around.parallel);
        let earliest = around.map(|around| around.begin).unwrap_or(0);
        let before = match parent {
            _ if parallel => None,
            Some(parent) => ends.get(parent).copied().flatten(),
            None => phases,
        };
        let Some(row) = rows.get_mut(index).filter(|row| !row.skipped) else {
            continue;
        };
        row.begin = row.begin.max(earliest).max(before.unwrap_or(0));
        row.end = row.end.max(row.begin);
        let end = Some(row.end);
        match parent.and_then(|parent| ends.get_mut(parent)) {
            Some(last) => *last = (*last).max(end),
            None => phases = phases.max(end),
        }
    }
}
