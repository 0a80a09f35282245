//! The disasters that hit the world until it becomes calm.

use super::network::Message;
use super::world::{Happening, Res, World};
use crate::dispatch::core::{ConnectionId, Input as SessionInput};
use phalanx_proto::PROTOCOLS;
use phalanx_proto::link::{FromAgent, Hello};
use phalanx_shared::event::{AttemptRef, Event, EventKind};
use phalanx_shared::id::Token;
use phalanx_shared::outcome::Outcome;
use std::time::Duration;

/// Instance id of a process that claims to be an agent whose directory it copied.
pub const IMPOSTOR: &str = "impostor";

impl World {
    pub fn disaster(&mut self) -> Res {
        if self.calm {
            return Ok(());
        }
        let agent = self.random.below(self.machines.len() as u64) as usize;
        match self.random.below(28) {
            0 | 1 => self.crash_agent(agent),
            2 | 3 => {
                self.crash_center();
                let pause = self.random.millis(50, 9_000);
                self.restart_center(pause);
            }
            4..=6 => {
                for connection in self.network.of_agent(agent) {
                    let (agent_learns, center_learns) = match self.random.below(4) {
                        0 => (true, false),
                        1 => (false, true),
                        _ => (true, true),
                    };
                    let both = agent_learns && center_learns;
                    self.tally.count(if both {
                        "connection cut"
                    } else {
                        "connection half open"
                    });
                    self.hang_up(connection, agent_learns, center_learns);
                }
            }
            7 | 8 => {
                self.tally.count("partition");
                let until = self.now + self.random.millis(500, 25_000);
                self.network.part(agent, until);
            }
            9 => {
                let runs = self.run_ids();
                if let Some(run) = runs
                    .get(self.random.below(runs.len() as u64) as usize)
                    .cloned()
                {
                    let force = self.random.chance(300);
                    self.cancel_run(&run, force)?;
                }
            }
            10 => {
                let id = self.machines[agent].about.agent.clone();
                self.session(&id, SessionInput::Drain)?;
            }
            11 => {
                let now = self.now;
                self.with_link(agent, |link| link.drain(now))?;
            }
            12 | 13 => self.freeze(agent),
            14 | 15 => self.jump(agent),
            16 | 17 => self.restart_engine(agent)?,
            18 => {
                self.tally.count("coordinator's disk full");
                self.disk.full_until = self.now + self.random.millis(500, 10_000);
            }
            19 | 20 => {
                let full = self.random.chance(600);
                self.machines[agent].drive.set_full(full);
            }
            25 => self.forge(agent),
            26 => self.pretend(agent),
            27 => self.delay_hello(agent),
            _ => self.lie(agent),
        }
        let pause = self.random.millis(200, 2_500);
        self.later(pause, Happening::Disaster);
        Ok(())
    }

    /// Freezes a process (stopped, swapped out, a laptop asleep). It continues later as if nothing had happened.
    fn freeze(&mut self, agent: usize) {
        let until = self.now + self.random.millis(500, 20_000);
        if self.random.chance(300) && self.center.is_some() {
            self.tally.count("coordinator slow");
            self.center_frozen_until = until;
        } else if self.machines[agent].link.is_some() {
            self.tally.count("agent slow");
            self.machines[agent].frozen_until = until;
        }
    }

    /// A wall clock jumps, in either direction.
    fn jump(&mut self, agent: usize) {
        self.tally.count("clock jumped");
        let hour = 3_600_000_000;
        let off = i64::try_from(self.random.below(2 * hour)).unwrap_or(0) - 3_600_000_000;
        if self.random.chance(400) {
            self.center_clock_off = off;
        } else {
            self.machines[agent].clock_off = off;
        }
    }

    /// The engine is unavailable for a while, and everything that ran in it has ended.
    fn restart_engine(&mut self, agent: usize) -> Res {
        self.tally.count("engine restarted");
        let number = self.machines[agent].engine;
        self.engines[number].away_until = self.now + self.random.millis(200, 8_000);
        for agent in 0..self.machines.len() {
            if self.machines[agent].engine != number || self.machines[agent].is_frozen(self.now) {
                continue;
            }
            let cells = self.machines[agent].cells.iter();
            let running = cells.filter(|(_, cell)| !cell.gone);
            for token in running.map(|(token, _)| token.clone()).collect::<Vec<_>>() {
                self.service_down(agent, &token, "the engine was restarted")?;
            }
        }
        Ok(())
    }

    /// An agent sends messages about an attempt that it doesn't hold: another agent's, a future one, one of an earlier
    /// term, or one of a cell that doesn't exist.
    fn lie(&mut self, agent: usize) {
        let machine = &self.machines[agent];
        let Some(connection) = machine.connection else {
            return;
        };
        if !self.greeted.contains(&connection) {
            return;
        }
        let others = self
            .machines
            .iter()
            .filter(|m| m.about.agent != machine.about.agent);
        let tokens: Vec<Token> = others.flat_map(|m| m.began.iter().cloned()).collect();
        let Some(mut token) = tokens
            .get(self.random.below(tokens.len() as u64) as usize)
            .cloned()
        else {
            return;
        };
        let what = match self.random.below(4) {
            0 => {
                token.attempt += 1;
                "lied about an attempt to come"
            }
            1 => {
                token.epoch -= 1;
                "lied with a stale token"
            }
            2 => {
                token.cell = "ffffffffffffffff".into();
                "lied about a cell that isn't there"
            }
            _ => "lied about another's cell",
        };
        self.tally.count(what);
        let kind = EventKind::AttemptFinished {
            outcome: Outcome::Passed,
            reason: None,
            timed_out: false,
            culprit: None,
        };
        let event = Event {
            run: token.run.clone(),
            attempt: Some(AttemptRef {
                cell: token.cell.clone(),
                attempt: token.attempt,
            }),
            seq: 1 + self.random.below(3),
            at: self.wall(agent),
            mono_us: 0,
            kind,
        };
        let message = match self.random.below(4) {
            0 => FromAgent::Accept { token },
            1 => FromAgent::Decline {
                token,
                reason: "a lie".to_owned(),
            },
            _ => FromAgent::Events {
                token,
                events: vec![event],
            },
        };
        self.transmit(connection, Message::Up(message));
    }

