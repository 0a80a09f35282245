#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::core::{Effect, Input, RunCore};
use super::verdict::LOSSES;
use crate::dispatch::contract::{AgentInfo, InventoryItem};
use crate::dispatch::reason::{AgentGone, DeclineReason, LossCause};
use crate::dispatch::sequence::{InSequence, Received, Sequence};
use crate::schedule::core::{
    CellRequest, Effect as Place, Input as Schedule, RunLimits, Scheduler,
};
use indexmap::IndexMap;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{AttemptRef, Event, EventKind, Recorded};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::invariant;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Plan, PlannedCell, Resources};
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use proptest::prelude::*;
use serde_json::Map;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Passes events as the check of sequence numbers does.
fn in_sequence(events: Vec<Event>) -> InSequence {
    let before = events[0].seq - 1;
    match Received::up_to(before).take(events) {
        Sequence::New(events) => events,
        other => panic!("{other:?}"),
    }
}

/// A plan of cells `c0`, `c1` …
pub fn plan(cells: usize, change: impl Fn(&mut PlannedCell)) -> Plan {
    let cell = |n: usize| {
        let mut cell = PlannedCell {
            id: CellId(format!("c{n}")),
            name: format!("cell {n}"),
            matrix: IndexMap::new(),
            runs_on: vec![],
            experimental: false,
            resources: Resources::default(),
            timeout_ms: 1_000,
            attempts: 1,
            retries: 0,
        };
        change(&mut cell);
        cell
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

/// An attempt as its agent sees it.
#[derive(Clone, Debug, Default)]
struct Held {
    accepted: bool,
    events: Vec<Event>,
    /// Number of events that the coordinator has received.
    told: usize,
    cancelled: bool,
}

/// A run, a scheduler and agents, without actors, disk or clock.
struct World {
    core: RunCore,
    scheduler: Scheduler,
    journal: Vec<Recorded>,
    agents: BTreeMap<AgentId, BTreeMap<Token, Held>>,
    now: i64,
    epoch: u64,
    settled: bool,
    effects: VecDeque<Effect>,
    /// Every attempt that was ever offered to an agent.
    offered: Vec<Token>,
}

impl World {
    fn new(plan: Plan, agents: usize) -> Self {
        let run: RunId = "r".into();
        let submitted = Event {
            run: run.clone(),
            attempt: None,
            seq: 0,
            at: Timestamp(0),
            mono_us: 0,
            kind: EventKind::RunSubmitted {
                plan,
                origin: Map::new(),
            },
        };
        let mut world = World {
            core: RunCore::recovered(RunState::new(run), 0, 1, Duration::from_millis(100)),
            scheduler: Scheduler::default(),
            journal: vec![Recorded {
                position: 1,
                event: submitted,
            }],
            agents: BTreeMap::new(),
            now: 0,
            epoch: 0,
            settled: false,
            effects: VecDeque::new(),
            offered: vec![],
        };
        world.restart();
        for n in 0..agents {
            world.connect(&AgentId(format!("a{n}")));
        }
        world
    }

    /// Starts a new coordinator on the same journal. Agents aren't connected yet.
    fn restart(&mut self) {
        self.epoch += 1;
        let mut state = RunState::new("r".into());
        self.journal.iter().for_each(|r| state.apply(&r.event));
        assert!(
            self.epoch == 1 || &state == self.core.state(),
            "replay equals live"
        );
        let position = self.journal.len() as u64;
        self.core = RunCore::recovered(state, position, self.epoch, Duration::from_millis(100));
        self.scheduler = Scheduler::default();
        self.effects.clear();
        self.settled = false;
        let limits = RunLimits {
            priority: 0,
            max_parallel: self.core.state().plan.as_ref().unwrap().max_parallel,
        };
        self.schedule(Schedule::RunAdded {
            run: "r".into(),
            limits,
        });
        self.tell(Input::Secrets {
            missing: Vec::new(),
        });
    }

    fn connect(&mut self, agent: &AgentId) {
        let held = self.agents.entry(agent.clone()).or_default();
        let inventory = held.iter().map(|(token, held)| InventoryItem {
            token: token.clone(),
            last_seq: held.events.len() as u64,
            finished: false,
        });
        let inventory = inventory.collect();
        self.tell(Input::Connected {
            agent: agent.clone(),
            inventory,
        });
    }

    fn tell(&mut self, input: Input) {
        self.now += 1_000;
        let effects = self.core.handle(input, Timestamp(self.now));
        self.carry(effects);
        while let Some(effect) = self.effects.pop_front() {
            self.perform(effect);
        }
        assert_eq!(self.scheduler.check(), Ok(()));
    }

    fn carry(&mut self, effects: Vec<Effect>) {
        let mut journaling = true;
        for effect in effects {
            let Effect::Journal(recorded) = effect else {
                journaling = false;
                self.effects.push_back(effect);
                continue;
            };
            assert!(journaling, "events come before everything else");
            assert_eq!(
                recorded.position,
                self.journal.len() as u64 + 1,
                "positions have no holes"
            );
            self.journal.push(recorded);
        }
    }

    fn request(&self, token: Token) -> CellRequest {
        let planned = self.core.state().planned(&token.cell).unwrap();
        CellRequest {
            avoids: Vec::new(),
            labels: vec![],
            resources: planned.resources,
            images: vec![],
            expected_ms: 0,
            token,
            needs: Vec::new(),
            wish: None,
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Queue(tokens) => {
                let cells = tokens.into_iter().map(|t| self.request(t)).collect();
                self.schedule(Schedule::Queued {
                    run: "r".into(),
                    cells,
                });
            }
            Effect::Withdraw(tokens) => self.schedule(Schedule::Withdrawn {
                run: "r".into(),
                tokens,
            }),
            Effect::Accepted(token) => self.schedule(Schedule::Accepted { token }),
            Effect::Declined { token, reason } => {
                self.schedule(Schedule::Declined { token, reason })
            }
            Effect::Release(token) => self.schedule(Schedule::Released { token }),
            Effect::Offer { token, agent } => {
                assert!(!self.offered.contains(&token), "no token is given twice");
                self.offered.push(token.clone());
                self.agents
                    .entry(agent)
                    .or_default()
                    .insert(token, Held::default());
            }
            Effect::Cancel { token, .. } => {
                if let Some(held) = self.agents.values_mut().find_map(|a| a.get_mut(&token)) {
                    held.cancelled = true;
                }
            }
            Effect::Retire(token) => {
                self.agents.values_mut().for_each(|a| {
                    a.remove(&token);
                });
            }
            Effect::Resume { agent, attempts } => {
                let held = self.agents.get_mut(&agent).unwrap();
                held.retain(|token, _| attempts.iter().any(|goes_on| goes_on.token == *token));
                for goes_on in &attempts {
                    let held = held.get_mut(&goes_on.token).unwrap();
                    held.told = usize::try_from(goes_on.durable_seq).unwrap();
                }
                let holding = attempts.into_iter();
                let holding = holding.map(|goes_on| self.request(goes_on.token)).collect();
                let info = AgentInfo {
                    id: agent.clone(),
                    name: agent.to_string(),
                    version: "0".into(),
                    labels: vec![],
                    slots: 2,
                    resources: Resources::default(),
                    images: vec![],
                    policy: None,
                    ahead: Some(2),
                    snapshots: Default::default(),
                };
                self.schedule(Schedule::AgentUp {
                    agent: info,
                    holding,
                });
            }
            Effect::Finished(_) => {}
            Effect::Journal(_) => unreachable!("it was journaled before"),
            Effect::Settled => {
                self.settled = true;
                self.schedule(Schedule::RunRemoved { run: "r".into() });
            }
        }
    }

    fn schedule(&mut self, input: Schedule) {
        let now = Duration::from_micros(self.now.unsigned_abs());
        for effect in self.scheduler.handle(input, now) {
            if let Place::Assign { token, agent } = effect {
                let agent_name = agent.to_string();
                let placement = self.scheduler.placement(&token);
                let assigned = Input::Runnable {
                    token,
                    agent,
                    agent_name,
                    placement,
                };
                let decision = self.core.handle(assigned, Timestamp(self.now));
                self.carry(decision);
            }
        }
    }

    fn holdings(&self) -> Vec<(AgentId, Token)> {
        let pairs = self
            .agents
            .iter()
            .flat_map(|(a, held)| held.keys().map(|t| (a.clone(), t.clone())));
        pairs.collect()
    }

    /// Lets the agent take its next step with an attempt: accept, start, end, clean up.
    fn step(&mut self, agent: &AgentId, token: &Token, outcome: Outcome) {
        let held = self.agents.get_mut(agent).unwrap().get_mut(token).unwrap();
        if !held.accepted {
            held.accepted = true;
            return self.tell(Input::Accepted {
                token: token.clone(),
            });
        }
        let outcome = if held.cancelled {
            Outcome::Cancelled
        } else {
            outcome
        };
        let kind = match held.events.len() {
            0 => EventKind::AttemptStarted {
                agent: agent.clone(),
            },
            1 => EventKind::AttemptFinished {
                outcome,
                reason: None,
                timed_out: false,
                culprit: None,
            },
            2 => EventKind::TornDown {
                removed: 1,
                left: vec![],
                kept: vec![],
                began: Timestamp(0),
            },
            _ => return self.report(agent, token),
        };
        let seq = held.events.len() as u64 + 1;
        let attempt = AttemptRef {
            cell: token.cell.clone(),
            attempt: token.attempt,
        };
        held.events.push(Event {
            run: "r".into(),
            attempt: Some(attempt),
            seq,
            at: Timestamp(self.now),
            mono_us: 0,
            kind,
        });
        self.report(agent, token);
    }

    /// Sends all events not sent yet, and one event again.
    fn report(&mut self, agent: &AgentId, token: &Token) {
        let held = self.agents.get_mut(agent).unwrap().get_mut(token).unwrap();
        let events = held.events[held.told.saturating_sub(1)..].to_vec();
        let before = u64::try_from(held.told).unwrap();
        held.told = held.events.len();
        let token = token.clone();
        if let Sequence::New(events) = Received::up_to(before).take(events) {
            self.tell(Input::Events { token, events });
        }
    }

    fn lose(&mut self, agent: &AgentId) {
        self.agents.insert(agent.clone(), BTreeMap::new());
        self.schedule(Schedule::AgentLost {
            agent: agent.clone(),
        });
        self.tell(Input::AgentLost {
            agent: agent.clone(),
            gone: AgentGone::NotBack,
        });
    }

    /// Lets every agent finish all of its attempts.
    fn finish(&mut self, outcome: Outcome) {
        for _ in 0..10_000 {
            if self.settled {
                return;
            }
            let (agent, token) = self
                .holdings()
                .into_iter()
                .next()
                .unwrap_or_else(|| panic!("nothing moves: {:?}", self.core.state().counts()));
            self.step(&agent, &token, outcome);
        }
        panic!("it doesn't end");
    }

    fn outcome(&self, cell: &str) -> (Option<Outcome>, String) {
        let seen = &self.core.state().cells[&CellId::from(cell)];
        (seen.outcome, seen.reason.clone().unwrap_or_default())
    }

    fn check(&self) {
        let events = self.journal.iter().map(|r| &r.event);
        invariant::one_outcome(&"r".into(), events).unwrap();
    }
}

#[test]
fn every_cell_of_a_plain_run_passes_once() {
    let mut w = World::new(plan(7, |_| {}), 2);
    w.finish(Outcome::Passed);
    assert_eq!(w.core.state().run_outcome(), Some(Outcome::Passed));
    assert_eq!(w.offered.len(), 7);
    w.check();
}

#[test]
fn an_errored_attempt_is_tried_as_often_as_the_spec_says() {
    let mut w = World::new(plan(1, |c| c.attempts = 3), 1);
    w.finish(Outcome::Errored);
    assert_eq!(w.core.state().cells[0].tries(), 3);
    assert_eq!(w.outcome("c0").0, Some(Outcome::Errored));
}

#[test]
fn a_failed_cell_is_not_tried_again_unless_retries_say_so_and_passing_then_is_flaky() {
    let mut w = World::new(plan(1, |_| {}), 1);
    w.finish(Outcome::Failed);
    assert_eq!(w.core.state().cells[0].tries(), 1);
    let mut w = World::new(plan(1, |c| c.retries = 1), 1);
    let (agent, token) = w.holdings().remove(0);
    (0..4).for_each(|_| w.step(&agent, &token, Outcome::Failed));
    w.finish(Outcome::Passed);
    assert_eq!(
        w.outcome("c0"),
        (Some(Outcome::Flaky), "failed once, then passed".into())
    );
}

#[test]
fn the_next_try_begins_when_nothing_of_the_last_is_left() {
    let mut w = World::new(plan(1, |c| c.retries = 1), 1);
    let (agent, token) = w.holdings().remove(0);
    (0..3).for_each(|_| w.step(&agent, &token, Outcome::Failed));
    assert_eq!(w.offered.len(), 1);
    w.step(&agent, &token, Outcome::Failed);
    assert_eq!(w.offered.len(), 2);
}

#[test]
fn the_outcome_does_not_wait_for_clean_up_but_the_end_does() {
    let mut w = World::new(plan(1, |_| {}), 1);
    let (agent, token) = w.holdings().remove(0);
    (0..3).for_each(|_| w.step(&agent, &token, Outcome::Passed));
    assert!(w.core.state().is_finished() && !w.settled);
    w.step(&agent, &token, Outcome::Passed);
    assert!(w.settled);
}

#[test]
fn a_lost_agent_costs_its_cells_another_try_and_the_second_quarantines_them() {
    let mut w = World::new(plan(1, |_| {}), 2);
    for _ in 0..2 {
        let (agent, token) = w.holdings().remove(0);
        (0..2).for_each(|_| w.step(&agent, &token, Outcome::Passed));
        w.lose(&agent);
    }
    let (outcome, reason) = w.outcome("c0");
    assert_eq!(outcome, Some(Outcome::Errored));
    assert!(reason.starts_with("quarantined: 2 agents"), "{reason}");
    w.check();
}

#[test]
fn an_agent_lost_again_and_again_counts_once_but_not_for_ever() {
    let mut w = World::new(plan(1, |_| {}), 1);
    for _ in 0..LOSSES {
        assert_eq!(w.outcome("c0").0, None);
        let (agent, token) = w.holdings().remove(0);
        (0..2).for_each(|_| w.step(&agent, &token, Outcome::Passed));
        w.lose(&agent);
        w.connect(&agent);
    }
    let (outcome, reason) = w.outcome("c0");
    assert_eq!(outcome, Some(Outcome::Errored));
    let said = format!("quarantined: its agent was lost {LOSSES} times");
    assert!(reason.starts_with(&said), "{reason}");
    w.check();
}

#[test]
fn an_attempt_that_was_taken_from_its_agent_is_lost_and_the_agent_isnt_asked_at_once() {
    let mut w = World::new(plan(1, |_| {}), 1);
    let (agent, token) = w.holdings().remove(0);
    (0..2).for_each(|_| w.step(&agent, &token, Outcome::Passed));
    let cause = LossCause::Overdue { cancelled: false };
    let reason = cause.to_string();
    w.tell(Input::Revoked {
        token: token.clone(),
        cause: cause.clone(),
    });
    let cell = &w.core.state().cells[&CellId::from("c0")];
    let lost = cell.attempts.last().unwrap();
    assert!(
        lost.lost && lost.reason.as_ref() == Some(&reason),
        "{lost:?}"
    );
    assert!(w.holdings().is_empty(), "its agent rests");
    // A late repetition changes nothing.
    let before = w.journal.len();
    w.tell(Input::Revoked { token, cause });
    assert_eq!(w.journal.len(), before);
}

#[test]
fn fail_fast_cancels_what_waits_and_what_runs_and_the_run_is_failed() {
    let mut plan = plan(6, |_| {});
    plan.fail_fast = true;
    let mut w = World::new(plan, 1);
    let (agent, token) = w.holdings().remove(0);
    (0..3).for_each(|_| w.step(&agent, &token, Outcome::Failed));
    w.finish(Outcome::Passed);
    assert_eq!(w.core.state().run_outcome(), Some(Outcome::Failed));
    assert_eq!(w.core.state().counts().cancelled, 5);
    assert_eq!(
        w.core.state().cancel.as_deref(),
        Some("fail-fast: cell 0 failed")
    );
}

#[test]
fn a_cancel_ends_waiting_cells_at_once_and_running_ones_by_their_agents_word() {
    let mut w = World::new(plan(5, |c| c.retries = 3), 1);
    let order = CancelOrder {
        reason: "enough".into(),
        grace: Duration::from_millis(5),
        force: false,
    };
    w.tell(Input::Cancel(order));
    assert_eq!(w.core.state().counts().cancelled, 3);
    w.finish(Outcome::Passed);
    assert_eq!(w.core.state().run_outcome(), Some(Outcome::Cancelled));
    w.check();
}

#[test]
fn a_forced_cancel_that_was_not_delivered_is_still_forced_after_a_restart() {
    let order = |force| CancelOrder {
        reason: if force { "at once" } else { "enough" }.to_owned(),
        grace: Duration::from_millis(7),
        force,
    };
    for orders in [vec![false, true], vec![true]] {
        let mut w = World::new(plan(1, |_| {}), 1);
        let (agent, token) = w.holdings().remove(0);
        w.step(&agent, &token, Outcome::Passed);
        for force in orders {
            let effects = w.core.handle(Input::Cancel(order(force)), Timestamp(w.now));
            w.carry(effects);
        }
        // The coordinator dies before it sends anything.
        w.restart();
        let inventory = vec![InventoryItem {
            token: token.clone(),
            last_seq: 1,
            finished: false,
        }];
        let connected = Input::Connected { agent, inventory };
        let effects = w.core.handle(connected, Timestamp(w.now));
        let cancel = Effect::Cancel {
            token,
            order: order(true),
        };
        assert!(effects.contains(&cancel), "{effects:?}");
    }
}

#[test]
fn a_cancel_that_an_earlier_version_journaled_gets_the_default_grace() {
    let mut w = World::new(plan(1, |_| {}), 1);
    let text = r#"{"kind":"cancel_requested","reason":"enough"}"#;
    let kind: EventKind = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&kind).unwrap(), text);
    let mut event = w.journal[0].event.clone();
    event.kind = kind;
    let mut state = w.core.state().clone();
    state.apply(&event);
    let core = RunCore::recovered(state, 2, 2, Duration::from_millis(100));
    w.core = core;
    let (agent, token) = w.holdings().remove(0);
    let inventory = vec![InventoryItem {
        token: token.clone(),
        last_seq: 1,
        finished: false,
    }];
    let connected = Input::Connected { agent, inventory };
    let effects = w.core.handle(connected, Timestamp(9));
    let order = CancelOrder {
        reason: "enough".to_owned(),
        grace: Duration::from_millis(100),
        force: false,
    };
    assert!(effects.contains(&Effect::Cancel { token, order }));
}

