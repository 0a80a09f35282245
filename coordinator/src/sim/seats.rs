//! Tracks which cells wait, which agents hold attempts, and which could take one (I6). It gets the same inputs as the
//! scheduler, to check its decisions.

use super::center::label_limits;
use super::world::Res;
use crate::schedule::core::{CellRequest, Input};
use phalanx_shared::id::{AgentId, RunId, Token};
use phalanx_shared::invariant::{self, Capacity, Demand};
use phalanx_shared::plan::Resources;
use std::collections::BTreeMap;
use std::time::Duration;

/// The scheduler's world as derived from its inputs. See the module documentation.
#[derive(Default)]
pub struct Seats {
    waiting: BTreeMap<Token, CellRequest>,
    placed: BTreeMap<Token, (AgentId, CellRequest)>,
    agents: BTreeMap<AgentId, Seat>,
    limits: BTreeMap<RunId, u32>,
}

struct Seat {
    labels: Vec<String>,
    slots: u32,
    resources: Resources,
    connected: bool,
    draining: bool,
    paused: Option<Duration>,
}

impl Seats {
    pub fn limit(&mut self, run: &RunId, max_parallel: Option<u32>) {
        if let Some(max) = max_parallel {
            self.limits.insert(run.clone(), max);
        }
    }

    /// Records an input before the scheduler handles it.
    pub fn told(&mut self, input: &Input, now: Duration) {
        match input {
            Input::RunAdded { .. } => {}
            Input::Queued { cells, .. } => {
                for request in cells {
                    let token = &request.token;
                    self.placed
                        .retain(|t, _| (&t.run, &t.cell) != (&token.run, &token.cell));
                    self.waiting.insert(token.clone(), request.clone());
                }
            }
            Input::Withdrawn { tokens, .. } => {
                tokens.iter().for_each(|token| {
                    self.waiting.remove(token);
                });
            }
            Input::RunRemoved { run } => {
                self.waiting.retain(|token, _| token.run != *run);
                self.placed.retain(|token, _| token.run != *run);
            }
            Input::AgentUp { agent, holding } => {
                let seat = Seat {
                    labels: agent.labels.clone(),
                    slots: agent.slots,
                    resources: agent.resources,
                    connected: true,
                    draining: false,
                    paused: None,
                };
                self.agents.insert(agent.id.clone(), seat);
                for request in holding {
                    let held = (agent.id.clone(), request.clone());
                    self.placed.insert(request.token.clone(), held);
                }
            }
            Input::AgentDown { agent } => self.change(agent, |seat| seat.connected = false),
            Input::AgentDraining { agent } => self.change(agent, |seat| seat.draining = true),
            Input::AgentLost { agent } => {
                self.agents.remove(agent);
                self.placed.retain(|_, (holder, _)| holder != agent);
            }
            Input::Accepted { token } => {
                if let Some((agent, _)) = self.placed.get(token).cloned() {
                    self.change(&agent, |seat| seat.paused = None);
                }
            }
            // Images that are prepared and snapshots that are kept change nothing about who may run what.
            Input::Ahead { .. } | Input::Snapshots { .. } => {}
            // The pause is known only afterwards.
            Input::Declined { .. } => {}
            Input::Released { token } => {
                self.placed.remove(token);
            }
            Input::Tick => {
                for seat in self.agents.values_mut() {
                    seat.paused = seat.paused.filter(|until| now < *until);
                }
            }
        }
    }

    fn change(&mut self, agent: &AgentId, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.agents.get_mut(agent) {
            change(seat);
        }
    }

    pub fn assigned(&mut self, token: &Token, agent: &AgentId) {
        if let Some(request) = self.waiting.remove(token) {
            self.placed.insert(token.clone(), (agent.clone(), request));
        }
    }

    pub fn paused(&mut self, token: &Token, until: Duration) {
        if let Some((agent, _)) = self.placed.get(token).cloned() {
            self.change(&agent, |seat| seat.paused = Some(until));
        }
    }

    pub fn given_back(&mut self, token: &Token) {
        self.placed.remove(token);
    }

    fn limited(&self, request: &CellRequest, labels: &BTreeMap<String, u32>) -> bool {
        let count = |holds: &dyn Fn(&CellRequest) -> bool| {
            let held = self.placed.values().filter(|(_, held)| holds(held));
            held.count() as u64
        };
        let run = &request.token.run;
        let of_run = self.limits.get(run);
        of_run.is_some_and(|max| count(&|held| held.token.run == *run) >= u64::from(*max))
            || request.labels.iter().any(|label| {
                let max = labels.get(label);
                max.is_some_and(|max| count(&|held| held.labels.contains(label)) >= u64::from(*max))
            })
    }

    /// **I6** No cell waits while some agent meets all its constraints and its run is under its limits.
    pub fn check(&self) -> Res {
        let labels = label_limits();
        let demands: Vec<Demand<'_>> = self
            .waiting
            .iter()
            .map(|(token, request)| Demand {
                run: &token.run,
                cell: &token.cell,
                labels: &request.labels,
                avoids: &[],
                resources: request.resources,
                limited: self.limited(request, &labels),
                needs: &[],
            })
            .collect();
        let capacities: Vec<Capacity<'_>> = self
            .agents
            .iter()
            .map(|(agent, seat)| {
                let held = self.placed.values().filter(|(holder, _)| holder == agent);
                let (taken, used) = held.fold((0u32, Resources::default()), |(n, sum), (_, r)| {
                    (n + 1, sum.plus(&r.resources))
                });
                Capacity {
                    agent,
                    labels: &seat.labels,
                    free_slots: seat.slots.saturating_sub(taken),
                    free: seat.resources.minus(&used),
                    takes: seat.connected && !seat.draining && seat.paused.is_none(),
                    policy: None,
                }
            })
            .collect();
        invariant::nobody_waits_in_vain(&demands, &capacities)
    }
}
