//! The scheduler's rules implemented in the simplest way: linear searches of lists, without classes, shapes or memory.
//!
//! Random inputs go to both implementations. Each assignment must be the one that the rules demand, and when the
//! scheduler stops, no waiting cell may be able to start.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::Wish;
use super::core::{CellRequest, Effect, Input, RunLimits, Scheduler};
use super::tests::keeping;
use crate::dispatch::contract::AgentInfo;
use phalanx_shared::id::{AgentId, RunId, Token};
use phalanx_shared::plan::Resources;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

struct Waiting {
    request: CellRequest,
    arrived: u64,
}

struct Agent {
    info: AgentInfo,
    images: BTreeSet<String>,
    kept: BTreeSet<String>,
    held: BTreeMap<Token, CellRequest>,
}

#[derive(Default)]
struct Run {
    limits: RunLimits,
    served: u64,
    order: u64,
}

#[derive(Default)]
struct Oracle {
    runs: BTreeMap<RunId, Run>,
    agents: BTreeMap<AgentId, Agent>,
    waiting: Vec<Waiting>,
    label_limits: BTreeMap<String, u32>,
    count: u64,
    /// How often each run was passed over since its last turn although one of its cells could have started.
    passed_over: BTreeMap<RunId, usize>,
}

impl Oracle {
    fn running(&self, holds: impl Fn(&CellRequest) -> bool) -> u32 {
        let held = self.agents.values().flat_map(|agent| agent.held.values());
        u32::try_from(held.filter(|request| holds(request)).count()).unwrap()
    }

    fn fits(&self, request: &CellRequest, agent: &Agent) -> bool {
        let used = agent.held.values();
        let used = used.fold(Resources::default(), |sum, held| sum.plus(&held.resources));
        request
            .labels
            .iter()
            .all(|label| agent.info.labels.contains(label))
            && (agent.held.len() as u32) < agent.info.slots
            && used.plus(&request.resources).fits(&agent.info.resources)
    }

    fn limited(&self, request: &CellRequest) -> bool {
        let run = &self.runs[&request.token.run];
        let of_run = self.running(|held| held.token.run == request.token.run);
        run.limits.max_parallel.is_some_and(|limit| of_run >= limit)
            || request.labels.iter().any(|label| {
                let limit = self.label_limits.get(label);
                limit
                    .is_some_and(|limit| self.running(|held| held.labels.contains(label)) >= *limit)
            })
    }

    fn startable(&self, waiting: &Waiting) -> bool {
        let request = &waiting.request;
        !self.limited(request) && self.agents.values().any(|agent| self.fits(request, agent))
    }

    /// Returns the next cell by the rules in the README.
    fn next(&self) -> Option<&Waiting> {
        let startable = self
            .waiting
            .iter()
            .filter(|waiting| self.startable(waiting));
        startable.min_by_key(|waiting| {
            let request = &waiting.request;
            let run = &self.runs[&request.token.run];
            let running = self.running(|held| held.token.run == request.token.run);
            let turn = (Reverse(run.limits.priority), running, run.served, run.order);
            (turn, Reverse(self.expects(request)), waiting.arrived)
        })
    }

    /// Returns the expected duration of a waiting cell: that with its snapshot if some agent keeps it.
    fn expects(&self, request: &CellRequest) -> u64 {
        let kept = |wish: &&Wish| {
            let mut agents = self.agents.values();
            agents.any(|agent| agent.kept.contains(&wish.family))
        };
        let restored = request.wish.as_ref().filter(kept);
        restored
            .and_then(|wish| wish.restored_ms)
            .unwrap_or(request.expected_ms)
    }

