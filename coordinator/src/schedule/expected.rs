//! Predicts how long a cell will take, from earlier runs of the same cell or of similar cells.
//!
//! Similar cells are cells of the same spec (by name). The closest ones share all axis values but one. Without any of
//! these, the prediction is the overall average, plus the deviation from it for each of the cell's axis values. Pure;
//! the journal keeps the history.

use crate::journal::{Past, PastSnapshot};
use phalanx_shared::event::SnapshotState;
use phalanx_shared::id::CellId;
use phalanx_shared::plan::PlannedCell;
use phalanx_shared::run_state::AttemptState;
use serde_json::Value;
use std::collections::HashMap;

#[derive(Clone, Copy, Default)]
struct Mean {
    sum: u64,
    n: u64,
}

impl Mean {
    fn add(&mut self, value: u64) {
        self.sum = self.sum.saturating_add(value);
        self.n += 1;
    }
    fn get(self) -> Option<u64> {
        self.sum.checked_div(self.n)
    }
}

/// Known durations of the cells of one spec: with a restored snapshot, and without one.
#[derive(Default)]
pub struct History {
    missed: Model,
    restored: Model,
    /// From the start of a cell until others could restore what it had made.
    making: Model,
}

impl History {
    /// Builds the history from earlier executions, newest last.
    pub fn learn(past: impl IntoIterator<Item = Past>) -> Self {
        let mut history = History::default();
        for past in past {
            match past.snapshot {
                Some(PastSnapshot::Restored) => history.restored.add(&past, past.elapsed_ms),
                Some(PastSnapshot::Missed { making_ms }) => {
                    if let Some(making_ms) = making_ms {
                        history.making.add(&past, making_ms);
                    }
                    history.missed.add(&past, past.elapsed_ms);
                }
                None => history.missed.add(&past, past.elapsed_ms),
            }
        }
        history
    }

    /// Returns the expected duration in milliseconds if the cell restores no snapshot; 0 if no similar cell ever ran.
    pub fn expected_ms(&self, cell: &PlannedCell) -> u64 {
        let missed = self.missed.expected(cell);
        // If all of them restored one, their time is the best guess.
        missed.or_else(|| self.restored_ms(cell)).unwrap_or(0)
    }

    /// Returns the expected duration in milliseconds if the cell restores a snapshot; `None` if no similar cell ever did.
    pub fn restored_ms(&self, cell: &PlannedCell) -> Option<u64> {
        self.restored.expected(cell)
    }

    /// Returns how long it takes from the start of the cell until others can restore what it has made, in milliseconds;
    /// `None` if no similar cell ever made a snapshot.
    pub fn making_ms(&self, cell: &PlannedCell) -> Option<u64> {
        self.making.expected(cell)
    }
}

/// Returns what an attempt did with its snapshot, for the history. An error if its time tells nothing about later ones: it
/// waited for another cell, or ran the steps after a snapshot turned out to be broken.
pub fn snapshot_of(attempt: &AttemptState) -> Result<Option<PastSnapshot>, Untypical> {
    let states = |state| attempt.snapshots.iter().find(|seen| seen.state == state);
    if [SnapshotState::Waiting, SnapshotState::Discarded]
        .into_iter()
        .any(|state| states(state).is_some())
    {
        return Err(Untypical);
    }
    if states(SnapshotState::Restored).is_some() {
        return Ok(Some(PastSnapshot::Restored));
    }
    if attempt.snapshots.is_empty() {
        return Ok(None);
    }
    let making_ms = states(SnapshotState::Saved).and_then(|saved| {
        let took = saved.ended.since(attempt.started?);
        u64::try_from(took.as_millis()).ok()
    });
    Ok(Some(PastSnapshot::Missed { making_ms }))
}

/// The time of an attempt tells nothing about later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untypical;

/// Known durations of one kind.
#[derive(Default)]
struct Model {
    same: HashMap<CellId, u64>,
    /// Mean by the axis left out and the values of all others.
    siblings: HashMap<(String, String), Mean>,
    /// Mean by one axis and its value.
    values: HashMap<(String, String), Mean>,
    all: Mean,
}

impl Model {
    fn add(&mut self, past: &Past, ms: u64) {
        self.all.add(ms);
        let axes: Vec<(&str, &Value)> = past.matrix.iter().map(|(k, v)| (k.as_str(), v)).collect();
        for (axis, value) in &axes {
            let one = ((*axis).to_owned(), value.to_string());
            self.values.entry(one).or_default().add(ms);
            let others = all_but(&axes, axis);
            self.siblings.entry(others).or_default().add(ms);
        }
        self.same.insert(past.cell.clone(), ms);
    }