    /// An agent sends an event that only the coordinator may create, for an attempt that it holds.
    fn forge(&mut self, agent: usize) {
        let machine = &self.machines[agent];
        let (Some(connection), Some(link)) = (machine.connection, &machine.link) else {
            return;
        };
        let running: Vec<Token> = link.running().cloned().collect();
        let Some(token) = running
            .get(self.random.below(running.len() as u64) as usize)
            .cloned()
        else {
            return;
        };
        self.tally.count("forged what only a coordinator says");
        self.forged.insert(token.clone());
        let kind = match self.random.below(3) {
            0 => EventKind::RunFinished {
                outcome: Outcome::Passed,
            },
            1 => EventKind::CellFinished {
                cell: token.cell.clone(),
                outcome: Outcome::Passed,
                reason: None,
                attempts: 1,
            },
            _ => EventKind::CancelRequested {
                reason: "forged".to_owned(),
                grace_ms: None,
                force: true,
            },
        };
        let event = Event {
            run: token.run.clone(),
            attempt: Some(AttemptRef {
                cell: token.cell.clone(),
                attempt: token.attempt,
            }),
            seq: 1 + self.disk.last(&token),
            at: self.wall(agent),
            mono_us: 0,
            kind,
        };
        let events = vec![event];
        self.transmit(connection, Message::Up(FromAgent::Events { token, events }));
    }

    /// Another process says Hello as an agent, with an empty inventory.
    fn pretend(&mut self, agent: usize) {
        if self.center.is_none() || self.machines[agent].link.is_none() {
            return;
        }
        let about = self.machines[agent].about.clone();
        self.tally.count("impostor said Hello");
        let connection = self.network.open(agent);
        let hello = Hello {
            agent: about.agent,
            name: about.name,
            version: about.version,
            protocols: (*PROTOCOLS.start(), *PROTOCOLS.end()),
            labels: about.labels,
            slots: about.slots,
            resources: about.resources,
            images: Vec::new(),
            inventory: Vec::new(),
            instance: IMPOSTOR.to_owned(),
            number: u64::MAX,
            policy: None,
            ahead: Some(about.ahead),
            snapshots: None,
        };
        self.transmit(connection, Message::Up(FromAgent::Hello(Box::new(hello))));
        self.leave_again(connection, agent);
    }

    /// Sends the agent's last Hello once more, much later, as a connection would that it has given up since.
    fn delay_hello(&mut self, agent: usize) {
        let machine = &self.machines[agent];
        let life = machine.life;
        if let Some((term, hello)) = machine.said.clone() {
            let pause = self.random.millis(0, 8_000);
            let late = Happening::LateHello {
                agent,
                life,
                term,
                hello: Box::new(hello),
            };
            self.later(pause, late);
        }
    }

    /// Delivers a late Hello. A connection to a coordinator ends with its process, and so does one of an agent.
    pub fn late_hello(&mut self, agent: usize, life: u64, term: u64, hello: Hello) {
        let machine = &self.machines[agent];
        let same = self
            .center
            .as_ref()
            .is_some_and(|center| center.epoch == term);
        if !same || machine.link.is_none() || machine.life != life {
            return;
        }
        self.tally.count("Hello came late");
        let connection = self.network.open(agent);
        self.transmit(connection, Message::Up(FromAgent::Hello(Box::new(hello))));
        self.leave_again(connection, agent);
    }

    /// Ends a connection that nobody handles at the agent's side.
    fn leave_again(&mut self, connection: ConnectionId, agent: usize) {
        self.later(Duration::from_millis(500), Happening::HangUp { connection });
        let gone = Happening::UpBroken { connection, agent };
        self.later(Duration::from_millis(600), gone);
    }

    pub fn restart_center(&mut self, pause: Duration) {
        let waits = |happening: &Happening| matches!(happening, Happening::StartCenter);
        if !self.agenda.values().any(waits) {
            self.later(pause, Happening::StartCenter);
        }
    }

    pub fn crash_agent(&mut self, agent: usize) {
        if self.machines[agent].link.is_none() {
            return;
        }
        self.tally.count("agent crashed");
        for connection in self.network.of_agent(agent) {
            // The kernel reports the end, unless the machine failed as well.
            let learns = self.random.chance(700) && !self.network.parted(agent, self.now);
            self.hang_up(connection, false, learns);
        }
        self.machines[agent].kill();
        let pause = self.random.millis(50, 15_000);
        self.later(pause, Happening::StartAgent { agent });
    }
}