    /// Returns the share of its time that a cell loses on an agent because of its snapshot, in millionths.
    fn snapshot_cost(&self, request: &CellRequest, agent: &Agent) -> u64 {
        let (Some(wish), missed) = (&request.wish, request.expected_ms) else {
            return 0;
        };
        if agent.kept.contains(&wish.family) {
            return 0;
        }
        let (Some(restored), true) = (wish.restored_ms, missed > 0) else {
            return 500_000;
        };
        let same = |held: &CellRequest| {
            let other = held.wish.as_ref();
            other.is_some_and(|other| other.family == wish.family)
        };
        let expects = match wish.making_ms.filter(|_| agent.held.values().any(same)) {
            Some(making) => missed.min(making + restored),
            None => missed,
        };
        expects.saturating_sub(restored) * 1_000_000 / missed
    }

    /// Returns the cost of an agent for a cell, in millionths: its load, plus half if it lacks an image, plus what it loses
    /// because of a snapshot.
    fn cost(&self, request: &CellRequest, agent: &Agent) -> u64 {
        let load = agent.held.len() as u64 * 1_000_000 / u64::from(agent.info.slots);
        let lacks = request
            .images
            .iter()
            .any(|image| !agent.images.contains(image.id()));
        let snapshot = self.snapshot_cost(request, agent);
        load + if lacks { 500_000 } else { 0 } + snapshot
    }

    fn assigned(&mut self, token: &Token, agent: &AgentId) -> Result<(), TestCaseError> {
        let next = self.next().map(|waiting| waiting.request.clone());
        let Some(request) = next else {
            return Err(TestCaseError::fail(format!("{token} started, nothing may")));
        };
        prop_assert_eq!(&request.token, token, "another cell's turn");
        let chosen = self
            .agents
            .get(agent)
            .filter(|chosen| self.fits(&request, chosen));
        prop_assert!(chosen.is_some(), "{} doesn't fit {}", agent, token);
        let fitting = self
            .agents
            .values()
            .filter(|agent| self.fits(&request, agent));
        let least = fitting.map(|agent| self.cost(&request, agent)).min();
        prop_assert_eq!(
            chosen.map(|chosen| self.cost(&request, chosen)),
            least,
            "a worse agent"
        );
        self.no_run_starves(&request)?;
        self.count += 1;
        let run = self.runs.get_mut(&token.run).unwrap();
        run.served = self.count;
        self.waiting
            .retain(|waiting| waiting.request.token != *token);
        let agent = self.agents.get_mut(agent).unwrap();
        let ids = request.images.iter().map(|image| image.id().to_owned());
        agent.images.extend(ids);
        agent.held.insert(token.clone(), request);
        Ok(())
    }

    /// Checks that among runs with the same priority and no more running cells, none is passed over more often than
    /// there are other runs.
    fn no_run_starves(&mut self, chosen: &CellRequest) -> Result<(), TestCaseError> {
        let mine = self.runs[&chosen.token.run].limits.priority;
        let running = |run: &RunId| self.running(|held| held.token.run == *run);
        let equal: BTreeSet<RunId> = self
            .waiting
            .iter()
            .filter(|waiting| self.startable(waiting))
            .map(|waiting| waiting.request.token.run.clone())
            .filter(|run| self.runs[run].limits.priority == mine)
            .filter(|run| running(run) <= running(&chosen.token.run))
            .collect();
        let others = self.runs.len();
        for run in equal {
            let times = self.passed_over.entry(run.clone()).or_default();
            *times = if run == chosen.token.run {
                0
            } else {
                *times + 1
            };
            prop_assert!(
                *times <= others,
                "run {} was passed over {} times",
                run,
                times
            );
        }
        Ok(())
    }

