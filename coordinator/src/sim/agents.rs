//! The agents' side of the world: processes, connections, and the effects of links.

use super::Switch;
use super::engine::REAP_EVERY;
use super::machine::Disk;
use super::network::Message;
use super::world::{Happening, Res, World};
use crate::dispatch::core::ConnectionId;
use phalanx_agent::link::backoff;
use phalanx_agent::link::core::{Effect, Link};
use phalanx_agent::link::logs::spool::Over;
use phalanx_proto::link::{FromAgent, ToAgent};
use phalanx_shared::event::{EventKind, LogStream};
use phalanx_shared::id::Token;
use std::time::Duration;

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
                let pause = self.random.millis(500, 5_000);
                self.later(
                    pause,
                    Happening::Pulled {
                        agent,
                        life,
                        images,
                    },
                );
            }
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

    /// Adds pulled images to an agent, which queued cells will need.
    pub fn pulled(&mut self, agent: usize, life: u64, images: Vec<String>) {
        let machine = &mut self.machines[agent];
        if let (Some(link), true) = (&mut machine.link, machine.life == life) {
            self.tally.count("images pulled ahead");
            for image in images {
                if !machine.about.images.contains(&image) {
                    machine.about.images.push(image);
                }
            }
            link.holds_images(machine.about.images.clone());
        }
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
