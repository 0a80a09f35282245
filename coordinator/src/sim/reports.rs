//! Passes the reports of sessions to the runs, and the changes of agents to the scheduler and the runs, like
//! `supervisor/agents.rs`.

use super::Switch;
use super::center::{Gather, Parcel};
use super::world::{Res, World};
use crate::dispatch::contract::{AgentInfo, InventoryItem};
use crate::dispatch::core::{ConnectionId, Effect, Input as SessionInput};
use crate::dispatch::gate::Lie;
use crate::dispatch::reason::{AgentGone, DeclineReason, LossCause};
use crate::run::core::Input;
use crate::schedule::core::Input as ScheduleInput;
use phalanx_shared::id::{AgentId, RunId};

impl World {
    pub fn report(&mut self, agent: &AgentId, report: Effect) -> Res {
        match report {
            Effect::Connected {
                connection,
                agent,
                inventory,
            } => self.connected(connection, agent, inventory),
            Effect::Disconnected { .. } => {
                self.no_answer_any_more(agent);
                if self.switch == Switch::CutIsDeath {
                    return self.lost(agent, AgentGone::NotBack);
                }
                let agent = agent.clone();
                self.schedule(ScheduleInput::AgentDown { agent })
            }
            Effect::Lost { gone } => {
                self.no_answer_any_more(agent);
                if gone == AgentGone::Silent {
                    self.tally.count("silence noticed");
                    self.agent_stopped_first(agent)?;
                }
                self.lost(agent, gone)
            }
            Effect::Ahead { images } => self.schedule(ScheduleInput::Ahead {
                agent: agent.clone(),
                images,
            }),
            Effect::Snapshots(snapshots) => self.schedule(ScheduleInput::Snapshots {
                agent: agent.clone(),
                snapshots: snapshots.into(),
            }),
            Effect::Draining => self.schedule(ScheduleInput::AgentDraining {
                agent: agent.clone(),
            }),
            Effect::Accepted { token } => {
                self.passed_rightly(agent, &token)?;
                let run = token.run.clone();
                self.tell_run(&run, Input::Accepted { token })
            }
            Effect::Declined { token, reason } => {
                // Not checked at the gate: a session itself declines what it can no longer offer.
                let unanswered = matches!(reason, DeclineReason::Unanswered(_));
                self.tally.count(if unanswered {
                    "offer unanswered"
                } else {
                    "offer declined"
                });
                let run = token.run.clone();
                self.tell_run(&run, Input::Declined { token, reason })
            }
            Effect::Revoked { token, cause } => {
                let lied = matches!(cause, LossCause::Lie(Lie::Kind { .. }));
                self.tally.count(if lied {
                    "attempt of a liar ended"
                } else {
                    "attempt overdue"
                });
                let run = token.run.clone();
                self.tell_run(&run, Input::Revoked { token, cause })
            }
            Effect::Events { token, events } => {
                self.passed_rightly(agent, &token)?;
                let durable = Parcel::Durable {
                    agent: agent.clone(),
                    token: token.clone(),
                    seq: events.last(),
                };
                let run = token.run.clone();
                self.decide(&run, Input::Events { token, events }, vec![durable], None)
            }
            Effect::Send(_)
            | Effect::Close { .. }
            | Effect::Opened(_)
            | Effect::Closed(_)
            | Effect::End => Ok(()),
        }
    }

    /// Forgets the answer to an agent's Hello that is still being gathered.
    fn no_answer_any_more(&mut self, agent: &AgentId) {
        if let Some(center) = &mut self.center {
            center.gathers.retain(|_, gather| gather.agent.id != *agent);
        }
    }

    fn connected(
        &mut self,
        connection: ConnectionId,
        agent: AgentInfo,
        inventory: Vec<InventoryItem>,
    ) -> Res {
        self.no_answer_any_more(&agent.id);
        let runs = self.run_ids();
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        center.present.insert(agent.id.clone());
        center.gathered += 1;
        let (number, id) = (center.gathered, agent.id.clone());
        let gather = Gather {
            connection,
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
            connection,
            agent,
            resumed: attempts,
            holding,
            ..
        }) = center.gathers.remove(&number)
        else {
            return Ok(());
        };
        let id = agent.id.clone();
        self.schedule(ScheduleInput::AgentUp { agent, holding })?;
        let resumed = SessionInput::Resumed {
            connection,
            attempts,
        };
        self.session(&id, resumed)
    }
}
