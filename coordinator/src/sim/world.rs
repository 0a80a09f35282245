//! The world: an agenda of what happens next, the machines, and the disasters that hit them until it becomes calm.

use super::Switch;
use super::cell::InCell;
use super::center::Center;
use super::checks::Disk;
use super::engine::Engine;
use super::machine::Machine;
use super::network::{Message, Network, Weather};
use super::random::Random;
use super::tally::Tally;
use crate::dispatch::core::ConnectionId;
use crate::journal::Past;
use crate::schedule::core::Input as ScheduleInput;
use phalanx_agent::context::masks::Masks;
use phalanx_proto::link::{FromAgent, Hello, ToAgent};
use phalanx_shared::id::{AgentId, RunId, Token};
use phalanx_shared::invariant::Violation;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub type Res = Result<(), Violation>;

pub const TICK: Duration = Duration::from_millis(250);
/// After the calm begins, everything must end within this time.
const PATIENCE: Duration = Duration::from_secs(400);

/// An entry of the agenda.
#[derive(Debug)]
pub enum Happening {
    StartCenter,
    Commit {
        epoch: u64,
    },
    Expire {
        epoch: u64,
    },
    Wake {
        epoch: u64,
    },
    Submit {
        run: RunId,
        shape: u64,
    },
    StartAgent {
        agent: usize,
    },
    Connect {
        agent: usize,
        life: u64,
    },
    Up {
        connection: ConnectionId,
        message: FromAgent,
    },
    Down {
        connection: ConnectionId,
        message: ToAgent,
    },
    /// The coordinator learns that a connection is gone.
    UpBroken {
        connection: ConnectionId,
        agent: usize,
    },
    /// The agent learns that a connection is gone.
    DownBroken {
        connection: ConnectionId,
        agent: usize,
    },
    /// The end of a connection that was given up in peace.
    HangUp {
        connection: ConnectionId,
    },
    Cell {
        agent: usize,
        life: u64,
        token: Token,
        what: InCell,
    },
    Prepared {
        agent: usize,
        life: u64,
        number: u64,
    },
    Reap {
        agent: usize,
        life: u64,
    },
    LogsOver {
        agent: usize,
        life: u64,
        token: Token,
    },
    /// A Hello arrives over a connection that its agent gave up long ago.
    LateHello {
        agent: usize,
        life: u64,
        term: u64,
        hello: Box<Hello>,
    },
    Disaster,
    Calm,
    Tick,
}

impl Happening {
    /// Returns the kind of event, for the message of a broken promise.
    fn what(&self) -> &'static str {
        match self {
            Happening::StartCenter => "start of the coordinator",
            Happening::Commit { .. } => "commit",
            Happening::Expire { .. } => "end of the wait for agents",
            Happening::Wake { .. } => "wake-up of the scheduler",
            Happening::Submit { .. } => "submission",
            Happening::StartAgent { .. } => "start of an agent",
            Happening::Connect { .. } => "connecting",
            Happening::Up { .. } => "message to the coordinator",
            Happening::Down { .. } => "message to an agent",
            Happening::UpBroken { .. } => "break seen by the coordinator",
            Happening::DownBroken { .. } => "break seen by an agent",
            Happening::HangUp { .. } => "end of a connection",
            Happening::Cell { .. } => "cell",
            Happening::Prepared { .. } => "end of a pull or build",
            Happening::Reap { .. } => "reaping",
            Happening::LogsOver { .. } => "end of logs",
            Happening::LateHello { .. } => "late Hello",
            Happening::Disaster => "disaster",
            Happening::Calm => "calm",
            Happening::Tick => "tick",
        }
    }
}

/// The simulated world. See the module documentation.
pub struct World {
    pub random: Random,
    pub switch: Switch,
    pub tally: Tally,
    pub now: Duration,
    pub network: Network,
    pub machines: Vec<Machine>,
    pub engines: Vec<Engine>,
    pub center: Option<Center>,
    pub disk: Disk,
    /// Connections that sent a Hello.
    pub greeted: BTreeSet<ConnectionId>,
    weather: Weather,
    pub agenda: BTreeMap<(Duration, u64), Happening>,
    arranged: u64,
    unsubmitted: usize,
    pub calm: bool,
    /// Until when the coordinator's process is frozen.
    pub center_frozen_until: Duration,
    /// Offset of the coordinator's wall clock, in microseconds.
    pub center_clock_off: i64,
    /// How long cells took, for later runs.
    pub past: Vec<Past>,
    /// The mask of each run's secret.
    pub masks: BTreeMap<RunId, Arc<Masks>>,
    /// The agent that began each attempt.
    pub holders: BTreeMap<Token, AgentId>,
    /// When each attempt began.
    pub begun: BTreeMap<Token, Duration>,
    /// Attempts for which an agent sent events that it may not send.
    pub forged: BTreeSet<Token>,
    /// Attempts held by processes that are gone, and since when.
    pub orphaned: BTreeMap<Token, Duration>,
    /// The scheduler received an input since the last check.
    pub crowded: bool,
    /// Time has passed since the last check.
    pub ticked: bool,
    /// Prints what happens, to help find a cause.
    trace: bool,
}

