#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::event::{AttemptRef, Event, EventKind};
use crate::invariant;
use crate::plan::Resources;
use proptest::prelude::*;

fn plan(cells: usize) -> Plan {
    let cell = |n: usize| PlannedCell {
        id: CellId(format!("{n:016x}")),
        name: format!("cell {n}"),
        matrix: IndexMap::new(),
        runs_on: vec![],
        experimental: false,
        resources: Resources::default(),
        timeout_ms: 1_000,
        attempts: 2,
        retries: 1,
    };
    Plan {
        digest: "d".into(),
        spec: "shop".into(),
        inputs: Map::new(),
        axes: vec![],
        coverage: vec![],
        cells: (0..cells).map(cell).collect(),
        max_parallel: None,
        queue_timeout_ms: None,
        max_skips: None,
        fail_fast: false,
        workspace: None,
        files: Default::default(),
    }
}

/// Writes a run's journal. It is legal except for what a test adds.
struct Writer {
    run: RunId,
    events: Vec<Event>,
    seq: std::collections::HashMap<(CellId, u32), u64>,
}

impl Writer {
    fn new(cells: usize) -> Self {
        let mut writer = Writer {
            run: "run".into(),
            events: vec![],
            seq: Default::default(),
        };
        writer.own(EventKind::RunSubmitted {
            plan: plan(cells),
            origin: Map::new(),
        });
        writer
    }

    fn at(&self) -> Timestamp {
        Timestamp(1_000 * i64::try_from(self.events.len()).unwrap())
    }

    fn own(&mut self, kind: EventKind) {
        self.events.push(Event {
            run: self.run.clone(),
            attempt: None,
            seq: 0,
            at: self.at(),
            mono_us: 0,
            kind,
        });
    }

    fn agent(&mut self, token: &Token, kind: EventKind) {
        let key = (token.cell.clone(), token.attempt);
        let seq = self.seq.entry(key).or_default();
        *seq += 1;
        let seq = *seq;
        self.events.push(Event {
            run: self.run.clone(),
            attempt: Some(AttemptRef {
                cell: token.cell.clone(),
                attempt: token.attempt,
            }),
            seq,
            at: self.at(),
            mono_us: 0,
            kind,
        });
    }

    fn token(&self, cell: usize, attempt: u32) -> Token {
        Token {
            run: self.run.clone(),
            cell: CellId(format!("{cell:016x}")),
            attempt,
            epoch: 1,
        }
    }

    fn offer(&mut self, cell: usize, attempt: u32) -> Token {
        let token = self.token(cell, attempt);
        self.own(EventKind::CellOffered {
            token: token.clone(),
            agent: "a".into(),
            agent_name: "a".into(),
            placement: Default::default(),
        });
        token
    }

    fn end(&mut self, token: &Token, outcome: Outcome) {
        self.agent(token, EventKind::AttemptStarted { agent: "a".into() });
        self.agent(
            token,
            EventKind::AttemptFinished {
                outcome,
                reason: None,
                timed_out: false,
                culprit: None,
            },
        );
    }

    fn finish(&mut self, token: &Token, outcome: Outcome) {
        self.own(EventKind::CellFinished {
            cell: token.cell.clone(),
            outcome,
            reason: None,
            attempts: token.attempt,
        });
    }

    fn torn_down(&mut self, token: &Token) {
        self.agent(
            token,
            EventKind::TornDown {
                removed: 1,
                left: vec![],
                kept: vec![],
                began: Timestamp(0),
            },
        );
    }

    fn state(&self) -> RunState {
        let mut state = RunState::new(self.run.clone());
        self.events.iter().for_each(|e| state.apply(e));
        state
    }
}

