//! The coordinator: the real sessions, scheduler and runs, wired as in `supervisor.rs`, `supervisor/agents.rs` and `courier.rs`,
//! on a journal whose writes are durable only after a commit. The effects of a decision happen after its events are
//! durable.

use super::checks::broken;
use super::disasters::IMPOSTOR;
use super::network::Message;
use super::seats::Seats;
use super::world::{Happening, Res, World};
use super::{Switch, plan};
use crate::dispatch::contract::{AgentInfo, GoesOn};
use crate::dispatch::core::{AgentSession, ConnectionId, Effect, Input as SessionInput, Settings};
use crate::dispatch::gate::SharedGate;
use crate::dispatch::reason::AgentGone;
use crate::run::core::{Effect as RunEffect, Input, RunCore};
use crate::schedule::core::{CellRequest, Input as ScheduleInput, RunLimits, Scheduler};
use crate::schedule::expected::History;
use phalanx_proto::link::{FromAgent, ToAgent};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{Event, EventKind, Recorded};
use phalanx_shared::id::{AgentId, RunId, Token};
use phalanx_shared::run_state::RunState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(2);
/// Time that an attempt may take beyond its cell's timeout and the preparation.
pub const ATTEMPT_MARGIN: Duration = Duration::from_secs(30);
const RECONNECT_WITHIN: Duration = Duration::from_secs(20);

/// One term of office.
pub struct Center {
    pub epoch: u64,
    pub gate: SharedGate,
    pub sessions: BTreeMap<AgentId, AgentSession>,
    /// The current connection of each agent that said Hello.
    pub wires: BTreeMap<AgentId, ConnectionId>,
    pub scheduler: Scheduler,
    pub runs: BTreeMap<RunId, RunCore>,
    pub seats: Seats,
    pub loads: VecDeque<Load>,
    pub committing: bool,
    pub gathers: BTreeMap<u64, Gather>,
    pub gathered: u64,
    pub present: BTreeSet<AgentId>,
    /// The durations of earlier cells, as each run knows them.
    pub histories: BTreeMap<RunId, History>,
    pub started: Duration,
    /// When each agent's last message arrived.
    pub heard: BTreeMap<AgentId, Duration>,
}

/// A decision on its way to the disk.
pub struct Load {
    pub run: RunId,
    pub events: Vec<Recorded>,
    pub parcels: Vec<Parcel>,
}

#[allow(clippy::large_enum_variant)]
pub enum Parcel {
    Effect(RunEffect),
    Resume {
        gather: u64,
        attempts: Vec<GoesOn>,
    },
    Durable {
        agent: AgentId,
        token: Token,
        seq: u64,
    },
}

/// A Hello that all runs have to answer.
pub struct Gather {
    pub connection: ConnectionId,
    pub agent: AgentInfo,
    pub waiting: usize,
    pub resumed: Vec<GoesOn>,
    pub holding: Vec<CellRequest>,
}

impl Center {
    pub fn unsynced(&self) -> usize {
        self.loads.iter().map(|load| load.events.len()).sum()
    }
}

/// Limits that are lower than the number of slots for such cells.
pub fn label_limits() -> BTreeMap<String, u32> {
    [("big".to_owned(), 3)].into()
}

fn settings(epoch: u64, switch: Switch) -> Settings {
    Settings {
        epoch,
        attempt_margin: match switch {
            Switch::NeverOverdue => Duration::from_secs(86_400),
            _ => ATTEMPT_MARGIN,
        },
        ..Settings::default()
    }
}

impl World {
    /// Starts a term: replays the journal and continues where it ends.
    pub fn start_center(&mut self) -> Res {
        self.disk.epoch += 1;
        let epoch = self.disk.epoch;
        let gate = SharedGate::default();
        gate.lock().off = self.switch == Switch::GateOff;
        self.center = Some(Center {
            epoch,
            gate,
            sessions: BTreeMap::new(),
            wires: BTreeMap::new(),
            scheduler: Scheduler::new(label_limits()),
            runs: BTreeMap::new(),
            seats: Seats::default(),
            loads: VecDeque::new(),
            committing: false,
            gathers: BTreeMap::new(),
            gathered: 0,
            present: BTreeSet::new(),
            histories: BTreeMap::new(),
            started: self.now,
            heard: BTreeMap::new(),
        });
        let open: Vec<RunId> = self.disk.open_runs();
        for run in &open {
            self.tally.count("run replayed");
            let changed = self.switch == Switch::PlanChanges;
            self.disk.plans_the_same(run, changed)?;
            self.bring(run.clone())?;
        }
        if !open.is_empty() {
            self.later(RECONNECT_WITHIN, Happening::Expire { epoch });
        }
        Ok(())
    }

