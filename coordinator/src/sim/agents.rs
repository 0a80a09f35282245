//! The agents' side of the world: processes, connections, and the effects of links.

use super::Switch;
use super::engine::REAP_EVERY;
use super::machine::Disk;
use super::network::Message;
use super::world::{Happening, Res, World};
use crate::dispatch::core::ConnectionId;
use phalanx_agent::ahead::core::{Effect as AheadEffect, Input as Ahead};
use phalanx_agent::link::backoff;
use phalanx_agent::link::core::{Effect, Link};
use phalanx_agent::link::logs::spool::Over;
use phalanx_proto::link::{FromAgent, Hello, ToAgent};
use phalanx_shared::event::{EventKind, LogStream};
use phalanx_shared::id::Token;
use std::time::Duration;

/// Longer than any world.
const HANGS: Duration = Duration::from_secs(86_400);

impl World {
    pub fn start_agent(&mut self, agent: usize) -> Res {
        let machine = &mut self.machines[agent];
        if machine.link.is_some() {
            return Ok(());
        }
        machine.start();
        let life = machine.life;
        self.reap_now_and_then(agent, life)?;
        self.connect(agent, life)
    }

    pub fn reap_now_and_then(&mut self, agent: usize, life: u64) -> Res {
        let machine = &self.machines[agent];
        if machine.life != life || machine.link.is_none() {
            return Ok(());
        }
        self.later(REAP_EVERY, Happening::Reap { agent, life });
        if self.switch == Switch::ReaperIdle {
            return Ok(());
        }
        self.reap(agent)
    }

    pub fn connect(&mut self, agent: usize, life: u64) -> Res {
        let machine = &mut self.machines[agent];
        if machine.life != life || machine.link.is_none() || machine.connection.is_some() {
            return Ok(());
        }
        if self.center.is_none() || self.network.parted(agent, self.now) {
            machine.failed_connects += 1;
            let pause = backoff::pause(machine.failed_connects, self.random.number());
            self.later(pause, Happening::Connect { agent, life });
            return Ok(());
        }
        machine.failed_connects = 0;
        let connection = self.network.open(agent);
        machine.connection = Some(connection);
        if connection > self.machines.len() as u64 {
            self.tally.count("agent reconnected");
        }
        let now = self.now;
        self.with_link(agent, |link| link.connected(now))
    }

    pub fn heard(&mut self, connection: ConnectionId, message: ToAgent) -> Res {
        let Some(agent) = self.network.agent(connection) else {
            return Ok(());
        };
        if self.machines[agent].connection == Some(connection) {
            let now = self.now;
            self.with_link(agent, |link| link.received(now, message))?;
            self.is_durable_at(agent)?;
        }
        Ok(())
    }

    pub fn cut_off(&mut self, connection: ConnectionId, agent: usize) {
        let machine = &mut self.machines[agent];
        if machine.connection != Some(connection) {
            return;
        }
        machine.connection = None;
        if let Some(link) = &mut machine.link {
            link.disconnected();
        }
        let life = machine.life;
        let pause = backoff::pause(0, self.random.number());
        self.later(pause, Happening::Connect { agent, life });
    }

    pub fn with_link(
        &mut self,
        agent: usize,
        act: impl FnOnce(&mut Link<Disk>) -> Vec<Effect>,
    ) -> Res {
        let Some(link) = &mut self.machines[agent].link else {
            return Ok(());
        };
        let before = link.spool().overflow().written;
        let effects = act(link);
        if link.spool().overflow().written > before {
            self.tally.count("spool went to disk");
        }
        if self.machines[agent].drive.refused() {
            self.tally.count("agent's disk full");
        }
        self.machines[agent].drive.check()?;
        for effect in effects {
            self.link_effect(agent, effect)?;
        }
        Ok(())
    }

    /// **I1** Events that the spool has released are on disk, whatever acknowledged them.
    fn is_durable_at(&self, agent: usize) -> Res {
        let machine = &self.machines[agent];
        let Some(link) = &machine.link else {
            return Ok(());
        };
        for token in machine.cells.keys() {
            self.disk.is_durable(token, link.spool().durable(token))?;
        }
        Ok(())
    }