/// Returns a legal journal, steered by a list of choices.
fn journal(cells: usize, choices: &[u8]) -> Vec<Event> {
    let mut w = Writer::new(cells);
    for (n, choice) in choices.iter().enumerate() {
        let cell = n % cells;
        let state = w.state();
        let seen = &state.cells[cell];
        let newest = seen.attempts.last().map(|a| a.attempt).unwrap_or(0);
        let token = w.token(cell, newest);
        match (seen.status, choice % 6) {
            (CellStatus::Queued | CellStatus::Ended, 0..=3) => {
                w.offer(cell, newest + 1);
            }
            (CellStatus::Ended, _) => {
                let outcome = seen.newest().and_then(|a| a.outcome).unwrap();
                w.finish(&token, outcome);
            }
            (CellStatus::Offered, 0) => w.own(EventKind::CellReturned {
                token,
                reason: "busy".into(),
            }),
            (CellStatus::Offered, _) => w.own(EventKind::CellAccepted { token }),
            (CellStatus::Accepted | CellStatus::Running, 0) => w.own(EventKind::AttemptLost {
                token,
                reason: "gone".into(),
            }),
            (CellStatus::Accepted, _) => {
                w.agent(&token, EventKind::AttemptStarted { agent: "a".into() })
            }
            (CellStatus::Running, 1) => w.end(&token, Outcome::Failed),
            (CellStatus::Running, 2) => w.end(&token, Outcome::Passed),
            (CellStatus::Running, 3) => w.agent(
                &token,
                EventKind::StepStarted {
                    path: format!("setup/{n}"),
                    name: "step".into(),
                    action: "run".into(),
                },
            ),
            (CellStatus::Running, _) => w.agent(
                &token,
                EventKind::Note {
                    message: format!("note {n}"),
                },
            ),
            (CellStatus::Finished, 0) if newest > 0 => w.torn_down(&token),
            (CellStatus::Finished, 1) => w.own(EventKind::CancelRequested {
                reason: "enough".into(),
                grace_ms: Some(1_000),
                force: *choice >= 128,
            }),
            _ => {}
        }
    }
    if let Some(outcome) = w.state().run_outcome() {
        w.own(EventKind::RunFinished { outcome });
    }
    w.events
}

proptest! {
    #[test]
    fn a_prefix_read_again_changes_nothing(
        cells in 1usize..5, choices in proptest::collection::vec(any::<u8>(), 0..120), cut in any::<prop::sample::Index>()
    ) {
        let events = journal(cells, &choices);
        let mut state = RunState::new("run".into());
        events.iter().for_each(|e| state.apply(e));
        let before = state.clone();
        events[..cut.index(events.len() + 1)].iter().for_each(|e| state.apply(e));
        prop_assert_eq!(before, state);
    }

    #[test]
    fn an_event_applied_twice_counts_once_in_any_order(
        cells in 1usize..4, choices in proptest::collection::vec(any::<u8>(), 0..60), order in proptest::collection::vec(any::<prop::sample::Index>(), 0..120)
    ) {
        let events = journal(cells, &choices);
        let mut state = RunState::new("run".into());
        for index in order {
            let event = &events[index.index(events.len())];
            state.apply(event);
            let once = state.clone();
            state.apply(event);
            prop_assert_eq!(&once, &state);
        }
    }

    #[test]
    fn a_replay_through_json_equals_the_live_state(
        cells in 1usize..5, choices in proptest::collection::vec(any::<u8>(), 0..120)
    ) {
        let events = journal(cells, &choices);
        let mut live = RunState::new("run".into());
        let mut replayed = RunState::new("run".into());
        for event in &events {
            live.apply(event);
            let text = serde_json::to_string(event).unwrap();
            replayed.apply(&serde_json::from_str(&text).unwrap());
        }
        prop_assert_eq!(&live, &replayed);
        let state: RunState = serde_json::from_str(&serde_json::to_string(&live).unwrap()).unwrap();
        prop_assert_eq!(live, state);
    }

    #[test]
    fn legal_journals_keep_i2_at_every_prefix(
        cells in 1usize..5, choices in proptest::collection::vec(any::<u8>(), 0..120), cut in any::<prop::sample::Index>()
    ) {
        let events = journal(cells, &choices);
        let prefix = &events[..cut.index(events.len() + 1)];
        prop_assert!(invariant::one_outcome(&"run".into(), prefix).is_ok());
    }
}