    /// Starts a run, durably.
    pub fn submit(&mut self, run: RunId, shape: u64) -> Res {
        let first = self.disk.runs.is_empty();
        let text = plan::spec(shape, first, false);
        let made = plan::make(&text).map_err(|problem| super::checks::broken("plan", problem))?;
        let kind = EventKind::RunSubmitted {
            plan: made.plan.clone(),
            origin: Default::default(),
        };
        let event = Event {
            run: run.clone(),
            attempt: None,
            seq: 0,
            at: self.center_wall(),
            mono_us: 0,
            kind,
        };
        let secret = format!("opens-{run}-{shape:016x}");
        for machine in &self.machines {
            machine.drive.must_not_hold(&secret);
        }
        let first = Recorded { position: 1, event };
        self.disk.submit(run.clone(), text, made, secret, first)?;
        self.bring(run)
    }

    fn bring(&mut self, run: RunId) -> Res {
        let mut state = RunState::new(run.clone());
        let Some(kept) = self.disk.runs.get(&run) else {
            return Ok(());
        };
        kept.journal.iter().for_each(|r| state.apply(&r.event));
        let position = kept.journal.last().map_or(0, |r| r.position);
        let max_parallel = kept.made.plan.max_parallel;
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        let core = RunCore::recovered(state, position, center.epoch, GRACE);
        center.runs.insert(run.clone(), core);
        center
            .histories
            .insert(run.clone(), History::learn(self.past.clone()));
        let limits = RunLimits {
            priority: kept.priority,
            max_parallel,
        };
        center.seats.limit(&run, max_parallel);
        self.schedule(ScheduleInput::RunAdded {
            run: run.clone(),
            limits,
        })?;
        self.tell_run(
            &run,
            Input::Secrets {
                missing: Vec::new(),
            },
        )
    }

    /// Simulates `kill -9`.
    pub fn crash_center(&mut self) {
        let Some(center) = self.center.take() else {
            return;
        };
        self.tally.count("coordinator crashed");
        self.center_frozen_until = Duration::ZERO;
        if center.unsynced() > 0 {
            self.tally.count("unsynced events lost");
        }
        for (connection, _) in self.network.all() {
            self.hang_up(connection, true, false);
        }
    }

    /// Gives up agents that held attempts before the restart and didn't reconnect.
    pub fn expire(&mut self, epoch: u64) -> Res {
        let Some(center) = self.center.as_ref().filter(|c| c.epoch == epoch) else {
            return Ok(());
        };
        let held: BTreeSet<AgentId> = center.runs.values().flat_map(RunCore::agents).collect();
        let away: Vec<AgentId> = held.difference(&center.present).cloned().collect();
        for agent in away {
            self.lost(&agent, AgentGone::NotBackAfterRestart)?;
        }
        Ok(())
    }

    pub fn lost(&mut self, agent: &AgentId, gone: AgentGone) -> Res {
        if let Some(center) = &mut self.center {
            center.present.remove(agent);
        }
        self.schedule(ScheduleInput::AgentLost {
            agent: agent.clone(),
        })?;
        if self.switch == Switch::DeadAgentKept {
            return Ok(());
        }
        for run in self.run_ids() {
            let (agent, gone) = (agent.clone(), gone.clone());
            self.tell_run(&run, Input::AgentLost { agent, gone })?;
        }
        Ok(())
    }

    pub fn run_ids(&self) -> Vec<RunId> {
        self.center
            .as_ref()
            .map_or_else(Vec::new, |c| c.runs.keys().cloned().collect())
    }

