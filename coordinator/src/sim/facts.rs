//! Routes facts about agents from the sessions to the scheduler and the runs, like `routing.rs`.

use super::Switch;
use super::center::{Gather, Parcel};
use super::world::{Res, World};
use crate::dispatch::contract::{AgentInfo, InventoryItem};
use crate::dispatch::core::Fact;
use crate::run::core::Input;
use crate::schedule::core::Input as ScheduleInput;
use phalanx_shared::id::{AgentId, RunId};

impl World {
    pub fn fact(&mut self, agent: &AgentId, fact: Fact) -> Res {
        match fact {
            Fact::Connected { agent, inventory } => self.connected(agent, inventory),
            Fact::Disconnected { .. } if self.switch == Switch::CutIsDeath => self.lost(agent),
            Fact::Disconnected { .. } => self.schedule(ScheduleInput::AgentDown {
                agent: agent.clone(),
            }),
            Fact::Lost { reason } => {
                if reason.contains("silent") {
                    self.tally.count("silence noticed");
                    self.agent_stopped_first(agent)?;
                }
                self.lost(agent)
            }
            Fact::Draining => self.schedule(ScheduleInput::AgentDraining {
                agent: agent.clone(),
            }),
            Fact::Accepted { token } => {
                self.passed_rightly(agent, &token)?;
                let run = token.run.clone();
                self.tell_run(&run, Input::Accepted { token })
            }
            Fact::Declined { token, reason } => {
                // Not checked at the gate: a session itself declines what it can no longer offer.
                let unanswered = reason.contains("didn't answer");
                self.tally.count(if unanswered {
                    "offer unanswered"
                } else {
                    "offer declined"
                });
                let run = token.run.clone();
                self.tell_run(&run, Input::Declined { token, reason })
            }
            Fact::Revoked { token, reason } => {
                let lied = reason.contains("only a coordinator may say");
                self.tally.count(if lied {
                    "attempt of a liar ended"
                } else {
                    "attempt overdue"
                });
                let run = token.run.clone();
                self.tell_run(&run, Input::Revoked { token, reason })
            }
            Fact::Events { token, events } => {
                self.passed_rightly(agent, &token)?;
                let seq = events.last().map_or(0, |event| event.seq);
                let durable = Parcel::Durable {
                    agent: agent.clone(),
                    token: token.clone(),
                    seq,
                };
                let run = token.run.clone();
                self.decide(&run, Input::Events { token, events }, vec![durable], None)
            }
        }
    }

    fn connected(&mut self, agent: AgentInfo, inventory: Vec<InventoryItem>) -> Res {
        let runs = self.run_ids();
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        center.present.insert(agent.id.clone());
        center.gathered += 1;
        let (number, id) = (center.gathered, agent.id.clone());
        let gather = Gather {
            agent,
            waiting: runs.len(),
            resumed: Vec::new(),
            holding: Vec::new(),
        };
        center.gathers.insert(number, gather);
        for run in runs {
            let of_run = inventory.iter().filter(|item| item.token.run == run);
            let mut of_run: Vec<InventoryItem> = of_run.cloned().collect();
            match self.switch {
                // A later term ignores what agents still hold.
                Switch::Forgetful => of_run.retain(|item| item.token.epoch == self.disk.epoch),
                // Attempts that a new process doesn't know are still assumed to be with it.
                Switch::DeadAgentKept => of_run = self.believed(&run, &id),
                _ => {}
            }
            let input = Input::Connected {
                agent: id.clone(),
                inventory: of_run,
            };
            self.decide(&run, input, Vec::new(), Some(number))?;
        }
        self.gathered(number)
    }

    /// Returns all attempts that a run has given to an agent, whether the agent is there or not.
    fn believed(&self, run: &RunId, agent: &AgentId) -> Vec<InventoryItem> {
        let run = self.center.as_ref().and_then(|center| center.runs.get(run));
        let held = run.map(|run| run.held_by(agent)).unwrap_or_default();
        let item = |token| InventoryItem {
            token,
            last_seq: 0,
            finished: false,
        };
        held.into_iter().map(item).collect()
    }

    /// Answers a Hello once all runs have answered it.
    pub fn gathered(&mut self, number: u64) -> Res {
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        if center.gathers.get(&number).is_none_or(|g| g.waiting > 0) {
            return Ok(());
        }
        let Some(Gather {
            agent,
            resumed,
            holding,
            ..
        }) = center.gathers.remove(&number)
        else {
            return Ok(());
        };
        let (id, now) = (agent.id.clone(), self.now);
        self.schedule(ScheduleInput::AgentUp { agent, holding })?;
        self.with_session(&id, |session| session.resumed(now, resumed))
    }
}