    pub fn link_effect(&mut self, agent: usize, effect: Effect) -> Res {
        let life = self.machines[agent].life;
        match effect {
            Effect::Send(mut message) => {
                if let FromAgent::Hello(hello) = &mut message {
                    hello.instance = format!("process-{life}");
                    let term = self.center.as_ref().map(|center| center.epoch);
                    self.machines[agent].said = term.map(|term| (term, Hello::clone(hello)));
                }
                if let Some(connection) = self.machines[agent].connection {
                    self.transmit(connection, Message::Up(message));
                }
            }
            Effect::Start(offer) => {
                let id = self.machines[agent].about.agent.clone();
                self.machines[agent].began.insert(offer.token.clone());
                self.holds(&offer.token, &id);
                self.begin_cell(agent, &offer)?;
            }
            Effect::Cancel { token, order } => {
                let what = if order.reason.contains("lease") {
                    "agent's lease ran out"
                } else if order.reason == "simulated" || order.reason.contains("fail-fast") {
                    "cancel delivered"
                } else {
                    "agent ended an attempt that wasn't its own any more"
                };
                self.tally.count(what);
                self.end_cell(agent, &token, order)?;
            }
            Effect::DropLogs { token, .. } => {
                let pause = self.random.millis(0, 50);
                self.later(pause, Happening::LogsOver { agent, life, token });
            }
            Effect::Prefetch(images) => {
                let effects = self.machines[agent].ahead.handle(Ahead::Wanted(images));
                self.prepare(agent, effects)?;
            }
            // No simulated agent keeps any.
            Effect::RemoveSnapshots(_) => {}
            Effect::Reconnect(_) => {
                if let Some(connection) = self.machines[agent].connection {
                    let learns = !self.network.parted(agent, self.now);
                    self.hang_up(connection, false, learns);
                    self.cut_off(connection, agent);
                }
            }
            Effect::Leave => {
                self.tally.count("agent left");
                if let Some(connection) = self.machines[agent].connection {
                    self.later(Duration::from_secs(4), Happening::HangUp { connection });
                    self.later(
                        Duration::from_secs(4),
                        Happening::UpBroken { connection, agent },
                    );
                }
                self.machines[agent].kill();
                let pause = self.random.millis(5_000, 8_000);
                self.later(pause, Happening::StartAgent { agent });
            }
        }
        Ok(())
    }

    /// Begins and gives up the preparation of images, and reports it.
    fn prepare(&mut self, agent: usize, effects: Vec<AheadEffect>) -> Res {
        let life = self.machines[agent].life;
        for effect in effects {
            match effect {
                AheadEffect::Begin { number, image } => {
                    self.machines[agent].preparing.insert(number, image);
                    // Some hang until they are given up.
                    let pause = match self.random.chance(100) {
                        true => HANGS,
                        false => self.random.millis(500, 5_000),
                    };
                    self.later(
                        pause,
                        Happening::Prepared {
                            agent,
                            life,
                            number,
                        },
                    );
                }
                AheadEffect::GiveUp { number } => {
                    self.tally.count("preparation given up");
                    self.machines[agent].preparing.remove(&number);
                }
                AheadEffect::Report(images) => {
                    self.with_link(agent, |link| link.prepares(images))?;
                }
            }
        }
        Ok(())
    }

    /// Ends the preparation of an image: it is there, or that failed.
    pub fn prepared(&mut self, agent: usize, life: u64, number: u64) -> Res {
        let ready = !self.random.chance(150);
        let machine = &mut self.machines[agent];
        if machine.link.is_none() || machine.life != life {
            return Ok(());
        }
        let Some(image) = machine.preparing.remove(&number) else {
            return Ok(());
        };
        match ready {
            true => {
                self.tally.count("image prepared ahead");
                machine.about.images.push(image.id().to_owned());
                let images = machine.about.images.clone();
                if let Some(link) = &mut machine.link {
                    link.holds_images(images);
                }
            }
            false => self.tally.count("preparation failed"),
        }
        let ended = Ahead::Ended { number, ready };
        let effects = self.machines[agent].ahead.handle(ended);
        self.prepare(agent, effects)
    }

    /// Returns whether no agent prepares an image.
    pub fn nobody_prepares(&self) -> bool {
        let idle = |machine: &super::machine::Machine| machine.preparing.is_empty();
        self.machines.iter().all(idle)
    }

    pub fn logs_over(&mut self, agent: usize, life: u64, token: Token) -> Res {
        if self.machines[agent].life != life {
            return Ok(());
        }
        let gap = EventKind::LogGap {
            service: "db".to_owned(),
            stream: LogStream::Stdout,
            from: 0,
            to: 1,
            reason: "simulated".to_owned(),
        };
        let gaps = if self.random.chance(100) {
            vec![gap]
        } else {
            vec![]
        };
        let now = self.now;
        self.with_link(agent, |link| link.logs_over(now, Over { token, gaps }))
    }
}
