#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use phalanx_shared::event::{AttemptRef, Event, EventKind, ServiceState};
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Plan, PlannedCell};
use serde_json::Map;

const RUN: &str = "run";

/// Random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        from + (z ^ (z >> 31)) % (to - from)
    }
}

/// A cell to run. Times are in microseconds.
#[derive(Clone)]
struct Cell {
    big: bool,
    memory: u64,
    pull: u64,
    ready: u64,
    steps: u64,
    clean_up: u64,
    expected_ms: u64,
    /// Number of tries that fail before.
    retries: u32,
}

/// Agents and limits on which cells run.
#[derive(Clone, Default)]
struct Fleet {
    slots: Vec<u32>,
    memory: u64,
    label_limits: BTreeMap<String, u32>,
    max_parallel: Option<u32>,
}

impl Fleet {
    fn of(slots: &[u32]) -> Fleet {
        Fleet {
            slots: slots.to_vec(),
            memory: u64::MAX,
            ..Fleet::default()
        }
    }
}

fn cells(count: usize, seed: u64) -> Vec<Cell> {
    let mut random = Random(seed);
    let cells = (0..count).map(|_| {
        let steps = random.between(500_000, 20_000_000);
        Cell {
            big: random.between(0, 3) == 0,
            memory: random.between(1, 5),
            pull: random.between(0, 2) * random.between(0, 4_000_000),
            ready: random.between(100_000, 6_000_000),
            clean_up: random.between(50_000, 1_500_000),
            // History knows a cell's time only roughly.
            expected_ms: steps * random.between(60, 140) / 100_000,
            retries: u32::from(random.between(0, 12) == 0),
            steps,
        }
    });
    cells.collect()
}

/// Runs cells on a fleet and returns the state folded from the events.
fn simulate(cells: &[Cell], fleet: &Fleet) -> RunState {
    Simulation::new(cells, fleet).run()
}

struct Simulation<'a> {
    cells: &'a [Cell],
    fleet: &'a Fleet,
    scheduler: Scheduler,
    events: Vec<Event>,
    agenda: BinaryHeap<Reverse<(u64, Token)>>,
}

impl<'a> Simulation<'a> {
    fn new(cells: &'a [Cell], fleet: &'a Fleet) -> Self {
        Simulation {
            scheduler: Scheduler::new(fleet.label_limits.clone()),
            cells,
            fleet,
            events: Vec::new(),
            agenda: BinaryHeap::new(),
        }
    }

    fn run(mut self) -> RunState {
        let origin = Map::new();
        let plan = plan(self.cells, self.fleet);
        self.tell(0, None, EventKind::RunSubmitted { plan, origin });
        let limits = RunLimits {
            priority: 0,
            max_parallel: self.fleet.max_parallel,
        };
        let run: RunId = RUN.into();
        self.decide(
            3_000,
            Input::RunAdded {
                run: run.clone(),
                limits,
            },
        );
        for (index, slots) in self.fleet.slots.iter().enumerate() {
            let agent = AgentInfo {
                id: format!("a{index}").into(),
                name: format!("runner {index}"),
                version: String::new(),
                labels: vec!["docker".into(), "big".into()],
                slots: *slots,
                resources: Resources {
                    memory_bytes: self.fleet.memory,
                    ..PLENTY
                },
                images: Vec::new(),
                policy: None,
                ahead: Some(0),
                snapshots: Default::default(),
            };
            let holding = Vec::new();
            self.decide(3_000, Input::AgentUp { agent, holding });
        }
        let all = (0..self.cells.len())
            .map(|index| self.request(index, 1))
            .collect();
        self.decide(3_000, Input::Queued { run, cells: all });
        while let Some(Reverse((now, token))) = self.agenda.pop() {
            let index: usize = token.cell.as_str().parse().unwrap();
            let again = token.attempt <= self.cells[index].retries;
            let attempt = token.attempt + 1;
            self.decide(now, Input::Released { token });
            if again {
                let cells = vec![self.request(index, attempt)];
                self.decide(
                    now,
                    Input::Queued {
                        run: RUN.into(),
                        cells,
                    },
                );
            }
        }
        self.fold()
    }