#[test]
fn cells_wait_for_a_missing_secret_and_start_when_it_comes() {
    let mut w = World::new(plan(2, |_| {}), 0);
    w.tell(Input::Secrets {
        missing: vec!["key".into()],
    });
    // Cells queued before stay queued. A restarted run begins by asking for secrets.
    let mut state = RunState::new("r".into());
    w.journal.iter().for_each(|r| state.apply(&r.event));
    let mut core = RunCore::recovered(state, 1, 2, Duration::from_millis(100));
    let held = core.handle(
        Input::Secrets {
            missing: vec!["key".into()],
        },
        Timestamp(1),
    );
    assert_eq!(held, []);
    let freed = core.handle(Input::Secrets { missing: vec![] }, Timestamp(2));
    assert!(matches!(&freed[..], [Effect::Queue(cells)] if cells.len() == 2));
}

#[test]
fn after_a_restart_running_attempts_go_on_and_finished_cells_are_not_repeated() {
    let mut w = World::new(plan(3, |_| {}), 1);
    let (agent, first) = w.holdings().remove(0);
    (0..4).for_each(|_| w.step(&agent, &first, Outcome::Passed));
    let (_, running) = w.holdings().remove(0);
    (0..2).for_each(|_| w.step(&agent, &running, Outcome::Passed));
    let offered = w.offered.len();
    w.restart();
    w.connect(&agent);
    assert!(
        w.holdings().iter().any(|(_, t)| *t == running),
        "it goes on under its old token"
    );
    w.finish(Outcome::Passed);
    assert_eq!(w.offered.len(), 3.max(offered));
    w.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_happens_each_cell_ends_once_and_a_replay_equals_the_live_run(
        ops in proptest::collection::vec((0u8..20, any::<prop::sample::Index>()), 0..150),
        cells in 1usize..8, attempts in 1u32..3, retries in 0u32..2, parallel in prop::option::of(1u32..4), fail_fast in any::<bool>()
    ) {
        let mut plan = plan(cells, |c| { c.attempts = attempts; c.retries = retries; });
        plan.max_parallel = parallel;
        plan.fail_fast = fail_fast;
        let mut w = World::new(plan, 3);
        for (op, index) in ops {
            if w.settled { break }
            let holdings = w.holdings();
            let some = (!holdings.is_empty()).then(|| index.get(&holdings).clone());
            let agent = AgentId(format!("a{}", index.index(3)));
            match (op, some) {
                (0, _) => { w.restart(); for n in 0..3 { w.connect(&AgentId(format!("a{n}"))); } }
                (1, _) => { w.lose(&agent); w.connect(&agent) }
                (2, _) => w.connect(&agent),
                (3, Some((agent, token))) if !w.agents[&agent][&token].accepted => {
                    w.agents.get_mut(&agent).unwrap().remove(&token);
                    w.tell(Input::Declined { token, reason: DeclineReason::ByAgent("busy".into()) });
                    w.now += 60_000_000;
                    w.schedule(Schedule::Tick);
                    w.tell(Input::Secrets { missing: vec![] });
                }
                (4, _) if !w.offered.is_empty() => {
                    // A late event of an old attempt.
                    let token = index.get(&w.offered).clone();
                    if !w.holdings().iter().any(|(_, t)| *t == token) {
                        let attempt = AttemptRef { cell: token.cell.clone(), attempt: token.attempt };
                        let kind = EventKind::AttemptFinished { outcome: Outcome::Failed, reason: None, timed_out: false, culprit: None };
                        let late = Event { run: "r".into(), attempt: Some(attempt), seq: 99, at: Timestamp(0), mono_us: 0, kind };
                        let before = w.journal.len();
                        w.tell(Input::Events { token, events: in_sequence(vec![late]) });
                        prop_assert_eq!(before, w.journal.len());
                    }
                }
                (5, _) if index.index(10) == 0 => w.tell(Input::Cancel(CancelOrder { reason: "enough".into(), grace: Duration::from_millis(1), force: false })),
                (6, Some((agent, token))) => w.step(&agent, &token, Outcome::Failed),
                (7, Some((agent, token))) => w.step(&agent, &token, Outcome::Errored),
                (_, Some((agent, token))) => w.step(&agent, &token, Outcome::Passed),
                _ => {}
            }
        }
        w.now += 60_000_000;
        w.schedule(Schedule::Tick);
        w.tell(Input::Secrets { missing: vec![] });
        w.finish(Outcome::Passed);
        w.check();
        prop_assert!(w.core.state().is_settled());
        let mut replayed = RunState::new("r".into());
        w.journal.iter().for_each(|r| replayed.apply(&r.event));
        prop_assert_eq!(&replayed, w.core.state());
    }
}