impl World {
    pub fn new(seed: u64, switch: Switch) -> World {
        let mut random = Random::new(seed);
        let machines: Vec<Machine> = (0..3 + random.below(2) as usize)
            .map(|number| Machine::new(number, &mut random))
            .collect();
        let engines = machines.iter().map(|_| Engine::default()).collect();
        let weather = Weather {
            lose: random.below(30),
            double: random.below(30),
            delay: random.below(40),
            reorder: random.below(30),
        };
        let mut world = World {
            random,
            switch,
            tally: Tally::default(),
            now: Duration::ZERO,
            network: Network::default(),
            machines,
            engines,
            center: None,
            disk: Disk::default(),
            greeted: BTreeSet::new(),
            weather,
            agenda: BTreeMap::new(),
            arranged: 0,
            unsubmitted: 0,
            calm: false,
            center_frozen_until: Duration::ZERO,
            center_clock_off: 0,
            past: Vec::new(),
            masks: BTreeMap::new(),
            holders: BTreeMap::new(),
            begun: BTreeMap::new(),
            forged: BTreeSet::new(),
            orphaned: BTreeMap::new(),
            crowded: false,
            ticked: false,
            trace: std::env::var_os("PHALANX_SIM_TRACE").is_some(),
        };
        world.arrange();
        world
    }

    fn arrange(&mut self) {
        self.later(Duration::ZERO, Happening::StartCenter);
        for agent in 0..self.machines.len() {
            let pause = self.random.millis(0, 500);
            self.later(pause, Happening::StartAgent { agent });
        }
        for number in 0..2 + self.random.below(2) {
            let run = RunId(format!("run-{number}"));
            let (pause, shape) = (self.random.millis(10, 6000), self.random.number());
            self.unsubmitted += 1;
            self.later(pause, Happening::Submit { run, shape });
        }
        let pause = self.random.millis(500, 4000);
        self.later(pause, Happening::Disaster);
        let calm = self.random.millis(15_000, 45_000);
        self.later(calm, Happening::Calm);
        self.later(TICK, Happening::Tick);
    }