    fn fold(mut self) -> RunState {
        self.events.sort_by_key(|event| event.at);
        let finished = |event: &&Event| matches!(event.kind, EventKind::CellFinished { .. });
        let end = self
            .events
            .iter()
            .filter(finished)
            .map(|event| event.at.0)
            .max();
        let outcome = Outcome::Passed;
        self.tell(
            end.unwrap().unsigned_abs() + 2_000,
            None,
            EventKind::RunFinished { outcome },
        );
        self.events.sort_by_key(|event| event.at);
        let mut state = RunState::new(RUN.into());
        self.events.iter().for_each(|event| state.apply(event));
        assert!(state.finished.is_some(), "every cell ended");
        state
    }

    fn request(&self, index: usize, attempt: u32) -> CellRequest {
        let cell = &self.cells[index];
        CellRequest {
            avoids: Vec::new(),
            token: Token {
                run: RUN.into(),
                cell: index.to_string().into(),
                attempt,
                epoch: 1,
            },
            labels: labels(cell),
            resources: Resources {
                memory_bytes: cell.memory,
                ..Resources::default()
            },
            images: Vec::new(),
            needs: Vec::new(),
            expected_ms: cell.expected_ms,
            wish: None,
        }
    }

    fn decide(&mut self, now: u64, input: Input) {
        for effect in self.scheduler.handle(input, Duration::from_micros(now)) {
            if let Effect::Assign { token, agent } = effect {
                self.attempt(now + 1_500, token, agent);
            }
        }
    }