    /// Handles a message that arrived over a connection.
    pub fn arrived(&mut self, connection: ConnectionId, message: FromAgent) -> Res {
        let now = self.now;
        let Some(machine) = self.network.agent(connection).map(|n| &self.machines[n]) else {
            return Ok(());
        };
        let agent = machine.about.agent.clone();
        let is_hello = matches!(message, FromAgent::Hello(_));
        let late = is_hello && machine.connection != Some(connection);
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        let impostor = matches!(&message, FromAgent::Hello(hello) if hello.instance == IMPOSTOR);
        if impostor {
            // An impostor that takes an identity that no process holds can't be distinguished from the agent, so this
            // isn't checked.
            let held = center.sessions.get(&agent);
            if !held.is_some_and(AgentSession::is_held) {
                self.tally.count("identity free for an impostor");
                return Ok(());
            }
        } else if !late {
            center.heard.insert(agent.clone(), now);
        }
        let greeted =
            center.wires.values().any(|c| *c == connection) || self.greeted.contains(&connection);
        let effects = match (greeted, message) {
            (false, FromAgent::Hello(hello)) => {
                self.greeted.insert(connection);
                let gate = center.gate.clone();
                let session = center.sessions.entry(agent.clone()).or_insert_with(|| {
                    let settings = settings(center.epoch, self.switch);
                    AgentSession::new(agent.clone(), settings, gate, now)
                });
                let input = SessionInput::Hello {
                    connection,
                    protocol: 1,
                    hello: *hello,
                };
                let effects = session.handle(input, now);
                if session.current() == Some(connection) {
                    if impostor {
                        return Err(broken("I8", format!("an impostor took {agent}'s place")));
                    }
                    center.wires.insert(agent.clone(), connection);
                } else {
                    self.tally.count(match () {
                        () if impostor => "identity kept from an impostor",
                        () if late => "late Hello refused",
                        () => "next process waited for its identity",
                    });
                }
                effects
            }
            // The server rejects a connection that doesn't begin with a Hello.
            (false, _) => {
                self.hang_up(connection, true, false);
                return Ok(());
            }
            (true, message) => {
                let is_events = matches!(message, FromAgent::Events { .. });
                let Some(session) = center.sessions.get_mut(&agent) else {
                    return Ok(());
                };
                let input = SessionInput::Received {
                    connection,
                    message,
                };
                let effects = session.handle(input, now);
                if is_events && matches!(effects[..], [Effect::Send(ToAgent::Ack { .. })]) {
                    self.tally.count("event repeated and dropped");
                }
                effects
            }
        };
        self.session_effects(&agent, effects)
    }

    /// The coordinator learns that a connection is gone.
    pub fn broken(&mut self, connection: ConnectionId, agent: &AgentId) -> Res {
        let reason = "reset".to_owned();
        self.session(agent, SessionInput::Broken { connection, reason })
    }

    pub fn tick_center(&mut self) -> Res {
        let Some(center) = &self.center else {
            return Ok(());
        };
        for agent in center.sessions.keys().cloned().collect::<Vec<_>>() {
            self.session(&agent, SessionInput::Tick)?;
        }
        Ok(())
    }

    /// Passes an input to the session of an agent, if there is one.
    pub fn session(&mut self, agent: &AgentId, input: SessionInput) -> Res {
        let now = self.now;
        let session = self.center.as_mut().and_then(|c| c.sessions.get_mut(agent));
        let Some(session) = session else {
            return Ok(());
        };
        let effects = session.handle(input, now);
        self.session_effects(agent, effects)
    }

    fn session_effects(&mut self, agent: &AgentId, effects: Vec<Effect>) -> Res {
        for effect in effects {
            match effect {
                Effect::Send(message) => self.send_down(agent, message)?,
                Effect::Close { connection, .. } => self.hang_up(connection, true, false),
                Effect::Opened(_) | Effect::Closed(_) => {}
                Effect::End => {
                    if let Some(center) = &mut self.center {
                        center.sessions.remove(agent);
                        center.wires.remove(agent);
                    }
                }
                report => self.report(agent, report)?,
            }
        }
        Ok(())
    }