    /// Returns the expected duration of a cell; `None` if no similar cell ever ran.
    fn expected(&self, cell: &PlannedCell) -> Option<u64> {
        if let Some(same) = self.same.get(&cell.id) {
            return Some(*same);
        }
        let all = self.all.get()?;
        let axes: Vec<(&str, &Value)> = cell.matrix.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let mut nearest = Mean::default();
        for (axis, _) in &axes {
            if let Some(mean) = self.siblings.get(&all_but(&axes, axis)) {
                nearest.sum = nearest.sum.saturating_add(mean.sum);
                nearest.n += mean.n;
            }
        }
        let nearest = nearest.get();
        Some(nearest.unwrap_or_else(|| self.by_single_values(&axes, all)))
    }

    fn by_single_values(&self, axes: &[(&str, &Value)], all: u64) -> u64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let mut expected = signed(all);
        for (axis, value) in axes {
            let key = ((*axis).to_owned(), value.to_string());
            if let Some(mean) = self.values.get(&key).and_then(|mean| mean.get()) {
                expected = expected.saturating_add(signed(mean).saturating_sub(signed(all)));
            }
        }
        u64::try_from(expected.max(1)).unwrap_or(1)
    }
}

/// Returns a key of all axis values but one.
fn all_but(axes: &[(&str, &Value)], left_out: &str) -> (String, String) {
    let mut rest: Vec<String> = axes
        .iter()
        .filter(|(axis, _)| *axis != left_out)
        .map(|(axis, value)| format!("{axis}={value}"))
        .collect();
    rest.sort_unstable();
    (left_out.to_owned(), rest.join("\u{1}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use phalanx_shared::event::{AttemptRef, Event, EventKind};
    use phalanx_shared::id::Token;
    use phalanx_shared::plan::{Plan, Resources};
    use phalanx_shared::run_state::RunState;
    use phalanx_shared::time::Timestamp;

    /// A plan of one cell.
    fn plan() -> Plan {
        Plan {
            digest: "d".into(),
            spec: "shop".into(),
            inputs: Default::default(),
            axes: vec![],
            coverage: vec![],
            cells: vec![PlannedCell {
                id: "c".into(),
                name: "c".into(),
                matrix: Default::default(),
                runs_on: vec![],
                experimental: false,
                resources: Resources::default(),
                timeout_ms: 1_000,
                attempts: 1,
                retries: 0,
            }],
            max_parallel: None,
            queue_timeout_ms: None,
            max_skips: None,
            fail_fast: false,
            workspace: None,
            files: Default::default(),
        }
    }

    /// Folds an attempt that started at second 10, with changes of its snapshot at the seconds that follow.
    fn attempt(states: &[(SnapshotState, i64)]) -> AttemptState {
        let at = |second: i64| Timestamp(second * 1_000_000);
        let mut state = RunState::new("r".into());
        let token = Token {
            run: "r".into(),
            cell: "c".into(),
            attempt: 1,
            epoch: 1,
        };
        let mut seq = 0;
        let mut apply = |second, kind: EventKind| {
            let of_agent = !matches!(
                kind,
                EventKind::RunSubmitted { .. } | EventKind::CellOffered { .. }
            );
            seq += u64::from(of_agent);
            state.apply(&Event {
                run: "r".into(),
                attempt: of_agent.then(|| AttemptRef {
                    cell: "c".into(),
                    attempt: 1,
                }),
                seq: if of_agent { seq } else { 0 },
                at: at(second),
                mono_us: 0,
                kind,
            });
        };
        let (plan, origin) = (plan(), Default::default());
        apply(1, EventKind::RunSubmitted { plan, origin });
        let offered = EventKind::CellOffered {
            token,
            agent: "a".into(),
            agent_name: "a".into(),
            placement: Default::default(),
        };
        apply(2, offered);
        apply(10, EventKind::AttemptStarted { agent: "a".into() });
        for (state, second) in states {
            let changed = EventKind::SnapshotChanged {
                path: "setup/0".to_owned(),
                key: String::new(),
                state: *state,
                began: at(*second),
                run: None,
                bytes: 0,
                reason: None,
            };
            apply(*second, changed);
        }
        state.cells[0].newest().unwrap().clone()
    }

    #[test]
    fn an_attempt_counts_as_what_it_did_with_its_snapshot_unless_it_waited_or_began_anew() {
        use SnapshotState::{Discarded, Missed, Restored, Saved, Unsaved, Waiting};
        let of = |states: &[(SnapshotState, i64)]| snapshot_of(&attempt(states));
        let missed = |making_ms| Ok(Some(PastSnapshot::Missed { making_ms }));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(Restored, 12)]), Ok(Some(PastSnapshot::Restored)));
        assert_eq!(of(&[(Missed, 12), (Saved, 70)]), missed(Some(60_000)));
        assert_eq!(of(&[(Missed, 12), (Unsaved, 70)]), missed(None));
        assert_eq!(of(&[(Missed, 12)]), missed(None));
        assert_eq!(of(&[(Waiting, 12), (Restored, 40)]), Err(Untypical));
        let broken = [(Restored, 12), (Discarded, 20), (Saved, 90)];
        assert_eq!(of(&broken), Err(Untypical));
    }
}