    /// Plays an attempt that is offered at a time.
    fn attempt(&mut self, offered: u64, token: Token, agent: AgentId) {
        let index: usize = token.cell.as_str().parse().unwrap();
        let cell = self.cells[index].clone();
        let placement = self.scheduler.placement(&token);
        let of = Some((token.cell.clone(), token.attempt));
        let offer = EventKind::CellOffered {
            token: token.clone(),
            agent_name: agent.to_string(),
            agent: agent.clone(),
            placement,
        };
        self.tell(offered, None, offer);
        self.tell(
            offered + 1_000,
            of.clone(),
            EventKind::AttemptStarted { agent },
        );
        let mut at = offered + 2_000;
        let at_time = |at: u64| Timestamp(i64::try_from(at).unwrap());
        let began = at_time(at);
        at += 20_000;
        self.tell(
            at,
            of.clone(),
            EventKind::StackOpened {
                began,
                queued_us: 0,
            },
        );
        let stages = [
            (ServiceState::Pulled, cell.pull),
            (ServiceState::Created, 100_000),
            (ServiceState::Started, 200_000),
            (ServiceState::Ready, cell.ready),
        ];
        for (state, takes) in stages {
            let began = at_time(at);
            at += takes;
            let changed = EventKind::ServiceChanged {
                service: "db".to_owned(),
                state,
                began,
                detail: None,
                image: None,
                queued_us: 0,
                reference: None,
            };
            self.tell(at, of.clone(), changed);
        }
        let (path, name) = ("test".to_owned(), "test".to_owned());
        let began = at_time(at);
        self.tell(
            at,
            of.clone(),
            EventKind::PhaseStarted {
                path: path.clone(),
                name: name.clone(),
            },
        );
        at += cell.steps;
        let last = token.attempt > cell.retries;
        let outcome = if last {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        let phase = EventKind::PhaseFinished {
            path,
            name,
            outcome,
            reason: None,
            began,
            timed_out: false,
        };
        self.tell(at, of.clone(), phase);
        let reason = None;
        self.tell(
            at,
            of.clone(),
            EventKind::AttemptFinished {
                outcome,
                reason,
                timed_out: false,
                culprit: None,
            },
        );
        if last {
            let finished = EventKind::CellFinished {
                cell: token.cell.clone(),
                outcome,
                reason: None,
                attempts: token.attempt,
            };
            self.tell(at + 500, None, finished);
        }
        let began = at_time(at);
        at += cell.clean_up;
        let torn_down = EventKind::TornDown {
            removed: 1,
            left: Vec::new(),
            kept: Vec::new(),
            began,
        };
        self.tell(at, of, torn_down);
        self.agenda.push(Reverse((at + 800, token)));
    }

    fn tell(&mut self, at: u64, of: Option<(CellId, u32)>, kind: EventKind) {
        let attempt = of.map(|(cell, attempt)| AttemptRef { cell, attempt });
        self.events.push(Event {
            run: RUN.into(),
            seq: attempt.as_ref().map_or(0, |_| self.events.len() as u64 + 1),
            attempt,
            at: Timestamp(i64::try_from(at).unwrap()),
            mono_us: 0,
            kind,
        });
    }
}

/// All cells need docker; some need something that few agents have as well.
fn labels(cell: &Cell) -> Vec<String> {
    let mut labels = vec!["docker".to_owned()];
    labels.extend(cell.big.then(|| "big".to_owned()));
    labels
}

fn plan(cells: &[Cell], fleet: &Fleet) -> Plan {
    let cells = cells.iter().enumerate().map(|(index, cell)| PlannedCell {
        id: index.to_string().into(),
        name: index.to_string(),
        matrix: Default::default(),
        runs_on: labels(cell),
        experimental: false,
        resources: Resources {
            memory_bytes: cell.memory,
            ..Resources::default()
        },
        timeout_ms: 3_600_000,
        attempts: 1,
        retries: cell.retries,
    });
    Plan {
        digest: String::new(),
        spec: "simulated".to_owned(),
        inputs: Map::new(),
        axes: Vec::new(),
        coverage: Vec::new(),
        cells: cells.collect(),
        max_parallel: fleet.max_parallel,
        fail_fast: false,
        queue_timeout_ms: None,
        max_skips: None,
        workspace: None,
        files: BTreeMap::new(),
    }
}

fn wall(state: &RunState) -> u64 {
    let wall = state.finished.unwrap().since(state.submitted.unwrap());
    u64::try_from(wall.as_micros()).unwrap()
}

/// Checks that a prediction is within 5 % of a run that was really simulated, and the replay of the original run within
/// 5 % of it.
fn holds(original: &RunState, figures: &Figures, real: &RunState) {
    let forecast = forecast(original, figures).unwrap();
    let off = |value: u64, real: u64| value.abs_diff(real) * 100 / real;
    let (wall, real) = (wall(original), wall(real));
    assert_eq!(forecast.wall_us, wall);
    assert!(
        off(forecast.replayed_us, wall) < 5,
        "as it was {wall}: {forecast:?}"
    );
    assert!(
        off(forecast.changed_us, real) < 5,
        "changed {real}: {forecast:?}"
    );
}

fn with_slots(slots: u32) -> Figures {
    Figures {
        slots: Some(slots),
        ..Figures::default()
    }
}

fn without(cause: WaitCause) -> Figures {
    Figures {
        changes: vec![Change::Without(cause)],
        ..Figures::default()
    }
}

#[test]
fn the_wall_time_with_other_slots_is_predicted_within_five_percent() {
    for seed in 0..20 {
        let cells = cells(60, seed);
        for (from, to) in [(4, 8), (8, 4), (6, 1), (3, 16), (12, 60)] {
            let original = simulate(&cells, &Fleet::of(&[from]));
            let real = simulate(&cells, &Fleet::of(&[to]));
            holds(&original, &with_slots(to), &real);
        }
    }
}

#[test]
fn slots_are_shared_among_several_agents_as_theirs_are() {
    let cells = cells(80, 7);
    let original = simulate(&cells, &Fleet::of(&[2, 4]));
    let real = simulate(&cells, &Fleet::of(&[4, 8]));
    holds(&original, &with_slots(12), &real);
}

#[test]
fn more_slots_win_nothing_while_memory_is_what_cells_wait_for() {
    let cells = cells(60, 3);
    let fleet = Fleet {
        memory: 9,
        ..Fleet::of(&[16])
    };
    let original = simulate(&cells, &fleet);
    let real = simulate(
        &cells,
        &Fleet {
            slots: vec![32],
            ..fleet
        },
    );
    holds(&original, &with_slots(32), &real);
    let plenty = simulate(&cells, &Fleet::of(&[16]));
    holds(&original, &without(WaitCause::Memory), &plenty);
}

#[test]
fn limits_of_labels_and_of_the_run_hold_and_can_be_taken_away() {
    let cells = cells(60, 4);
    let limited = Fleet {
        label_limits: BTreeMap::from([("big".to_owned(), 2)]),
        ..Fleet::of(&[8])
    };
    let original = simulate(&cells, &limited);
    let real = simulate(
        &cells,
        &Fleet {
            slots: vec![24],
            ..limited
        },
    );
    holds(&original, &with_slots(24), &real);
    let free = simulate(&cells, &Fleet::of(&[8]));
    holds(&original, &without(WaitCause::LabelLimit), &free);
    let few = Fleet {
        max_parallel: Some(3),
        ..Fleet::of(&[8])
    };
    let original = simulate(&cells, &few);
    holds(&original, &without(WaitCause::MaxParallel), &free);
}

#[test]
fn pulls_and_slow_services_can_be_taken_away() {
    let before = cells(60, 5);
    let fleet = Fleet::of(&[6]);
    let original = simulate(&before, &fleet);
    let mut after = before.clone();
    after.iter_mut().for_each(|cell| cell.pull = 0);
    holds(
        &original,
        &without(WaitCause::ImagePull),
        &simulate(&after, &fleet),
    );
    let mut after = before;
    let by_us = 2_500_000;
    after
        .iter_mut()
        .for_each(|cell| cell.ready = cell.ready.saturating_sub(by_us));
    let service = "db".to_owned();
    let faster = Figures {
        changes: vec![Change::Faster { service, by_us }],
        ..Figures::default()
    };
    holds(&original, &faster, &simulate(&after, &fleet));
}

#[test]
fn the_journal_says_what_cells_waited_for() {
    let cells = cells(40, 6);
    let causes = |fleet: &Fleet| {
        let state = simulate(&cells, fleet);
        let times = phalanx_report::timing::timing(&state, state.finished.unwrap());
        let queue = times.waits.into_iter().filter(|wait| wait.cause.is_queue());
        queue.max_by_key(|wait| wait.sum_us).map(|wait| wait.cause)
    };
    assert_eq!(causes(&Fleet::of(&[4])), Some(WaitCause::Slot));
    let memory = Fleet {
        memory: 6,
        ..Fleet::of(&[40])
    };
    assert_eq!(causes(&memory), Some(WaitCause::Memory));
    let max_parallel = Fleet {
        max_parallel: Some(2),
        ..Fleet::of(&[40])
    };
    assert_eq!(causes(&max_parallel), Some(WaitCause::MaxParallel));
    let label = Fleet {
        label_limits: BTreeMap::from([("docker".to_owned(), 1)]),
        ..Fleet::of(&[40])
    };
    assert_eq!(causes(&label), Some(WaitCause::LabelLimit));
    assert_eq!(causes(&Fleet::of(&[40])), None);
}

#[test]
fn a_run_that_is_not_finished_is_not_replayed() {
    assert_eq!(
        forecast(&RunState::new(RUN.into()), &with_slots(2)),
        Err(NoForecast::Unfinished)
    );
}