    fn send_down(&mut self, agent: &AgentId, mut message: ToAgent) -> Res {
        match &mut message {
            ToAgent::Ack { token, seq } => self.disk.is_durable(token, *seq)?,
            ToAgent::Abandon { .. } => self.tally.count("stale token refused"),
            ToAgent::Resend { .. } => self.tally.count("hole noticed"),
            ToAgent::Welcome(welcome) => {
                welcome
                    .resume
                    .iter()
                    .for_each(|_| self.tally.count("attempt resumed"));
                if !welcome.resume.is_empty() && welcome.epoch > 1 {
                    self.tally.count("attempt resumed in a later term");
                }
                if self.switch == Switch::LeaseStretched {
                    welcome.lease *= 3;
                }
            }
            _ => {}
        }
        let wire = self
            .center
            .as_ref()
            .and_then(|c| c.wires.get(agent))
            .copied();
        if let Some(connection) = wire {
            self.transmit(connection, Message::Down(message));
        }
        Ok(())
    }

    pub fn tell_run(&mut self, run: &RunId, input: Input) -> Res {
        self.decide(run, input, Vec::new(), None)
    }

    pub fn cancel_run(&mut self, run: &RunId, force: bool) -> Res {
        self.tally.count("run cancelled");
        let order = CancelOrder {
            reason: "simulated".to_owned(),
            grace: GRACE,
            force,
        };
        self.tell_run(run, Input::Cancel(order))
    }

    /// Lets a run decide. The effects happen after the commit.
    pub fn decide(
        &mut self,
        run: &RunId,
        input: Input,
        mut parcels: Vec<Parcel>,
        gather: Option<u64>,
    ) -> Res {
        let (at, early) = (self.center_wall(), self.switch == Switch::AcknowledgedEarly);
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        let Some(core) = center.runs.get_mut(run) else {
            return Ok(());
        };
        let mut events = Vec::new();
        for effect in core.handle(input, at) {
            parcels.push(match (effect, gather) {
                (RunEffect::Journal(recorded), _) => {
                    events.push(recorded);
                    continue;
                }
                (RunEffect::Resume { attempts, .. }, Some(gather)) => {
                    Parcel::Resume { gather, attempts }
                }
                (effect, _) => Parcel::Effect(effect),
            });
        }
        self.losses_have_causes(&events)?;
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        let mut now = Vec::new();
        if early {
            let (durable, rest) = parcels
                .into_iter()
                .partition(|p| matches!(p, Parcel::Durable { .. }));
            (now, parcels) = (durable, rest);
        }
        center.loads.push_back(Load {
            run: run.clone(),
            events,
            parcels,
        });
        if !center.committing {
            center.committing = true;
            let epoch = center.epoch;
            let slow = self.random.chance(50);
            let pause = if slow {
                self.tally.count("slow disk");
                self.random.millis(50, 1500)
            } else {
                self.random.millis(1, 8)
            };
            self.later(pause, Happening::Commit { epoch });
        }
        for parcel in now {
            self.deliver(run, parcel)?;
        }
        Ok(())
    }

    /// Makes all decisions so far durable, then performs their effects in order.
    pub fn commit(&mut self, epoch: u64) -> Res {
        let Some(center) = self.center.as_mut().filter(|c| c.epoch == epoch) else {
            return Ok(());
        };
        if self.now < self.disk.full_until && self.switch != Switch::LosesWhenFull {
            // Like the journal's writer: nothing is dropped, and the commit is retried until there is room.
            self.tally.count("journal waited for room");
            let until = self.disk.full_until;
            self.at(until, Happening::Commit { epoch });
            return Ok(());
        }
        let lose = self.now < self.disk.full_until;
        center.committing = false;
        let loads = std::mem::take(&mut center.loads);
        for load in &loads {
            let twice = self.switch == Switch::OutcomeTwice;
            if !lose {
                self.disk
                    .append(&load.run, &load.events, twice, &mut self.tally)?;
            }
        }
        for load in loads {
            for parcel in load.parcels {
                self.deliver(&load.run, parcel)?;
            }
        }
        Ok(())
    }
}