#[test]
fn cells_that_no_agent_began_in_time_end_errored_and_those_that_an_agent_has_go_on() {
    let mut world = World::new(plan(2, |_| {}), 0);
    let all = |world: &World| {
        let cells = world.core.state().cells.keys().cloned();
        cells.map(|cell| (cell, "no agent".to_owned())).collect()
    };
    // One cell is on an agent when the time is over.
    let token = Token {
        run: "r".into(),
        cell: "c0".into(),
        attempt: 1,
        epoch: 1,
    };
    let decision = world.core.handle(
        Input::Runnable {
            token,
            agent: "a".into(),
            agent_name: "a".to_owned(),
            placement: Default::default(),
        },
        Timestamp(1),
    );
    assert!(
        matches!(decision[..], [Effect::Journal(_), Effect::Offer { .. }]),
        "{decision:?}"
    );
    let limit = Duration::from_millis(1_500);
    let cells = all(&world);
    let decision = world
        .core
        .handle(Input::NeverStarted { cells, limit }, Timestamp(2));
    let state = world.core.state();
    assert_eq!(state.cells[0].outcome, None);
    assert_eq!(state.cells[1].outcome, Some(Outcome::Errored));
    let reason = "not started within 1.5s (queue-timeout): no agent";
    assert_eq!(state.cells[1].reason.as_deref(), Some(reason));
    let withdrawn = matches!(decision.last(), Some(Effect::Withdraw(tokens)) if tokens.len() == 1);
    assert!(withdrawn, "{decision:?}");
}