    /// Runs until every run is settled or a promise is broken.
    pub fn run(mut self) -> Result<Tally, String> {
        let mut end = None;
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.now = at;
            if self.trace && !matches!(happening, Happening::Tick) {
                println!("{at:?} {}", cut(&format!("{happening:?}")));
            }
            // Formatting every event would take most of the time. The seed reproduces the run, and the trace shows
            // everything.
            let what = happening.what();
            let step = self.happen(happening).and_then(|()| self.check());
            if let Err(violation) = step {
                return Err(format!("{violation} at {at:?} in {what}"));
            }
            if self.calm {
                let end = *end.get_or_insert(at + PATIENCE);
                let clean = self.engines.iter().all(Engine::is_empty) && self.nobody_prepares();
                if self.unsubmitted == 0 && self.disk.open_runs().is_empty() && clean {
                    self.disk
                        .all_finished()
                        .map_err(|violation| violation.to_string())?;
                    return Ok(self.tally);
                }
                if at > end {
                    return Err(format!("no end in sight: {}", self.unfinished()));
                }
            }
        }
        Err("nothing happens any more".to_owned())
    }

    pub fn at(&mut self, at: Duration, happening: Happening) {
        self.arranged += 1;
        self.agenda
            .insert((at.max(self.now), self.arranged), happening);
    }

    pub fn later(&mut self, pause: Duration, happening: Happening) {
        self.at(self.now + pause, happening);
    }

    /// Returns an agent's wall-clock time.
    pub fn wall(&self, agent: usize) -> Timestamp {
        self.stamp(self.machines[agent].clock_off)
    }

    /// Returns the coordinator's wall-clock time.
    pub fn center_wall(&self) -> Timestamp {
        self.stamp(self.center_clock_off)
    }

    fn stamp(&self, off: i64) -> Timestamp {
        let day = 86_400_000_000;
        let now = i64::try_from(self.now.as_micros()).unwrap_or(i64::MAX);
        Timestamp(now.saturating_add(day).saturating_add(off))
    }

    /// Returns until when the receiver is frozen, if it is. What arrives in the meantime waits, in order.
    fn frozen(&self, happening: &Happening) -> Option<Duration> {
        let agent = match happening {
            Happening::Commit { .. }
            | Happening::Expire { .. }
            | Happening::Wake { .. }
            | Happening::Submit { .. }
            | Happening::Up { .. }
            | Happening::UpBroken { .. } => {
                return (self.now < self.center_frozen_until).then_some(self.center_frozen_until);
            }
            Happening::Down { connection, .. } => self.network.agent(*connection)?,
            Happening::Connect { agent, .. }
            | Happening::DownBroken { agent, .. }
            | Happening::Cell { agent, .. }
            | Happening::Prepared { agent, .. }
            | Happening::Reap { agent, .. }
            | Happening::LogsOver { agent, .. } => *agent,
            _ => return None,
        };
        let machine = &self.machines[agent];
        machine.is_frozen(self.now).then_some(machine.frozen_until)
    }

    fn happen(&mut self, happening: Happening) -> Res {
        if let Some(until) = self.frozen(&happening) {
            self.at(until, happening);
            return Ok(());
        }
        match happening {
            Happening::StartCenter => self.start_center()?,
            Happening::Commit { epoch } => self.commit(epoch)?,
            Happening::Expire { epoch } => self.expire(epoch)?,
            Happening::Wake { epoch } if epoch == self.disk.epoch => {
                self.schedule(ScheduleInput::Tick)?
            }
            Happening::Wake { .. } => {}
            Happening::Submit { run, shape } => {
                if self.center.is_some() {
                    self.unsubmitted -= 1;
                    self.submit(run, shape)?;
                } else {
                    self.later(TICK, Happening::Submit { run, shape });
                }
            }
            Happening::StartAgent { agent } => self.start_agent(agent)?,
            Happening::Connect { agent, life } => self.connect(agent, life)?,
            Happening::Reap { agent, life } => self.reap_now_and_then(agent, life)?,
            Happening::Prepared {
                agent,
                life,
                number,
            } => self.prepared(agent, life, number)?,
            Happening::Up {
                connection,
                message,
            } => self.arrived(connection, message)?,
            Happening::Down {
                connection,
                message,
            } => self.heard(connection, message)?,
            Happening::UpBroken { connection, agent } => {
                let agent = self.machines[agent].about.agent.clone();
                self.broken(connection, &agent)?;
            }
            Happening::DownBroken { connection, agent } => self.cut_off(connection, agent),
            Happening::HangUp { connection } => self.hang_up(connection, true, false),
            Happening::Cell {
                agent,
                life,
                token,
                what,
            } => self.cell_goes_on(agent, life, &token, what)?,
            Happening::LogsOver { agent, life, token } => self.logs_over(agent, life, token)?,
            Happening::LateHello {
                agent,
                life,
                term,
                hello,
            } => self.late_hello(agent, life, term, *hello),
            Happening::Disaster => self.disaster()?,
            Happening::Calm => {
                self.calm = true;
                self.weather = Weather::CALM;
                self.network.heal();
                self.machines.iter().for_each(|m| m.drive.set_full(false));
            }
            Happening::Tick => {
                self.ticked = true;
                let now = self.now;
                if now >= self.center_frozen_until {
                    self.tick_center()?;
                }
                for agent in 0..self.machines.len() {
                    if !self.machines[agent].is_frozen(now) {
                        self.with_link(agent, |link| link.tick(now))?;
                    }
                }
                self.later(TICK, Happening::Tick);
            }
        }
        Ok(())
    }

    /// Records the durations of a finished run for later ones, like the journal's history.
    pub fn learn(&mut self, run: &RunId) {
        let Some(kept) = self.disk.runs.get(run) else {
            return;
        };
        let state = kept.state();
        for cell in &kept.made.plan.cells {
            let tries = state
                .cells
                .get(&cell.id)
                .map_or(0, |seen| seen.attempts.len());
            self.past.push(Past {
                cell: cell.id.clone(),
                matrix: cell.matrix.clone().into_iter().collect(),
                elapsed_ms: 1_000 * tries as u64,
                snapshot: None,
            });
        }
    }

    /// Sends a message.
    pub fn transmit(&mut self, connection: ConnectionId, message: Message) {
        let up = matches!(message, Message::Up(_));
        let times = self.network.send(
            connection,
            up,
            self.now,
            self.weather,
            &mut self.random,
            &mut self.tally,
        );
        for at in times {
            let happening = match message.clone() {
                Message::Up(message) => Happening::Up {
                    connection,
                    message,
                },
                Message::Down(message) => Happening::Down {
                    connection,
                    message,
                },
            };
            self.at(at, happening);
        }
    }

    /// Ends a connection: messages in flight are lost. Each end may or may not learn of it.
    pub fn hang_up(&mut self, connection: ConnectionId, agent_learns: bool, center_learns: bool) {
        let Some(agent) = self.network.agent(connection) else {
            return;
        };
        self.network.close(connection);
        if agent_learns {
            let pause = self.random.millis(0, 20);
            self.later(pause, Happening::DownBroken { connection, agent });
        }
        if center_learns {
            let pause = self.random.millis(0, 20);
            self.later(pause, Happening::UpBroken { connection, agent });
        }
    }
}

/// Shortens a text; enough to recognise what happened.
fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}