#[test]
fn events_of_an_attempt_that_is_not_the_newest_are_fenced() {
    let mut w = Writer::new(1);
    let first = w.offer(0, 1);
    w.agent(&first, EventKind::AttemptStarted { agent: "a".into() });
    w.own(EventKind::AttemptLost {
        token: first.clone(),
        reason: "lease".into(),
    });
    let second = w.offer(0, 2);
    let before = w.state();
    w.end(&first, Outcome::Failed);
    w.torn_down(&first);
    assert_eq!(before, w.state());
    w.end(&second, Outcome::Passed);
    let state = w.state();
    assert_eq!(
        state.cells[0].newest().unwrap().outcome,
        Some(Outcome::Passed)
    );
    assert_eq!(state.cells[0].tries(), 2);
    assert_eq!(state.cells[0].lost(), 1);
}

#[test]
fn a_returned_offer_costs_no_try() {
    let mut w = Writer::new(1);
    let token = w.offer(0, 1);
    w.own(EventKind::CellReturned {
        token,
        reason: "no answer".into(),
    });
    assert_eq!(w.state().cells[0].tries(), 0);
    assert_eq!(w.state().cells[0].status, CellStatus::Queued);
}

#[test]
fn a_run_of_skipped_cells_only_is_skipped_and_never_green() {
    let mut w = Writer::new(2);
    for cell in 0..2 {
        let token = w.offer(cell, 1);
        w.end(&token, Outcome::Skipped);
        w.finish(&token, Outcome::Skipped);
    }
    assert_eq!(w.state().run_outcome(), Some(Outcome::Skipped));
}

#[test]
fn the_worst_cell_makes_the_run() {
    for (outcomes, run) in [
        ([Outcome::Passed, Outcome::Skipped], Outcome::Passed),
        ([Outcome::Passed, Outcome::Flaky], Outcome::Flaky),
        ([Outcome::Cancelled, Outcome::Failed], Outcome::Failed),
        ([Outcome::Errored, Outcome::Failed], Outcome::Errored),
    ] {
        let mut w = Writer::new(2);
        for (cell, outcome) in outcomes.into_iter().enumerate() {
            let token = w.offer(cell, 1);
            w.finish(&token, outcome);
        }
        assert_eq!(w.state().run_outcome(), Some(run));
    }
}

#[test]
fn a_run_with_more_skips_than_the_plan_allows_is_at_least_failed() {
    let skipped = |path: &str, unreached: bool| {
        let mut result = fold_result(path);
        (result.outcome, result.unreached) = (Outcome::Skipped, unreached);
        EventKind::StepFinished(Box::new(result))
    };
    let mut w = Writer::new(2);
    for (cell, outcome) in [Outcome::Passed, Outcome::Flaky].into_iter().enumerate() {
        let token = w.offer(cell, 1);
        // A group counts by the steps inside it, an instance of a loop for itself, a step never reached not at all.
        for path in ["p/0", "p/0/0", "p/0/1", "p/1[a/b]"] {
            w.agent(&token, skipped(path, false));
        }
        w.agent(&token, skipped("p/2", true));
        w.finish(&token, outcome);
    }
    let mut state = w.state();
    assert_eq!(state.skips(), 6);
    for (most, outcome) in [(6, Outcome::Flaky), (5, Outcome::Failed)] {
        state.plan.as_mut().unwrap().max_skips = Some(most);
        assert_eq!(state.run_outcome(), Some(outcome));
    }
    let first = state.cells.values_mut().next().unwrap();
    first.outcome = Some(Outcome::Errored);
    assert_eq!(state.run_outcome(), Some(Outcome::Errored));
}

#[test]
fn a_run_is_settled_when_the_last_stack_is_gone() {
    let mut w = Writer::new(1);
    let token = w.offer(0, 1);
    w.end(&token, Outcome::Passed);
    w.finish(&token, Outcome::Passed);
    w.own(EventKind::RunFinished {
        outcome: Outcome::Passed,
    });
    assert!(w.state().is_finished() && !w.state().is_settled());
    w.torn_down(&token);
    assert!(w.state().is_settled());
    assert_eq!(w.state().counts().passed, 1);
}