/// The agent doesn't keep to its own limits: the first attempt has too many events, the next too many bytes of events.
#[test]
fn an_attempt_that_is_flooded_ends_and_its_cell_after_the_second_one() {
    use phalanx_proto::limit::{ATTEMPT_EVENT_BYTES_TAKEN, ATTEMPT_EVENTS_TAKEN};
    let mut world = World::new(plan(1, |_| ()), 2);
    let large = 8 << 20;
    // Each event is slightly larger than its message.
    let enough = ATTEMPT_EVENT_BYTES_TAKEN / large;
    let floods: [Vec<Vec<(u64, u64)>>; 2] = [
        vec![(2..=ATTEMPT_EVENTS_TAKEN + 1).map(|seq| (seq, 1)).collect()],
        (2..2 + enough).map(|seq| vec![(seq, large)]).collect(),
    ];
    for flood in floods {
        let (agent, token) = world.holdings().into_iter().next().unwrap();
        world.step(&agent, &token, Outcome::Passed);
        world.step(&agent, &token, Outcome::Passed);
        for batch in flood {
            assert!(world.holdings().iter().any(|(_, t)| *t == token));
            let attempt = Some(AttemptRef {
                cell: token.cell.clone(),
                attempt: token.attempt,
            });
            let event = |(seq, bytes)| Event {
                run: "r".into(),
                attempt: attempt.clone(),
                seq,
                at: Timestamp(1),
                mono_us: 0,
                kind: EventKind::Note {
                    message: "n".repeat(usize::try_from(bytes).unwrap()),
                },
            };
            let events = in_sequence(batch.into_iter().map(event).collect());
            let token = token.clone();
            world.tell(Input::Events { token, events });
        }
        assert!(!world.holdings().iter().any(|(_, t)| *t == token));
    }
    let cell = &world.core.state().cells[0];
    assert_eq!(cell.outcome, Some(Outcome::Errored));
    assert!(cell.reason.as_ref().unwrap().contains("MiB of events"));
    assert!(world.settled);
}