    fn release(&mut self, token: &Token) {
        for agent in self.agents.values_mut() {
            agent.held.remove(token);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Up(u8, u8, u8, u8),
    Keeps(u8, u8),
    Lost(u8),
    Queue {
        run: u8,
        labels: u8,
        memory: u8,
        cpus: u8,
        subnets: u8,
        image: u8,
        expected: u8,
        family: u8,
        copies: u8,
    },
    Release(prop::sample::Index),
}

fn op() -> impl Strategy<Value = Op> {
    let queue = (
        0u8..4,
        0u8..4,
        0u8..6,
        0u8..5,
        0u8..3,
        0u8..3,
        0u8..5,
        0u8..9,
        1u8..6,
    );
    prop_oneof![
        3 => (0u8..5, 1u8..5, 0u8..4, 0u8..3).prop_map(|(a, s, l, i)| Op::Up(a, s, l, i)),
        1 => (0u8..5).prop_map(Op::Lost),
        2 => (0u8..5, 0u8..4).prop_map(|(a, f)| Op::Keeps(a, f)),
        6 => queue.prop_map(|(run, labels, memory, cpus, subnets, image, expected, family, copies)| {
            Op::Queue { run, labels, memory, cpus, subnets, image, expected, family, copies }
        }),
        9 => any::<prop::sample::Index>().prop_map(Op::Release),
    ]
}

fn labels(bits: u8) -> Vec<String> {
    let all = ["docker", "arm"].iter().enumerate();
    let chosen = all.filter(|(n, _)| bits & (1 << n) != 0);
    chosen.map(|(_, label)| (*label).to_owned()).collect()
}

fn image(number: u8) -> Vec<String> {
    (number > 0)
        .then(|| format!("image{number}"))
        .into_iter()
        .collect()
}

fn families(bits: u8) -> Vec<&'static str> {
    let all = ["f", "g"].into_iter().enumerate();
    let chosen = all.filter(|(n, _)| bits & (1 << n) != 0);
    chosen.map(|(_, family)| family).collect()
}

/// Returns what a cell hopes for; every combination of what may be known.
fn wish(number: u8, expected_ms: u64) -> Option<Wish> {
    let family = ["f", "g"].get(usize::from(number % 2))?;
    (number > 0).then(|| Wish {
        family: (*family).to_owned(),
        restored_ms: (number & 2 != 0).then_some(expected_ms / 3),
        making_ms: (number & 4 != 0).then_some(expected_ms / 2),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_decides_as_the_plainest_scheduler_would(ops in proptest::collection::vec(op(), 1..80)) {
        let limits: BTreeMap<String, u32> = [("arm".to_owned(), 3)].into();
        let mut scheduler = Scheduler::new(limits.clone());
        let mut oracle = Oracle { label_limits: limits, ..Oracle::default() };
        let mut cells = 0u32;
        let mut inputs = Vec::new();
        for number in 0..4u8 {
            let limits = RunLimits { priority: i32::from(number / 3), max_parallel: (number == 1).then_some(3) };
            let run = RunId(format!("run{number}"));
            oracle.runs.insert(run.clone(), Run { limits, served: 0, order: u64::from(number) });
            inputs.push(Input::RunAdded { run, limits });
        }
        for op in ops {
            match op {
                Op::Up(agent, slots, has, holds) => {
                    let id = AgentId(format!("agent{agent}"));
                    if oracle.agents.contains_key(&id) {
                        continue;
                    }
                    let info = AgentInfo {
                        id: id.clone(),
                        name: id.to_string(),
                        version: String::new(),
                        labels: labels(has),
                        slots: u32::from(slots),
                        resources: Resources { millicpus: 8_000, memory_bytes: 8 << 30, subnets: 3 },
                        images: image(holds),
                        policy: None,
                        ahead: Some(2),
                        snapshots: Default::default(),
                    };
                    let images = info.images.iter().cloned().collect();
                    oracle.agents.insert(id, Agent { info: info.clone(), images, kept: BTreeSet::new(), held: BTreeMap::new() });
                    inputs.push(Input::AgentUp { agent: info, holding: vec![] });
                }
                Op::Keeps(agent, kept) => {
                    let agent = AgentId(format!("agent{agent}"));
                    let kept = families(kept);
                    if let Some(known) = oracle.agents.get_mut(&agent) {
                        known.kept = kept.iter().map(|family| (*family).to_owned()).collect();
                    }
                    inputs.push(Input::Snapshots { agent, snapshots: keeping(&kept) });
                }
                Op::Lost(agent) => {
                    let agent = AgentId(format!("agent{agent}"));
                    oracle.agents.remove(&agent);
                    inputs.push(Input::AgentLost { agent });
                }
                Op::Queue { run, labels: wanted, memory, cpus, subnets, image: needed, expected, family, copies } => {
                    let run = RunId(format!("run{run}"));
                    let requests: Vec<CellRequest> = (0..copies).map(|_| {
                        cells += 1;
                        let cell = format!("cell{cells}");
                        CellRequest {
            avoids: Vec::new(),
                            token: Token { run: run.clone(), cell: cell.as_str().into(), attempt: 1, epoch: 1 },
                            labels: labels(wanted),
                            resources: Resources {
                                millicpus: u64::from(cpus) * 1_500,
                                memory_bytes: u64::from(memory) << 30,
                                subnets: u32::from(subnets),
                            },
                            images: image(needed).iter().map(|image| image.as_str().into()).collect(),
                            expected_ms: u64::from(expected) * 100,
                            needs: Vec::new(),
                            wish: wish(family, u64::from(expected) * 100),
                        }
                    }).collect();
                    for request in &requests {
                        oracle.count += 1;
                        oracle.waiting.push(Waiting { request: request.clone(), arrived: oracle.count });
                    }
                    inputs.push(Input::Queued { run, cells: requests });
                }
                Op::Release(index) => {
                    let held = oracle.agents.values().flat_map(|agent| agent.held.keys());
                    let held: Vec<Token> = held.cloned().collect();
                    if held.is_empty() {
                        continue;
                    }
                    let token = index.get(&held).clone();
                    oracle.release(&token);
                    inputs.push(Input::Released { token });
                }
            }
            for input in inputs.drain(..) {
                for effect in scheduler.handle(input, Duration::ZERO) {
                    match effect {
                        Effect::Assign { token, agent } => oracle.assigned(&token, &agent)?,
                        Effect::Prefetch { agent, images } => {
                            let ids = images.iter().map(|image| image.id().to_owned());
                            oracle.agents.get_mut(&agent).unwrap().images.extend(ids);
                        }
                        Effect::WakeAt(_) => {}
                    }
                }
            }
            let left = oracle.next().map(|waiting| waiting.request.token.clone());
            prop_assert_eq!(left, None, "a cell waits while it could start");
        }
    }
}

#[test]
fn on_a_single_slot_runs_take_turns() {
    let mut scheduler = Scheduler::new(BTreeMap::new());
    let mut order: Vec<Token> = Vec::new();
    let mut tell = |input, order: &mut Vec<Token>| {
        for effect in scheduler.handle(input, Duration::ZERO) {
            if let Effect::Assign { token, .. } = effect {
                order.push(token);
            }
        }
    };
    for name in ["a", "b", "c"] {
        let (run, limits) = (RunId::from(name), RunLimits::default());
        tell(
            Input::RunAdded {
                run: run.clone(),
                limits,
            },
            &mut order,
        );
        let cells = (0..3).map(|n| CellRequest {
            avoids: Vec::new(),
            token: Token {
                run: run.clone(),
                cell: format!("{name}{n}").as_str().into(),
                attempt: 1,
                epoch: 1,
            },
            labels: vec![],
            resources: Resources::default(),
            images: vec![],
            expected_ms: 0,
            needs: Vec::new(),
            wish: None,
        });
        let cells = cells.collect();
        tell(Input::Queued { run, cells }, &mut order);
    }
    let agent = AgentInfo {
        id: "x".into(),
        name: "x".into(),
        version: String::new(),
        labels: vec![],
        slots: 1,
        resources: Resources::default(),
        images: vec![],
        policy: None,
        ahead: Some(2),
        snapshots: Default::default(),
    };
    tell(
        Input::AgentUp {
            agent,
            holding: vec![],
        },
        &mut order,
    );
    let mut done = 0;
    while let Some(token) = order.get(done).cloned() {
        done += 1;
        tell(Input::Released { token }, &mut order);
    }
    let runs: String = order.iter().map(|token| token.run.as_str()).collect();
    assert_eq!(runs, "abcabcabc");
}