#[test]
fn the_innermost_step_in_progress_is_known() {
    let mut w = Writer::new(1);
    let token = w.offer(0, 1);
    w.agent(
        &token,
        EventKind::PhaseStarted {
            path: "setup".into(),
            name: "setup".into(),
        },
    );
    for path in ["setup/0", "setup/0/1"] {
        let kind = EventKind::StepStarted {
            path: path.into(),
            name: path.into(),
            action: "steps".into(),
        };
        w.agent(&token, kind);
    }
    assert_eq!(
        w.state().cells[0].attempts[0].step.as_deref(),
        Some("setup/0/1")
    );
    let result = fold_result("setup/0/1");
    w.agent(&token, EventKind::StepFinished(Box::new(result)));
    assert_eq!(
        w.state().cells[0].attempts[0].step.as_deref(),
        Some("setup/0")
    );
}

fn fold_result(path: &str) -> StepResult {
    StepResult {
        path: path.into(),
        name: path.into(),
        id: None,
        action: "steps".into(),
        outcome: Outcome::Passed,
        reason: None,
        unreached: false,
        timed_out: false,
        culprit: None,
        tries: 1,
        polls: 0,
        began: Timestamp(0),
        elapsed_us: 1,
        waits: vec![],
        verifies: vec![],
        checks: vec![],
        output: None,
        captured: Vec::new(),
        failure: None,
        restored: None,
    }
}

#[test]
fn the_notes_of_an_attempt_are_bounded_and_the_last_says_that_there_are_more() {
    for (count, bytes) in [(3_000, 1), (300, 10_000)] {
        let mut writer = Writer::new(1);
        let token = writer.offer(0, 1);
        for _ in 0..count {
            let message = "n".repeat(bytes);
            writer.agent(&token, EventKind::Note { message });
        }
        let mut state = RunState::new("run".into());
        writer.events.iter().for_each(|event| state.apply(event));
        let notes = &state.cells[0].attempts[0].notes;
        let held: usize = notes.iter().map(String::len).sum();
        assert!(notes.len() <= 1_001 && held < 300_000, "{held}");
        assert!(notes.last().unwrap().contains("more notes"));
        assert_eq!(state.cells[0].attempts[0].last_seq, count);
    }
}

#[test]
fn whoever_only_decides_keeps_no_output_and_everything_else() {
    let mut writer = Writer::new(1);
    let token = writer.offer(0, 1);
    let result = StepResult {
        output: Some(crate::event::Output {
            stdout: "s".repeat(4_096),
            ..Default::default()
        }),
        ..fold_result("setup/0")
    };
    writer.agent(&token, EventKind::StepFinished(Box::new(result)));
    let (mut whole, mut lean) = (RunState::new("run".into()), RunState::new("run".into()));
    for event in &writer.events {
        whole.apply(event);
        lean.apply_without_output(event);
    }
    let step = |state: &mut RunState| {
        let attempt = state.cells[0].attempts.last_mut().unwrap();
        attempt.steps["setup/0"]
            .result
            .as_mut()
            .unwrap()
            .output
            .take()
    };
    assert_eq!(step(&mut lean), None);
    assert!(step(&mut whole).is_some());
    assert_eq!(whole, lean);
}

#[test]
fn a_step_that_is_tried_again_keeps_only_the_cases_of_its_last_try() {
    let mut w = Writer::new(1);
    let token = w.offer(0, 1);
    w.agent(&token, EventKind::AttemptStarted { agent: "a".into() });
    let started = |path: &str, action: &str| EventKind::StepStarted {
        path: path.into(),
        name: path.into(),
        action: action.into(),
    };
    w.agent(&token, started("test/0", "exec"));
    w.agent(&token, started("test/0/0", crate::event::CASE));
    w.agent(&token, started("test/0/1", crate::event::CASE));
    // A suite beside it whose path begins alike.
    w.agent(&token, started("test/01/0", crate::event::CASE));
    w.agent(&token, started("test/0", "exec"));
    w.agent(&token, started("test/0/0", crate::event::CASE));
    let state = w.state();
    let steps: Vec<&str> = state.cells[0]
        .newest()
        .unwrap()
        .steps
        .keys()
        .map(|path| &**path)
        .collect();
    assert_eq!(steps, ["test/0", "test/01/0", "test/0/0"]);
}
